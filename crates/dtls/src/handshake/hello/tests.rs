use super::*;

/// A datagram with one fragment of a ClientHello: all that stands in `body`, of a message of `length` bytes.
fn datagram(body: &[u8], length: u32, offset: u32) -> Vec<u8> {
    let fragment = u32::try_from(body.len()).unwrap();
    let header = FragmentHeader { kind: MessageType::CLIENT_HELLO, length, message_seq: 1, offset, fragment }
        .to_bytes();
    let record = u16::try_from(header.len() + body.len()).unwrap();
    let record = RecordHeader::new(ContentType::HANDSHAKE, 0, 9, record).to_bytes();
    [&record[..], &header, body].concat()
}

fn body(cookie: &[u8]) -> Vec<u8> {
    let cookie_length = u8::try_from(cookie.len()).unwrap();
    [&[0xFE, 0xFD][..], &[7; 32], &[2, 1, 2], &[cookie_length], cookie, &[0, 2, 0xC0]].concat()
}

#[test]
fn a_first_fragment_is_enough() {
    let bytes = datagram(&body(b"cookie"), 500, 0);
    let start = HelloStart::read(&bytes).unwrap();
    assert_eq!((start.record_sequence, start.message_seq, start.length), (9, 1, 500));
    assert_eq!((start.version, start.random), (0xFEFD, &[7; 32]));
    assert_eq!(
        (start.session_id, start.cookie, start.rest),
        (&[1, 2][..], &b"cookie"[..], &[0, 2, 0xC0][..])
    );
    assert!(start.speaks_1_2());
}

#[test]
fn what_is_no_start_is_none() {
    let whole = body(b"cookie");
    for end in 0..whole.len() - 3 {
        assert!(HelloStart::read(&datagram(&whole[..end], 500, 0)).is_none(), "cut at {end}");
    }
    assert!(HelloStart::read(&datagram(&whole, 500, 1)).is_none(), "not its start");
    assert!(HelloStart::read(&datagram(&whole, 20, 0)).is_none(), "longer than its message");
    let good = datagram(&whole, 500, 0);
    for end in 0..good.len() {
        assert!(HelloStart::read(&good[..end]).is_none(), "datagram cut at {end}");
    }
    for (at, value) in [(0, 23), (4, 1), (13, 2)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(HelloStart::read(&bytes).is_none(), "byte {at} is {value}");
    }
    let mut long_session = whole;
    long_session[34] = 33;
    assert!(HelloStart::read(&datagram(&long_session, 500, 0)).is_none());
}
