//! `landfall watch`: the events as they come.

use std::borrow::Cow;
use std::time::Duration;

use async_nats::Message;
use async_nats::connection::State;
use clap::Args;
use clap::builder::PossibleValuesParser;
use futures_util::StreamExt as _;
use landfall_event::TenantId;
use landfall_event::subject::{self, WATCH_ALL};
use landfall_event::wire::{self, Body, Event, WireError};
use serde::de::IgnoredAny;

use super::ClientArgs;
use super::client::{self, Connection};
use super::line::line;
use super::output::{Colour, Output, remark};
use crate::Failure;
use crate::settings::Settings;
use crate::text::{shortened, visible, visible_json};

/// The types of the contract.
const TYPES: [&str; 15] = [
    "connected",
    "disconnected",
    "dormant",
    "awake",
    "moved",
    "upstream",
    "downstream",
    "refused",
    "registered",
    "appversion-updated",
    "updated",
    "join",
    "keep-alive",
    "leave",
    "events-dropped",
];

#[derive(Debug, Default, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// One JSON object per event: its subject and the event.
    #[arg(long)]
    json: bool,
    /// Only events of this device.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Only events of this tenant's devices.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only events of these types, between commas.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = PossibleValuesParser::new(TYPES))]
    types: Vec<String>,
}

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn watch(args: &WatchArgs, settings: &Settings, out: &mut Output) -> Result<(), Failure> {
    let mut connection = client::connect(&args.client, settings, "watch").await?;
    loop {
        follow(args, settings, &connection, out).await?;
        // Only a gateway that has started again elsewhere leads here; it was reachable a moment ago.
        connection = loop {
            match client::connect(&args.client, settings, "watch").await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
    }
}

/// Prints events until the gateway's NATS is to be found elsewhere.
async fn follow(
    args: &WatchArgs,
    settings: &Settings,
    connection: &Connection,
    out: &mut Output,
) -> Result<(), Failure> {
    let Connection { client, place, .. } = connection;
    let failed = |error: &dyn std::fmt::Display| Failure::Runtime(format!("NATS at {place}: {error}"));
    let mut events = client.subscribe(WATCH_ALL).await.map_err(|error| failed(&error))?;
    client::settle(client).await?;
    if !args.json {
        remark(&format!("watching {place}"));
    }
    let mut clock = tokio::time::interval(LOOK);
    let mut connected = true;
    loop {
        let message = tokio::select! {
            message = events.next() => message.ok_or_else(|| failed(&"the connection was closed"))?,
            _ = clock.tick() => {
                let now = client.connection_state() == State::Connected;
                match (connected, now) {
                    (true, false) => remark(&format!("the connection to {place} broke; what happens meanwhile is not shown")),
                    (false, true) => remark(&format!("watching {place} again")),
                    _ => {}
                }
                connected = now;
                if !connected && client::has_moved(&args.client, settings, connection).await {
                    return Ok(());
                }
                continue;
            }
        };
        let seen = Seen::new(&message);
        if args.wants(&seen) {
            out.line(&if args.json { seen.json() } else { seen.line(out) })?;
        }
    }
}

/// A message that is probably an event.
struct Seen<'a> {
    subject: &'a str,
    document: Result<Cow<'a, [u8]>, WireError>,
    event: Result<Event, WireError>,
}

impl<'a> Seen<'a> {
    fn new(message: &'a Message) -> Self {
        let header = |name: &str| landfall_nats::header(message, name);
        Self {
            subject: &message.subject,
            document: wire::to_json(header, &message.payload),
            event: wire::read(header, &message.payload),
        }
    }

    /// The event's type, from its subject: that is there whatever the body is.
    fn kind(&self) -> &str {
        subject::parse_event(self.subject).map_or("", |parsed| parsed.kind)
    }

    fn instance(&self) -> &str {
        subject::parse_event(self.subject).map_or("", |parsed| parsed.instance)
    }

