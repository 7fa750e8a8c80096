//! What outlives a connection, in JetStream: persistent sessions as a key-value bucket, offline queues as a stream.
//!
//! Owns: [`landfall_hub::SessionStore`] on NATS. Does not own: what a session's state or a queue's entry says, how long a
//! queue may grow (the hub), the names (`landfall_event::subject`).
//!
//! A forgotten session leaves nothing behind: its subject is purged, where a key-value delete would leave a marker for
//! each device that ever was. Requests go over one client in order, so a save that is repeated after a timeout can never
//! overtake the next one.

use std::future::Future;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::stream::{DeleteMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, HeaderMap, Message, Request};
use bytes::Bytes;
use landfall_event::subject::{self, QUEUE_STREAM};
use landfall_event::{DeviceId, InstanceName, TenantId};
use landfall_hub::{BoxFuture, SessionStore, StoreError, StoredQueue, StoredSession};

use crate::ack;
use crate::message::header;
use crate::persist::{self, Passing, Patience};
use crate::reading::{self, At, Selection};
use crate::streams::sessions_stream;
use crate::window::Verdict;

mod nobodys;

const PATIENCE: Patience = Patience { within: Duration::from_secs(30), failures: 6 };
/// The headers that key-value clients put on a deletion.
const KV_OPERATION: &str = "KV-Operation";

/// Why a try did not succeed.
pub(crate) enum Failure {
    Passing(String),
    Final(StoreError),
}

impl Passing for Failure {
    fn passing(&self) -> Option<&str> {
        match self {
            Self::Passing(why) => Some(why),
            Self::Final(_) => None,
        }
    }
}

impl Failure {
    pub(crate) fn away(why: impl Into<async_nats::Error>) -> Self {
        Self::Passing(why.into().to_string())
    }
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct JetStreamStore {
    pub(crate) client: Client,
    context: Context,
    pub(crate) instance: InstanceName,
}

impl JetStreamStore {
    /// Stores what is `instance`'s over `client`, which connects again by itself. The streams are there
    /// ([`crate::streams::ensure`]).
    pub fn new(client: Client, instance: InstanceName) -> Self {
        Self { context: jetstream::new(client.clone()), client, instance }
    }

    /// Publishes once and waits for the acknowledgement; returns the place in the stream.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        id: Option<&str>,
        body: &Bytes,
    ) -> Result<u64, Failure> {
        let limit = self.client.max_payload();
        // The id's header is well below this.
        let size = body.len() + 128;
        if size > limit {
            return Err(Failure::Final(StoreError::TooLarge { size, limit }));
        }
        let mut request = Request::new().payload(body.clone());
        if let Some(id) = id {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, id);
            request = request.headers(headers);
        }
        let message = self.client.send_request(subject.to_owned(), request).await.map_err(Failure::away)?;
        let answer = ack::read(&message);
        match answer.verdict {
            Verdict::Stored => Ok(answer.sequence),
            Verdict::Passing | Verdict::Fenced => Err(Failure::Passing(answer.why)),
            Verdict::Final => Err(Failure::Final(StoreError::Refused(answer.why))),
        }
    }

    pub(crate) async fn stream(&self, name: &str) -> Result<Stream<()>, Failure> {
        self.context.get_stream_no_info(name).await.map_err(Failure::away)
    }

    /// What the stream holds now of these subjects, in order: subject, place, body.
    pub(crate) async fn read_all(
        &self,
        name: &str,
        subjects: Vec<String>,
    ) -> Result<Vec<(String, u64, Bytes)>, Failure> {
        let stream = self.stream(name).await?;
        let mut entries = Vec::new();
        let take = |at: At, message: Message| {
            if header(&message, KV_OPERATION).is_none() {
                entries.push((message.subject.to_string(), at.place, message.payload));
            }
        };
        let selection = Selection::from(DeliverPolicy::All).of(subjects);
        reading::read(&stream, selection, take).await.map_err(Failure::away)?;
        Ok(entries)
    }

    async fn read_sessions(&self) -> Result<Vec<StoredSession>, Failure> {
        nobodys::take_over(self).await?;
        let mine = vec![subject::session_wildcard(&self.instance)];
        let entries = self.read_all(&sessions_stream(), mine).await?.into_iter();
        Ok(entries
            .filter_map(|(name, _, state)| {
                let device = subject::parse_session_subject(&name)
                    .and_then(|key| subject::parse_session_key(&self.instance, key));
                let (tenant, device) = known(&name, device)?;
                Some(StoredSession { tenant, device, state })
            })
            .collect())
    }

    async fn read_queues(&self) -> Result<Vec<StoredQueue>, Failure> {
        let mine = vec![subject::queue_wildcard(&self.instance)];
        let entries = self.read_all(QUEUE_STREAM, mine).await?.into_iter();
        Ok(entries
            .filter_map(|(name, number, entry)| {
                let (tenant, device) = known(&name, subject::parse_queue(&self.instance, &name))?;
                Some(StoredQueue { tenant, device, number, entry })
            })
            .collect())
    }

    pub(crate) fn session_subject(&self, tenant: &TenantId, device: &DeviceId) -> String {
        subject::session_subject(&subject::session_key(&self.instance, tenant, device))
    }

    pub(crate) async fn purge(&self, filter: &str) -> Result<(), Failure> {
        let stream = self.stream(&sessions_stream()).await?;
        stream.purge().filter(filter).await.map(drop).map_err(Failure::away)
    }

    pub(crate) async fn delete(&self, number: u64) -> Result<(), Failure> {
        let stream = self.stream(QUEUE_STREAM).await?;
        match stream.delete_message(number).await {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                DeleteMessageErrorKind::JetStream(said) if is_gone(said.error_code()) => Ok(()),
                _ => Err(Failure::away(error)),
            },
        }
    }
}

