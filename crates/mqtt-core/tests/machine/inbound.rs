//! Messages from the client: PUBLISH to PUBACK or PUBCOMP (sections 3.3 to 3.7 and 4.3).

use landfall_event::Reason;
use landfall_mqtt_core::{Action, Inbound, Limits, PublishFailure, Violation};

use crate::peer::*;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

fn failed(peer: &mut Peer, message: &Inbound, failure: PublishFailure) -> Option<Action> {
    let (conn, out) = peer.both();
    conn.publish_failed(message.token, failure, out)
}

#[test]
fn every_part_of_a_publish_is_understood() {
    let properties = [
        &[0x01, 1, 0x02, 0, 0, 0, 30][..],
        &[&[0x03][..], &text("text/plain")].concat(),
        &[&[0x08][..], &text("answers")].concat(),
        &[&[0x09][..], &data(b"\xFF")].concat(),
        &[&[0x26][..], &text("a"), &text("1"), &[0x26], &text("a"), &text("2")].concat(),
    ]
    .concat();
    let message = Peer::v5().publish(&publish(Version::V5, 0x3D, "t/1", 7, &properties, "ü".as_bytes()));
    assert_eq!((&*message.topic, &message.payload[..]), ("t/1", "ü".as_bytes()));
    assert_eq!((message.qos, message.dup, message.retain), (QoS::ExactlyOnce, true, true));
    assert_eq!((message.message_expiry, message.payload_is_utf8), (Some(30), true));
    assert_eq!(message.content_type.as_deref(), Some("text/plain"));
    assert_eq!(message.response_topic.as_deref(), Some("answers"));
    assert_eq!(message.correlation_data, Some(payload(b"\xFF")));
    assert_eq!(message.user_properties, [("a".into(), "1".into()), ("a".into(), "2".into())]);
    let zero = Peer::v5().publish(&publish(Version::V5, 0x30, "t", 0, &[0x02, 0, 0, 0, 0], b"x"));
    assert_eq!(zero.message_expiry, Some(0));
}

#[test]
fn an_acknowledgement_leaves_when_the_message_is_stored_and_not_before() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos1(version, 9));
        assert!(peer.heard().is_empty());
        assert_eq!(peer.stored(&message), [0x40, 2, 0, 9]);
        assert!(peer.stored(&message).is_empty(), "once");

        let message = peer.publish(&publish(version, 0x30, "t", 0, &[], b"x"));
        assert!(peer.stored(&message).is_empty(), "QoS 0 has no acknowledgement");

        let message = peer.publish(&qos2(version, 300));
        assert_eq!(peer.stored(&message), [0x50, 2, 1, 44]);
        assert_eq!(peer.ask(&ack(0x62, 300)), [0x70, 2, 1, 44]);
    }
}

#[test]
fn acknowledgements_keep_the_order_of_receipt() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let first = peer.publish(&qos1(version, 1));
        let second = peer.publish(&qos2(version, 2));
        let third = peer.publish(&qos1(version, 3));
        assert!(peer.stored(&third).is_empty());
        assert!(peer.stored(&second).is_empty());
        assert_eq!(peer.stored(&first), [0x40, 2, 0, 1, 0x50, 2, 0, 2, 0x40, 2, 0, 3]);
    }
}

#[test]
fn a_qos_2_message_that_comes_again_is_not_a_new_one() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos2(version, 5));
        let again = publish(version, 0x3C, "t", 5, &[], b"x");
        assert!(peer.ask(&again).is_empty(), "its PUBREC waits for the store");
        assert_eq!(peer.stored(&message), [0x50, 2, 0, 5], "one PUBREC");
        assert_eq!(peer.ask(&again), [0x50, 2, 0, 5]); // [MQTT-4.3.3-10]
        assert_eq!(peer.ask(&qos2(version, 5)), [0x50, 2, 0, 5], "whatever DUP says");
        assert_eq!(peer.ask(&ack(0x62, 5)), [0x70, 2, 0, 5]);
        peer.publish(&qos2(version, 5)); // [MQTT-4.3.3-12]
    }
}

#[test]
fn a_pubrec_for_a_repeated_message_keeps_its_turn_and_comes_once() {
    let mut peer = Peer::v5();
    let message = peer.publish(&qos2(Version::V5, 5));
    peer.stored(&message);
    peer.heard();
    let waiting = peer.publish(&qos1(Version::V5, 6));
    let again = publish(Version::V5, 0x3C, "t", 5, &[], b"x");
    assert!(peer.ask(&again.repeat(1_000)).is_empty());
    assert_eq!(peer.stored(&waiting), [0x40, 2, 0, 6, 0x50, 2, 0, 5]);
}

