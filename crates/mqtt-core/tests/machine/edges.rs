//! CONNECTs at the edge of what is served: of MQTT 3.1, of clients that take hardly anything, and what a fault is called.

use landfall_mqtt_core::{Accept, Action, Limits, Violation};

use crate::connect::{accepted, contains, refused, request};
use crate::peer::*;

fn takes(size: u32) -> Connect {
    connect(Version::V5).properties(&[&[0x27][..], &size.to_be_bytes()].concat())
}

/// [MQTT-3.1.2-24]: what is left out is said in the order in which a client can do without.
#[test]
fn connack_shrinks_to_what_the_client_takes() {
    let limits = Limits { max_keep_alive: 300, max_session_expiry: 500, ..Limits::default() };
    let shared: &[u8] = &[0x2A, 0];
    let (retain, alias, largest) = (&[0x25, 1][..], &[0x22, 0, 32][..], &[0x27, 0, 4, 0, 0][..]);
    let (receive, expiry, keep) = (&[0x21, 0, 32][..], &[0x11, 0, 0, 1, 0xF4][..], &[0x13, 0x01, 0x2C][..]);
    for (size, expected) in [
        (28, [expiry, receive, retain, largest, alias, shared, keep].concat()),
        (27, [expiry, receive, largest, alias, shared, keep].concat()),
        (25, [expiry, receive, largest, alias, keep].concat()),
        (23, [expiry, receive, largest, keep].concat()),
        (20, [expiry, receive, keep].concat()),
        (15, [expiry, keep].concat()),
        (12, keep.to_vec()),
        (7, vec![]),
        (5, vec![]),
    ] {
        let mut asked = takes(size).keep_alive(0);
        asked.properties.extend([0x11, 0xFF, 0xFF, 0xFF, 0xFF]);
        let (peer, heard) = accepted(&asked.bytes(), &Accept::default(), limits.clone());
        let body = [&[0, 0][..], &with_length(&expected)].concat();
        assert_eq!(heard, packet(0x20, &body), "{size}");
        assert_eq!((peer.conn.keep_alive(), peer.conn.session_expiry()), (Some(300), 500));
    }
}

#[test]
fn a_client_that_takes_small_packets_is_let_in_and_served() {
    let mut peer = Peer::with(Version::V5, Limits::default(), &takes(20).bytes(), None);
    peer.subscribe(&[("a", 1)]);
    assert!(matches!(peer.deliver(Message::new("a", "0123456789", QoS::AtMostOnce)), Delivery::Sent { .. }));
    assert!(peer.heard().len() <= 20);
    let large = Message::new("a", "0123456789abcdef", QoS::AtMostOnce);
    assert_eq!(peer.deliver(large), Delivery::TooLarge); // [MQTT-3.1.2-25]
    // Not even SUBACK fits: that is said, in what fits.
    let mut peer = Peer::with(Version::V5, Limits::default(), &takes(5).bytes(), None);
    let fault = peer.fault(&subscribe_v5(1, &[], &[("a", 1)]));
    assert_eq!((fault.violation, peer.heard()), (Violation::PacketTooLarge, vec![0xE0, 1, 0x95]));
}

/// Who was not told of the Receive Maximum cannot keep to it.
#[test]
fn a_client_that_could_not_be_told_is_not_held_to_it() {
    let limits = Limits { receive_maximum: 2, unacknowledged_v311: 4, ..Limits::default() };
    let mut peer = Peer::with(Version::V5, limits.clone(), &takes(7).bytes(), None);
    let taken: Vec<_> = (1..=4).map(|id| peer.publish(&qos1(Version::V5, id))).collect();
    assert!(peer.conn.blocked() && peer.send(&qos1(Version::V5, 5)).is_empty());
    assert_eq!(peer.stored(&taken[0]), ack(0x40, 1));
    assert!(matches!(&peer.poll()[..], [Action::Publish(_)]), "it waited, and is read now");
    let mut peer = Peer::with(Version::V5, limits, &connect(Version::V5).bytes(), None);
    peer.publish(&qos1(Version::V5, 1));
    peer.publish(&qos1(Version::V5, 2));
    assert_eq!(peer.fault(&qos1(Version::V5, 3)).violation, Violation::ReceiveMaximumExceeded);
}

#[test]
fn a_client_that_no_answer_fits_into_is_refused_without_one() {
    for size in [1, 4] {
        let (fault, heard) = refused(&takes(size).bytes());
        assert_eq!((fault.violation, heard), (Violation::NotServed, vec![]));
    }
    // A client without a name has to be told the one that it gets [MQTT-3.2.2-16].
    let unnamed = |size| takes(size).payload(&[&text("")]).bytes();
    let (fault, heard) = refused(&unnamed(47));
    assert_eq!((fault.violation, heard), (Violation::IdentifierRejected, vec![0x20, 3, 0, 0x85, 0]));
    let id: std::sync::Arc<str> = "auto-0123456789abcdef0123456789abcdef".into();
    let accept = Accept { assigned_client_id: Some(std::sync::Arc::clone(&id)), ..Accept::default() };
    let (_, heard) = accepted(&unnamed(48), &accept, Limits::default());
    assert!(heard.len() <= 48 && contains(&heard, &[&[0x12][..], &text(&id)].concat()), "{heard:02x?}");
}

