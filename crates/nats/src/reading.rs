//! Reading what a stream holds now.
//!
//! Owns: a consumer for the moment, page after page, without a gap. Does not own: what the messages mean.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::Stream;
use async_nats::{Error, Message};
use futures_util::StreamExt;

/// Messages that are asked for at once.
const PAGE: usize = 512;
/// When the server forgets a consumer of a reader that has gone.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Hands everything that the stream holds from `from` on to `each`, in order, with its place in the stream.
pub(crate) async fn read(
    stream: &Stream<()>,
    from: DeliverPolicy,
    headers_only: bool,
    mut each: impl FnMut(u64, Message),
) -> Result<(), Error> {
    let config = pull::Config {
        deliver_policy: from,
        ack_policy: AckPolicy::None,
        headers_only,
        inactive_threshold: FORGET_AFTER,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut count = 0;
    loop {
        let mut page = consumer.fetch().max_messages(PAGE).messages().await?;
        let before = count;
        while let Some(message) = page.next().await {
            let message = message?;
            let info = message.info()?;
            count += 1;
            if info.consumer_sequence != count {
                return Err("a message was lost on the way".into());
            }
            each(info.stream_sequence, message.message);
        }
        if count == before {
            break;
        }
    }
    // It would be forgotten by itself.
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    Ok(())
}
