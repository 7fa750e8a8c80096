//! Closing the sessions of an incarnation that is gone, exactly once.
//!
//! Owns: the fence that makes one process the one that does it, the fold of what was open, the `disconnected` of each.
//! Does not own: who is gone ([`crate::lease`]), when a repair is due ([`crate::guardian`]).
//!
//! The order is what makes it exact:
//! 1. Leave a mark beside the checkpoint, then write the newest fence in both streams. The dead incarnation's events are refused from then on, and so are those of
//!    another process that was repairing it.
//! 2. Fold what stands before that fence: which sessions are open is final.
//! 3. Publish the wills that are due and close the sessions, behind that fence. Who is fenced out on the way stops, and its successor finds closed what it closed.
//! 4. Only when all are closed, and the wills that wait for their delay are kept as the repairer's, are fences, checkpoint, wills and lease
//!    forgotten: until then somebody finds the incarnation again. The mark stays: a server that is killed may show the rest again.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use landfall_event::wire::{self, Body};
use landfall_event::{
    Disconnected, Encoded, Ended, Event, EventId, Format, Identity, Incarnation, InstanceName, Occasion,
    Origin, Reason, SessionId, SessionInfo, Stream, Subjects, UnixMs, encode, subject,
};
use landfall_hub::{Hub, KeptWill, unix_now};
use tokio::time::sleep;

use crate::checkpoint::{self, Checkpoint, Entry};
use crate::desk::{Desk, Expect, Failure};
use crate::fence::{self, Fence, Fences, STREAMS, Sign};
use crate::lease;
use crate::message::{event_headers, event_id, header};
use crate::reading::{self, At, Selection};
use crate::wills::Wills;

mod owed;

/// Ends in one event at most.
const ENDS_IN_ONE: usize = 128;
/// Between two events that close many: a hundred thousand sessions take five seconds, and nobody else waits for them.
const PAUSE: Duration = Duration::from_millis(5);
/// The newest messages before the fence that are looked at for a device's last word.
const MESSAGES_LOOKED_AT: u64 = 50_000;

/// What a repair works for.
#[derive(Clone, Debug)]
pub(crate) struct Repairer {
    pub(crate) desk: Desk,
    /// Waits for wills that are not due.
    pub(crate) hub: Arc<Hub>,
    /// Who repairs.
    pub(crate) origin: Origin,
    pub(crate) format: Format,
}

/// What became of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// All sessions are closed; so many were open.
    Closed(usize),
    /// Another process has written a newer fence.
    Overtaken,
}

/// What was closed.
#[derive(Debug)]
pub(crate) struct Closed {
    /// So many sessions.
    pub(crate) count: usize,
    /// Behind these fences.
    pub(crate) fences: Fences,
    /// What waits for its delay.
    pub(crate) owed: Vec<KeptWill>,
}

impl Repairer {
    /// Closes what the incarnation left open and forgets it.
    pub(crate) async fn repair(&self, dead: Incarnation) -> Result<Repaired, Failure> {
        match self.close_all(dead, &HashSet::new()).await {
            Ok(Closed { count, fences, owed }) => {
                self.take_over(owed).await?;
                self.forget(dead, &fences).await?;
                Ok(Repaired::Closed(count))
            }
            Err(Failure::Conflict) => Ok(Repaired::Overtaken),
            Err(error) => Err(error),
        }
    }

    fn instance(&self) -> &InstanceName {
        &self.origin.instance
    }

    fn sign(&self, dead: Incarnation) -> Sign {
        let (instance, writer) = (self.instance().clone(), self.origin.incarnation);
        Sign { instance, incarnation: dead, writer, at: unix_now() }
    }

    /// Makes sure that nothing more is stored in the name of the incarnation.
    pub(crate) async fn fence(&self, dead: Incarnation) -> Result<Fences, Failure> {
        // A fence may be lost with what the stream loses. This is not, so who counted as dead and is not can tell.
        checkpoint::mark(&self.desk, &dead, &self.origin.incarnation).await?;
        let behind = self.desk.newest_place(subject::stream_name(Stream::Connectivity)).await?;
        let newest = fence::newest(&self.desk, Stream::Connectivity, self.instance(), &dead).await?;
        if newest.is_none() {
            // If there is no checkpoint either, somebody has closed all of its sessions and forgotten it: nothing that was before
            // has to be read for it.
            checkpoint::begin(&self.desk, self.instance(), &dead, behind).await?;
        }
        Fences::seize(&self.desk, &self.sign(dead)).await
    }

