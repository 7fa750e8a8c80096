//! CoAP messages taken apart and put together by hand (RFC 7252 section 3), apart from the gateway's codec on purpose.
//!
//! Owns: the bytes of one message. Does not own: who sends it when ([`super::CoapClient`]).

use std::fmt;

/// Message types (RFC 7252 section 3).
pub mod kind {
    /// Wants an acknowledgement.
    pub const CON: u8 = 0;
    /// Wants none.
    pub const NON: u8 = 1;
    /// An acknowledgement.
    pub const ACK: u8 = 2;
    /// A reset: what came means nothing here.
    pub const RST: u8 = 3;
}

/// Request codes.
pub mod method {
    /// GET.
    pub const GET: u8 = 1;
    /// POST.
    pub const POST: u8 = 2;
    /// PUT.
    pub const PUT: u8 = 3;
    /// DELETE.
    pub const DELETE: u8 = 4;
}

/// Option numbers.
pub mod option {
    /// RFC 7252.
    pub const URI_HOST: u16 = 3;
    /// RFC 7252.
    pub const ETAG: u16 = 4;
    /// RFC 7641.
    pub const OBSERVE: u16 = 6;
    /// RFC 7252.
    pub const LOCATION_PATH: u16 = 8;
    /// RFC 7252.
    pub const URI_PATH: u16 = 11;
    /// RFC 7252.
    pub const CONTENT_FORMAT: u16 = 12;
    /// RFC 7252.
    pub const MAX_AGE: u16 = 14;
    /// RFC 7252.
    pub const URI_QUERY: u16 = 15;
    /// RFC 7252.
    pub const ACCEPT: u16 = 17;
    /// RFC 7252.
    pub const LOCATION_QUERY: u16 = 20;
    /// RFC 7959.
    pub const BLOCK2: u16 = 23;
    /// RFC 7959.
    pub const BLOCK1: u16 = 27;
    /// RFC 7959.
    pub const SIZE2: u16 = 28;
    /// RFC 7252.
    pub const PROXY_URI: u16 = 35;
    /// RFC 7252.
    pub const SIZE1: u16 = 60;
    /// RFC 9175.
    pub const ECHO: u16 = 252;
    /// RFC 7967.
    pub const NO_RESPONSE: u16 = 258;
    /// RFC 9175.
    pub const REQUEST_TAG: u16 = 292;
}

/// A code by its class and detail: `code(2, 4)` is 2.04 Changed.
pub const fn code(class: u8, detail: u8) -> u8 {
    class << 5 | detail
}

/// The value of a Block1 or Block2 option (RFC 7959 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which block.
    pub number: u32,
    /// More follow.
    pub more: bool,
    /// Its size is 2^(this + 4), 0 to 6.
    pub exponent: u8,
}

impl Block {
    /// Bytes of a full block.
    pub fn size(self) -> usize {
        16 << self.exponent
    }

    /// The option's number.
    pub fn value(self) -> u32 {
        self.number << 4 | u32::from(self.more) << 3 | u32::from(self.exponent)
    }

    /// From the option's number; `None` for the reserved size 7.
    pub fn from_value(value: u32) -> Option<Self> {
        let exponent = u8::try_from(value & 7).ok().filter(|exponent| *exponent < 7)?;
        Some(Self { number: value >> 4, more: value & 8 != 0, exponent })
    }
}

