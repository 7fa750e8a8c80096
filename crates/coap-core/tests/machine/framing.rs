//! RFC 7252, sections 3 and 4.1 to 4.3: what is a message, and what is said to what is none.

use landfall_coap_core::codec::{Fault, Malformed, decode, encode};
use landfall_coap_core::{Code, Kind, Message, Output, Rejected, number};

use crate::bench::{Bench, ack, handed_up, one, post, rst, token};

fn fault(datagram: &[u8]) -> (Fault, Option<u16>) {
    let Malformed { fault, reset } = decode(datagram).unwrap_err();
    (fault, reset)
}

#[test]
fn section_3_a_message_is_read_as_it_was_written() {
    let mut message = Message::new(Kind::Con, Code::POST, 0xABCD, token(b"12345678"));
    message.options.push(number::URI_PATH, "a".repeat(12));
    message.options.push(number::URI_PATH, "b".repeat(13));
    message.options.push(number::URI_QUERY, "c".repeat(255));
    message.options.push(2_048, "d".repeat(300));
    message.options.push(65_000, "");
    message.payload = "\u{ff}payload".into();
    assert_eq!(decode(&encode(&message)).unwrap(), message);
}

#[test]
fn figure_16_is_read() {
    let read = decode(b"\x41\x01\x7d\x34\x20\xbbtemperature").unwrap();
    assert_eq!((read.kind, read.code, read.id), (Kind::Con, Code::GET, 0x7D34));
    assert_eq!(
        (read.token.as_bytes(), &read.options.first(number::URI_PATH).unwrap()[..]),
        (&b"\x20"[..], &b"temperature"[..])
    );
}

#[test]
fn section_3_a_message_of_another_version_is_ignored() {
    for version in [0_u8, 2, 3] {
        let datagram = [version << 6, 1, 0, 1];
        assert_eq!(fault(&datagram), (Fault::Version, None));
        let outputs = Bench::new().raw(1, &datagram);
        assert!(matches!(outputs[..], [Output::Rejected { .. }]), "{outputs:?}");
    }
    for length in 0..4 {
        assert_eq!(fault(&[0x40, 1, 0, 1][..length]), (Fault::Short, None));
    }
}

#[test]
fn section_3_a_token_length_above_8_is_an_error() {
    for length in 9..16_u8 {
        let datagram = [&[0x40 | length, 1, 0, 9][..], &[0; 16]].concat();
        assert_eq!(fault(&datagram), (Fault::Token, Some(9)));
    }
    assert_eq!(fault(&[0x44, 1, 0, 9, 1, 2, 3]).0, Fault::Token, "cut off");
}

#[test]
fn section_3_1_an_option_is_whole_and_its_number_has_16_bits() {
    let cases: &[(&[u8], &str)] = &[
        (b"\xf0\x00", "delta 15"),
        (b"\x0f\x00", "length 15"),
        (b"\xd0", "no extended delta"),
        (b"\xe0\x00", "half an extended delta"),
        (b"\x0d", "no extended length"),
        (b"\x0e\x00", "half an extended length"),
        (b"\xb5four", "cut off"),
        (b"\xbd\xffshort", "cut off, extended"),
        (b"\xe0\xff\xff", "number above 65,535"),
        (b"\xe0\xfe\xf2\x10", "sum above 65,535"),
        (b"\x0e\xff\xff", "length above what fits"),
    ];
    for (options, what) in cases {
        assert_eq!(fault(&[b"\x40\x01\0\x01", *options].concat()).0, Fault::Option, "{what}");
    }
}

#[test]
fn section_3_a_payload_marker_has_a_payload() {
    assert_eq!(fault(b"\x40\x02\0\x01\xff"), (Fault::Marker, Some(1)));
    assert_eq!(fault(b"\x40\x02\0\x01\xb1a\xff").0, Fault::Marker);
    assert_eq!(decode(b"\x40\x02\0\x01\xff\xff").unwrap().payload, &b"\xff"[..]);
    // An option that ends with the same byte is no marker.
    assert_eq!(decode(b"\x40\x02\0\x01\xb1\xff").unwrap().options.first(11).unwrap(), &b"\xff"[..]);
}

