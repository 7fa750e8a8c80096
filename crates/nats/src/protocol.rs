//! The NATS client protocol, as far as publishing needs it: what the server says, and a publish with headers.
//!
//! Owns: the bytes, both ways. Does not own: the connection ([`crate::line`]), what the headers say ([`crate::message`]).
//!
//! Source: NATS client protocol (`INFO`, `CONNECT`, `SUB`, `HPUB`, `MSG`, `HMSG`, `PING`, `PONG`, `+OK`, `-ERR`), headers in the
//! form of ADR-4.

use bytes::{BufMut, BytesMut};

/// The longest line that is taken; `INFO` of a large cluster is the longest there is.
const LONGEST_LINE: usize = 256 << 10;
/// The largest message that is taken: acknowledgements are all that comes.
const LARGEST_MESSAGE: usize = 1 << 20;

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerOp<'a> {
    /// What it is, in JSON.
    Info(&'a [u8]),
    /// A message for this connection; `status` is that of a message without a sender, such as 503.
    Message {
        /// Where it was sent.
        subject: &'a [u8],
        /// From the header's first line.
        status: Option<u16>,
        /// Without the headers.
        body: &'a [u8],
    },
    Ping,
    Pong,
    Ok,
    /// A complaint, after most of which it closes the connection.
    Error(&'a [u8]),
}

/// What came is not the NATS protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what it says is not the NATS protocol")]
pub(crate) struct Garbled;

/// Reads the first operation of `input`, and how many bytes it takes; `None` when it is not all there.
pub(crate) fn read(input: &[u8]) -> Result<Option<(ServerOp<'_>, usize)>, Garbled> {
    let Some(end) = input.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        return if input.len() < LONGEST_LINE { Ok(None) } else { Err(Garbled) };
    };
    let (line, taken) = (input.get(..end).ok_or(Garbled)?, end + 1);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (word, rest) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(at) => line.split_at_checked(at).ok_or(Garbled)?,
        None => (line, &b""[..]),
    };
    let rest = rest.trim_ascii();
    let op = match word {
        b"MSG" | b"HMSG" => return read_message(word.len() == 4, rest, input, taken),
        b"INFO" => ServerOp::Info(rest),
        b"PING" => ServerOp::Ping,
        b"PONG" => ServerOp::Pong,
        b"+OK" => ServerOp::Ok,
        b"-ERR" => ServerOp::Error(rest),
        _ => return Err(Garbled),
    };
    Ok(Some((op, taken)))
}

/// `subject sid [reply] [headers] total`, then the message.
fn read_message<'a>(
    with_headers: bool,
    arguments: &'a [u8],
    input: &'a [u8],
    from: usize,
) -> Result<Option<(ServerOp<'a>, usize)>, Garbled> {
    let mut words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let subject = words.next().ok_or(Garbled)?;
    let total = number(words.next_back())?;
    let headers = if with_headers { number(words.next_back())? } else { 0 };
    // The number of the subscription; a reply may stand behind it.
    words.next().ok_or(Garbled)?;
    if total > LARGEST_MESSAGE || headers > total {
        return Err(Garbled);
    }
    let end = from + total;
    let Some(ending) = input.get(end..end + 2) else { return Ok(None) };
    if ending != b"\r\n" {
        return Err(Garbled);
    }
    let head = input.get(from..from + headers).ok_or(Garbled)?;
    let body = input.get(from + headers..end).ok_or(Garbled)?;
    Ok(Some((ServerOp::Message { subject, status: status(head), body }, end + 2)))
}

fn number(word: Option<&[u8]>) -> Result<usize, Garbled> {
    std::str::from_utf8(word.ok_or(Garbled)?).ok().and_then(|text| text.parse().ok()).ok_or(Garbled)
}

/// `NATS/1.0 503 …`
fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"NATS/1.0 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The headers of one message, written once and used again.
#[derive(Debug, Default)]
pub(crate) struct HeaderBlock(Vec<u8>);

impl HeaderBlock {
    /// Begins anew.
    pub(crate) fn begin(&mut self) {
        self.0.clear();
        self.0.extend_from_slice(b"NATS/1.0\r\n");
    }

