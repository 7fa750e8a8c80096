//! An event's message beside its body: the headers.
//!
//! Owns: writing and reading them. Does not own: what the event says, fences ([`crate::fence`]).

use std::fmt::Display;

use async_nats::{HeaderValue, Message};
use landfall_event::EventId;
use landfall_hub::StoreError;

use crate::fence::Fence;

/// The id under which a stream stores a message once.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The value of a header.
pub fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}

/// The id that an event was stored under; another program's id is none of ours.
pub(crate) fn event_id(message: &Message) -> Option<EventId> {
    header(message, MESSAGE_ID)?.parse().ok()
}

/// Hands the headers of an event to `put`: its id, so that it is stored once; the fence that it stands behind; its own.
///
/// # Errors
/// [`StoreError::Refused`] for one of its own with a line break in it.
pub(crate) fn event_headers(
    id: EventId,
    own: &[(&'static str, String)],
    fence: Option<&Fence>,
    mut put: impl FnMut(&'static str, &dyn Display),
) -> Result<(), StoreError> {
    put(MESSAGE_ID, &id);
    if let Some(fence) = fence {
        fence.guard(&mut put);
    }
    for (name, value) in own {
        if value.contains(['\r', '\n']) {
            return Err(StoreError::Refused(format!("a line break in the header {name}")));
        }
        put(name, value);
    }
    Ok(())
}
