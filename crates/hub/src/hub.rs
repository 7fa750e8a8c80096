//! Opens sessions, in the one order that makes their events true.
//!
//! Owns: the tracker shards, epochs, how events are numbered and submitted. Does not own: how sessions end and what time
//! brings (`ending.rs`), commands (`router.rs`), what a listener may do with a session (`handle.rs`, `peer.rs`).
//!
//! Locks are taken in this order only: shard, lane, then mailbox or post; what is remembered of silent devices after the
//! shard. Everything that begins or ends a session of a device holds
//! that device's shard, and everything that numbers an event of a session holds its lane, so the order of submission is
//! the order of the numbers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use landfall_event::{
    DeviceId, Encoded, Epoch, Event, EventId, Family, Identity, Occasion, Origin, Reason, Refused, SessionId,
    SessionInfo, SessionRef, Stream, Subjects, TenantId, Transport, UnixMs,
};
use landfall_session::{KeyRef, Slot, Terms, Tick, Tracker};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use crate::attempt::Attempt;
use crate::clock::Clock;
use crate::ending::Untold;
use crate::handle::{Permit, SessionHandle};
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::refusals::Refusals;
use crate::router::{Offline, Router};
use crate::session::{Flag, Lane, Protocol, Session, Uplink, Will};
use crate::view::SessionView;
use crate::wills::Wills;
use crate::{Authenticator, Bus, HubConfig, Principal, Publication, Receipt, UpstreamBody};

const SHARDS: usize = 16;
/// The part of the publish window's size that ends have beside it: one in so many.
pub(crate) const ENDS_SHARE: usize = 4;
/// While the bus is away, a connecting device asks again this often.
const BUS_POLL: Duration = Duration::from_millis(50);

pub(crate) type Shard = Mutex<Roll>;
pub(crate) type Ending = landfall_session::Ended<Arc<Session>>;

/// The sessions of a sixteenth of the devices.
#[derive(Debug)]
pub(crate) struct Roll {
    tracker: Tracker<Arc<Session>, ahash::RandomState>,
    /// Ends that are not told yet: before a session of one of these devices begins, they are.
    pub(crate) untold: VecDeque<Untold>,
}

impl Deref for Roll {
    type Target = Tracker<Arc<Session>, ahash::RandomState>;

    fn deref(&self) -> &Self::Target {
        &self.tracker
    }
}

impl DerefMut for Roll {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.tracker
    }
}

