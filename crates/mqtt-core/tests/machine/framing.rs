//! Fixed headers, lengths, types and flags (sections 2.1 and 4.13).

use std::sync::Arc;

use bytes::BytesMut;
use landfall_event::{Reason, RefusedCause};
use landfall_mqtt_core::{Connection, Limits, Violation};

use crate::peer::*;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() <= 64, "{}", size_of::<Connection>());
}

#[test]
fn a_packet_of_a_server_ends_the_connection() {
    for version in BOTH {
        for bytes in [
            &[0x20, 2, 0, 0][..], // CONNACK
            &[0x20, 1, 0],        // CONNACK, truncated
            &[0x90, 3, 0, 1, 0],  // SUBACK
            &[0xB0, 2, 0, 1],     // UNSUBACK
            &[0xD0, 0],           // PINGRESP
        ] {
            assert_ends(version, bytes, Violation::ProtocolError);
        }
    }
}

#[test]
fn reserved_types_and_flags_are_malformed() {
    for version in BOTH {
        for first in [0x00, 0x0F, 0x41, 0x52, 0x60, 0x63, 0x78, 0x80, 0x83, 0xA0, 0xC1, 0xE1] {
            assert_ends(version, &[first, 2, 0, 1], Violation::Malformed);
        }
        assert_ends(version, &publish(version, 0x36, "t", 1, &[], b""), Violation::Malformed); // QoS 3
        assert_ends(version, &publish(version, 0x38, "t", 0, &[], b""), Violation::Malformed); // DUP with QoS 0
    }
    assert_ends(Version::V311, &[0xF0, 0], Violation::Malformed);
    assert_ends(Version::V5, &[0xF1, 0], Violation::Malformed); // [MQTT-3.15.1-1]
}

#[test]
fn an_auth_that_nobody_asked_for_is_a_protocol_error() {
    assert_ends(Version::V5, &[0xF0, 0], Violation::ProtocolError);
    assert_ends(Version::V5, &[0xF0, 2, 0x19, 0], Violation::ProtocolError);
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    for version in BOTH {
        assert_ends(version, &connect(version).bytes(), Violation::ProtocolError); // [MQTT-3.1.0-2]
    }
}

#[test]
fn a_remaining_length_has_at_most_four_bytes() {
    for version in BOTH {
        assert_ends(version, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Violation::Malformed);
        assert_ends(version, &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], Violation::Malformed);
    }
}

#[test]
fn a_remaining_length_of_too_many_bytes_is_malformed_on_5_and_legal_on_3() {
    assert_ends(Version::V5, &[0xC0, 0x80, 0x00], Violation::Malformed); // [MQTT-1.5.5-1]
    assert_eq!(Peer::v311().ask(&[0xC0, 0x80, 0x00]), [0xD0, 0]);
}

#[test]
fn a_claim_of_a_huge_packet_allocates_nothing() {
    for version in BOTH {
        assert_ends(version, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F], Violation::PacketTooLarge);
    }
    let mut conn = Connection::new(Arc::new(Limits::default()));
    let (mut input, mut out) = (BytesMut::with_capacity(16), BytesMut::new());
    input.extend_from_slice(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4, b'M', b'Q', b'T', b'T']);
    assert!(conn.poll(&mut input, &mut out).is_none(), "the version is not there yet");
    assert_eq!(input.capacity(), 16);
    input.extend_from_slice(&[5, 2, 0, 0]);
    assert!(conn.poll(&mut input, &mut out).is_some());
    assert_eq!(input.capacity(), 16);
    assert_eq!(out[..], [0x20, 3, 0, 0x95, 0]);
}

#[test]
fn a_packet_under_the_limit_is_waited_for_without_an_allocation() {
    let mut peer = Peer::v5();
    let mut input = BytesMut::with_capacity(64);
    input.extend_from_slice(&[0x30, 0xA0, 0x8D, 0x06, 0, 1, b't']); // 100,000 bytes
    let (conn, out) = peer.both();
    assert!(conn.poll(&mut input, out).is_none());
    assert_eq!((input.len(), input.capacity()), (7, 64));
}

