//! Identifiers: each is parsed once, at the edge, and is valid from then on.

use std::fmt;
use std::str::FromStr;

use arcstr::ArcStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has no bytes.
    #[error("is empty")]
    Empty,
    /// The text is longer than its kind allows.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// The text holds a control character.
    #[error("holds a control character")]
    Control,
    /// The text holds a character that its kind does not allow.
    #[error("holds a character outside {0}")]
    Alphabet(&'static str),
    /// The text is not a UUID.
    #[error("is not a UUID")]
    NotUuid,
    /// The text is not an event's id.
    #[error("is not an event id")]
    NotEventId,
}

const MAX_ID: usize = 128;
const TOKEN: &str = "[A-Za-z0-9_~-]";

fn free_text(text: &str) -> Result<(), IdError> {
    match text {
        "" => Err(IdError::Empty),
        t if t.len() > MAX_ID => Err(IdError::TooLong(MAX_ID)),
        t if t.chars().any(char::is_control) => Err(IdError::Control),
        _ => Ok(()),
    }
}

fn token(text: &str) -> Result<(), IdError> {
    free_text(text)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~' | b'-');
    if text.bytes().all(plain) { Ok(()) } else { Err(IdError::Alphabet(TOKEN)) }
}

/// One level of an MQTT topic that is also harmless in a log: no wildcard, no separator.
fn topic_level(text: &str) -> Result<(), IdError> {
    free_text(text)?;
    if text.contains(['/', '+', '#']) {
        Err(IdError::Alphabet("one topic level without / + #"))
    } else {
        Ok(())
    }
}

/// Written as its text, read through its check.
macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(ArcStr);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        as_text!($name);
    };
}

text_id! {
    /// A device (Kaa: endpoint): 1..=128 bytes of UTF-8 without control characters. Not a subject token until
    /// [`crate::subject`] has escaped it.
    DeviceId, free_text
}
text_id! {
    /// A tenant: 1..=128 bytes of UTF-8 without control characters.
    TenantId, free_text
}

impl TenantId {
    /// The tenant of whoever names none.
    pub const DEFAULT: &str = "default";
}

impl Default for TenantId {
    fn default() -> Self {
        Self(ArcStr::from(Self::DEFAULT))
    }
}

text_id! {
    /// The name that all replicas share (Kaa: service instance name): one subject token.
    InstanceName, token
}
text_id! {
    /// One gateway process's name, kept over restarts: one subject token.
    ReplicaId, token
}
text_id! {
    /// A command's id: one topic level, 1..=128 bytes.
    CommandId, topic_level
}
text_id! {
    /// A command's name: one topic level, 1..=128 bytes.
    CommandName, topic_level
}

/// A session's id: a UUIDv7 (RFC 9562, section 5.7), so ids sort by the time when the session began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Makes the id of a session that begins at `now`, from ten bytes of the caller's randomness.
    pub fn new(now: UnixMs, random: [u8; 10]) -> Self {
        let [_, _, t0, t1, t2, t3, t4, t5] = now.to_be_bytes();
        let [a, b, c, d, e, f, g, h, i, j] = random;
        Self([t0, t1, t2, t3, t4, t5, 0x70 | (a & 0x0f), b, 0x80 | (c & 0x3f), d, e, f, g, h, i, j])
    }

    /// When the session began, by the clock of its making.
    pub fn began_at(&self) -> UnixMs {
        let [t0, t1, t2, t3, t4, t5, ..] = self.0;
        UnixMs::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5])
    }

    /// An id of these bytes, as [`as_bytes`](Self::as_bytes) gave them; `None` when they are no UUIDv7.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let [.., version, _, variant, _, _, _, _, _, _, _] = bytes;
        (version >> 4 == 7 && variant >> 6 == 2).then_some(Self(bytes))
    }

    /// The sixteen bytes as two numbers.
    pub(crate) fn halves(&self) -> (u64, u64) {
        let whole = u128::from_be_bytes(self.0);
        ((whole >> 64) as u64, whole as u64)
    }

    pub(crate) fn of_halves(high: u64, low: u64) -> Self {
        Self(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
    }

    /// The sixteen bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The 36 characters of the hyphenated form, without an allocation.
    pub fn hyphenated(&self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'-'; 36];
        let mut cells =
            out.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23)).map(|(_, c)| c);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 0x0f] {
                if let (Some(cell), Some(digit)) = (cells.next(), HEX.get(usize::from(nibble))) {
                    *cell = *digit;
                }
            }
        }
        out
    }
}

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let raw = text.as_bytes();
        if raw.len() != 36 {
            return Err(IdError::NotUuid);
        }
        let mut bytes = [0_u8; 16];
        let mut nibbles = 0_usize;
        for (at, byte) in raw.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return Err(IdError::NotUuid);
                }
                continue;
            }
            let digit = char::from(*byte).to_digit(16).ok_or(IdError::NotUuid)?;
            let cell = bytes.get_mut(nibbles / 2).ok_or(IdError::NotUuid)?;
            *cell = (*cell << 4) | u8::try_from(digit).map_err(|_| IdError::NotUuid)?;
            nibbles += 1;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hyphenated()).unwrap_or_default())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

as_text!(SessionId);

/// One start of a replica: a UUIDv7, new at every start.
pub type Incarnation = SessionId;

/// Rises with every session of a device, on any replica; below 2^53, so that it survives JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_a_uuid_v7_and_reads_back() {
        let id = SessionId::new(0x0199_1234_5678, [0xff; 10]);
        assert_eq!(id.to_string(), "01991234-5678-7fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("01991234-5678-7fff-bfff-fffffffffffg".parse::<SessionId>(), Err(IdError::NotUuid));
        assert_eq!("01991234".parse::<SessionId>(), Err(IdError::NotUuid));
    }

    #[test]
    fn ids_refuse_what_the_design_refuses() {
        assert!("pump 17.*>é".parse::<DeviceId>().is_ok());
        assert_eq!("".parse::<DeviceId>(), Err(IdError::Empty));
        assert_eq!("a\nb".parse::<DeviceId>(), Err(IdError::Control));
        assert_eq!("x".repeat(129).parse::<DeviceId>(), Err(IdError::TooLong(128)));
        assert_eq!("a.b".parse::<InstanceName>(), Err(IdError::Alphabet(TOKEN)));
        assert!("a/b".parse::<CommandName>().is_err());
    }
}
