//! A bus and a session store in memory: for tests of whatever stands on the hub, and for embedding without NATS.
//!
//! Owns: publications in order, and a switch that holds acknowledgements back. Does not own: anything that survives.

use std::collections::VecDeque;

use bytes::Bytes;
use landfall_event::{DeviceId, EventId, Memo, Stream, TenantId};
use parking_lot::Mutex;

use crate::{BoxFuture, Bus, Publication, Receipt, SessionStore, StoreError, StoredQueue, StoredSession};

/// A stored publication.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its stream.
    pub stream: Stream,
    /// Its subject.
    pub subject: String,
    /// Its id.
    pub id: EventId,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Inside {
    away: bool,
    keeping: bool,
    stalled: bool,
    refusing: bool,
    waiting: VecDeque<Publication>,
    memos: Vec<Memo>,
    stored: Vec<Stored>,
    replies: Vec<(String, Bytes)>,
}

/// A bus that stores in memory, at once unless it is away.
#[derive(Debug, Default)]
pub struct MemoryBus(Mutex<Inside>);

impl MemoryBus {
    /// While away, publications wait unstored.
    pub fn set_away(&self, away: bool) {
        let waiting = {
            let mut inside = self.0.lock();
            inside.away = away;
            if away { VecDeque::new() } else { std::mem::take(&mut inside.waiting) }
        };
        waiting.into_iter().for_each(|publication| self.store(publication));
    }

    /// Away, and what is submitted meanwhile is on a disk of its own.
    pub fn set_keeping(&self, keeping: bool) {
        self.0.lock().keeping = keeping;
        self.set_away(keeping);
    }

    /// While stalled, it looks as if it stored, and does not.
    pub fn set_stalled(&self, stalled: bool) {
        self.0.lock().stalled = stalled;
        if !stalled {
            self.set_away(false);
        }
    }

    /// Stores the oldest publication that waits, while away too; says whether there was one.
    pub fn store_next(&self) -> bool {
        let next = self.0.lock().waiting.pop_front();
        let is_there = next.is_some();
        next.into_iter().for_each(|publication| self.store(publication));
        is_there
    }

    /// The next event is refused for good.
    pub fn refuse_next(&self) {
        self.0.lock().refusing = true;
    }

    fn store(&self, publication: Publication) {
        let Publication { stream, subject, id, headers, body, receipt } = publication;
        // What is kept of a will is no event.
        if subject.starts_with("kaa.") && std::mem::take(&mut self.0.lock().refusing) {
            return receipt.refused(StoreError::Refused("asked to".to_owned()));
        }
        self.0.lock().stored.push(Stored { stream, subject: subject.to_string(), id, headers, body });
        receipt.stored();
    }

    /// Everything stored so far, in order.
    pub fn stored(&self) -> Vec<Stored> {
        self.0.lock().stored.clone()
    }

    /// What was put on that disk beside the publications.
    pub fn memos(&self) -> Vec<Memo> {
        self.0.lock().memos.clone()
    }

    /// Publications that wait for the bus to come back.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Every reply sent so far.
    pub fn replies(&self) -> Vec<(String, Bytes)> {
        self.0.lock().replies.clone()
    }
}

impl Bus for MemoryBus {
    fn submit(&self, mut publication: Publication) {
        let mut inside = self.0.lock();
        if !inside.away && !inside.stalled {
            drop(inside);
            return self.store(publication);
        }
        if inside.keeping {
            drop(inside);
            self.0.lock().memos.extend(publication.receipt.memo());
            // Whoever waits for the disk is told.
            publication.receipt = publication.receipt.kept().unwrap_or_else(|| Receipt::unheard(None));
            inside = self.0.lock();
        }
        inside.waiting.push_back(publication);
    }

    fn reply(&self, to: &str, body: Bytes) {
        self.0.lock().replies.push((to.to_owned(), body));
    }

    fn is_ready(&self) -> bool {
        !self.0.lock().away
    }

    fn is_keeping(&self) -> bool {
        let inside = self.0.lock();
        inside.away && inside.keeping
    }
}

#[derive(Debug, Default)]
struct Shelf {
    sessions: Vec<StoredSession>,
    queued: Vec<StoredQueue>,
    made: u64,
}

/// A session store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Shelf>);

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl SessionStore for MemoryStore {
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<StoredSession>, StoreError>> {
        ready(Ok(self.0.lock().sessions.clone()))
    }

    fn save(&self, session: StoredSession) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut shelf = self.0.lock();
        shelf.sessions.retain(|s| (&s.tenant, &s.device) != (&session.tenant, &session.device));
        shelf.sessions.push(session);
        ready(Ok(()))
    }

    fn forget<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.lock().sessions.retain(|s| (&s.tenant, &s.device) != (tenant, device));
        ready(Ok(()))
    }

    fn queued(&self) -> BoxFuture<'_, Result<Vec<StoredQueue>, StoreError>> {
        ready(Ok(self.0.lock().queued.clone()))
    }

    fn enqueue<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
        entry: Bytes,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let mut shelf = self.0.lock();
        shelf.made += 1;
        let number = shelf.made;
        shelf.queued.push(StoredQueue { tenant: tenant.clone(), device: device.clone(), number, entry });
        ready(Ok(number))
    }

    fn dequeue(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.lock().queued.retain(|q| q.number != number);
        ready(Ok(()))
    }
}