    /// Is there a session or a device in it that `wanted` names?
    fn names(&self, wanted: impl Fn(&str, &str) -> bool) -> bool {
        let Ok(event) = &self.event else { return false };
        let session = |session: &wire::Session| wanted(session.tenant.as_str(), session.endpoint_id.as_str());
        match &event.body {
            Body::Connected(connected) => session(&connected.session),
            Body::Disconnected(ended) => ended.iter().any(|ended| session(&ended.session)),
            Body::Moved(moved) => session(&moved.session),
            Body::Dormant(dormant) => session(&dormant.session),
            Body::Awake(awake) => session(&awake.session),
            Body::Upstream(upstream) => session(&upstream.session),
            Body::Downstream(command) => {
                wanted(command.details.tenant.as_str(), command.details.endpoint_id.as_str())
            }
            Body::Refused(refused) => match (&refused.tenant, &refused.endpoint_id) {
                (Some(tenant), Some(device)) => wanted(tenant.as_str(), device.as_str()),
                // Who looks for a device wants to see that it, or somebody in its name, is not let in.
                _ => refused.claimed_id.as_deref().is_some_and(|claimed| {
                    let (device, tenant) = claimed.rsplit_once('@').unwrap_or((claimed, TenantId::DEFAULT));
                    wanted(TenantId::DEFAULT, claimed) || wanted(tenant, device)
                }),
            },
            Body::Service(_) | Body::Dropped(_) => false,
        }
    }

    /// One compact object. What is no event of ours is told as such, with its subject.
    fn json(&self) -> String {
        let subject = serde_json::Value::from(self.subject);
        let line = match &self.document {
            Ok(document) if serde_json::from_slice::<IgnoredAny>(document).is_ok() => {
                format!("{{\"subject\":{subject},\"event\":{}}}", String::from_utf8_lossy(document))
            }
            Ok(_) => format!("{{\"subject\":{subject},\"unreadable\":\"is no JSON\"}}"),
            Err(error) => format!(
                "{{\"subject\":{subject},\"unreadable\":{}}}",
                serde_json::Value::from(error.to_string())
            ),
        };
        visible_json(line.as_bytes())
    }

    fn line(&self, out: &Output) -> String {
        match &self.event {
            Ok(event) => line(event, out),
            Err(error) => {
                let subject = visible(self.subject);
                let error = error.to_string();
                format!("{}  {}", out.paint(Colour::Grey, &subject), visible(&shortened(&error, 200)))
            }
        }
    }
}

impl WatchArgs {
    fn wants(&self, seen: &Seen<'_>) -> bool {
        let of_type = self.types.is_empty() || self.types.iter().any(|kind| kind == seen.kind());
        let of_instance = self.client.instance.as_deref().is_none_or(|instance| instance == seen.instance());
        let anybody = self.device.is_none() && self.tenant.is_none();
        let named = |tenant: &str, device: &str| {
            self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
                && self.device.as_deref().is_none_or(|wanted| wanted == device)
        };
        of_type && of_instance && (anybody || seen.names(named))
    }
}

#[cfg(test)]
mod tests {

    use landfall_event::{
        Connected, Epoch, Event as Published, EventId, Format, IdentifiedBy, Identity, Occasion, Origin,
        SessionId, SessionInfo, SessionRef, Stream, Subjects, Transport, Upstream, encode,
        encode_raw_upstream,
    };

    use super::super::output::tests::Printed;
    use super::*;

    fn origin() -> Origin {
        Origin {
            instance: "north".parse().unwrap(),
            replica: "a1".parse().unwrap(),
            incarnation: SessionId::new(1, [0; 10]),
        }
    }

    fn session() -> SessionRef {
        SessionRef::from(SessionInfo {
            tenant: "acme".parse().unwrap(),
            device: "pump 17".parse().unwrap(),
            app_version: "".into(),
            identity: Identity::new(SessionId::new(2, [0; 10]), Epoch(1)),
            transport: Transport::Mqtt,
        })
    }