/// A message.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Its message id.
    pub id: u16,
    /// Its token.
    pub token: Vec<u8>,
    /// Its options as numbers and values; written in ascending order, those of one number in theirs.
    pub options: Vec<(u16, Vec<u8>)>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Message {
    /// A confirmable request; the client gives it an id and a token.
    pub fn request(method: u8) -> Self {
        Self { code: method, ..Self::default() }
    }

    /// A message without code, token and payload: a ping, an empty acknowledgement or a reset.
    pub fn empty(kind: u8, id: u16) -> Self {
        Self { kind, id, ..Self::default() }
    }

    /// Non-confirmable instead.
    #[must_use]
    pub fn non(self) -> Self {
        Self { kind: kind::NON, ..self }
    }

    /// With one more option.
    #[must_use]
    pub fn option(mut self, number: u16, value: impl AsRef<[u8]>) -> Self {
        self.options.push((number, value.as_ref().to_vec()));
        self
    }

    /// With one more option that is a number, as short as it goes.
    #[must_use]
    pub fn number(self, number: u16, value: u32) -> Self {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.option(number, &bytes[zeros..])
    }

    /// With the segments of a path as Uri-Path; `a/b` has two, the empty path none.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        let segments = path.trim_start_matches('/').split('/').filter(|_| !path.is_empty());
        segments.fold(self, |message, segment| message.option(option::URI_PATH, segment))
    }

    /// With one more Uri-Query.
    #[must_use]
    pub fn query(self, query: &str) -> Self {
        self.option(option::URI_QUERY, query)
    }

    /// With each of these as Uri-Query.
    #[must_use]
    pub fn queries(self, queries: &[&str]) -> Self {
        queries.iter().fold(self, |message, query| message.query(query))
    }

    /// With this payload.
    #[must_use]
    pub fn payload(self, payload: impl AsRef<[u8]>) -> Self {
        Self { payload: payload.as_ref().to_vec(), ..self }
    }

    /// Its code as people write it: "2.04".
    pub fn code_text(&self) -> String {
        format!("{}.{:02}", self.code >> 5, self.code & 0x1f)
    }

    /// Every value of an option.
    pub fn values(&self, number: u16) -> impl Iterator<Item = &[u8]> {
        self.options.iter().filter(move |(have, _)| *have == number).map(|(_, value)| value.as_slice())
    }

    /// The first value of an option.
    pub fn value(&self, number: u16) -> Option<&[u8]> {
        self.values(number).next()
    }

    /// The first value of an option as a number; `None` also where it is longer than 4 bytes.
    pub fn uint(&self, number: u16) -> Option<u32> {
        let value = self.value(number).filter(|value| value.len() <= 4)?;
        Some(value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    /// The values of a repeated option as text, joined: `location(LOCATION_PATH, "/")`.
    pub fn joined(&self, number: u16, between: &str) -> String {
        let parts: Vec<_> = self.values(number).map(String::from_utf8_lossy).collect();
        parts.join(between)
    }

    /// Its Block1 or Block2.
    pub fn block(&self, number: u16) -> Option<Block> {
        Block::from_value(self.uint(number)?)
    }

    /// Its payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// Its bytes. What the format cannot say (a token of 20 bytes) is written as far as it goes: for bad messages there are
    /// raw bytes.
    pub fn encode(&self) -> Vec<u8> {
        let token_length = u8::try_from(self.token.len()).expect("a short token");
        let mut bytes = vec![0x40 | self.kind << 4 | token_length & 0x0f, self.code];
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(&self.token);
        let mut options: Vec<_> = self.options.iter().collect();
        options.sort_by_key(|(number, _)| *number);
        let mut last = 0;
        for (number, value) in options {
            let (delta, delta_more) = nibble(usize::from(number - last));
            let (length, length_more) = nibble(value.len());
            bytes.push(delta << 4 | length);
            bytes.extend(delta_more);
            bytes.extend(length_more);
            bytes.extend(value);
            last = *number;
        }
        if !self.payload.is_empty() {
            bytes.push(0xff);
            bytes.extend(&self.payload);
        }
        bytes
    }

    /// Takes a message apart, strictly.
    ///
    /// # Errors
    /// What of RFC 7252 section 3 or 4.1 it breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let [first, code, high, low, rest @ ..] = bytes else { return Err("shorter than a header".into()) };
        if first >> 6 != 1 {
            return Err(format!("version {}", first >> 6));
        }
        let kind = first >> 4 & 3;
        let id = u16::from_be_bytes([*high, *low]);
        let token_length = usize::from(first & 0x0f);
        if token_length > 8 {
            return Err(format!("a token of {token_length} bytes"));
        }
        let (token, rest) = rest.split_at_checked(token_length).ok_or("a token that is cut")?;
        if *code == 0 && !bytes[4..].is_empty() {
            return Err("an empty message with something in it".into());
        }
        if !matches!(code >> 5, 0 | 2 | 4 | 5) {
            return Err(format!("code of the reserved class {}", code >> 5));
        }
        let (options, payload) = parts(rest)?;
        Ok(Self { kind, code: *code, id, token: token.to_vec(), options, payload })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = ["CON", "NON", "ACK", "RST"][usize::from(self.kind & 3)];
        write!(f, "{kind} {} id {} token {:02x?}", self.code_text(), self.id, self.token)?;
        for (number, value) in &self.options {
            write!(f, " {number}={:?}", String::from_utf8_lossy(value))?;
        }
        write!(f, " {:?}", self.text())
    }
}

