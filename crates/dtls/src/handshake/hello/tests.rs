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

/// A hello that offers these suites and these extensions; `None`: it has no list of them.
fn offers(suites: &[u16], extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = [&[0xFE, 0xFD][..], &[7; 32], &[0, 0]].concat();
    body.extend((2 * suites.len() as u16).to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    if let Some(extensions) = extensions {
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
    }
    body
}

fn speaks_1_2(body: &[u8]) -> bool {
    let length = u32::try_from(body.len()).unwrap();
    HelloStart::read(&datagram(body, length, 0)).unwrap().speaks_1_2()
}

#[test]
fn who_lists_versions_speaks_those() {
    let later = [0, 43, 0, 3, 2, 0xFE, 0xFC];
    let both = [0, 43, 0, 5, 4, 0xFE, 0xFC, 0xFE, 0xFD];
    let before = [0, 23, 0, 0];
    for (suites, extensions, expected) in [
        (&[0x1301][..], Some(&later[..]), false),
        (&[0x1301, 0xC0A8], Some(&later), false),
        (&[0x1301, 0xC0A8], Some(&both), true),
        (&[0xC0A8], Some(&before), true),
        (&[0xC0A8], None, true),
        (&[0x1301], Some(&before), true),
        (&[0x1301, 0x00FF, 0x5A5A], None, false),
    ] {
        assert_eq!(speaks_1_2(&offers(suites, extensions)), expected, "{suites:x?} {extensions:?}");
    }
    let behind = [&before[..], &later].concat();
    assert!(!speaks_1_2(&offers(&[0x1301], Some(&behind))));
}

/// A large key share puts the list of versions into a fragment that is looked at later: the suites tell.
#[test]
fn where_the_versions_are_in_another_fragment_the_suites_tell() {
    let key_share = [&[0, 51, 4, 0][..], &[7; 1_024]].concat();
    let extensions = [&key_share[..], &[0, 43, 0, 3, 2, 0xFE, 0xFC]].concat();
    for (suites, expected) in [(&[0x1301, 0x1302, 0x0A0A, 0x00FF][..], false), (&[0x1301, 0xC0A8], true)] {
        let whole = offers(suites, Some(&extensions));
        let length = u32::try_from(whole.len()).unwrap();
        for end in [whole.len() - 1, 600, 70] {
            let first = datagram(&whole[..end], length, 0);
            assert_eq!(HelloStart::read(&first).unwrap().speaks_1_2(), expected, "{suites:x?}, cut at {end}");
        }
    }
}