/// What the byte behind the set would mean does not matter, and neither does where it is cut.
#[test]
fn a_property_whose_value_lies_behind_its_set_is_malformed() {
    for (length, rest) in [
        (1, &[0x21, 0, 0][..]),               // a receive maximum, of 0
        (1, &[0x17, 2]),                      // neither 0 nor 1
        (1, &[0x27, 0, 0, 0, 0]),             // a maximum packet size of 0
        (3, &[0x27, 0, 0, 0, 0]),             // half of it
        (4, &[0x26, 0, 1, b'n', 0, 1, b'v']), // a user property without its value
        (2, &[0x15, 0, 1, b'x']),
    ] {
        let body = [&text("MQTT")[..], &[5, 2, 0, 60, length], rest, &text("x")].concat();
        let (fault, heard) = refused(&packet(0x10, &body));
        assert_eq!(
            (fault.violation, heard),
            (Violation::Malformed, vec![0x20, 3, 0, 0x81, 0]),
            "{rest:02x?}"
        );
    }
    for (first, head, length, rest) in [
        (0x30, text("t"), 1, &[0x23, 0, 0][..]),   // a topic alias of 0
        (0x30, text("t"), 2, &[0x23, 0xFF, 0xFF]), // above the maximum
        (0x30, text("t"), 1, &[0x01, 9]),
        (0x30, text("t"), 1, &[0x0B, 0]),
        (0x82, vec![0, 1], 1, &[0x0B, 0, 0, 1, b'a', 0]),
        (0xE0, vec![0], 3, &[0x11, 0, 0, 0, 0]),
        (0x40, vec![0, 1, 0], 1, &[0x1F, 0, 0]),
    ] {
        let bytes = packet(first, &[&head[..], &[length], rest].concat());
        assert_ends(Version::V5, &bytes, Violation::Malformed);
    }
}

/// MQTT 3.1: another name and level, and texts that its flags may promise without having them.
#[test]
fn mqtt_3_1_is_served_by_the_rules_of_3_1_1() {
    let (mut peer, asked) = request(&connect(Version::V31).bytes());
    assert_eq!((asked.version, &*asked.client_id, asked.session_expiry), (Version::V31, "pump", 0));
    assert_eq!(asked.version.as_str(), "MQTT/3.1");
    let (conn, out) = peer.both();
    conn.accept(&Accept::default(), None, out);
    assert_eq!(peer.heard(), [0x20, 2, 0, 0]);
    let message = peer.publish(&qos2(Version::V31, 7));
    assert_eq!(peer.stored(&message), ack(0x50, 7));
    assert_eq!(peer.ask(&ack(0x6A, 7)), ack(0x70, 7), "a PUBREL with DUP");
    let again = [0x8A].iter().chain(&subscribe_v311(1, &[("a", 1)])[1..]).copied().collect::<Vec<_>>();
    assert_eq!(peer.grant(&again), [0x90, 3, 0, 1, 1], "a SUBSCRIBE with DUP");
    assert!(matches!(peer.deliver(Message::new("a", "x", QoS::AtLeastOnce)), Delivery::Sent { .. }));
    assert_eq!(peer.heard(), publish(Version::V31, 0x32, "a", 1, &[], b"x"));
    assert_ends(Version::V31, &[0xF0, 0], Violation::Malformed);

    let (fault, heard) = refused(&connect(Version::V31).payload(&[&text("")]).bytes());
    assert_eq!((fault.violation, heard), (Violation::IdentifierRejected, vec![0x20, 2, 0, 2]));
    let both = |parts: &[&[u8]]| request(&connect(Version::V31).flags(0b1100_0010).payload(parts).bytes()).1;
    assert_eq!(both(&[&text("x")]).username, None);
    let without_password = both(&[&text("x"), &text("ann")]);
    assert_eq!((without_password.username.as_deref(), without_password.password), (Some("ann"), None));
    assert_eq!(both(&[&text("x"), &text("ann"), &data(b"p")]).password, Some(payload(b"p")));
    let kept = request(&connect(Version::V31).flags(0).bytes()).1;
    assert_eq!((kept.clean_start, kept.session_expiry), (false, u32::MAX));
}

#[test]
fn a_fault_names_its_packet_and_its_rule() {
    let limits = Limits { max_packet_size: 64, ..Limits::default() };
    for (bytes, told) in [
        (&[0x30, 0x7F][..], "PUBLISH: a packet above the maximum packet size"),
        (&[0x80, 5], "SUBSCRIBE: reserved flags that are not as reserved"),
        (&[0x32, 6, 0, 1, b't', 0, 0, 0], "PUBLISH: packet id 0"),
        (&[0x40, 2, 0, 0], "PUBACK: packet id 0"),
        (&[0x10, 2], "CONNECT: a second CONNECT"),
        (&[0x00, 0], "packet type 0: packet type 0"),
        (&[0x30, 5, 0, 1, b'#', 0, 0], "PUBLISH: an invalid topic name"),
        (&[0xC0, 0, 0x70, 0], "PUBCOMP: a length that its packet cannot have"),
    ] {
        let mut peer = Peer::with(Version::V5, limits.clone(), &connect(Version::V5).bytes(), None);
        assert_eq!(peer.fault(bytes).told(), told);
    }
    assert_eq!(refused(&[0xC0, 0]).0.told(), "CONNECT: a first packet that is no CONNECT");
    assert_eq!(refused(&connect(Version::V5).flags(3).bytes()).0.packet, "CONNECT");
}
