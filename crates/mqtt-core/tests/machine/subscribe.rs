//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11 and 4.7).

use landfall_mqtt_core::{Action, Limits, Verdict, Violation};

use crate::peer::*;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

fn subscribe(version: Version, id: u16, list: &[(&str, u8)]) -> Vec<u8> {
    match version {
        Version::V31 | Version::V311 => subscribe_v311(id, list),
        Version::V5 => subscribe_v5(id, &[], list),
    }
}

fn unsubscribe(version: Version, id: u16, list: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = list.iter().flat_map(|f| text(f)).collect();
    let properties = if version == Version::V5 { &[0][..] } else { &[] };
    packet(0xA2, &[&id.to_be_bytes()[..], properties, &filters].concat())
}

#[test]
fn a_suback_has_a_code_for_each_filter_in_order() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let list = [("a", 0), ("b/#", 1), ("c/+/d", 2), ("e", 2), ("f", 2), ("g", 0), ("h", 0)];
        let Some(Action::Subscribe(request)) = peer.send(&subscribe(version, 300, &list)).pop() else {
            panic!("no request")
        };
        let asked: Vec<(&str, u8)> = request.filters().map(|(f, qos)| (f.as_str(), qos.level())).collect();
        assert_eq!(asked, list);
        let verdicts = [
            Verdict::Granted(QoS::ExactlyOnce),
            Verdict::Granted(QoS::ExactlyOnce),
            Verdict::Granted(QoS::AtLeastOnce),
            Verdict::NotAuthorized,
            Verdict::QuotaExceeded,
            Verdict::NotServed,
        ];
        let (conn, out) = peer.both();
        conn.subscribed(request, &verdicts, out);
        let expected: &[u8] = match version {
            Version::V5 => &[0x90, 10, 1, 44, 0, 0, 1, 1, 0x87, 0x97, 0x83, 0x80],
            Version::V31 | Version::V311 => &[0x90, 9, 1, 44, 0, 1, 1, 0x80, 0x80, 0x80, 0x80],
        };
        assert_eq!(peer.heard(), expected);
        assert_eq!(peer.conn.subscriptions().len(), 3);
        assert_eq!(peer.conn.granted("c/x/d"), Some(QoS::AtLeastOnce));
        assert_eq!(peer.conn.granted("e"), None);
    }
}

#[test]
fn shared_subscriptions_are_refused_by_name() {
    let list = [("$share/g/a", 1), ("a", 1), ("$share//a", 0)];
    assert_eq!(Peer::v5().grant(&subscribe_v5(1, &[], &list)), [0x90, 6, 0, 1, 0, 0x9E, 1, 0x9E]);
    assert_eq!(Peer::v311().grant(&subscribe_v311(1, &list)), [0x90, 5, 0, 1, 0x80, 1, 0x80]);
    // Nothing is left to decide: the machine answers alone.
    assert_eq!(Peer::v5().ask(&subscribe_v5(1, &[], &[("$share/g/a", 1)])), [0x90, 4, 0, 1, 0, 0x9E]);
    // With No Local it is a protocol error [MQTT-3.8.3-4].
    assert_ends(Version::V5, &subscribe_v5(1, &[], &[("$share/g/a", 0b101)]), Violation::ProtocolError);
}

#[test]
fn invalid_filters_are_refused_one_by_one() {
    let long = "x".repeat(1_025);
    let deep = "+/".repeat(32_000);
    for filter in ["a#", "a/#/b", "a+", "+a/b", "#/#", "a\nb", &long, &deep] {
        let heard = Peer::v5().grant(&subscribe_v5(1, &[], &[(filter, 0), ("ok", 0)]));
        assert_eq!(heard, [0x90, 5, 0, 1, 0, 0x8F, 0], "{}", &filter[..filter.len().min(20)]);
        assert_eq!(Peer::v311().ask(&subscribe_v311(1, &[(filter, 0)])), [0x90, 3, 0, 1, 0x80]);
    }
    for version in BOTH {
        assert_ends(version, &subscribe(version, 1, &[("", 0)]), Violation::Malformed); // [MQTT-4.7.3-1]
    }
}

#[test]
fn options_are_checked() {
    for (options, violation) in [
        (0b0000_0011, Violation::ProtocolError), // QoS 3
        (0b0011_0000, Violation::ProtocolError), // retain handling 3
        (0b0100_0000, Violation::Malformed),     // reserved [MQTT-3.8.3-5]
        (0b1000_0000, Violation::Malformed),
    ] {
        assert_ends(Version::V5, &subscribe_v5(1, &[], &[("a", options)]), violation);
    }
    for options in [3, 4, 8, 0x10, 0x80, 0xFF] {
        // [3.1.1: MQTT-3-8.3-4]
        assert_ends(Version::V311, &subscribe_v311(1, &[("a", options)]), Violation::Malformed);
    }
    // Every legal option is accepted: No Local, Retain As Published, each retain handling.
    for options in [0b0000_0101, 0b0000_1010, 0b0001_0000, 0b0010_1110] {
        let heard = Peer::v5().grant(&subscribe_v5(1, &[], &[("a", options)]));
        assert_eq!(heard[5], options & 0b11);
    }
}

