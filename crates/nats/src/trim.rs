//! Freeing room in the streams of events, without taking what a repair would read.
//!
//! Owns: how far a stream may be trimmed. Does not own: who asks for it.
//!
//! A purge makes room also where the store is full, since it writes nothing. Of the ledger only what every checkpoint has behind
//! it goes: so who is present stays known.

use async_nats::Client;
use async_nats::datetime;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::State;
use futures_util::StreamExt as _;
use landfall_event::subject::stream_name;
use landfall_event::{Stream, UnixMs};

use crate::checkpoint;
use crate::desk::{Desk, Failure};

/// What a trim has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Messages that are gone.
    pub messages: u64,
    /// Bytes that are free.
    pub bytes: u64,
    /// The place of the oldest message that is left, or of the next one.
    pub begins_at: u64,
    /// What was older stays: a repair of some gateway would read it.
    pub is_held: bool,
}

/// Forgets what the stream stored before the moment.
///
/// # Errors
/// When JetStream does not answer, or there is no such stream.
pub async fn trim(client: Client, stream: Stream, before: UnixMs) -> Result<Trimmed, Failure> {
    let desk = Desk::new(client);
    let state = state(&desk, stream).await?;
    let wanted = first_since(&desk, stream, before, &state).await?;
    let held = match stream {
        Stream::Connectivity => checkpoint::lowest(&desk).await?,
        Stream::Messages | Stream::Access => None,
    };
    // A repair reads behind that place.
    let most = held.map_or(u64::MAX, |behind| behind.saturating_add(1));
    let first = wanted.min(most);
    if first > state.first_sequence {
        desk.purge_below(stream_name(stream), first).await?;
    }
    let left = self::state(&desk, stream).await?;
    Ok(Trimmed {
        messages: state.messages.saturating_sub(left.messages),
        bytes: state.bytes.saturating_sub(left.bytes),
        begins_at: left.first_sequence,
        is_held: wanted > most,
    })
}

async fn state(desk: &Desk, stream: Stream) -> Result<State, Failure> {
    let name = stream_name(stream);
    Ok(desk.info(name).await?.ok_or(Failure::Missing(name))?.state)
}

/// The place of the first message that was stored at the moment or later; behind the newest if there is none.
async fn first_since(desk: &Desk, stream: Stream, at: UnixMs, state: &State) -> Result<u64, Failure> {
    let start_time = datetime::from_nanos(i128::from(at).saturating_mul(1_000_000)).map_err(Failure::away)?;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartTime { start_time },
        ack_policy: AckPolicy::None,
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let stream = desk.stream(stream_name(stream)).await?;
    let consumer = stream.create_consumer(config).await.map_err(Failure::away)?;
    let mut page = consumer.fetch().max_messages(1).messages().await.map_err(Failure::away)?;
    let first = match page.next().await {
        Some(message) => message.map_err(Failure::away)?.info().map_err(Failure::away)?.stream_sequence,
        None => state.last_sequence.saturating_add(1),
    };
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    Ok(first)
}
