//! Opens and ends sessions, in the one order that makes their events true.
//!
//! Owns: the tracker shards, epochs, what a session's end publishes and in which order, the hub's timer.
//! Does not own: commands (`router.rs`), what a listener may do with a session (`handle.rs`).
//!
//! Locks are taken in this order only: shard, lane, mailbox. Everything that begins or ends a session of a device holds
//! that device's shard, and everything that numbers an event of a session holds its lane, so the order of submission is
//! the order of the numbers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use landfall_event::{
    Connected, DeviceId, Disconnected, Encoded, Ended, Epoch, Event, EventId, Family, Occasion, Outcome,
    Reason, Refused, RefusedCause, SessionId, SessionInfo, Stream, Subjects, TenantId, Transport, UnixMs,
    Upstream,
};
use landfall_net::Scope;
use landfall_session::{Key, Slot, Terms, Tick, Tracker};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::handle::SessionHandle;
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::router::{Offline, Router, Verdict};
use crate::session::{Lane, Session, Uplink, Will};
use crate::view::SessionView;
use crate::wills::{Waiting, Wills};
use crate::{Bus, HubConfig, Principal, Publication, Receipt, StoreError, UpstreamBody};

const SHARDS: usize = 16;
/// Between two ticks; longer, and the process stood still.
const STANDSTILL_MS: u64 = 2_000;
/// While the bus is away, a connecting device asks again this often.
const BUS_POLL: Duration = Duration::from_millis(50);

type Shard = Mutex<Tracker<Arc<Session>, ahash::RandomState>>;
pub(crate) type Ending = landfall_session::Ended<Arc<Session>>;

/// What a listener says of a device that it has let in.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Who the device is.
    pub principal: Principal,
    /// How it came.
    pub transport: Transport,
    /// The protocol and its version: "MQTT/5.0".
    pub protocol: &'static str,
    /// What the protocol calls it.
    pub remote_id: Arc<str>,
    /// Where it connects from.
    pub remote_address: SocketAddr,
    /// The silence that ends the session; `None` when none does.
    pub keep_alive_ms: Option<u64>,
    /// The reason that such an end carries.
    pub on_silence: Reason,
    /// True where the protocol has no connect.
    pub inferred: bool,
    /// MQTT's clean start.
    pub clean_start: Option<bool>,
    /// What to publish when it leaves without a goodbye.
    pub will: Option<Will>,
}

/// Why a session did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The gateway is shutting down.
    #[error("the gateway is draining")]
    Draining,
    /// `max_sessions` are open.
    #[error("the limit of sessions is reached")]
    Full,
    /// The `connected` event could not be stored, for good.
    #[error("the connected event was not stored")]
    NotStored,
}

/// The driver between listeners and the bus. One per process.
#[derive(Debug)]
pub struct Hub {
    pub(crate) config: HubConfig,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) window: Arc<Semaphore>,
    pub(crate) router: Router,
    subjects: Subjects,
    shards: Box<[Shard]>,
    hasher: ahash::RandomState,
    refusals: Mutex<Refusals>,
    wills: Mutex<Wills>,
    offline: OnceLock<Arc<dyn Offline>>,
    epoch: AtomicU64,
    gateway_events: AtomicU64,
    last_tick: AtomicU64,
    draining: AtomicBool,
    /// `join` has been said, so `leave` is due.
    pub(crate) announced: AtomicBool,
}

impl Hub {
    /// Makes the hub and registers its metrics. `start` sets its timer going.
    pub fn new(config: HubConfig, bus: Arc<dyn Bus>, registry: &mut Registry) -> Arc<Self> {
        let clock = Clock::new();
        let tick_ms = u64::try_from(config.tick.as_millis()).unwrap_or(u64::MAX).max(1);
        let interval = u64::try_from(config.refusal_interval.as_millis()).unwrap_or(u64::MAX);
        let metrics = Metrics::default();
        metrics.register(registry);
        let hasher = ahash::RandomState::new;
        let shards = (0..SHARDS).map(|_| Mutex::new(Tracker::new(clock.tick(), tick_ms, hasher()))).collect();
        Arc::new(Self {
            window: Arc::new(Semaphore::new(config.window_bytes.min(Semaphore::MAX_PERMITS))),
            router: Router::default(),
            subjects: Subjects::new(&config.origin.instance),
            shards,
            hasher: ahash::RandomState::new(),
            refusals: Mutex::new(Refusals::new(interval, config.max_refusal_sources)),
            wills: Mutex::new(Wills::default()),
            offline: OnceLock::new(),
            epoch: AtomicU64::new(0),
            gateway_events: AtomicU64::new(0),
            last_tick: AtomicU64::new(clock.tick()),
            draining: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            config,
            clock,
            metrics,
            bus,
        })
    }

