//! Single requests to JetStream: write if nothing has changed, read the newest, read many, purge.
//!
//! Owns: what the answers mean, and trying again for a while. Does not own: what is written ([`crate::fence`],
//! [`crate::lease`], [`crate::repair`]); events, which go through [`crate::driver`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, HeaderMap, Message, Request};
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::ack;
use crate::persist::{Passing, Patience, persist};
use crate::publisher::Publisher;
use crate::reading::{self, At, Selection};
use crate::window::Verdict;

const PATIENCE: Patience = Patience { within: Duration::from_secs(10), failures: 5 };

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Somebody else has written since.
    #[error("another process was faster")]
    Conflict,
    /// JetStream does not answer, or not now.
    #[error("JetStream does not answer: {0}")]
    Away(String),
    /// There is no such stream.
    #[error("there is no stream {0}; has a gateway ever run on this NATS?")]
    Missing(&'static str),
    /// JetStream will not do it.
    #[error("JetStream refuses it: {0}")]
    Refused(String),
}

impl Passing for Failure {
    fn passing(&self) -> Option<&str> {
        match self {
            Self::Away(why) => Some(why),
            _ => None,
        }
    }
}

impl Failure {
    pub(crate) fn away(why: impl Into<async_nats::Error>) -> Self {
        Self::Away(why.into().to_string())
    }
}

/// What must hold for a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect<'a> {
    /// Nothing.
    Anything,
    /// The newest message of the subject stands at this place; 0: there is none.
    Last(u64),
    /// These headers say it.
    Headers(&'a HeaderMap),
}

/// The newest message of a subject.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    pub(crate) sequence: u64,
    pub(crate) body: Bytes,
}

/// A message as found: subject, place, body.
pub(crate) type Newest = (String, u64, Bytes);

/// See the module's description.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    client: Client,
    context: Context,
    /// Tries that came to nothing, of all clones.
    failed: Arc<AtomicU64>,
    /// Hears of each of them at once.
    hears: Option<Arc<Publisher>>,
}

impl Desk {
    /// Asks over `client`, which connects again by itself.
    pub(crate) fn new(client: Client) -> Self {
        Self { context: jetstream::new(client.clone()), client, failed: Arc::default(), hears: None }
    }

    /// The same desk; the publisher hears of every try that comes to nothing.
    pub(crate) fn heard_by(&self, publisher: &Arc<Publisher>) -> Self {
        Self { hears: Some(Arc::clone(publisher)), ..self.clone() }
    }

    /// Tries that came to nothing so far: did NATS answer all the while?
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Writes and returns the place. It is tried again under one id, so it is stored once.
    pub(crate) async fn put(&self, subject: &str, body: Bytes, expect: Expect<'_>) -> Result<u64, Failure> {
        let mut headers = match expect {
            Expect::Headers(headers) => headers.clone(),
            Expect::Anything | Expect::Last(_) => HeaderMap::new(),
        };
        if let Expect::Last(last) = expect {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
        }
        if headers.get(NATS_MESSAGE_ID).is_none() {
            headers.insert(NATS_MESSAGE_ID, self.client.new_inbox().as_str());
        }
        self.persist(|| self.put_once(subject, &body, &headers)).await
    }

    async fn put_once(&self, subject: &str, body: &Bytes, headers: &HeaderMap) -> Result<u64, Failure> {
        let request = Request::new().payload(body.clone()).headers(headers.clone());
        let message = self.client.send_request(subject.to_owned(), request).await.map_err(Failure::away)?;
        let answer = ack::read(&message);
        match answer.verdict {
            Verdict::Stored => Ok(answer.sequence),
            Verdict::Fenced => Err(Failure::Conflict),
            Verdict::Passing => Err(Failure::Away(answer.why)),
            Verdict::Final => Err(Failure::Refused(answer.why)),
        }
    }

