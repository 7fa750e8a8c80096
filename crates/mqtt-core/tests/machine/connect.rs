//! CONNECT and CONNACK (sections 3.1 and 3.2).

use landfall_event::RefusedCause;
use landfall_mqtt_core::{
    Accept, Action, ConnectRequest, DisconnectWhy, Fault, Limits, Refusal, Violation, Will,
};

use crate::peer::*;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

pub(crate) fn request(bytes: &[u8]) -> (Peer, ConnectRequest) {
    let mut peer = Peer::fresh(Limits::default());
    match peer.send(bytes).pop() {
        Some(Action::Connect(request)) => (peer, *request),
        other => panic!("{other:?} after {bytes:02x?}"),
    }
}

/// The fault, and what the client hears of it.
pub(crate) fn refused(bytes: &[u8]) -> (Fault, Vec<u8>) {
    let mut peer = Peer::fresh(Limits::default());
    let fault = peer.fault(bytes);
    (fault, peer.heard())
}

#[test]
fn a_plain_connect_is_understood() {
    for version in BOTH {
        let (peer, request) = request(&connect(version).bytes());
        assert_eq!(peer.conn.version(), Some(version));
        assert_eq!(
            request,
            ConnectRequest {
                version,
                client_id: "pump".into(),
                clean_start: true,
                keep_alive: 60,
                username: None,
                password: None,
                will: None,
                session_expiry: 0,
                user_properties: vec![],
            }
        );
    }
}

#[test]
fn every_part_of_a_connect_is_understood() {
    let properties = [
        &[0x11, 0, 0, 0, 9][..],                     // session expiry
        &[0x21, 0, 7, 0x22, 0, 3, 0x27, 0, 1, 0, 0], // receive maximum, alias maximum, packet size
        &[0x19, 1, 0x17, 1],
        &[&[0x26][..], &text("a"), &text("1"), &[0x26], &text("a"), &text("2")].concat(),
    ]
    .concat();
    let will_properties = [
        &[0x18, 0, 0, 0, 5, 0x01, 1, 0x02, 0, 0, 0, 6][..],
        &[&[0x03][..], &text("text/plain")].concat(),
        &[&[0x08][..], &text("answers")].concat(),
        &[&[0x09][..], &data(b"\0\x01")].concat(),
        &[&[0x26][..], &text("k"), &text("v")].concat(),
    ]
    .concat();
    let bytes = connect(Version::V5)
        .flags(0b1110_1100) // user name, password, will retain, will QoS 1, will
        .properties(&properties)
        .payload(&[
            &text("pump"),
            &with_length(&will_properties),
            &text("gone/pump"),
            &data(b"bye"),
            &text("ann"),
            &data(b"\xFF\0"),
        ])
        .bytes();
    let (_, request) = request(&bytes);
    assert!(!request.clean_start);
    assert_eq!(request.session_expiry, 9);
    assert_eq!(request.username.as_deref(), Some("ann"));
    assert_eq!(request.password, Some(payload(b"\xFF\0")));
    assert_eq!(request.user_properties, [("a".into(), "1".into()), ("a".into(), "2".into())]);
    assert_eq!(
        request.will,
        Some(Will {
            topic: "gone/pump".into(),
            payload: payload(b"bye"),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: 5,
            content_type: Some("text/plain".into()),
            response_topic: Some("answers".into()),
            correlation_data: Some(payload(b"\0\x01")),
            user_properties: vec![("k".into(), "v".into())],
            message_expiry: Some(6),
            payload_is_utf8: true,
        })
    );
    let shown = format!("{request:?}");
    assert!(shown.contains("password: Some(\"..\")") && !shown.contains("255"), "{shown}");
}

#[test]
fn the_first_packet_is_a_connect_or_the_end() {
    for bytes in [&[0xC0, 0][..], &[0x30, 3, 0, 1, b't'], &[0x00], &[0xFF], &[0x11, 0], b"GET / HTTP/1.1\r\n"]
    {
        let (fault, heard) = refused(bytes);
        assert!(heard.is_empty(), "{bytes:02x?}: {heard:02x?}");
        assert_eq!(fault.cause, RefusedCause::Malformed);
    }
}