/// What a listener says of a device that it has let in.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Who the device is.
    pub principal: Principal,
    /// How it came.
    pub transport: Transport,
    /// The protocol and its version.
    pub protocol: Protocol,
    /// What the protocol calls it.
    pub remote_id: Arc<str>,
    /// Where it connects from.
    pub remote_address: SocketAddr,
    /// The silence that ends the session; `None` when none does.
    pub keep_alive_ms: Option<u64>,
    /// The reason that such an end carries.
    pub on_silence: Reason,
    /// Nothing has said that the device connects: that is concluded from its first message.
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
    /// What the device has proven counts no longer.
    #[error("what the device has proven counts no longer")]
    Withdrawn,
    /// The bus is away, and the caller does not wait for it, or is not to; or nobody is let in yet.
    #[error("NATS is away")]
    Away,
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
    pub(crate) shards: Box<[Shard]>,
    pub(crate) refusals: Mutex<Refusals>,
    pub(crate) wills: Mutex<Wills>,
    pub(crate) keeps_wills: AtomicBool,
    pub(crate) quiet: Mutex<Quiet>,
    /// A quarter of the publish window, for ends alone: they wait for no message, and no message for them.
    pub(crate) ends_window: Arc<Semaphore>,
    /// When the process was last known to run.
    pub(crate) last_tick: Mutex<Tick>,
    /// Who publishes. Another incarnation takes over when this one was given up for dead (`anew.rs`).
    origin: ArcSwap<Origin>,
    pub(crate) subjects: Subjects,
    pub(crate) hasher: ahash::RandomState,
    offline: OnceLock<Arc<dyn Offline>>,
    auth: OnceLock<Arc<dyn Authenticator>>,
    epoch: AtomicU64,
    gateway_events: AtomicU64,
    pub(crate) draining: AtomicBool,
    /// Listeners are there before anybody may come in.
    pub(crate) is_shut: AtomicBool,
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
        let ends_bytes = config.window_bytes / ENDS_SHARE;
        let tracker = || Tracker::new(clock.tick(), tick_ms, hasher());
        let shards =
            (0..SHARDS).map(|_| Mutex::new(Roll { tracker: tracker(), untold: VecDeque::new() })).collect();
        Arc::new(Self {
            window: Arc::new(Semaphore::new(config.window_bytes.min(Semaphore::MAX_PERMITS))),
            ends_window: Arc::new(Semaphore::new(ends_bytes.min(Semaphore::MAX_PERMITS))),
            last_tick: Mutex::new(clock.tick()),
            router: Router::default(),
            subjects: Subjects::new(&config.origin.instance),
            origin: ArcSwap::from_pointee(config.origin.clone()),
            shards,
            hasher: ahash::RandomState::new(),
            refusals: Mutex::new(Refusals::new(interval, config.max_refusal_sources)),
            wills: Mutex::new(Wills::default()),
            keeps_wills: AtomicBool::new(false),
            quiet: Mutex::new(Quiet::new(config.max_quiet_devices, config.commands_per_session)),
            offline: OnceLock::new(),
            auth: OnceLock::new(),
            epoch: AtomicU64::new(0),
            gateway_events: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            is_shut: AtomicBool::new(false),
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

    /// Says who knows whether what was found out of a device still holds when its session begins. The first one counts.
    pub fn set_authenticator(&self, auth: Arc<dyn Authenticator>) {
        let _ = self.auth.set(auth);
    }

    /// Until [`Hub::let_in`] no session begins, and no event is made of who is turned away. Say it before there are listeners.
    pub fn keep_out(&self) {
        self.is_shut.store(true, Ordering::Release);
    }

    /// From now on sessions begin.
    pub fn let_in(&self) {
        self.is_shut.store(false, Ordering::Release);
    }

    /// Is nobody let in yet, whatever the bus does ([`Hub::keep_out`])?
    pub fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    /// May the gateway tell what it has refused?
    pub(crate) fn tells_refusals(&self) -> bool {
        self.bus.is_ready() && !self.is_shut()
    }

    /// Waits until a session may begin, for as long as that takes: bound it with a deadline.
    ///
    /// # Errors
    /// When it may not, and will not for now.
    pub async fn until_sessions_begin(&self) -> Result<(), OpenError> {
        while !self.takes_sessions() {
            if self.is_shut() || !self.config.admit_while_away {
                return Err(OpenError::Away);
            }
            if self.draining.load(Ordering::Acquire) {
                return Err(OpenError::Draining);
            }
            tokio::time::sleep(BUS_POLL).await;
        }
        Ok(())
    }

    /// Begins a session, held ([`SessionHandle::hold`]): release it when the protocol's own welcome is done. Returns when
    /// its `connected` is stored; an earlier session of the device and family has ended
    /// before, its `disconnected` (`taken-over`) stored first. Waits while the bus is away: bound it with a deadline.
    ///
    /// Call it when everything else is decided: a device whose session has begun is let in. A caller that gives up while
    /// `connected` is on its way leaves no open session behind, and an end (`not-admitted`) that says whose doing that was.
    ///
    /// # Errors
    /// [`OpenError`], in which case no event of it is published.
    pub async fn open(self: &Arc<Self>, hello: Hello) -> Result<SessionHandle, OpenError> {
        self.until_sessions_begin().await?;
        let (receipt, stored) = Receipt::once();
        let (session, slot) = self.begin(hello, Some(Box::default()), |_| receipt)?;
        let mut handle = SessionHandle::new(Arc::clone(self), session, slot);
        // Until the protocol's own welcome is done, the device cannot be heard.
        handle.hold(true);
        match stored.await {
            Ok(Ok(())) => {
                handle.is_let_in();
                Ok(handle)
            }
            _ => {
                handle.never_began();
                Err(OpenError::NotStored)
            }
        }
    }

    /// Puts the session into its place; `prepare` sees it before anything of it is submitted, and says who hears of its
    /// `connected`.
    pub(crate) fn begin(
        self: &Arc<Self>,
        mut hello: Hello,
        mailbox: Option<Box<Mailbox>>,
        prepare: impl FnOnce(&Arc<Session>) -> Receipt,
    ) -> Result<(Arc<Session>, Slot), OpenError> {
        let device = (hello.principal.tenant.clone(), hello.principal.device.clone());
        let terms = Terms { silence_ms: hello.keep_alive_ms, on_silence: hello.on_silence };
        let will = hello.will.take();
        let (clean_start, inferred) = (hello.clean_start, hello.inferred);
        let resumes = clean_start == Some(false);
        let mut shard = self.shard(&device.0, &device.1).lock();
        // Looked at under the lock: `drain` sets the flag before it takes the shards one by one.
        if self.draining.load(Ordering::Acquire) {
            return Err(OpenError::Draining);
        }
        let open = usize::try_from(self.metrics.sessions.get()).unwrap_or(0);
        let key = KeyRef { tenant: &device.0, device: &device.1, family: hello.transport.family() };
        if open >= self.config.max_sessions && shard.get(key).is_none() {
            return Err(OpenError::Full);
        }
        // Two tasks may have had a word of one device at once: one session, and no takeover.
        if mailbox.is_none()
            && let Some((slot, open)) = shard.get(key)
            && open.info.transport == hello.transport
            && !open.never_began()
        {
            return Ok((Arc::clone(open), slot));
        }
        // Under the lock too: whoever withdraws a credential looks at every shard afterwards.
        if !self.still_holds(&hello.principal) {
            return Err(OpenError::Withdrawn);
        }
        let session = Arc::new(self.make_session(hello, mailbox));
        {
            let mut lane = session.lane.lock();
            lane.set(Flag::Clean, clean_start == Some(true));
            lane.set_will(will);
        }
        let receipt = prepare(&session);
        let opened = shard.open(Arc::clone(&session), terms, self.clock.tick());
        if let Some(replaced) = opened.replaced {
            self.conclude(&replaced, !resumes, &mut shard.untold);
        }
        self.tell_of(&mut shard.untold, &device);
        self.settle_waiting_will(&device, resumes);
        self.metrics.opened(session.info.transport);
        self.keep_will(&session);
        self.submit_connected(&session, terms.silence_ms, inferred, clean_start, receipt);
        if session.is_inferred() {
            self.speaks_again(&session, &device);
        }
        Ok((session, opened.slot))
    }

    fn still_holds(&self, principal: &Principal) -> bool {
        let Principal { tenant, device, acl, .. } = principal;
        self.auth.get().is_none_or(|auth| auth.still_holds(tenant, device, acl))
    }

    fn make_session(&self, hello: Hello, mailbox: Option<Box<Mailbox>>) -> Session {
        let (now, micros) = self.clock.both();
        let info = SessionInfo {
            tenant: hello.principal.tenant.clone(),
            device: hello.principal.device.clone(),
            app_version: hello.principal.app_version.as_ref().into(),
            identity: Identity::new(SessionId::new(now, rand::random()), self.next_epoch(micros)),
            transport: hello.transport,
        };
        Session::new(info, hello, mailbox, self.clock.tick())
    }

    /// Every later epoch is above `floor`: what an earlier start has stored, found out after this one has begun.
    pub fn raise_epoch(&self, floor: Epoch) {
        self.epoch.fetch_max(floor.0, Ordering::AcqRel);
    }

    /// A hybrid clock: rises with every session, follows the wall clock, and stays above what was stored before. Microseconds, so that
    /// no crowd makes it run ahead of the clocks of other replicas, to which these devices may go next.
    pub(crate) fn next_epoch(&self, micros: u64) -> Epoch {
        let next = |last: u64| last.saturating_add(1).max(micros);
        let last = self.epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        Epoch(next(last.unwrap_or_else(|last| last)))
    }

    fn submit_connected(
        &self,
        session: &Arc<Session>,
        keep_alive_ms: Option<u64>,
        inferred: bool,
        clean_start: Option<bool>,
        receipt: Receipt,
    ) {
        let mut lane = session.lane.lock();
        let seq = lane.next_presence();
        let event = session.connected(&lane, keep_alive_ms, inferred, clean_start);
        // Who hears of it takes the lane, perhaps at once.
        drop(lane);
        let id = EventId::Session(session.info.session(), Stream::Connectivity, seq);
        self.submit(id, session.opened_at(), &event, receipt);
    }

    /// A share of the publish window for a message of `bytes`, if it is to be had now.
    pub(crate) fn try_admit(&self, bytes: usize) -> Option<Permit> {
        Permit::try_take(&self.window, self.config.window_bytes, bytes)
    }

    /// Waits for a share of the publish window, in turn.
    pub(crate) async fn admit(&self, bytes: usize) -> Permit {
        Permit::take(&self.window, self.config.window_bytes, bytes).await
    }

    pub(crate) fn count_in(&self, session: &Arc<Session>, bytes: u64) {
        session.vitals.count_in(bytes);
        self.metrics.messages_in.inc();
        self.metrics.payload_bytes_in.inc_by(bytes);
    }

    /// Numbers and submits one message of a session; the caller holds its lane.
    pub(crate) fn submit_upstream(
        &self,
        session: &Arc<Session>,
        lane: &mut Lane,
        uplink: Uplink,
        will: bool,
        receipt: Receipt,
    ) {
        let seq = lane.next_message();
        self.submit_message(Arc::clone(session).into(), seq, uplink, will, receipt);
    }

    /// Submits a message of a session, ended or not, under this number.
    pub(crate) fn submit_message(
        &self,
        session: SessionRef,
        seq: u64,
        uplink: Uplink,
        will: bool,
        receipt: Receipt,
    ) {
        let id = EventId::Session(session.session(), Stream::Messages, seq);
        let event = Event::Upstream(uplink.of(session, seq, will));
        self.submit(id, self.clock.unix(), &event, receipt);
    }

    pub(crate) fn submit(&self, id: EventId, at: UnixMs, event: &Event, receipt: Receipt) {
        let (stream, subject) = (self.subjects.stream_of(event), self.subjects.of(event));
        let Encoded { body, headers } = self.encode(id, at, event);
        self.bus.submit(Publication { stream, subject, id, headers, body, receipt });
    }

    pub(crate) fn encode(&self, id: EventId, at: UnixMs, event: &Event) -> Encoded {
        let origin = self.origin.load();
        let occasion = Occasion { origin: &origin, id, at };
        match event {
            Event::Upstream(upstream) if self.config.upstream_body == UpstreamBody::Raw => {
                landfall_event::encode_raw_upstream(&occasion, upstream)
            }
            event => landfall_event::encode(self.config.format, &occasion, event),
        }
    }

    /// How messages of devices are written.
    pub fn upstream_body(&self) -> UpstreamBody {
        self.config.upstream_body
    }

    /// Who publishes now.
    pub fn origin(&self) -> Arc<Origin> {
        self.origin.load_full()
    }

    pub(crate) fn set_origin(&self, origin: Origin) {
        self.origin.store(Arc::new(origin));
    }

    /// May a session begin now? While the bus is away, only if what it publishes is kept meanwhile; and never before
    /// [`Hub::let_in`], where [`Hub::keep_out`] was said.
    pub fn takes_sessions(&self) -> bool {
        !self.is_shut() && (self.bus.is_ready() || (self.config.admit_while_away && self.bus.can_keep()))
    }

    pub(crate) fn gateway_event_id(&self) -> EventId {
        let n = self.gateway_events.fetch_add(1, Ordering::Relaxed) + 1;
        EventId::Gateway(self.origin.load().incarnation, n)
    }

    pub(crate) fn shard_number(&self, tenant: &TenantId, device: &DeviceId) -> u8 {
        (self.hasher.hash_one((tenant, device)) % (SHARDS as u64)) as u8
    }

    pub(crate) fn shard(&self, tenant: &TenantId, device: &DeviceId) -> &Shard {
        let at = usize::from(self.shard_number(tenant, device));
        #[expect(clippy::indexing_slicing, reason = "a remainder of SHARDS is below SHARDS")]
        &self.shards[at]
    }

    /// The device's open session in the family that commands go to first.
    pub(crate) fn find(&self, tenant: &TenantId, device: &DeviceId) -> Option<(Arc<Session>, Slot)> {
        let shard = self.shard(tenant, device).lock();
        Family::ALL.iter().find_map(|family| {
            let (slot, session) = shard.get(KeyRef { tenant, device, family: *family })?;
            Some((Arc::clone(session), slot))
        })
    }

    /// Counts an attempt that was turned away; the event is coalesced per source and cause.
    pub fn refused(&self, attempt: &Attempt<'_>) {
        self.metrics.refused(attempt.cause, 1);
        let times = self.clock.together();
        let told = {
            let mut refusals = self.refusals.lock();
            let told = refusals.note(attempt, times, self.tells_refusals());
            self.metrics.refusal_sources.set(i64::try_from(refusals.sources()).unwrap_or(i64::MAX));
            told
        };
        told.into_iter().for_each(|refused| self.submit_refused(refused));
    }

    pub(crate) fn submit_refused(&self, refused: Refused) {
        let at = refused.last_at;
        self.submit(self.gateway_event_id(), at, &Event::Refused(refused), Receipt::unheard(None));
    }

    /// The open sessions that `wanted` names, at most `limit`.
    pub fn sessions(&self, limit: usize, wanted: impl Fn(&SessionView) -> bool) -> Vec<SessionView> {
        let (tick, unix) = self.clock.together();
        let mut views = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let all = shard.iter().map(|live| SessionView::new(&live, tick, unix));
            views.extend(all.filter(|view| wanted(view)).take(limit - views.len().min(limit)));
        }
        views
    }

    /// How many open sessions `wanted` names.
    pub fn count_sessions(&self, wanted: impl Fn(&SessionView) -> bool) -> u64 {
        let (tick, unix) = self.clock.together();
        let mut count = 0;
        for shard in &self.shards {
            let shard = shard.lock();
            let theirs = shard.iter().filter(|live| wanted(&SessionView::new(live, tick, unix)));
            count += u64::try_from(theirs.count()).unwrap_or(u64::MAX);
        }
        count
    }

    /// Sessions open now.
    pub fn session_count(&self) -> u64 {
        u64::try_from(self.metrics.sessions.get()).unwrap_or(0)
    }

    /// True while the bus stores what it is given.
    pub fn is_ready(&self) -> bool {
        self.bus.is_ready()
    }

    /// May a device send a message that nobody has to acknowledge? It is stored, or kept until it can be.
    pub fn takes_messages(&self) -> bool {
        self.bus.is_ready() || self.bus.can_keep()
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
}
