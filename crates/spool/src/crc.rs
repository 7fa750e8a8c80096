//! CRC-32C (Castagnoli, RFC 3720 section 12.1), eight bytes at a time from tables.
//!
//! Owns: the checksum of everything that the spool writes. Does not own: where a checksum stands.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// `TABLES[k][b]` is the remainder of the byte `b` followed by `k` bytes of zero.
static TABLES: [[u32; 256]; 8] = tables();

/// The checksum of `parts` one after the other, begun from `seed` (0: the plain CRC-32C).
pub(crate) fn checksum(seed: u32, parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!seed, |state, part| update(state, part))
}

fn update(mut state: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    for eight in eights {
        let [a, b, c, d, e, f, g, h] = *eight;
        let [w, x, y, z] = (state ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
        state = look(t7, w)
            ^ look(t6, x)
            ^ look(t5, y)
            ^ look(t4, z)
            ^ look(t3, e)
            ^ look(t2, f)
            ^ look(t1, g)
            ^ look(t0, h);
    }
    for byte in rest {
        let [low, ..] = state.to_le_bytes();
        state = (state >> 8) ^ look(t0, low ^ byte);
    }
    state
}

/// A byte always has its place in 256; the compiler sees that too and looks without a check.
fn look(table: &[u32; 256], byte: u8) -> u32 {
    table.get(usize::from(byte)).copied().unwrap_or_default()
}

#[expect(clippy::indexing_slicing, reason = "runs in the compiler, where a panic is an error of the build")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut state = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 1 == 1 { (state >> 1) ^ POLYNOMIAL } else { state >> 1 };
            bit += 1;
        }
        tables[0][byte] = state;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_vectors_of_the_standard() {
        // RFC 3720, appendix B.4, and the customary check value.
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        assert_eq!(checksum(0, &[b"123456789"]), 0xE306_9283);
        assert_eq!(checksum(0, &[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(checksum(0, &[&[0xFF; 32]]), 0x62A8_AB43);
        assert_eq!(checksum(0, &[&rising]), 0x46DD_794E);
        assert_eq!(checksum(0, &[&falling]), 0x113F_DB5C);
        assert_eq!(checksum(0, &[]), 0);
    }

    #[test]
    fn parts_are_one_after_the_other() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(checksum(7, &[left, right]), checksum(7, &[&bytes]), "cut at {cut}");
        }
        assert_ne!(checksum(7, &[&bytes]), checksum(8, &[&bytes]));
    }
}