/// What mosquitto's bridge says first, and falls back from only after a refusal.
#[test]
fn the_highest_bit_of_a_level_says_that_a_bridge_speaks_and_changes_nothing() {
    for (name, level, version) in [("MQTT", 0x84, Version::V311), ("MQIsdp", 0x83, Version::V31)] {
        let bytes = packet(0x10, &[text(name), vec![level, 2, 0, 0], text("x")].concat());
        let (peer, request) = request(&bytes);
        assert_eq!(peer.conn.version(), Some(version));
        assert_eq!((request.version, &*request.client_id), (version, "x"));
    }
}

#[test]
fn versions_that_are_not_served_are_told_so_in_their_own_form() {
    let connect =
        |name: &str, level: u8| packet(0x10, &[text(name), vec![level, 2, 0, 0], text("x")].concat());
    for (bytes, expected) in [
        (connect("MQTT", 2), &[0x20, 2, 0, 1][..]), // [3.1.1: MQTT-3.1.2-2]
        (connect("MQTT", 0), &[0x20, 2, 0, 1]),
        (connect("MQTT", 1), &[0x20, 2, 0, 1]),
        (connect("MQTT", 3), &[0x20, 2, 0, 1]),
        (connect("MQIsdp", 4), &[0x20, 2, 0, 1]),
        (connect("MQIsdp", 0x84), &[0x20, 2, 0, 1]),
        (connect("MQTT", 0x83), &[0x20, 2, 0, 1]),
        (connect("MQTT", 6), &[0x20, 3, 0, 0x84, 0]),
        (connect("MQTT", 0x85), &[0x20, 3, 0, 0x84, 0]),
        (connect("MQTT", 255), &[0x20, 3, 0, 0x84, 0]),
        (connect("MQTX", 4), &[]),
        (connect("mqtt", 5), &[]),
        (packet(0x10, &[]), &[]),
        (packet(0x10, b"\0\x04MQTT"), &[]),
    ] {
        let (fault, heard) = refused(&bytes);
        assert_eq!(heard, expected, "{bytes:02x?}");
        assert_eq!(fault.cause, RefusedCause::UnsupportedVersion);
    }
}

#[test]
fn flags_that_contradict_one_another_are_malformed() {
    let will = [&text("t")[..], &data(b"")].concat();
    for version in BOTH {
        let properties = if version == Version::V5 { &[0][..] } else { &[] };
        for flags in [
            0b0000_0011, // reserved [MQTT-3.1.2-3]
            0b0000_1010, // will QoS without a will [MQTT-3.1.2-11]
            0b0010_0010, // will retain without a will [MQTT-3.1.2-13]
            0b0001_1110, // will QoS 3 [MQTT-3.1.2-12]
        ] {
            let bytes = connect(version).flags(flags).payload(&[&text("x"), properties, &will]).bytes();
            assert_malformed(version, &bytes);
        }
    }
    // A password without a user name is 5.0's to send.
    let bytes = |version| connect(version).flags(0b0100_0010).payload(&[&text("x"), &data(b"p")]).bytes();
    assert_malformed(Version::V311, &bytes(Version::V311));
    assert_eq!(request(&bytes(Version::V5)).1.password, Some(payload(b"p")));
}

fn assert_malformed(version: Version, bytes: &[u8]) {
    let (fault, heard) = refused(bytes);
    assert_eq!(fault.violation, Violation::Malformed, "{bytes:02x?}");
    // 3.1.1 is closed without CONNACK [3.1.1: MQTT-3.1.4-1].
    let expected: &[u8] = if version == Version::V5 { &[0x20, 3, 0, 0x81, 0] } else { &[] };
    assert_eq!(heard, expected, "{bytes:02x?}");
}

#[test]
fn bytes_that_are_missing_or_too_many_are_malformed() {
    for version in BOTH {
        assert_malformed(version, &connect(version).payload(&[&text("x"), b"y"]).bytes());
        assert_malformed(version, &connect(version).payload(&[]).bytes());
        assert_malformed(version, &connect(version).payload(&[&[0, 9, b'x']]).bytes());
        assert_malformed(version, &connect(version).flags(0b1000_0010).bytes()); // user name missing
        assert_malformed(version, &connect(version).flags(0b0000_0110).bytes()); // will missing
        assert_malformed(version, &connect(version).payload(&[&data(b"\xED\xA0\x80")]).bytes());
        assert_malformed(version, &connect(version).payload(&[&text("a\0b")]).bytes());
        assert_malformed(
            version,
            &connect(version).flags(0b1000_0010).payload(&[&text("x"), &text("\0")]).bytes(),
        );
    }
    // The remaining length written with a byte too many.
    let short = connect(Version::V5).bytes();
    let padded = [&[0x10, short[1] | 0x80, 0][..], &short[2..]].concat();
    assert_malformed(Version::V5, &padded);
}

