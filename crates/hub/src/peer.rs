//! What a listener holds of a session whose device never connects: the hub's face towards CoAP and UDP.
//!
//! Owns: a datagram's effects on its session (heard, awake, moved, asleep), and the learned rhythm. Does not own: when
//! silence ends the session (the tracker decides), what a datagram means (the listeners).
//!
//! Nobody owns such a session: a handle may be dropped and found again ([`Hub::peer`]), and silence ends it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{
    Awake, CommandId, DeviceId, Dormant, Event, EventId, Evidence, Family, IdentifiedBy, Moved, Outcome,
    Reason, Stream, TenantId, Transport, UnixMs,
};
use landfall_session::{Cadence, KeyRef, Slot, Terms, Tick};

use crate::address::Address;
use crate::bus::Listener;
use crate::handle::{HEAD_BYTES, Permit};
use crate::hub::{Hello, Hub, OpenError};
use crate::post::News;
use crate::router::Verdict;
use crate::session::{Asleep, Flag, Lane, Learned, Session, Stage, Uplink};
use crate::{Acl, Command, Post, Receipt, StoreError};

/// The token of a session's own `connected`; a listener's tokens never come here.
const CONNECTED: u64 = u64::MAX;

/// One open session of a device that does not connect. Cheap to clone; dropping it ends nothing.
#[derive(Clone, Debug)]
pub struct PeerHandle {
    hub: Arc<Hub>,
    session: Arc<Session>,
    slot: Slot,
}

/// Names a session in this process, for ever: its id in the ledger may change ([`Hub::begin_anew`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u128);

impl PeerId {
    /// As bytes, to make something of it that says nothing of it.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl From<u128> for PeerId {
    fn from(number: u128) -> Self {
        Self(number)
    }
}

/// What a word of the device found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Commands wait for the device: [`PeerHandle::next_command`].
    pub commands: bool,
}

/// Hears whether the `connected` of a session that is already in use was stored. When it never will be, the device's next
/// word finds the session over.
#[derive(Debug)]
struct Beginning(Arc<Session>);

impl Listener for Beginning {
    fn settled(&self, _: u64, result: Result<(), StoreError>) {
        let held = self.0.beginning.lock().settle(&result);
        held.into_iter().for_each(|(post, token, news)| post.settled(token, news));
    }
}

/// Hears of a message whose session's `connected` may not be stored yet: an acknowledgement means that both are.
#[derive(Debug)]
struct Early(Arc<Session>, Arc<Post>);

impl Listener for Early {
    fn settled(&self, token: u64, result: Result<(), StoreError>) {
        let now = self.0.beginning.lock().hold((Arc::clone(&self.1), token, result));
        if let Some((post, token, news)) = now {
            post.settled(token, news);
        }
    }
}

impl Hub {
    /// The device's open session in `family`; none whose beginning was refused for good.
    pub fn peer(
        self: &Arc<Self>,
        tenant: &TenantId,
        device: &DeviceId,
        family: Family,
    ) -> Option<PeerHandle> {
        let shard = self.shard(tenant, device).lock();
        let (slot, session) = shard.get(KeyRef { tenant, device, family })?;
        if session.never_began() {
            return None;
        }
        Some(PeerHandle { hub: Arc::clone(self), session: Arc::clone(session), slot })
    }

