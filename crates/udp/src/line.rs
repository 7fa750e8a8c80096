//! The first line of a datagram: `LF1 {device} word...`, LF or CR LF, payload.
//!
//! Owns: the grammar, its bounds, the bytes that a signature covers, and escaping. Does not own: what a word leads to
//! (`arrival.rs`), whether the key or the signature is right (the authenticator). Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use landfall_event::{CommandId, DeviceId, TenantId};
use landfall_hub::claimed_name;

/// The most bytes before the line feed.
pub const MAX_LINE: usize = 1024;

/// The longest heartbeat and the longest sleep that a device may announce, in seconds: 30 days.
pub const MAX_SECONDS: u32 = 30 * 24 * 3600;

/// The most bytes of an answer's status.
pub const MAX_STATUS: usize = 64;

/// What is wrong with a line. Says nothing of what stood there: that may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It does not begin with `LF1` and a space.
    NotOurs,
    /// It begins with `LF`, another number and a space.
    Version,
    /// No line feed within [`MAX_LINE`] bytes.
    TooLong,
    /// It is not UTF-8, or has a control character.
    Text,
    /// Two spaces in a row, or one at the end.
    Spaces,
    /// The device or its tenant is not 1 to 128 bytes without control characters.
    Name,
    /// A word that is not known.
    Unknown,
    /// This word comes twice.
    Twice(&'static str),
    /// This word has a value that it cannot have, or lacks one.
    Value(&'static str),
    /// These words cannot stand together, or one lacks the other.
    Together(&'static str),
}

impl LineError {
    /// The same for a log line.
    pub fn detail(self) -> (&'static str, &'static str) {
        match self {
            Self::NotOurs => ("not an LF1 line", ""),
            Self::Version => ("another version of the line", ""),
            Self::TooLong => ("the line is too long", ""),
            Self::Text => ("the line is not plain UTF-8", ""),
            Self::Spaces => ("a word is missing between spaces", ""),
            Self::Name => ("not a device's name", ""),
            Self::Unknown => ("a word is not known", ""),
            Self::Twice(word) => ("a word comes twice", word),
            Self::Value(word) => ("a word has no such value", word),
            Self::Together(words) => ("words contradict each other", words),
        }
    }
}

/// A key as it came in the clear: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key<'a>(Cow<'a, [u8]>);

impl Key<'_> {
    /// The bytes, for comparing only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The command.
    pub command: CommandId,
    /// The device's status, 1 to [`MAX_STATUS`] bytes without control characters.
    pub status: Option<Cow<'a, str>>,
}

/// A signature and what it covers.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// HMAC-SHA-256 as the device gave it.
    pub mac: [u8; 32],
    before: &'a [u8],
    behind: &'a [u8],
}

impl<'a> Signed<'a> {
    /// The bytes that the signature covers: the datagram without ` sig={hex}`, in two parts.
    pub fn covered(&self) -> [&'a [u8]; 2] {
        [self.before, self.behind]
    }
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signed(..)")
    }
}

/// A datagram, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Who sends it, by its own word.
    pub device: DeviceId,
    /// The device's tenant, where the line names one: `device@tenant`.
    pub tenant: Option<TenantId>,
    /// `key=`: the device's key in the clear.
    pub key: Option<Key<'a>>,
    /// `sig=`: a signature with the device's key; comes with `seq`, never with `key`.
    pub signed: Option<Signed<'a>>,
    /// `seq=`: the device's own number of the datagram, at least 1.
    pub seq: Option<u64>,
    /// `hb=`: the device speaks at least every so many seconds; 1 to [`MAX_SECONDS`].
    pub heartbeat: Option<u32>,
    /// `sleep=`: the device is silent for so many seconds from now; 1 to [`MAX_SECONDS`], never with `bye`.
    pub sleep: Option<u32>,
    /// `got=`: the device has received this command.
    pub got: Option<CommandId>,
    /// `res=`: the payload is the answer to a command.
    pub answer: Option<Answer<'a>>,
    /// `ack`: the device wants to be told that this is stored.
    pub ack: bool,
    /// `bye`: the device leaves.
    pub bye: bool,
    /// What stands behind the line feed, which a carriage return may stand before.
    pub payload: &'a [u8],
}

