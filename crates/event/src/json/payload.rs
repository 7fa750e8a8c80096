//! Embedding a payload in an event: as the JSON value it is, as text, or as Base64.
//!
//! Owns: which of the three, and the proof that a payload is a JSON value that cannot break the event around it. Does
//! not own: anything a payload means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::write;

/// The deepest nesting of a payload that is embedded as JSON: half of what common parsers bear, as the event adds one.
pub const MAX_DEPTH: usize = 64;

/// The most bytes of a payload that is embedded as JSON; a larger one is told as text or Base64.
pub const MAX_JSON_PAYLOAD: usize = 1 << 20;

/// The most bytes of a text that is told as text whatever it holds. A larger one that is more than a fifth control
/// characters would grow up to sixfold as a JSON string, and past what the bus takes: it is told as Base64.
const MAX_ESCAPED: usize = 4096;

/// Digits from which a number without an exponent may exceed a double.
const LONG_NUMBER: usize = 300;

/// How a payload or a response stands in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadEncoding {
    /// The value itself, byte for byte, without the white space around it.
    Json,
    /// A string that holds the text.
    Utf8,
    /// A string that holds the bytes as Base64 (RFC 4648, section 4, with padding).
    Base64,
    /// Not in the event: it is the message's body.
    Raw,
}

impl PayloadEncoding {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Utf8 => "utf8",
            Self::Base64 => "base64",
            Self::Raw => "raw",
        }
    }
}

/// Appends the payload as one JSON value.
pub(super) fn embed(out: &mut Vec<u8>, payload: &[u8]) -> PayloadEncoding {
    let Ok(text) = std::str::from_utf8(payload) else {
        base64(out, payload);
        return PayloadEncoding::Base64;
    };
    match json_value(text) {
        Some(value) => {
            out.extend_from_slice(value.as_bytes());
            PayloadEncoding::Json
        }
        None if text.len() > MAX_ESCAPED && escapes(text) * 5 > text.len() => {
            base64(out, payload);
            PayloadEncoding::Base64
        }
        None => {
            write::string(out, text);
            PayloadEncoding::Utf8
        }
    }
}

/// Control characters, each of which a JSON string writes as six.
fn escapes(text: &str) -> usize {
    text.bytes().filter(|byte| *byte < 0x20).count()
}

fn base64(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + payload.len().div_ceil(3) * 4, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = STANDARD.encode_slice(payload, room).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// The text without white space around it, if it is exactly one JSON value (RFC 8259) that any parser takes: no lone
/// surrogate, no number beyond a double, not too deep, not too long.
fn json_value(text: &str) -> Option<&str> {
    let value = text.trim_matches([' ', '\t', '\n', '\r']);
    if value.len() > MAX_JSON_PAYLOAD {
        return None;
    }
    let mut scanner = Scanner { bytes: value.as_bytes(), at: 0 };
    scanner.document().filter(|()| scanner.at == value.len()).map(|()| value)
}

/// Walks over JSON text without building anything. Each step returns `None` where the text is not JSON.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What the scanner expects behind the token it took.
enum Next {
    /// A value has ended.
    Done,
    /// An object or array was opened, and its first member follows.
    Value,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.take()? == wanted).then_some(())
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// One value, without recursion: `open` has a bit per level, set where the level is an object.
    fn document(&mut self) -> Option<()> {
        let (mut open, mut depth) = (0_u64, 0_usize);
        loop {
            self.skip_space();
            if let Next::Value = self.value(&mut open, &mut depth)? {
                continue;
            }
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.skip_space();
                let object = open & 1 == 1;
                match (self.take()?, object) {
                    (b',', true) => {
                        self.member_name()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => {
                        open >>= 1;
                        depth -= 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn value(&mut self, open: &mut u64, depth: &mut usize) -> Option<Next> {
        match self.take()? {
            b'"' => self.string()?,
            b't' => self.word(b"rue")?,
            b'f' => self.word(b"alse")?,
            b'n' => self.word(b"ull")?,
            b'-' | b'0'..=b'9' => {
                self.at -= 1;
                self.number()?;
            }
            opening @ (b'{' | b'[') => {
                let object = opening == b'{';
                if *depth == MAX_DEPTH {
                    return None;
                }
                self.skip_space();
                if self.peek()? == if object { b'}' } else { b']' } {
                    self.at += 1;
                    return Some(Next::Done);
                }
                *open = (*open << 1) | u64::from(object);
                *depth += 1;
                if object {
                    self.member_name()?;
                }
                return Some(Next::Value);
            }
            _ => return None,
        }
        Some(Next::Done)
    }

    fn member_name(&mut self) -> Option<()> {
        self.skip_space();
        self.expect(b'"')?;
        self.string()?;
        self.skip_space();
        self.expect(b':')
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        rest.iter().try_for_each(|byte| self.expect(*byte))
    }

    /// The rest of a string, behind its opening quote. The text is UTF-8 already.
    fn string(&mut self) -> Option<()> {
        loop {
            match self.take()? {
                b'"' => return Some(()),
                b'\\' => match self.take()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => self.unicode_escape()?,
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    /// Four digits, and a second escape where the first is the upper half of a surrogate pair.
    fn unicode_escape(&mut self) -> Option<()> {
        match self.hex4()? {
            0xd800..=0xdbff => {
                self.expect(b'\\')?;
                self.expect(b'u')?;
                matches!(self.hex4()?, 0xdc00..=0xdfff).then_some(())
            }
            0xdc00..=0xdfff => None,
            _ => Some(()),
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |sum, _| Some(sum * 16 + char::from(self.take()?).to_digit(16)?))
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if !exponent && self.at - start < LONG_NUMBER {
            return Some(());
        }
        let text = std::str::from_utf8(self.bytes.get(start..self.at)?).ok()?;
        text.parse::<f64>().ok()?.is_finite().then_some(())
    }
}
