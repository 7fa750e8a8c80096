//! The stored events read as a ledger: each promise of the gateway held against what the streams say.
//!
//! Owns: the fold of both streams, and what counts as a violation. Does not own: how the streams are read, who is alive
//! (both are told), how an event is decoded (`landfall_event::wire`). Pure: no clock, socket, task or randomness.
//!
//! # What is needed of memory
//! Some 200 bytes for each session in the range that is read, with its device's name; an id for each event that is of no
//! single session, such as a keep-alive. Messages leave nothing behind but the numbers that are missing.

mod journal;
mod messages;
mod presence;
mod violation;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use landfall_event::wire::{Body, Event, Session};
use landfall_event::{EventId, Family, Incarnation, ServiceKind, SessionId, Stream, UnixMs};

pub use journal::{Journal, JournalError};
pub use violation::{Kind, Violation};

/// So far the two streams, and the clocks of gateways and server, may be apart. A session's messages are stored before its end,
/// but in another stream: which of two is told first within so short a time is nobody's promise.
const SLACK_MS: UnixMs = 5_000;

/// An event as a stream holds it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The instance that told it, as its subject says.
    pub instance: &'a str,
    /// The stream.
    pub stream: Stream,
    /// Its place there.
    pub place: u64,
    /// When it was stored, by the server's clock.
    pub stored_at: UnixMs,
    /// The event.
    pub event: &'a Event,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Sessions that began.
    pub connected: u64,
    /// Sessions that ended.
    pub disconnected: u64,
    /// Of those, closed for a gateway that was gone.
    pub gateway_lost: u64,
    /// Sessions that have not ended.
    pub open: u64,
    /// Messages and outcomes of commands.
    pub messages: u64,
    /// Sessions that began before what was read does, so that only a part of them was seen.
    pub partial: u64,
    /// Sessions that began on one gateway while the device had one of the family on another.
    pub overlaps: u64,
    /// Whole sessions that gateways have dropped and told of.
    pub dropped_sessions: u64,
    /// Messages that gateways have dropped and told of.
    pub dropped_messages: u64,
    /// Messages of the journals that were looked for.
    pub acknowledged: u64,
}

/// Numbers, both ends included, that are missing in a session's messages.
#[derive(Clone, Copy, Debug)]
struct Missing {
    session: SessionId,
    from: u64,
    to: u64,
    /// Where that was found out, and when the event there was stored.
    place: u64,
    at: UnixMs,
}

/// What is known of a session.
#[derive(Debug)]
struct Known {
    device: Arc<str>,
    family: Family,
    incarnation: Incarnation,
    /// The number of its next connectivity event.
    next: u64,
    /// The number of its next message; 0 while a partial one has sent none.
    next_message: u64,
    /// When its beginning was stored.
    begun_at: UnixMs,
    /// When its end was stored.
    ended_at: Option<UnixMs>,
    /// It began before what was read.
    partial: bool,
    /// When the last thing that it said while it was open was stored; 0 when that is not known.
    heard_at: UnixMs,
}

/// A device of an instance: another instance's device of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    instance: Arc<str>,
    device: Arc<str>,
}

/// A device's newest session.
#[derive(Clone, Copy, Debug)]
struct Newest {
    epoch: u64,
    at: UnixMs,
    incarnation: Incarnation,
}

/// Reads events one by one, each stream in its order, the connectivity stream ahead of the messages that it explains.
#[derive(Debug, Default)]
pub struct Verifier {
    /// What happened before is not known.
    since: UnixMs,
    /// Messages that were stored before are not known.
    messages_since: UnixMs,
    counts: Counts,
    sessions: HashMap<SessionId, Known>,
    /// Who is present: by device and family. More than one only across incarnations.
    present: HashMap<(Owner, Family), Vec<SessionId>>,
    newest: HashMap<Owner, Newest>,
    names: HashSet<Arc<str>>,
    missing: Vec<Missing>,
    dropped: Vec<(SessionId, u64, u64)>,
    gateway_events: HashSet<EventId>,
    left: HashSet<Incarnation>,
    /// When an incarnation last told anything.
    heard: HashMap<Incarnation, UnixMs>,
    journal: Journal,
    found: Vec<Violation>,
}

impl Verifier {
    /// One that reads from the beginning (`since` = 0), or from events that happened at `since` and later: sessions that began
    /// before are known in part only.
    pub fn new(since: UnixMs, journal: Journal) -> Self {
        let counts = Counts { acknowledged: journal.len(), ..Counts::default() };
        Self { since, journal, counts, ..Self::default() }
    }

    /// What happened before this moment is not known either, which is found out only now.
    pub fn begin_at(&mut self, since: UnixMs) {
        self.since = self.since.max(since);
    }

    /// The stream of messages has let go of what was stored before this moment: the first message of a session that had begun
    /// by then need not be number 1.
    pub fn messages_begin_at(&mut self, at: UnixMs) {
        self.messages_since = at;
    }

