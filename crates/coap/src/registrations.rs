//! The registrations at `/rd`: their names, and whose they are (RFC 9176, section 5).
//!
//! Owns: the names, which nobody can guess, and the table of all sockets. Does not own: what a registration is: its
//! session, and no more.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use landfall_hub::{PeerHandle, PeerId};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use sha2::Sha256;

use crate::metrics::level;
use crate::sweep::Sweep;

/// Bytes of a name before it is written as text.
const NAME: usize = 16;

#[derive(Debug)]
pub(crate) struct Registrations {
    names: Names,
    known: Mutex<Known>,
    gauge: Gauge,
}

#[derive(Debug)]
struct Known {
    by_name: HashMap<String, PeerHandle, ahash::RandomState>,
    sweep: Sweep,
}

/// A session's name is a code over its id under a key of this process: the same for the same session, new for the next,
/// and worth nothing without the key.
struct Names(Hmac<Sha256>);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names(..)")
    }
}

impl Names {
    fn random() -> Self {
        let key: [u8; 32] = rand::random();
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of every length"))
    }

    fn of(&self, peer: PeerId) -> String {
        let code: [u8; 32] = self.0.clone().chain_update(peer.to_bytes()).finalize().into_bytes().into();
        URL_SAFE_NO_PAD.encode(code.get(..NAME).unwrap_or_default())
    }
}

impl Registrations {
    pub(crate) fn new(limit: usize, gauge: Gauge) -> Self {
        let known = Known { by_name: HashMap::default(), sweep: Sweep::new(limit) };
        Self { names: Names::random(), known: Mutex::new(known), gauge }
    }

    /// The name of the session's registration, the same each time; `None` when there is no room for another.
    pub(crate) fn enter(&self, peer: &PeerHandle) -> Option<String> {
        let name = self.names.of(peer.id());
        let mut known = self.known.lock();
        let Known { by_name, sweep } = &mut *known;
        if !by_name.contains_key(&name) {
            if sweep.is_due(by_name.len()) {
                by_name.retain(|_, peer| !peer.is_over());
                sweep.is_done(by_name.len());
            }
            if !sweep.has_room(by_name.len()) {
                return None;
            }
            by_name.insert(name.clone(), peer.clone());
            self.gauge.set(level(by_name.len()));
        }
        Some(name)
    }

    /// The open session of this name.
    pub(crate) fn get(&self, name: &str) -> Option<PeerHandle> {
        self.known.lock().by_name.get(name).filter(|peer| !peer.is_over()).cloned()
    }

    /// The session is over, or has taken its registration back.
    pub(crate) fn forget(&self, peer: PeerId) {
        let name = self.names.of(peer);
        let mut known = self.known.lock();
        known.by_name.remove(&name);
        self.gauge.set(level(known.by_name.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_sessions_and_says_nothing_of_it() {
        let (names, others) = (Names::random(), Names::random());
        let (a, b) = (PeerId::from(1), PeerId::from(2));
        assert_eq!(names.of(a), names.of(a));
        assert_ne!(names.of(a), names.of(b));
        assert_ne!(names.of(a), others.of(a));
        assert_eq!(names.of(a).len(), 22);
        assert!(names.of(a).bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }
}
