//! Confirmable messages of ours, one at a time to each peer (RFC 7252, sections 4.2, 4.7 and 4.8).
//!
//! Owns: the queue, retransmission, what acknowledgement, reset and silence mean. Does not own: who observes what
//! (`observations`).

use std::collections::VecDeque;
use std::hash::Hash;

use bytes::Bytes;

use super::answers::Cut;
use super::proof::Strays;
use super::{Endpoint, Parties};
use crate::codec;
use crate::message::{Kind, Message, Token};
use crate::options::{Options, number};
use crate::output::{Ending, NoteFailure, NoteId, Output};
use crate::response::Response;
use crate::{Rejected, Tick};

/// What a message counts beside its payload.
pub(super) const OVERHEAD: usize = 192;

/// What a confirmable message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A separate response; to a registration, with its observation.
    Separate(Option<u64>),
    /// A notification, and its observation, which may be over if it is the last.
    Note(NoteId, u64),
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) what: What,
    pub(super) token: Token,
    pub(super) response: Response,
    /// Options that are the endpoint's: of a separate response.
    pub(super) own: Options,
    pub(super) cut: Cut,
}

impl Outgoing {
    pub(super) fn weight(&self) -> usize {
        OVERHEAD + self.response.payload.len()
    }
}

/// The message that waits for its acknowledgement.
#[derive(Debug)]
struct Flight {
    what: What,
    token: Token,
    id: u16,
    bytes: Bytes,
    /// Milliseconds of the present timeout.
    timeout: u64,
    retransmitted: u32,
    /// The peer has blocks to fetch once it has the first.
    blocks: bool,
    weight: usize,
    /// It could not leave the last time: the peer's address is not proven, and there was no credit.
    held: bool,
    strays: Strays,
}

/// What is on its way to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    flight: Option<Flight>,
    /// Nothing is sent before: the peer fetches blocks, or there are no message ids.
    hold: Option<Tick>,
    /// The notification whose blocks the peer fetches, and its observation.
    fetching: Option<(NoteId, u64)>,
    timer: Option<Tick>,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.queue.len() + usize::from(self.flight.is_some())
    }

    /// The datagram in flight, if it could not leave; it can now.
    pub(super) fn take_held(&mut self) -> Option<Bytes> {
        let flight = self.flight.as_mut().filter(|flight| flight.held)?;
        flight.held = false;
        Some(flight.bytes.clone())
    }

    /// Takes away the messages that are to go.
    fn take(&mut self, goes: impl Fn(What, Token) -> bool) -> Taken {
        let mut taken = Taken::default();
        let mut is_gone = |what: What, token: Token, weight: usize| {
            let is_gone = goes(what, token);
            if is_gone {
                taken.any = true;
                taken.weight += weight;
                if let What::Note(note, _) = what {
                    taken.notes.push(note);
                }
            }
            is_gone
        };
        self.flight.take_if(|flight| is_gone(flight.what, flight.token, flight.weight));
        self.queue.retain(|outgoing| !is_gone(outgoing.what, outgoing.token, outgoing.weight()));
        // Its message has come; what is left of it has no token of its own.
        self.fetching
            .take_if(|(note, observation)| is_gone(What::Note(*note, *observation), Token::default(), 0));
        taken
    }
}

/// What was taken out of an outbox.
#[derive(Debug, Default)]
struct Taken {
    any: bool,
    weight: usize,
    notes: Vec<NoteId>,
}

impl<P: Clone + Eq + Hash + std::fmt::Debug> Endpoint<P> {
    /// Whether one more message fits.
    pub(super) fn has_room(&self, slot: u32, weight: usize) -> bool {
        let waiting =
            self.peers.get(slot).and_then(|peer| peer.outbox.as_ref()).map_or(0, |outbox| outbox.len());
        waiting < self.limits.max_outgoing_per_peer
            && self.outgoing_bytes + weight <= self.limits.max_outgoing_bytes
    }

