//! Writing an encoded event anew for another incarnation of its gateway, without what it was made of.
//!
//! Owns: which fields of an event say by whom, of which session and under which number it is published; everything else of
//! it stays as it was written, byte for byte. Does not own: which session becomes which (`landfall-hub`).
//!
//! A gateway that was given up for dead has events that it could not publish. Its sessions are closed in the ledger by then,
//! so those events belong to sessions that begin anew.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::avro::{Dialect, Endpoints, Kind, Record};
use crate::field;
use crate::format::FORMAT_HEADER;
use crate::json::{escape_header, unescape_header};
use crate::{Encoded, Epoch, EventId, Incarnation, SessionId, Stream};

/// What becomes of an event's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not in the ledger yet: it stays what it is.
    Keep,
    /// It goes on as another session.
    Renew(Renewal),
    /// It was closed in the ledger, and so has nothing more to say.
    Drop,
}

/// The session that another one goes on as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Its id.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What is taken off the number of a connectivity event.
    pub presence_less: u64,
    /// What is taken off the number of a message.
    pub messages_less: u64,
}

impl Renewal {
    fn number(&self, stream: Stream, seq: u64) -> u64 {
        seq.saturating_sub(match stream {
            Stream::Connectivity => self.presence_less,
            Stream::Messages => self.messages_less,
            Stream::Access => 0,
        })
    }

    /// The id of what was the session's event of this number.
    pub fn id(&self, stream: Stream, seq: u64) -> EventId {
        EventId::Session(self.session, stream, self.number(stream, seq))
    }
}

/// Writes an event anew as one of `incarnation`; `None` when nothing of it is left to say. What cannot be read stays as it
/// is: it was written by [`crate::encode`], so that does not happen.
pub fn reissue(
    old: EventId,
    event: &Encoded,
    incarnation: Incarnation,
    fate: impl Fn(SessionId) -> Fate,
) -> Option<(EventId, Encoded)> {
    let (renewal, id) = match old {
        EventId::Session(session, stream, seq) => match fate(session) {
            Fate::Drop => return None,
            Fate::Keep => (None, old),
            Fate::Renew(renewal) => (Some(renewal), renewal.id(stream, seq)),
        },
        // Of several sessions, none of which goes on: they have ended.
        EventId::Gateway(..) => (None, old),
        // It names nobody who publishes. That of a session which goes on as another one is kept anew.
        EventId::Will(session, _) => {
            return (fate(session) == Fate::Keep).then(|| (old, event.clone()));
        }
    };
    let several = matches!(id, EventId::Gateway(..));
    let new = Anew { old, id, incarnation, renewal };
    let encoded = if event.headers.is_empty() {
        let body = if several { new.several(&event.body, &fate)? } else { new.object(&event.body) };
        Encoded { body: body.map_or_else(|| event.body.clone(), Bytes::from), headers: Vec::new() }
    } else {
        let mut headers = new.headers(&event.headers);
        let body = if several { several_avro(&mut headers, &event.body, &fate)? } else { None };
        Encoded { body: body.unwrap_or_else(|| event.body.clone()), headers }
    };
    Some((id, encoded))
}

/// What the event says of itself from now on.
struct Anew {
    old: EventId,
    id: EventId,
    incarnation: Incarnation,
    renewal: Option<Renewal>,
}

impl Anew {
    /// The new value of a field, as plain text, if it has one.
    fn value(&self, name: &field::Field, old: &str) -> Option<String> {
        if name.name == field::INCARNATION.name {
            return Some(self.incarnation.to_string());
        }
        let renewal = self.renewal.as_ref()?;
        let (EventId::Session(before, ..), EventId::Session(session, _, seq)) = (self.old, self.id) else {
            return None;
        };
        match name.name {
            name if name == field::SESSION_ID.name => Some(session.to_string()),
            name if name == field::EPOCH.name => Some(renewal.epoch.to_string()),
            name if name == field::SEQ.name => Some(seq.to_string()),
            name if name == field::ID.name => Some(self.id.to_string()),
            name if name == field::CORRELATION_ID.name || name == field::MESSAGE_ID.name => {
                // What it belongs to is itself, its session, or something else that stays.
                if old == self.old.to_string() {
                    Some(self.id.to_string())
                } else {
                    (old == before.to_string()).then(|| session.to_string())
                }
            }
            _ => None,
        }
    }

    fn object(&self, body: &[u8]) -> Option<Vec<u8>> {
        let Members(members) = serde_json::from_slice(body).ok()?;
        Some(write(members.into_iter().map(|(name, value)| {
            let value = self.json_value(&name, value).map_or(Cow::Borrowed(value.get()), Cow::Owned);
            (name, value)
        })))
    }