#[test]
fn a_release_of_an_unknown_message_is_answered() {
    assert_eq!(Peer::v311().ask(&ack(0x62, 5)), [0x70, 2, 0, 5]);
    assert_eq!(Peer::v5().ask(&ack(0x62, 5)), [0x70, 3, 0, 5, 0x92]);
    assert_eq!(Peer::v5().ask(&ack_with(0x62, 5, 0x92)), [0x70, 3, 0, 5, 0x92]);
}

#[test]
fn a_release_before_the_pubrec_is_a_protocol_error() {
    for version in BOTH {
        let bytes = [qos2(version, 5), ack(0x62, 5)].concat();
        let mut peer = Peer::of(version);
        let actions = peer.send(&bytes);
        assert!(
            matches!(&actions[..], [Action::Publish(_), Action::Fault(f)] if f.violation == Violation::ProtocolError)
        );
    }
}

#[test]
fn a_qos_1_message_after_its_puback_is_a_new_one() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos1(version, 5));
        peer.stored(&message);
        peer.publish(&publish(version, 0x3A, "t", 5, &[], b"x")); // DUP [MQTT-4.3.2-5]
    }
}

#[test]
fn a_qos_1_message_that_comes_again_before_its_puback_has_one_puback() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos1(version, 5));
        assert!(peer.ask(&publish(version, 0x3A, "t", 5, &[], b"x")).is_empty());
        assert_eq!(peer.stored(&message), [0x40, 2, 0, 5]);
    }
}

#[test]
fn a_packet_id_in_use_is_refused() {
    // 5.0 has a code for it, which comes in its turn.
    for (first, second, code) in [
        (qos1(Version::V5, 5), qos1(Version::V5, 5), [0x40, 3, 0, 5, 0x91]),
        (qos1(Version::V5, 5), qos2(Version::V5, 5), [0x50, 3, 0, 5, 0x91]),
        (qos2(Version::V5, 5), qos1(Version::V5, 5), [0x40, 3, 0, 5, 0x91]),
    ] {
        let mut peer = Peer::v5();
        let message = peer.publish(&first);
        assert!(peer.ask(&second).is_empty());
        let heard = peer.stored(&message);
        assert_eq!(heard[4..], code);
    }
    let mut peer = Peer::v5();
    peer.publish(&qos2(Version::V5, 5));
    assert!(peer.ask(&publish(Version::V5, 0x34, "t", 5, &[], b"another")).is_empty());
}

#[test]
fn two_messages_of_a_3_1_1_client_under_one_packet_id_are_acknowledged_each() {
    let other = |qos: u8| publish(Version::V311, 0x30 | qos << 1, "t", 5, &[], b"another");
    for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let of = |qos| if qos == 1 { 0x40 } else { 0x50 };
        let mut peer = Peer::v311();
        let sent = if first == 1 { qos1(Version::V311, 5) } else { qos2(Version::V311, 5) };
        let one = peer.publish(&sent);
        let two = peer.publish(&other(second));
        assert_eq!(peer.stored(&one), [of(first), 2, 0, 5]);
        assert_eq!(peer.stored(&two), [of(second), 2, 0, 5]);
        if first == 2 || second == 2 {
            assert_eq!(peer.ask(&ack(0x62, 5)), [0x70, 2, 0, 5]);
        }
        assert!(peer.conn.is_open());
    }
}

#[test]
fn a_message_that_ends_its_connection_is_not_waited_for() {
    for failure in [PublishFailure::NotAuthorized, PublishFailure::NotStored] {
        let mut peer = Peer::v311();
        let message = peer.publish(&qos2(Version::V311, 5));
        assert!(matches!(failed(&mut peer, &message, failure), Some(Action::Fault(_))));
        assert_eq!(unsettled(&peer), None);
        assert!(peer.heard().is_empty(), "and nothing is said");
    }
    // What is given up when the connection has ended for another reason is not waited for either.
    let mut peer = Peer::v5();
    let message = peer.publish(&qos2(Version::V5, 5));
    peer.conn.close();
    assert_eq!(unsettled(&peer), Some(message.token));
    assert!(failed(&mut peer, &message, PublishFailure::NotStored).is_none());
    assert_eq!((unsettled(&peer), peer.heard().len()), (None, 0));
}

