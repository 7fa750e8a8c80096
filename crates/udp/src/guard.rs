//! The newest signed number of every device that signs, whether it has a session or not.
//!
//! Owns: the table and its bound. Does not own: the rule (`replay.rs`). Only a right signature makes an entry, so strangers
//! cannot fill it. It is empty after a restart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use landfall_event::{DeviceId, TenantId};
use landfall_hub::Principal;
use parking_lot::Mutex;

use crate::replay::{Novelty, Replay};

const SHARDS: usize = 16;

/// Whose number it is. Cloning it copies two pointers.
pub(crate) type Device = (TenantId, DeviceId);

/// A device's number, taken: it is to be settled or given back.
#[derive(Debug)]
pub(crate) struct Taken {
    device: Device,
    seq: u64,
    /// It was given back before, so its sign of life has been counted.
    pub(crate) is_retry: bool,
}

/// What a signed number is, in the sight of all devices.
#[derive(Debug)]
pub(crate) enum Checked {
    Taken(Taken),
    /// A retransmission; when it is settled, its ack may be said again.
    Again {
        is_settled: bool,
    },
    Stale,
    /// No room for one more device.
    Full,
}

#[derive(Debug)]
pub(crate) struct Guard {
    shards: [Mutex<HashMap<Device, Replay, ahash::RandomState>>; SHARDS],
    hasher: ahash::RandomState,
    devices: AtomicUsize,
    max_devices: usize,
    /// In seconds.
    retry_within: u64,
}

impl Guard {
    pub(crate) fn new(max_devices: usize, retry_within: Duration) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(ahash::RandomState::new())));
        Self {
            shards,
            hasher: ahash::RandomState::new(),
            devices: AtomicUsize::new(0),
            max_devices,
            retry_within: retry_within.as_secs(),
        }
    }

    fn shard(&self, device: &Device) -> &Mutex<HashMap<Device, Replay, ahash::RandomState>> {
        let at = usize::try_from(self.hasher.hash_one(device) % (SHARDS as u64)).unwrap_or(0);
        #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is below SHARDS")]
        &self.shards[at]
    }

    /// Looks at a number whose signature is right, at a time in seconds, and takes it if it is new.
    pub(crate) fn check(&self, principal: &Principal, seq: u64, mac: &[u8; 32], now: u64) -> Checked {
        let within = self.retry_within;
        let device = (principal.tenant.clone(), principal.device.clone());
        let mut shard = self.shard(&device).lock();
        let novelty = match shard.get_mut(&device) {
            Some(replay) => replay.check(seq, mac, now, within),
            None => {
                // Sockets that look at the same moment may go over the bound by one each.
                if self.devices.load(Ordering::Relaxed) >= self.max_devices {
                    return Checked::Full;
                }
                self.devices.fetch_add(1, Ordering::Relaxed);
                shard.entry(device.clone()).or_default().check(seq, mac, now, within)
            }
        };
        match novelty {
            Novelty::New => Checked::Taken(Taken { device, seq, is_retry: false }),
            Novelty::Retry => Checked::Taken(Taken { device, seq, is_retry: true }),
            Novelty::Again { is_settled } => Checked::Again { is_settled },
            Novelty::Stale => Checked::Stale,
        }
    }

    /// It is stored, or there was nothing to store.
    pub(crate) fn settle(&self, taken: &Taken) {
        if let Some(replay) = self.shard(&taken.device).lock().get_mut(&taken.device) {
            replay.settle(taken.seq);
        }
    }

    /// It was not dealt with: the same datagram may come again.
    pub(crate) fn give_back(&self, taken: &Taken) {
        if let Some(replay) = self.shard(&taken.device).lock().get_mut(&taken.device) {
            replay.give_back(taken.seq);
        }
    }

    /// Devices in the table.
    pub(crate) fn devices(&self) -> usize {
        self.devices.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use landfall_event::IdentifiedBy;

    use super::*;

    fn principal(device: &str) -> Principal {
        Principal {
            tenant: "default".parse().unwrap(),
            device: device.parse().unwrap(),
            identified_by: IdentifiedBy::Password,
            app_version: "".into(),
            acl: Arc::default(),
            keep_alive: None,
        }
    }

    #[test]
    fn devices_are_told_apart_and_bounded() {
        let guard = Guard::new(2, Duration::from_secs(300));
        assert!(matches!(guard.check(&principal("a"), 5, &[1; 32], 0), Checked::Taken(_)));
        assert!(matches!(guard.check(&principal("b"), 5, &[1; 32], 0), Checked::Taken(_)));
        assert!(matches!(guard.check(&principal("c"), 5, &[1; 32], 0), Checked::Full));
        assert!(matches!(guard.check(&principal("a"), 5, &[1; 32], 0), Checked::Again { is_settled: false }));
        assert!(matches!(guard.check(&principal("a"), 4, &[1; 32], 0), Checked::Stale));
        assert_eq!(guard.devices(), 2);
    }
}
