//! Whose address is it: for what comes without a name (a ping, an acknowledgement, a request without `ep`), but for secure
//! channels that have proven whose they are (`secure.rs`).
//!
//! Owns: the table of one socket, and its bound. Does not own: what an address alone may prove (`admission.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use landfall_channel::{Channel, Via};
use landfall_hub::PeerHandle;

use crate::sweep::Sweep;

/// Addresses, and the sessions that were last heard from there; with the address of ours that they spoke to, or the channel
/// that they spoke on: an address has one at a time.
#[derive(Debug)]
pub(crate) struct Paths {
    known: HashMap<SocketAddr, Known, ahash::RandomState>,
    sweep: Sweep,
}

#[derive(Debug)]
struct Known {
    local: Option<IpAddr>,
    channel: Option<Channel>,
    peer: PeerHandle,
}

impl Paths {
    pub(crate) fn new(limit: usize) -> Self {
        Self { known: HashMap::default(), sweep: Sweep::new(limit) }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// The session was heard that way.
    pub(crate) fn note(&mut self, via: &Via, peer: &PeerHandle) {
        let Via { path, channel } = *via;
        if let Some(known) = self.known.get_mut(&path.remote) {
            (known.local, known.channel) = (path.local, channel);
            if known.peer.id() != peer.id() {
                known.peer = peer.clone();
            }
            return;
        }
        if self.sweep.is_due(self.known.len()) {
            self.known.retain(|remote, known| is_from(&known.peer, remote));
            self.sweep.is_done(self.known.len());
        }
        if self.sweep.has_room(self.known.len()) {
            self.known.insert(path.remote, Known { local: path.local, channel, peer: peer.clone() });
        }
    }

    /// The session whose device was last heard from exactly there, if it is open.
    pub(crate) fn get(&self, via: &Via) -> Option<&PeerHandle> {
        self.once(via).filter(|peer| is_from(peer, &via.path.remote))
    }

    /// The open session that was heard from there, even if it has been heard from elsewhere since.
    pub(crate) fn once(&self, via: &Via) -> Option<&PeerHandle> {
        let known = self.known.get(&via.path.remote)?;
        let is_there = known.local == via.path.local && known.channel == via.channel;
        (is_there && !known.peer.is_over()).then_some(&known.peer)
    }

    /// The session is over.
    pub(crate) fn forget(&mut self, peer: &PeerHandle) {
        let remote = peer.remote_address();
        if self.known.get(&remote).is_some_and(|known| known.peer.id() == peer.id()) {
            self.known.remove(&remote);
        }
    }
}

fn is_from(peer: &PeerHandle, remote: &SocketAddr) -> bool {
    !peer.is_over() && peer.remote_address() == *remote
}
