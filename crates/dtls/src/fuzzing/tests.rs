//! The target over arbitrary bytes, and over the committed corpus.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_plays_break_nothing(data in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        super::listener(&data);
    }
}

#[test]
fn the_committed_corpus_breaks_nothing() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/dtls_listener"));
    let mut inputs = 0;
    for file in fs::read_dir(&folder).unwrap().flatten() {
        super::listener(&fs::read(file.path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 10, "{} has {inputs} inputs", folder.display());
}
