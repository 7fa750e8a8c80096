//! A gateway that was given up for dead, and is not: its live sessions begin anew in the ledger.
//!
//! Owns: new ids, epochs and numbers for the sessions that are open, and what announces them. Does not own: finding out that
//! it was given up, nor writing anew what was on its way (`landfall-nats`, `landfall_event::reissue`).
//!
//! Whoever gave it up has closed its sessions in the ledger, as `gateway-lost`. The connections stand, so each session goes
//! on under another id; its device notices nothing. What is not stored yet goes on under the new id too, numbered from where
//! the ledger will be: behind the new `connected` and before whatever comes next.

use std::collections::HashMap;
use std::sync::Arc;

use landfall_event::{
    Dropped, Encoded, Event, EventId, Incarnation, Origin, Renewal, ServiceKind, SessionId, SessionInfo,
    Stream, UnixMs,
};

use crate::ending::Untold;
use crate::hub::{Hub, Shard};
use crate::session::Session;
use crate::wills::KeptWill;
use crate::{Publication, Receipt, StoreError};

/// Gaps in one event: less than 400 KB, where NATS takes 1 MiB.
const GAPS_IN_ONE: usize = 4_000;

/// The first numbers of a session that are not stored yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unstored {
    /// Of its connectivity events. 1 is `connected`: the ledger knows nothing of the session.
    pub presence: Option<u64>,
    /// Of its messages.
    pub messages: Option<u64>,
}

/// A session that the ledger may know as open.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// The session.
    pub info: SessionInfo,
    /// The number of its next connectivity event.
    pub next: u64,
    /// The number of its next message.
    pub next_message: u64,
    /// When its device was last heard.
    pub last_seen_at: UnixMs,
    /// What is published if it ends without a goodbye.
    pub will: Option<Box<KeptWill>>,
}

/// What is published when an incarnation takes over from one that was given up.
#[derive(Debug)]
pub struct Anew {
    /// The new incarnation.
    pub incarnation: Incarnation,
    /// Which session goes on as which.
    pub renewals: HashMap<SessionId, Renewal>,
    /// A `connected` for each of them, and the wills that are kept, to be stored before anything else.
    pub announcements: Vec<Publication>,
}

impl Hub {
    /// Goes on as `incarnation`: every open session that the ledger knows, and that was closed there, gets a new id, a higher
    /// epoch and new numbers. `unstored` says what the bus still holds of a session; nothing it says of one may change
    /// while that session's locks are held, except by what is submitted.
    pub fn begin_anew(&self, incarnation: Incarnation, unstored: impl Fn(SessionId) -> Unstored) -> Anew {
        self.set_origin(Origin { incarnation, ..Origin::clone(&self.origin()) });
        let mut anew = Anew { incarnation, renewals: HashMap::new(), announcements: Vec::new() };
        for shard in &self.shards {
            self.renew_shard(shard, &unstored, &mut anew);
        }
        self.renew_wills(&mut anew.announcements);
        anew
    }

    /// Every session that is open, or whose end is not submitted yet. Each shard is of one moment, and whatever ended before
    /// that moment has been submitted.
    pub fn open_sessions(&self) -> Vec<OpenSession> {
        let mut open = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let (tick, now) = self.clock.together();
            for live in shard.iter().filter(|live| !live.tag.never_began()) {
                let silent_ms = tick.saturating_sub(live.tag.vitals.last_seen());
                let (session, lane) = (live.tag, live.tag.lane.lock());
                open.push(OpenSession {
                    info: session.info.clone(),
                    next: lane.presence() + 1,
                    next_message: lane.messages() + 1,
                    last_seen_at: now.saturating_sub(silent_ms),
                    will: KeptWill::of(session, &lane).map(Box::new),
                });
            }
            open.extend(shard.untold.iter().map(Untold::as_open));
        }
        open
    }

    /// Returns when everything that was submitted before is stored.
    ///
    /// # Errors
    /// When the bus will not store anything any more.
    pub async fn caught_up(&self) -> Result<(), StoreError> {
        self.say(ServiceKind::KeepAlive).await.unwrap_or(Err(StoreError::Closed))
    }

    fn renew_shard(&self, shard: &Shard, unstored: &impl Fn(SessionId) -> Unstored, anew: &mut Anew) {
        let mut shard = shard.lock();
        for live in shard.iter() {
            let before = anew.announcements.len();
            self.renew(live.tag, live.terms.silence_ms, unstored, anew);
            // Also of a session that keeps its name: what is kept, is kept by incarnation.
            let kept = KeptWill::of(live.tag, &live.tag.lane.lock());
            if let Some(kept) = kept.and_then(|will| self.will_publication(&will, Receipt::unheard(None))) {
                anew.announcements.insert(before, kept);
            }
        }
        // What ended and is not told yet was closed by somebody else, unless nobody else knows of it.
        let before = shard.untold.len();
        shard.untold.retain(|end| unstored(end.session().info.session()).presence == Some(1));
        let gone = i64::try_from(before - shard.untold.len()).unwrap_or(0);
        self.metrics.untold.dec_by(gone);
    }

    fn renew(
        &self,
        session: &Arc<Session>,
        keep_alive_ms: Option<u64>,
        unstored: &impl Fn(SessionId) -> Unstored,
        anew: &mut Anew,
    ) {
        let mut lane = session.lane.lock();
        let old = session.info.session();
        let unstored = unstored(old);
        if lane.ended.is_some() || session.never_began() || unstored.presence == Some(1) {
            return;
        }
        let (now, micros) = self.clock.both();
        let (id, epoch) = (SessionId::new(now, rand::random()), self.next_epoch(micros));
        let (presence_less, messages_less) = lane.renumber(unstored);
        session.info.identity.replace(id, epoch);
        let event = session.connected(&lane, keep_alive_ms, session.is_inferred(), None);
        let event_id = EventId::Session(id, Stream::Connectivity, 1);
        let Encoded { body, headers } = self.encode(event_id, now, &event);
        anew.renewals.insert(old, Renewal { session: id, epoch, presence_less, messages_less });
        anew.announcements.push(Publication {
            stream: Stream::Connectivity,
            subject: self.subjects.of(&event),
            id: event_id,
            headers,
            body,
            receipt: Receipt::unheard(None),
        });
    }

    /// Publishes what a bound of the bus cost (`events-dropped`): the counts in the first event, and as many more events as the
    /// gaps need.
    pub fn tell_dropped(&self, mut dropped: Dropped) {
        loop {
            let more = dropped.gaps.split_off(dropped.gaps.len().min(GAPS_IN_ONE));
            let event = Event::Dropped(dropped);
            self.submit(self.gateway_event_id(), self.clock.unix(), &event, Receipt::unheard(None));
            if more.is_empty() {
                return;
            }
            dropped = Dropped { sessions: 0, messages: 0, gaps: more };
        }
    }
}
