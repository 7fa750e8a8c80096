//! The targets over arbitrary bytes, and over the committed corpora.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_break_nothing(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        super::codec(&data);
    }

    #[test]
    fn almost_valid_packets_break_nothing(packets in proptest::collection::vec(almost_valid(), 0..8)) {
        super::codec(&packets.concat());
    }

    #[test]
    fn arbitrary_plays_keep_the_model(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        super::session(&data);
    }
}

/// A packet whose header is right and whose body is nearly so.
fn almost_valid() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        0x30_u8, 0x31, 0x32, 0x34, 0x3A, 0x3C, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0,
    ]);
    let part = prop_oneof![
        Just(b"\0\x01a".to_vec()),
        Just(b"\0\x03a/b".to_vec()),
        Just(b"\0\0".to_vec()),
        Just(b"\0\x01".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"\x03\x23\0\x01".to_vec()),
        Just(b"\x02\x0b\x05".to_vec()),
        Just(b"\x05\x02\0\0\0\0".to_vec()),
        Just(b"\x07\x26\0\x01n\0\x01v".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    (first, proptest::collection::vec(part, 0..6)).prop_map(|(first, parts)| {
        let body = parts.concat();
        [vec![first, u8::try_from(body.len()).unwrap()], body].concat()
    })
}

#[test]
fn the_committed_corpora_break_nothing() {
    for (target, entry) in [("mqtt_codec", super::codec as fn(&[u8])), ("mqtt_session", super::session)] {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(target);
        let mut inputs = 0;
        for file in fs::read_dir(&folder).unwrap().flatten() {
            entry(&fs::read(file.path()).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 10, "{} has {inputs} inputs", folder.display());
    }
}
