//! Kaa's two Avro layouts of `connected` and `disconnected`, as raw data: no container, no schema id, no marker.
//!
//! Owns: the four records, deterministic writing (map keys in order), strict reading. Does not own: when which is
//! published ([`crate::encode`]). The wire carries no schema id, so a reader must know the dialect; Landfall says it in
//! the header `Landfall-Format`.

use std::collections::BTreeMap;

use crate::{Event, Occasion};

/// Which of Kaa's two layouts, which no reader can tell apart by the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Of April 2017: one endpoint per `connected`, a list of ids per `disconnected`.
    Kaa2017,
    /// 9/ELCE, since September 2017: a map of endpoint id to application version in both.
    KaaElce,
}

impl Dialect {
    /// Kaa's `timeout` for "never": -1 in 2017, 0 since.
    pub fn never(self) -> i64 {
        match self {
            Self::Kaa2017 => -1,
            Self::KaaElce => 0,
        }
    }
}

/// Which of a dialect's two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `…connectivity.connected`.
    Connected,
    /// `…connectivity.disconnected`.
    Disconnected,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AvroError {
    /// The bytes end within the record.
    #[error("ends within the record")]
    Truncated,
    /// Bytes follow the record: probably another dialect's.
    #[error("{0} bytes follow the record")]
    Trailing(usize),
    /// A number takes more bytes than it needs, or more than 64 bits.
    #[error("holds an over-long number")]
    Number,
    /// A length or count is negative, or larger than what follows can hold.
    #[error("holds an impossible length")]
    Length,
    /// A string is not UTF-8.
    #[error("holds a string that is not UTF-8")]
    Utf8,
    /// A map names one key twice.
    #[error("names an endpoint twice")]
    Duplicate,
}

/// What a record says of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// `EndpointConnectedEvent` (2017).
    One {
        /// The endpoint.
        id: String,
        /// Its application version; "" when unknown.
        app_version: String,
    },
    /// `EndpointDisconnectedEvent` (2017).
    Ids(Vec<String>),
    /// `ConnectedEvent` (9/ELCE): endpoint id to application version.
    Connected(BTreeMap<String, String>),
    /// `DisconnectedEvent` (9/ELCE): endpoint id to application version.
    Disconnected(BTreeMap<String, String>),
}

impl Endpoints {
    /// Every endpoint that is named, in the order of the record.
    pub fn ids(&self) -> Vec<&str> {
        match self {
            Self::One { id, .. } => vec![id],
            Self::Ids(ids) => ids.iter().map(String::as_str).collect(),
            Self::Connected(map) | Self::Disconnected(map) => map.keys().map(String::as_str).collect(),
        }
    }
}

/// One record of either dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the event belongs to.
    pub correlation_id: String,
    /// When it happened, Unix ms.
    pub timestamp: i64,
    /// Milliseconds after `timestamp` until the event is void; [`Dialect::never`] for never.
    pub timeout: i64,
    /// Which endpoints.
    pub endpoints: Endpoints,
    /// The replica that published it.
    pub originator_replica_id: String,
}

impl Record {
    /// The record of an event; `None` for an event that Kaa's layouts do not cover.
    pub fn of(dialect: Dialect, occasion: &Occasion<'_>, event: &Event) -> Option<Self> {
        let (correlation_id, endpoints) = match event {
            Event::Connected(connected) => {
                let session = &connected.session;
                let (id, app_version) = (session.device.to_string(), session.app_version.to_string());
                let endpoints = match dialect {
                    Dialect::Kaa2017 => Endpoints::One { id, app_version },
                    Dialect::KaaElce => Endpoints::Connected(BTreeMap::from([(id, app_version)])),
                };
                (session.session().to_string(), endpoints)
            }
            Event::Disconnected(disconnected) => {
                let correlation_id = match disconnected.ended.as_slice() {
                    [ended] => ended.session.session().to_string(),
                    _ => occasion.id.to_string(),
                };
                let sessions = disconnected.ended.iter().map(|ended| &ended.session);
                let endpoints = match dialect {
                    Dialect::Kaa2017 => {
                        Endpoints::Ids(sessions.map(|info| info.device.to_string()).collect())
                    }
                    Dialect::KaaElce => Endpoints::Disconnected(
                        sessions
                            .map(|info| (info.device.to_string(), info.app_version.to_string()))
                            .collect(),
                    ),
                };
                (correlation_id, endpoints)
            }
            Event::Moved(_)
            | Event::Dormant(_)
            | Event::Awake(_)
            | Event::Upstream(_)
            | Event::Downstream(_)
            | Event::Refused(_)
            | Event::Service(_)
            | Event::Dropped(_) => return None,
        };
        Some(Self {
            correlation_id,
            timestamp: i64::try_from(occasion.at).unwrap_or(i64::MAX),
            timeout: dialect.never(),
            endpoints,
            originator_replica_id: occasion.origin.replica.to_string(),
        })
    }