#[test]
fn properties_of_a_connect_are_checked() {
    let user = [&[0x26][..], &text("n"), &text("v")].concat();
    for (properties, code) in [
        (&[0x21, 0, 0][..], 0x82),   // receive maximum 0
        (&[0x27, 0, 0, 0, 0], 0x82), // maximum packet size 0
        (&[0x21, 0, 1, 0x21, 0, 1], 0x82),
        (&[0x17, 2], 0x82),
        (&[0x19, 9], 0x82),
        (&[0x16, 0, 0], 0x82),       // authentication data without a method
        (&[0x02, 0, 0, 0, 1], 0x81), // message expiry is not CONNECT's
        (&[0x11, 0, 0], 0x81),
        (&user.repeat(33), 0x97),
        (&user.repeat(5_000), 0x97),
    ] {
        let (_, heard) = refused(&connect(Version::V5).properties(properties).bytes());
        assert_eq!(heard, [0x20, 3, 0, code, 0], "{properties:02x?}");
    }
}

#[test]
fn enhanced_authentication_is_not_served() {
    let properties = [&[0x15][..], &text("SCRAM-SHA-256"), &[0x16], &data(b"x")].concat();
    let (fault, heard) = refused(&connect(Version::V5).properties(&properties).bytes()); // [MQTT-4.12.0-1]
    assert_eq!(fault.violation, Violation::BadAuthenticationMethod);
    assert_eq!(heard[..4], [0x20, u8::try_from(heard.len() - 2).unwrap(), 0, 0x8C]);
    assert_eq!(heard[5], 0x1F, "in words: {heard:02x?}");
}