    /// Begins the session of a device that does not connect, with the first word that was admitted. Never waits: its
    /// `connected` is submitted, and everything of the session follows it. `post` hears of what the listener submits.
    /// Without [`Hello::keep_alive_ms`], `presence.idle_timeout` ends it, or what is learned of its rhythm. `watch` asks the
    /// post to tell of its end.
    ///
    /// Where another task was faster, its session is returned and counts as heard.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Away`] while the bus is.
    pub fn begin_inferred(
        self: &Arc<Self>,
        mut hello: Hello,
        memo: [u64; 2],
        post: &Arc<Post>,
        watch: bool,
    ) -> Result<PeerHandle, OpenError> {
        if !self.takes_sessions() {
            return Err(OpenError::Away);
        }
        let learns = hello.keep_alive_ms.is_none() && self.config.adaptive.is_some();
        let idle_ms = self.config.idle_timeout_ms();
        hello.keep_alive_ms.get_or_insert(idle_ms);
        let prepare = |session: &Arc<Session>| {
            let mut lane = session.lane.lock();
            lane.post = Some(Arc::clone(post));
            lane.set(Flag::Watched, watch);
            lane.memo = memo;
            if learns {
                lane.set_learned(Some(Learned { cadence: Cadence::default(), silence_ms: idle_ms }));
            }
            drop(lane);
            Receipt::token(Arc::new(Beginning(Arc::clone(session))), CONNECTED, None)
        };
        let (session, slot) = self.begin(hello, None, prepare)?;
        session.vitals.touch(self.clock.tick());
        Ok(PeerHandle { hub: Arc::clone(self), session, slot })
    }

    /// Tells the listener, once, that the session has commands to send; the caller holds the lane.
    pub(crate) fn hint(self: &Arc<Self>, session: &Arc<Session>, slot: Slot, lane: &mut Lane) {
        let Some(post) = lane.post.clone().filter(|_| !lane.is(Flag::Told)) else { return };
        lane.set(Flag::Told, true);
        let (hub, session) = (Arc::clone(self), Arc::clone(session));
        post.put(News::Commands(PeerHandle { hub, session, slot }));
    }

    /// What a learned rhythm has to say of the silence that ended the session; nothing where `idle_timeout` did.
    pub(crate) fn evidence(&self, lane: &Lane, silent_ms: u64) -> Option<Evidence> {
        let learned = lane.learned().filter(|_| lane.asleep().is_none())?;
        let (interval_ms, phi) = (learned.cadence.interval_ms()?, learned.cadence.phi(silent_ms)?);
        (learned.silence_ms < self.config.idle_timeout_ms()).then_some(Evidence {
            interval_ms,
            silent_ms,
            phi,
        })
    }

    fn tell(&self, session: &Arc<Session>, (seq, at): (u64, UnixMs), event: &Event, permit: Permit) {
        let id = EventId::Session(session.info.session(), Stream::Connectivity, seq);
        self.submit(id, at, event, Receipt::unheard(permit.into_inner()));
    }
}

impl PeerHandle {
    pub(crate) fn new(hub: Arc<Hub>, session: Arc<Session>, slot: Slot) -> Self {
        Self { hub, session, slot }
    }

    /// What names the session in this process, for ever.
    pub fn id(&self) -> PeerId {
        let (place, serial) = self.slot.parts();
        let shard = self.hub.shard_number(self.tenant(), self.device());
        PeerId((u128::from(shard) << 96) | (u128::from(place) << 64) | u128::from(serial))
    }

    /// How the device reached the gateway.
    pub fn transport(&self) -> Transport {
        self.session.info.transport
    }

    /// The device's tenant.
    pub fn tenant(&self) -> &TenantId {
        self.session.tenant()
    }

    /// The device.
    pub fn device(&self) -> &DeviceId {
        self.session.device()
    }

    /// What its identity rests on.
    pub fn identified_by(&self) -> IdentifiedBy {
        self.session.lane.lock().identified_by
    }

    /// What the device may do.
    pub fn acl(&self) -> &Arc<Acl> {
        &self.session.acl
    }

    /// Where the device was last heard from.
    pub fn remote_address(&self) -> SocketAddr {
        self.session.lane.lock().remote.into()
    }

    /// True once the session has ended.
    pub fn is_over(&self) -> bool {
        self.session.vitals.is_over()
    }

    /// Why the session has ended, if it has.
    pub fn end_reason(&self) -> Option<Reason> {
        self.over(&self.session.lane.lock())
    }

