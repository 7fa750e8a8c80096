//! MQTT sessions that outlive their connection: who holds them, what waits for them, when they expire.
//!
//! Owns: which connection holds a device's session, what is parked while none does, keeping it in the `SessionStore`.
//! Does not own: the state's content (`landfall-mqtt-core`), the outcome of a command (`landfall-hub`).
//!
//! A device has one [`Place`]. A connection holds the place's gate for its life, so a second connection of the device
//! gets the session when the first has put it down, and never before.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::RandomState;
use landfall_event::{DeviceId, Outcome, TenantId, UnixMs};
use landfall_hub::{Command, Hub, NotKept, Offline, SessionStore, StoreError};
use landfall_mqtt_core::SessionState;
use landfall_net::Scope;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::commands::command_topic;
use crate::record::{QueuedCommand, SessionRecord};
use crate::shelf::{Entry, EntryCell, Shelf};

/// A device, as the key of its session.
pub(crate) type DeviceKey = (TenantId, DeviceId);

/// How often parked sessions and their queues are looked at for what has expired.
const SWEEP: Duration = Duration::from_millis(250);

/// A session that no connection holds.
#[derive(Debug)]
struct Parked {
    state: SessionState,
    left_at: UnixMs,
    expires_at: UnixMs,
    queue: VecDeque<Queued>,
    /// Where it stands in the calendar.
    due: UnixMs,
}

impl Parked {
    /// When something of it expires next.
    fn next_due(&self) -> UnixMs {
        self.queue.iter().map(|queued| queued.command.expires_at).fold(self.expires_at, UnixMs::min)
    }
}

/// A command that waits for its device, and its place in the store.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) command: Arc<Command>,
    cell: EntryCell,
}

/// Where a device's session lies.
#[derive(Debug, Default)]
struct Place {
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Boxed: nearly always a connection holds the session, and nothing is parked.
    parked: Mutex<Option<Box<Parked>>>,
    /// A record of it is in the store.
    kept: AtomicBool,
}

/// A connection's hold on its device's place.
#[derive(Debug)]
pub(crate) struct Hold {
    key: DeviceKey,
    place: Arc<Place>,
    _gate: OwnedMutexGuard<()>,
}

/// The bounds of what waits for devices that are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfflineLimits {
    /// Persistent sessions in all; a device that would be one more is refused.
    pub max_sessions: usize,
    /// Commands that wait for one device.
    pub queue_per_device: usize,
}

impl Default for OfflineLimits {
    fn default() -> Self {
        Self { max_sessions: 100_000, queue_per_device: 100 }
    }
}

/// All MQTT sessions that are held or parked in this process.
#[derive(Debug)]
pub struct Sessions {
    places: Mutex<HashMap<DeviceKey, Arc<Place>, RandomState>>,
    /// Every parked session, by when something of it expires. Taken after a place's `parked`, never before.
    calendar: Mutex<BTreeSet<(UnixMs, DeviceKey)>>,
    kept: AtomicUsize,
    limits: OfflineLimits,
    hub: Arc<Hub>,
    shelf: Shelf,
}

pub(crate) fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}

