//! Whose address is it: for what comes without a name (a ping, an acknowledgement, a request without `ep`).
//!
//! Owns: the table of one socket, and its bound. Does not own: what an address alone may prove (`admission.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use landfall_hub::PeerHandle;
use landfall_net::Path;

use crate::sweep::Sweep;

/// Addresses, and the sessions that were last heard from there; with the address of ours that they spoke to.
#[derive(Debug)]
pub(crate) struct Paths {
    known: HashMap<SocketAddr, (Option<IpAddr>, PeerHandle), ahash::RandomState>,
    sweep: Sweep,
}

impl Paths {
    pub(crate) fn new(limit: usize) -> Self {
        Self { known: HashMap::default(), sweep: Sweep::new(limit) }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// The session was heard along the path.
    pub(crate) fn note(&mut self, path: &Path, peer: &PeerHandle) {
        if let Some((local, known)) = self.known.get_mut(&path.remote) {
            *local = path.local;
            if known.id() != peer.id() {
                *known = peer.clone();
            }
            return;
        }
        if self.sweep.is_due(self.known.len()) {
            self.known.retain(|remote, (_, peer)| is_from(peer, remote));
            self.sweep.is_done(self.known.len());
        }
        if self.sweep.has_room(self.known.len()) {
            self.known.insert(path.remote, (path.local, peer.clone()));
        }
    }

    /// The session whose device was last heard from exactly there, if it is open.
    pub(crate) fn get(&self, path: &Path) -> Option<&PeerHandle> {
        self.once(path).filter(|peer| is_from(peer, &path.remote))
    }

    /// The open session that was heard from there, even if it has been heard from elsewhere since.
    pub(crate) fn once(&self, path: &Path) -> Option<&PeerHandle> {
        let (local, peer) = self.known.get(&path.remote)?;
        (*local == path.local && !peer.is_over()).then_some(peer)
    }

    /// The session is over.
    pub(crate) fn forget(&mut self, peer: &PeerHandle) {
        let remote = peer.remote_address();
        if self.known.get(&remote).is_some_and(|(_, known)| known.id() == peer.id()) {
            self.known.remove(&remote);
        }
    }
}

fn is_from(peer: &PeerHandle, remote: &SocketAddr) -> bool {
    !peer.is_over() && peer.remote_address() == *remote
}
