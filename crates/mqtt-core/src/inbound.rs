//! Messages from the client: topic aliases, the order of acknowledgements, QoS 2 packet ids, the Receive Maximum.
//!
//! Owns: which PUBLISH is new, and when its PUBACK or PUBREC leaves. Does not own: storing a message (the shell), what a
//! mark is (`mark.rs`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use landfall_event::Memo;

use crate::action::Inbound;
use crate::fault::{Broken, Violation};
use crate::mark::{Mark, Marker};
use crate::packet::{AckKind, Publish};
use crate::state::{ReceivedId, SessionState, Unsettled};
use crate::{Limits, QoS, Token, Version, encode, guard};

/// Reason codes of PUBACK, PUBREC and PUBCOMP that the machine itself gives.
mod code {
    pub(super) const PACKET_ID_IN_USE: u8 = 0x91;
    pub(super) const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub(super) const QUOTA_EXCEEDED: u8 = 0x97;
}

/// A topic longer than this is not remembered for the next PUBLISH.
const RECENT_TOPIC: usize = 256;

/// How far a PUBLISH of QoS 1 or 2 has come on its way to its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The shell has it.
    Waiting,
    /// It is stored.
    Stored,
    /// It is refused with this code, which only 5.0 can say.
    Failed(u8),
    /// Its packet id was taken before: PUBREC once more [MQTT-4.3.3-10], when that message is stored.
    Again,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    packet_id: u16,
    qos: QoS,
    outcome: Outcome,
    /// Of a QoS 2 message.
    mark: Mark,
}

/// A QoS 2 packet id between the message and PUBREL: its PUBREC was sent, or an earlier connection has taken the message.
#[derive(Clone, Copy, Debug)]
struct Received {
    packet_id: u16,
    /// It holds a share of our Receive Maximum on this connection.
    counted: bool,
    /// It comes from the session's state, not from this connection.
    resumed: bool,
    mark: Mark,
    /// An earlier connection has given the message to the shell, which has not settled it yet.
    waits_for: Option<Token>,
}

/// The receiving half of a session.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// In the order of receipt, which is the order of the acknowledgements, as it is a client's [MQTT-4.6.0-2].
    pending: VecDeque<Pending>,
    /// The token of the first of `pending`.
    front: u64,
    /// Tokens below are of earlier connections.
    first: u64,
    marker: Marker,
    /// Sorted by packet id.
    received: Vec<Received>,
    /// Shares of our Receive Maximum that are taken.
    in_use: usize,
    /// The client was told of our Receive Maximum and is held to it.
    is_held: bool,
    aliases: Vec<Option<Arc<str>>>,
    /// The last topic, valid; most devices use one.
    recent: Option<Arc<str>>,
}

impl Receiver {
    /// Takes what a resumed session had received; `is_held` says that the client knows our Receive Maximum.
    pub(crate) fn new(state: &mut SessionState, marker: Marker, is_held: bool) -> Self {
        let stored = std::mem::take(&mut state.received).into_iter().map(|r| (r.id, r.mark, None));
        let unsettled = std::mem::take(&mut state.unsettled);
        let first = state.next_token.max(1);
        let waiting = unsettled.into_iter().map(|u| (u.id, u.mark, Some(u.token)));
        let mut received: Vec<_> = waiting
            .chain(stored)
            .filter(|(id, ..)| *id != 0)
            .map(|(packet_id, mark, waits_for)| Received {
                packet_id,
                counted: false,
                resumed: true,
                mark,
                waits_for,
            })
            .collect();
        received.sort_by_key(|r| r.packet_id);
        received.dedup_by_key(|r| r.packet_id);
        Self {
            pending: VecDeque::new(),
            front: first,
            first,
            marker,
            received,
            in_use: 0,
            is_held,
            aliases: Vec::new(),
            recent: None,
        }
    }

    pub(crate) fn recent(&self) -> &Option<Arc<str>> {
        &self.recent
    }

    /// How many messages wait for their acknowledgement.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The QoS 2 messages that are in the shell's hands, those of earlier connections first.
    fn unsettled(&self) -> impl Iterator<Item = Unsettled> {
        let earlier = self
            .received
            .iter()
            .filter_map(|r| Some(Unsettled { id: r.packet_id, mark: r.mark, token: r.waits_for? }));
        let here = (self.front..).zip(&self.pending);
        let here = here.filter(|(_, p)| p.qos == QoS::ExactlyOnce && p.outcome == Outcome::Waiting);
        earlier.chain(here.map(|(token, p)| Unsettled { id: p.packet_id, mark: p.mark, token: Token(token) }))
    }