#[test]
fn the_largest_packet_is_taken_and_one_byte_more_is_not() {
    let limits = || Limits { max_packet_size: 200, ..Limits::default() };
    for (size, fits) in [(200, true), (201, false)] {
        let mut peer = Peer::with(Version::V5, limits(), &connect(Version::V5).bytes(), None);
        let packet = publish(Version::V5, 0x30, "t", 0, &[], &vec![0; size - 7]);
        assert_eq!(packet.len(), size);
        if fits {
            assert_eq!(peer.publish(&packet).payload.len(), size - 7);
        } else {
            assert_eq!(peer.fault(&packet[..3]).violation, Violation::PacketTooLarge);
        }
    }
}

#[test]
fn lengths_that_a_packet_cannot_have_are_malformed_at_once() {
    for version in BOTH {
        assert_ends(version, &[0xC0, 1], Violation::Malformed);
        assert_ends(version, &[0x30, 1], Violation::Malformed);
        assert_ends(version, &[0x82, 4], Violation::Malformed);
        assert_ends(version, &[0xA2, 4], Violation::Malformed);
    }
    assert_ends(Version::V311, &[0xE0, 1], Violation::Malformed);
    for first in [0x40, 0x50, 0x62, 0x70] {
        assert_ends(Version::V311, &[first, 3], Violation::Malformed);
        assert_ends(Version::V5, &[first, 1], Violation::Malformed);
    }
}

#[test]
fn packets_that_end_before_their_parts_are_malformed() {
    for bytes in [
        &[0x32, 3, 0, 1, b't'][..],                           // QoS 1, no packet id
        &[0x30, 2, 0, 9],                                     // topic longer than the packet
        &[0x32, 5, 0, 1, b't', 0, 0],                         // packet id 0
        &[0x40, 2, 0, 0],                                     // PUBACK of id 0
        &[0x82, 6, 0, 1, 0, 0, 1, b't'],                      // SUBSCRIBE without options
        &[0x82, 5, 0, 1, 0, 0, 9],                            // filter longer than the packet
        &[0x82, 7, 0, 0, 0, 0, 1, b't', 0],                   // SUBSCRIBE of id 0
        &[0xA2, 6, 0, 0, 0, 0, 1, b't'],                      // UNSUBSCRIBE of id 0
        &[0x30, 5, 0, 1, b't', 9, 1],                         // properties longer than the packet
        &[0x30, 6, 0, 1, b't', 2, 2, 0],                      // message expiry cut off
        &[0x30, 4, 0, 1, b't', 0x80],                         // property length cut off
        &[0x30, 9, 0, 1, b't', 0x80, 0x80, 0x80, 0x80, 0, 0], // property length of five bytes
        &[0x30, 5, 0, 1, b't', 0x80, 0],                      // property length of too many bytes
        &[0x40, 5, 0, 1, 0, 0, 0],                            // bytes behind the properties of a PUBACK
        &[0x40, 3, 0, 1, 0x55],                               // a reason code that PUBACK does not have
        &[0xE0, 1, 0x55],                                     // a reason code that DISCONNECT does not have
    ] {
        assert_ends(Version::V5, bytes, Violation::Malformed);
    }
    assert_ends(Version::V311, &[0x32, 3, 0, 1, b't'], Violation::Malformed);
    assert_ends(Version::V311, &[0x82, 5, 0, 1, 0, 1, b't'], Violation::Malformed);
    assert_ends(Version::V311, &[0x82, 5, 0, 1, 0, 0, 0], Violation::Malformed);
}

