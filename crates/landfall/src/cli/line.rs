//! One event as one line for people.
//!
//! Owns: what of an event is worth a line. Does not own: reading an event (`landfall-event`), colours (`super::output`).
//!
//! Every text of a device goes through [`visible`]: no event can move the cursor of who reads it.

use std::fmt::Write as _;

use landfall_event::wire::{
    Awake, Body, Connected, Dormant, Downstream, Dropped, Ended, Event, Moved, Payload, Refused, Service,
    ServiceDetails, Session, Upstream,
};
use landfall_event::{Initiator, ServiceKind, TenantId};

use super::output::{Colour, Output};
use crate::text::{shortened, visible};

/// Characters of a payload that are shown.
const PAYLOAD: usize = 160;
/// Characters of a topic or an id that are shown.
const NAME: usize = 80;

/// The event's line.
pub(super) fn line(event: &Event, out: &Output) -> String {
    let (subject, rest) = match &event.body {
        Body::Connected(connected) => (device(&connected.session), self::connected(connected)),
        Body::Disconnected(ended) => disconnected(ended),
        Body::Moved(moved) => (device(&moved.session), self::moved(moved)),
        Body::Dormant(dormant) => (device(&dormant.session), self::dormant(dormant)),
        Body::Awake(awake) => (device(&awake.session), self::awake(awake)),
        Body::Upstream(upstream) => (device(&upstream.session), self::upstream(upstream)),
        Body::Downstream(downstream) => {
            let details = &downstream.details;
            (name(details.tenant.as_str(), details.endpoint_id.as_str()), self::downstream(downstream))
        }
        Body::Refused(refused) => (refused_device(refused), self::refused(refused)),
        Body::Service(service) => (replica(event), self::service(service)),
        Body::Dropped(dropped) => (replica(event), self::dropped(dropped)),
    };
    let kind = out.paint(colour(&event.body), &format!("{:<12}", visible(&event.head.kind)));
    let time = out.paint(Colour::Grey, &clock(event.head.timestamp));
    format!("{time}  {kind}  {subject:<16}  {rest}").trim_end().to_owned()
}

fn colour(body: &Body) -> Colour {
    match body {
        Body::Connected(_) | Body::Awake(_) => Colour::Green,
        Body::Disconnected(_) | Body::Moved(_) | Body::Dormant(_) => Colour::Yellow,
        Body::Upstream(_) => Colour::Cyan,
        Body::Downstream(_) => Colour::Magenta,
        Body::Refused(_) | Body::Dropped(_) => Colour::Red,
        Body::Service(_) => Colour::Grey,
    }
}

/// A device for people: its tenant is named unless it is the default one.
pub(super) fn name(tenant: &str, device: &str) -> String {
    let device = shortened(device, NAME);
    if tenant == TenantId::DEFAULT {
        visible(&device).into_owned()
    } else {
        format!("{}@{}", visible(&device), visible(&shortened(tenant, NAME)))
    }
}

fn replica(event: &Event) -> String {
    visible(event.head.originator_replica_id.as_str()).into_owned()
}

fn device(session: &Session) -> String {
    name(session.tenant.as_str(), session.endpoint_id.as_str())
}

fn connected(event: &Connected) -> String {
    let details = &event.details;
    let mut text = format!(
        "{} {} from {}, {}",
        event.session.transport,
        visible(&details.protocol),
        visible(&details.remote_address),
        details.identified_by
    );
    if details.remote_id != event.session.endpoint_id.as_str() {
        // Writing to a string does not fail, here and below.
        let _ = write!(text, ", calls itself {}", visible(&shortened(&details.remote_id, NAME)));
    }
    match details.keep_alive_ms {
        Some(ms) => drop(write!(text, ", keep-alive {}", duration(ms))),
        None => text.push_str(", no keep-alive"),
    }
    if details.inferred {
        text.push_str(", inferred");
    }
    text
}

