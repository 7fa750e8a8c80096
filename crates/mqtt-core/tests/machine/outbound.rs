//! Messages to the client: the window, packet ids, acknowledgements (sections 3.3, 4.3 and 4.9).

use landfall_mqtt_core::{Ack, Action, Delivery, Limits, Violation};

use crate::peer::*;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

fn with_receive_maximum(window: u16, limits: Limits) -> Peer {
    let properties = [&[0x21][..], &window.to_be_bytes()].concat();
    let connect = connect(Version::V5).properties(&properties).bytes();
    let mut peer = Peer::with(Version::V5, limits, &connect, None);
    peer.subscribe(&[("#", 2)]);
    peer
}

#[test]
fn a_message_goes_to_a_subscriber_and_to_nobody_else() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = Message::new("a", "x", QoS::AtMostOnce);
        assert_eq!(peer.deliver(message.clone()), Delivery::NotSubscribed(message.clone()));
        peer.subscribe(&[("a", 0)]);
        assert_eq!(peer.deliver(message), Delivery::Sent { qos: QoS::AtMostOnce, token: None });
        let properties = if version == Version::V5 { &[0][..] } else { &[] };
        assert_eq!(peer.heard(), packet(0x30, &[&text("a")[..], properties, b"x"].concat()));
    }
}

#[test]
fn a_message_has_at_most_the_qos_of_its_subscription() {
    for (subscribed, sent, expected) in [(0, 2, 0), (1, 2, 1), (2, 2, 2), (2, 0, 0), (1, 1, 1)] {
        let mut peer = Peer::v311();
        peer.subscribe(&[("a", subscribed)]);
        let delivery = peer.deliver(Message::new("a", "x", QoS::from_level(sent).unwrap()));
        let Delivery::Sent { qos, token } = delivery else { panic!("{delivery:?}") };
        assert_eq!((qos.level(), token.is_some()), (expected, expected > 0)); // [MQTT-3.8.4-8]
        assert_eq!(peer.heard()[0], 0x30 | expected << 1);
    }
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_every_identifier() {
    let mut peer = Peer::v5();
    peer.grant(&subscribe_v5(1, &[0x0B, 3], &[("a/#", 0)]));
    peer.grant(&subscribe_v5(2, &[0x0B, 0x80, 1], &[("a/+", 2)]));
    peer.grant(&subscribe_v5(3, &[0x0B, 9], &[("b", 2)]));
    peer.grant(&subscribe_v5(4, &[], &[("+/b", 1)]));
    peer.deliver(Message::new("a/b", "x", QoS::ExactlyOnce));
    // [MQTT-3.3.4-2] [MQTT-3.3.4-4]
    let expected = [&text("a/b")[..], &[0, 1, 5, 0x0B, 3, 0x0B, 0x80, 1], b"x"].concat();
    assert_eq!(peer.heard(), packet(0x34, &expected));
}

#[test]
fn a_5_client_gets_every_property_and_a_3_1_1_client_none() {
    let message = Message {
        content_type: Some("text/plain".into()),
        response_topic: Some("command///res/1/200".into()),
        correlation_data: Some(payload(b"\0\xFF")),
        user_properties: vec![("b".into(), "2".into()), ("a".into(), "1".into())],
        message_expiry: Some(30),
        payload_is_utf8: true,
        ..Message::new("a", "x", QoS::AtMostOnce)
    };
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 0)]);
    peer.deliver(message.clone());
    let properties = [
        &[0x01, 1, 0x02, 0, 0, 0, 30][..],
        &[&[0x03][..], &text("text/plain")].concat(),
        &[&[0x08][..], &text("command///res/1/200")].concat(),
        &[&[0x09][..], &data(b"\0\xFF")].concat(),
        &[&[0x26][..], &text("b"), &text("2"), &[0x26], &text("a"), &text("1")].concat(), // [MQTT-3.3.2-18]
    ]
    .concat();
    assert_eq!(peer.heard(), packet(0x30, &[text("a"), with_length(&properties), b"x".to_vec()].concat()));
    peer.deliver(Message { message_expiry: Some(0), ..Message::new("a", "", QoS::AtMostOnce) });
    assert_eq!(peer.heard()[5..], [5, 0x02, 0, 0, 0, 1]);

    let mut peer = Peer::v311();
    peer.subscribe(&[("a", 0)]);
    peer.deliver(message);
    assert_eq!(peer.heard(), packet(0x30, &[&text("a")[..], b"x"].concat()));
}

