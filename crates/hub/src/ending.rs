//! How sessions end, and everything that time brings: silence, expiries, the tick.
//!
//! Owns: what a session's end publishes and in which order; that many ends at once are few events. Does not own: which
//! session ends when (`landfall-session`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_event::{
    DeviceId, Disconnected, Ended, Event, EventId, Evidence, Family, Outcome, Reason, Stream, TenantId,
    UnixMs,
};
use landfall_net::Scope;
use landfall_session::{KeyRef, Slot, Tick};

use crate::handle::Permit;
use crate::hub::{ENDS_SHARE, Ending, Hub, Roll, Shard};
use crate::post::News;
use crate::quiet::Waits;
use crate::router::Verdict;
use crate::session::{Flag, Lane, Session};
use crate::wills::{KeptWill, Owed};
use crate::{Acl, OpenSession, PeerHandle, Receipt, StoreError};

/// Between two ticks; longer, and the process stood still.
const STANDSTILL_MS: u64 = 2_000;
/// Deadlines that are looked at without letting anybody else have their turn.
const PORTION: usize = 512;
/// Ends in one event at most: some 50 KB of JSON. Larger ones are fewer, but their memory is given back to the system and
/// taken anew for each.
const ENDS_IN_ONE: usize = 128;
/// About what one end costs of the publish window, in an event that names many.
const END_BYTES: usize = 450;

/// The end of a session that no event has told yet: a million of them may wait at once.
#[derive(Debug)]
pub(crate) struct Untold {
    session: Arc<Session>,
    /// Of the device's name, to be found by.
    mark: u32,
    seq: u64,
    at: UnixMs,
    last_seen_at: UnixMs,
    evidence: Option<Box<Evidence>>,
    detail: Option<Box<str>>,
    reason: Reason,
    by_silence: bool,
}