impl Line<'_> {
    /// Who sends it, by its own word, as it may be told: without what is its key too.
    pub fn claims(&self) -> Option<Cow<'_, str>> {
        claimed_name(&self.device, self.tenant.as_ref(), self.key.as_ref().map(Key::expose))
    }
}

impl<'a> Line<'a> {
    /// Reads a whole datagram.
    ///
    /// # Errors
    /// What is wrong with its first line.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, LineError> {
        let (header, payload) = split(datagram)?;
        let text = std::str::from_utf8(header).map_err(|_| LineError::Text)?;
        if text.chars().any(char::is_control) {
            return Err(LineError::Text);
        }
        let rest = text.strip_prefix("LF1 ").ok_or_else(|| foreign(text))?;
        let mut words = rest.split(' ');
        let (device, tenant) = name(words.next().unwrap_or_default())?;
        let mut read = Words::default();
        // Where the next word begins in the datagram.
        let mut at = header.len() - rest.len() + rest.find(' ').map_or(rest.len(), |space| space + 1);
        for word in words {
            read.take(word, at)?;
            at += word.len() + 1;
        }
        read.agree()?;
        let Words { key, seq, heartbeat, sleep, got, res, status, ack, bye, signature } = read;
        Ok(Self {
            device,
            tenant,
            key,
            signed: signature.map(|(mac, place)| Signed {
                mac,
                before: datagram.get(..place.start).unwrap_or_default(),
                behind: datagram.get(place.end..).unwrap_or_default(),
            }),
            seq,
            heartbeat,
            sleep,
            got,
            answer: res.map(|command| Answer { command, status }),
            ack,
            bye,
            payload,
        })
    }
}

impl<'a> Line<'a> {
    /// A payload without a line, of a device that is known otherwise.
    pub(crate) fn without(device: DeviceId, tenant: TenantId, payload: &'a [u8]) -> Self {
        Self {
            device,
            tenant: Some(tenant),
            key: None,
            signed: None,
            seq: None,
            heartbeat: None,
            sleep: None,
            got: None,
            answer: None,
            ack: false,
            bye: false,
            payload,
        }
    }
}

/// The line and the payload. Without a line feed all of it is the line.
fn split(datagram: &[u8]) -> Result<(&[u8], &[u8]), LineError> {
    let reach = datagram.get(..=MAX_LINE).unwrap_or(datagram);
    match reach.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let (header, rest) = datagram.split_at(end);
            // Terminals and modems end a line so.
            let header = header.strip_suffix(b"\r").unwrap_or(header);
            Ok((header, rest.get(1..).unwrap_or_default()))
        }
        None if datagram.len() > MAX_LINE && !datagram.starts_with(b"LF1 ") => Err(LineError::NotOurs),
        None if datagram.len() > MAX_LINE => Err(LineError::TooLong),
        None => Ok((datagram, &[])),
    }
}

fn foreign(text: &str) -> LineError {
    let number = text.strip_prefix("LF").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let is_version = !number.is_empty() && number != "1" && number.bytes().all(|b| b.is_ascii_digit());
    if is_version { LineError::Version } else { LineError::NotOurs }
}

fn name(word: &str) -> Result<(DeviceId, Option<TenantId>), LineError> {
    let (device, tenant) = match word.split_once('@') {
        Some((device, tenant)) => (device, Some(tenant)),
        None => (word, None),
    };
    // An `@` inside of a name is written %40, so a second one is a mistake.
    if tenant.is_some_and(|tenant| tenant.contains('@')) {
        return Err(LineError::Name);
    }
    let text = |word| text(word).ok_or(LineError::Name);
    let device = text(device)?.parse().map_err(|_| LineError::Name)?;
    let tenant = tenant.map(|tenant| text(tenant)?.parse().map_err(|_| LineError::Name)).transpose()?;
    Ok((device, tenant))
}

/// The words behind the name, while they are read.
#[derive(Default)]
struct Words<'a> {
    key: Option<Key<'a>>,
    seq: Option<u64>,
    heartbeat: Option<u32>,
    sleep: Option<u32>,
    got: Option<CommandId>,
    res: Option<CommandId>,
    status: Option<Cow<'a, str>>,
    ack: bool,
    bye: bool,
    /// And where ` sig={hex}` stands, with the space before it.
    signature: Option<([u8; 32], Range<usize>)>,
}