#[test]
fn section_4_1_an_empty_message_is_its_header() {
    for datagram in [&b"\x41\0\0\x01t"[..], b"\x40\0\0\x01\xb1a", b"\x40\0\0\x01\xffp", b"\x60\0\0\x01\0"] {
        assert_eq!(fault(datagram).0, Fault::Empty, "{datagram:?}");
    }
    assert_eq!(fault(b"\x50\0\0\x01").0, Fault::Empty, "NON carries a request or a response");
}

#[test]
fn table_1_types_carry_only_their_codes() {
    for code in [0x20, 0x3F, 0xC0, 0xDF, 0xE1, 0xFF] {
        assert_eq!(fault(&[0x40, code, 0, 1]), (Fault::Code, Some(1)), "reserved class");
    }
    assert_eq!(fault(b"\x60\x01\0\x01"), (Fault::Code, None), "ACK with a request");
    assert_eq!(fault(b"\x70\x01\0\x01").0, Fault::Code, "RST with a request");
    assert_eq!(fault(b"\x70\x45\0\x01").0, Fault::Code, "RST with a response");
    assert!(decode(b"\x60\x45\0\x01").is_ok());
}

#[test]
fn section_4_2_a_confirmable_format_error_is_reset_and_no_other() {
    let mut bench = Bench::new();
    assert_eq!(one(&bench.raw(1, b"\x49\x01\x12\x34")), rst(0x1234));
    let outputs = bench.raw(1, b"\x59\x01\x12\x34");
    assert!(matches!(outputs[..], [Output::Rejected { peer: 1, why: Rejected::Malformed(_) }]));
    assert_eq!(bench.endpoint.peers(), 0, "no state");
}

#[test]
fn section_4_3_a_ping_gets_its_reset() {
    let mut bench = Bench::new();
    let outputs = bench.raw(3, b"\x40\0\x12\x34");
    assert_eq!(one(&outputs), rst(0x1234));
    assert!(outputs.contains(&Output::Ping { peer: 3 }));
    assert_eq!(bench.endpoint.peers(), 0, "no state");
}

#[test]
fn section_4_2_what_matches_nothing_is_rejected() {
    let mut bench = Bench::new();
    for (message, reset) in [
        (ack(5), false),
        (rst(5), false),
        (Message::new(Kind::Ack, Code::CONTENT, 5, token(b"t")), false),
        (Message::new(Kind::Non, Code::CONTENT, 5, token(b"t")), false),
        (Message::new(Kind::Con, Code::CONTENT, 5, token(b"t")), true),
    ] {
        let outputs = bench.send(1, &message);
        assert!(outputs.contains(&Output::Rejected { peer: 1, why: Rejected::Unmatched }), "{message:?}");
        assert_eq!(outputs.len() == 2 && one(&outputs) == rst(5), reset, "{message:?}");
    }
    assert_eq!(bench.endpoint.peers(), 0, "no state");
}

#[test]
fn section_4_4_the_same_id_and_token_of_another_peer_is_another_message() {
    let mut bench = Bench::new();
    let (first, _) = handed_up(&bench.send(1, &post(7, "one")));
    let (second, request) = handed_up(&bench.send(2, &post(7, "two")));
    assert_ne!(first, second);
    assert_eq!(request.payload, "two");
}

#[test]
fn a_message_has_256_options_at_most() {
    let with = |count: usize, value: usize| {
        let mut message = Message::new(Kind::Con, Code::POST, 1, token(b"t"));
        (0..count).for_each(|_| message.options.push(number::URI_PATH, vec![b'x'; value]));
        message.payload = vec![0x11; 2_000].into();
        encode(&message)
    };
    for value in [0, 12, 13, 200, 300] {
        assert_eq!(decode(&with(256, value)).unwrap().options.len(), 256, "{value}");
        assert_eq!(fault(&with(257, value)), (Fault::Option, Some(1)), "{value}");
    }
    assert_eq!(fault(&[&b"\x40\x02\0\x01"[..], &[0; 60_000]].concat()).0, Fault::Option);
}