    /// The incarnations that told anything at `since` or later, such as a `keep-alive`, and have not said `leave`: who is alive,
    /// where nobody keeps a lease.
    pub fn heard_since(&self, since: UnixMs) -> HashSet<Incarnation> {
        let heard =
            self.heard.iter().filter(|(incarnation, at)| **at >= since && !self.left.contains(incarnation));
        heard.map(|(incarnation, _)| *incarnation).collect()
    }

    /// Reads the next event of a stream.
    pub fn read(&mut self, stored: &Stored<'_>) {
        let (id, incarnation) = (stored.event.head.id, stored.event.head.incarnation);
        let heard = self.heard.entry(incarnation).or_default();
        *heard = stored.stored_at.max(*heard);
        if matches!(id, EventId::Gateway(..)) && !self.gateway_events.insert(id) {
            self.report(Kind::Duplicate, None, "", stored, format!("{id} is stored before"));
            return;
        }
        match &stored.event.body {
            Body::Connected(connected) => self.connected(stored, &connected.session),
            Body::Disconnected(ended) => {
                for end in ended {
                    self.disconnected(stored, end);
                }
            }
            Body::Moved(moved) => self.goes_on(stored, &moved.session, "moved"),
            Body::Dormant(dormant) => self.goes_on(stored, &dormant.session, "dormant"),
            Body::Awake(awake) => self.goes_on(stored, &awake.session, "awake"),
            Body::Upstream(upstream) => self.upstream(stored, upstream),
            Body::Downstream(downstream) => self.downstream(stored, downstream),
            Body::Service(service) if service.kind == ServiceKind::Leave => {
                self.left.insert(incarnation);
            }
            Body::Dropped(dropped) => {
                self.counts.dropped_sessions += dropped.sessions;
                self.counts.dropped_messages += dropped.messages;
                let ranges = dropped.gaps.iter().map(|gap| (gap.session_id, gap.from, gap.to));
                self.dropped.extend(ranges);
            }
            Body::Refused(_) | Body::Service(_) => {}
        }
    }

    /// Judges the gaps that are older than `before`: what was dropped on purpose has been told by then.
    pub fn settle_gaps(&mut self, before: UnixMs) {
        let (old, young): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.missing).into_iter().partition(|missing| missing.at < before);
        self.missing = young;
        for missing in old {
            self.judge(missing);
        }
    }

    /// Judges what can be judged only at the end: gaps, sessions that nobody will close, acknowledged messages. `is_alive` says
    /// of an incarnation whether it still speaks for its sessions.
    pub fn finish(mut self, is_alive: impl Fn(&Incarnation) -> bool) -> (Counts, Vec<Violation>) {
        self.settle_gaps(UnixMs::MAX);
        let gone = |known: &Known| self.left.contains(&known.incarnation) || !is_alive(&known.incarnation);
        // One that said something well behind the beginning of what was read had not ended before it.
        let from = self.since.saturating_add(SLACK_MS);
        let was_open = |known: &Known| !known.partial || known.heard_at >= from;
        let open = self.sessions.iter().filter(|(_, known)| known.ended_at.is_none() && was_open(known));
        let mut never: Vec<Violation> = open
            .filter(|(_, known)| gone(known))
            .map(|(session, known)| Violation {
                kind: Kind::NeverClosed,
                session: Some(*session),
                device: known.device.to_string(),
                stream: Stream::Connectivity,
                place: 0,
                detail: match known.partial {
                    false => format!("its gateway {} is gone", known.incarnation),
                    true => format!("its beginning is gone, and its gateway {}", known.incarnation),
                },
            })
            .collect();
        never.sort_by_key(|violation| violation.session);
        self.found.append(&mut never);
        self.found.extend(self.journal.lost().map(|(device, payload)| Violation {
            kind: Kind::LostAcknowledged,
            session: None,
            device,
            stream: Stream::Messages,
            place: 0,
            detail: format!("acknowledged and not stored: {payload:?}"),
        }));
        (self.counts(), self.found)
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let open = self.sessions.values().filter(|known| known.ended_at.is_none()).count();
        Counts { open: u64::try_from(open).unwrap_or(u64::MAX), ..self.counts }
    }

    /// What was found since the last call.
    pub fn take_found(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.found)
    }

    fn name(&mut self, session: &Session) -> Arc<str> {
        self.interned(&journal::name(session.tenant.as_str(), session.endpoint_id.as_str()))
    }

    fn owner(&mut self, stored: &Stored<'_>, device: &Arc<str>) -> Owner {
        Owner { instance: self.interned(stored.instance), device: Arc::clone(device) }
    }

    /// One copy of each text, whatever it names.
    fn interned(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        let known: Arc<str> = text.into();
        self.names.insert(Arc::clone(&known));
        known
    }

    fn report(
        &mut self,
        kind: Kind,
        session: Option<SessionId>,
        device: &str,
        stored: &Stored<'_>,
        detail: String,
    ) {
        let (stream, place) = (stored.stream, stored.place);
        self.found.push(Violation { kind, session, device: device.to_owned(), stream, place, detail });
    }
}
