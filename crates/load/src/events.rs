//! A gateway's events as its stream holds them.
//!
//! Owns: reading a stream from now on, with the times at which the server stored and this process read each event. Does not
//! own: what an event says (`landfall-event`).

pub(crate) mod presence;
pub(crate) mod upstream;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::StreamExt as _;
use landfall_event::Stream;
use landfall_event::subject;
use landfall_event::wire::{self, Event};
use tokio::task::JoinSet;

use crate::clock::unix_us;
use crate::nats;

/// An event, and when it was stored and read, in µs of Unix time.
pub(crate) struct Arrival {
    pub(crate) event: Event,
    pub(crate) stored_us: u64,
    pub(crate) read_us: u64,
}

/// Hands every event of a stream from now on to `each`, until the set is dropped. An error is its last word.
pub(crate) async fn follow(
    url: &str,
    stream: Stream,
    mut each: impl FnMut(Arrival) + Send + 'static,
) -> Result<JoinSet<String>, String> {
    let name = subject::stream_name(stream);
    let failed = |error: &dyn std::fmt::Display| format!("NATS at {}: {name}: {error}", nats::shown(url));
    let client = nats::connect(url).await?;
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream.get_stream(name).await.map_err(|error| failed(&error))?;
    // The streams hold fences too, which are no events.
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::New,
        filter_subject: subject::WATCH_ALL.to_owned(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
    let mut messages = consumer.messages().await.map_err(|error| failed(&error))?;
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        while let Some(message) = messages.next().await {
            let message = match message {
                Ok(message) => message,
                Err(error) => return error.to_string(),
            };
            let read_us = unix_us();
            let Ok(info) = message.info() else { return "a message of no stream".into() };
            let stored_us = u64::try_from(info.published.unix_timestamp_nanos() / 1_000).unwrap_or(0);
            let header =
                |name: &str| message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str);
            match wire::read(header, &message.payload) {
                Ok(event) => each(Arrival { event, stored_us, read_us }),
                Err(error) => return format!("an event {error}"),
            }
        }
        "the stream's consumer ended".into()
    });
    Ok(reading)
}