    /// Adds one; neither part may hold a line break.
    pub(crate) fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write as _;
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        // Writing to a Vec cannot fail.
        let _ = write!(self.0, "{value}");
        self.0.extend_from_slice(b"\r\n");
    }

    /// Ends it. Returns its length as NATS counts it.
    pub(crate) fn end(&mut self) -> usize {
        self.0.extend_from_slice(b"\r\n");
        self.0.len()
    }
}

/// Writes a publish: `reply` and `number` make the subject that is answered to.
pub(crate) fn put_publish(
    out: &mut BytesMut,
    (subject, reply, number): (&str, &str, u64),
    headers: &HeaderBlock,
    body: &[u8],
) {
    let HeaderBlock(headers) = headers;
    let total = headers.len() + body.len();
    let mut digits = itoa::Buffer::new();
    out.reserve(subject.len() + reply.len() + total + 64);
    out.put_slice(b"HPUB ");
    out.put_slice(subject.as_bytes());
    out.put_slice(b" ");
    out.put_slice(reply.as_bytes());
    out.put_slice(b".");
    out.put_slice(digits.format(number).as_bytes());
    out.put_slice(b" ");
    out.put_slice(digits.format(headers.len()).as_bytes());
    out.put_slice(b" ");
    out.put_slice(digits.format(total).as_bytes());
    out.put_slice(b"\r\n");
    out.put_slice(headers);
    out.put_slice(body);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(mut input: &[u8]) -> Vec<ServerOp<'_>> {
        let mut found = Vec::new();
        while let Some((op, taken)) = read(input).unwrap() {
            found.push(op);
            input = &input[taken..];
        }
        assert!(input.is_empty(), "{input:?}");
        found
    }

    #[test]
    fn what_a_server_says_is_read() {
        let said =
            b"INFO {\"a\":1} \r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Slow Consumer'\r\nMSG _INBOX.x.7 1 2\r\nhi\r\n\
            MSG _INBOX.x.8 1 reply.to 0\r\n\r\nHMSG _INBOX.x.9 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let message = |subject, status, body| ServerOp::Message { subject, status, body };
        let expected = [
            ServerOp::Info(b"{\"a\":1}"),
            ServerOp::Ping,
            ServerOp::Pong,
            ServerOp::Ok,
            ServerOp::Error(b"'Slow Consumer'"),
            message(b"_INBOX.x.7", None, b"hi"),
            message(b"_INBOX.x.8", None, b""),
            message(b"_INBOX.x.9", Some(503), b""),
        ];
        assert_eq!(all(said), expected);
    }

    #[test]
    fn what_is_not_all_there_waits_and_what_is_wrong_is_refused() {
        let whole = b"HMSG a 1 b 16 18\r\nNATS/1.0 503\r\n\r\nok\r\n";
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Ok(None), "{cut}");
        }
        for wrong in [
            "GET / HTTP/1.1\r\n",
            "MSG a 1 x\r\n",
            "MSG a\r\n",
            "MSG a 1 2\r\nlonger\r\n",
            "HMSG a 1 9 2\r\n\r\n\r\n",
        ] {
            assert_eq!(read(wrong.as_bytes()), Err(Garbled), "{wrong}");
        }
        assert_eq!(read(b"MSG a 1 99999999\r\n"), Err(Garbled), "more than an acknowledgement");
        assert_eq!(read(&vec![b'x'; LONGEST_LINE]), Err(Garbled), "a line without an end");
    }

    #[test]
    fn a_publish_is_written_as_the_protocol_says() {
        let (mut headers, mut out) = (HeaderBlock::default(), BytesMut::new());
        headers.begin();
        headers.put("Nats-Msg-Id", "a.m.1");
        assert_eq!(headers.end(), 32);
        put_publish(&mut out, ("some.where", "_INBOX.q", 12), &headers, b"body");
        let expected = "HPUB some.where _INBOX.q.12 32 36\r\nNATS/1.0\r\nNats-Msg-Id: a.m.1\r\n\r\nbody\r\n";
        assert_eq!(std::str::from_utf8(&out), Ok(expected));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&input);
        }

        #[test]
        fn nothing_behind_the_first_operation_changes_it(more in prop::collection::vec(any::<u8>(), 0..50)) {
            let first = b"MSG a 1 2\r\nhi\r\n";
            let input = [&first[..], &more].concat();
            prop_assert_eq!(read(&input), read(first));
        }
    }
}