#[test]
fn subscription_identifiers_are_checked() {
    assert_ends(Version::V5, &subscribe_v5(1, &[0x0B, 0], &[("a", 0)]), Violation::ProtocolError);
    assert_ends(Version::V5, &subscribe_v5(1, &[0x0B, 1, 0x0B, 2], &[("a", 0)]), Violation::ProtocolError);
    assert_ends(Version::V5, &subscribe_v5(1, &[0x0B, 0x80, 0], &[("a", 0)]), Violation::Malformed);
    assert_ends(
        Version::V5,
        &subscribe_v5(1, &[0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 1], &[("a", 0)]),
        Violation::Malformed,
    );
    let mut peer = Peer::v5();
    peer.grant(&subscribe_v5(1, &[0x0B, 0xFF, 0xFF, 0xFF, 0x7F], &[("a", 0)]));
    assert_eq!(peer.conn.subscriptions()[0].id.map(u32::from), Some(268_435_455));
}

#[test]
fn a_subscribe_without_a_filter_is_an_error() {
    assert_ends(Version::V5, &packet(0x82, &[0, 1, 0]), Violation::Malformed);
    // Long enough for one, and all of it properties [MQTT-3.8.3-2].
    let user = [&[0x26][..], &text("n"), &text("v")].concat();
    assert_ends(Version::V5, &subscribe_v5(1, &user, &[]), Violation::ProtocolError);
    assert_ends(Version::V311, &packet(0x82, &[0, 1]), Violation::Malformed);
    assert_ends(Version::V311, &packet(0xA2, &[0, 1]), Violation::Malformed);
}

#[test]
fn subscriptions_are_bounded() {
    let limits = Limits { max_subscriptions: 2, ..Limits::default() };
    let mut peer = Peer::with(Version::V5, limits, &connect(Version::V5).bytes(), None);
    assert_eq!(
        peer.grant(&subscribe_v5(1, &[], &[("a", 0), ("b", 0), ("c", 0)])),
        [0x90, 6, 0, 1, 0, 0, 0, 0x97]
    );
    assert_eq!(peer.grant(&subscribe_v5(2, &[], &[("b", 2)]))[5], 2, "replacing needs no room");
    let many: Vec<String> = (0..129).map(|n| n.to_string()).collect();
    let list: Vec<(&str, u8)> = many.iter().map(|f| (f.as_str(), 0)).collect();
    assert_ends(Version::V5, &subscribe_v5(1, &[], &list), Violation::QuotaExceeded);
    assert_ends(Version::V311, &subscribe_v311(1, &list), Violation::QuotaExceeded);
}

#[test]
fn the_same_filter_replaces_the_subscription() {
    let mut peer = Peer::v5();
    peer.grant(&subscribe_v5(1, &[0x0B, 1], &[("a/+", 2)]));
    peer.grant(&subscribe_v5(2, &[0x0B, 7], &[("a/+", 1)])); // [MQTT-3.8.4-3]
    let [only] = peer.conn.subscriptions() else { panic!("one") };
    assert_eq!((only.qos, only.id.map(u32::from)), (QoS::AtLeastOnce, Some(7)));
}

#[test]
fn unsubscribing_is_answered_for_each_filter() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        peer.subscribe(&[("a/+", 1), ("b", 1)]);
        let revision = peer.conn.state_revision();
        let actions = peer.send(&unsubscribe(version, 7, &["a/+", "a/x", "B", "b#"]));
        assert!(matches!(&actions[..], [Action::Unsubscribed]));
        let expected: &[u8] = match version {
            Version::V5 => &[0xB0, 7, 0, 7, 0, 0, 0x11, 0x11, 0x8F],
            Version::V31 | Version::V311 => &[0xB0, 2, 0, 7],
        };
        assert_eq!(peer.heard(), expected);
        assert_ne!(peer.conn.state_revision(), revision);
        assert_eq!((peer.conn.granted("a/x"), peer.conn.granted("b")), (None, Some(QoS::AtLeastOnce)));
        // [MQTT-3.10.4-5]: answered where nothing was removed too.
        let heard = peer.ask(&unsubscribe(version, 8, &["nothing"]));
        assert_eq!(heard[..1], [0xB0]);
    }
}

#[test]
fn unsubscribing_leaves_what_is_under_way() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 1)]);
    let (token, id) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
    peer.send(&unsubscribe(Version::V5, 7, &["a"]));
    peer.heard();
    assert_eq!(peer.acknowledged(&ack(0x40, id)).0, token); // [MQTT-3.10.4-3]
}

#[test]
fn an_answer_that_the_client_would_not_take_ends_the_connection() {
    let properties = [&[0x27][..], &128_u32.to_be_bytes()].concat();
    let connect = connect(Version::V5).properties(&properties).bytes();
    let many: Vec<String> = (0..124).map(|n| n.to_string()).collect();
    let list: Vec<(&str, u8)> = many.iter().map(|f| (f.as_str(), 0)).collect();
    let mut peer = Peer::with(Version::V5, Limits::default(), &connect, None);
    assert_eq!(peer.fault(&subscribe_v5(1, &[], &list)).violation, Violation::PacketTooLarge);
    let mut peer = Peer::with(Version::V5, Limits::default(), &connect, None);
    assert_eq!(peer.grant(&subscribe_v5(1, &[], &list[..123])).len(), 128);
}

#[test]
fn the_command_form_follows_the_subscriptions() {
    use landfall_mqtt_core::RequestForm;
    let (id, name) = ("17".parse().unwrap(), "reboot".parse().unwrap());
    for (filter, form) in [
        ("command///req/#", Some(RequestForm::Long)),
        ("c///q/+/reboot", Some(RequestForm::Short)),
        ("other", None),
    ] {
        let mut peer = Peer::v311();
        peer.subscribe(&[(filter, 1)]);
        assert_eq!(peer.conn.request_form(&id, &name), form);
    }
}
