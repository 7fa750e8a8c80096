//! Which encoding an event is published in.
//!
//! Owns: the choice, and what a body that is not JSON is accompanied by. Does not own: the encodings ([`crate::json`],
//! [`crate::avro`]).

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::{Event, Occasion, avro, json};

/// An encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The body.
    pub body: Bytes,
    /// Headers beside `Nats-Msg-Id`; none where the body says everything. Values are printable ASCII.
    pub headers: Vec<(&'static str, String)>,
}

/// The settings' `events.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Everything is JSON.
    #[default]
    Json,
    /// `connected` and `disconnected` are raw Avro in Kaa's layout of April 2017; everything else is JSON.
    Kaa2017,
    /// `connected` and `disconnected` are raw Avro in the layout of Kaa's 9/ELCE (since September 2017); everything else
    /// is JSON.
    KaaElce,
}

/// A name that is no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is none of json, kaa-2017, kaa-elce")]
pub struct UnknownFormat;

impl Format {
    /// Every format.
    pub const ALL: &'static [Self] = &[Self::Json, Self::Kaa2017, Self::KaaElce];

    /// The name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Kaa2017 => "kaa-2017",
            Self::KaaElce => "kaa-elce",
        }
    }

    /// The most sessions that one `disconnected` may name in this format. JSON: its body stays below NATS' default
    /// `max_payload` of 1 MiB. Kaa: the sessions stand in a header, and JetStream takes 64 KiB of headers.
    pub fn max_sessions(self) -> usize {
        match self {
            Self::Json => 512,
            Self::Kaa2017 | Self::KaaElce => 32,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.iter().copied().find(|format| format.as_str() == text).ok_or(UnknownFormat)
    }
}

/// Encodes an event. With a Kaa format a `connected` or `disconnected` is Avro, and its `Landfall-*` headers carry what
/// Kaa's records have no field for.
pub fn encode(format: Format, occasion: &Occasion<'_>, event: &Event) -> Encoded {
    let dialect = match format {
        Format::Json => None,
        Format::Kaa2017 => Some(avro::Dialect::Kaa2017),
        Format::KaaElce => Some(avro::Dialect::KaaElce),
    };
    let record = dialect.and_then(|dialect| avro::Record::of(dialect, occasion, event));
    let Some(record) = record else {
        return Encoded { body: json::encode(occasion, event), headers: Vec::new() };
    };
    let mut headers = json::headers(occasion, event);
    headers.push((FORMAT_HEADER, format.as_str().to_owned()));
    headers.push((RECORD_HEADER, record.full_name().to_owned()));
    Encoded { body: record.encode().into(), headers }
}

/// The header that names the dialect of an Avro body.
pub(crate) const FORMAT_HEADER: &str = "Landfall-Format";

/// The header that names the record of an Avro body.
pub(crate) const RECORD_HEADER: &str = "Landfall-Record";
