//! What is kept with each channel, from the question whose it is to its end.
//!
//! Owns: the table by key. Does not own: when one begins and ends (`outlet.rs`, `channels.rs`).

use std::collections::HashMap;

use ahash::RandomState;
use futures_util::future::AbortHandle;
use landfall_dtls::Key;
use landfall_event::RefusedCause;
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
}

pub(crate) struct Entry<T> {
    pub(crate) standing: Standing,
    pub(crate) own: T,
}

/// Bounded by the handshakes and sessions of the listener, and by the channels that were closed since it was last looked at
/// what has come.
pub(crate) struct Kept<T>(HashMap<Key, Entry<T>, RandomState>);

impl<T: Default> Kept<T> {
    pub(crate) fn new() -> Self {
        Self(HashMap::default())
    }

    pub(crate) fn put(&mut self, key: Key, standing: Standing) {
        self.0.insert(key, Entry { standing, own: T::default() });
    }

    /// The handshake has succeeded. Who it is, if it has proven that.
    pub(crate) fn opened(&mut self, key: Key) -> Option<Box<Principal>> {
        let nobody = || Entry { standing: Standing::Nobody, own: T::default() };
        match &self.0.entry(key).or_insert_with(nobody).standing {
            Standing::Known(principal) => Some(principal.clone()),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Entry<T>> {
        self.0.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Entry<T>> {
        self.0.get_mut(&key)
    }

    /// Forgets it; nobody waits any more for what the authenticator says.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Standing> {
        let gone = self.0.remove(&key)?.standing;
        if let Standing::Asked(asking) = &gone {
            asking.abort();
        }
        // A burst that is over has had its memory for long enough.
        if self.0.capacity() > 1_024 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(gone)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
