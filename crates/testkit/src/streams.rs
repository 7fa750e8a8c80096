//! What JetStream has stored: the truth that events promise.

use std::time::Duration;

use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;

use crate::recorder::Seen;
use crate::wait::eventually;
use crate::{NatsServer, PATIENCE};

/// Presence and the gateways' own life.
pub const CONNECTIVITY: &str = "LANDFALL_CONNECTIVITY";
/// Upstream and downstream messages.
pub const MESSAGES: &str = "LANDFALL_MESSAGES";
/// Who was turned away.
pub const ACCESS: &str = "LANDFALL_ACCESS";
/// What gateways keep one another out with, and the wills that they owe: no events.
const NO_EVENTS: [&str; 2] = ["landfall.fence.", "landfall.will."];

fn is_event(seen: &Seen) -> bool {
    !NO_EVENTS.iter().any(|prefix| seen.subject.starts_with(prefix))
}

/// Every event that a stream holds, in the stream's order. Empty when there is no such stream.
///
/// # Panics
/// When the server does not answer.
pub async fn stored(server: &NatsServer, stream: &str) -> Vec<Seen> {
    stored_at(&server.url(), stream).await
}

/// The same at the server with this URL.
///
/// # Panics
/// When the server does not answer.
pub async fn stored_at(url: &str, stream: &str) -> Vec<Seen> {
    let all = everything(url, stream).await;
    all.into_iter().filter(is_event).collect()
}

/// An event and when the server stored it.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The event.
    pub event: Seen,
    /// When, Unix ms, by the server's clock.
    pub stored_at: u64,
}

/// Every event with its time.
///
/// # Panics
/// When the server does not answer.
pub async fn timed(server: &NatsServer, stream: &str) -> Vec<Timed> {
    let all = read(&server.url(), stream).await;
    all.into_iter().filter(|timed| is_event(&timed.event)).collect()
}

/// The same with what the gateways keep there beside events.
///
/// # Panics
/// When the server does not answer.
pub async fn everything(url: &str, stream: &str) -> Vec<Seen> {
    read(url, stream).await.into_iter().map(|timed| timed.event).collect()
}

async fn read(url: &str, stream: &str) -> Vec<Timed> {
    let context = jetstream::new(crate::nats::client(url).await);
    let Ok(stream) = context.get_stream(stream).await else { return Vec::new() };
    let config = consumer::pull::Config {
        ack_policy: consumer::AckPolicy::None,
        deliver_policy: consumer::DeliverPolicy::All,
        ..consumer::pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.expect("a consumer of the stream");
    // Page by page until there is none: a count taken before would be wrong when something is purged meanwhile.
    let read = async {
        let mut all = Vec::new();
        loop {
            let page = consumer.fetch().max_messages(1_000).messages().await.expect("messages of the stream");
            let before = all.len();
            let mut page = std::pin::pin!(page);
            while let Some(message) = page.next().await {
                let message = message.expect("a message of the stream");
                let published = message.info().expect("a message of a stream").published;
                let stored_at =
                    u64::try_from(published.unix_timestamp_nanos() / 1_000_000).expect("after 1970");
                let message = message.message;
                let event = Seen::new(message.subject.to_string(), message.headers, message.payload);
                all.push(Timed { event, stored_at });
            }
            if all.len() == before {
                return all;
            }
        }
    };
    let all = crate::within(PATIENCE * 2, "the stored messages", read).await;
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    all
}

/// Waits until a stream holds what `enough` asks for, and returns everything that it holds then.
pub async fn stored_when(
    server: &NatsServer,
    stream: &str,
    what: &str,
    enough: impl Fn(&[Seen]) -> bool,
) -> Vec<Seen> {
    eventually(PATIENCE + Duration::from_secs(5), what, async || {
        Some(stored(server, stream).await).filter(|events| enough(events))
    })
    .await
}