#[test]
fn more_than_the_receive_maximum_ends_a_5_connection() {
    let limits = || Limits { receive_maximum: 2, ..Limits::default() };
    let connect = connect(Version::V5).bytes();
    let mut peer = Peer::with(Version::V5, limits(), &connect, None);
    let first = peer.publish(&qos1(Version::V5, 1));
    peer.publish(&qos2(Version::V5, 2));
    peer.stored(&first);
    peer.publish(&qos1(Version::V5, 3));
    assert_eq!(peer.fault(&qos1(Version::V5, 4)).violation, Violation::ReceiveMaximumExceeded);
    assert_eq!(peer.heard()[..3], [0xE0, peer_length(&peer), 0x93]);

    // A QoS 2 message holds its share until PUBCOMP [MQTT-4.9.0-2].
    let mut peer = Peer::with(Version::V5, limits(), &connect, None);
    for id in [1, 2] {
        let message = peer.publish(&qos2(Version::V5, id));
        peer.stored(&message);
    }
    peer.ask(&ack(0x62, 1));
    let message = peer.publish(&qos2(Version::V5, 3));
    peer.stored(&message);
    assert_eq!(peer.fault(&qos2(Version::V5, 4)).violation, Violation::ReceiveMaximumExceeded);

    // QoS 0 is never counted.
    let mut peer = Peer::with(Version::V5, limits(), &connect, None);
    assert_eq!(peer.send(&publish(Version::V5, 0x30, "t", 0, &[], b"x").repeat(100)).len(), 100);
}

/// The length of a DISCONNECT whose words are the machine's own.
fn peer_length(_: &Peer) -> u8 {
    let words = "more messages unacknowledged than the receive maximum";
    u8::try_from(1 + 1 + 3 + words.len()).unwrap()
}

#[test]
fn reading_from_a_3_1_1_client_pauses_at_its_bound() {
    let limits = Limits { unacknowledged_v311: 2, ..Limits::default() };
    let mut peer = Peer::with(Version::V311, limits, &connect(Version::V311).bytes(), None);
    let burst: Vec<u8> = (1..=5).flat_map(|id| qos1(Version::V311, id)).chain([0xC0, 0]).collect();
    let mut held: Vec<Inbound> = messages(peer.send(&burst));
    assert_eq!(held.len(), 2);
    assert!(peer.conn.blocked() && peer.left() > 0);
    let mut heard = Vec::new();
    while !held.is_empty() {
        let message = held.remove(0);
        heard.extend(peer.stored(&message));
        held.extend(messages(peer.poll()));
    }
    let acknowledged = heard.chunks(2).filter(|c| c[0] == 0x40).count();
    assert_eq!((acknowledged, heard.len()), (5, 5 * 4 + 2), "{heard:02x?}");
    assert!(!peer.conn.blocked() && peer.left() == 0);
}

fn messages(actions: Vec<Action>) -> Vec<Inbound> {
    actions.into_iter().filter_map(|a| if let Action::Publish(m) = a { Some(m) } else { None }).collect()
}

#[test]
fn qos_2_messages_that_are_never_released_are_bounded() {
    let limits = || Limits { max_qos2_pending: 3, ..Limits::default() };
    for version in BOTH {
        let mut peer = Peer::with(version, limits(), &connect(version).bytes(), None);
        for id in 1..=3 {
            let message = peer.publish(&qos2(version, id));
            peer.stored(&message);
        }
        match version {
            Version::V5 => assert_eq!(peer.ask(&qos2(version, 4)), [0x50, 3, 0, 4, 0x97]),
            Version::V31 | Version::V311 => {
                assert_eq!(peer.fault(&qos2(version, 4)).violation, Violation::QuotaExceeded);
            }
        }
    }
}

#[test]
fn aliases_stand_for_the_topic_they_were_set_to() {
    let mut peer = Peer::v5();
    let alias = |n: u8| [0x23, 0, n];
    peer.publish(&publish(Version::V5, 0x30, "a", 0, &alias(1), b""));
    peer.publish(&publish(Version::V5, 0x30, "b", 0, &alias(32), b""));
    assert_eq!(&*peer.publish(&publish(Version::V5, 0x30, "", 0, &alias(1), b"")).topic, "a");
    assert_eq!(&*peer.publish(&publish(Version::V5, 0x30, "", 0, &alias(32), b"")).topic, "b");
    peer.publish(&publish(Version::V5, 0x30, "c", 0, &alias(1), b""));
    assert_eq!(&*peer.publish(&publish(Version::V5, 0x30, "", 0, &alias(1), b"")).topic, "c");
    let unset = publish(Version::V5, 0x30, "", 0, &alias(2), b"");
    assert_eq!(peer.fault(&unset).violation, Violation::ProtocolError);
}

