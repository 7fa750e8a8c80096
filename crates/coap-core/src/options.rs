//! The options of a message and the rules for their numbers, repetition and length (RFC 7252, sections 3.1, 5.4 and 5.10).
//!
//! Owns: the ordered list, the table of the options served. Does not own: what each of them does.

use std::fmt;

use bytes::Bytes;

/// The numbers of the options that are named here.
#[expect(
    missing_docs,
    reason = "the names of the registry, RFC 7252 section 12.2 and the RFCs that extend it"
)]
pub mod number {
    pub const IF_MATCH: u16 = 1;
    pub const URI_HOST: u16 = 3;
    pub const ETAG: u16 = 4;
    pub const IF_NONE_MATCH: u16 = 5;
    pub const OBSERVE: u16 = 6;
    pub const URI_PORT: u16 = 7;
    pub const LOCATION_PATH: u16 = 8;
    pub const URI_PATH: u16 = 11;
    pub const CONTENT_FORMAT: u16 = 12;
    pub const MAX_AGE: u16 = 14;
    pub const URI_QUERY: u16 = 15;
    pub const ACCEPT: u16 = 17;
    pub const LOCATION_QUERY: u16 = 20;
    pub const BLOCK2: u16 = 23;
    pub const BLOCK1: u16 = 27;
    pub const SIZE2: u16 = 28;
    pub const PROXY_URI: u16 = 35;
    pub const PROXY_SCHEME: u16 = 39;
    pub const SIZE1: u16 = 60;
    pub const ECHO: u16 = 252;
    pub const NO_RESPONSE: u16 = 258;
    pub const REQUEST_TAG: u16 = 292;
}

/// The options of one message, ordered by number; equal numbers in the order in which they came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(u16, Bytes)>);

/// Numbers and lengths: paths and queries may hold secrets.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(number, value)| (number, value.len()))).finish()
    }
}

impl Options {
    /// No options.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one, behind those of the same number.
    pub fn push(&mut self, number: u16, value: impl Into<Bytes>) {
        let at = self.0.partition_point(|(have, _)| *have <= number);
        self.0.insert(at, (number, value.into()));
    }

    /// Adds one whose value is a number, in the fewest bytes (section 3.2).
    pub fn push_uint(&mut self, number: u16, value: u32) {
        let bytes = value.to_be_bytes();
        let zeroes = usize::try_from(value.leading_zeros() / 8).unwrap_or(0);
        self.push(number, Bytes::copy_from_slice(bytes.get(zeroes..).unwrap_or_default()));
    }

    /// Puts a number in the place of every option of this number.
    pub fn set_uint(&mut self, number: u16, value: u32) {
        self.remove(number);
        self.push_uint(number, value);
    }

    /// Takes every option of this number away.
    pub fn remove(&mut self, number: u16) {
        self.0.retain(|(have, _)| *have != number);
    }

    /// The first of this number.
    #[must_use]
    pub fn first(&self, number: u16) -> Option<&Bytes> {
        self.all(number).next()
    }

    /// Every one of this number, in order.
    pub fn all(&self, number: u16) -> impl Iterator<Item = &Bytes> {
        let from = self.0.partition_point(|(have, _)| *have < number);
        let behind = self.0.get(from..).unwrap_or_default();
        behind.iter().take_while(move |(have, _)| *have == number).map(|(_, value)| value)
    }

    /// The first of this number, read as a number of at most four bytes (section 3.2).
    #[must_use]
    pub fn uint(&self, number: u16) -> Option<u32> {
        uint(self.first(number)?)
    }

    /// Whether there is one of this number.
    #[must_use]
    pub fn has(&self, number: u16) -> bool {
        self.first(number).is_some()
    }

    /// All of them, ordered by number.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Bytes)> {
        self.0.iter().map(|(number, value)| (*number, value))
    }

    /// Checks the critical options: each one served, none repeated that must not be, each of a length it may have (section
    /// 5.4, table 4). Elective ones that break these rules are left to their readers, which ignore them.
    pub(crate) fn check(&self) -> Result<(), BadOption> {
        let mut before = None;
        for (number, value) in self.iter().filter(|(number, _)| number & 1 == 1) {
            let rule = critical(number).ok_or(BadOption(number))?;
            let repeated = before.replace(number) == Some(number) && !rule.repeatable;
            if repeated || value.len() < rule.shortest || value.len() > rule.longest {
                return Err(BadOption(number));
            }
        }
        Ok(())
    }

    /// The first of an elective option that is a number, if its length is one that it may have (section 5.4.3).
    pub(crate) fn elective_uint(&self, number: u16, longest: usize) -> Option<u32> {
        self.first(number).filter(|value| value.len() <= longest).and_then(|value| uint(value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A critical option that is not served, is repeated or has a wrong length; its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadOption(pub(crate) u16);

struct Rule {
    repeatable: bool,
    shortest: usize,
    longest: usize,
}

/// The critical options that are served. If-Match, If-None-Match and OSCORE are not: a server that does not recognise one
/// must say so rather than pass over it.
fn critical(number: u16) -> Option<Rule> {
    let (repeatable, shortest, longest) = match number {
        number::URI_HOST => (false, 1, 255),
        number::URI_PORT | number::ACCEPT => (false, 0, 2),
        number::URI_PATH | number::URI_QUERY => (true, 0, 255),
        number::BLOCK1 | number::BLOCK2 => (false, 0, 3),
        _ => return None,
    };
    Some(Rule { repeatable, shortest, longest })
}

/// A number of 0 to 4 bytes, leading zeroes allowed (section 3.2); `None` for more.
#[must_use]
pub(crate) fn uint(bytes: &[u8]) -> Option<u32> {
    (bytes.len() <= 4).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}