    fn message(subject: &str, headers: &[(&'static str, String)], body: bytes::Bytes) -> Message {
        let mut map = async_nats::HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, value.as_str()));
        Message {
            subject: subject.into(),
            reply: None,
            payload: body,
            headers: (!headers.is_empty()).then_some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn published(format: Format) -> Message {
        let event = Published::Connected(Connected {
            session: session(),
            protocol: "MQTT/5.0",
            remote_id: "c\u{1b}[2J".into(),
            remote_address: "127.0.0.1:5".parse().unwrap(),
            identified_by: IdentifiedBy::Password,
            keep_alive_ms: None,
            inferred: false,
            clean_start: Some(true),
        });
        let origin = origin();
        let occasion = Occasion {
            origin: &origin,
            id: EventId::Session(session().session(), Stream::Connectivity, 1),
            at: 0,
        };
        let encoded = encode(format, &occasion, &event);
        message(&Subjects::new(&origin.instance).of(&event), &encoded.headers, encoded.body)
    }

    fn raw(payload: &'static [u8]) -> Message {
        let upstream = Upstream {
            session: session(),
            seq: 1,
            topic: "t".into(),
            qos: Some(0),
            retain: false,
            will: false,
            content_type: None,
            properties: Vec::new(),
            publish: None,
            payload: bytes::Bytes::from_static(payload),
        };
        let origin = origin();
        let occasion = Occasion {
            origin: &origin,
            id: EventId::Session(session().session(), Stream::Messages, 1),
            at: 0,
        };
        let encoded = encode_raw_upstream(&occasion, &upstream);
        let subject = Subjects::new(&origin.instance).of(&Published::Upstream(upstream));
        message(&subject, &encoded.headers, encoded.body)
    }

    #[test]
    fn every_format_gives_the_same_line_and_the_same_json() {
        let mut lines = Vec::new();
        for format in Format::ALL {
            let message = published(*format);
            let seen = Seen::new(&message);
            let json: serde_json::Value = serde_json::from_str(&seen.json()).unwrap();
            assert_eq!(json["subject"], *message.subject);
            assert_eq!(json["event"]["type"], "connected");
            assert_eq!(json["event"]["remoteId"], "c\u{1b}[2J");
            assert!(!seen.json().contains('\u{1b}'));
            lines.push(seen.line(&Printed::default().output(false)));
        }
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:#?}");
        assert!(
            lines[0].contains("pump 17@acme") && lines[0].contains("calls itself c\\u{1b}[2J"),
            "{lines:?}"
        );
        let message = raw(b"\x1b]0;owned\x07{\n");
        let seen = Seen::new(&message);
        assert!(seen.line(&Printed::default().output(false)).ends_with("t qos 0: \\u{1b}]0;owned\\u{7}{\\n"));
        let json: serde_json::Value = serde_json::from_str(&seen.json()).unwrap();
        assert_eq!(json["event"]["topic"], "t");
        assert_eq!(seen.json().lines().count(), 1);
    }

    #[test]
    fn what_is_no_event_is_shown_as_such() {
        let subject = published(Format::Json).subject.to_string();
        for body in ["", "{", "{\"type\":\"connected\"}", "\u{1b}[2J", "[1]"] {
            let message = message(&subject, &[], body.to_owned().into());
            let seen = Seen::new(&message);
            let line = seen.line(&Printed::default().output(false));
            assert!(line.starts_with(&*subject) && !line.contains('\u{1b}'), "{line}");
            let json: serde_json::Value = serde_json::from_str(&seen.json()).unwrap();
            assert_eq!(json["subject"], *subject);
        }
    }

    #[test]
    fn filters_choose_by_device_tenant_type_and_instance() {
        let connected = published(Format::Json);
        let seen = Seen::new(&connected);
        let args = |device: &str, tenant: &str, kind: &str, instance: &str| {
            let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            WatchArgs {
                client: ClientArgs { instance: set(instance), ..ClientArgs::default() },
                device: set(device),
                tenant: set(tenant),
                types: set(kind).into_iter().collect(),
                ..WatchArgs::default()
            }
        };
        for (device, tenant, kind, instance, expected) in [
            ("", "", "", "", true),
            ("pump 17", "acme", "connected", "north", true),
            ("pump", "", "", "", false),
            ("", "default", "", "", false),
            ("pump 17", "default", "", "", false),
            ("", "", "upstream", "", false),
            ("", "", "", "south", false),
        ] {
            assert_eq!(
                args(device, tenant, kind, instance).wants(&seen),
                expected,
                "{device} {tenant} {kind} {instance}"
            );
        }
    }
}
