use proptest::prelude::*;

use super::*;

/// Memory of one handshake's fragments never exceeds this.
const MAX_MEMORY: usize = MAX_BYTES + MAX_BYTES / 8 + 4 * 100;

fn fragment(message_seq: u16, length: usize, offset: usize, body: &[u8]) -> FragmentHeader {
    let number = |number| u32::try_from(number).unwrap();
    FragmentHeader {
        kind: MessageType(11),
        length: number(length),
        message_seq,
        offset: number(offset),
        fragment: number(body.len()),
    }
}

fn put(fragments: &mut Fragments, message_seq: u16, whole: &[u8], range: std::ops::Range<usize>) -> Fate {
    let body = &whole[range.clone()];
    fragments.insert(&fragment(message_seq, whole.len(), range.start, body), body).unwrap()
}

#[test]
fn messages_are_taken_in_order() {
    let mut fragments = Fragments::new(7);
    assert_eq!(put(&mut fragments, 8, b"second", 0..6), Fate::Held);
    assert!(fragments.take().is_none());
    assert_eq!(put(&mut fragments, 7, b"", 0..0), Fate::Held);
    assert_eq!(fragments.take().unwrap(), (FragmentHeader::whole(MessageType(11), 0, 7), Vec::new()));
    assert_eq!(fragments.take().unwrap().1, b"second");
    assert!(fragments.take().is_none());
    assert_eq!(put(&mut fragments, 8, b"second", 0..6), Fate::Old);
    assert_eq!(put(&mut fragments, 13, b"far", 0..3), Fate::Dropped);
    assert_eq!(put(&mut fragments, 9_000, b"far", 0..3), Fate::Dropped);
}

#[test]
fn numbers_go_round() {
    let mut fragments = Fragments::new(u16::MAX);
    assert_eq!(put(&mut fragments, 0, b"b", 0..1), Fate::Held);
    assert_eq!(put(&mut fragments, u16::MAX, b"a", 0..1), Fate::Held);
    assert_eq!(fragments.take().unwrap().1, b"a");
    assert_eq!(fragments.take().unwrap().1, b"b");
    assert_eq!(put(&mut fragments, u16::MAX, b"a", 0..1), Fate::Old);
}

#[test]
fn fragments_that_contradict_are_dropped() {
    let mut fragments = Fragments::new(0);
    assert_eq!(put(&mut fragments, 0, b"message", 0..3), Fate::Held);
    assert_eq!(put(&mut fragments, 0, b"longer message", 0..5), Fate::Dropped);
    let mut other_kind = fragment(0, 7, 3, b"sage");
    other_kind.kind = MessageType(16);
    assert_eq!(fragments.insert(&other_kind, b"sage"), Ok(Fate::Dropped));
    let beyond = fragment(0, 7, 6, b"ge");
    assert_eq!(fragments.insert(&beyond, b"ge"), Ok(Fate::Dropped));
    assert_eq!(put(&mut fragments, 0, b"xxxxage", 2..7), Fate::Held, "the first byte of a place stays");
    assert_eq!(fragments.take().unwrap().1, b"mesxage");
}

#[test]
fn a_claim_costs_nothing() {
    let mut fragments = Fragments::new(0);
    let claim = FragmentHeader { length: 0xFF_FFFF, ..fragment(0, 1, 0, b"x") };
    assert_eq!(fragments.insert(&claim, b"x"), Err(TooLarge));
    for message_seq in 0..4 {
        assert_eq!(put(&mut fragments, message_seq, &[0; MAX_BYTES], 0..0), Fate::Dropped);
    }
    assert_eq!(fragments.memory(), 0);
}

#[test]
fn the_next_message_finds_room() {
    let mut fragments = Fragments::new(0);
    let large = [1; MAX_BYTES];
    assert_eq!(put(&mut fragments, 3, &large, 0..4_000), Fate::Held);
    assert_eq!(put(&mut fragments, 2, &large[..200], 0..200), Fate::Held, "nearer, so the farther gives way");
    assert_eq!(put(&mut fragments, 3, &large, 0..4_000), Fate::Dropped);
    assert_eq!(put(&mut fragments, 0, &large, 0..8_000), Fate::Held);
    assert_eq!(put(&mut fragments, 0, &large, 8_000..MAX_BYTES), Fate::Held);
    assert_eq!(fragments.take().unwrap().1, large);
    assert!(fragments.memory() < MAX_MEMORY);
}

proptest! {
    #[test]
    fn any_fragmentation_in_any_order_is_the_message(
        whole in prop::collection::vec(any::<u8>(), 1..600),
        cuts in prop::collection::vec((0_usize..600, 0_usize..80), 0..60),
        order in any::<u64>(),
    ) {
        // What the cuts leave out is filled byte by byte.
        let mut pieces: Vec<(usize, usize)> = (0..whole.len()).map(|at| (at, at + 1)).collect();
        let clip = |at: usize| at.min(whole.len());
        pieces.extend(cuts.iter().map(|(start, length)| (clip(*start), clip(start + length))));
        let length = pieces.len() as u64;
        pieces.sort_by_key(|(start, end)| (*start as u64 * 31 + *end as u64 * 17).wrapping_mul(order | 1) % (length * 7));
        let mut fragments = Fragments::new(3);
        for (start, end) in pieces {
            put(&mut fragments, 3, &whole, start..end);
            prop_assert!(fragments.memory() <= whole.len() + whole.len() / 8 + 500);
        }
        prop_assert_eq!(fragments.take().unwrap().1, whole);
    }

    #[test]
    fn hostile_fragments_stay_within_the_bound(
        all in prop::collection::vec((0_u16..8, 0_u32..10_000, 0_u32..10_000, 0_usize..1_200, 0_u8..3), 0..100),
    ) {
        let body = [7; 1_200];
        let mut fragments = Fragments::new(0);
        for (message_seq, length, offset, size, kind) in all {
            let header = FragmentHeader {
                kind: MessageType(kind), length, message_seq, offset, fragment: u32::try_from(size).unwrap(),
            };
            let _ = fragments.insert(&header, &body[..size]);
            prop_assert!(fragments.memory() <= MAX_MEMORY, "{}", fragments.memory());
            if size % 5 == 0 {
                fragments.take();
            }
        }
    }
}
