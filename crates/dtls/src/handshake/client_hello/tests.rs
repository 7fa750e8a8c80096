use proptest::prelude::*;

use super::*;

fn hello(suites: &[u8], extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = [&[0xFE, 0xFD][..], &[9; 32], &[0], &[2, 1, 1]].concat();
    body.extend([0, u8::try_from(suites.len()).unwrap()]);
    body.extend(suites);
    body.extend([1, 0]);
    if let Some(extensions) = extensions {
        body.extend([0, u8::try_from(extensions.len()).unwrap()]);
        body.extend(extensions);
    }
    body
}

#[test]
fn a_bare_hello() {
    let body = hello(&[0xC0, 0xA8, 0, 0xFF], None);
    let hello = ClientHello::read(&body).unwrap();
    assert_eq!((hello.version, hello.random), (0xFEFD, [9; 32]));
    assert_eq!(hello.suites().collect::<Vec<_>>(), [0xC0A8, 0x00FF]);
    assert!(hello.takes_uncompressed() && hello.secure_renegotiation);
    assert!(!hello.extended_master_secret && !hello.point_formats);
    assert!(hello.groups().is_none() && hello.schemes().is_none());
}

#[test]
fn extensions_that_mean_something() {
    let extensions = [
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
        &[0, 23, 0, 0],
        &[0xFF, 1, 0, 1, 0],
        &[0x55, 0x55, 0, 2, 1, 2],
    ];
    let body = hello(&[0xC0, 0xAE], Some(&extensions.concat()));
    let hello = ClientHello::read(&body).unwrap();
    assert_eq!(hello.groups().unwrap().collect::<Vec<_>>(), [29, 23]);
    assert_eq!(hello.schemes().unwrap().collect::<Vec<_>>(), [0x0403]);
    assert!(hello.extended_master_secret && hello.point_formats && hello.secure_renegotiation);
}

#[test]
fn what_cannot_be_read_is_none() {
    let good = hello(&[0xC0, 0xA8], Some(&[0, 23, 0, 0]));
    assert!(ClientHello::read(&good).is_some());
    for end in 0..good.len() {
        // Without its extensions it is a hello of old.
        assert_eq!(ClientHello::read(&good[..end]).is_some(), end == good.len() - 6, "cut to {end}");
    }
    assert!(ClientHello::read(&[&good[..], &[0]].concat()).is_none(), "more behind it");
    assert!(ClientHello::read(&hello(&[0xC0], None)).is_none(), "half a suite");
    assert!(ClientHello::read(&hello(&[], None)).is_none(), "no suite");
    for extension in [
        &[0, 23, 0, 1, 0][..],
        &[0xFF, 1, 0, 2, 1, 7],
        &[0, 10, 0, 3, 0, 4, 0],
        &[0, 10, 0, 5, 0, 2, 0, 23, 0],
        &[0, 13],
    ] {
        assert!(ClientHello::read(&hello(&[0xC0, 0xA8], Some(extension))).is_none(), "{extension:?}");
    }
}

#[test]
fn no_extension_comes_twice() {
    for (one, other) in [(23, 23), (0x5555, 0x5555), (0xFF01, 0xFF01)] {
        let value: &[u8] = if one == 0xFF01 { &[0, 1, 0] } else { &[0, 0] };
        let pair = |kind: u16| [&kind.to_be_bytes()[..], value].concat();
        let between = [0x12, 0x34, 0, 0];
        let twice = [pair(one), between.to_vec(), pair(other)].concat();
        assert!(ClientHello::read(&hello(&[0xC0, 0xA8], Some(&twice))).is_none(), "{one}");
        let once = [between.to_vec(), pair(one)].concat();
        assert!(ClientHello::read(&hello(&[0xC0, 0xA8], Some(&once))).is_some(), "{one}");
    }
}

#[test]
fn a_client_that_lists_its_versions_speaks_those() {
    let speaks = |list: &[u8]| {
        let length = list.len() as u8;
        let extension = [&[0, 43, 0, length + 1, length][..], list].concat();
        let body = hello(&[0xC0, 0xA8], Some(&extension));
        ClientHello::read(&body).unwrap().speaks_1_2()
    };
    assert!(speaks(&[0xFE, 0xFC, 0xFE, 0xFD]) && speaks(&[0xFE, 0xFD]));
    assert!(!speaks(&[0xFE, 0xFC]) && !speaks(&[]) && !speaks(&[0xFE, 0xFF]));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(hello) = ClientHello::read(&bytes) {
            prop_assert!(hello.suites().count() * 2 < bytes.len());
        }
    }
}
