//! What is kept with each channel, from the question whose it is to its end.
//!
//! Owns: the table by key. Does not own: when one begins and ends (`outlet.rs`, `channels.rs`).

use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;
use futures_util::future::AbortHandle;
use landfall_dtls::Key;
use landfall_event::{DeviceId, RefusedCause, TenantId};
use landfall_hub::Principal;

/// What is known of whoever shakes hands, or has.
pub(crate) enum Standing {
    /// The authenticator is being asked; that ends with the handshake.
    Asked(AbortHandle),
    /// It was refused: the handshake will come to nothing.
    Refused(RefusedCause),
    /// It is this one, or says so: until the handshake has succeeded, nothing is proven.
    Known(Box<Principal>),
    /// It has proven nothing.
    Nobody,
    /// Nor has it, but this device was let in on it.
    Vouched(Box<(TenantId, DeviceId)>),
}

pub(crate) struct Entry<T> {
    pub(crate) standing: Standing,
    pub(crate) own: T,
}

/// What a handshake that has succeeded is.
pub(crate) enum Opening {
    /// This device's, which had that channel before.
    Of(Box<Principal>, Option<Key>),
    /// Of a client that has proven nothing.
    Nobodys,
    /// One that the device has begun before the one that it has finished.
    Late,
}

/// Bounded by the handshakes and sessions of the listener, and by the channels that were closed since it was last looked at
/// what has come.
pub(crate) struct Kept<T> {
    entries: HashMap<Key, Entry<T>, RandomState>,
    /// The newest channel of each device that has proven who it is.
    newest: HashMap<(TenantId, DeviceId), Key, RandomState>,
    /// The channels that each device was let in on which has proven nothing in the handshake, the oldest first.
    vouched: HashMap<(TenantId, DeviceId), Vec<Key>, RandomState>,
}

impl<T: Default> Kept<T> {
    pub(crate) fn new() -> Self {
        Self { entries: HashMap::default(), newest: HashMap::default(), vouched: HashMap::default() }
    }

    pub(crate) fn put(&mut self, key: Key, standing: Standing) {
        self.entries.insert(key, Entry { standing, own: T::default() });
    }

    /// The handshake has succeeded.
    pub(crate) fn opened(&mut self, key: Key) -> Opening {
        let nobody = || Entry { standing: Standing::Nobody, own: T::default() };
        let Standing::Known(principal) = &self.entries.entry(key).or_insert_with(nobody).standing else {
            return Opening::Nobodys;
        };
        let newest = self.newest.entry(device(principal)).or_insert(key);
        if key.is_older_than(*newest) {
            return Opening::Late;
        }
        let older = Some(std::mem::replace(newest, key)).filter(|older| *older != key);
        Opening::Of(principal.clone(), older)
    }

    /// This device was let in on a channel that has proven nothing. Returns the device's oldest such channel when it has more than
    /// `most` now.
    pub(crate) fn vouched(&mut self, key: Key, device: (TenantId, DeviceId), most: usize) -> Option<Key> {
        let entry = self.entries.get_mut(&key).filter(|entry| matches!(entry.standing, Standing::Nobody))?;
        entry.standing = Standing::Vouched(Box::new(device.clone()));
        let channels = self.vouched.entry(device).or_default();
        channels.push(key);
        (channels.len() > most).then(|| channels.remove(0))
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry<T>> {
        self.entries.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Entry<T>> {
        self.entries.get_mut(&key)
    }

    /// Forgets it; nobody waits any more for what the authenticator says.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Standing> {
        let gone = self.entries.remove(&key)?.standing;
        match &gone {
            Standing::Asked(asking) => asking.abort(),
            Standing::Known(principal) => {
                let device = device(principal);
                if self.newest.get(&device) == Some(&key) {
                    self.newest.remove(&device);
                }
            }
            Standing::Vouched(device) => {
                if let Some(channels) = self.vouched.get_mut(&**device) {
                    channels.retain(|channel| *channel != key);
                    if channels.is_empty() {
                        self.vouched.remove(&**device);
                    }
                }
            }
            Standing::Refused(_) | Standing::Nobody => {}
        }
        give_back(&mut self.entries);
        give_back(&mut self.newest);
        give_back(&mut self.vouched);
        Some(gone)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.newest.clear();
        self.vouched.clear();
    }
}

fn device(principal: &Principal) -> (TenantId, DeviceId) {
    (principal.tenant.clone(), principal.device.clone())
}

/// A burst that is over has had its memory for long enough.
fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V, RandomState>) {
    if map.capacity() > 1_024 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}
