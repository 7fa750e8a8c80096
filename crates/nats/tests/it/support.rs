//! What the tests have in common: a publisher with its server, sessions that publish, the check of what was stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use bytes::Bytes;
use futures_util::StreamExt;
use landfall_event::subject::{stream_name, stream_subjects};
use landfall_event::{EventId, SessionId, Stream};
use landfall_hub::{Bus, Publication, Receipt, StoreError};
use landfall_nats::streams::StreamSettings;
use landfall_nats::window::Bounds;
use landfall_nats::{ConnectSettings, Publisher, PublisherSettings, Target, streams};
use landfall_net::Scope;
use landfall_testkit::wait::{PATIENCE, eventually, within};
use tokio::sync::{Semaphore, oneshot};

/// What a publication's submitter hears.
pub(crate) type News = oneshot::Receiver<Result<(), StoreError>>;

/// A target at one address.
pub(crate) fn target(url: &str) -> Target {
    Target::new(ConnectSettings {
        urls: vec![url.to_owned()],
        name: "test".to_owned(),
        ..ConnectSettings::default()
    })
    .expect("an address")
}

/// A publisher, its tasks, and the subject that its events go to.
pub(crate) struct Fleet {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) scope: Scope,
    subject: Arc<str>,
}

impl Fleet {
    /// Starts a publisher that is impatient, so that tests of silence are short.
    pub(crate) async fn start(url: &str) -> Self {
        let bounds = Bounds { ack_timeout_ms: 500, longest_pause_ms: 100, ..Bounds::default() };
        Self::start_with(url, bounds).await
    }

    pub(crate) async fn start_with(url: &str, bounds: Bounds) -> Self {
        let scope = Scope::new();
        let client = target(url).client().await.expect("a client");
        Self::of(
            Publisher::start(
                &scope,
                target(url),
                client,
                PublisherSettings { bounds, fenced: false, kept: None },
            ),
            scope,
        )
    }

    /// With a publisher that runs in this scope.
    pub(crate) fn of(publisher: Publisher, scope: Scope) -> Self {
        let subject = stream_subjects(Stream::Messages)[0].replace('*', "test").replace('>', "upstream");
        Self { publisher: Arc::new(publisher), scope, subject: subject.into() }
    }

    /// Submits the `seq`th message of a session.
    pub(crate) fn submit(&self, session: u8, seq: u64, body: Bytes) -> News {
        let (receipt, news) = Receipt::once();
        self.publisher.submit(self.publication(session, seq, body, receipt));
        news
    }

    pub(crate) fn publication(&self, session: u8, seq: u64, body: Bytes, receipt: Receipt) -> Publication {
        Publication {
            stream: Stream::Messages,
            subject: Arc::clone(&self.subject),
            id: EventId::Session(session_id(session), Stream::Messages, seq),
            headers: Vec::new(),
            body,
            receipt,
        }
    }

    /// `sessions` sessions publish `each` messages of `size` bytes in turn, at most 4,096 at once, as a gateway's would.
    /// Returns the submitters' news, in the order of submission.
    pub(crate) async fn publish(self: &Arc<Self>, sessions: u8, each: u64, size: usize) -> Vec<News> {
        let window = Arc::new(Semaphore::new(4096));
        let body = Bytes::from(vec![b'x'; size]);
        let mut all = Vec::new();
        for seq in 1..=each {
            for session in 0..sessions {
                let permit = Arc::clone(&window).acquire_owned().await.expect("an open window");
                let (tell, news) = oneshot::channel();
                let heard = self.submit(session, seq, body.clone());
                self.scope.spawn(async move {
                    let result = heard.await.expect("every receipt is told");
                    drop(permit);
                    // Nobody listens when the test has failed.
                    let _ = tell.send(result);
                });
                all.push(news);
            }
        }
        all
    }

    /// Waits until `stored` messages have been acknowledged.
    pub(crate) async fn reaches(&self, stored: u64) {
        eventually(PATIENCE, "stored messages", async || {
            (self.publisher.stats().stored >= stored).then_some(())
        })
        .await;
    }

    /// Waits until the publisher is ready, or is not.
    pub(crate) async fn becomes(&self, ready: bool) {
        eventually(PATIENCE, if ready { "readiness" } else { "no readiness" }, async || {
            (self.publisher.is_ready() == ready).then_some(())
        })
        .await;
    }
}

/// The id of the session with this number.
pub(crate) fn session_id(number: u8) -> SessionId {
    SessionId::new(1_700_000_000_000, [number; 10])
}

/// Waits until all news are here and good.
pub(crate) async fn all_stored(news: Vec<News>) {
    for news in news {
        let result = within(PATIENCE * 2, "a receipt", news).await.expect("every receipt is told");
        assert_eq!(result, Ok(()));
    }
}

/// The ids in the messages' stream, in the stream's order.
pub(crate) async fn stored_ids(url: &str) -> Vec<EventId> {
    let context = jetstream::new(landfall_testkit::nats::client(url).await);
    let stream = context.get_stream(stream_name(Stream::Messages)).await.expect("the stream");
    let count = stream.cached_info().state.messages;
    let config = consumer::pull::OrderedConfig { headers_only: true, ..Default::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut messages =
        consumer.messages().await.expect("messages").take(usize::try_from(count).expect("few"));
    let mut ids = Vec::new();
    while let Some(message) = within(PATIENCE, "a stored message", messages.next()).await {
        let message = message.expect("a message");
        let headers = message.headers.as_ref().expect("headers");
        ids.push(headers.get("Nats-Msg-Id").expect("an id").as_str().parse().expect("an event's id"));
    }
    ids
}

/// Each message of each session is in the stream once, and those of a session are in order.
pub(crate) async fn assert_whole(url: &str, sessions: u8, each: u64) {
    let ids = stored_ids(url).await;
    let distinct: HashSet<EventId> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "an id is stored twice");
    let mut last: HashMap<SessionId, u64> = HashMap::new();
    for id in ids {
        let EventId::Session(session, Stream::Messages, seq) = id else { panic!("{id} is no message's id") };
        let before = last.insert(session, seq).unwrap_or(0);
        assert_eq!(seq, before + 1, "session {session} out of order");
    }
    let expected = (0..sessions).map(|number| (session_id(number), each)).collect();
    assert_eq!(last, expected);
}

/// Makes the streams.
pub(crate) async fn make_streams(url: &str) {
    make_streams_with(url, StreamSettings::default().duplicate_window).await;
}

/// Makes the streams with this duplicate window.
pub(crate) async fn make_streams_with(url: &str, duplicate_window: Duration) {
    let context = jetstream::new(landfall_testkit::nats::client(url).await);
    let settings = StreamSettings { duplicate_window, ..StreamSettings::default() };
    streams::ensure(&context, &settings).await.expect("streams");
}

/// A short while, for what must *not* happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);