    /// How long the device has been silent, in ms.
    pub fn silent_ms(&self) -> u64 {
        self.hub.clock.tick().saturating_sub(self.session.vitals.last_seen())
    }

    /// True while the device sleeps as it announced.
    pub fn is_asleep(&self) -> bool {
        self.session.lane.lock().asleep().is_some()
    }

    /// The device was heard, from `remote`, by the listener of `post`: a sign of life, the end of a sleep
    /// (`connectivity.awake`), perhaps a new address (`connectivity.moved`).
    ///
    /// # Errors
    /// The reason of the session's end, when it has ended: begin a new one.
    pub fn heard_from(&self, remote: SocketAddr, post: &Arc<Post>) -> Result<Heard, Reason> {
        let now = self.hub.clock.tick();
        let session = &self.session;
        let mut lane = session.lane.lock();
        let last_seen = session.vitals.last_seen();
        // A time in which the gateway could not have heard it, and an announced sleep, say nothing of its rhythm.
        let telling = session.vitals.quiet_since(now) == last_seen && lane.asleep().is_none();
        session.vitals.touch(now);
        if let Some(reason) = self.over(&lane) {
            return Err(reason);
        }
        let woken = self.wake(&mut lane, now);
        if lane.remote != Address::from(remote) {
            self.move_to(&mut lane, remote);
        }
        if !lane.post.as_ref().is_some_and(|known| Arc::ptr_eq(known, post)) {
            lane.post = Some(Arc::clone(post));
        }
        let learned = if telling { self.learn(&mut lane, now.saturating_sub(last_seen)) } else { None };
        let heard = Heard { commands: lane.unsent() > 0 };
        drop(lane);
        // Looked at again under the shard: another task may have put a sleep, or what the device says, in force since.
        if let Some(terms) = woken {
            self.put_in_force(terms, |lane| lane.asleep().is_none());
        }
        if let Some(silence_ms) = learned {
            let is_latest = |lane: &Lane| lane.learned().is_some_and(|now| now.silence_ms == silence_ms);
            let terms = Terms::after(silence_ms, Reason::IdleTimeout);
            self.put_in_force(terms, |lane| is_latest(lane) && lane.asleep().is_none());
        }
        Ok(heard)
    }

    /// The device has acknowledged something, and so lives: no word of its own, so it neither moves nor wakes it.
    pub fn touched(&self) {
        let lane = self.session.lane.lock();
        if self.over(&lane).is_none() && lane.asleep().is_none() {
            self.session.vitals.touch(self.hub.clock.tick());
        }
    }

    /// Why the session takes no word of the device any more, if it does not. The tracker may have ended it a moment before
    /// its lane knows.
    fn over(&self, lane: &Lane) -> Option<Reason> {
        let by_tracker = || self.session.vitals.is_over().then_some(Reason::IdleTimeout);
        let never_began = || self.session.never_began().then_some(Reason::ConnectionLost);
        lane.ended.or_else(by_tracker).or_else(never_began)
    }

    /// The end of an announced sleep: the terms that hold again. Its event needs no room of its own: there is one for each
    /// `dormant`, which had.
    fn wake(&self, lane: &mut Lane, now: Tick) -> Option<Terms> {
        let asleep = lane.wake()?;
        if !asleep.told {
            return Some(asleep.terms);
        }
        let (seq, at) = (lane.next_presence(), self.hub.clock.unix());
        let dormant_ms = now.saturating_sub(asleep.since);
        let event = Event::Awake(Awake { session: Arc::clone(&self.session).into(), seq, dormant_ms });
        self.hub.tell(&self.session, (seq, at), &event, Permit::at_the_end());
        Some(asleep.terms)
    }

