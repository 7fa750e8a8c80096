//! Datagrams that are on their way to the store, until all that they brought has come to its end there.
//!
//! Owns: the table and its bound, what each datagram waits for, who is leaving. Does not own: what follows (`door.rs`).
//! It is of all sockets together, since the hub may tell any socket of a device that has just moved from another.

use std::collections::HashMap;
use std::sync::Arc;

use landfall_channel::Via;
use landfall_net::DatagramSocket;
use parking_lot::Mutex;
use slab::Slab;

use crate::guard::{Device, Taken};
use crate::metrics::{Metrics, level};

/// A datagram that is on its way to the store.
#[derive(Debug)]
pub(crate) struct Unstored {
    /// Where it came in: its ack leaves from there. From a channel only the task of its socket can send: see `Door::transmit`.
    pub(crate) socket: Arc<DatagramSocket>,
    pub(crate) via: Via,
    pub(crate) ack: bool,
    pub(crate) seq: Option<u64>,
    pub(crate) taken: Option<Taken>,
    /// Whose session it ends.
    pub(crate) leaving: Option<Device>,
    /// Parts of it that are still to be told of: a message, a beginning, an end.
    pub(crate) parts: u8,
}

#[derive(Debug)]
struct Entry {
    unstored: Unstored,
    serial: u32,
    is_lost: bool,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: Slab<Entry>,
    /// Devices whose end is on its way, each with its token.
    leaving: HashMap<Device, u64, ahash::RandomState>,
    /// Of the newest entry: a token that is told late is not taken for another's.
    serial: u32,
}

impl Inside {
    fn entry(&mut self, token: u64) -> Option<&mut Entry> {
        let (serial, place) = parted(token)?;
        self.waiting.get_mut(place).filter(|entry| entry.serial == serial)
    }

    fn remove(&mut self, token: u64) -> Option<Entry> {
        self.entry(token)?;
        let entry = self.waiting.try_remove(parted(token)?.1)?;
        if let Some(device) = &entry.unstored.leaving
            && self.leaving.get(device) == Some(&token)
        {
            self.leaving.remove(device);
        }
        Some(entry)
    }
}

fn parted(token: u64) -> Option<(u32, usize)> {
    let place = usize::try_from(token & u64::from(u32::MAX)).ok()?;
    Some((u32::try_from(token >> 32).ok()?, place))
}

/// The datagrams that wait for the store and whose fate matters here.
#[derive(Debug)]
pub(crate) struct UnstoredTable {
    inside: Mutex<Inside>,
    limit: usize,
}

impl UnstoredTable {
    pub(crate) fn new(limit: usize) -> Self {
        // A place has to fit into half a token.
        Self { inside: Mutex::default(), limit: limit.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX)) }
    }

    /// Keeps a datagram and returns its token; when there is no room, gives its number back.
    pub(crate) fn insert(&self, unstored: Unstored, metrics: &Metrics) -> Result<u64, Option<Taken>> {
        let mut inside = self.inside.lock();
        if inside.waiting.len() >= self.limit {
            return Err(unstored.taken);
        }
        inside.serial = inside.serial.wrapping_add(1);
        let serial = inside.serial;
        let leaving = unstored.leaving.clone();
        let place = inside.waiting.insert(Entry { unstored, serial, is_lost: false });
        let token = u64::from(serial) << 32 | u64::try_from(place).unwrap_or(u64::from(u32::MAX));
        if let Some(device) = leaving {
            inside.leaving.insert(device, token);
        }
        metrics.unstored.set(level(inside.waiting.len()));
        Ok(token)
    }

    /// One part of the datagram is stored, or never will be. With the last one the datagram is returned, and whether all of
    /// it is stored.
    pub(crate) fn settle(&self, token: u64, is_stored: bool, metrics: &Metrics) -> Option<(Unstored, bool)> {
        let mut inside = self.inside.lock();
        let entry = inside.entry(token)?;
        entry.is_lost |= !is_stored;
        entry.unstored.parts = entry.unstored.parts.saturating_sub(1);
        if entry.unstored.parts > 0 {
            return None;
        }
        let entry = inside.remove(token)?;
        metrics.unstored.set(level(inside.waiting.len()));
        Some((entry.unstored, !entry.is_lost))
    }

    /// Takes a datagram out; `None` when there is none of this token.
    pub(crate) fn remove(&self, token: u64, metrics: &Metrics) -> Option<Unstored> {
        let mut inside = self.inside.lock();
        let entry = inside.remove(token)?;
        metrics.unstored.set(level(inside.waiting.len()));
        Some(entry.unstored)
    }

    /// Is the end of the device, which it has told itself, still on its way?
    pub(crate) fn is_leaving(&self, device: &Device) -> bool {
        self.inside.lock().leaving.contains_key(device)
    }

    /// Does anything wait that came in at `socket`?
    pub(crate) fn has_of(&self, socket: &Arc<DatagramSocket>) -> bool {
        self.inside.lock().waiting.iter().any(|(_, entry)| Arc::ptr_eq(&entry.unstored.socket, socket))
    }
}

