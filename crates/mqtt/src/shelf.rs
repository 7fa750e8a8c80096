//! Writes sessions and queues to the `SessionStore` behind everybody's back, the latest state of each session last.
//!
//! Owns: what still has to be written, in which order, and trying again. Does not own: what it means.
//! Sessions and queues are written independently of each other. The work is bounded by the persistent sessions and by
//! their queues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_hub::{Command, SessionStore, StoreError, StoredSession};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::record::QueuedCommand;
use crate::sessions::DeviceKey;

/// Sessions written at the same time.
const AT_ONCE: usize = 64;
/// Between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// So many entries that nobody wants any more may stand in the list before it is looked through.
const STALE: usize = 64;

/// One command's place in the stored queue.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Not written yet.
    Pending(Arc<Command>),
    /// Written under this number.
    Stored(u64),
    /// The store does not take it: a restart would not know of it.
    Unstorable,
    /// No longer wanted.
    Done,
}

pub(crate) type EntryCell = Arc<Mutex<Entry>>;

#[derive(Debug, Default)]
struct Dirty {
    /// The state to write; `None` forgets the session.
    state: Option<Bytes>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Dirty {
    fn tell(self) {
        for waiting in self.waiting {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(());
        }
    }
}

#[derive(Debug)]
enum QueueWork {
    Add(EntryCell),
    Remove(u64),
}

impl QueueWork {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Add(cell) => matches!(*cell.lock(), Entry::Pending(_)),
            Self::Remove(_) => true,
        }
    }
}

/// Locked before a cell, never after.
#[derive(Debug, Default)]
struct Work {
    sessions: HashMap<DeviceKey, Dirty>,
    queue: VecDeque<QueueWork>,
    /// About how many of `queue` nobody wants any more.
    stale: usize,
    /// Some sessions are out of `sessions`, being written.
    saving: bool,
    /// One is out of `queue`, being written.
    queueing: bool,
}

#[derive(Debug)]
pub(crate) struct Shelf {
    store: Arc<dyn SessionStore>,
    work: Mutex<Work>,
    to_save: Notify,
    to_queue: Notify,
    idle: Notify,
}

/// Would the store say the same again?
fn is_final(error: &StoreError) -> bool {
    match error {
        StoreError::TooLarge { .. } | StoreError::Refused(_) => true,
        StoreError::Unavailable(_) | StoreError::Closed => false,
    }
}

impl Shelf {
    pub(crate) fn new(store: Arc<dyn SessionStore>) -> Self {
        let (to_save, to_queue, idle) = (Notify::new(), Notify::new(), Notify::new());
        Self { store, work: Mutex::default(), to_save, to_queue, idle }
    }

    /// What is behind it, to be read from.
    pub(crate) fn store(&self) -> &dyn SessionStore {
        &*self.store
    }

