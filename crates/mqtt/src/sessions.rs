//! MQTT sessions that outlive their connection: who holds them, what waits for them, when they expire.
//!
//! Owns: which connection holds a device's session, what is parked while none does, keeping it in the `SessionStore`.
//! Does not own: the state's content (`landfall-mqtt-core`), the outcome of a command (`landfall-hub`).
//!
//! Reading it back after a restart is `restore.rs`, what it could not know of itself `recall.rs`; what comes for a device that is away is `offer.rs`.
//!
//! A device has one [`Place`]. A connection holds the place's gate for its life, so a second connection of the device
//! gets the session when the first has put it down, and never before. It puts it down as soon as it ends: nobody waits for the
//! store, and what is on its way there is heard by whoever has the session then (`owed.rs`). What comes for the device
//! meanwhile waits at the place.

mod offer;
mod recall;
mod restore;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use ahash::RandomState;
use bytes::Bytes;
use landfall_event::{DeviceId, Outcome, Reason, TenantId, UnixMs};
use landfall_hub::{Command, Hub, LeftCommand, unix_now};
use landfall_mqtt_core::SessionState;
use landfall_net::Scope;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use crate::budget::{Budget, Share};
use crate::commands::command_topic;
use crate::flights::{FlightRecord, Flying, Sorted, Whereabouts};
use crate::owed::{self, Knock, Owed};
use crate::record::SessionRecord;
use crate::shelf::{Entry, EntryCell, Shelf};

/// A device, as the key of its session.
pub(crate) type DeviceKey = (TenantId, DeviceId);

/// How often parked sessions and their queues are looked at for what has expired.
const SWEEP: Duration = Duration::from_millis(250);

/// The largest payload in bytes of a command that waits: its entry in the store, written as Base64, stays below the
/// megabyte that a NATS server takes unless it is told otherwise.
const MAX_PAYLOAD: usize = 512 * 1024;

/// A session that no connection has.
#[derive(Debug)]
struct Left {
    state: SessionState,
    /// What its connections had on their way to the store.
    owed: Vec<Owed>,
    left_at: UnixMs,
    expires_at: UnixMs,
}

/// What lies at a place.
#[derive(Debug, Default)]
struct Lying {
    /// None while a connection has it.
    session: Option<Left>,
    /// With a session, commands that it has a subscription for. Without one they came while its connection, whose session
    /// in the hub has ended, still had it: whether it has a subscription for them is seen when it is put down.
    queue: VecDeque<Queued>,
    /// With a session, the commands that its device has or may get.
    flying: Vec<Flying>,
    /// What a connection that is gone without a word had under way: looked through when its hold is let go.
    left: Vec<LeftCommand>,
    /// Where it stands in the calendar.
    due: UnixMs,
}

impl Lying {
    /// When something of it expires next.
    fn next_due(&self) -> UnixMs {
        let session = self.session.as_ref().map_or(UnixMs::MAX, |left| left.expires_at);
        let queued = self.queue.iter().map(|queued| queued.command.expires_at);
        let flying = self.flying.iter().map(|flying| flying.left.command.expires_at);
        queued.chain(flying).fold(session, UnixMs::min)
    }

    /// Is one of this id waiting or under way?
    fn has(&self, command: &Command) -> bool {
        self.queue.iter().any(|queued| queued.command.id == command.id)
            || self.flying.iter().any(|flying| flying.left.command.id == command.id)
    }
}

/// A command that waits for its device, and its place in the store.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) command: Arc<Command>,
    cell: EntryCell,
    _share: Share,
}

/// What a device's session left behind for its next connection.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) state: Option<SessionState>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) flying: Vec<Flying>,
    /// What earlier connections are still owed.
    pub(crate) owed: Vec<Owed>,
}

/// Where a device's session lies.
#[derive(Debug, Default)]
struct Place {
    gate: Arc<tokio::sync::Mutex<()>>,
    spot: Mutex<Spot>,
    /// A record of it is in the store.
    kept: AtomicBool,
}

#[derive(Debug, Default)]
struct Spot {
    /// A connection holds the place, and will look at what lies there before it leaves.
    held: bool,
    /// Boxed: nearly always a connection has the session, and nothing lies there.
    lying: Option<Box<Lying>>,
}

/// A connection's hold on its device's place. One that is dropped, by a panic or by a task that is aborted, lets the
/// session lie as it was last kept ([`Sessions::cut`]).
#[derive(Debug)]
pub(crate) struct Hold(Option<Held>);

