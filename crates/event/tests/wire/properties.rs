//! For every event: its encodings are valid, say what the event says, and hold nothing that breaks out.

use landfall_event::json::PayloadEncoding;
use landfall_event::{
    Awake, Disconnected, Dormant, Encoded, Epoch, Event, EventId, Fate, Format, Identity, Moved, Occasion,
    Renewal, SessionId, SessionInfo, SessionRef, Upstream, encode, encode_raw_upstream, json, reissue, wire,
};
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
    use landfall_event::{Ended, Reason, Transport};
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

/// The event's session, where it is of one that goes on.
fn session_of(event: &Event) -> Option<(&SessionRef, u64)> {
    match event {
        Event::Connected(connected) => Some((&connected.session, 1)),
        Event::Moved(Moved { session, seq, .. })
        | Event::Dormant(Dormant { session, seq, .. })
        | Event::Awake(Awake { session, seq, .. }) => Some((session, *seq)),
        Event::Upstream(upstream) => Some((&upstream.session, upstream.seq)),
        _ => None,
    }
}

/// Writes an event for another incarnation in one go, as the reference for what is written anew.
fn written(format: Option<Format>, occasion: &Occasion<'_>, event: &Event) -> Encoded {
    match (format, event) {
        (None, Event::Upstream(upstream)) => encode_raw_upstream(occasion, upstream),
        (format, event) => encode(format.unwrap_or_default(), occasion, event),
    }
}

proptest! {
    /// Writing anew gives what would have been written in the first place.
    #[test]
    fn an_event_written_anew_is_the_event_of_the_new_session(
        sample in sample(), renewed in any::<bool>(), less in 0..50_u64, random in any::<[u8; 10]>(),
    ) {
        // It never names nobody.
        if matches!(&sample.event, Event::Disconnected(Disconnected { ended }) if ended.is_empty()) {
            return Ok(());
        }
        let (old, mut new) = (origin(), origin());
        new.incarnation = SessionId::new(77, random);
        let mut changed = sample.event.clone();
        let (mut id, mut fate) = (sample.id, Fate::Keep);
        if let (true, Some((session, seq))) = (renewed, session_of(&sample.event)) {
            let less = less.min(seq);
            let renewal = Renewal {
                session: SessionId::new(99, random), epoch: Epoch(4711), presence_less: less, messages_less: less,
            };
            fate = Fate::Renew(renewal);
            let identity = Identity::new(renewal.session, renewal.epoch);
            let info = SessionRef::from(SessionInfo { identity, ..SessionInfo::clone(session) });
            let stream = sample.event.stream();
            id = EventId::Session(renewal.session, stream, seq - less);
            match &mut changed {
                // Its number is not said but always 1.
                Event::Connected(_) => return Ok(()),
                Event::Moved(Moved { session, seq, .. })
                | Event::Dormant(Dormant { session, seq, .. })
                | Event::Awake(Awake { session, seq, .. })
                | Event::Upstream(Upstream { session, seq, .. }) => (*session, *seq) = (info, *seq - less),
                _ => {}
            }
        }
        for format in [None, Some(Format::Json), Some(Format::Kaa2017), Some(Format::KaaElce)] {
            let encoded = written(format, &sample.occasion(&old), &sample.event);
            let occasion = Occasion { origin: &new, id, at: sample.at };
            let expected = written(format, &occasion, &changed);
            prop_assert_eq!(
                reissue(sample.id, &encoded, new.incarnation, |_| fate), Some((id, expected)), "{:?}", format
            );
        }
    }

    /// Of an event that names several sessions, those stay that were not closed.
    #[test]
    fn several_ends_written_anew_name_those_that_are_news(sample in sample(), gone in any::<prop::sample::Index>()) {
        let Event::Disconnected(Disconnected { ended }) = &sample.event else { return Ok(()) };
        if ended.len() < 2 {
            return Ok(());
        }
        let origin = origin();
        let gone = ended[gone.index(ended.len())].session.session();
        let fate = |session| if session == gone { Fate::Drop } else { Fate::Keep };
        for format in Format::ALL {
            let encoded = encode(*format, &sample.occasion(&origin), &sample.event);
            let (_, anew) = reissue(sample.id, &encoded, origin.incarnation, fate).unwrap();
            let wire::Body::Disconnected(left) = wire::read(header(&anew), &anew.body).unwrap().body else {
                panic!("another kind of event");
            };
            let left: Vec<SessionId> = left.iter().map(|one| one.session.session_id).collect();
            let all = ended.iter().map(|one| one.session.session()).filter(|one| *one != gone);
            prop_assert_eq!(left, all.collect::<Vec<_>>());
            prop_assert_eq!(reissue(sample.id, &encoded, origin.incarnation, |_| Fate::Drop), None);
        }
    }
}