    /// The newest message of the subject.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Result<Option<Last>, Failure> {
        self.persist(|| self.last_once(stream, subject)).await
    }

    async fn last_once(&self, stream: &str, subject: &str) -> Result<Option<Last>, Failure> {
        match self.stream(stream).await?.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(Last { sequence: message.sequence, body: message.payload })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Failure::away(error)),
        }
    }

    /// The message at this place, if it is there still.
    pub(crate) async fn at(&self, stream: &str, place: u64) -> Result<Option<StreamMessage>, Failure> {
        self.persist(|| self.at_once(stream, place)).await
    }

    async fn at_once(&self, stream: &str, place: u64) -> Result<Option<StreamMessage>, Failure> {
        match self.stream(stream).await?.get_raw_message(place).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Failure::away(error)),
        }
    }

    /// The subjects below `filter` that the stream has messages of.
    pub(crate) async fn subjects(&self, stream: &str, filter: &str) -> Result<Vec<String>, Failure> {
        self.persist(|| self.subjects_once(stream, filter)).await
    }

    async fn subjects_once(&self, stream: &str, filter: &str) -> Result<Vec<String>, Failure> {
        let found = self.stream(stream).await?.info_with_subjects(filter).await.map_err(Failure::away)?;
        let found: Vec<(String, usize)> = found.try_collect().await.map_err(Failure::away)?;
        Ok(found.into_iter().map(|(subject, _)| subject).collect())
    }

    /// Forgets every message of the subjects below `filter`.
    pub(crate) async fn purge(&self, stream: &str, filter: &str) -> Result<(), Failure> {
        self.persist(|| self.purge_once(stream, filter)).await
    }

    async fn purge_once(&self, stream: &str, filter: &str) -> Result<(), Failure> {
        self.stream(stream).await?.purge().filter(filter).await.map(drop).map_err(Failure::away)
    }

    /// The place of the stream's newest message; 0 when there never was one.
    pub(crate) async fn newest_place(&self, stream: &str) -> Result<u64, Failure> {
        self.persist(|| self.newest_place_once(stream)).await
    }

    async fn newest_place_once(&self, stream: &str) -> Result<u64, Failure> {
        let info = self.stream(stream).await?.get_info().await.map_err(Failure::away)?;
        Ok(info.state.last_sequence)
    }

    /// What the server says of a stream; `None` when there is none of that name.
    pub(crate) async fn info(&self, stream: &str) -> Result<Option<Info>, Failure> {
        self.persist(|| self.info_once(stream)).await
    }

    async fn info_once(&self, stream: &str) -> Result<Option<Info>, Failure> {
        match self.context.get_stream(stream).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(None)
                }
                _ => Err(Failure::away(error)),
            },
        }
    }

    /// Forgets the messages of the subject up to this place.
    pub(crate) async fn purge_up_to(&self, stream: &str, subject: &str, place: u64) -> Result<(), Failure> {
        self.persist(|| self.purge_up_to_once(stream, subject, place)).await
    }

    async fn purge_up_to_once(&self, stream: &str, subject: &str, place: u64) -> Result<(), Failure> {
        let purge = self.stream(stream).await?.purge().filter(subject).sequence(place.saturating_add(1));
        purge.await.map(drop).map_err(Failure::away)
    }

    /// Forgets every message that stands before this place.
    pub(crate) async fn purge_below(&self, stream: &str, place: u64) -> Result<(), Failure> {
        self.persist(|| self.purge_below_once(stream, place)).await
    }

    async fn purge_below_once(&self, stream: &str, place: u64) -> Result<(), Failure> {
        self.stream(stream).await?.purge().sequence(place).await.map(drop).map_err(Failure::away)
    }

    /// The newest message of each subject below `filter`: subject, place, body.
    pub(crate) async fn newest_of_each(&self, stream: &str, filter: &str) -> Result<Vec<Newest>, Failure> {
        self.persist(|| self.newest_of_each_once(stream, filter)).await
    }

    async fn newest_of_each_once(&self, stream: &str, filter: &str) -> Result<Vec<Newest>, Failure> {
        let mut found = Vec::new();
        let selection = Selection::from(DeliverPolicy::LastPerSubject).of(vec![filter.to_owned()]);
        let take =
            |at: At, message: Message| found.push((message.subject.to_string(), at.place, message.payload));
        reading::read(&self.stream(stream).await?, selection, take).await.map_err(Failure::away)?;
        Ok(found)
    }

    pub(crate) async fn stream(&self, name: &str) -> Result<Stream<()>, Failure> {
        self.context.get_stream_no_info(name).await.map_err(Failure::away)
    }

    /// Tries until there is an answer, or patience is at an end.
    async fn persist<T, F, Fut>(&self, attempt: F) -> Result<T, Failure>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let count = |why: &str| {
            self.failed.fetch_add(1, Ordering::Relaxed);
            if let Some(publisher) = &self.hears {
                publisher.meets(why);
            }
        };
        persist(PATIENCE, count, attempt).await.unwrap_or_else(|why| {
            count(&why);
            Err(Failure::Away(why))
        })
    }
}
