//! Messages from the client: topic aliases, the order of acknowledgements, QoS 2 packet ids, the Receive Maximum.
//!
//! Owns: which PUBLISH is new, and when its PUBACK or PUBREC leaves. Does not own: storing a message (the shell).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use crate::action::Inbound;
use crate::fault::{Broken, Violation};
use crate::packet::{AckKind, Publish};
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
    /// Its packet id was stored before: PUBREC once more [MQTT-4.3.3-10].
    Again,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    packet_id: u16,
    qos: QoS,
    outcome: Outcome,
}

/// A QoS 2 packet id between PUBREC and PUBREL.
#[derive(Clone, Copy, Debug)]
struct Received {
    packet_id: u16,
    /// It holds a share of our Receive Maximum on this connection.
    counted: bool,
    /// It comes from the session's state, not from this connection.
    resumed: bool,
}

/// The receiving half of a session.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// In the order of receipt, which is the order of the acknowledgements, as it is a client's [MQTT-4.6.0-2].
    pending: VecDeque<Pending>,
    /// The token of the first of `pending`.
    front: u64,
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
    /// `received` are the QoS 2 packet ids of a resumed session; `is_held` says that the client knows our Receive Maximum.
    pub(crate) fn new(mut received: Vec<u16>, is_held: bool) -> Self {
        received.retain(|id| *id != 0);
        received.sort_unstable();
        received.dedup();
        let resumed = |packet_id| Received { packet_id, counted: false, resumed: true };
        Self {
            pending: VecDeque::new(),
            front: 1,
            received: received.into_iter().map(resumed).collect(),
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

    /// How many QoS 2 messages are in the shell's hands.
    pub(crate) fn unsettled(&self) -> usize {
        self.pending.iter().filter(|p| p.qos == QoS::ExactlyOnce && p.outcome == Outcome::Waiting).count()
    }

    /// The QoS 2 packet ids whose messages are stored: those acknowledged, and those behind an earlier message.
    pub(crate) fn stored_ids(&self) -> Vec<u16> {
        let behind =
            self.pending.iter().filter(|p| p.qos == QoS::ExactlyOnce && p.outcome == Outcome::Stored);
        let mut ids: Vec<u16> =
            self.received.iter().map(|r| r.packet_id).chain(behind.map(|p| p.packet_id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
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
        let fresh = match publish.message.qos {
            QoS::AtMostOnce => return Ok(Some(publish.message)),
            QoS::AtLeastOnce => self.first_time_qos1(&publish, version)?,
            QoS::ExactlyOnce => self.first_time_qos2(&publish, version, limits)?,
        };
        let outcome = match fresh {
            Fresh::New => Outcome::Waiting,
            Fresh::Refused(code) => Outcome::Failed(code),
            Fresh::Again => return self.again(publish.packet_id, limits, out).map(|()| None),
            Fresh::Known => return Ok(None),
        };
        self.take_share(limits)?;
        if outcome == Outcome::Waiting
            && let Ok(at) = self.find(publish.packet_id)
        {
            self.received.remove(at);
        }
        publish.message.token = self.push(publish.packet_id, publish.message.qos, outcome);
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

    fn first_time_qos1(&mut self, publish: &Publish, version: Version) -> Result<Fresh, Broken> {
        let id = publish.packet_id;
        match self.pending.iter().find(|p| p.packet_id == id) {
            Some(same) if same.qos == QoS::AtLeastOnce && publish.message.dup => Ok(Fresh::Known),
            None if self.find(id).is_err() || self.is_stale(id) => Ok(Fresh::New),
            _ => in_use(version),
        }
    }

    fn first_time_qos2(
        &mut self,
        publish: &Publish,
        version: Version,
        limits: &Limits,
    ) -> Result<Fresh, Broken> {
        let id = publish.packet_id;
        if self.find(id).is_ok() && (publish.message.dup || !self.is_stale(id)) {
            return Ok(Fresh::Again);
        }
        match self.pending.iter().find(|p| p.packet_id == id) {
            Some(same) if same.qos == QoS::ExactlyOnce => Ok(Fresh::Known),
            Some(_) => in_use(version),
            None if self.received.len() + self.pending.len() < limits.max_qos2_pending => Ok(Fresh::New),
            None if version.is_5() => Ok(Fresh::Refused(code::QUOTA_EXCEEDED)),
            None => {
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
        self.push(id, QoS::ExactlyOnce, Outcome::Again);
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

    fn push(&mut self, packet_id: u16, qos: QoS, outcome: Outcome) -> Token {
        let token = self.front + u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        self.pending.push_back(Pending { packet_id, qos, outcome });
        Token(token)
    }

    /// The shell's word on a message. True when the session's state changed.
    pub(crate) fn settle(&mut self, token: Token, failure: Option<u8>, out: &mut BytesMut) -> bool {
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

    /// Is this a message whose acknowledgement is still due, and of which QoS.
    pub(crate) fn is_waiting(&self, token: Token) -> bool {
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
                        self.received.insert(at, Received { packet_id: id, counted: true, resumed: false });
                    }
                    encode::ack(AckKind::Rec, id, 0, out);
                }
                (QoS::ExactlyOnce, Outcome::Again) => {
                    if self.find(id).is_ok() {
                        encode::ack(AckKind::Rec, id, 0, out);
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
        if let Ok(at) = self.find(id) {
            let received = self.received.remove(at);
            if received.counted {
                self.in_use = self.in_use.saturating_sub(1);
            }
            encode::ack(AckKind::Comp, id, 0, out);
            return Ok(true);
        }
        if self.pending.iter().any(|p| p.packet_id == id) {
            return Err(Broken::protocol("a PUBREL before its PUBREC"));
        }
        let code = if version.is_5() { code::PACKET_ID_NOT_FOUND } else { 0 };
        encode::ack(AckKind::Comp, id, code, out);
        Ok(false)
    }

    fn find(&self, id: u16) -> Result<usize, usize> {
        self.received.binary_search_by_key(&id, |r| r.packet_id)
    }

    /// A packet id that only the resumed state knows. A client that still has the message sends it with DUP
    /// [MQTT-3.3.1-1]; if it sends another, it has released the id and our state is behind.
    fn is_stale(&self, id: u16) -> bool {
        self.find(id).ok().and_then(|at| self.received.get(at)).is_some_and(|r| r.resumed && !r.counted)
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

/// The packet id belongs to a message that is not finished [MQTT-2.2.1-3]: 5.0 has a code for that.
fn in_use(version: Version) -> Result<Fresh, Broken> {
    match version {
        Version::V5 => Ok(Fresh::Refused(code::PACKET_ID_IN_USE)),
        Version::V31 | Version::V311 => Err(Broken::protocol("a packet id that is in use")),
    }
}