#[cfg(test)]
mod tests {
    use landfall_net::{DatagramSettings, Datagrams, Path};

    use super::*;

    async fn socket() -> Arc<DatagramSocket> {
        let endpoint = "udp://127.0.0.1:0".parse().unwrap();
        Arc::new(Datagrams::bind(&endpoint, DatagramSettings::default()).await.unwrap().remove(0))
    }

    fn unstored(socket: &Arc<DatagramSocket>, parts: u8, leaving: Option<&Device>) -> Unstored {
        let path = Path { remote: socket.local_addr(), local: None };
        Unstored {
            socket: Arc::clone(socket),
            via: path.into(),
            ack: true,
            seq: None,
            taken: None,
            leaving: leaving.cloned(),
            parts,
        }
    }

    #[tokio::test]
    async fn a_datagram_is_stored_when_all_its_parts_are() {
        let (table, metrics, socket) = (UnstoredTable::new(2), Metrics::default(), socket().await);
        let two = table.insert(unstored(&socket, 2, None), &metrics).unwrap();
        let lost = table.insert(unstored(&socket, 2, None), &metrics).unwrap();
        assert!(table.insert(unstored(&socket, 1, None), &metrics).is_err());
        assert!(table.settle(two, true, &metrics).is_none());
        assert!(table.settle(two, true, &metrics).unwrap().1);
        assert!(table.settle(lost, false, &metrics).is_none());
        assert!(!table.settle(lost, true, &metrics).unwrap().1);
        assert!(!table.has_of(&socket));
    }

    #[tokio::test]
    async fn a_token_is_of_one_datagram_only() {
        let (table, metrics, socket) = (UnstoredTable::new(2), Metrics::default(), socket().await);
        let old = table.insert(unstored(&socket, 1, None), &metrics).unwrap();
        assert!(table.remove(old, &metrics).is_some());
        let new = table.insert(unstored(&socket, 1, None), &metrics).unwrap();
        assert!(table.settle(old, false, &metrics).is_none() && table.remove(old, &metrics).is_none());
        assert!(table.settle(new, true, &metrics).unwrap().1);
    }

    #[tokio::test]
    async fn who_leaves_is_leaving_until_the_end_is_stored() {
        let (table, metrics, socket) = (UnstoredTable::new(9), Metrics::default(), socket().await);
        let device = ("t".parse().unwrap(), "d".parse().unwrap());
        let first = table.insert(unstored(&socket, 1, Some(&device)), &metrics).unwrap();
        let second = table.insert(unstored(&socket, 1, Some(&device)), &metrics).unwrap();
        table.settle(first, true, &metrics);
        assert!(table.is_leaving(&device), "it has come back and leaves again");
        table.settle(second, true, &metrics);
        assert!(!table.is_leaving(&device));
    }
}
