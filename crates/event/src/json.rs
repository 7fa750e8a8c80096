//! Events as JSON, the default body; and their fields as NATS headers, where the body is something else.
//!
//! Owns: which event carries which fields, and in what order. Does not own: how texts and payloads are
//! escaped (`write`, `payload`), reading ([`wire`]).
//!
//! The writer is on the path of every message: it writes once, forwards, into one buffer of estimated size.

mod fields;
mod payload;
pub mod wire;
mod write;

use bytes::Bytes;

pub use payload::{MAX_DEPTH, MAX_JSON_PAYLOAD, PayloadEncoding};
pub use wire::decode;
pub use write::one_line;

use crate::{Encoded, Event, Occasion, Upstream};
use write::{Headers, JsonObject};
pub(crate) use write::{escape_header, unescape_header};

/// What the fields of any event take at most, besides its free texts and its payload.
const FIXED_FIELDS: usize = 768;

/// Writes an event as one JSON object: its head first, then its own fields.
pub fn encode(occasion: &Occasion<'_>, event: &Event) -> Bytes {
    let mut object = JsonObject::with_capacity(estimate(event));
    fields::event(&mut object, occasion, event);
    match event {
        Event::Upstream(upstream) => object.payload(&crate::field::PAYLOAD, &upstream.payload),
        Event::Downstream(downstream) => {
            if let Some(response) = &downstream.response {
                object.payload(&crate::field::RESPONSE, response);
            }
        }
        _ => {}
    }
    object.finish()
}

/// The payload untouched as the body, everything else as `Landfall-*` headers.
pub fn encode_raw_upstream(occasion: &Occasion<'_>, upstream: &Upstream) -> Encoded {
    let mut headers = Headers::default();
    fields::upstream(&mut headers, occasion, upstream);
    Encoded { body: upstream.payload.clone(), headers: headers.finish() }
}

/// All fields of an event that has no payload, as `Landfall-*` headers.
pub(crate) fn headers(occasion: &Occasion<'_>, event: &Event) -> Vec<(&'static str, String)> {
    let mut headers = Headers::default();
    fields::event(&mut headers, occasion, event);
    headers.finish()
}

/// Bytes that the event probably takes: too little costs one more allocation, too much is held for as long as the
/// event waits for the store.
fn estimate(event: &Event) -> usize {
    let payload = |bytes: &Bytes| bytes.len() + bytes.len() / 8;
    FIXED_FIELDS
        + match event {
            Event::Upstream(upstream) => {
                let publish = upstream.publish.as_ref().map_or(0, |publish| publish.weight());
                upstream.topic.len() + publish + payload(&upstream.payload)
            }
            Event::Downstream(downstream) => downstream.response.as_ref().map_or(0, payload),
            Event::Disconnected(disconnected) => disconnected.ended.len() * FIXED_FIELDS,
            Event::Connected(_)
            | Event::Moved(_)
            | Event::Dormant(_)
            | Event::Awake(_)
            | Event::Refused(_)
            | Event::Service(_) => 0,
            Event::Dropped(dropped) => dropped.gaps.len() * 96,
        }
}