    /// Says who takes commands for devices that are away. Once.
    pub fn set_offline(&self, offline: Arc<dyn Offline>) {
        let _ = self.offline.set(offline);
    }

    pub(crate) fn offline(&self) -> Option<&Arc<dyn Offline>> {
        self.offline.get()
    }

    /// Starts the timer that detects silence and expiry, in `scope`.
    pub fn start(self: &Arc<Self>, scope: &Scope) {
        let hub = Arc::clone(self);
        hub.last_tick.store(hub.clock.tick(), Ordering::Release);
        scope.spawn_until_cancelled(async move {
            let mut ticks = tokio::time::interval(hub.config.tick);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                hub.on_tick();
            }
        });
    }

    /// Begins a session, held ([`SessionHandle::hold`]): release it when the protocol's own welcome is done. Returns when
    /// its `connected` is stored; an earlier session of the device and family has ended
    /// before, its `disconnected` (`taken-over`) stored first. Waits while the bus is away: bound it with a deadline.
    /// A caller that gives up leaves no open session behind.
    ///
    /// # Errors
    /// [`OpenError`], in which case no event of it is published.
    pub async fn open(self: &Arc<Self>, hello: Hello) -> Result<SessionHandle, OpenError> {
        while !self.bus.is_ready() {
            if self.draining.load(Ordering::Acquire) {
                return Err(OpenError::Draining);
            }
            tokio::time::sleep(BUS_POLL).await;
        }
        let (receipt, stored) = Receipt::once();
        let handle = self.begin(hello, receipt)?;
        // Until the protocol's own welcome is done, the device cannot be heard.
        handle.hold(true);
        match stored.await {
            Ok(Ok(())) => Ok(handle),
            _ => {
                handle.never_began();
                Err(OpenError::NotStored)
            }
        }
    }

    fn begin(self: &Arc<Self>, hello: Hello, receipt: Receipt) -> Result<SessionHandle, OpenError> {
        let device = (hello.principal.tenant.clone(), hello.principal.device.clone());
        let key =
            Key { tenant: device.0.clone(), device: device.1.clone(), family: hello.transport.family() };
        let terms = Terms { silence_ms: hello.keep_alive_ms, on_silence: hello.on_silence };
        let will = hello.will.clone().map(Box::new);
        let resumes = hello.clean_start == Some(false);
        let mut shard = self.shard(&key.tenant, &key.device).lock();
        // Looked at under the lock: `drain` sets the flag before it takes the shards one by one.
        if self.draining.load(Ordering::Acquire) {
            return Err(OpenError::Draining);
        }
        let open = usize::try_from(self.metrics.sessions.get()).unwrap_or(0);
        if open >= self.config.max_sessions && shard.get(&key).is_none() {
            return Err(OpenError::Full);
        }
        let session = Arc::new(self.make_session(hello));
        session.lane.lock().will = will;
        let opened = shard.open(key, Arc::clone(&session), terms, self.clock.tick());
        if let Some(replaced) = opened.replaced {
            self.finish(&replaced, !resumes);
        }
        self.settle_waiting_will(&device, resumes);
        self.metrics.opened(session.info.transport);
        self.submit_connected(&session, receipt);
        drop(shard);
        Ok(SessionHandle::new(Arc::clone(self), session, opened.vitals, opened.slot))
    }

    fn make_session(&self, hello: Hello) -> Session {
        let now = self.clock.unix();
        let info = SessionInfo {
            tenant: hello.principal.tenant.clone(),
            device: hello.principal.device.clone(),
            app_version: hello.principal.app_version.as_ref().into(),
            session: SessionId::new(now, rand::random()),
            epoch: self.next_epoch(now),
            transport: hello.transport,
        };
        Session {
            info: Arc::new(info),
            principal: hello.principal,
            protocol: hello.protocol,
            remote_id: hello.remote_id,
            remote_address: hello.remote_address,
            keep_alive_ms: hello.keep_alive_ms,
            inferred: hello.inferred,
            clean_start: hello.clean_start,
            opened_at: now,
            lane: Mutex::new(Lane::default()),
            mailbox: Mailbox::default(),
        }
    }

    /// Every later epoch is above `floor`: what an earlier start has stored, found out after this one has begun.
    pub fn raise_epoch(&self, floor: Epoch) {
        self.epoch.fetch_max(floor.0, Ordering::AcqRel);
    }

    /// A hybrid clock: rises with every session, follows the wall clock, and stays above what was stored before.
    fn next_epoch(&self, now: UnixMs) -> Epoch {
        let next = |last: u64| last.saturating_add(1).max(now);
        let last = self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        Epoch(next(last.unwrap_or_else(|last| last)))
    }

    fn submit_connected(&self, session: &Session, receipt: Receipt) {
        let event = Event::Connected(Connected {
            session: Arc::clone(&session.info),
            protocol: session.protocol,
            remote_id: Arc::clone(&session.remote_id),
            remote_address: session.remote_address,
            identified_by: session.identified_by(),
            keep_alive_ms: session.keep_alive_ms,
            inferred: session.inferred,
            clean_start: session.clean_start,
        });
        let id = EventId::Session(session.info.session, Stream::Connectivity, 1);
        self.submit(id, session.opened_at, &event, receipt);
    }

    /// Publishes a session's end: its commands' outcomes, its will, then `disconnected`; and tells its connection.
    /// The caller holds the device's shard.
    pub(crate) fn finish(&self, ending: &Ending, will_now: bool) {
        let session = &ending.tag;
        let now = self.clock.unix();
        let mut lane = session.lane.lock();
        if lane.ended.is_some() {
            return;
        }
        for flight in lane.flights.take().into_iter().flat_map(|flights| flights.into_values()) {
            let verdict = Verdict::because(Outcome::Failed, ending.reason.as_str());
            self.settle_in(session, &mut lane, &flight, verdict, None);
        }
        let mut later = None;
        match lane.will.take() {
            Some(_) if ending.reason == Reason::CredentialsRevoked || lane.never_began => {}
            Some(will) if will.delay_ms == 0 || will_now || self.is_draining() => {
                self.submit_upstream(session, &mut lane, will.uplink, true, Receipt::unheard(None));
            }
            Some(will) => later = Some(*will),
            None => {}
        }
        lane.ended = Some(ending.reason);
        let silent_ms = self.clock.tick().saturating_sub(ending.last_seen);
        let event = Event::Disconnected(Disconnected {
            ended: vec![Ended {
                session: Arc::clone(&session.info),
                seq: 2,
                reason: ending.reason,
                initiator: ending.reason.initiator(),
                inferred: session.inferred && ending.reason == Reason::IdleTimeout,
                connected_at: session.opened_at,
                // Two clocks: what they say is held together, so that nobody is seen outside of the session.
                last_seen_at: Some(now.saturating_sub(silent_ms).max(session.opened_at.min(now))),
                at: now,
                counters: Some(ending.vitals.counters()),
                evidence: None,
            }],
        });
        if !lane.never_began {
            let id = EventId::Session(session.info.session, Stream::Connectivity, 2);
            self.submit(id, now, &event, Receipt::unheard(None));
        }
        drop(lane);
        self.metrics.ended(ending.reason);
        session.mailbox.end(ending.reason);
        if let Some(will) = later {
            self.delay_will(Arc::clone(session), will);
        }
    }

    fn delay_will(&self, session: Arc<Session>, will: Will) {
        let due = self.clock.tick().saturating_add(will.delay_ms);
        let waiting = Waiting { session, uplink: will.uplink };
        let now_due = {
            let mut wills = self.wills.lock();
            if wills.len() >= self.config.max_waiting_wills {
                Some(waiting)
            } else {
                wills.wait(due, waiting)
            }
        };
        now_due.into_iter().for_each(|waiting| self.publish_late_will(waiting));
    }

    /// A session begins while a will of the device waits: a resumed one takes it back [MQTT-3.1.3-9], a clean one has
    /// ended the old session, so the will is due.
    fn settle_waiting_will(&self, device: &(TenantId, DeviceId), resumes: bool) {
        let waiting = self.wills.lock().take(device);
        if let Some(waiting) = waiting
            && !resumes
        {
            self.publish_late_will(waiting);
        }
    }

    fn publish_late_will(&self, waiting: Waiting) {
        let mut lane = waiting.session.lane.lock();
        self.submit_upstream(&waiting.session, &mut lane, waiting.uplink, true, Receipt::unheard(None));
    }

    /// Numbers and submits one message of a session; the caller holds its lane.
    pub(crate) fn submit_upstream(
        &self,
        session: &Session,
        lane: &mut Lane,
        uplink: Uplink,
        will: bool,
        receipt: Receipt,
    ) {
        let seq = lane.next_message();
        let event = Event::Upstream(Upstream {
            session: Arc::clone(&session.info),
            seq,
            topic: uplink.topic,
            qos: uplink.qos,
            retain: uplink.retain,
            will,
            content_type: uplink.content_type,
            properties: uplink.properties,
            payload: uplink.payload,
        });
        let id = EventId::Session(session.info.session, Stream::Messages, seq);
        self.submit(id, self.clock.unix(), &event, receipt);
    }

    pub(crate) fn submit(&self, id: EventId, at: UnixMs, event: &Event, receipt: Receipt) {
        let occasion = Occasion { origin: &self.config.origin, id, at };
        let Encoded { body, headers } = match event {
            Event::Upstream(upstream) if self.config.upstream_body == UpstreamBody::Raw => {
                landfall_event::encode_raw_upstream(&occasion, upstream)
            }
            event => landfall_event::encode(self.config.format, &occasion, event),
        };
        let (stream, subject) = (self.subjects.stream_of(event), self.subjects.of(event));
        self.bus.submit(Publication { stream, subject, id, headers, body, receipt });
    }

    pub(crate) fn gateway_event_id(&self) -> EventId {
        let n = self.gateway_events.fetch_add(1, Ordering::Relaxed) + 1;
        EventId::Gateway(self.config.origin.incarnation, n)
    }

    pub(crate) fn shard(&self, tenant: &TenantId, device: &DeviceId) -> &Shard {
        let hash = self.hasher.hash_one((tenant, device));
        let at = usize::try_from(hash % (SHARDS as u64)).unwrap_or(0);
        #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is below SHARDS")]
        &self.shards[at]
    }

    /// The device's open session in the family that commands go to first.
    pub(crate) fn find(&self, tenant: &TenantId, device: &DeviceId) -> Option<Arc<Session>> {
        let shard = self.shard(tenant, device).lock();
        Family::ALL.iter().find_map(|family| {
            let key = Key { tenant: tenant.clone(), device: device.clone(), family: *family };
            shard.get(&key).map(|(_, session)| Arc::clone(session))
        })
    }

    /// Counts an attempt that was turned away; the event is coalesced per source and cause.
    pub fn refused(
        &self,
        cause: RefusedCause,
        transport: Transport,
        remote: SocketAddr,
        device: Option<(TenantId, DeviceId)>,
    ) {
        self.metrics.refused(cause, 1);
        let times = (self.clock.tick(), self.clock.unix());
        let told = {
            let mut refusals = self.refusals.lock();
            let told = refusals.note(cause, transport, remote, device, times, self.bus.is_ready());
            self.metrics.refusal_sources.set(i64::try_from(refusals.sources()).unwrap_or(i64::MAX));
            told
        };
        told.into_iter().for_each(|refused| self.submit_refused(refused));
    }

    fn submit_refused(&self, refused: Refused) {
        let at = refused.last_at;
        self.submit(self.gateway_event_id(), at, &Event::Refused(refused), Receipt::unheard(None));
    }

    /// A process that stood still (SIGSTOP, a suspended machine) could hear nobody: the silence of that time is its own.
    fn excuse_standstill(&self, now: Tick) {
        let gap = now.saturating_sub(self.last_tick.swap(now, Ordering::AcqRel));
        let tick = u64::try_from(self.config.tick.as_millis()).unwrap_or(u64::MAX);
        if gap < STANDSTILL_MS.max(tick.saturating_mul(10)) {
            return;
        }
        tracing::warn!(ms = gap, "the gateway stood still; nobody's silence of that time counts");
        for shard in &self.shards {
            for live in shard.lock().iter().filter(|live| !live.vitals.is_held()) {
                live.vitals.hold();
                live.vitals.release(now);
            }
        }
    }

    fn on_tick(&self) {
        let now = self.clock.tick();
        self.excuse_standstill(now);
        let mut silent = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.expire(now, &mut silent);
            silent.drain(..).for_each(|ending| self.finish(&ending, false));
        }
        self.expire_commands();
        let wills = self.wills.lock().due(now);
        wills.into_iter().for_each(|waiting| self.publish_late_will(waiting));
        // While the bus is away they are counted on, so that what waits for it stays bounded.
        if self.bus.is_ready() {
            let mut refused = Vec::new();
            self.refusals.lock().due(now, &mut refused);
            refused.into_iter().for_each(|event| self.submit_refused(event));
        }
    }

    /// Ends the sessions for which `ends` says so, and returns how many there were.
    fn end_where(&self, reason: Reason, ends: impl Fn(&Session) -> bool) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let slots: Vec<_> = shard.iter().filter(|live| ends(live.tag)).map(|live| live.slot).collect();
            for slot in slots {
                if let Some(ending) = shard.close(slot, reason, self.clock.tick()) {
                    self.finish(&ending, false);
                    count += 1;
                }
            }
        }
        count
    }

    /// Ends every session of a device (`kicked`); returns how many there were.
    pub fn kick(&self, tenant: &TenantId, device: &DeviceId) -> usize {
        let mut shard = self.shard(tenant, device).lock();
        let key = |family| Key { tenant: tenant.clone(), device: device.clone(), family };
        let slots: Vec<_> =
            Family::ALL.iter().filter_map(|family| shard.get(&key(*family)).map(|(slot, _)| slot)).collect();
        let ended = slots.into_iter().filter_map(|slot| shard.close(slot, Reason::Kicked, self.clock.tick()));
        ended.collect::<Vec<_>>().iter().map(|ending| self.finish(ending, false)).count()
    }

    /// Ends the sessions of principals that no longer hold (`credentials-revoked`); returns how many there were.
    pub fn revoke(&self, holds: impl Fn(&Principal) -> bool) -> usize {
        self.end_where(Reason::CredentialsRevoked, |s| !holds(&s.principal))
    }

    /// The open sessions that `wanted` names, at most `limit`.
    pub fn sessions(&self, limit: usize, wanted: impl Fn(&SessionView) -> bool) -> Vec<SessionView> {
        let (tick, unix) = (self.clock.tick(), self.clock.unix());
        let mut views = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let all = shard.iter().map(|live| SessionView::new(live.tag, live.vitals, tick, unix));
            views.extend(all.filter(|view| wanted(view)).take(limit - views.len().min(limit)));
        }
        views
    }

    /// Sessions open now.
    pub fn session_count(&self) -> u64 {
        u64::try_from(self.metrics.sessions.get()).unwrap_or(0)
    }

    /// True while the bus stores what it is given.
    pub fn is_ready(&self) -> bool {
        self.bus.is_ready()
    }

    /// Bytes of the publish window in use, and all of them.
    pub fn window_fill(&self) -> (usize, usize) {
        let all = self.config.window_bytes;
        (all.saturating_sub(self.window.available_permits()), all)
    }

    /// True once `drain` has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Opens no further session, ends all (`gateway-draining`), and publishes what was waiting. Returns when the last
    /// event is stored; bound it with a deadline.
    ///
    /// # Errors
    /// When the bus will not store the last event.
    pub async fn drain(&self) -> Result<(), StoreError> {
        self.draining.store(true, Ordering::Release);
        self.end_where(Reason::GatewayDraining, |_| true);
        let wills = self.wills.lock().due(Tick::MAX - 1);
        wills.into_iter().for_each(|waiting| self.publish_late_will(waiting));
        let mut refused = Vec::new();
        self.refusals.lock().flush(&mut refused);
        refused.into_iter().for_each(|event| self.submit_refused(event));
        if !self.announced.load(Ordering::Acquire) {
            return Ok(());
        }
        let stored = self.say(landfall_event::ServiceKind::Leave);
        stored.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Device and session closed by its connection: publishes the end, once.
    pub(crate) fn close(&self, session: &Session, slot: Slot, reason: Reason) {
        let mut shard = self.shard(&session.info.tenant, &session.info.device).lock();
        if let Some(ending) = shard.close(slot, reason, self.clock.tick()) {
            self.finish(&ending, false);
        }
    }
}