    /// Does anything of an earlier connection wait for the shell's word?
    pub(crate) fn waits_for_earlier(&self) -> bool {
        self.received.iter().any(|r| r.waits_for.is_some())
    }

    /// The tokens that this connection has given away, QoS 0 aside.
    pub(crate) fn tokens(&self) -> Range<Token> {
        Token(self.first)..Token(self.front + u64::try_from(self.pending.len()).unwrap_or(u64::MAX))
    }

    /// The QoS 2 packet ids whose messages are stored (those acknowledged, and those behind an earlier message), and those
    /// that are with the shell.
    pub(crate) fn save(&self, state: &mut SessionState) {
        let stored = self.received.iter().filter(|r| r.waits_for.is_none());
        let stored = stored.map(|r| ReceivedId { id: r.packet_id, mark: r.mark });
        let behind =
            self.pending.iter().filter(|p| p.qos == QoS::ExactlyOnce && p.outcome == Outcome::Stored);
        let behind = behind.map(|p| ReceivedId { id: p.packet_id, mark: p.mark });
        state.received = behind.chain(stored).collect();
        state.received.sort_by_key(|r| r.id);
        state.received.dedup_by_key(|r| r.id);
        state.unsettled = self.unsettled().collect();
        state.open = state.unsettled.iter().map(|u| u.token.0).collect();
        state.next_token = self.tokens().end.0;
        state.key = self.marker.key();
    }

    /// What makes a QoS 2 message known again that is with the shell.
    pub(crate) fn memo(&self, token: Token) -> Option<Memo> {
        let at = usize::try_from(token.0.checked_sub(self.front)?).ok()?;
        let pending = self.pending.get(at)?;
        (pending.qos == QoS::ExactlyOnce).then(|| Memo {
            session: self.marker.session(),
            number: token.0,
            packet_id: pending.packet_id,
            mark: pending.mark.0,
        })
    }

    /// Takes a PUBLISH; `Some` when it is new.
    pub(crate) fn publish(
        &mut self,
        mut publish: Publish,
        version: Version,
        limits: &Limits,
        out: &mut BytesMut,
    ) -> Result<Option<Inbound>, Broken> {
        self.resolve_topic(&mut publish, limits)?;
        let (fresh, mark) = match publish.message.qos {
            QoS::AtMostOnce => return Ok(Some(publish.message)),
            QoS::AtLeastOnce => (self.first_time_qos1(&publish, version), Mark::UNKNOWN),
            QoS::ExactlyOnce => {
                let mark = self.marker.of(&publish.message.topic, &publish.message.payload);
                (self.first_time_qos2(&publish, mark, version, limits)?, mark)
            }
        };
        let outcome = match fresh {
            Fresh::New => Outcome::Waiting,
            Fresh::Refused(code) => Outcome::Failed(code),
            Fresh::Again => return self.again(publish.packet_id, limits, out).map(|()| None),
            Fresh::Known => return Ok(None),
        };
        self.take_share(limits)?;
        // The client has gone on to another message, so it has let go of the old one.
        if outcome == Outcome::Waiting
            && self.is_stale(publish.packet_id)
            && let Ok(at) = self.find(publish.packet_id)
        {
            self.received.remove(at);
        }
        let (packet_id, qos) = (publish.packet_id, publish.message.qos);
        publish.message.token = self.push(Pending { packet_id, qos, outcome, mark });
        if outcome == Outcome::Waiting {
            return Ok(Some(publish.message));
        }
        self.flush(out);
        Ok(None)
    }

    /// Checks the topic name, and sets or looks up the alias (5.0 section 3.3.4).
    fn resolve_topic(&mut self, publish: &mut Publish, limits: &Limits) -> Result<(), Broken> {
        let topic = &mut publish.message.topic;
        if publish.has_topic && !self.recent.as_ref().is_some_and(|recent| Arc::ptr_eq(recent, topic)) {
            guard::topic_name(topic, limits)?;
            if topic.len() <= RECENT_TOPIC {
                self.recent = Some(Arc::clone(topic));
            }
        }
        let Some(alias) = publish.alias.map(usize::from) else { return Ok(()) };
        if publish.has_topic {
            // The guard has checked the alias against the maximum, so this list stays that short.
            if self.aliases.len() <= alias {
                self.aliases.resize(alias + 1, None);
            }
            if let Some(cell) = self.aliases.get_mut(alias) {
                *cell = Some(Arc::clone(topic));
            }
            return Ok(());
        }
        let named = self.aliases.get(alias).cloned().flatten();
        *topic = named.ok_or(Broken::protocol("a topic alias that was never set"))?;
        Ok(())
    }