impl Untold {
    pub(crate) fn as_open(&self) -> OpenSession {
        let next_message = self.session.lane.lock().messages() + 1;
        OpenSession {
            info: self.session.info.clone(),
            next: self.seq,
            next_message,
            last_seen_at: self.last_seen_at,
            will: None,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
}

impl From<Untold> for Ended {
    fn from(untold: Untold) -> Self {
        let Untold { session, seq, at, last_seen_at, evidence, detail, reason, by_silence, .. } = untold;
        Self {
            seq,
            reason,
            initiator: reason.initiator(),
            inferred: by_silence,
            connected_at: session.opened_at(),
            last_seen_at: Some(last_seen_at),
            at,
            counters: Some(session.vitals.counters()),
            evidence: evidence.map(|evidence| *evidence),
            detail,
            session: session.into(),
        }
    }
}

impl Hub {
    /// Starts the timers that detect silence and expiry, in `scope`: one for each processor, each with its
    /// shards, and one for all else; and says with it that the process runs.
    pub fn start(self: &Arc<Self>, scope: &Scope) {
        let timers = std::thread::available_parallelism().map_or(1, usize::from).min(self.shards.len());
        for timer in 0..timers {
            let hub = Arc::clone(self);
            scope.spawn_until_cancelled(async move {
                let mut ticks = tokio::time::interval(hub.config.tick);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                loop {
                    ticks.tick().await;
                    hub.look_at_shards(timer, timers).await;
                }
            });
        }
        let hub = Arc::clone(self);
        scope.spawn_until_cancelled(async move {
            let mut ticks = tokio::time::interval(hub.config.tick);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                hub.excuse_standstill();
                hub.look_at_the_rest();
            }
        });
    }

    /// Closes a session's lane: its commands' outcomes and its will are published, its connection is told, its own end is
    /// left in `untold`. The caller holds the device's shard, and tells it before it gives that up or leaves it there.
    pub(crate) fn conclude(self: &Arc<Self>, ending: &Ending, will_now: bool, untold: &mut VecDeque<Untold>) {
        let (session, reason) = (&ending.tag, ending.reason);
        let (tick, now) = self.clock.together();
        let mut lane = session.lane.lock();
        if lane.ended.is_some() {
            return;
        }
        let by_silence =
            session.is_inferred() && matches!(reason, Reason::IdleTimeout | Reason::LifetimeExpired);
        let waiting = self.end_commands(session, &mut lane, reason, by_silence);
        let later = self.end_will(session, &mut lane, reason, will_now);
        lane.ended = Some(reason);
        // By the tracker's clock, so that a late tick makes no device more silent than it was.
        let silent_ms = ending.at.saturating_sub(session.vitals.quiet_since(ending.at));
        let silent_now_ms = tick.saturating_sub(session.vitals.last_seen());
        if !session.never_began() {
            let evidence = || self.evidence(&lane, silent_ms).map(Box::new);
            let evidence = if reason == Reason::IdleTimeout { evidence() } else { None };
            self.metrics.untold.inc();
            untold.push_back(Untold {
                session: Arc::clone(session),
                mark: self.mark(session.tenant(), session.device()),
                seq: lane.next_presence(),
                at: now,
                // Two clocks: what they say is held together, so that nobody is seen outside of the session.
                last_seen_at: now.saturating_sub(silent_now_ms).max(session.opened_at().min(now)),
                evidence,
                detail: None,
                reason,
                by_silence,
            });
        }
        let post = lane.post.take().filter(|_| lane.is(Flag::Watched));
        drop(lane);
        self.metrics.ended(reason);
        if let Some(mailbox) = &session.mailbox {
            mailbox.end(reason);
        }
        if let Some(post) = post {
            let handle = PeerHandle::new(Arc::clone(self), Arc::clone(session), ending.slot);
            post.put(News::Ended(handle, reason));
        }
        if by_silence {
            self.fell_silent(session, waiting);
        }
        if let Some(will) = later {
            self.delay_will(will);
        }
    }

    /// The commands of a session that ends have failed, unless they outlive it; those of a device that just fell silent wait on,
    /// and are returned.
    fn end_commands(
        &self,
        session: &Arc<Session>,
        lane: &mut Lane,
        reason: Reason,
        by_silence: bool,
    ) -> Vec<Waits> {
        let mut waiting = Vec::new();
        if lane.is(Flag::Outlived) && reason != Reason::CredentialsRevoked {
            return waiting;
        }
        for (flight, waits) in lane.land_all() {
            if by_silence {
                self.forget_flight(&flight);
                // What the device has, as far as anybody knows, it may still confirm or answer.
                let is_out = !waits && !flight.is_unsure;
                waiting.push(Waits { command: flight.command, attempts: flight.attempts, is_out });
            } else {
                let verdict = Verdict::because(Outcome::Failed, reason.as_str());
                self.settle_in(session, lane, &flight, verdict, (None, None));
            }
        }
        waiting
    }

    /// Publishes the will, or returns the one that is due later.
    fn end_will(
        &self,
        session: &Arc<Session>,
        lane: &mut Lane,
        reason: Reason,
        will_now: bool,
    ) -> Option<KeptWill> {
        let will = lane.take_will()?;
        if reason == Reason::CredentialsRevoked || session.never_began() {
            return None;
        }
        if will.delay_ms == 0 || will_now {
            self.submit_upstream(session, lane, will.uplink, true, Receipt::unheard(None));
            return None;
        }
        // Nothing of the session is numbered behind it.
        let due_at = self.clock.unix().saturating_add(will.delay_ms);
        let owed = Some(Owed { seq: lane.messages() + 1, due_at });
        Some(KeptWill { info: session.info.clone(), uplink: will.uplink, delay_ms: will.delay_ms, owed })
    }

    fn mark(&self, tenant: &TenantId, device: &DeviceId) -> u32 {
        self.hasher.hash_one((tenant, device)) as u32
    }

    /// Tells all the ends of one shard, oldest first, in as few events as their form allows.
    fn tell_all(&self, untold: &mut VecDeque<Untold>) {
        while !untold.is_empty() {
            self.tell_some(untold, 0, None);
        }
    }

    /// Tells the device's end, if one is untold, with those around it: a session of the device begins.
    pub(crate) fn tell_of(&self, untold: &mut VecDeque<Untold>, (tenant, device): &(TenantId, DeviceId)) {
        if untold.is_empty() {
            return;
        }
        let mark = self.mark(tenant, device);
        let is_its = |one: &Untold| {
            one.mark == mark && one.session.device() == device && one.session.tenant() == tenant
        };
        // Of two families there may be two.
        while let Some(at) = untold.iter().position(is_its) {
            self.tell_some(untold, at - at % self.ends_in_one(), None);
        }
    }

    /// Tells as many ends as one event can name, from one of them on.
    fn tell_some(&self, untold: &mut VecDeque<Untold>, from: usize, permit: Option<Permit>) {
        let until = untold.len().min(from.saturating_add(self.ends_in_one()));
        let ended: Vec<Ended> = untold.drain(from.min(until)..until).map(Ended::from).collect();
        self.metrics.untold.dec_by(i64::try_from(ended.len()).unwrap_or(0));
        self.tell_together(ended, Receipt::unheard(permit.and_then(Permit::into_inner)));
    }

    fn tell_together(&self, ended: Vec<Ended>, receipt: Receipt) {
        let (Some(last), Some(at)) = (ended.last(), ended.iter().map(|one| one.at).max()) else { return };
        let id = if ended.len() == 1 {
            EventId::Session(last.session.session(), Stream::Connectivity, last.seq)
        } else {
            self.gateway_event_id()
        };
        self.submit(id, at, &Event::Disconnected(Disconnected { ended }), receipt);
    }

    fn ends_in_one(&self) -> usize {
        // What is kept on a disk is kept one by one, so that a session can be dropped as a whole when the disk is full.
        if self.bus.is_keeping() { 1 } else { self.config.format.max_sessions().clamp(1, ENDS_IN_ONE) }
    }

    /// A process that stood still (SIGSTOP, a suspended machine) could hear nobody: the silence of that time is its own.
    /// Whoever finds out first excuses all, before anybody looks at a deadline.
    fn excuse_standstill(&self) {
        let mut last = self.last_tick.lock();
        let now = self.clock.tick();
        let gap = now.saturating_sub(std::mem::replace(&mut *last, now));
        let tick = u64::try_from(self.config.tick.as_millis()).unwrap_or(u64::MAX);
        if gap < STANDSTILL_MS.max(tick.saturating_mul(10)) {
            return;
        }
        tracing::warn!(ms = gap, "the gateway stood still; nobody's silence of that time counts");
        for shard in &self.shards {
            for live in shard.lock().iter().filter(|live| !live.tag.vitals.is_held()) {
                live.tag.vitals.hold();
                live.tag.vitals.release(now);
            }
        }
    }

    /// One timer's look at its shards: each `timers`-th, from the `timer`-th on.
    async fn look_at_shards(self: &Arc<Self>, timer: usize, timers: usize) {
        self.excuse_standstill();
        let now = self.clock.tick();
        let mine = || self.shards.iter().skip(timer).step_by(timers);
        let mut silent = Vec::new();
        for shard in mine() {
            while self.expire_portion(&mut shard.lock(), now, &mut silent) {
                // Everybody else's turn, between two portions of many that expire at once.
                tokio::task::yield_now().await;
            }
        }
        // Telling goes on until the next look is due: a slow bus makes nobody's end late, only the news of it.
        let _ = tokio::time::timeout(self.config.tick, self.tell_shards(mine())).await;
    }

    /// Tells what is untold as fast as the bus takes it: a million ends are 400 MB of events.
    async fn tell_shards<'a>(&self, shards: impl Iterator<Item = &'a Shard>) {
        for shard in shards {
            loop {
                let next = shard.lock().untold.len().min(self.ends_in_one());
                if next == 0 {
                    break;
                }
                let bytes = self.config.window_bytes / ENDS_SHARE;
                let permit = Permit::take(&self.ends_window, bytes, next.saturating_mul(END_BYTES)).await;
                self.tell_some(&mut shard.lock().untold, 0, Some(permit));
                // Where a timeout can take effect.
                tokio::task::consume_budget().await;
            }
        }
    }