    /// Puts a message behind the others, and sends it if there are none.
    pub(super) fn enqueue(&mut self, now: Tick, slot: u32, outgoing: Outgoing) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        self.outgoing_bytes += outgoing.weight();
        peer.outbox.get_or_insert_default().queue.push_back(outgoing);
        self.advance(now, slot);
    }

    /// Sends the next message, if none is in flight (NSTART is 1).
    pub(super) fn advance(&mut self, now: Tick, slot: u32) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(outbox) = peer.outbox.as_mut() else { return };
        if outbox.flight.is_some() {
            return;
        }
        if let Some(at) = outbox.hold.filter(|at| now < *at && !outbox.queue.is_empty()) {
            return self.set_timer(slot, Some(at));
        }
        if outbox.hold.is_some_and(|at| at <= now) {
            outbox.hold = None;
            if let Some((note, _)) = outbox.fetching.take() {
                self.outputs.push_back(Output::Unfetched { note, peer: peer.address.clone() });
            }
        }
        let Some(outgoing) = outbox.queue.pop_front() else {
            return self.close_outbox(slot);
        };
        let ids =
            peer.ids.get_or_insert_with(|| crate::secrets::MessageIds::new(&self.secrets, &peer.address));
        match ids.draw(now) {
            Ok(id) => self.launch(now, slot, id, outgoing),
            Err(at) => {
                outbox.queue.push_front(outgoing);
                outbox.hold = Some(at);
                self.set_timer(slot, Some(at));
            }
        }
    }

    /// Nothing is left to send; whether the peer still fetches blocks matters no more.
    fn close_outbox(&mut self, slot: u32) {
        self.set_timer(slot, None);
        if let Some(peer) = self.peers.get_mut(slot) {
            // A hold outlives the queue: what is enqueued within it waits still.
            match peer.outbox.as_ref().and_then(|outbox| outbox.hold) {
                Some(at) => self.set_timer(slot, Some(at)),
                None => peer.outbox = None,
            }
        }
        self.peers.release(slot);
    }

    /// The first transmission of a message.
    fn launch(&mut self, now: Tick, slot: u32, id: u16, outgoing: Outgoing) {
        let weight = outgoing.weight();
        let Some(address) = self.peers.get(slot).map(|peer| peer.address.clone()) else { return };
        let mut message = Message::new(Kind::Con, outgoing.response.code, id, outgoing.token);
        message.options = outgoing.own;
        let observation = match outgoing.what {
            What::Separate(observation) => observation,
            What::Note(_, observation) => Some(observation),
        };
        // Numbered as they leave, so that the numbers rise in the order in which they do.
        if let Some(value) = observation.and_then(|observation| self.next_value(now, observation)) {
            message.options.push_uint(number::OBSERVE, value);
        }
        // Only a body above the limit would not fit, and these do not get here.
        self.fill(now, &address, outgoing.response, &outgoing.cut, usize::MAX, &mut message);
        let timeout = self.secrets.between(self.limits.ack_timeout_ms, self.limits.longest_timeout_ms());
        let blocks = message.options.has(number::BLOCK2);
        let flight = Flight {
            what: outgoing.what,
            token: outgoing.token,
            id,
            bytes: codec::encode(&message),
            timeout,
            retransmitted: 0,
            blocks,
            weight,
            held: false,
            strays: Strays::default(),
        };
        if let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut()) {
            outbox.flight = Some(flight);
        }
        self.transmit_flight(now, slot);
        self.set_timer(slot, Some(now + timeout));
    }

    /// Without credit it is as if the message were lost; but a ping may still go, and its reset lets the message out.
    fn transmit_flight(&mut self, now: Tick, slot: u32) {
        let Some(bytes) = self.flight(slot).map(|flight| flight.bytes.clone()) else { return };
        let sent = self.transmit(slot, bytes);
        if let Some(flight) = self.flight(slot) {
            flight.held = !sent;
        }
        if !sent {
            self.probe_slot(now, slot);
        }
    }

    fn flight(&mut self, slot: u32) -> Option<&mut Flight> {
        self.peers.get_mut(slot)?.outbox.as_mut()?.flight.as_mut()
    }

    /// The deadline of a peer's outbox has come.
    pub(super) fn outbox_due(&mut self, now: Tick, slot: u32) {
        self.set_timer(slot, None);
        let max = self.limits.max_retransmit;
        let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut()) else { return };
        let Some(flight) = outbox.flight.as_mut() else { return self.advance(now, slot) };
        if flight.retransmitted < max {
            flight.retransmitted += 1;
            flight.timeout *= 2;
            let due = now + flight.timeout;
            self.retransmitted += 1;
            self.transmit_flight(now, slot);
            return self.set_timer(slot, Some(due));
        }
        let what = flight.what;
        self.land(slot);
        if let What::Note(note, _) = what {
            self.fail(slot, [note], NoteFailure::Silent);
            self.end_all_observations(slot, Ending::Silent);
        }
        self.advance(now, slot);
    }

    /// An empty acknowledgement came.
    pub(super) fn acknowledged(&mut self, now: Tick, peer: &P, id: u16) {
        let Some((slot, what, blocks)) = self.match_flight(peer, id) else {
            return self.reject(peer, Rejected::Unmatched);
        };
        let fetch = blocks.then_some(now + self.limits.fetch_ms);
        if let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut()) {
            outbox.hold = fetch;
            outbox.fetching = match what {
                What::Note(note, observation) if blocks => Some((note, observation)),
                _ => None,
            };
        }
        if let What::Note(note, _) = what
            && !blocks
        {
            self.outputs.push_back(Output::Delivered { note, peer: peer.clone() });
        }
        self.advance(now, slot);
    }

    /// A reset came.
    pub(super) fn reset(&mut self, now: Tick, peer: &P, id: u16) {
        if self.probed(now, peer, id) {
            return;
        }
        let Some((slot, what, _)) = self.match_flight(peer, id) else {
            return self.reject(peer, Rejected::Unmatched);
        };
        if let What::Note(note, observation) = what {
            self.fail(slot, [note], NoteFailure::Reset);
            self.end_observation(Parties { slot, observation }, Some(Ending::Reset));
        }
        self.advance(now, slot);
    }

    /// The flight that an id ends: the peer lives, and at the address that we sent to.
    fn match_flight(&mut self, peer: &P, id: u16) -> Option<(u32, What, bool)> {
        let slot = self.peers.find(peer)?;
        let flight = self.flight(slot)?;
        if !flight.strays.matches(flight.id, id) {
            return None;
        }
        let (what, blocks) = (flight.what, flight.blocks);
        self.land(slot);
        self.outputs.push_back(Output::Heard { peer: peer.clone() });
        self.proves_itself(peer, slot);
        Some((slot, what, blocks))
    }

    /// The flight is over.
    fn land(&mut self, slot: u32) {
        let outbox = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut());
        if let Some(flight) = outbox.and_then(|outbox| outbox.flight.take()) {
            self.outgoing_bytes -= flight.weight;
        }
        self.set_timer(slot, None);
    }

    /// The peer has asked for a block; with the last one there is nothing more to wait for.
    pub(super) fn fetched(&mut self, now: Tick, slot: u32, more: bool, note: Option<NoteId>) {
        let until = now + if more { self.limits.fetch_ms } else { 0 };
        let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut()) else { return };
        if outbox.flight.is_none() && outbox.hold.is_some() {
            outbox.fetching = outbox.fetching.filter(|(fetching, _)| more || note != Some(*fetching));
            outbox.hold = Some(until);
            self.advance(now, slot);
        }
    }

    /// Takes the notifications of some observations out of the peer's outbox: they fail.
    pub(super) fn withdraw(&mut self, slot: u32, goes: impl Fn(u64) -> bool) {
        self.take_out(slot, |what, _| matches!(what, What::Note(_, observation) if goes(observation)));
    }

    /// Takes the separate responses with this token out of the peer's outbox: they would pass for a younger request's.
    pub(super) fn withdraw_answers(&mut self, slot: u32, token: Token) {
        self.take_out(slot, |what, of| matches!(what, What::Separate(_)) && of == token);
    }

    fn take_out(&mut self, slot: u32, goes: impl Fn(What, Token) -> bool) {
        let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut()) else { return };
        let taken = outbox.take(goes);
        let idle = outbox.flight.is_none();
        self.outgoing_bytes -= taken.weight;
        if idle && taken.any {
            // What is behind them goes on at once; the caller may have no time to say.
            self.set_timer(slot, Some(0));
        }
        self.fail(slot, taken.notes, NoteFailure::Ended);
    }

    /// Drops everything that is on its way to a peer.
    pub(super) fn discard(&mut self, slot: u32) {
        self.set_timer(slot, None);
        let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.take()) else { return };
        let queued: usize = outbox.queue.iter().map(Outgoing::weight).sum();
        self.outgoing_bytes -= queued + outbox.flight.map_or(0, |flight| flight.weight);
    }

    fn fail(&mut self, slot: u32, notes: impl IntoIterator<Item = NoteId>, why: NoteFailure) {
        let Some(peer) = self.peers.get(slot).map(|peer| peer.address.clone()) else { return };
        for note in notes {
            self.settle_note(&peer, note);
            self.outputs.push_back(Output::Failed { note, peer: peer.clone(), why });
        }
    }

    /// What became of a note is told once: nobody waits for its blocks any more.
    pub(super) fn settle_note(&mut self, peer: &P, note: NoteId) {
        self.downloads.heads_mut(peer).filter(|head| head.2 == Some(note)).for_each(|head| head.2 = None);
    }

    fn set_timer(&mut self, slot: u32, at: Option<Tick>) {
        let Some(outbox) = self.peers.get_mut(slot).and_then(|peer| peer.outbox.as_mut()) else { return };
        if let Some(old) = std::mem::replace(&mut outbox.timer, at) {
            self.timers.remove(&(old, slot));
        }
        if let Some(at) = at {
            self.timers.insert((at, slot));
        }
    }
}