#[test]
fn qos_1_ends_with_puback() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        peer.subscribe(&[("a", 1)]);
        let (token, id) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
        assert_eq!((id, peer.conn.in_flight()), (1, 1));
        assert_eq!(peer.acknowledged(&ack(0x40, id)), (token, Ack::Done));
        assert_eq!(peer.conn.in_flight(), 0);
        assert!(peer.ask(&ack(0x40, id)).is_empty(), "a second one is nothing");
    }
}

#[test]
fn qos_2_ends_with_pubcomp() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        peer.subscribe(&[("a", 2)]);
        let (token, id) = peer.deliver_acknowledged("a", QoS::ExactlyOnce);
        assert_eq!(peer.ask(&ack(0x50, id)), [0x62, 2, 0, 1]);
        assert_eq!(peer.ask(&ack(0x50, id)), [0x62, 2, 0, 1], "PUBREC again, PUBREL again");
        assert_eq!(peer.acknowledged(&ack(0x70, id)), (token, Ack::Done));
        assert_eq!(peer.conn.in_flight(), 0);
    }
}

#[test]
fn a_client_that_refuses_a_message_is_believed() {
    for code in [0x80, 0x83, 0x87, 0x90, 0x97, 0x99] {
        let mut peer = Peer::v5();
        peer.subscribe(&[("a", 2)]);
        let (token, id) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
        assert_eq!(peer.acknowledged(&ack_with(0x40, id, code)), (token, Ack::Refused(code)));
        let (token, id) = peer.deliver_acknowledged("a", QoS::ExactlyOnce);
        assert_eq!(peer.acknowledged(&ack_with(0x50, id, code)), (token, Ack::Refused(code)));
        assert!(peer.heard().is_empty(), "no PUBREL [MQTT-4.3.3-4]");
    }
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 1)]);
    let (token, id) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
    assert_eq!(peer.acknowledged(&ack_with(0x40, id, 0x10)), (token, Ack::Done), "no matching subscribers");
}

#[test]
fn acknowledgements_of_unknown_messages() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        assert!(peer.ask(&ack(0x40, 9)).is_empty());
        assert!(peer.ask(&ack(0x70, 9)).is_empty());
        let expected: &[u8] = match version {
            Version::V5 => &[0x62, 3, 0, 9, 0x92],
            Version::V31 | Version::V311 => &[0x62, 2, 0, 9],
        };
        assert_eq!(peer.ask(&ack(0x50, 9)), expected);
    }
}

/// [MQTT-4.3.3-4]: an error ends the message wherever it stands, and nothing is released.
#[test]
fn no_pubrel_follows_a_pubrec_that_says_no() {
    for code in [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        let mut peer = Peer::v5();
        assert!(peer.ask(&ack_with(0x50, 3, code)).is_empty(), "an unknown id, 0x{code:02x}");
        peer.subscribe(&[("a", 2)]);
        let (token, id) = peer.deliver_acknowledged("a", QoS::ExactlyOnce);
        assert_eq!(peer.ask(&ack(0x50, id)), ack(0x62, id));
        assert_eq!(peer.acknowledged(&ack_with(0x50, id, code)), (token, Ack::Refused(code)));
        assert!(peer.heard().is_empty(), "behind a PUBREC that took it, 0x{code:02x}");
        assert_eq!(peer.conn.in_flight(), 0);
        assert!(peer.ask(&ack_with(0x50, id, code)).is_empty(), "it is unknown now");
    }
    let mut peer = Peer::v5();
    assert_eq!(peer.ask(&ack_with(0x50, 9, 0x10)), [0x62, 3, 0, 9, 0x92], "0x10 says no such thing");
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    for version in BOTH {
        for (qos, first) in [
            (QoS::AtLeastOnce, 0x50),
            (QoS::AtLeastOnce, 0x70),
            (QoS::ExactlyOnce, 0x40),
            (QoS::ExactlyOnce, 0x70), // before PUBREC
        ] {
            let mut peer = Peer::of(version);
            peer.subscribe(&[("a", 2)]);
            let (_, id) = peer.deliver_acknowledged("a", qos);
            assert_eq!(peer.fault(&ack(first, id)).violation, Violation::ProtocolError);
        }
    }
}

#[test]
fn the_window_is_the_clients_receive_maximum_or_ours() {
    for (theirs, ours, expected) in [(2, 32, 2), (100, 3, 3), (u16::MAX, 32, 32)] {
        let limits = Limits { outbound_in_flight: ours, ..Limits::default() };
        let mut peer = with_receive_maximum(theirs, limits);
        let sent = (0..200)
            .take_while(|_| {
                matches!(peer.deliver(Message::new("a", "x", QoS::AtLeastOnce)), Delivery::Sent { .. })
            })
            .count();
        assert_eq!(sent, expected); // [MQTT-3.3.4-9]
        // QoS 0 needs no room.
        assert!(matches!(peer.deliver(Message::new("a", "x", QoS::AtMostOnce)), Delivery::Sent { .. }));
    }
}