#[test]
fn aliases_are_bounded_and_never_outlive_the_connection() {
    let alias = |n: u16| [&[0x23][..], &n.to_be_bytes()].concat();
    for n in [0, 33, u16::MAX] {
        assert_ends(
            Version::V5,
            &publish(Version::V5, 0x30, "t", 0, &alias(n), b""),
            Violation::TopicAliasInvalid,
        );
    }
    let mut peer = Peer::v5();
    peer.publish(&publish(Version::V5, 0x30, "a", 0, &alias(1), b""));
    let state = peer.conn.session_state();
    let connect = connect(Version::V5).flags(0).bytes();
    let mut next = Peer::with(Version::V5, Limits::default(), &connect, Some(state));
    let fault = next.fault(&publish(Version::V5, 0x30, "", 0, &alias(1), b"")); // [MQTT-3.3.2-7]
    assert_eq!(fault.violation, Violation::ProtocolError);
    let none = Limits { topic_alias_maximum: 0, ..Limits::default() };
    let mut peer = Peer::with(Version::V5, none, &connect, None);
    let fault = peer.fault(&publish(Version::V5, 0x30, "a", 0, &alias(1), b""));
    assert_eq!(fault.violation, Violation::TopicAliasInvalid);
}

#[test]
fn a_topic_name_that_is_none_ends_the_connection() {
    let deep = "/".repeat(65_535);
    let long = "x".repeat(1_025);
    for version in BOTH {
        for topic in ["#", "a/#", "+", "a/+/b", "a+", "a\nb", "a\u{7f}", "a\u{85}", &deep, &long] {
            assert_ends(version, &publish(version, 0x30, topic, 0, &[], b"x"), Violation::TopicNameInvalid);
        }
        assert_ends(version, &publish(version, 0x30, "", 0, &[], b"x"), Violation::ProtocolError);
    }
    // Checked again after a valid one.
    let mut peer = Peer::v5();
    peer.publish(&publish(Version::V5, 0x30, "t", 0, &[], b""));
    let fault = peer.fault(&publish(Version::V5, 0x30, "t#", 0, &[], b""));
    assert_eq!(fault.violation, Violation::TopicNameInvalid);
}

#[test]
fn topics_of_every_other_kind_are_taken_as_they_are() {
    for topic in ["a.b", "a*b", "a>b", "a b", "$SYS/x", "$JS.API", "/", "//", "..", "é", "%2e", "a\u{202E}b"]
    {
        let message = Peer::v311().publish(&publish(Version::V311, 0x30, topic, 0, &[], b""));
        assert_eq!(&*message.topic, topic);
    }
}

#[test]
fn a_payload_is_what_its_format_says() {
    let utf8 = |payload: &[u8]| publish(Version::V5, 0x32, "t", 1, &[0x01, 1], payload);
    assert_ends(Version::V5, &utf8(b"\xFF"), Violation::PayloadFormatInvalid);
    assert!(Peer::v5().publish(&utf8(b"ok")).payload_is_utf8);
    assert!(!Peer::v5().publish(&publish(Version::V5, 0x32, "t", 1, &[0x01, 0], b"\xFF")).payload_is_utf8);
}

#[test]
fn a_message_that_cannot_be_stored_is_told_so_on_5() {
    for (failure, code) in [
        (PublishFailure::NotAuthorized, 0x87),
        (PublishFailure::QuotaExceeded, 0x97),
        (PublishFailure::TopicNameInvalid, 0x90),
        (PublishFailure::PayloadFormatInvalid, 0x99),
        (PublishFailure::NotStored, 0x83),
    ] {
        let mut peer = Peer::v5();
        let earlier = peer.publish(&qos1(Version::V5, 1));
        let later = peer.publish(&qos2(Version::V5, 2));
        assert!(failed(&mut peer, &later, failure).is_none());
        assert!(peer.heard().is_empty(), "in its turn");
        assert!(failed(&mut peer, &earlier, failure).is_none());
        assert_eq!(peer.heard(), [0x40, 3, 0, 1, code, 0x50, 3, 0, 2, code]);
        peer.publish(&qos2(Version::V5, 2)); // [MQTT-4.3.3-9]
    }
}