    /// The record's full name, which the bytes do not carry.
    pub fn full_name(&self) -> &'static str {
        match self.endpoints {
            Endpoints::One { .. } => {
                "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity.EndpointConnectedEvent"
            }
            Endpoints::Ids(_) => {
                "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity.EndpointDisconnectedEvent"
            }
            Endpoints::Connected(_) => "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity.ConnectedEvent",
            Endpoints::Disconnected(_) => {
                "org.kaaproject.ipc.event.gen.v1.endpoint.connectivity.DisconnectedEvent"
            }
        }
    }

    /// The record's bytes: the same for equal records.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        string(&mut out, &self.correlation_id);
        long(&mut out, self.timestamp);
        long(&mut out, self.timeout);
        match &self.endpoints {
            Endpoints::One { id, app_version } => {
                string(&mut out, id);
                string(&mut out, app_version);
            }
            Endpoints::Ids(ids) => block(&mut out, ids.iter(), |out, id| string(out, id)),
            Endpoints::Connected(map) | Endpoints::Disconnected(map) => {
                block(&mut out, map.iter(), |out, (id, app_version)| {
                    string(out, id);
                    string(out, app_version);
                });
            }
        }
        string(&mut out, &self.originator_replica_id);
        out
    }

    /// Reads a record that fills `bytes` exactly.
    ///
    /// # Errors
    /// What [`AvroError`] lists. Memory is only taken for text that is there.
    pub fn decode(dialect: Dialect, kind: Kind, bytes: &[u8]) -> Result<Self, AvroError> {
        let mut reader = Reader { rest: bytes };
        let correlation_id = reader.string()?;
        let timestamp = reader.long()?;
        let timeout = reader.long()?;
        let endpoints = match (dialect, kind) {
            (Dialect::Kaa2017, Kind::Connected) => {
                Endpoints::One { id: reader.string()?, app_version: reader.string()? }
            }
            (Dialect::Kaa2017, Kind::Disconnected) => {
                let mut ids = Vec::new();
                reader.blocks(1, |reader| {
                    ids.push(reader.string()?);
                    Ok(())
                })?;
                Endpoints::Ids(ids)
            }
            (Dialect::KaaElce, Kind::Connected) => Endpoints::Connected(reader.map()?),
            (Dialect::KaaElce, Kind::Disconnected) => Endpoints::Disconnected(reader.map()?),
        };
        let originator_replica_id = reader.string()?;
        match reader.rest.len() {
            0 => Ok(Self { correlation_id, timestamp, timeout, endpoints, originator_replica_id }),
            left => Err(AvroError::Trailing(left)),
        }
    }
}

/// A zigzag number, seven bits per byte, the lowest first.
fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push(0x80 | low_byte(rest));
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

fn length(out: &mut Vec<u8>, value: usize) {
    long(out, i64::try_from(value).unwrap_or(i64::MAX));
}

fn string(out: &mut Vec<u8>, text: &str) {
    length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// An array or a map: one block of all items unless there are none, then the empty block that ends it.
fn block<T>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    if items.len() > 0 {
        length(out, items.len());
        items.for_each(|item| write(out, item));
    }
    length(out, 0);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn long(&mut self) -> Result<i64, AvroError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(AvroError::Truncated)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and only the first byte may be zero at the end.
            if (shift == 63 && *byte > 1) || (shift > 0 && *byte == 0) {
                return Err(AvroError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(AvroError::Number)
    }

    fn string(&mut self) -> Result<String, AvroError> {
        let length = usize::try_from(self.long()?).map_err(|_| AvroError::Length)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(AvroError::Truncated)?;
        self.rest = rest;
        Ok(std::str::from_utf8(text).map_err(|_| AvroError::Utf8)?.to_owned())
    }

    fn map(&mut self) -> Result<BTreeMap<String, String>, AvroError> {
        let mut map = BTreeMap::new();
        self.blocks(2, |reader| {
            let (key, value) = (reader.string()?, reader.string()?);
            match map.insert(key, value) {
                None => Ok(()),
                Some(_) => Err(AvroError::Duplicate),
            }
        })?;
        Ok(map)
    }

    /// The blocks of an array or map whose items take `least` bytes or more. A negative count is one that the block's
    /// size in bytes follows, as some writers do; the size must be true.
    fn blocks(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<(), AvroError>,
    ) -> Result<(), AvroError> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.long()?) } else { None };
            let size = size.map(|size| usize::try_from(size).map_err(|_| AvroError::Length)).transpose()?;
            let count = usize::try_from(count.unsigned_abs()).map_err(|_| AvroError::Length)?;
            if count > self.rest.len() / least || size.is_some_and(|size| size > self.rest.len()) {
                return Err(AvroError::Length);
            }
            let before = self.rest.len();
            for _ in 0..count {
                item(self)?;
            }
            if size.is_some_and(|size| before - self.rest.len() != size) {
                return Err(AvroError::Length);
            }
        }
    }
}
