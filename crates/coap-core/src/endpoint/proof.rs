//! Whether a peer receives at the address that it sends from (RFC 7252, section 11.3; RFC 9175, section 2).
//!
//! Owns: what proves it, the ping that asks for proof, what goes out once there is. Does not own: the credit of those
//! without it (`peers`), Echo values (`echo`).

use std::hash::Hash;

use bytes::Bytes;

use super::{Arrival, Endpoint};
use crate::message::{Kind, Message};
use crate::output::Output;
use crate::secrets::peer_bytes;
use crate::{Tick, codec};

/// Acknowledgements and resets with other ids, after which one message of ours is matched by none any more. Late ones of
/// the messages before it are fewer; and who forges them guesses one id of 65,536 each time.
const MAX_STRAYS: u8 = 32;

/// The ids that came while one was awaited, and were others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strays(u8);

impl Strays {
    /// Whether what came is what was awaited, and not one guess too many.
    #[must_use]
    pub(super) fn matches(&mut self, awaited: u16, came: u16) -> bool {
        if awaited != came {
            self.0 = self.0.saturating_add(1).min(MAX_STRAYS);
        }
        awaited == came && self.0 < MAX_STRAYS
    }
}

/// A ping that is to prove an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    id: u16,
    drawn: Tick,
    strays: Strays,
}

impl<P: Clone + Eq + Hash + std::fmt::Debug> Endpoint<P> {
    /// The peer's address is proven: it has shown a secret, or a secure session is bound to it. Holds for as long as anything
    /// is known of the peer, so it is to be said with every request that proves it. What waited for the proof goes out.
    pub fn prove(&mut self, peer: &P) {
        let Some(slot) = self.peers.find(peer) else { return };
        if let Some(known) = self.peers.get_mut(slot) {
            known.vouched = true;
        }
        self.proves(slot);
    }

    /// Whether the peer's address is proven.
    #[must_use]
    pub fn is_proven(&self, peer: &P) -> bool {
        self.peers.find(peer).and_then(|slot| self.peers.get(slot)).is_some_and(|known| known.proven)
    }

    /// Asks a peer to prove its address: a ping of four bytes, with an id that only who receives it can reset (RFC 7252,
    /// section 4.3). [`Output::Proven`] follows when it does, which says that somebody lives at the address, though not
    /// that he asked for anything. Nothing happens if it is proven already, unknown, or without credit for four bytes.
    pub fn probe(&mut self, now: Tick, peer: &P) {
        if let Some(slot) = self.peers.find(peer) {
            self.probe_slot(now, slot);
        }
    }

    /// The same ping for a while, so that who guesses its id gains nothing from another.
    pub(super) fn probe_slot(&mut self, now: Tick, slot: u32) {
        let while_ms = self.limits.max_transmit_span_ms();
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| !peer.proven) else { return };
        let known = peer.probe.filter(|probe| now < probe.drawn + while_ms);
        let probe = match known {
            Some(probe) => probe,
            None => {
                let secrets = &self.secrets;
                let ids =
                    peer.ids.get_or_insert_with(|| crate::secrets::MessageIds::new(secrets, &peer.address));
                let Ok(id) = ids.draw(now) else { return };
                Probe { id, drawn: now, strays: Strays::default() }
            }
        };
        peer.probe = Some(probe);
        self.transmit(slot, codec::encode(&Message::empty(Kind::Con, probe.id)));
    }

    /// Whether a reset is the answer to a probe.
    pub(super) fn probed(&mut self, now: Tick, peer: &P, id: u16) -> bool {
        let Some(slot) = self.peers.find(peer) else { return false };
        let lifetime = self.limits.exchange_lifetime_ms();
        let probe = self.peers.get_mut(slot).and_then(|known| known.probe.as_mut());
        let Some(probe) = probe.filter(|probe| now < probe.drawn + lifetime) else { return false };
        if !probe.strays.matches(probe.id, id) {
            return false;
        }
        self.outputs.push_back(Output::Heard { peer: peer.clone() });
        self.proves_itself(peer, slot);
        true
    }

    /// An Echo value that we made for this peer proves its address (RFC 9175, section 2.3). Another one is as none.
    pub(super) fn prove_by_echo(&mut self, arrival: &Arrival<'_, P>, echo: Option<&Bytes>) {
        let Some(value) = echo else { return };
        if !self.echo.verify(arrival.now, &peer_bytes(arrival.peer), value) {
            return;
        }
        if let Some(slot) = self.peers.admit(self.limits.max_peers, arrival.peer, arrival.length()) {
            self.proves_itself(arrival.peer, slot);
        }
    }

    /// The peer has proven its address by what it sent.
    pub(super) fn proves_itself(&mut self, peer: &P, slot: u32) {
        if self.proves(slot) {
            self.outputs.push_back(Output::Proven { peer: peer.clone() });
        }
    }

    /// Says whether that is new. What lacked the credit goes out.
    fn proves(&mut self, slot: u32) -> bool {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| !peer.proven) else { return false };
        (peer.proven, peer.probe) = (true, None);
        let held = peer.outbox.as_mut().and_then(|outbox| outbox.take_held());
        if let Some(bytes) = held {
            self.transmit(slot, bytes);
        }
        true
    }
}