    fn json_value(&self, name: &str, value: &RawValue) -> Option<String> {
        let field = field::ALL.iter().find(|field| field.name == name)?;
        let text = value.get();
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let new = self.value(field, quoted.unwrap_or(text))?;
        // Ids are printable ASCII without a quote.
        Some(if quoted.is_some() { format!("\"{new}\"") } else { new })
    }

    fn headers(&self, old: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
        let renew = |name: &'static str, value: &str| {
            let field = field::ALL.iter().find(|field| field.header == name)?;
            self.value(field, value)
        };
        old.iter().map(|(name, value)| (*name, renew(name, value).unwrap_or_else(|| value.clone()))).collect()
    }

    /// Of an event that names several sessions, those that have something to say.
    #[expect(clippy::option_option, reason = "nothing left to say, or nothing to change")]
    fn several(&self, body: &[u8], fate: &impl Fn(SessionId) -> Fate) -> Option<Option<Vec<u8>>> {
        let Ok(Members(members)) = serde_json::from_slice(body) else { return Some(None) };
        let sessions = members.iter().find(|(name, _)| name == field::SESSIONS.name);
        let Some(kept) = sessions.and_then(|(_, value)| kept(value.get(), fate)) else {
            return Some(self.object(body));
        };
        if kept.is_empty() {
            return None;
        }
        let ids: Vec<&str> = kept.iter().map(|one| one.device.get()).collect();
        let all: Vec<&str> = kept.iter().map(|one| one.whole.get()).collect();
        let (ids, all) = (list(&ids), list(&all));
        Some(Some(write(members.into_iter().map(|(name, value)| {
            let value = match &name {
                name if *name == field::ENDPOINT_IDS.name => Cow::Owned(ids.clone()),
                name if *name == field::SESSIONS.name => Cow::Owned(all.clone()),
                name => self.json_value(name, value).map_or(Cow::Borrowed(value.get()), Cow::Owned),
            };
            (name, value)
        }))))
    }
}

/// The same where the sessions stand in a header and their devices in an Avro body.
#[expect(clippy::option_option, reason = "nothing left to say, or nothing to change")]
fn several_avro(
    headers: &mut [(&'static str, String)],
    body: &Bytes,
    fate: &impl Fn(SessionId) -> Fate,
) -> Option<Option<Bytes>> {
    let Some((_, sessions)) = headers.iter_mut().find(|(name, _)| *name == field::SESSIONS.header) else {
        return Some(None);
    };
    let Some(text) = unescape_header(sessions) else { return Some(None) };
    let Some(kept) = kept(&text, fate) else { return Some(None) };
    if kept.is_empty() {
        return None;
    }
    let devices: Vec<String> =
        kept.iter().filter_map(|one| serde_json::from_str(one.device.get()).ok()).collect();
    let all: Vec<&str> = kept.iter().map(|one| one.whole.get()).collect();
    *sessions = escape_header(list(&all).as_bytes());
    let dialect = headers.iter().find(|(name, _)| *name == FORMAT_HEADER).map(|(_, value)| value.as_str());
    let dialect = if dialect == Some("kaa-2017") { Dialect::Kaa2017 } else { Dialect::KaaElce };
    let Ok(mut record) = Record::decode(dialect, Kind::Disconnected, body) else { return Some(None) };
    match &mut record.endpoints {
        Endpoints::Ids(ids) => ids.retain(|id| devices.contains(id)),
        Endpoints::Disconnected(map) | Endpoints::Connected(map) => map.retain(|id, _| devices.contains(id)),
        Endpoints::One { .. } => {}
    }
    Some(Some(record.encode().into()))
}

/// One of several sessions, as it was written.
struct Entry<'a> {
    device: &'a RawValue,
    whole: &'a RawValue,
}

/// The sessions that were not closed in the ledger; `None` when the text is no list of sessions.
fn kept<'a>(sessions: &'a str, fate: &impl Fn(SessionId) -> Fate) -> Option<Vec<Entry<'a>>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named<'a> {
        #[serde(borrow)]
        endpoint_id: &'a RawValue,
        session_id: SessionId,
    }
    let all: Vec<&RawValue> = serde_json::from_str(sessions).ok()?;
    let mut kept = Vec::with_capacity(all.len());
    for whole in all {
        let Named { endpoint_id: device, session_id } = serde_json::from_str(whole.get()).ok()?;
        if fate(session_id) == Fate::Keep {
            kept.push(Entry { device, whole });
        }
    }
    Some(kept)
}

fn list(values: &[&str]) -> String {
    format!("[{}]", values.join(","))
}

fn write<'a>(members: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Vec<u8> {
    let mut out = String::from("{");
    for (name, value) in members {
        if out.len() > 1 {
            out.push(',');
        }
        out.push('"');
        out.push_str(&name);
        out.push_str("\":");
        out.push_str(&value);
    }
    out.push('}');
    out.into_bytes()
}

/// The members of a JSON object in their order, each value as it was written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((Cow::Owned(name), value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(InOrder).map(Members)
    }
}