#[test]
fn a_message_that_cannot_be_stored_ends_a_3_1_1_connection() {
    for (failure, reason) in [
        (PublishFailure::NotAuthorized, Reason::NotAuthorized),
        (PublishFailure::NotStored, Reason::ProtocolError),
    ] {
        let mut peer = Peer::v311();
        let message = peer.publish(&qos1(Version::V311, 1));
        match failed(&mut peer, &message, failure) {
            Some(Action::Fault(fault)) => assert_eq!(fault.reason, reason), // [3.1.1: MQTT-3.3.5-2]
            other => panic!("{other:?}"),
        }
        assert!(peer.heard().is_empty() && peer.conn.is_over());
    }
}

#[test]
fn a_qos_0_message_against_the_acl_ends_the_connection_and_another_is_dropped() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&publish(version, 0x30, "t", 0, &[], b"x"));
        assert!(failed(&mut peer, &message, PublishFailure::NotStored).is_none());
        assert!(peer.conn.is_open() && peer.heard().is_empty());
        assert!(failed(&mut peer, &message, PublishFailure::NotAuthorized).is_some());
        let heard = peer.heard();
        assert_eq!(heard.get(2), if version == Version::V5 { Some(&0x87) } else { None });
    }
}

#[test]
fn the_payload_is_a_slice_of_the_input() {
    let mut peer = Peer::v5();
    let body = vec![7; 4_000];
    let message = peer.publish(&publish(Version::V5, 0x30, "t", 0, &[], &body));
    assert!(!message.payload.is_unique() || message.payload.len() == 4_000);
    assert_eq!(message.payload, body);
}

#[test]
fn a_topic_that_comes_again_is_shared() {
    let mut peer = Peer::v5();
    let first = peer.publish(&publish(Version::V5, 0x30, "t/1", 0, &[], b""));
    let second = peer.publish(&publish(Version::V5, 0x30, "t/1", 0, &[], b""));
    assert!(std::sync::Arc::ptr_eq(&first.topic, &second.topic));
}

#[test]
fn goodbye_is_with_or_without_the_will() {
    for (version, bytes, code, with_will) in [
        (Version::V311, &[0xE0, 0][..], 0, false),
        (Version::V5, &[0xE0, 0], 0, false),
        (Version::V5, &[0xE0, 1, 0], 0, false), // [MQTT-3.14.4-3]
        (Version::V5, &[0xE0, 1, 4], 4, true),
        (Version::V5, &[0xE0, 2, 0x80, 0], 0x80, true),
        (Version::V5, &[0xE0, 7, 0x98, 5, 0x1F, 0, 2, b'h', b'i'], 0x98, true),
    ] {
        let mut peer = Peer::of(version);
        match peer.send(bytes).pop() {
            Some(Action::Disconnect(goodbye)) => {
                assert_eq!((goodbye.code, goodbye.with_will), (code, with_will));
                assert_eq!(goodbye.reason(), Reason::ClientClosed);
            }
            other => panic!("{other:?}"),
        }
        assert!(peer.conn.is_over());
        assert!(peer.send(&[0xC0, 0]).is_empty() && peer.heard().is_empty());
    }
}

#[test]
fn goodbye_changes_the_session_expiry_but_not_from_zero() {
    let connect = |seconds: u32| {
        let properties = [&[0x11][..], &seconds.to_be_bytes()].concat();
        connect(Version::V5).properties(&properties).bytes()
    };
    let disconnect = |seconds: u32| packet(0xE0, &[&[0, 5, 0x11][..], &seconds.to_be_bytes()].concat());
    for (asked, said, expected) in
        [(10, 0, 0), (10, 99, 99), (10, u32::MAX, Limits::default().max_session_expiry), (0, 0, 0)]
    {
        let mut peer = Peer::with(Version::V5, Limits::default(), &connect(asked), None);
        let actions = peer.send(&disconnect(said));
        assert!(
            matches!(&actions[..], [Action::Disconnect(g)] if g.session_expiry == expected),
            "{actions:?}"
        );
        assert_eq!(peer.conn.session_expiry(), expected);
    }
    let mut peer = Peer::with(Version::V5, Limits::default(), &connect(0), None);
    assert_eq!(peer.fault(&disconnect(1)).violation, Violation::ProtocolError);
}
