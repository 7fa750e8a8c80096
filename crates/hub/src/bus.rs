//! The seam to what stores events: `Bus` for publishing, `SessionStore` for what outlives a connection.
//!
//! Owns: the promise of each call. Does not own: an implementation (`landfall-nats`, and one in memory for tests).

use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{DeviceId, EventId, Memo, Stream, TenantId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::BoxFuture;

/// Why something was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The body is larger than the bus takes.
    #[error("{size} bytes are more than the {limit} that the bus takes")]
    TooLarge {
        /// Bytes of the body and its headers.
        size: usize,
        /// The most that it takes.
        limit: usize,
    },
    /// The bus refuses it and would again.
    #[error("refused by the bus: {0}")]
    Refused(String),
    /// The store does not answer, and was given up on for now; what was asked may have happened. Only a [`SessionStore`]
    /// says so: a bus goes on trying.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The bus has been closed.
    #[error("the bus is closed")]
    Closed,
}

/// One event on its way to the store.
#[derive(Debug)]
pub struct Publication {
    /// The stream that stores it.
    pub stream: Stream,
    /// The subject; formed by `landfall_event::subject` only.
    pub subject: Arc<str>,
    /// Its unique id (`Nats-Msg-Id`).
    pub id: EventId,
    /// Further headers, formed by `landfall_event` only; values hold no CR or LF.
    pub headers: Vec<(&'static str, String)>,
    /// The encoded event.
    pub body: Bytes,
    /// Who is told when it is stored.
    pub receipt: Receipt,
}

/// Told exactly once that a publication is stored, or that it never will be. A receipt that is dropped untold counts as
/// `StoreError::Closed`.
#[derive(Debug)]
pub struct Receipt {
    told: Option<Told>,
    /// The share of the publish window that the publication holds until then.
    _permit: Option<OwnedSemaphorePermit>,
    memo: Option<Memo>,
}

/// Takes the news of a stored publication without waiting.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// `token` is stored, or never will be.
    fn settled(&self, token: u64, result: Result<(), StoreError>);
}

#[derive(Debug)]
enum Told {
    Once(oneshot::Sender<Result<(), StoreError>>),
    Token(Arc<dyn Listener>, u64),
}

impl Receipt {
    /// Nobody waits for it; the bus stores it all the same.
    pub fn unheard(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { told: None, _permit: permit, memo: None }
    }

    /// One caller waits for it.
    pub fn once() -> (Self, oneshot::Receiver<Result<(), StoreError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { told: Some(Told::Once(sender)), _permit: None, memo: None }, receiver)
    }

    /// `to` waits for it, and knows it by `token`.
    pub fn token(to: Arc<dyn Listener>, token: u64, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { told: Some(Told::Token(to, token)), _permit: permit, memo: None }
    }

    /// With what is kept beside the publication, where that is kept on a disk.
    #[must_use]
    pub fn with_memo(mut self, memo: Option<Memo>) -> Self {
        self.memo = memo;
        self
    }

    /// What is kept beside the publication.
    pub fn memo(&self) -> Option<Memo> {
        self.memo
    }

    /// True when somebody waits to hear of it.
    pub fn is_heard(&self) -> bool {
        self.told.is_some()
    }

    /// It is kept on a disk of the gateway's own until it can be stored: its share of the publish window comes back. One
    /// caller that waits for it waits no longer; a token is still told when it is stored, by what is returned.
    pub fn kept(mut self) -> Option<Self> {
        self._permit = None;
        match self.told.take() {
            Some(Told::Once(sender)) => {
                let _ = sender.send(Ok(()));
                None
            }
            Some(told) => Some(Self { told: Some(told), _permit: None, memo: None }),
            None => None,
        }
    }

    /// It is stored: JetStream has acknowledged it.
    pub fn stored(mut self) {
        self.tell(Ok(()));
    }

    /// It never will be.
    pub fn refused(mut self, error: StoreError) {
        self.tell(Err(error));
    }

    fn tell(&mut self, result: Result<(), StoreError>) {
        match self.told.take() {
            Some(Told::Once(sender)) => drop(sender.send(result)),
            Some(Told::Token(to, token)) => to.settled(token, result),
            None => {}
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.tell(Err(StoreError::Closed));
    }
}

/// Where events go. Implementations keep the order of submission, also over reconnects, and retry until an event is
/// stored or refused for good.
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Takes a publication. Never blocks: the caller holds a permit of the publish window, or the publication's number is
    /// bounded by something else (sessions, commands under way).
    fn submit(&self, publication: Publication);

    /// Sends a reply to one requester: at most once, not stored.
    fn reply(&self, to: &str, body: Bytes);

    /// True while the bus takes and stores publications.
    fn is_ready(&self) -> bool;

    /// True while it cannot store them and keeps them on a disk instead.
    fn is_keeping(&self) -> bool {
        false
    }

    /// True while what cannot be stored would find room on a disk, at once or in a moment.
    fn can_keep(&self) -> bool {
        self.is_keeping()
    }
}

/// A session that outlives its connection, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// The listener's own encoding of its state.
    pub state: Bytes,
}

/// One entry of a device's offline queue, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQueue {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// The entry's number in the store; rises in the order of the queue.
    pub number: u64,
    /// The entry.
    pub entry: Bytes,
}

/// What outlives a connection and a restart of the gateway: persistent sessions and their offline queues.
pub trait SessionStore: Send + Sync + std::fmt::Debug {
    /// Every stored session.
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<StoredSession>, StoreError>>;
    /// Stores a session's state, over an older one.
    fn save(&self, session: StoredSession) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Forgets a session. Its queue goes entry by entry.
    fn forget<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Every queued entry, in order.
    fn queued(&self) -> BoxFuture<'_, Result<Vec<StoredQueue>, StoreError>>;
    /// Appends to a device's queue; returns the entry's number once it is stored.
    fn enqueue<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
        entry: Bytes,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;
    /// Removes one entry. An entry that is gone already is no error.
    fn dequeue(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>>;
}
