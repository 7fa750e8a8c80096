//! For every event: its encodings are valid, say what the event says, and hold nothing that breaks out.

use landfall_event::json::PayloadEncoding;
use landfall_event::{Encoded, Event, Format, encode, encode_raw_upstream, json, wire};
use proptest::prelude::*;

use crate::generate::{sample, seen};
use crate::samples::origin;

fn header<'h>(encoded: &'h Encoded) -> impl Fn(&str) -> Option<&'h str> {
    |name| encoded.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
}

/// Header values are printable ASCII without a space at either end, so that no parser changes them.
fn assert_harmless(encoded: &Encoded) {
    for (name, value) in &encoded.headers {
        assert!(name.starts_with("Landfall-"), "{name}");
        assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{name}: {value:?}");
        assert_eq!(value.trim(), value, "{name}");
    }
}

proptest! {
    #[test]
    fn json_is_one_valid_document_and_reads_back_equal(sample in sample()) {
        let origin = origin();
        let body = json::encode(&sample.occasion(&origin), &sample.event);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        prop_assert!(value.is_object());
        prop_assert!(std::str::from_utf8(&body).is_ok());
        prop_assert_eq!(json::decode(&body).unwrap(), seen(&sample));
        let line = json::one_line(&body);
        prop_assert!(!line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t' && *byte != 0x7f));
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&line).unwrap(), value);
    }

    #[test]
    fn every_format_reads_back_equal(sample in sample()) {
        let origin = origin();
        for format in Format::ALL {
            let encoded = encode(*format, &sample.occasion(&origin), &sample.event);
            assert_harmless(&encoded);
            prop_assert_eq!(wire::read(header(&encoded), &encoded.body).unwrap(), seen(&sample));
        }
    }

    #[test]
    fn raw_upstream_reads_back_equal(sample in sample()) {
        let origin = origin();
        if let Event::Upstream(upstream) = &sample.event {
            let encoded = encode_raw_upstream(&sample.occasion(&origin), upstream);
            assert_harmless(&encoded);
            let mut expected = seen(&sample);
            if let wire::Body::Upstream(seen) = &mut expected.body {
                seen.payload = wire::Payload { encoding: PayloadEncoding::Raw, bytes: upstream.payload.to_vec() };
            }
            prop_assert_eq!(wire::read(header(&encoded), &encoded.body).unwrap(), expected);
        }
    }

    /// A reader survives whatever stands in a stream.
    #[test]
    fn damaged_events_are_errors_or_events_and_never_a_panic(
        sample in sample(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let origin = origin();
        for format in Format::ALL {
            let encoded = encode(*format, &sample.occasion(&origin), &sample.event);
            let mut body = encoded.body.to_vec();
            let place = at.index(body.len());
            body[place] = byte;
            body.truncate(cut.index(body.len() + 1));
            let _ = wire::read(header(&encoded), &body);
            let _ = wire::read(|name| header(&encoded)(name).map(|value| &value[..cut.index(value.len() + 1)]), &encoded.body);
        }
    }

    #[test]
    fn foreign_bytes_are_errors_and_never_a_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200), value in "[ -~]{0,20}",
    ) {
        prop_assert!(json::decode(&body).is_err());
        let _ = wire::read(|_| Some(value.as_str()), &body);
    }
}

#[test]
fn a_reader_ignores_new_fields_and_refuses_unknown_words() {
    let origin = origin();
    let sample = crate::samples::samples().swap_remove(1);
    let body = json::encode(&sample.occasion(&origin), &sample.event);
    let text = std::str::from_utf8(&body).unwrap();
    let newer = text.replacen('{', "{\"weather\":{\"since\":[1,2]},", 1);
    assert_eq!(json::decode(newer.as_bytes()).unwrap(), seen(&sample));
    for (from, to) in [
        ("connection-lost", "gone"),
        ("\"type\":\"disconnected\"", "\"type\":\"vanished\""),
        ("\"epoch\":1760000000000", "\"epoch\":\"1760000000000\""),
        ("\"seq\":2", "\"seq\":-2"),
        ("\"seq\":2", "\"seq\":2,\"seq\":3"),
        ("\"inferred\":false", "\"inferred\":0"),
        (".c.2\"", ".c.02\""),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        assert!(json::decode(wrong.as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn a_bottomless_document_costs_no_stack() {
    for opening in ["[", "{\"a\":"] {
        let document = format!("{{\"evidence\":{}", opening.repeat(1 << 20));
        assert!(json::decode(document.as_bytes()).is_err());
    }
}

/// The limits that [`Format::max_sessions`] states, with the longest ids there are.
#[test]
fn the_largest_event_fits_into_nats() {
    use landfall_event::{Disconnected, Ended, EventId, Reason, SessionInfo, SessionRef, Transport};
    for (format, text) in [(Format::Json, "\""), (Format::Kaa2017, "\u{e9}"), (Format::KaaElce, "\u{e9}")] {
        let longest = text.repeat(128 / text.len());
        let base = crate::samples::session("d", 0, Transport::MqttWss);
        let session = SessionRef::from(SessionInfo {
            tenant: longest.parse().unwrap(),
            device: longest.parse().unwrap(),
            app_version: longest.into(),
            ..SessionInfo::clone(&base)
        });
        let reason = Reason::SecureChannelClosed;
        let mut ended = crate::samples::ended(&session, reason, u64::MAX);
        ended.counters = Some(landfall_event::Counters {
            messages_in: u64::MAX,
            messages_out: u64::MAX,
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
        });
        ended.seq = u64::MAX;
        ended.evidence =
            Some(landfall_event::Evidence { interval_ms: u64::MAX, silent_ms: u64::MAX, phi: 999.999 });
        let ended: Vec<Ended> = vec![ended; format.max_sessions()];
        let origin = origin();
        let id = EventId::Gateway(origin.incarnation, u64::MAX);
        let occasion = landfall_event::Occasion { origin: &origin, id, at: u64::MAX };
        let encoded = encode(format, &occasion, &Event::Disconnected(Disconnected { ended }));
        let headers: usize = encoded.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        assert!(headers < 60_000, "{format}: {headers}");
        assert!(headers + encoded.body.len() < 1_000_000, "{format}: {}", encoded.body.len());
    }
}
