//! What is changed in a valid input.

use landfall_testkit::proxy::Seed;

/// Numbers at the edges of fields.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xc0, 0xf0, 0xfe, 0xff];
/// The longest input.
const LONGEST: usize = 4_096;

/// One of these.
pub(super) fn pick<'a, T>(seed: &mut Seed, of: &'a [T]) -> &'a T {
    &of[place(seed, of.len())]
}

/// A place in something so long.
pub(super) fn place(seed: &mut Seed, len: usize) -> usize {
    usize::try_from(seed.below(u64::try_from(len.max(1)).unwrap())).unwrap()
}

/// A valid input with one to four changes; `other` is another valid one, of which a part may be put in.
pub(super) fn mutated(seed: &mut Seed, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=seed.below(4) {
        change(seed, &mut bytes, other);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(seed: &mut Seed, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = place(seed, bytes.len());
    match seed.below(8) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << seed.below(8),
        1 if !bytes.is_empty() => bytes[at] = *pick(seed, &EDGES),
        2 if !bytes.is_empty() => bytes[at] = seed.draw().to_le_bytes()[0],
        3 if !bytes.is_empty() => drop(bytes.remove(at)),
        4 => bytes.insert(at, *pick(seed, &EDGES)),
        5 => bytes.truncate(at),
        6 => {
            let from = place(seed, other.len());
            let to = from + place(seed, other.len() - from + 1);
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let to = at + place(seed, bytes.len() - at + 1);
            let again = bytes[at..to].to_vec();
            bytes.splice(at..at, again);
        }
    }
}
