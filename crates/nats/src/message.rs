//! An event's message beside its body: the headers.
//!
//! Owns: writing and reading them. Does not own: what the event says, fences ([`crate::fence`]).

use async_nats::header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, HeaderValue, Message};
use landfall_event::{EventId, Stream, subject};
use landfall_hub::StoreError;

use crate::fence::Fence;

/// The value of a header.
pub fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}

/// The id that an event was stored under; another program's id is none of ours.
pub(crate) fn event_id(message: &Message) -> Option<EventId> {
    header(message, NATS_MESSAGE_ID.as_ref())?.parse().ok()
}

/// The headers of an event: its id, so that it is stored once; its stream; the fence that it stands behind; its own.
///
/// # Errors
/// [`StoreError::Refused`] for one of its own with a line break in it.
pub(crate) fn event_headers(
    id: EventId,
    stream: Stream,
    own: &[(&'static str, String)],
    fence: Option<&Fence>,
) -> Result<HeaderMap, StoreError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id.to_string());
    headers.insert(NATS_EXPECTED_STREAM, subject::stream_name(stream));
    if let Some(fence) = fence {
        fence.guard(&mut headers);
    }
    for (name, value) in own {
        let value: HeaderValue =
            value.parse().map_err(|_| StoreError::Refused(format!("a line break in the header {name}")))?;
        headers.insert(*name, value);
    }
    Ok(headers)
}