    /// A 3.1.1 client that has an id in two messages at once gets an acknowledgement for each: there is no other answer
    /// that it could go on with, and a second event is allowed at QoS 1.
    fn first_time_qos1(&self, publish: &Publish, version: Version) -> Fresh {
        let id = publish.packet_id;
        let mut same = self.pending.iter().filter(|p| p.packet_id == id).peekable();
        let is_taken = same.peek().is_some() || (self.find(id).is_ok() && !self.is_stale(id));
        if publish.message.dup && same.any(|p| p.qos == QoS::AtLeastOnce) {
            Fresh::Known
        } else if is_taken && version.is_5() {
            Fresh::Refused(code::PACKET_ID_IN_USE)
        } else {
            Fresh::New
        }
    }

    fn first_time_qos2(
        &self,
        publish: &Publish,
        mark: Mark,
        version: Version,
        limits: &Limits,
    ) -> Result<Fresh, Broken> {
        let (id, dup) = (publish.packet_id, publish.message.dup);
        if let Some(received) = self.find(id).ok().and_then(|at| self.received.get(at))
            && received.is_same(mark, dup)
        {
            return Ok(Fresh::Again);
        }
        let mut same = self.pending.iter().filter(|p| p.packet_id == id).peekable();
        let is_taken = same.peek().is_some();
        if same.any(|p| p.qos == QoS::ExactlyOnce && (dup || p.mark == mark)) {
            return Ok(Fresh::Known);
        }
        if is_taken && version.is_5() {
            return Ok(Fresh::Refused(code::PACKET_ID_IN_USE));
        }
        if self.received.len() + self.pending.len() < limits.max_qos2_pending {
            return Ok(Fresh::New);
        }
        match version {
            Version::V5 => Ok(Fresh::Refused(code::QUOTA_EXCEEDED)),
            Version::V31 | Version::V311 => {
                Err(Broken::new(Violation::QuotaExceeded, "more QoS 2 messages unreleased than the maximum"))
            }
        }
    }

    /// PUBREC once more, in its turn.
    fn again(&mut self, id: u16, limits: &Limits, out: &mut BytesMut) -> Result<(), Broken> {
        if self.pending.iter().any(|p| p.packet_id == id && p.outcome == Outcome::Again) {
            return Ok(());
        }
        if self.find(id).ok().and_then(|at| self.received.get(at)).is_some_and(|r| !r.counted) {
            self.take_share(limits)?;
            if let Some(received) = self.find(id).ok().and_then(|at| self.received.get_mut(at)) {
                received.counted = true;
            }
        }
        let mark = self.find(id).ok().and_then(|at| self.received.get(at)).map_or(Mark::UNKNOWN, |r| r.mark);
        self.push(Pending { packet_id: id, qos: QoS::ExactlyOnce, outcome: Outcome::Again, mark });
        self.flush(out);
        Ok(())
    }

    /// Counts a PUBLISH against our Receive Maximum (5.0 section 3.3.4); who does not know it is not held to it, reading
    /// pauses instead.
    fn take_share(&mut self, limits: &Limits) -> Result<(), Broken> {
        if self.is_held && self.in_use >= usize::from(limits.receive_maximum.max(1)) {
            return Err(Broken::new(
                Violation::ReceiveMaximumExceeded,
                "more messages unacknowledged than the receive maximum",
            ));
        }
        self.in_use += 1;
        Ok(())
    }

    fn push(&mut self, pending: Pending) -> Token {
        let token = self.front + u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        self.pending.push_back(pending);
        Token(token)
    }

