//! What the fuzz target runs, and the tests replay: bytes as a datagram, and as a play of signed numbers.
//!
//! Owns: the invariants as assertions. Does not own: where the bytes come from.

use std::io::Write as _;

use landfall_event::CommandId;

use crate::line::{Line, MAX_LINE, MAX_SECONDS, escape};
use crate::replay::{Novelty, Replay};

/// Target `udp_line`: the bytes are a datagram, and after that a play of numbers.
///
/// Nothing panics; what is read is within its bounds; written anew, it is read as the same; a signature covers everything
/// but itself; no number is new twice.
pub fn line(data: &[u8]) {
    datagram(data);
    // Most inputs are no line at all: the same bytes behind a good beginning reach the words.
    datagram(&[b"LF1 a ", data].concat());
    numbers(data);
}

fn datagram(bytes: &[u8]) {
    let Ok(line) = Line::parse(bytes) else { return };
    assert!(bytes.ends_with(line.payload), "the payload is the end of the datagram");
    let header = bytes.len() - line.payload.len();
    assert!(header <= MAX_LINE + 1, "the line is {header} bytes long");
    for seconds in [line.heartbeat, line.sleep].into_iter().flatten() {
        assert!((1..=MAX_SECONDS).contains(&seconds));
    }
    assert_ne!(line.seq, Some(0));
    if let Some(signed) = &line.signed {
        let [before, behind] = signed.covered();
        assert_eq!(bytes.len() - before.len() - behind.len(), " sig=".len() + 64);
        let unsigned = [before, behind].concat();
        let without = Line { signed: None, ..line.clone() };
        assert_eq!(Line::parse(&unsigned).as_ref(), Ok(&without));
    }
    let written = write(&line);
    // Escaping may need more bytes than the line had.
    if written.len() - line.payload.len() <= MAX_LINE + 1 {
        let again = Line::parse(&written);
        assert_eq!(again.map(|again| Line { signed: None, ..again }), Ok(Line { signed: None, ..line }));
    }
}

/// The line anew, without its signature.
fn write(line: &Line<'_>) -> Vec<u8> {
    let mut out = b"LF1 ".to_vec();
    escape(line.device.as_str().as_bytes(), &mut out);
    if let Some(tenant) = &line.tenant {
        out.push(b'@');
        escape(tenant.as_str().as_bytes(), &mut out);
    }
    let answer = line.answer.as_ref();
    let texts = [
        ("got", line.got.as_ref().map(CommandId::as_str)),
        ("res", answer.map(|answer| answer.command.as_str())),
        ("status", answer.and_then(|answer| answer.status.as_deref())),
    ];
    for (word, value) in texts {
        if let Some(value) = value {
            assert!(write!(out, " {word}=").is_ok());
            escape(value.as_bytes(), &mut out);
        }
    }
    if let Some(key) = &line.key {
        out.extend_from_slice(b" key=");
        for byte in key.expose() {
            assert!(write!(out, "%{byte:02x}").is_ok());
        }
    }
    let numbers =
        [("seq", line.seq), ("hb", line.heartbeat.map(u64::from)), ("sleep", line.sleep.map(u64::from))];
    for (word, value) in numbers {
        if let Some(value) = value {
            assert!(write!(out, " {word}={value}").is_ok());
        }
    }
    for (word, is_set) in [("ack", line.ack), ("bye", line.bye)] {
        if is_set {
            assert!(write!(out, " {word}").is_ok());
        }
    }
    out.push(b'\n');
    out.extend_from_slice(line.payload);
    out
}

/// Each byte is a small number, who signs it, and what becomes of it.
fn numbers(data: &[u8]) {
    let mut replay = Replay::default();
    // The newest number with its signature, whether it was given back, and when it first came.
    let mut newest = (0, [0; 32], false, 0);
    for (now, byte) in (0..).zip(data) {
        let seq = u64::from(byte & 0x0f) + 1;
        let mac = [0x10 * (byte >> 7); 32];
        let is_same = (seq, mac) == (newest.0, newest.1);
        match replay.check(seq, &mac, now, 20) {
            Novelty::New => {
                assert!(seq > newest.0, "{seq} is new after {}", newest.0);
                newest.3 = now;
            }
            Novelty::Retry => assert!(is_same && newest.2 && now - newest.3 < 20),
            Novelty::Again { .. } => {
                assert!(is_same && !newest.2);
                continue;
            }
            Novelty::Stale => {
                let is_late = newest.2 && now - newest.3 >= 20;
                assert!(seq < newest.0 || (seq == newest.0 && (mac != newest.1 || is_late)));
                continue;
            }
        }
        newest = (seq, mac, byte >> 4 & 0b11 == 0, newest.3);
        match byte >> 4 & 0b11 {
            0 => replay.give_back(seq),
            1 => replay.settle(seq),
            _ => replay.settle(seq.wrapping_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests;
