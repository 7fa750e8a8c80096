//! What the fuzz targets run, and the tests replay: bytes that drive the machine, and what must hold whatever they are.
//!
//! Owns: the invariants as assertions. Does not own: where the bytes come from.

mod model;
mod play;
mod source;

use std::sync::Arc;

use crate::{Endpoint, Limits, Output, Response, codec};

/// Target `coap_message`: raw bytes as one datagram of a stranger.
///
/// Nothing panics; what is read is written so that it is read alike; no more than three times the bytes come back; what is no
/// message leaves no trace.
pub fn message(data: &[u8]) {
    let decoded = codec::decode(data);
    if let Ok(message) = &decoded {
        let written = codec::encode(message);
        assert!(
            codec::decode(&written).as_ref() == Ok(message),
            "{message:?} is written otherwise: {written:?}"
        );
    }
    let mut endpoint = Endpoint::new(Arc::new(Limits::default()), &[1; 32]);
    let mut drawn = 0;
    // The second time it is a duplicate.
    for now in [0, 500] {
        endpoint.receive(now, &(), data);
        drawn += drain(&mut endpoint, now);
        endpoint.handle_timeout(now);
        drawn += drain(&mut endpoint, now);
    }
    assert!(drawn <= 6 * data.len(), "{drawn} bytes came of twice {}", data.len());
    if decoded.is_err() {
        assert!(endpoint.peers() == 0 && endpoint.bytes() == 0, "a trace of what is no message");
    }
}

/// Answers everything at once, with what some of it is as long as.
fn drain(endpoint: &mut Endpoint<()>, now: u64) -> usize {
    let mut drawn = 0;
    while let Some(output) = endpoint.poll() {
        match output {
            Output::Transmit { bytes, .. } => {
                assert!(codec::decode(&bytes).is_ok(), "{bytes:?} is no message");
                drawn += bytes.len();
            }
            Output::Request { exchange, request, .. } => {
                let state = if request.is_partial {
                    Response::new(crate::Code::CONTINUE)
                } else {
                    Response::new(crate::Code::CONTENT).with_payload(vec![b'x'; 40 * request.bytes])
                };
                if request.observe.is_some() {
                    endpoint.observe(now, exchange, state);
                } else {
                    endpoint.respond(now, exchange, state);
                }
            }
            _ => {}
        }
    }
    drawn
}

/// Target `coap_exchange`: the bytes choose what clients, shell and time do, step by step; a model checks every output.
pub fn exchange(data: &[u8]) {
    play::Play::new(data).run();
}

#[cfg(test)]
mod tests;