    /// Publishes the wills that are due and closes what the incarnation left open. The wills of the sessions `here` are nobody's
    /// affair: their connections stand.
    ///
    /// # Errors
    /// [`Failure::Conflict`] when another process has written a newer fence.
    pub(crate) async fn close_all(
        &self,
        dead: Incarnation,
        here: &HashSet<SessionId>,
    ) -> Result<Closed, Failure> {
        let fences = self.fence(dead).await?;
        let checkpoint = checkpoint::read(&self.desk, &dead).await?;
        let messages_behind = checkpoint.messages_behind;
        let Fold { mut open, mut wills, .. } =
            self.fold(dead, checkpoint, fences.connectivity.sequence()).await?;
        if !open.is_empty() {
            self.hear_last_words(&mut open, fences.messages.sequence()).await?;
        }
        self.see_later_sessions(&mut wills, fences.connectivity.sequence()).await?;
        let owed = wills.owed(|session| open.contains_key(session) && !here.contains(session));
        let owed = self.number_wills(owed, &open, messages_behind).await?;
        let owed = self.publish_due(owed, &fences.messages).await?;
        let mut open: Vec<Open> = open.into_values().collect();
        open.sort_by_key(|open| open.session);
        let (count, repair) = (open.len(), Incarnation::new(unix_now(), rand::random()));
        let mut numbers = 1_u64..;
        while !open.is_empty() {
            let some: Vec<Open> = open.drain(..open.len().min(self.ends_in_one())).collect();
            let number = numbers.next().unwrap_or(u64::MAX);
            self.close(some, EventId::Gateway(repair, number), &fences.connectivity).await?;
            sleep(PAUSE).await;
        }
        tracing::info!(incarnation = %dead, sessions = count, waiting_wills = owed.len(), "closed the sessions of a gateway that is gone");
        Ok(Closed { count, fences, owed })
    }

    /// Which of its sessions are open before the fence.
    pub(crate) async fn open(&self, dead: Incarnation, fence: u64) -> Result<HashSet<SessionId>, Failure> {
        let checkpoint = checkpoint::read(&self.desk, &dead).await?;
        Ok(self.fold(dead, checkpoint, fence).await?.open.into_keys().collect())
    }

    fn ends_in_one(&self) -> usize {
        self.format.max_sessions().clamp(1, ENDS_IN_ONE)
    }

    /// The sessions of the incarnation that are open before the fence, and its wills.
    async fn fold(&self, dead: Incarnation, checkpoint: Checkpoint, fence: u64) -> Result<Fold, Failure> {
        let behind = checkpoint.behind;
        let mut fold = Fold::new(dead, checkpoint);
        let presence = subject::presence_wildcard(self.instance());
        let wills = subject::will_wildcard(self.instance(), &dead);
        let selection = Selection::behind(behind).of(vec![presence, wills]).before(fence);
        self.read(Stream::Connectivity, selection, |_, message| fold.apply(&message)).await?;
        Ok(fold)
    }

    /// When the devices were last heard, as far as the newest messages tell.
    async fn hear_last_words(&self, open: &mut HashMap<SessionId, Open>, fence: u64) -> Result<(), Failure> {
        let behind = fence.saturating_sub(MESSAGES_LOOKED_AT);
        let selection = Selection::behind(behind).of(vec![subject::upstream_subject(self.instance())]);
        let take = |at: At, message: Message| {
            let Some(EventId::Session(session, ..)) = event_id(&message) else { return };
            if let Some(open) = open.get_mut(&session) {
                open.last_seen_at = open.last_seen_at.max(at.time);
            }
        };
        self.read(Stream::Messages, selection.before(fence).headers_only(), take).await
    }

    pub(crate) async fn read(
        &self,
        stream: Stream,
        selection: Selection,
        each: impl FnMut(At, Message),
    ) -> Result<(), Failure> {
        let stream = self.desk.stream(subject::stream_name(stream)).await?;
        reading::read(&stream, selection, each).await.map_err(Failure::away)
    }

    /// Publishes the end of some sessions, unless another process has overtaken this one.
    async fn close(&self, some: Vec<Open>, id: EventId, fence: &Fence) -> Result<(), Failure> {
        let at = unix_now();
        let ended: Vec<Ended> = some.into_iter().map(|open| open.ended(at)).collect();
        let id = match ended.as_slice() {
            [one] => EventId::Session(one.session.session(), Stream::Connectivity, one.seq),
            _ => id,
        };
        let event = Event::Disconnected(Disconnected { ended });
        let occasion = Occasion { origin: &self.origin, id, at };
        let Encoded { body, headers } = encode(self.format, &occasion, &event);
        let (own, mut headers) = (headers, HeaderMap::new());
        let put = |name: &'static str, value: &dyn Display| headers.insert(name, value.to_string());
        event_headers(id, &own, Some(fence), put).map_err(|error| Failure::Refused(error.to_string()))?;
        let subject = Subjects::new(self.instance()).of(&event);
        self.desk.put(&subject, body, Expect::Headers(&headers)).await.map(drop)
    }