fn disconnected(ended: &[Ended]) -> (String, String) {
    let [one] = ended else {
        let reason = ended.first().map_or("", |first| first.details.reason.as_str());
        let names: Vec<_> = ended.iter().take(5).map(|e| device(&e.session)).collect();
        let more = if ended.len() > names.len() { ", …" } else { "" };
        return (format!("{} sessions", ended.len()), format!("{reason}: {}{more}", names.join(", ")));
    };
    let details = &one.details;
    let mut text =
        format!("{}{} after {}", details.reason, by(details.initiator), duration(details.duration_ms));
    if let (Some(sent), Some(got)) = (details.messages_in, details.messages_out) {
        let _ = write!(text, ", {sent} in, {got} out");
    }
    if details.inferred {
        text.push_str(", inferred");
    }
    if let Some(detail) = &details.detail {
        let _ = write!(text, ": {}", visible(detail));
    }
    if let Some(evidence) = details.evidence {
        let (silent, interval) = (duration(evidence.silent_ms), duration(evidence.interval_ms));
        let _ = write!(text, ": silent for {silent}, usually {interval} (phi {:.1})", evidence.phi);
    }
    (device(&one.session), text)
}

fn moved(event: &Moved) -> String {
    let details = &event.details;
    format!("to {} from {}", visible(&details.remote_address), visible(&details.previous_address))
}

fn dormant(event: &Dormant) -> String {
    let details = &event.details;
    format!("sleeps for {}, lost unless heard by {}", duration(details.sleep_ms), clock(details.wake_by))
}

fn awake(event: &Awake) -> String {
    format!("after {}", duration(event.details.dormant_ms))
}

fn by(initiator: Initiator) -> &'static str {
    match initiator {
        Initiator::Device => " by the device",
        Initiator::Gateway => " by the gateway",
        Initiator::Operator => " by an operator",
        Initiator::Network => "",
    }
}

fn upstream(event: &Upstream) -> String {
    let details = &event.details;
    let mut words = Vec::new();
    if !details.topic.is_empty() {
        words.push(visible(&shortened(&details.topic, NAME)).into_owned());
    }
    words.extend(details.qos.map(|qos| format!("qos {qos}")));
    let flags = [(details.retain, "retain"), (details.will, "will")];
    words.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, word)| word.to_owned()));
    if words.is_empty() {
        return payload(&event.payload);
    }
    format!("{}: {}", words.join(" "), payload(&event.payload))
}

pub(super) fn downstream(event: &Downstream) -> String {
    let details = &event.details;
    let mut text = format!(
        "{} {}: {} in {}",
        visible(details.name.as_str()),
        visible(details.command_id.as_str()),
        details.outcome,
        duration(details.latency_ms)
    );
    if let Some(status) = &details.status {
        let _ = write!(text, ", status {}", visible(&shortened(status, NAME)));
    }
    if let Some(response) = &event.response {
        let _ = write!(text, ": {}", payload(response));
    }
    text
}

fn refused_device(event: &Refused) -> String {
    match (&event.tenant, &event.endpoint_id) {
        (Some(tenant), Some(device)) => name(tenant.as_str(), device.as_str()),
        _ => match &event.claimed_id {
            // It has proven nothing.
            Some(claimed) => format!("{}?", visible(&shortened(claimed, NAME))),
            None => "-".to_owned(),
        },
    }
}

fn refused(event: &Refused) -> String {
    let times = if event.count == 1 { String::new() } else { format!(" {} times", event.count) };
    let mut text =
        format!("{}{times} from {}, {}", event.cause, visible(&event.remote_address), event.transport);
    if let Some(topic) = &event.topic {
        let _ = write!(text, ", topic {:?}", visible(&shortened(topic, NAME)));
    }
    if let (Some(claimed), Some(_)) = (&event.claimed_id, &event.endpoint_id) {
        let _ = write!(text, ", named {}", visible(&shortened(claimed, NAME)));
    }
    for (others, what) in [(event.other_claims, "name"), (event.other_topics, "topic")] {
        if others > 0 {
            let _ = write!(text, ", {others} with another {what}");
        }
    }
    if let Some(detail) = &event.detail {
        let _ = write!(text, ": {}", visible(detail));
    }
    text
}

fn service(event: &Service) -> String {
    let ServiceDetails { version, sessions, .. } = &event.details;
    match event.kind {
        ServiceKind::Join => format!("the gateway serves, version {}", visible(version)),
        ServiceKind::KeepAlive => format!("{sessions} sessions open"),
        ServiceKind::Leave => "the gateway has left".to_owned(),
    }
}