    /// Writes the state of a session, or forgets it; the receiver is told when that is done, or never will be.
    pub(crate) fn write(&self, key: &DeviceKey, state: Option<Bytes>) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut work = self.work.lock();
            let dirty = work.sessions.entry(key.clone()).or_default();
            dirty.state = state;
            dirty.waiting.retain(|waiting| !waiting.is_closed());
            dirty.waiting.push(sender);
        }
        self.to_save.notify_one();
        receiver
    }

    /// Appends a command to the stored queue; `cell` is `Pending`.
    pub(crate) fn enqueue(&self, cell: &EntryCell) {
        self.work.lock().queue.push_back(QueueWork::Add(Arc::clone(cell)));
        self.to_queue.notify_one();
    }

    /// Removes a command from the stored queue, now or as soon as it has got there.
    pub(crate) fn dequeue(&self, cell: &EntryCell) {
        let was = std::mem::replace(&mut *cell.lock(), Entry::Done);
        let mut work = self.work.lock();
        match was {
            Entry::Stored(number) => work.queue.push_back(QueueWork::Remove(number)),
            Entry::Pending(_) => {
                work.stale += 1;
                if work.stale > STALE && work.stale * 2 > work.queue.len() {
                    work.queue.retain(QueueWork::is_wanted);
                    work.stale = 0;
                }
                return;
            }
            Entry::Unstorable | Entry::Done => return,
        }
        drop(work);
        self.to_queue.notify_one();
    }

    /// Waits until everything is written.
    pub(crate) async fn flushed(&self) {
        loop {
            let idle = self.idle.notified();
            {
                let work = self.work.lock();
                if !work.saving && !work.queueing && work.sessions.is_empty() && work.queue.is_empty() {
                    return;
                }
            }
            idle.await;
        }
    }

    /// Works for ever; run it as a task.
    pub(crate) async fn run(&self) {
        tokio::join!(self.save_sessions(), self.write_queue());
    }

    async fn save_sessions(&self) {
        loop {
            let sessions = self.take_sessions();
            if sessions.is_empty() {
                self.idle.notify_waiters();
                self.to_save.notified().await;
                continue;
            }
            let saves = sessions.into_iter().map(|(key, dirty)| self.save(key, dirty));
            let failed: Vec<_> = futures_util::future::join_all(saves).await.into_iter().flatten().collect();
            if !failed.is_empty() {
                self.put_back(failed);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn take_sessions(&self) -> Vec<(DeviceKey, Dirty)> {
        let mut work = self.work.lock();
        let keys: Vec<_> = work.sessions.keys().take(AT_ONCE).cloned().collect();
        let sessions: Vec<_> = keys.into_iter().filter_map(|key| work.sessions.remove_entry(&key)).collect();
        work.saving = !sessions.is_empty();
        sessions
    }

    /// Returns what is to be tried again.
    async fn save(&self, key: DeviceKey, dirty: Dirty) -> Option<(DeviceKey, Dirty)> {
        let written = match &dirty.state {
            Some(state) => {
                let (tenant, device) = key.clone();
                self.store.save(StoredSession { tenant, device, state: state.clone() }).await
            }
            None => self.store.forget(&key.0, &key.1).await,
        };
        match written {
            Err(error) if !is_final(&error) => {
                tracing::warn!(%error, "a session could not be stored, trying again");
                return Some((key, dirty));
            }
            Err(error) => {
                tracing::error!(tenant = ?key.0, device = ?key.1, %error, "a session cannot be stored, what is stored of it is old");
            }
            Ok(()) => {}
        }
        dirty.tell();
        None
    }

    /// What could not be written is tried again, unless something newer has come.
    fn put_back(&self, sessions: Vec<(DeviceKey, Dirty)>) {
        let mut work = self.work.lock();
        for (key, old) in sessions {
            match work.sessions.entry(key) {
                std::collections::hash_map::Entry::Occupied(mut newer) => {
                    newer.get_mut().waiting.extend(old.waiting);
                }
                std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(old)),
            }
        }
    }

    /// In order: a queue's entries are numbered by the store.
    async fn write_queue(&self) {
        loop {
            let Some(next) = self.next_of_queue() else {
                self.idle.notify_waiters();
                self.to_queue.notified().await;
                continue;
            };
            let written = match &next {
                QueueWork::Remove(number) => self.store.dequeue(*number).await,
                QueueWork::Add(cell) => self.add(cell).await,
            };
            match written {
                Ok(()) => {}
                Err(error) if is_final(&error) => give_up(&next, &error),
                Err(error) => {
                    tracing::warn!(%error, "an offline queue could not be stored, trying again");
                    self.work.lock().queue.push_front(next);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn next_of_queue(&self) -> Option<QueueWork> {
        let mut work = self.work.lock();
        let mut next = work.queue.pop_front();
        while next.as_ref().is_some_and(|work| !work.is_wanted()) {
            work.stale = work.stale.saturating_sub(1);
            next = work.queue.pop_front();
        }
        work.queueing = next.is_some();
        next
    }

    async fn add(&self, cell: &EntryCell) -> Result<(), StoreError> {
        let command = match &*cell.lock() {
            Entry::Pending(command) => Arc::clone(command),
            _ => return Ok(()),
        };
        let entry = QueuedCommand::new(&command).encode();
        let entry = entry.ok_or_else(|| StoreError::Refused("it has no stored form".to_owned()))?;
        let number = self.store.enqueue(&command.tenant, &command.device, entry).await?;
        let unwanted = {
            let mut cell = cell.lock();
            let unwanted = matches!(*cell, Entry::Done);
            if !unwanted {
                *cell = Entry::Stored(number);
            }
            unwanted
        };
        if unwanted {
            self.work.lock().queue.push_back(QueueWork::Remove(number));
        }
        Ok(())
    }
}

/// The store will never do it. A command goes on waiting for its device in memory.
fn give_up(work: &QueueWork, error: &StoreError) {
    match work {
        QueueWork::Remove(number) => {
            tracing::error!(number, %error, "a command cannot be removed from the stored queue, a restart would find it there");
        }
        QueueWork::Add(cell) => {
            let mut cell = cell.lock();
            if let Entry::Pending(command) = &*cell {
                tracing::error!(tenant = ?command.tenant, device = ?command.device, id = ?command.id, %error, "a waiting command cannot be stored, a restart would not know of it");
                *cell = Entry::Unstorable;
            }
        }
    }
}
