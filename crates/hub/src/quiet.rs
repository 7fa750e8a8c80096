//! Commands for devices whose silence ended their session: they wait for the next word, up to their time to live.
//!
//! Owns: which devices those are, and what waits for them. Does not own: outcomes. Pure: time is an argument.
//!
//! Only a device that has been here and fell silent is waited for: for one that nobody has heard of, "not connected" at
//! once is the better answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use landfall_event::{DeviceId, TenantId, UnixMs};

use crate::{Command, NotKept};

type Device = (TenantId, DeviceId);

/// A command that waits for its device's next word.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) command: Arc<Command>,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// It is not to be sent again: the device may confirm or answer it.
    pub(crate) is_out: bool,
}

impl Waits {
    pub(crate) fn unsent(command: Arc<Command>) -> Self {
        Self { command, attempts: 0, is_out: false }
    }
}

#[derive(Debug)]
pub(crate) struct Quiet {
    /// By a keyed hash of the name: a million devices may fall silent at once. Two of one hash cost a command that is
    /// waited with in vain, once in 2^64.
    known: HashMap<u64, u64, ahash::RandomState>,
    /// Oldest first; an entry whose number is not the device's any more is skipped.
    order: VecDeque<(u64, u64)>,
    waiting: HashMap<Device, VecDeque<(u64, Waits)>>,
    by_time: BTreeMap<(UnixMs, u64), Device>,
    hasher: ahash::RandomState,
    made: u64,
    max_devices: usize,
    max_commands: usize,
    /// The gateway drains: nothing waits any more.
    closed: bool,
}

impl Quiet {
    /// Remembers `max_devices` devices, and keeps `max_commands` for each.
    pub(crate) fn new(max_devices: usize, max_commands: usize) -> Self {
        Self {
            known: HashMap::default(),
            order: VecDeque::new(),
            waiting: HashMap::new(),
            by_time: BTreeMap::new(),
            hasher: ahash::RandomState::new(),
            made: 0,
            max_devices,
            max_commands,
            closed: false,
        }
    }

    fn mark(&self, tenant: &TenantId, device: &DeviceId) -> u64 {
        self.hasher.hash_one((tenant, device))
    }

