//! What the fuzz targets run, and the tests replay: bytes that drive the machine, and what must hold whatever they are.
//!
//! Owns: the invariants as assertions. Does not own: where the bytes come from.

mod client;
mod model;
mod source;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BytesMut;

use crate::{Accept, Action, Connection, Limits, Message, QoS, Verdict};

/// A CONNECT that lets what follows be read as packets of 3.1.1.
const CONNECT_V311: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01f";
/// The same of 3.1.
const CONNECT_V31: &[u8] = b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01f";
/// The same of 5.0.
const CONNECT_V5: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01f";

/// Target `mqtt_codec`: raw bytes on a fresh and on an accepted connection of each version.
///
/// Nothing panics; where the bytes are cut changes nothing; what is written is bounded by what was read; after the end
/// nothing is read.
pub fn codec(data: &[u8]) {
    for prefix in [&[][..], CONNECT_V31, CONNECT_V311, CONNECT_V5] {
        let stream = [prefix, data].concat();
        let whole = run(&stream, stream.len().max(1));
        let chunk = data.first().map_or(1, |byte| usize::from(byte % 7) + 1);
        for size in [1, chunk] {
            let cut = run(&stream, size);
            assert!(whole == cut, "cut every {size} bytes:\n{cut:?}\nwhole:\n{whole:?}");
        }
    }
}

/// Everything that came of a stream.
#[derive(Debug, PartialEq)]
struct Trace {
    actions: String,
    out: BytesMut,
    left: usize,
}

/// Feeds a stream in chunks to a machine whose shell agrees to everything at once.
fn run(stream: &[u8], chunk: usize) -> Trace {
    let limits = Limits { max_packet_size: 4_096, max_connect_size: 2_048, ..Limits::default() };
    let bound = 1_024 + 64 * stream.len() + 64 * limits.max_filters_per_packet;
    let mut conn = Connection::new(Arc::new(limits));
    let (mut input, mut out, mut actions) = (BytesMut::new(), BytesMut::new(), String::new());
    for part in stream.chunks(chunk) {
        input.extend_from_slice(part);
        loop {
            let before = input.len();
            let Some(action) = conn.poll(&mut input, &mut out) else { break };
            assert!(input.len() <= before, "input grew");
            assert!(writeln!(actions, "{action:?}").is_ok());
            agree(&mut conn, action, &mut out);
        }
        assert!(!conn.blocked(), "everything is stored at once");
    }
    assert!(out.len() <= bound, "{} bytes came of {}", out.len(), stream.len());
    if conn.is_over() {
        let left = input.len();
        input.extend_from_slice(&[0xC0, 0]);
        assert!(conn.poll(&mut input, &mut out).is_none() && input.len() == left + 2, "read after the end");
        input.truncate(0);
    }
    Trace { actions, out, left: input.len() }
}

fn agree(conn: &mut Connection, action: Action, out: &mut BytesMut) {
    match action {
        Action::Connect(_) => conn.accept(&Accept::default(), None, out),
        Action::Publish(message) => {
            if message.topic.len() <= 32 {
                let echo = Message::new(Arc::clone(&message.topic), "", message.qos);
                let _ = conn.deliver(echo, out);
            }
            conn.stored(message.token, out);
        }
        Action::Subscribe(request) => {
            let verdicts = vec![Verdict::Granted(QoS::ExactlyOnce); request.filters().count()];
            conn.subscribed(request, &verdicts, out);
        }
        Action::Disconnect(_) | Action::Fault(_) => assert!(conn.is_over()),
        Action::Unsubscribed | Action::Acknowledged(..) | Action::WindowOpened => {}
    }
}

/// Target `mqtt_session`: the bytes choose what client and shell do, packet by packet, over several connections of one
/// session; a model checks every packet that the client gets.
pub fn session(data: &[u8]) {
    model::Play::new(data).run();
}

#[cfg(test)]
mod tests;
