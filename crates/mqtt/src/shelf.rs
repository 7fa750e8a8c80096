//! Writes sessions and queues to the `SessionStore` behind everybody's back, the latest state of each session last.
//!
//! Owns: what still has to be written, in which order, and trying again. Does not own: what it means.
//! The work is bounded by the persistent sessions and by their queues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_hub::{SessionStore, StoredSession};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::sessions::DeviceKey;

/// Sessions written at the same time.
const AT_ONCE: usize = 64;
/// Between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// One command's place in the stored queue.
#[derive(Debug, Default)]
pub(crate) enum Entry {
    /// Not written yet.
    #[default]
    Pending,
    /// Written under this number.
    Stored(u64),
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

#[derive(Debug)]
enum QueueWork {
    Add(DeviceKey, Bytes, EntryCell),
    Remove(u64),
}

#[derive(Debug, Default)]
struct Work {
    sessions: HashMap<DeviceKey, Dirty>,
    queue: VecDeque<QueueWork>,
    busy: bool,
}

#[derive(Debug)]
pub(crate) struct Shelf {
    store: Arc<dyn SessionStore>,
    work: Mutex<Work>,
    more: Notify,
    idle: Notify,
}

impl Shelf {
    pub(crate) fn new(store: Arc<dyn SessionStore>) -> Self {
        Self { store, work: Mutex::new(Work::default()), more: Notify::new(), idle: Notify::new() }
    }

    /// Writes the state of a session, or forgets it; the receiver is told when that is done.
    pub(crate) fn write(&self, key: &DeviceKey, state: Option<Bytes>) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut work = self.work.lock();
            let dirty = work.sessions.entry(key.clone()).or_default();
            dirty.state = state;
            dirty.waiting.push(sender);
        }
        self.more.notify_one();
        receiver
    }

    pub(crate) fn enqueue(&self, key: &DeviceKey, entry: Bytes, cell: &EntryCell) {
        self.work.lock().queue.push_back(QueueWork::Add(key.clone(), entry, Arc::clone(cell)));
        self.more.notify_one();
    }

    /// Removes a command from the stored queue, now or as soon as it has got there.
    pub(crate) fn dequeue(&self, cell: &EntryCell) {
        let was = std::mem::replace(&mut *cell.lock(), Entry::Done);
        if let Entry::Stored(number) = was {
            self.work.lock().queue.push_back(QueueWork::Remove(number));
            self.more.notify_one();
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn flushed(&self) {
        loop {
            let idle = self.idle.notified();
            {
                let work = self.work.lock();
                if !work.busy && work.sessions.is_empty() && work.queue.is_empty() {
                    return;
                }
            }
            idle.await;
        }
    }

    /// Works for ever; run it as a task.
    pub(crate) async fn run(&self) {
        loop {
            let (sessions, queue) = self.take_work();
            if sessions.is_empty() && queue.is_empty() {
                self.idle.notify_waiters();
                self.more.notified().await;
                continue;
            }
            let (sessions, queue) = tokio::join!(self.write_sessions(sessions), self.write_queue(queue));
            if !sessions.is_empty() || !queue.is_empty() {
                self.put_back(sessions, queue);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn take_work(&self) -> (Vec<(DeviceKey, Dirty)>, VecDeque<QueueWork>) {
        let mut work = self.work.lock();
        let keys: Vec<_> = work.sessions.keys().take(AT_ONCE).cloned().collect();
        let sessions =
            keys.into_iter().filter_map(|key| work.sessions.remove_entry(&key)).collect::<Vec<_>>();
        let queue = std::mem::take(&mut work.queue);
        work.busy = !sessions.is_empty() || !queue.is_empty();
        (sessions, queue)
    }

    /// What could not be written is tried again, unless something newer has come.
    fn put_back(&self, sessions: Vec<(DeviceKey, Dirty)>, mut queue: VecDeque<QueueWork>) {
        let mut work = self.work.lock();
        for (key, old) in sessions {
            match work.sessions.entry(key) {
                std::collections::hash_map::Entry::Occupied(mut newer) => {
                    newer.get_mut().waiting.extend(old.waiting);
                }
                std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(old)),
            }
        }
        queue.append(&mut work.queue);
        work.queue = queue;
    }

    async fn write_sessions(&self, sessions: Vec<(DeviceKey, Dirty)>) -> Vec<(DeviceKey, Dirty)> {
        let writes = sessions.into_iter().map(|(key, dirty)| async move {
            let written = match &dirty.state {
                Some(state) => {
                    let (tenant, device) = key.clone();
                    self.store.save(StoredSession { tenant, device, state: state.clone() }).await
                }
                None => self.store.forget(&key.0, &key.1).await,
            };
            match written {
                Ok(()) => {
                    for waiting in dirty.waiting {
                        // Whoever asked may have stopped waiting.
                        let _ = waiting.send(());
                    }
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "a session could not be stored, trying again");
                    Some((key, dirty))
                }
            }
        });
        futures_util::future::join_all(writes).await.into_iter().flatten().collect()
    }

    /// In order: a queue's entries are numbered by the store.
    async fn write_queue(&self, mut queue: VecDeque<QueueWork>) -> VecDeque<QueueWork> {
        while let Some(next) = queue.pop_front() {
            let failed = match &next {
                QueueWork::Remove(number) => self.store.dequeue(*number).await.err(),
                QueueWork::Add(key, entry, cell) => {
                    if matches!(*cell.lock(), Entry::Done) {
                        continue;
                    }
                    match self.store.enqueue(&key.0, &key.1, entry.clone()).await {
                        Ok(number) => {
                            let mut cell = cell.lock();
                            if matches!(*cell, Entry::Done) {
                                queue.push_back(QueueWork::Remove(number));
                            } else {
                                *cell = Entry::Stored(number);
                            }
                            None
                        }
                        Err(error) => Some(error),
                    }
                }
            };
            if let Some(error) = failed {
                tracing::warn!(%error, "an offline queue could not be stored, trying again");
                queue.push_front(next);
                break;
            }
        }
        queue
    }
}