    /// The shell's word on a message. True when the session's state changed.
    pub(crate) fn settle(&mut self, token: Token, failure: Option<u8>, out: &mut BytesMut) -> bool {
        if self.is_earlier(token) {
            return self.settle_earlier(token, failure, out);
        }
        let at = token.0.checked_sub(self.front).and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.pending.get_mut(at)) {
            Some(pending) if pending.outcome == Outcome::Waiting => {
                pending.outcome = failure.map_or(Outcome::Stored, Outcome::Failed);
                let changed = pending.qos == QoS::ExactlyOnce && failure.is_none();
                self.flush(out);
                changed
            }
            _ => false,
        }
    }

    /// A message that an earlier connection has taken.
    fn settle_earlier(&mut self, token: Token, failure: Option<u8>, out: &mut BytesMut) -> bool {
        let Some(at) = self.received.iter().position(|r| r.waits_for == Some(token)) else { return false };
        match failure {
            None => {
                if let Some(received) = self.received.get_mut(at) {
                    received.waits_for = None;
                }
            }
            Some(code) => {
                let id = self.received.remove(at).packet_id;
                // A client that has sent it again is told.
                let again = |p: &&mut Pending| p.packet_id == id && p.outcome == Outcome::Again;
                self.pending.iter_mut().filter(again).for_each(|p| p.outcome = Outcome::Failed(code));
            }
        }
        self.flush(out);
        true
    }

    /// Is this a message of an earlier connection of the session?
    pub(crate) fn is_earlier(&self, token: Token) -> bool {
        token.0 < self.first && token != Token::NONE
    }

    /// Is this a message that the client waits for an answer to?
    pub(crate) fn is_waiting(&self, token: Token) -> bool {
        if self.is_earlier(token) {
            let of = self.received.iter().find(|r| r.waits_for == Some(token));
            let again = |id| move |p: &Pending| p.packet_id == id && p.outcome == Outcome::Again;
            return of.is_some_and(|r| self.pending.iter().any(again(r.packet_id)));
        }
        let at = token.0.checked_sub(self.front).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.pending.get(at)).is_some_and(|p| p.outcome == Outcome::Waiting)
    }

    /// Writes the acknowledgements that are due, up to the first message that still waits.
    fn flush(&mut self, out: &mut BytesMut) {
        while let Some(pending) = self.pending.front().copied() {
            let id = pending.packet_id;
            match (pending.qos, pending.outcome) {
                (_, Outcome::Waiting) => return,
                (QoS::ExactlyOnce, Outcome::Stored) => {
                    if let Err(at) = self.find(id) {
                        let mark = pending.mark;
                        let (counted, resumed, waits_for) = (true, false, None);
                        self.received
                            .insert(at, Received { packet_id: id, counted, resumed, mark, waits_for });
                    }
                    encode::ack(AckKind::Rec, id, 0, out);
                }
                (QoS::ExactlyOnce, Outcome::Again) => {
                    match self.find(id).ok().and_then(|at| self.received.get(at)) {
                        Some(Received { waits_for: Some(_), .. }) => return,
                        Some(_) => encode::ack(AckKind::Rec, id, 0, out),
                        None => {}
                    }
                }
                (qos, outcome) => {
                    let kind = if qos == QoS::ExactlyOnce { AckKind::Rec } else { AckKind::Ack };
                    let code = if let Outcome::Failed(code) = outcome { code } else { 0 };
                    encode::ack(kind, id, code, out);
                    self.in_use = self.in_use.saturating_sub(1);
                }
            }
            self.pending.pop_front();
            self.front += 1;
        }
    }

    /// Takes a PUBREL and answers with PUBCOMP. True when the session's state changed.
    pub(crate) fn release(&mut self, id: u16, version: Version, out: &mut BytesMut) -> Result<bool, Broken> {
        if let Ok(at) = self.find(id)
            && self.received.get(at).is_some_and(|r| r.waits_for.is_none())
        {
            let received = self.received.remove(at);
            if received.counted {
                self.in_use = self.in_use.saturating_sub(1);
            }
            encode::ack(AckKind::Comp, id, 0, out);
            return Ok(true);
        }
        if self.find(id).is_ok()
            || self.pending.iter().any(|p| p.packet_id == id && p.qos == QoS::ExactlyOnce)
        {
            return Err(Broken::protocol("a PUBREL before its PUBREC"));
        }
        let code = if version.is_5() { code::PACKET_ID_NOT_FOUND } else { 0 };
        encode::ack(AckKind::Comp, id, code, out);
        Ok(false)
    }

    fn find(&self, id: u16) -> Result<usize, usize> {
        self.received.binary_search_by_key(&id, |r| r.packet_id)
    }

    /// A packet id that only the resumed state knows.
    fn is_stale(&self, id: u16) -> bool {
        self.find(id).ok().and_then(|at| self.received.get(at)).is_some_and(Received::is_stale)
    }
}

impl Received {
    fn is_stale(&self) -> bool {
        self.resumed && !self.counted
    }

    /// Is a PUBLISH of this packet id the same message? Until PUBREL it is [MQTT-4.3.3-10]; but a client whose release our
    /// state missed begins anew with another message. It should say so by DUP [MQTT-3.3.1-1], and not all do: what is
    /// known of the message decides, and DUP only where that is nothing.
    fn is_same(&self, mark: Mark, dup: bool) -> bool {
        !self.is_stale() || if self.mark == Mark::UNKNOWN { dup } else { self.mark == mark }
    }
}

/// What a PUBLISH of QoS 1 or 2 is.
enum Fresh {
    /// A new message.
    New,
    /// A message that is already on its way to the store: its one acknowledgement answers both.
    Known,
    /// A message that was stored before.
    Again,
    /// Refused with a code.
    Refused(u8),
}
