//! The targets over arbitrary bytes, and over the committed corpora.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_break_nothing(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        super::message(&data);
    }

    #[test]
    fn almost_valid_messages_break_nothing(data in almost_valid()) {
        super::message(&data);
    }

    #[test]
    fn arbitrary_plays_keep_the_model(data in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        super::exchange(&data);
    }
}

/// A header that is right, and options that are nearly so.
fn almost_valid() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![0x40_u8, 0x41, 0x44, 0x50, 0x52, 0x60, 0x70, 0x48]);
    let code = prop::sample::select(vec![0_u8, 1, 2, 3, 4, 5, 0x45, 0x84, 0xE1]);
    let part = prop_oneof![
        Just(b"\xb1a".to_vec()),
        Just(b"\x01b".to_vec()),
        Just(b"\x60".to_vec()),
        Just(b"\x11\x07".to_vec()),
        Just(b"\x3d\x02query-of-15-byt".to_vec()),
        Just(b"\xd1\x0e\x08".to_vec()),
        Just(b"\xd1\x0a\x06".to_vec()),
        Just(b"\xe0\x01\x00".to_vec()),
        Just(b"\xff".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    (first, code, any::<[u8; 2]>(), proptest::collection::vec(part, 0..8))
        .prop_map(|(first, code, id, parts)| [vec![first, code], id.to_vec(), parts.concat()].concat())
}

#[test]
fn the_committed_corpora_break_nothing() {
    for (target, entry) in [("coap_message", super::message as fn(&[u8])), ("coap_exchange", super::exchange)]
    {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(target);
        let mut inputs = 0;
        for file in fs::read_dir(&folder).unwrap().flatten() {
            entry(&fs::read(file.path()).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 10, "{} has {inputs} inputs", folder.display());
    }
}