    fn look_at_the_rest(&self) {
        let now = self.clock.tick();
        self.expire_commands();
        let wills = self.wills.lock().due(now);
        wills.into_iter().for_each(|will| self.publish_late_will(will));
        // While the bus is away they are counted on, so that what waits for it stays bounded.
        if self.tells_refusals() {
            let mut refused = Vec::new();
            self.refusals.lock().due(now, &mut refused);
            refused.into_iter().for_each(|event| self.submit_refused(event));
        }
    }

    /// Ends some of the sessions that are due; true when there are more.
    fn expire_portion(self: &Arc<Self>, roll: &mut Roll, now: Tick, silent: &mut Vec<Ending>) -> bool {
        let more = roll.expire_some(now, PORTION, silent);
        silent.drain(..).for_each(|ending| self.conclude(&ending, false, &mut roll.untold));
        more
    }

    /// Ends the sessions for which `ends` says so, and returns how many there were.
    fn end_where(self: &Arc<Self>, reason: Reason, ends: impl Fn(&Session) -> bool) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let slots: Vec<_> = shard.iter().filter(|live| ends(live.tag)).map(|live| live.slot).collect();
            count += self.end_all(&mut shard, slots, reason);
        }
        count
    }

    fn end_all(
        self: &Arc<Self>,
        roll: &mut Roll,
        slots: impl IntoIterator<Item = Slot>,
        reason: Reason,
    ) -> usize {
        let (mut count, mut untold) = (0, VecDeque::new());
        for slot in slots {
            if let Some(ending) = roll.close(slot, reason, self.clock.tick()) {
                self.conclude(&ending, false, &mut untold);
                count += 1;
            }
        }
        self.tell_all(&mut untold);
        count
    }

    /// Ends every session of a device (`kicked`); returns how many there were.
    pub fn kick(self: &Arc<Self>, tenant: &TenantId, device: &DeviceId) -> usize {
        let mut shard = self.shard(tenant, device).lock();
        let slot =
            |family: &Family| shard.get(KeyRef { tenant, device, family: *family }).map(|(slot, _)| slot);
        let slots: Vec<_> = Family::ALL.iter().filter_map(slot).collect();
        self.end_all(&mut shard, slots, Reason::Kicked)
    }

    /// Ends the sessions of devices for which what was found out at their beginning no longer holds
    /// (`credentials-revoked`); returns how many there were.
    pub fn revoke(self: &Arc<Self>, holds: impl Fn(&TenantId, &DeviceId, &Arc<Acl>) -> bool) -> usize {
        self.end_where(Reason::CredentialsRevoked, |s| !holds(s.tenant(), s.device(), &s.acl))
    }

    /// Opens no further session, ends all (`gateway-draining`), and publishes what was waiting, but for wills whose delay is not
    /// over: they are kept for whoever comes next. Returns when the last event is stored; bound it with a deadline.
    ///
    /// # Errors
    /// When the bus will not store the last event.
    pub async fn drain(self: &Arc<Self>) -> Result<(), StoreError> {
        self.draining.store(true, Ordering::Release);
        self.end_where(Reason::GatewayDraining, |_| true);
        self.shards.iter().for_each(|shard| self.tell_all(&mut shard.lock().untold));
        self.end_quiet();
        let mut refused = Vec::new();
        // Who never let anybody in has no place to tell it at.
        if !self.is_shut() {
            self.refusals.lock().flush(&mut refused);
        }
        refused.into_iter().for_each(|event| self.submit_refused(event));
        if !self.announced.load(Ordering::Acquire) {
            return Ok(());
        }
        let stored = self.say(landfall_event::ServiceKind::Leave);
        stored.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Device and session closed by its connection or its own word: publishes the end, once. False if it has ended already,
    /// or has no end to tell.
    pub(crate) fn close(
        self: &Arc<Self>,
        session: &Session,
        slot: Slot,
        (reason, detail): (Reason, Option<Box<str>>),
        told: impl FnOnce() -> Receipt,
    ) -> bool {
        let mut shard = self.shard(session.tenant(), session.device()).lock();
        let Some(ending) = shard.close(slot, reason, self.clock.tick()) else { return false };
        let mut untold = VecDeque::new();
        self.conclude(&ending, false, &mut untold);
        let Some(mut end) = untold.pop_front() else { return false };
        end.detail = detail;
        self.metrics.untold.dec();
        self.tell_together(vec![Ended::from(end)], told());
        true
    }
}