#[test]
fn texts_are_utf_8_without_u_0000() {
    for bad in [&b"\xC0\x80"[..], b"\xED\xA0\x80", b"\xFF", b"a\0b", b"\xF5\x80\x80\x80"] {
        for version in BOTH {
            let mut body = data(bad);
            if version == Version::V5 {
                body.push(0);
            }
            assert_ends(version, &packet(0x30, &body), Violation::Malformed); // [MQTT-1.5.4-1] [MQTT-1.5.4-2]
            let properties = if version == Version::V5 { &[0][..] } else { &[] };
            let subscribe = [&[0, 1][..], properties, &data(bad), &[0]].concat();
            assert_ends(version, &packet(0x82, &subscribe), Violation::Malformed);
        }
        let user = [&[0x26][..], &data(bad), &text("v")].concat();
        assert_ends(Version::V5, &publish(Version::V5, 0x30, "t", 0, &user, b""), Violation::Malformed);
    }
}

#[test]
fn a_byte_order_mark_is_kept() {
    let message = Peer::v5().publish(&publish(Version::V5, 0x30, "\u{FEFF}t", 0, &[], b"")); // [MQTT-1.5.4-3]
    assert_eq!(&*message.topic, "\u{FEFF}t");
}

#[test]
fn properties_are_those_of_their_packet_and_come_once() {
    let expiry = [0x02, 0, 0, 0, 1];
    let twice = [expiry, expiry].concat();
    for (properties, violation) in [
        (&twice[..], Violation::ProtocolError),
        (&[0x01, 0, 0x01, 0], Violation::ProtocolError),
        (&[0x01, 2], Violation::ProtocolError),
        (&[0x0B, 1], Violation::ProtocolError),      // [MQTT-3.3.4-6]
        (&[0x11, 0, 0, 0, 1], Violation::Malformed), // Session Expiry is CONNECT's
        (&[0x7F, 0], Violation::Malformed),
        (&[0x00], Violation::Malformed),
        (&[0x23, 0, 0], Violation::TopicAliasInvalid),
        (&[0x08, 0, 1, b'#'], Violation::TopicNameInvalid), // [MQTT-3.3.2-14]
        (&[0x08, 0, 0], Violation::TopicNameInvalid),
    ] {
        assert_ends(Version::V5, &publish(Version::V5, 0x30, "t", 0, properties, b"x"), violation);
    }
}

#[test]
fn user_properties_are_bounded() {
    let property = [&[0x26][..], &text("n"), &text("v")].concat();
    let limit = Limits::default().max_user_properties;
    let message = Peer::v5().publish(&publish(Version::V5, 0x30, "t", 0, &property.repeat(limit), b""));
    assert_eq!(message.user_properties.len(), limit);
    let more = publish(Version::V5, 0x30, "t", 0, &property.repeat(limit + 1), b"");
    assert_ends(Version::V5, &more, Violation::QuotaExceeded);
}

#[test]
fn a_fault_says_what_it_is_to_the_shell() {
    let fault = Peer::v5().fault(&[0xD0, 0]);
    assert_eq!((fault.reason, fault.cause), (Reason::ProtocolError, RefusedCause::Malformed));
}

#[test]
fn reasons_in_words_come_only_where_they_are_welcome() {
    let words = |properties: &[u8]| {
        let connect = connect(Version::V5).properties(properties).bytes();
        let mut peer = Peer::with(Version::V5, Limits::default(), &connect, None);
        peer.fault(&[0xD0, 0]);
        peer.heard()
    };
    let told = words(&[]);
    assert_eq!(told[..2], [0xE0, u8::try_from(told.len() - 2).unwrap()]);
    assert_eq!(told[2..6], [0x82, u8::try_from(told.len() - 4).unwrap(), 0x1F, 0]);
    assert_eq!(words(&[0x17, 0]), [0xE0, 1, 0x82]); // Request Problem Information 0
}

#[test]
fn a_ping_is_answered_in_either_version() {
    for version in BOTH {
        assert_eq!(Peer::of(version).ask(&[0xC0, 0, 0xC0, 0]), [0xD0, 0, 0xD0, 0]); // [MQTT-3.12.4-1]
    }
}
