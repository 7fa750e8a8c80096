//! The target over arbitrary bytes, over almost valid lines, and over the committed corpus.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_break_nothing(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        super::line(&data);
    }

    #[test]
    fn almost_valid_lines_break_nothing(
        words in proptest::collection::vec(word(), 0..8),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        super::line(&[b"LF1 ", words.join(" ").as_bytes(), b"\n", &payload].concat());
    }
}

fn word() -> impl Strategy<Value = String> {
    let known = ["key=", "seq=", "hb=", "sleep=", "got=", "res=", "status=", "sig=", "ack", "bye", ""];
    let value = prop_oneof![
        Just(String::new()),
        Just("ab".repeat(32)),
        "[0-9]{1,22}",
        "[a-z@%=]{1,5}",
        "(%[0-9A-F]{2}){1,4}",
        "\\PC{1,5}",
    ];
    (prop::sample::select(known.to_vec()), value).prop_map(|(word, value)| format!("{word}{value}"))
}

#[test]
fn the_committed_corpus_breaks_nothing() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/udp_line"));
    let mut inputs = 0;
    for file in fs::read_dir(&folder).unwrap().flatten() {
        super::line(&fs::read(file.path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 10, "{} has {inputs} inputs", folder.display());
}