#[derive(Debug)]
struct Held {
    key: DeviceKey,
    place: Arc<Place>,
    gate: OwnedMutexGuard<()>,
    /// The record that was last kept.
    last: Mutex<Option<Bytes>>,
    sessions: Weak<Sessions>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(held) = self.0.take()
            && let Some(sessions) = held.sessions.upgrade()
        {
            sessions.cut(held);
        }
    }
}

/// Clears the place away when whoever was there is the last to leave; made before the place is looked up.
struct LastOut<'a>(&'a Sessions, &'a DeviceKey);

impl Drop for LastOut<'_> {
    fn drop(&mut self) {
        self.0.drop_empty(self.1);
    }
}

/// The bounds of what waits for devices that are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfflineLimits {
    /// Persistent sessions in all; a device that would be one more is refused.
    pub max_sessions: usize,
    /// Commands that wait for one device.
    pub queue_per_device: usize,
    /// Bytes of all waiting commands: their payloads and 512 for each. A command whose payload is larger than 512 KiB
    /// never waits.
    pub queue_bytes: usize,
}

impl Default for OfflineLimits {
    fn default() -> Self {
        Self { max_sessions: 100_000, queue_per_device: 100, queue_bytes: 64 << 20 }
    }
}

/// All MQTT sessions that are held or parked in this process.
#[derive(Debug)]
pub struct Sessions {
    places: Mutex<HashMap<DeviceKey, Arc<Place>, RandomState>>,
    /// Everything that lies anywhere, by when something of it expires. Taken after a place's `spot`, never before.
    calendar: Mutex<BTreeSet<(UnixMs, DeviceKey)>>,
    kept: AtomicUsize,
    limits: OfflineLimits,
    budget: Arc<Budget>,
    hub: Arc<Hub>,
    shelf: Shelf,
    /// Places where something is settled: locked for a moment, after everything else.
    knocks: Mutex<Vec<DeviceKey>>,
    knocked: Notify,
    /// For those who hold a place. Known from `start` on.
    me: OnceLock<Weak<Self>>,
}