    /// Forgets the incarnation: everything that it left is closed behind these fences. Who has written newer ones since goes on
    /// from there, and forgets it later.
    pub(crate) async fn forget(&self, dead: Incarnation, fences: &Fences) -> Result<(), Failure> {
        let newest = fence::newest(&self.desk, Stream::Connectivity, self.instance(), &dead).await?;
        if newest.is_some_and(|(place, _)| place > fences.connectivity.sequence()) {
            return Ok(());
        }
        let wills = subject::will_wildcard(self.instance(), &dead);
        self.desk.purge(subject::stream_name(Stream::Connectivity), &wills).await?;
        // The lease first: without it and a mark, who lost fences and checkpoint with their streams takes itself for forgotten.
        for lease in lease::all(&self.desk, self.instance()).await? {
            if lease.claim.incarnation == dead {
                let subject = subject::lease_subject(self.instance(), &lease.replica);
                lease::remove(&self.desk, &subject, &dead).await?;
            }
        }
        for stream in STREAMS {
            let subject = subject::fence(stream, self.instance(), &dead);
            let place = fences.of(stream).sequence();
            self.desk.purge_up_to(subject::stream_name(stream), &subject, place).await?;
        }
        checkpoint::forget(&self.desk, &dead).await?;
        Ok(())
    }
}

/// A session of the dead incarnation that is open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Open {
    info: SessionInfo,
    session: SessionId,
    next: u64,
    /// The number of its next message, as a checkpoint knew it; 0 or 1 when none did.
    next_message: u64,
    last_seen_at: UnixMs,
}

impl Open {
    fn ended(self, at: UnixMs) -> Ended {
        let connected_at = self.session.began_at();
        Ended {
            session: self.info.into(),
            seq: self.next,
            reason: Reason::GatewayLost,
            initiator: Reason::GatewayLost.initiator(),
            inferred: true,
            connected_at,
            last_seen_at: Some(self.last_seen_at.max(connected_at)),
            // Two processes' clocks: no session ends before it was last heard.
            at: at.max(self.last_seen_at),
            counters: None,
            evidence: None,
            detail: None,
        }
    }
}

impl From<Entry> for Open {
    fn from(entry: Entry) -> Self {
        let Entry {
            tenant,
            device,
            app_version,
            session,
            epoch,
            next,
            next_message,
            transport,
            last_seen_at,
        } = entry;
        let identity = Identity::new(session, epoch);
        let info = SessionInfo { tenant, device, app_version: app_version.into(), identity, transport };
        Self { info, session, next, next_message, last_seen_at }
    }
}

/// Who is present, as the ledger says of one incarnation.
#[derive(Debug)]
struct Fold {
    incarnation: Incarnation,
    open: HashMap<SessionId, Open>,
    wills: Wills,
}

impl Fold {
    fn new(incarnation: Incarnation, checkpoint: Checkpoint) -> Self {
        let open = checkpoint.open.into_iter().map(|entry| (entry.session, Open::from(entry))).collect();
        Self { incarnation, open, wills: Wills::new(incarnation, checkpoint.wills) }
    }

    fn apply(&mut self, message: &Message) {
        if subject::parse_will(&message.subject).is_some() {
            return self.wills.read(message);
        }
        match wire::read(|name| header(message, name), &message.payload) {
            Ok(event) => self.take(event),
            // Another program's, or a newer gateway's.
            Err(error) => tracing::warn!(subject = ?message.subject, %error, "passed over in the ledger"),
        }
    }

    fn take(&mut self, event: wire::Event) {
        self.wills.see(&event);
        let at = event.head.timestamp;
        let mut went_on = |session: SessionId, seq: u64| {
            if let Some(open) = self.open.get_mut(&session) {
                open.next = open.next.max(seq.saturating_add(1));
                open.last_seen_at = open.last_seen_at.max(at);
            }
        };
        match event.body {
            Body::Connected(connected) if event.head.incarnation == self.incarnation => {
                let wire::Session {
                    tenant, endpoint_id, app_version_name, session_id, epoch, transport, ..
                } = connected.session;
                // It may be in the checkpoint already, with what happened since.
                self.open.entry(session_id).or_insert_with(|| {
                    Open::from(Entry {
                        tenant,
                        device: endpoint_id,
                        app_version: app_version_name,
                        session: session_id,
                        epoch,
                        next: 2,
                        next_message: 1,
                        transport,
                        last_seen_at: at,
                    })
                });
            }
            Body::Disconnected(ended) => {
                for end in ended {
                    self.open.remove(&end.session.session_id);
                }
            }
            Body::Moved(moved) => went_on(moved.session.session_id, moved.session.seq),
            Body::Dormant(dormant) => went_on(dormant.session.session_id, dormant.session.seq),
            Body::Awake(awake) => went_on(awake.session.session_id, awake.session.seq),
            _ => {}
        }
    }
}