/// A delta or length as its four bits and the bytes that follow.
fn nibble(value: usize) -> (u8, Vec<u8>) {
    match value {
        0..13 => (u8::try_from(value).expect("below 13"), Vec::new()),
        13..269 => (13, vec![u8::try_from(value - 13).expect("below 256")]),
        _ => (14, u16::try_from(value - 269).expect("an option fits a datagram").to_be_bytes().to_vec()),
    }
}

type Parts = (Vec<(u16, Vec<u8>)>, Vec<u8>);

fn parts(mut rest: &[u8]) -> Result<Parts, String> {
    let mut options = Vec::new();
    let mut number = 0_u16;
    while let [first, more @ ..] = rest {
        if *first == 0xff {
            if more.is_empty() {
                return Err("a payload marker without a payload".into());
            }
            return Ok((options, more.to_vec()));
        }
        let (delta, more) = extended(first >> 4, more)?;
        let (length, more) = extended(first & 0x0f, more)?;
        let (value, more) = more.split_at_checked(length).ok_or("an option that is cut")?;
        number = u16::try_from(delta)
            .ok()
            .and_then(|delta| number.checked_add(delta))
            .ok_or("an option above 65535")?;
        options.push((number, value.to_vec()));
        rest = more;
    }
    Ok((options, Vec::new()))
}

fn extended(nibble: u8, rest: &[u8]) -> Result<(usize, &[u8]), String> {
    match (nibble, rest) {
        (0..13, rest) => Ok((usize::from(nibble), rest)),
        (13, [byte, rest @ ..]) => Ok((usize::from(*byte) + 13, rest)),
        (14, [high, low, rest @ ..]) => Ok((usize::from(u16::from_be_bytes([*high, *low])) + 269, rest)),
        (15, _) => Err("an option header of 15".into()),
        _ => Err("an option header that is cut".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_written_so() {
        // RFC 7252 appendix A, figure 16: GET /temperature without a token, message id 0x7d34.
        let mut get = Message::request(method::GET).path("temperature");
        get.id = 0x7d34;
        assert_eq!(get.encode(), b"\x40\x01\x7d\x34\xbbtemperature");
        // Figure 16 again: the piggybacked 2.05.
        let answer = Message::decode(b"\x60\x45\x7d\x34\xff22.3 C").unwrap();
        assert_eq!((answer.kind, answer.code, answer.id), (kind::ACK, code(2, 5), 0x7d34));
        assert_eq!((answer.code_text().as_str(), answer.text().as_str()), ("2.05", "22.3 C"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut message = Message::request(method::POST)
            .path("a/b c//d")
            .queries(&["ep=x", ""])
            .number(option::NO_RESPONSE, 26)
            .number(option::BLOCK1, Block { number: 70_000, more: true, exponent: 6 }.value())
            .number(option::OBSERVE, 0)
            .option(option::PROXY_URI, [7; 700])
            .option(option::ECHO, [1; 13])
            .payload("text");
        message.token = b"12345678".to_vec();
        let read = Message::decode(&message.encode()).unwrap();
        message.options.sort_by_key(|(number, _)| *number);
        assert_eq!(read, message);
        assert_eq!(read.joined(option::URI_PATH, "/"), "a/b c//d");
        assert_eq!(read.block(option::BLOCK1), Some(Block { number: 70_000, more: true, exponent: 6 }));
        assert_eq!(read.uint(option::OBSERVE), Some(0));
        assert_eq!(Message::request(1).path("").options, []);
    }

    #[test]
    fn what_is_malformed_is_told() {
        for (bytes, problem) in [
            (&b"\x40\x01\x00"[..], "header"),
            (b"\x80\x01\x00\x00", "version 2"),
            (b"\x49\x01\x00\x00123456789", "token of 9"),
            (b"\x42\x01\x00\x001", "token that is cut"),
            (b"\x41\x00\x00\x001", "empty message"),
            (b"\x40\x00\x00\x00\xffx", "empty message"),
            (b"\x40\x21\x00\x00", "reserved class 1"),
            (b"\x40\xe1\x00\x00", "reserved class 7"),
            (b"\x40\x01\x00\x00\xff", "marker"),
            (b"\x40\x01\x00\x00\xf0", "header of 15"),
            (b"\x40\x01\x00\x00\xd0", "header that is cut"),
            (b"\x40\x01\x00\x00\x15abc", "option that is cut"),
            (b"\x40\x01\x00\x00\xe0\xff\xff", "above 65535"),
        ] {
            let error = Message::decode(bytes).unwrap_err();
            assert!(error.contains(problem), "{error} for {bytes:02x?}");
        }
    }
}
