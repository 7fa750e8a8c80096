//! Reading what a stream holds now.
//!
//! Owns: a consumer for the moment, page after page, without a gap. Does not own: what the messages mean.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::Stream;
use async_nats::{Error, Message, datetime};
use futures_util::StreamExt;
use landfall_event::UnixMs;
use tokio::time::timeout;

/// Messages that are asked for at once, as long as they are small.
const PAGE: usize = 512;
/// The same where they are not: a server gives up a reader for which more than 64 MB wait.
const LARGE_PAGE: usize = 16;
/// Bytes of a small one.
const SMALL: usize = 16 << 10;
/// When the server forgets a consumer of a reader that has gone.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// How long the server may be silent in the middle of a page: a lost request has no other sign.
const SILENCE: Duration = Duration::from_secs(5);

/// What is read of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    from: DeliverPolicy,
    subjects: Vec<String>,
    before: u64,
    headers_only: bool,
}

impl Selection {
    /// Everything that the stream holds now, from `from` on.
    pub(crate) fn from(from: DeliverPolicy) -> Self {
        Self { from, subjects: Vec::new(), before: u64::MAX, headers_only: false }
    }

    /// Everything behind this place.
    pub(crate) fn behind(place: u64) -> Self {
        Self::from(DeliverPolicy::ByStartSequence { start_sequence: place.saturating_add(1) })
    }

    /// Of these subjects only.
    pub(crate) fn of(self, subjects: Vec<String>) -> Self {
        Self { subjects, ..self }
    }

    /// Nothing that stands at this place or behind it.
    pub(crate) fn before(self, before: u64) -> Self {
        Self { before, ..self }
    }

    /// Without the bodies.
    pub(crate) fn headers_only(self) -> Self {
        Self { headers_only: true, ..self }
    }
}

/// Where and when a stream has stored a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// Its place.
    pub(crate) place: u64,
    /// When, by the server's clock.
    pub(crate) time: UnixMs,
}

/// A time that the server says; 0 before 1970.
pub(crate) fn unix_ms(time: datetime::DateTime) -> UnixMs {
    UnixMs::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// Hands what is selected to `each`, in order.
///
/// # Errors
/// When the server falls silent or goes away before the end: what was handed out is then only the beginning.
pub(crate) async fn read(
    stream: &Stream<()>,
    selection: Selection,
    mut each: impl FnMut(At, Message),
) -> Result<(), Error> {
    let Selection { from, subjects, before, headers_only } = selection;
    let config = pull::Config {
        deliver_policy: from,
        filter_subjects: subjects,
        ack_policy: AckPolicy::None,
        headers_only,
        inactive_threshold: FORGET_AFTER,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let (mut count, mut most) = (0, if headers_only { PAGE } else { LARGE_PAGE });
    'pages: loop {
        let mut page = consumer.fetch().max_messages(most).messages().await?;
        let (already, mut largest) = (count, 0);
        while let Some(message) = timeout(SILENCE, page.next()).await? {
            let message = message?;
            let info = message.info()?;
            count += 1;
            largest = largest.max(message.payload.len());
            if info.consumer_sequence != count {
                return Err("a message was lost on the way".into());
            }
            let place = info.stream_sequence;
            if place >= before {
                break 'pages;
            }
            each(At { place, time: unix_ms(info.published) }, message.message);
            if place.saturating_add(1) >= before {
                break 'pages;
            }
        }
        // What comes next is as large as what came, or some of it is.
        most = if largest > SMALL { LARGE_PAGE } else { PAGE.min(most * 4) };
        if count == already {
            // A connection that was lost ends a page too, so the end is what the server says.
            if consumer.get_info().await?.delivered.consumer_sequence != count {
                return Err("the end was lost on the way".into());
            }
            break;
        }
    }
    // It would be forgotten by itself.
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    Ok(())
}