impl Sessions {
    /// Starts the writer and the sweep of expired sessions in `scope`.
    pub fn start(self: &Arc<Self>, scope: &Scope) {
        let _ = self.me.set(Arc::downgrade(self));
        let writer = Arc::clone(self);
        scope.spawn_until_cancelled(async move { writer.shelf.run().await });
        let hearer = Arc::clone(self);
        scope.spawn_until_cancelled(async move {
            loop {
                hearer.knocked.notified().await;
                hearer.hear();
            }
        });
        let sweeper = Arc::clone(self);
        scope.spawn_until_cancelled(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                sweeper.sweep(unix_now());
            }
        });
    }

    /// Waits until everything that was parked is in the store.
    pub async fn flushed(&self) {
        self.hear();
        self.shelf.flushed().await;
    }

    /// Persistent sessions, parked or held, and the most there may be.
    pub fn fill(&self) -> (usize, usize) {
        (self.kept.load(Ordering::Relaxed), self.limits.max_sessions)
    }

    fn park(
        &self,
        key: &DeviceKey,
        spot: &mut Spot,
        (record, now): (SessionRecord, UnixMs),
        (queue, flying): (VecDeque<Queued>, Vec<Flying>),
    ) {
        let (left_at, expires_at) = (record.left_at.unwrap_or(now), record.expires_at(now));
        let session = Some(Left { state: record.state, owed: Vec::new(), left_at, expires_at });
        let lying = spot.lying.insert(Box::new(Lying { session, queue, flying, ..Lying::default() }));
        self.reschedule(key, lying);
    }

    /// Something is settled that the session of `key` waits for.
    pub(crate) fn knock(&self, key: &DeviceKey) {
        self.knocks.lock().push(key.clone());
        self.knocked.notify_one();
    }

    /// Hears of what is settled, for the sessions that lie at their places.
    fn hear(&self) {
        let knocks = std::mem::take(&mut *self.knocks.lock());
        for key in knocks {
            let _last_out = LastOut(self, &key);
            let place = self.places.lock().get(&key).cloned();
            if let Some(place) = place {
                self.hear_at(&key, &place);
            }
        }
    }

    /// A restart would find what has been settled: it is kept anew.
    fn hear_at(&self, key: &DeviceKey, place: &Place) {
        let waker = Waker::from(Arc::new(Knock::new(key, self.me.get().cloned().unwrap_or_default())));
        let mut spot = place.spot.lock();
        let Some(lying) = spot.lying.as_mut() else { return };
        let Some(left) = lying.session.as_mut() else { return };
        if owed::settle(&mut left.owed, &mut left.state, &mut Context::from_waker(&waker)) {
            self.rewrite(key, lying);
        }
    }

    fn reschedule(&self, key: &DeviceKey, lying: &mut Lying) {
        let due = lying.next_due();
        if due != lying.due {
            let mut calendar = self.calendar.lock();
            calendar.remove(&(lying.due, key.clone()));
            calendar.insert((due, key.clone()));
            lying.due = due;
        }
    }

    fn pick_up(&self, key: &DeviceKey, spot: &mut Spot) -> Option<Box<Lying>> {
        let lying = spot.lying.take()?;
        self.calendar.lock().remove(&(lying.due, key.clone()));
        Some(lying)
    }

    fn place(&self, key: &DeviceKey) -> Arc<Place> {
        Arc::clone(self.places.lock().entry(key.clone()).or_default())
    }

    fn set_kept(&self, place: &Place, kept: bool) {
        match (place.kept.swap(kept, Ordering::Relaxed), kept) {
            (false, true) => drop(self.kept.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.kept.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Waits for the device's place: until the connection that holds it has put its session down. A session that ends with
    /// its connection (not `lasting`) needs a place only for what an earlier one left there.
    pub(crate) async fn hold(&self, key: DeviceKey, lasting: bool) -> Option<Box<Hold>> {
        let _last_out = LastOut(self, &key);
        let place = if lasting { self.place(&key) } else { self.places.lock().get(&key).cloned()? };
        let gate = Arc::clone(&place.gate).lock_owned().await;
        place.spot.lock().held = true;
        let sessions = self.me.get().cloned().unwrap_or_default();
        Some(Box::new(Hold(Some(Held { key: key.clone(), place, gate, last: Mutex::default(), sessions }))))
    }

    /// May the device's session be kept: is it, or is there room for one more?
    pub(crate) fn may_keep(&self, key: &DeviceKey) -> bool {
        self.kept.load(Ordering::Relaxed) < self.limits.max_sessions
            || self.places.lock().get(key).is_some_and(|place| place.kept.load(Ordering::Relaxed))
    }

    /// What the device's session left behind: its state and its commands. With `discard`, nothing, and that is the end of
    /// it.
    pub(crate) fn take(&self, hold: &Hold, discard: bool) -> Option<Taken> {
        let Held { key, place, .. } = hold.0.as_ref()?;
        let lying = {
            let mut spot = place.spot.lock();
            if !discard && spot.lying.as_ref()?.session.is_none() {
                // Commands for the session that begins here: they are seen to when it is put down.
                return None;
            }
            *self.pick_up(key, &mut spot)?
        };
        let now = unix_now();
        match lying.session {
            Some(Left { mut state, owed, expires_at, .. }) if !discard && expires_at > now => {
                state.lapse(now);
                Some(Taken { state: Some(state), queue: lying.queue, flying: lying.flying, owed })
            }
            _ => {
                let status = if discard { "session-discarded" } else { "session-expired" };
                self.abandon(&lying.queue, &lying.flying, status);
                self.forget(key, place);
                None
            }
        }
    }

    /// The commands of a session that has ended.
    pub(crate) fn abandon(&self, queue: &VecDeque<Queued>, flying: &[Flying], status: &str) {
        for flying in flying {
            self.hub.settle_left(&flying.left, Outcome::Failed, Some(status));
        }
        queue.iter().for_each(|queued| self.settle(queued, Outcome::Failed, status));
    }

    fn forget(&self, key: &DeviceKey, place: &Place) {
        if place.kept.load(Ordering::Relaxed) {
            self.set_kept(place, false);
            drop(self.shelf.write(key, None));
        }
    }

    fn settle(&self, queued: &Queued, outcome: Outcome, status: &str) {
        self.shelf.dequeue(&queued.cell);
        self.hub.settle_offline(&queued.command, outcome, Some(status));
    }

    /// A waiting command has gone out to its device.
    pub(crate) fn gone_out(&self, queued: &Queued) {
        self.shelf.dequeue(&queued.cell);
    }

    /// Keeps a copy of a held session in the store; the receiver is told when it is there. `None` when the same was kept
    /// before.
    pub(crate) fn keep(
        &self,
        hold: &Hold,
        (state, expiry_s): (SessionState, u32),
        flights: Vec<FlightRecord>,
    ) -> Option<oneshot::Receiver<()>> {
        let held = hold.0.as_ref()?;
        let record = SessionRecord::new(state, expiry_s, None).with(flights).encode()?;
        if held.last.lock().replace(record.clone()).as_ref() == Some(&record) {
            return None;
        }
        self.set_kept(&held.place, true);
        Some(self.shelf.write(&held.key, Some(record)))
    }

    /// The connection is over: puts the session down for `expiry_s` seconds, with its commands: those in `queue`, which did
    /// not go out, and what was under way.
    pub(crate) fn put_down(
        &self,
        mut hold: Box<Hold>,
        (state, owed, expiry_s): (SessionState, Vec<Owed>, u32),
        queue: VecDeque<Queued>,
        sorted: Sorted,
    ) {
        let held = hold.0.take();
        drop(hold);
        let (queue, flying) = self.requeue_unsent(queue, sorted);
        match held {
            Some(held) if expiry_s > 0 => {
                self.lay_down(&held, (state, owed, expiry_s), queue, flying);
                self.leave(held);
            }
            held => {
                self.abandon(&queue, &flying, "session-discarded");
                held.into_iter().for_each(|held| self.clear(held));
            }
        }
    }

    /// What was taken and did not go out waits for the next connection, in the order in which it came.
    fn requeue_unsent(&self, queue: VecDeque<Queued>, sorted: Sorted) -> (VecDeque<Queued>, Vec<Flying>) {
        let mut queue = Vec::from(queue);
        for left in sorted.unsent {
            let command = &left.command;
            if !queue.iter().any(|queued| queued.command.id == command.id)
                && let Some(share) = self.budget.share(command, true)
            {
                queue.push(self.enter(command, share));
            }
        }
        for lost in &sorted.lost {
            self.hub.settle_left(lost, Outcome::Failed, Some(Reason::ConnectionLost.as_str()));
        }
        queue.sort_by_key(|queued| queued.command.received_at);
        (queue.into(), sorted.flying)
    }

    /// A place in the stored queue.
    fn enter(&self, command: &Arc<Command>, share: Share) -> Queued {
        let is_storable = command.payload.len() <= MAX_PAYLOAD;
        let entry = if is_storable { Entry::Pending(Arc::clone(command)) } else { Entry::Unstorable };
        let cell = Arc::new(Mutex::new(entry));
        if is_storable {
            self.shelf.enqueue(&cell);
        }
        Queued { command: Arc::clone(command), cell, _share: share }
    }

    fn lay_down(
        &self,
        held: &Held,
        (state, mut owed, expiry_s): (SessionState, Vec<Owed>, u32),
        mut queue: VecDeque<Queued>,
        flying: Vec<Flying>,
    ) {
        let now = unix_now();
        owed::keep_wanted(&mut owed, &state);
        let is_owed = !owed.is_empty();
        let flights = flying.iter().map(FlightRecord::of).collect();
        let record = SessionRecord::new(state, expiry_s, Some(now)).with(flights);
        if let Some(bytes) = record.encode() {
            self.set_kept(&held.place, true);
            drop(self.shelf.write(&held.key, Some(bytes)));
        }
        let strange = {
            let mut spot = held.place.spot.lock();
            let arrived = self.pick_up(&held.key, &mut spot).map(|lying| lying.queue).unwrap_or_default();
            let (wanted, strange): (VecDeque<_>, VecDeque<_>) =
                arrived.into_iter().partition(|queued| is_subscribed(&record.state, &queued.command));
            queue.extend(wanted);
            spot.held = false;
            self.park(&held.key, &mut spot, (record, now), (queue, flying));
            if let Some(left) = spot.lying.as_mut().and_then(|lying| lying.session.as_mut()) {
                left.owed = owed;
            }
            strange
        };
        if is_owed {
            self.hear_at(&held.key, &held.place);
        }
        strange.iter().for_each(|queued| self.settle(queued, Outcome::Rejected, "not-subscribed"));
    }

    /// The session ends here, or with its connection: nothing of it is kept.
    pub(crate) fn let_go(&self, mut hold: Box<Hold>) {
        let held = hold.0.take();
        drop(hold);
        held.into_iter().for_each(|held| self.clear(held));
    }

    fn clear(&self, held: Held) {
        let lying = {
            let mut spot = held.place.spot.lock();
            spot.held = false;
            self.pick_up(&held.key, &mut spot)
        };
        if let Some(lying) = lying {
            self.abandon(&lying.queue, &lying.flying, "session-discarded");
            for left in &lying.left {
                self.hub.settle_left(left, Outcome::Failed, Some("session-discarded"));
            }
        }
        self.forget(&held.key, &held.place);
        self.leave(held);
    }

    fn leave(&self, held: Held) {
        let Held { key, place, gate, .. } = held;
        let _last_out = LastOut(self, &key);
        drop((gate, place));
    }

    /// The connection is gone without a word of its own. Its session lies where it was, as it was last kept, which is what
    /// a restart would find; one of which nothing was kept has ended. What it had not taken yet stays.
    fn cut(&self, held: Held) {
        let last = held.last.lock().take().and_then(|record| SessionRecord::decode(&record).ok());
        if let Some(record) = last {
            let left = held.place.spot.lock().lying.as_mut().map(|lying| std::mem::take(&mut lying.left));
            let whereabouts = Whereabouts::of_record(&record.flights);
            let sorted = whereabouts.sort(&self.hub, left.unwrap_or_default());
            let (queue, flying) = self.requeue_unsent(VecDeque::new(), sorted);
            self.lay_down(&held, (record.state, Vec::new(), record.expiry_s), queue, flying);
            return self.leave(held);
        }
        let untaken = {
            let mut spot = held.place.spot.lock();
            let untaken = spot.lying.as_ref().is_some_and(|lying| lying.session.is_some());
            spot.held &= !untaken;
            untaken
        };
        if untaken { self.leave(held) } else { self.clear(held) }
    }

    /// A place with nobody at it and nothing on it is no place.
    fn drop_empty(&self, key: &DeviceKey) {
        let mut places = self.places.lock();
        let empty = |place: &Arc<Place>| Arc::strong_count(place) == 1 && place.spot.lock().lying.is_none();
        if places.get(key).is_some_and(empty) {
            places.remove(key);
        }
    }

    fn sweep(&self, now: UnixMs) {
        let due: Vec<DeviceKey> = {
            let calendar = self.calendar.lock();
            calendar.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| key.clone()).collect()
        };
        for key in due {
            let _last_out = LastOut(self, &key);
            let place = self.places.lock().get(&key).cloned();
            if let Some(place) = place {
                self.sweep_place(&key, &place, now);
            }
        }
    }

    fn sweep_place(&self, key: &DeviceKey, place: &Place, now: UnixMs) {
        let mut spot = place.spot.lock();
        let Some(lying) = spot.lying.as_mut() else { return };
        let (due, waiting) =
            lying.queue.drain(..).partition::<VecDeque<_>, _>(|q| q.command.expires_at <= now);
        lying.queue = waiting;
        due.iter().for_each(|queued| self.settle(queued, Outcome::Expired, "not-connected"));
        let over: Vec<_> =
            lying.flying.extract_if(.., |flying| flying.left.command.expires_at <= now).collect();
        for flying in &over {
            self.hub.settle_left(&flying.left, Outcome::Expired, Some("not-connected"));
        }
        if !over.is_empty() {
            self.rewrite(key, lying);
        }
        let stays = match &lying.session {
            Some(left) => left.expires_at > now,
            None => !lying.queue.is_empty(),
        };
        if stays {
            self.reschedule(key, lying);
        } else if let Some(lying) = self.pick_up(key, &mut spot)
            && lying.session.is_some()
        {
            self.abandon(&lying.queue, &lying.flying, "session-expired");
            self.forget(key, place);
        }
    }

    /// A restart must not find what has come to its outcome.
    fn rewrite(&self, key: &DeviceKey, lying: &Lying) {
        let Some(Left { state, left_at, expires_at, .. }) = &lying.session else { return };
        let expiry_s = u32::try_from(expires_at.saturating_sub(*left_at) / 1000).unwrap_or(u32::MAX);
        let flights = lying.flying.iter().map(FlightRecord::of).collect();
        let record = SessionRecord::new(state.clone(), expiry_s, Some(*left_at)).with(flights);
        if let Some(bytes) = record.encode() {
            drop(self.shelf.write(key, Some(bytes)));
        }
    }
}

fn is_subscribed(state: &SessionState, command: &Command) -> bool {
    command_topic(command, |topic| state.granted(topic).is_some()).is_some()
}
