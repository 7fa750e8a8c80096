//! What the gateway asks NATS about itself.
//!
//! Owns: whether the connection stands, and how far epochs have risen. Does not own: readiness as a whole.

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use landfall_event::subject::{CONNECTED_ALL, stream_name};
use landfall_event::{Epoch, Stream};
use landfall_hub::StoreError;
use serde::Deserialize;

/// The header that carries the epoch where the body is not JSON.
const EPOCH_HEADER: &str = "Landfall-Epoch";

/// Questions to NATS, over a client that connects again by itself.
#[derive(Clone, Debug)]
pub struct Health {
    client: Client,
}

#[derive(Deserialize)]
struct HasEpoch {
    epoch: u64,
}

impl Health {
    /// Asks over `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// True while the client is connected.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The epoch of the newest `connected` in the connectivity stream, of any instance. Epochs rise with time, so one that
    /// starts above it keeps rising even when the wall clock has been set back. `None` when there is none.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn last_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        let context = jetstream::new(self.client.clone());
        let refused = |why: String| StoreError::Refused(why);
        let stream = context.get_stream_no_info(stream_name(Stream::Connectivity)).await;
        let stream = stream.map_err(|error| refused(error.to_string()))?;
        match stream.get_last_raw_message_by_subject(CONNECTED_ALL).await {
            Ok(message) => {
                let header = message.headers.get(EPOCH_HEADER).and_then(|value| value.as_str().parse().ok());
                let body =
                    || serde_json::from_slice::<HasEpoch>(&message.payload).ok().map(|body| body.epoch);
                Ok(header.or_else(body).map(Epoch))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(refused(error.to_string())),
        }
    }
}