    /// While the window is full the old address stands: a stranger with many addresses fills no memory.
    fn move_to(&self, lane: &mut Lane, to: SocketAddr) {
        let Some(permit) = self.try_admit(HEAD_BYTES) else { return };
        let from = std::mem::replace(&mut lane.remote, to.into()).into();
        let (seq, at) = (lane.next_presence(), self.hub.clock.unix());
        let event = Event::Moved(Moved { session: Arc::clone(&self.session).into(), seq, from, to });
        self.hub.tell(&self.session, (seq, at), &event, permit);
    }

    /// One more interval of the device; the silence when it has changed by enough.
    fn learn(&self, lane: &mut Lane, interval_ms: u64) -> Option<u64> {
        let learned = lane.learned_mut()?;
        learned.cadence.heard(interval_ms);
        let revised = self.hub.config.adaptive?.revised(&learned.cadence, learned.silence_ms)?;
        learned.silence_ms = revised;
        Some(revised)
    }

    fn put_in_force(&self, terms: Terms, still: impl FnOnce(&Lane) -> bool) {
        let info = &self.session.info;
        let mut shard = self.hub.shard(&info.tenant, &info.device).lock();
        if still(&self.session.lane.lock()) {
            shard.set_terms(self.slot, terms);
        }
    }

    /// The device has said how long it may be silent: nothing is learned of its rhythm from now on.
    pub fn agree(&self, terms: Terms) {
        self.put_in_force(terms, |_| true);
        self.session.lane.lock().set_learned(None);
    }

    /// The device has announced that it sleeps for `sleep_ms` from now on (`connectivity.dormant`): it may be silent for
    /// so long, and for its usual silence after it. While the publish window is full, that holds and is not told.
    pub fn dormant(&self, sleep_ms: u64) {
        let info = &self.session.info;
        let mut shard = self.hub.shard(&info.tenant, &info.device).lock();
        let Some(now_terms) = shard.session(self.slot).map(|live| live.terms) else { return };
        let mut lane = self.session.lane.lock();
        if lane.ended.is_some() {
            return;
        }
        let permit = self.try_admit(HEAD_BYTES);
        let now = self.hub.clock.tick();
        // It has spoken, or it could not announce anything.
        let terms = self.wake(&mut lane, now).unwrap_or(now_terms);
        let silence_ms = terms.silence_ms.map(|ms| ms.saturating_add(sleep_ms));
        shard.set_terms(self.slot, Terms { silence_ms, ..terms });
        lane.fall_asleep(Asleep { since: now, terms, told: permit.is_some() });
        let Some(permit) = permit else { return };
        let (seq, at) = (lane.next_presence(), self.hub.clock.unix());
        let wake_by = at.saturating_add(silence_ms.unwrap_or(sleep_ms));
        let event =
            Event::Dormant(Dormant { session: Arc::clone(&self.session).into(), seq, sleep_ms, wake_by });
        self.hub.tell(&self.session, (seq, at), &event, permit);
    }

    /// A share of the publish window for a message of `bytes`, if it is to be had now.
    pub fn try_admit(&self, bytes: usize) -> Option<Permit> {
        self.hub.try_admit(bytes)
    }

    /// Publishes a message of the device. The post tells the token when it is stored.
    ///
    /// # Errors
    /// The reason of the session's end, when it has ended: the message is not published.
    pub fn upstream(&self, uplink: Uplink, token: Option<u64>, permit: Permit) -> Result<(), Reason> {
        let bytes = u64::try_from(uplink.payload.len()).unwrap_or(0);
        let mut lane = self.session.lane.lock();
        if let Some(reason) = self.over(&lane) {
            return Err(reason);
        }
        self.hub.count_in(&self.session, bytes);
        let receipt = match (token, &lane.post) {
            (Some(token), Some(post)) => {
                let post = Arc::clone(post);
                let hearer = if self.session.stage() == Stage::Begun {
                    post as Arc<dyn Listener>
                } else {
                    Arc::new(Early(Arc::clone(&self.session), post))
                };
                Receipt::token(hearer, token, permit.into_inner())
            }
            _ => Receipt::unheard(permit.into_inner()),
        };
        self.hub.submit_upstream(&self.session, &mut lane, uplink, false, receipt);
        Ok(())
    }

