//! Wills that wait for their delay after their session has ended (MQTT 5.0 section 3.1.3.2.2).
//!
//! Owns: when each is due and who takes it back. Does not own: publishing them. Pure: time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use landfall_event::{DeviceId, TenantId};

use crate::session::{Session, Uplink};

type Device = (TenantId, DeviceId);

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) session: Arc<Session>,
    pub(crate) uplink: Uplink,
}

/// At most one will waits per device: only one MQTT session of it can have ended since the last one began.
#[derive(Debug, Default)]
pub(crate) struct Wills {
    by_due: BTreeMap<(u64, u64), (Device, Waiting)>,
    by_device: HashMap<Device, (u64, u64)>,
    made: u64,
}

impl Wills {
    /// Lets a will wait until `due`; returns one of the same device that waited, which is due now.
    pub(crate) fn wait(&mut self, due: u64, waiting: Waiting) -> Option<Waiting> {
        let device = (waiting.session.info.tenant.clone(), waiting.session.info.device.clone());
        let earlier = self.take(&device);
        self.made += 1;
        self.by_device.insert(device.clone(), (due, self.made));
        self.by_due.insert((due, self.made), (device, waiting));
        earlier
    }

    /// Wills that wait now.
    pub(crate) fn len(&self) -> usize {
        self.by_due.len()
    }

    /// The device's will, if one waits.
    pub(crate) fn take(&mut self, device: &Device) -> Option<Waiting> {
        if self.by_device.is_empty() {
            return None;
        }
        let at = self.by_device.remove(device)?;
        self.by_due.remove(&at).map(|(_, waiting)| waiting)
    }

    /// The wills that are due.
    pub(crate) fn due(&mut self, now: u64) -> Vec<Waiting> {
        let later = self.by_due.split_off(&(now.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.by_due, later);
        due.into_values()
            .map(|(device, waiting)| {
                self.by_device.remove(&device);
                waiting
            })
            .collect()
    }
}