fn dropped(event: &Dropped) -> String {
    format!(
        "{} whole sessions and {} messages: no room on disk, or closed by another gateway meanwhile",
        event.sessions, event.messages
    )
}

fn payload(payload: &Payload) -> String {
    if payload.bytes.is_empty() {
        return "(empty)".to_owned();
    }
    match std::str::from_utf8(&payload.bytes) {
        Ok(text) => visible(&shortened(text, PAYLOAD)).into_owned(),
        Err(_) => format!("({} bytes)", payload.bytes.len()),
    }
}

/// A length of time, in the two largest units that say something.
pub(super) fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 => format!("{ms}ms"),
        1..10 => format!("{s}.{}s", ms % 1_000 / 100),
        10..120 => format!("{s}s"),
        120..7_200 => format!("{}m{}s", s / 60, s % 60),
        7_200..172_800 => format!("{}h{}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// The time of day in UTC.
fn clock(unix_ms: u64) -> String {
    let ms = unix_ms % 86_400_000;
    format!("{:02}:{:02}:{:02}.{:03}Z", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use landfall_event::wire::decode;

    use super::super::output::tests::Printed;
    use super::*;

    const HEAD: &str = r#""id":"01991234-5678-7fff-bfff-ffffffffffff.c.1","correlationId":"x","timestamp":43445678,"timeout":0,
        "originatorReplicaId":"a1","incarnation":"01991234-5678-7fff-bfff-ffffffffffff""#;
    const SESSION: &str = r#""appVersionName":"","sessionId":"01991234-5678-7fff-bfff-ffffffffffff","epoch":1,"seq":1,
        "transport":"mqtt""#;

    fn shown(kind: &str, tenant: &str, rest: &str) -> String {
        let body = format!(
            r#"{{"type":"{kind}",{HEAD},"tenant":"{tenant}","endpointId":"pump-17",{SESSION},{rest}}}"#
        );
        let event = decode(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        line(&event, &Printed::default().output(false))
    }

    #[test]
    fn sessions_begin_and_end() {
        let rest = r#""protocol":"MQTT/5.0","remoteId":"pump-17","remoteAddress":"127.0.0.1:5","identifiedBy":"anonymous",
            "keepAliveMs":90000,"inferred":false,"cleanStart":true"#;
        assert_eq!(
            shown("connected", "default", rest),
            "12:04:05.678Z  connected     pump-17           mqtt MQTT/5.0 from 127.0.0.1:5, anonymous, keep-alive 90s"
        );
        let rest = r#""reason":"keep-alive-timeout","initiator":"gateway","inferred":false,"connectedAt":1,"durationMs":1500,
            "messagesIn":5,"messagesOut":0"#;
        assert_eq!(
            shown("disconnected", "acme", rest),
            "12:04:05.678Z  disconnected  pump-17@acme      keep-alive-timeout by the gateway after 1.5s, 5 in, 0 out"
        );
    }

    #[test]
    fn a_stateless_session_moves_sleeps_wakes_and_falls_silent() {
        let rest = r#""remoteAddress":"192.0.2.1:7","previousAddress":"192.0.2.1:5""#;
        assert_eq!(
            shown("moved", "default", rest),
            "12:04:05.678Z  moved         pump-17           to 192.0.2.1:7 from 192.0.2.1:5"
        );
        let text = shown("dormant", "default", r#""sleepMs":3600000,"wakeBy":47345678"#);
        assert!(
            text.ends_with("pump-17           sleeps for 60m0s, lost unless heard by 13:09:05.678Z"),
            "{text}"
        );
        let text = shown("awake", "acme", r#""dormantMs":3599210"#);
        assert!(text.ends_with("awake         pump-17@acme      after 59m59s"), "{text}");
        let rest = r#""reason":"idle-timeout","initiator":"gateway","inferred":true,"connectedAt":1,"durationMs":600000,
            "evidence":{"intervalMs":30120,"silentMs":51900,"phi":8.004}"#;
        let text = shown("disconnected", "default", rest);
        assert!(
            text.ends_with(
                "idle-timeout by the gateway after 10m0s, inferred: silent for 51s, usually 30s (phi 8.0)"
            ),
            "{text}"
        );
        let text = shown("moved", "default", r#""remoteAddress":"\u001b[2J","previousAddress":"\u202e""#);
        assert!(text.ends_with("to \\u{1b}[2J from \\u{202e}"), "{text}");
    }

    #[test]
    fn several_sessions_that_end_together_are_one_line() {
        let one = |device: &str| {
            format!(
                r#"{{"tenant":"default","endpointId":"{device}",{SESSION},"timestamp":1,"reason":"gateway-lost",
                "initiator":"gateway","inferred":true,"connectedAt":1,"durationMs":1}}"#
            )
        };
        let rest = format!(r#""endpointIds":["a","b"],"sessions":[{},{}]"#, one("a"), one("b"));
        assert_eq!(
            shown("disconnected", "default", &rest),
            "12:04:05.678Z  disconnected  2 sessions        gateway-lost: a, b"
        );
    }

    #[test]
    fn messages_show_what_was_sent_and_nothing_that_acts() {
        let message = |topic: &str, payload: &str, encoding: &str| {
            let id = "01991234-5678-7fff-bfff-ffffffffffff.m.1";
            let rest = format!(
                r#""messageId":"{id}","topic":"{topic}","qos":1,"will":true,"payload":{payload},"payloadEncoding":"{encoding}""#
            );
            shown("upstream", "default", &rest)
        };
        let text = message("t/x", r#"{"a":1}"#, "json");
        assert!(text.ends_with(r#"pump-17           t/x qos 1 will: {"a":1}"#), "{text}");
        let nameless = r#""messageId":"01991234-5678-7fff-bfff-ffffffffffff.m.1","payload":21.5,"payloadEncoding":"json""#;
        let text = shown("upstream", "default", nameless);
        assert!(text.ends_with("upstream      pump-17           21.5"), "{text}");
        let text = message("t\\u202e", r#""\u001b[2J\r\n""#, "utf8");
        assert!(text.ends_with("t\\u{202e} qos 1 will: \\u{1b}[2J\\r\\n"), "{text}");
        assert!(message("t", r#""/w==""#, "base64").ends_with(": (1 bytes)"));
        assert!(message("t", r#""""#, "utf8").ends_with(": (empty)"));
        let long = message("t", &format!("\"{}\"", "é".repeat(5_000)), "utf8");
        assert!(long.chars().count() < 260 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn commands_refusals_and_the_gateway_itself() {
        let rest = r#""commandId":"c-1","name":"reboot","outcome":"answered","latencyMs":12,"attempts":1,"status":"200",
            "response":"ok","responseEncoding":"utf8""#;
        let text = shown("downstream", "default", rest);
        assert!(text.ends_with("reboot c-1: answered in 12ms, status 200: ok"), "{text}");
        let rest =
            r#""cause":"bad-credentials","remoteAddress":"10.0.0.1:5","count":3,"firstAt":1,"lastAt":2"#;
        let text = shown("refused", "default", rest);
        assert!(text.ends_with("bad-credentials 3 times from 10.0.0.1:5, mqtt"), "{text}");
        let rest = format!(
            r#"{rest},"claimedId":"valve\u001b[2J","otherClaims":2,"topic":"up/x","otherTopics":1,"detail":"no\u001b[2J""#
        );
        let text = shown("refused", "default", &rest);
        let told = "mqtt, topic \"up/x\", named valve\\u{1b}[2J, 2 with another name, 1 with another topic: no\\u{1b}[2J";
        assert!(text.ends_with(told), "{text}");
        let body = format!(r#"{{"type":"refused",{HEAD},"transport":"mqtts",{rest}}}"#);
        let text = line(&decode(body.as_bytes()).unwrap(), &Printed::default().output(false));
        assert!(text.contains("refused       valve\\u{1b}[2J?   bad-credentials 3 times"), "{text}");
        let text = shown("keep-alive", "default", r#""version":"0.1.0","sessions":7,"startedAt":1"#);
        assert!(text.contains("keep-alive    a1") && text.ends_with("7 sessions open"), "{text}");
    }

    #[test]
    fn durations_are_short() {
        for (ms, expected) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_900, "1.9s"),
            (90_000, "90s"),
            (300_500, "5m0s"),
            (7_260_000, "2h1m"),
            (200_000_000, "2d7h"),
        ] {
            assert_eq!(duration(ms), expected);
        }
    }
}