    /// Commands that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.by_time.len()
    }

    /// Devices remembered.
    pub(crate) fn devices(&self) -> usize {
        self.known.len()
    }

    /// Silence has ended the device's session. Beyond the bound, whoever fell silent first is forgotten; what waits for it
    /// waits on.
    pub(crate) fn note(&mut self, tenant: &TenantId, device: &DeviceId) {
        if self.max_devices == 0 {
            return;
        }
        self.made += 1;
        let mark = self.mark(tenant, device);
        self.order.push_back((mark, self.made));
        self.known.insert(mark, self.made);
        if self.order.len() > 2 * self.max_devices {
            let known = &self.known;
            self.order.retain(|(mark, number)| known.get(mark) == Some(number));
        }
        while self.known.len() > self.max_devices {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.known.get(&oldest) == Some(&number) {
                self.known.remove(&oldest);
            }
        }
    }

    /// Keeps a command for a device that is silent.
    pub(crate) fn keep(&mut self, waits: Waits) -> Result<(), NotKept> {
        let command = &waits.command;
        if self.closed || !self.known.contains_key(&self.mark(&command.tenant, &command.device)) {
            return Err(NotKept::Absent);
        }
        let device = (command.tenant.clone(), command.device.clone());
        let waiting = self.waiting.entry(device.clone()).or_default();
        if waiting.len() >= self.max_commands {
            return Err(NotKept::Full);
        }
        if waiting.iter().any(|(_, other)| other.command.id == command.id) {
            return Err(NotKept::Duplicate);
        }
        self.made += 1;
        self.by_time.insert((command.expires_at, self.made), device);
        waiting.push_back((self.made, waits));
        Ok(())
    }

    /// The device speaks again: what waited for it, oldest first.
    pub(crate) fn take(&mut self, device: &Device) -> Vec<Waits> {
        if !self.known.is_empty() {
            self.known.remove(&self.mark(&device.0, &device.1));
        }
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let waited = self.waiting.remove(device).into_iter().flatten();
        waited
            .map(|(number, waits)| {
                self.by_time.remove(&(waits.command.expires_at, number));
                waits
            })
            .collect()
    }

    /// The commands whose time is over.
    pub(crate) fn due(&mut self, now: UnixMs) -> Vec<Waits> {
        let later = self.by_time.split_off(&(now.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.by_time, later);
        due.into_iter()
            .filter_map(|((_, number), device)| {
                let waiting = self.waiting.get_mut(&device)?;
                let at = waiting.iter().position(|(n, _)| *n == number)?;
                let waits = waiting.remove(at);
                if waiting.is_empty() {
                    self.waiting.remove(&device);
                }
                waits.map(|(_, waits)| waits)
            })
            .collect()
    }

    /// Everything that waits, at shutdown; nothing is kept any more.
    pub(crate) fn flush(&mut self) -> Vec<Waits> {
        self.closed = true;
        self.due(UnixMs::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::CommandRequest;

    fn command(device: &str, id: &str, ttl_ms: u64) -> Waits {
        let request = CommandRequest {
            tenant: "default".parse().unwrap(),
            device: device.parse().unwrap(),
            id: Some(id.to_owned()),
            name: None,
            ttl: Some(ttl_ms.to_string()),
            wait: None,
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::new(),
            reply: None,
        };
        Waits::unsent(Arc::new(request.check(1_000, Duration::from_secs(60)).command))
    }

    fn device(name: &str) -> Device {
        ("default".parse().unwrap(), name.parse().unwrap())
    }

    fn note(quiet: &mut Quiet, name: &str) {
        let (tenant, device) = device(name);
        quiet.note(&tenant, &device);
    }

    fn ids(waiting: &[Waits]) -> Vec<&str> {
        waiting.iter().map(|waits| waits.command.id.as_str()).collect()
    }

    #[test]
    fn what_waits_goes_out_in_order_with_the_next_word() {
        let mut quiet = Quiet::new(4, 4);
        assert_eq!(quiet.keep(command("a", "c1", 10)), Err(NotKept::Absent));
        note(&mut quiet, "a");
        assert_eq!(quiet.keep(command("a", "c1", 10)), Ok(()));
        assert_eq!(quiet.keep(command("a", "c2", 5)), Ok(()));
        assert_eq!(quiet.keep(command("a", "c2", 5)), Err(NotKept::Duplicate));
        assert_eq!(ids(&quiet.take(&device("a"))), ["c1", "c2"]);
        assert_eq!((quiet.waiting(), quiet.devices()), (0, 0));
    }

    #[test]
    fn a_time_to_live_ends_the_wait() {
        let mut quiet = Quiet::new(4, 4);
        note(&mut quiet, "a");
        quiet.keep(command("a", "late", 500)).unwrap();
        quiet.keep(command("a", "soon", 100)).unwrap();
        assert!(quiet.due(1_099).is_empty());
        assert_eq!(ids(&quiet.due(1_100)), ["soon"]);
        assert_eq!(ids(&quiet.take(&device("a"))), ["late"]);
    }

    #[test]
    fn devices_and_commands_are_bounded() {
        let mut quiet = Quiet::new(2, 1);
        note(&mut quiet, "a");
        quiet.keep(command("a", "c1", 10)).unwrap();
        assert_eq!(quiet.keep(command("a", "c2", 10)), Err(NotKept::Full));
        note(&mut quiet, "b");
        note(&mut quiet, "c");
        assert_eq!(quiet.keep(command("a", "c2", 10)), Err(NotKept::Absent), "the oldest is forgotten");
        assert_eq!(ids(&quiet.take(&device("a"))), ["c1"], "and what waited for it waits on");
        for _ in 0..100 {
            note(&mut quiet, "c");
        }
        assert_eq!(quiet.devices(), 2);
        assert!(quiet.order.len() <= 4);
        quiet.keep(command("c", "c3", 10)).unwrap();
        assert_eq!(ids(&quiet.flush()), ["c3"]);
        assert_eq!(quiet.keep(command("c", "c4", 10)), Err(NotKept::Absent), "nobody would take it out");
    }
}