/// What the server says of a message that is not there any more.
fn is_gone(code: ErrorCode) -> bool {
    [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::STREAM_MESSAGE_DELETE_FAILED]
        .contains(&code)
}

/// Something that another program wrote there is left alone.
fn known(name: &str, device: Option<(TenantId, DeviceId)>) -> Option<(TenantId, DeviceId)> {
    if device.is_none() {
        tracing::warn!(subject = ?name, "a stored entry names no device and is passed over");
    }
    device
}

/// Tries until it works, is refused for good, or patience is at an end.
async fn persist<T, F, Fut>(what: &str, attempt: F) -> Result<T, StoreError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let passed = |why: &str| tracing::debug!(what, why, "trying again");
    match persist::persist(PATIENCE, passed, attempt).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure::Final(error))) => Err(error),
        Ok(Err(Failure::Passing(why))) | Err(why) => Err(StoreError::Unavailable(format!("{what}: {why}"))),
    }
}

impl SessionStore for JetStreamStore {
    fn sessions(&self) -> BoxFuture<'_, Result<Vec<StoredSession>, StoreError>> {
        Box::pin(persist("reading the sessions", || self.read_sessions()))
    }

    fn save(&self, session: StoredSession) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let subject = self.session_subject(&session.tenant, &session.device);
            persist("saving a session", || self.publish(&subject, None, &session.state)).await.map(drop)
        })
    }

    fn forget<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let subject = self.session_subject(tenant, device);
            persist("forgetting a session", || self.purge(&subject)).await
        })
    }

    fn queued(&self) -> BoxFuture<'_, Result<Vec<StoredQueue>, StoreError>> {
        Box::pin(persist("reading the queues", || self.read_queues()))
    }

    fn enqueue<'a>(
        &'a self,
        tenant: &'a TenantId,
        device: &'a DeviceId,
        entry: Bytes,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let subject = subject::queue_subject(&self.instance, tenant, device);
            // Unique, and the same for every try: an entry whose acknowledgement was lost is not stored twice.
            let id = self.client.new_inbox();
            persist("queueing", || self.publish(&subject, Some(&id), &entry)).await
        })
    }

    fn dequeue(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(persist("removing a queued entry", move || self.delete(number)))
    }
}
