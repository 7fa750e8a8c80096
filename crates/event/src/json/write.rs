//! Writing: JSON text, and header values.
//!
//! Owns: escaping. Does not own: what is written ([`super::fields`]).

use std::fmt::{self, Write as _};

use super::payload;
use crate::SessionId;
use crate::field::{Field, Fields, Kind, PAYLOAD, PAYLOAD_ENCODING, RESPONSE_ENCODING};

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(nibble: u8) -> u8 {
    HEX.get(usize::from(nibble & 0x0f)).copied().unwrap_or(b'0')
}

/// What stands for a byte behind the backslash; 0 for a byte that stands for itself, `u` for `\u00XX`.
fn escape_of(byte: u8) -> u8 {
    match byte {
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        b'"' | b'\\' => byte,
        0..0x20 => b'u',
        _ => 0,
    }
}

fn must_be_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Writes a text as a JSON string (RFC 8259, section 7). Only what must be escaped is.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Nearly every text is written as it is; without a way out of the loop many bytes are looked at at once.
    if !rest.iter().fold(false, |found, byte| found | must_be_escaped(*byte)) {
        out.extend_from_slice(rest);
        out.push(b'"');
        return;
    }
    while let Some(at) = rest.iter().position(|byte| must_be_escaped(*byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else { break };
        match escape_of(*byte) {
            b'u' => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(*byte)]),
            short => out.extend_from_slice(&[b'\\', short]),
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes a JSON array, each item by `write`.
pub(super) fn array<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A JSON document on one line. In valid JSON a line break stands only between tokens, where a space does as well.
pub fn one_line(document: &[u8]) -> Vec<u8> {
    document.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// One JSON object under way.
#[derive(Debug)]
pub(super) struct JsonObject {
    out: Vec<u8>,
    first: bool,
}

impl JsonObject {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self::onto(Vec::with_capacity(bytes))
    }

    /// Appends the object to what stands in `out`.
    pub(super) fn onto(mut out: Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn label(&mut self, field: &Field) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(field.label.as_bytes());
    }

    /// A payload and, behind it, how it is embedded.
    pub(super) fn payload(&mut self, field: &Field, bytes: &[u8]) {
        self.label(field);
        let encoding = payload::embed(&mut self.out, bytes);
        let beside = if field.name == PAYLOAD.name { &PAYLOAD_ENCODING } else { &RESPONSE_ENCODING };
        self.text(beside, encoding.as_str());
    }

    /// A number in thousandths: what is negative or no number is 0, what is above 1000 is 1000.
    pub(super) fn decimal(&mut self, field: &Field, value: f64) {
        self.label(field);
        let bounded = if value > 0.0 { value.min(1_000.0) } else { 0.0 };
        self.out.extend_from_slice(((bounded * 1_000.0).round() / 1_000.0).to_string().as_bytes());
    }

    pub(super) fn into_vec(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }

    pub(super) fn finish(self) -> bytes::Bytes {
        self.into_vec().into()
    }
}

impl Fields for JsonObject {
    fn text(&mut self, field: &Field, value: &str) {
        self.label(field);
        string(&mut self.out, value);
    }

    fn number(&mut self, field: &Field, value: u64) {
        self.label(field);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn flag(&mut self, field: &Field, value: bool) {
        self.label(field);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn json(&mut self, field: &Field, value: &[u8]) {
        self.label(field);
        self.out.extend_from_slice(value);
    }
}

/// `Landfall-*` headers under way.
#[derive(Debug, Default)]
pub(super) struct Headers(Vec<(&'static str, String)>);

impl Headers {
    pub(super) fn finish(self) -> Vec<(&'static str, String)> {
        self.0
    }

    fn push(&mut self, field: &Field, value: String) {
        if field.kind != Kind::Body {
            self.0.push((field.header, value));
        }
    }
}

impl Fields for Headers {
    fn text(&mut self, field: &Field, value: &str) {
        self.push(field, escape_header(value.as_bytes()));
    }

    fn number(&mut self, field: &Field, value: u64) {
        self.push(field, itoa::Buffer::new().format(value).to_owned());
    }

    fn flag(&mut self, field: &Field, value: bool) {
        self.push(field, value.to_string());
    }

    fn json(&mut self, field: &Field, value: &[u8]) {
        self.push(field, escape_header(value));
    }
}

/// Writes a text as a header's value: printable ASCII stands for itself; everything else, `%`, and a space at either
/// end (which header parsers cut off) becomes `%XX`.
pub(crate) fn escape_header(text: &[u8]) -> String {
    let last = text.len().saturating_sub(1);
    let mut value = String::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        let plain = match byte {
            b'%' => false,
            b' ' => at != 0 && at != last,
            other => other.is_ascii_graphic(),
        };
        if plain {
            value.push(char::from(*byte));
        } else {
            value.push('%');
            value.push(char::from(hex(byte >> 4).to_ascii_uppercase()));
            value.push(char::from(hex(*byte).to_ascii_uppercase()));
        }
    }
    value
}

/// Reads what [`escape_header`] wrote; `None` for a broken escape or bytes that are no UTF-8.
pub(crate) fn unescape_header(value: &str) -> Option<String> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut text = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        text.push(if byte == b'%' { (digit(bytes.next())? << 4) | digit(bytes.next())? } else { byte });
    }
    String::from_utf8(text).ok()
}

/// A short ASCII text on the stack: ids and addresses are written several times per event.
pub(super) struct Shown {
    bytes: [u8; 96],
    len: usize,
}

impl Shown {
    /// Writes `value`; what is longer than 96 bytes is cut off, which no id and no address is.
    pub(super) fn new(value: impl fmt::Display) -> Self {
        let mut shown = Self { bytes: [0; 96], len: 0 };
        // The writer never fails: it cuts off.
        let _ = write!(shown, "{value}");
        shown
    }

    /// A UUID's hyphenated form.
    pub(super) fn uuid(id: &SessionId) -> Self {
        let mut shown = Self { bytes: [0; 96], len: 0 };
        shown.append(&id.hyphenated());
        shown
    }

    pub(super) fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn append(&mut self, text: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let count = room.len().min(text.len());
        for (cell, byte) in room.iter_mut().zip(text) {
            *cell = *byte;
        }
        self.len += count;
    }
}

impl fmt::Write for Shown {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}