#[test]
fn a_client_without_an_id_gets_one_or_is_refused() {
    let empty = |version, flags| connect(version).flags(flags).payload(&[&text("")]).bytes();
    // 3.1.1 without a clean session [3.1.1: MQTT-3.1.3-8].
    let (fault, heard) = refused(&empty(Version::V311, 0));
    assert_eq!((fault.violation, &heard[..]), (Violation::IdentifierRejected, &[0x20, 2, 0, 2][..]));

    for (version, flags, told) in [(Version::V311, 2, false), (Version::V5, 2, true), (Version::V5, 0, true)]
    {
        let (mut peer, request) = request(&empty(version, flags));
        assert!(request.client_id.is_empty());
        assert_eq!(request.clean_start, flags == 2);
        let accept = Accept { assigned_client_id: Some("auto-1".into()), ..Accept::default() };
        let (conn, out) = peer.both();
        conn.accept(&accept, None, out);
        let assigned = [&[0x12][..], &text("auto-1")].concat();
        assert_eq!(contains(&peer.heard(), &assigned), told, "{version:?}"); // [MQTT-3.1.3-7]
    }
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

pub(crate) fn accepted(bytes: &[u8], accept: &Accept, limits: Limits) -> (Peer, Vec<u8>) {
    let mut peer = Peer::fresh(limits);
    assert_eq!(peer.send(bytes).len(), 1);
    let (conn, out) = peer.both();
    conn.accept(accept, None, out);
    let heard = peer.heard();
    (peer, heard)
}

#[test]
fn connack_names_the_limits() {
    let (_, heard) = accepted(&connect(Version::V5).bytes(), &Accept::default(), Limits::default());
    let expected = [
        &[0x20, 18, 0, 0, 15][..],
        &[0x21, 0, 32],      // receive maximum
        &[0x25, 1],          // retain available
        &[0x27, 0, 4, 0, 0], // maximum packet size
        &[0x22, 0, 32],      // topic alias maximum
        &[0x2A, 0],          // no shared subscriptions
    ]
    .concat();
    assert_eq!(heard, expected);
    let (_, heard) = accepted(&connect(Version::V311).bytes(), &Accept::default(), Limits::default());
    assert_eq!(heard, [0x20, 2, 0, 0]);
}

#[test]
fn the_keep_alive_in_force_is_the_operators_or_within_the_bound() {
    for (asked, operator, max, expected) in [
        (60, None, 0, Some(60)),
        (0, None, 0, None),
        (0, None, 300, Some(300)),
        (600, None, 300, Some(300)),
        (60, None, 300, Some(60)),
        (60, Some(10), 300, Some(10)),
        (60, Some(0), 0, None),
        (60, Some(0), 300, None),
        (60, Some(400), 300, Some(400)),
    ] {
        for version in BOTH {
            let limits = Limits { max_keep_alive: max, ..Limits::default() };
            let accept = Accept { keep_alive: operator, ..Accept::default() };
            let (peer, heard) = accepted(&connect(version).keep_alive(asked).bytes(), &accept, limits);
            assert_eq!(peer.conn.keep_alive(), expected);
            let [high, low] = expected.unwrap_or(0).to_be_bytes();
            let told = version == Version::V5 && expected.unwrap_or(0) != asked;
            assert_eq!(contains(&heard, &[0x13, high, low]), told, "{asked} {operator:?} {max}"); // [MQTT-3.2.2-22]
        }
    }
}

#[test]
fn the_session_expiry_in_force_is_told_where_it_was_changed() {
    for (asked, operator, expected) in [
        (0, None, 0),
        (100, None, 100),
        (1_000, None, 500),
        (u32::MAX, None, 500),
        (100, Some(20), 20),
        (0, Some(20), 0),
    ] {
        let limits = Limits { max_session_expiry: 500, ..Limits::default() };
        let properties = [&[0x11][..], &u32::to_be_bytes(asked)].concat();
        let accept = Accept { session_expiry: operator, ..Accept::default() };
        let (peer, heard) = accepted(&connect(Version::V5).properties(&properties).bytes(), &accept, limits);
        assert_eq!(peer.conn.session_expiry(), expected);
        let told = [&[0x11][..], &u32::to_be_bytes(expected)].concat();
        assert_eq!(contains(&heard[5..], &told), asked != expected, "{asked} {operator:?}");
    }
    for (flags, expected) in [(0, 500), (2, 0)] {
        let limits = Limits { max_session_expiry: 500, ..Limits::default() };
        let (peer, _) = accepted(&connect(Version::V311).flags(flags).bytes(), &Accept::default(), limits);
        assert_eq!(peer.conn.session_expiry(), expected);
    }
}

#[test]
fn a_refusal_has_the_code_of_its_version() {
    for (refusal, code, return_code) in [
        (Refusal::BadCredentials, 0x86, 4),
        (Refusal::NotAuthorized, 0x87, 5),
        (Refusal::IdentifierRejected, 0x85, 2),
        (Refusal::ServerUnavailable, 0x88, 3),
        (Refusal::ServerBusy, 0x89, 3),
        (Refusal::Banned, 0x8A, 5),
        (Refusal::QuotaExceeded, 0x97, 3),
        (Refusal::UseAnotherServer, 0x9C, 3),
        (Refusal::ConnectionRateExceeded, 0x9F, 3),
        (RefusedCause::UnknownDevice.into(), 0x86, 4),
        (RefusedCause::RateLimited.into(), 0x9F, 3),
    ] {
        for (version, expected) in
            [(Version::V5, vec![0x20, 3, 0, code, 0]), (Version::V311, vec![0x20, 2, 0, return_code])]
        {
            let (mut peer, _) = request(&connect(version).bytes());
            let (conn, out) = peer.both();
            conn.refuse(refusal, out);
            assert_eq!(peer.heard(), expected);
            assert!(peer.conn.is_over());
            assert!(peer.send(&qos1(version, 1)).is_empty(), "[MQTT-3.1.4-6]");
        }
    }
}

#[test]
fn a_publish_behind_the_connect_waits_for_the_answer() {
    let mut peer = Peer::fresh(Limits::default());
    let both = [connect(Version::V5).bytes(), qos1(Version::V5, 1)].concat();
    assert!(matches!(&peer.send(&both)[..], [Action::Connect(_)]));
    assert!(peer.left() > 0);
    let (conn, out) = peer.both();
    conn.accept(&Accept::default(), None, out);
    assert!(matches!(&peer.poll()[..], [Action::Publish(_)]));
    assert_eq!(peer.left(), 0);
}

#[test]
fn wills_are_checked() {
    let with_will = |version, properties: &[u8], topic: &str, payload: &[u8]| {
        let properties = if version == Version::V5 { with_length(properties) } else { vec![] };
        let parts: [&[u8]; 4] = [&text("x"), &properties, &text(topic), &data(payload)];
        connect(version).flags(0b0000_0110).payload(&parts).bytes()
    };
    for (properties, topic, payload, code) in [
        (&[][..], "a/#", &b""[..], 0x90),
        (&[], "", b"", 0x90),
        (&[], "a\nb", b"", 0x90),
        (&[0x01, 1], "a", b"\xFF", 0x99),
        (&[0x01, 2], "a", b"", 0x82),
        (&[0x23, 0, 1], "a", b"", 0x81), // an alias is PUBLISH's
    ] {
        let (_, heard) = refused(&with_will(Version::V5, properties, topic, payload));
        assert_eq!(heard, [0x20, 3, 0, code, 0], "{topic:?} {properties:02x?}");
    }
    assert!(refused(&with_will(Version::V311, &[], "a/+", b"")).1.is_empty());
    let zero = with_will(Version::V5, &[0x02, 0, 0, 0, 0], "a", b"");
    assert_eq!(request(&zero).1.will.unwrap().message_expiry, Some(0));
}

#[test]
fn a_connect_above_its_limit_is_refused() {
    let big = connect(Version::V5).payload(&[&text(&"x".repeat(65_535))]).bytes();
    assert_eq!(refused(&big).1, [0x20, 3, 0, 0x95, 0]);
    let big = connect(Version::V311).payload(&[&text(&"x".repeat(65_535))]).bytes();
    assert_eq!(refused(&big).0.cause, RefusedCause::LimitReached);
}

#[test]
fn the_gateway_says_goodbye_with_a_code_on_5_only() {
    for (why, code) in [
        (DisconnectWhy::Unspecified, 0x80),
        (DisconnectWhy::NotServed, 0x83),
        (DisconnectWhy::NotAuthorized, 0x87),
        (DisconnectWhy::ServerBusy, 0x89),
        (DisconnectWhy::ServerShuttingDown, 0x8B),
        (DisconnectWhy::KeepAliveTimeout, 0x8D),
        (DisconnectWhy::SessionTakenOver, 0x8E),
        (DisconnectWhy::MessageRateTooHigh, 0x96),
        (DisconnectWhy::QuotaExceeded, 0x97),
        (DisconnectWhy::AdministrativeAction, 0x98),
        (DisconnectWhy::UseAnotherServer, 0x9C),
        (DisconnectWhy::MaximumConnectTime, 0xA0),
    ] {
        let mut peer = Peer::v5();
        let (conn, out) = peer.both();
        conn.disconnect(why, out);
        assert_eq!(peer.heard(), [0xE0, 1, code]);
        assert!(peer.conn.is_over());
        let mut peer = Peer::v311();
        let (conn, out) = peer.both();
        conn.disconnect(why, out);
        assert!(peer.heard().is_empty());
    }
    // Before CONNACK there is no DISCONNECT [MQTT-3.14.0-1].
    let (mut peer, _) = request(&connect(Version::V5).bytes());
    let (conn, out) = peer.both();
    conn.disconnect(DisconnectWhy::ServerShuttingDown, out);
    assert_eq!(peer.heard(), [0x20, 3, 0, 0x88, 0]);
    let mut peer = Peer::fresh(Limits::default());
    let (conn, out) = peer.both();
    conn.disconnect(DisconnectWhy::ServerShuttingDown, out);
    assert!(peer.heard().is_empty() && peer.conn.is_over());
}

#[test]
fn every_reason_has_a_word_for_the_client() {
    use landfall_event::Reason;
    for (reason, code) in [
        (Reason::KeepAliveTimeout, 0x8D),
        (Reason::TakenOver, 0x8E),
        (Reason::GatewayDraining, 0x8B),
        (Reason::Kicked, 0x98),
        (Reason::CredentialsRevoked, 0x87),
        (Reason::CredentialsExpired, 0xA0),
        (Reason::RateLimited, 0x96),
        (Reason::SlowConsumer, 0x97),
    ] {
        assert_eq!(DisconnectWhy::from(reason).code(), code);
    }
}