impl Sessions {
    /// Reads the sessions and queues that an earlier start left in the store.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn load(
        hub: Arc<Hub>,
        store: Arc<dyn SessionStore>,
        limits: OfflineLimits,
    ) -> Result<Self, StoreError> {
        let (stored, queued) = (store.sessions().await?, store.queued().await?);
        let sessions = Self {
            places: Mutex::default(),
            calendar: Mutex::default(),
            kept: AtomicUsize::new(0),
            limits,
            hub,
            shelf: Shelf::new(store),
        };
        let now = unix_now();
        for session in stored {
            let key = (session.tenant, session.device);
            match SessionRecord::decode(&session.state) {
                Ok(record) => {
                    let place = sessions.place(&key);
                    sessions.park(&key, &place, (record, now), VecDeque::new());
                    sessions.set_kept(&place, true);
                }
                Err(error) => {
                    tracing::error!(tenant = ?key.0, device = ?key.1, %error, "a stored session cannot be read, dropped");
                    drop(sessions.shelf.write(&key, None));
                }
            }
        }
        for entry in queued {
            let cell = Arc::new(Mutex::new(Entry::Stored(entry.number)));
            match QueuedCommand::decode(&entry) {
                Ok(command) => sessions.requeue(Queued { command: Arc::new(command), cell }),
                Err(error) => {
                    tracing::error!(tenant = ?entry.tenant, device = ?entry.device, %error, "a queued command cannot be read, dropped");
                    sessions.shelf.dequeue(&cell);
                }
            }
        }
        Ok(sessions)
    }

    fn requeue(&self, queued: Queued) {
        let key = (queued.command.tenant.clone(), queued.command.device.clone());
        let place = self.places.lock().get(&key).cloned();
        match place.as_ref().map(|place| place.parked.lock()).as_deref_mut() {
            Some(Some(parked)) => {
                parked.queue.push_back(queued);
                self.reschedule(&key, parked);
            }
            _ => self.settle(&queued, Outcome::Failed, "session-discarded"),
        }
    }

    /// Starts the writer and the sweep of expired sessions in `scope`.
    pub fn start(self: &Arc<Self>, scope: &Scope) {
        let writer = Arc::clone(self);
        scope.spawn_until_cancelled(async move { writer.shelf.run().await });
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
        self.shelf.flushed().await;
    }

    /// Persistent sessions, parked or held, and the most there may be.
    pub fn fill(&self) -> (usize, usize) {
        (self.kept.load(Ordering::Relaxed), self.limits.max_sessions)
    }

    fn park(
        &self,
        key: &DeviceKey,
        place: &Place,
        (record, now): (SessionRecord, UnixMs),
        queue: VecDeque<Queued>,
    ) {
        let mut parked = place.parked.lock();
        let (left_at, expires_at) = (record.left_at.unwrap_or(now), record.expires_at(now));
        let session =
            parked.insert(Box::new(Parked { state: record.state, left_at, expires_at, queue, due: 0 }));
        self.reschedule(key, session);
    }

    fn reschedule(&self, key: &DeviceKey, parked: &mut Parked) {
        let due = parked.next_due();
        if due != parked.due {
            let mut calendar = self.calendar.lock();
            calendar.remove(&(parked.due, key.clone()));
            calendar.insert((due, key.clone()));
            parked.due = due;
        }
    }

    fn unpark(&self, key: &DeviceKey, parked: &mut Option<Box<Parked>>) -> Option<Box<Parked>> {
        let session = parked.take()?;
        self.calendar.lock().remove(&(session.due, key.clone()));
        Some(session)
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
        let place = if lasting { self.place(&key) } else { self.places.lock().get(&key).cloned()? };
        let gate = Arc::clone(&place.gate).lock_owned().await;
        Some(Box::new(Hold { key, place, _gate: gate }))
    }

    /// May one more session be kept, or this one still?
    pub(crate) fn has_room(&self, hold: &Hold) -> bool {
        hold.place.kept.load(Ordering::Relaxed)
            || self.kept.load(Ordering::Relaxed) < self.limits.max_sessions
    }

    /// What the device's session left behind: its state and the commands that wait. With `discard`, nothing, and that is
    /// the end of it.
    pub(crate) fn take(&self, hold: &Hold, discard: bool) -> Option<(SessionState, VecDeque<Queued>)> {
        let parked = self.unpark(&hold.key, &mut hold.place.parked.lock())?;
        let now = unix_now();
        if !discard && parked.expires_at > now {
            let mut state = parked.state;
            state.wait(u32::try_from(now.saturating_sub(parked.left_at) / 1000).unwrap_or(u32::MAX));
            return Some((state, parked.queue));
        }
        let status = if discard { "session-discarded" } else { "session-expired" };
        self.abandon(&parked.queue, status);
        self.forget(&hold.key, &hold.place);
        None
    }

    /// The commands of a session that has ended.
    pub(crate) fn abandon(&self, queue: &VecDeque<Queued>, status: &str) {
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

    /// Keeps a copy of a held session in the store; the receiver is told when it is there.
    pub(crate) fn keep(
        &self,
        hold: &Hold,
        state: SessionState,
        expiry_s: u32,
    ) -> Option<oneshot::Receiver<()>> {
        let record = SessionRecord::new(state, expiry_s, None).encode()?;
        self.set_kept(&hold.place, true);
        Some(self.shelf.write(&hold.key, Some(record)))
    }

    /// The connection is over: puts the session down for `expiry_s` seconds, with the commands that did not go out.
    pub(crate) fn put_down(
        &self,
        hold: Box<Hold>,
        state: SessionState,
        expiry_s: u32,
        queue: VecDeque<Queued>,
    ) {
        if expiry_s == 0 {
            self.abandon(&queue, "session-discarded");
            return self.let_go(hold);
        }
        let now = unix_now();
        let record = SessionRecord::new(state, expiry_s, Some(now));
        if let Some(bytes) = record.encode() {
            self.set_kept(&hold.place, true);
            drop(self.shelf.write(&hold.key, Some(bytes)));
        }
        self.park(&hold.key, &hold.place, (record, now), queue);
        drop(hold);
    }

    /// The session ends here, or with its connection: nothing of it is kept.
    pub(crate) fn let_go(&self, hold: Box<Hold>) {
        self.forget(&hold.key, &hold.place);
        let key = hold.key.clone();
        drop(hold);
        self.drop_empty(&key);
    }

    /// A place with nobody at it and nothing on it is no place.
    fn drop_empty(&self, key: &DeviceKey) {
        let mut places = self.places.lock();
        let empty = |place: &Arc<Place>| Arc::strong_count(place) == 1 && place.parked.lock().is_none();
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
            let Some(place) = self.places.lock().get(&key).cloned() else { continue };
            self.sweep_place(&key, &place, now);
            drop(place);
            self.drop_empty(&key);
        }
    }

    fn sweep_place(&self, key: &DeviceKey, place: &Place, now: UnixMs) {
        let mut parked = place.parked.lock();
        let Some(session) = parked.as_mut() else { return };
        let (due, waiting) =
            session.queue.drain(..).partition::<VecDeque<_>, _>(|q| q.command.expires_at <= now);
        session.queue = waiting;
        due.iter().for_each(|queued| self.settle(queued, Outcome::Expired, "not-connected"));
        if session.expires_at > now {
            self.reschedule(key, session);
        } else if let Some(session) = self.unpark(key, &mut parked) {
            self.abandon(&session.queue, "session-expired");
            self.forget(key, place);
        }
    }
}

impl Offline for Sessions {
    fn offer(&self, command: &Arc<Command>) -> Result<(), NotKept> {
        let key = (command.tenant.clone(), command.device.clone());
        let place = self.places.lock().get(&key).cloned().ok_or(NotKept::Absent)?;
        let mut parked = place.parked.lock();
        let alive = |session: &&mut Box<Parked>| session.expires_at > command.received_at;
        let session = parked.as_mut().filter(alive).ok_or(NotKept::Absent)?;
        if command_topic(command, |topic| session.state.granted(topic).is_some()).is_none() {
            return Err(NotKept::NotSubscribed);
        }
        if session.queue.len() >= self.limits.queue_per_device {
            return Err(NotKept::Full);
        }
        let queued = Queued { command: Arc::clone(command), cell: EntryCell::default() };
        if let Some(entry) = QueuedCommand::new(command).encode() {
            self.shelf.enqueue(&key, entry, &queued.cell);
        }
        session.queue.push_back(queued);
        self.reschedule(&key, session);
        Ok(())
    }
}