#[test]
fn a_full_window_opens_with_an_acknowledgement() {
    let mut peer = with_receive_maximum(2, Limits::default());
    let (_, first) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
    let (_, second) = peer.deliver_acknowledged("a", QoS::ExactlyOnce);
    let third = Message::new("a", "third", QoS::AtLeastOnce);
    assert_eq!(peer.deliver(third.clone()), Delivery::Full(third.clone()));
    // A PUBREC does not end a QoS 2 message [MQTT-4.9.0-2].
    assert_eq!(peer.ask(&ack(0x50, second)), [0x62, 2, 0, 2]);
    assert_eq!(peer.deliver(third.clone()), Delivery::Full(third.clone()));
    let actions = peer.send(&ack(0x40, first));
    assert!(matches!(&actions[..], [Action::Acknowledged(..), Action::WindowOpened]), "{actions:?}");
    assert!(matches!(peer.deliver(third), Delivery::Sent { .. }));
    let actions = peer.send(&ack(0x70, second));
    assert!(matches!(&actions[..], [Action::Acknowledged(..)]), "nobody was turned away: {actions:?}");
}

#[test]
fn packet_ids_are_never_in_use_twice() {
    let limits = Limits { outbound_in_flight: 4, ..Limits::default() };
    let mut peer = with_receive_maximum(4, limits);
    let (_, held) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
    let mut last = held;
    for _ in 0..70_000 {
        let (_, id) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
        assert!(id != 0 && id != held, "[MQTT-2.2.1-4]");
        last = id;
        peer.acknowledged(&ack(0x40, id));
    }
    assert!(last < 10_000, "the ids have gone round");
}

#[test]
fn a_message_above_the_clients_limit_is_not_sent() {
    let properties = [&[0x27][..], &200_u32.to_be_bytes()].concat();
    let connect = connect(Version::V5).properties(&properties).bytes();
    let mut peer = Peer::with(Version::V5, Limits::default(), &connect, None);
    peer.subscribe(&[("a", 1)]);
    let message = |size| Message::new("a", vec![0; size], QoS::AtLeastOnce);
    assert_eq!(peer.deliver(message(192)), Delivery::TooLarge); // [MQTT-3.1.2-25]
    assert!(peer.heard().is_empty());
    assert_eq!(peer.conn.in_flight(), 0);
    assert!(matches!(peer.deliver(message(191)), Delivery::Sent { .. }));
    assert_eq!(peer.heard().len(), 200);
}

#[test]
fn what_is_no_message_is_never_sent() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("#", 1)]);
    let long: std::sync::Arc<str> = "x".repeat(65_536).into();
    for message in [
        Message::new("a/#", "", QoS::AtMostOnce),
        Message::new("", "", QoS::AtMostOnce),
        Message::new("a\0", "", QoS::AtMostOnce),
        Message::new(long.clone(), "", QoS::AtMostOnce),
        Message { content_type: Some(long.clone()), ..Message::new("a", "", QoS::AtMostOnce) },
        Message { response_topic: Some("+".into()), ..Message::new("a", "", QoS::AtMostOnce) },
        Message { user_properties: vec![("a".into(), long)], ..Message::new("a", "", QoS::AtMostOnce) },
    ] {
        assert_eq!(peer.deliver(message), Delivery::Invalid);
    }
    assert!(peer.heard().is_empty());
}

#[test]
fn nothing_is_delivered_outside_an_accepted_connection() {
    let message = || Message::new("a", "x", QoS::AtLeastOnce);
    assert_eq!(Peer::fresh(Limits::default()).deliver(message()), Delivery::Closed(message()));
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 1)]);
    peer.send(&[0xE0, 0]);
    assert_eq!(peer.deliver(message()), Delivery::Closed(message()));
    assert!(peer.heard().is_empty()); // [MQTT-3.14.4-1]
}

#[test]
fn a_wildcard_subscription_does_not_match_dollar_topics() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("#", 1), ("+/x", 1)]);
    let message = Message::new("$SYS/x", "", QoS::AtMostOnce);
    assert_eq!(peer.deliver(message.clone()), Delivery::NotSubscribed(message)); // [MQTT-4.7.2-1]
}