impl<'a> Words<'a> {
    /// Reads one word, which begins at byte `at` of the datagram.
    fn take(&mut self, word: &'a str, at: usize) -> Result<(), LineError> {
        match word.split_once('=') {
            None => match word {
                "" => Err(LineError::Spaces),
                "ack" => flag(&mut self.ack, "ack"),
                "bye" => flag(&mut self.bye, "bye"),
                _ => Err(LineError::Unknown),
            },
            Some((word, value)) => match word {
                "key" => put(&mut self.key, "key", key(value)),
                "seq" => put(&mut self.seq, "seq", number(value)),
                "hb" => put(&mut self.heartbeat, "hb", seconds(value)),
                "sleep" => put(&mut self.sleep, "sleep", seconds(value)),
                "got" => put(&mut self.got, "got", command(value)),
                "res" => put(&mut self.res, "res", command(value)),
                "status" => put(&mut self.status, "status", status(value)),
                "sig" => {
                    let place = at.saturating_sub(1)..at + "sig=".len() + value.len();
                    put(&mut self.signature, "sig", mac(value).map(|mac| (mac, place)))
                }
                _ => Err(LineError::Unknown),
            },
        }
    }

    fn agree(&self) -> Result<(), LineError> {
        if self.signature.is_some() && self.seq.is_none() {
            Err(LineError::Together("sig without seq"))
        } else if self.signature.is_some() && self.key.is_some() {
            Err(LineError::Together("sig and key"))
        } else if self.status.is_some() && self.res.is_none() {
            Err(LineError::Together("status without res"))
        } else if self.bye && self.sleep.is_some() {
            Err(LineError::Together("bye and sleep"))
        } else {
            Ok(())
        }
    }
}

fn flag(set: &mut bool, word: &'static str) -> Result<(), LineError> {
    if std::mem::replace(set, true) { Err(LineError::Twice(word)) } else { Ok(()) }
}

fn put<T>(place: &mut Option<T>, word: &'static str, value: Option<T>) -> Result<(), LineError> {
    if place.is_some() {
        return Err(LineError::Twice(word));
    }
    *place = Some(value.ok_or(LineError::Value(word))?);
    Ok(())
}

/// Digits only, at least 1: no sign, no leading zero.
fn number(value: &str) -> Option<u64> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    if digits && !value.starts_with('0') { value.parse().ok() } else { None }
}

fn seconds(value: &str) -> Option<u32> {
    number(value).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= MAX_SECONDS)
}

fn key(value: &str) -> Option<Key<'_>> {
    unescape(value).filter(|bytes| !bytes.is_empty()).map(Key)
}

fn command(value: &str) -> Option<CommandId> {
    text(value)?.parse().ok()
}

fn status(value: &str) -> Option<Cow<'_, str>> {
    let fits = |text: &Cow<'_, str>| {
        !text.is_empty() && text.len() <= MAX_STATUS && !text.chars().any(char::is_control)
    };
    text(value).filter(fits)
}

fn mac(value: &str) -> Option<[u8; 32]> {
    let mut mac = [0; 32];
    if value.len() != 2 * mac.len() {
        return None;
    }
    for (byte, pair) in mac.iter_mut().zip(value.as_bytes().chunks_exact(2)) {
        *byte = hex_pair(pair)?;
    }
    Some(mac)
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let &[high, low] = pair else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn text(value: &str) -> Option<Cow<'_, str>> {
    match unescape(value)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// Undoes `%XX`; `None` when a `%` has not two hexadecimal digits behind it.
fn unescape(value: &str) -> Option<Cow<'_, [u8]>> {
    if !value.contains('%') {
        return Some(Cow::Borrowed(value.as_bytes()));
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            bytes.push(hex_pair(behind.get(..2)?)?);
            rest = behind.get(2..)?;
        } else {
            bytes.push(*first);
        }
    }
    Some(Cow::Owned(bytes))
}

/// Appends a value so that [`Line::parse`] reads it back: spaces, controls, `%` and `@` as `%XX`.
pub fn escape(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        if matches!(byte, 0..=0x20 | 0x7f | b'%' | b'@') {
            let digit =
                |nibble: u8| b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or_default();
            out.extend([b'%', digit(byte >> 4), digit(byte & 0x0f)]);
        } else {
            out.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests;
