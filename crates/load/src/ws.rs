//! WebSocket under MQTT (RFC 6455; MQTT 5 section 6), a client's side: a stream of bytes in binary frames.
//!
//! Owns: the upgrade's texts, frames. Does not own: the socket.

use std::io;

use bytes::{Buf as _, BufMut as _, BytesMut};

/// A payload behind a mask of zeros is the payload: the generator's time is not what is measured.
const MASK: [u8; 4] = [0; 4];
const BINARY: u8 = 0x82;
const PING: u8 = 9;
const CLOSE: u8 = 8;

/// The request for an upgrade.
pub(crate) fn request(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: bGFuZGZhbGwtbG9hZC0wMA==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
}

/// Takes the answer out of `input` once it is complete.
pub(crate) fn take_answer(input: &mut BytesMut) -> io::Result<bool> {
    let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let status = input.get(..12).unwrap_or_default();
    if status != b"HTTP/1.1 101" {
        let line = String::from_utf8_lossy(input.get(..end).unwrap_or_default());
        let line = line.lines().next().unwrap_or_default().to_owned();
        return Err(io::Error::other(format!("the server does not upgrade: {line}")));
    }
    input.advance(end + 4);
    Ok(true)
}

/// Appends `content` as one frame.
pub(crate) fn put_frame(out: &mut BytesMut, first: u8, content: &[u8]) {
    out.put_u8(first);
    match u16::try_from(content.len()) {
        Ok(length) if length < 126 => out.put_u8(0x80 | u8::try_from(length).unwrap_or(0)),
        Ok(length) => {
            out.put_u8(0x80 | 126);
            out.put_u16(length);
        }
        Err(_) => {
            out.put_u8(0x80 | 127);
            out.put_u64(u64::try_from(content.len()).unwrap_or(u64::MAX));
        }
    }
    out.put_slice(&MASK);
    out.put_slice(content);
}

/// Appends MQTT's bytes as one binary frame.
pub(crate) fn put_binary(out: &mut BytesMut, content: &[u8]) {
    put_frame(out, BINARY, content);
}

/// Takes the complete frames out of `raw` and appends their contents to `input`; pongs that are due go to `out`.
pub(crate) fn take_frames(raw: &mut BytesMut, input: &mut BytesMut, out: &mut BytesMut) -> io::Result<()> {
    while let Some((head, length)) = frame(raw) {
        let opcode = raw.first().copied().unwrap_or_default() & 0x0f;
        let content = raw.get(head..head + length).unwrap_or_default();
        match opcode {
            PING => put_frame(out, 0x8a, content),
            CLOSE => return Err(io::Error::other("the server closed the WebSocket")),
            0..=2 => input.put_slice(content),
            _ => {}
        }
        raw.advance(head + length);
    }
    Ok(())
}

/// The lengths of the first frame's header and content, if all of it is there. A server does not mask.
fn frame(raw: &[u8]) -> Option<(usize, usize)> {
    let (head, length): (usize, usize) = match raw.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*raw.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*raw.get(2..)?.first_chunk()?)).ok()?),
        length => (2, usize::from(length)),
    };
    (raw.len() >= head.checked_add(length)?).then_some((head, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_their_length_in_three_forms() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut out = BytesMut::new();
            put_binary(&mut out, &vec![7; length]);
            assert_eq!(out.len(), head + 4 + length);
            // What a server would send: the same without the mask.
            let mut raw = BytesMut::from(&out[..head]);
            raw[1] &= 0x7f;
            raw.extend_from_slice(&out[head + 4..]);
            let (mut input, mut answers) = (BytesMut::new(), BytesMut::new());
            let last = raw.split_off(raw.len().saturating_sub(1));
            take_frames(&mut raw, &mut input, &mut answers).unwrap();
            assert!(input.is_empty(), "not complete");
            raw.unsplit(last);
            take_frames(&mut raw, &mut input, &mut answers).unwrap();
            assert_eq!((input.len(), raw.len(), answers.len()), (length, 0, 0));
        }
    }

    #[test]
    fn a_ping_is_answered_and_a_close_is_the_end() {
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        let mut raw = BytesMut::from(&b"\x89\x02hi\x82\x01x"[..]);
        take_frames(&mut raw, &mut input, &mut out).unwrap();
        assert_eq!((&input[..], &out[..]), (&b"x"[..], &b"\x8a\x82\0\0\0\0hi"[..]));
        assert!(take_frames(&mut BytesMut::from(&b"\x88\x00"[..]), &mut input, &mut out).is_err());
    }

    #[test]
    fn an_upgrade_is_taken_or_not() {
        let mut input = BytesMut::from(&b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x82"[..]);
        assert!(take_answer(&mut input).unwrap());
        assert_eq!(&input[..], b"\x82");
        assert!(!take_answer(&mut BytesMut::from(&b"HTTP/1.1 101"[..])).unwrap());
        let error = take_answer(&mut BytesMut::from(&b"HTTP/1.1 404 Not Found\r\n\r\n"[..])).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