    /// The next command to send to the device; it stays under way. `None`: there is none, and the post tells of the next.
    pub fn next_command(&self) -> Option<Arc<Command>> {
        let mut lane = self.session.lane.lock();
        let next = lane.next_unsent();
        lane.set(Flag::Told, next.is_some());
        next
    }

    /// A command that could not be sent now goes first again. The post does not tell of it: look at
    /// [`Heard::commands`].
    pub fn put_back(&self, command: Arc<Command>) {
        let mut lane = self.session.lane.lock();
        if lane.is_under_way(&command.id) {
            lane.let_wait(command, true);
            lane.set(Flag::Told, true);
        }
    }

    /// The command was written to the device's transport, which can acknowledge it or not.
    pub fn sent(&self, command: &CommandId, bytes: usize, can_acknowledge: bool) {
        self.session.vitals.count_out(u64::try_from(bytes).unwrap_or(0));
        self.hub.sent(&self.session, command, can_acknowledge);
    }

    /// The command was written to the device's transport, which will tell whether it arrived.
    pub fn attempted(&self, command: &CommandId, bytes: usize) {
        self.session.vitals.count_out(u64::try_from(bytes).unwrap_or(0));
        self.hub.attempted(&self.session, command);
    }

    /// The device's protocol acknowledged the command.
    pub fn acknowledged(&self, command: &CommandId) {
        self.hub.acknowledged(&self.session, command);
    }

    /// The command came to an outcome on the way: refused by the device, or not sendable.
    pub fn settled(&self, command: &CommandId, outcome: Outcome, status: &str) {
        self.hub.settle(&self.session, command, Verdict::because(outcome, status));
    }

    /// The device answered the command. The post tells the token, if one is given, when the outcome is stored.
    ///
    /// # Errors
    /// Gives the permit back when no such command is under way.
    pub fn answered(
        &self,
        command: &CommandId,
        answer: (Arc<str>, Bytes),
        (token, permit): (Option<u64>, Permit),
    ) -> Result<(), Permit> {
        let bytes = u64::try_from(answer.1.len()).unwrap_or(0);
        let to = self.session.lane.lock().post.clone();
        let answerer = token.zip(to).map(|(token, post)| (post as Arc<dyn Listener>, token, None));
        let told = (answerer, permit.into_inner());
        self.hub.answered(&self.session, command, answer, told).map_err(Permit::of)?;
        self.hub.count_in(&self.session, bytes);
        Ok(())
    }

    /// Looks at, and may change, the listener's own 16 bytes of the session.
    pub fn memo<R>(&self, look: impl FnOnce(&mut [u64; 2]) -> R) -> R {
        look(&mut self.session.lane.lock().memo)
    }

    /// Is the session's `connected` stored? If not, `post` tells the token when it is, or never will be.
    pub fn begun(&self, post: &Arc<Post>, token: u64) -> bool {
        let mut beginning = self.session.beginning.lock();
        if beginning.is_begun() {
            return true;
        }
        let now = beginning.hold((Arc::clone(post), token, Ok(())));
        drop(beginning);
        if let Some((post, token, news)) = now {
            post.settled(token, news);
        }
        false
    }

    /// Ends the session, unless it has ended.
    pub fn close(&self, reason: Reason) {
        self.hub.close(&self.session, self.slot, (reason, None), || Receipt::unheard(None));
    }

    /// Ends the session; the post tells the token once its `disconnected` is stored. False if it has ended already, or has
    /// no end to tell: then the token is never told.
    pub fn close_with(&self, reason: Reason, token: u64) -> bool {
        let post = self.session.lane.lock().post.clone();
        let told = || match post {
            Some(post) => Receipt::token(post, token, None),
            None => Receipt::unheard(None),
        };
        self.hub.close(&self.session, self.slot, (reason, None), told)
    }
}
