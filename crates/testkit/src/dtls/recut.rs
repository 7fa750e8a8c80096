//! A way that cuts the handshake messages of a client to pieces: small, overlapping, out of order, twice, and empty.
//!
//! Owns: what becomes of the records in the clear of one client, drawn from a seed. Does not own: sockets
//! ([`crate::udp_proxy`] can take this way), or records that are protected: these pass as they are.

use super::wire::{Fragment, Record, content, message};
use crate::proxy::Seed;

/// How a message is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The most bytes of a message in one piece; from 1.
    pub piece: u64,
    /// Pieces overlap by at most so many bytes.
    pub overlap: u64,
    /// Of a hundred pieces so many come twice.
    pub twice: u64,
    /// Of a hundred pieces so many are preceded by an empty one.
    pub empty: u64,
    /// Pieces of one datagram come in any order.
    pub shuffled: bool,
}

impl Cut {
    /// All of it at once.
    pub const FINE: Self = Self { piece: 24, overlap: 9, twice: 20, empty: 20, shuffled: true };

    /// Every byte alone, in order.
    pub const BYTES: Self = Self { piece: 1, overlap: 0, twice: 0, empty: 0, shuffled: false };
}

/// The way of one client.
#[derive(Clone, Debug)]
pub struct Recut {
    cut: Cut,
    seed: Seed,
    /// The number of the next record in the clear: there are more of them than the client knows.
    sequence: u64,
    pieces: u64,
}

impl Recut {
    /// A new way.
    pub fn new(seed: u64, cut: Cut) -> Self {
        Self { cut, seed: Seed(seed), sequence: 0, pieces: 0 }
    }

    /// How many pieces were made so far.
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// What becomes of a client's datagram. A ClientHello is left whole, as a server that keeps no memory of it needs it;
    /// whatever is not of records passes unseen.
    pub fn datagram(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let Some(records) = Record::all(datagram) else { return vec![datagram.to_vec()] };
        let (mut pieces, mut rest) = (Vec::new(), Vec::new());
        for record in records {
            if record.epoch != 0 {
                rest.push(record.encode());
                continue;
            }
            match self.cut(&record) {
                Some(cut) => pieces.extend(cut),
                None => rest.push(self.plain(record.content, record.version, &record.body)),
            }
        }
        if self.cut.shuffled {
            for at in (1..pieces.len()).rev() {
                let other = self.seed.below(at as u64 + 1);
                pieces.swap(at, usize::try_from(other).expect("an index"));
            }
        }
        // ChangeCipherSpec and what is protected behind it stay together, behind what they follow.
        if !rest.is_empty() {
            pieces.push(rest.concat());
        }
        pieces
    }

    /// The pieces of a record's messages; `None` when it is to stay whole.
    fn cut(&mut self, record: &Record) -> Option<Vec<Vec<u8>>> {
        if record.content != content::HANDSHAKE {
            return None;
        }
        let fragments = Fragment::all(&record.body)?;
        if fragments.iter().any(|fragment| fragment.message == message::CLIENT_HELLO) {
            return None;
        }
        let mut pieces = Vec::new();
        for fragment in fragments {
            let mut at = 0;
            loop {
                let piece = usize::try_from(1 + self.seed.below(self.cut.piece)).expect("a piece");
                let back =
                    usize::try_from(self.seed.below(self.cut.overlap + 1)).expect("an overlap").min(at);
                let end = fragment.part.len().min(at + piece);
                if self.seed.below(100) < self.cut.empty {
                    pieces.push(self.piece(record, &fragment, at..at));
                }
                pieces.push(self.piece(record, &fragment, at - back..end));
                if self.seed.below(100) < self.cut.twice {
                    pieces.push(self.piece(record, &fragment, at - back..end));
                }
                at = end;
                if at == fragment.part.len() {
                    break;
                }
            }
        }
        self.pieces += pieces.len() as u64;
        Some(pieces)
    }

    fn piece(&mut self, record: &Record, whole: &Fragment, range: std::ops::Range<usize>) -> Vec<u8> {
        let offset = whole.offset + u32::try_from(range.start).expect("a short message");
        let piece = Fragment { offset, part: whole.part[range].to_vec(), ..whole.clone() };
        self.plain(record.content, record.version, &piece.encode())
    }

    fn plain(&mut self, content: u8, version: [u8; 2], body: &[u8]) -> Vec<u8> {
        let record = Record { version, ..Record::plain(content, self.sequence, body) };
        self.sequence += 1;
        record.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_message() {
        let whole = Fragment::whole(message::CERTIFICATE, 4, (0..=255).collect::<Vec<u8>>());
        for (seed, cut) in [(1, Cut::FINE), (2, Cut::FINE), (3, Cut::BYTES)] {
            let mut way = Recut::new(seed, cut);
            let sealed = Record { epoch: 1, ..Record::plain(content::HANDSHAKE, 0, b"finished") };
            let change = Record::plain(content::CHANGE_CIPHER_SPEC, 8, [1]);
            let datagram = [whole.datagram(7), change.encode(), sealed.encode()].concat();
            let came = way.datagram(&datagram);
            let last = Record::all(came.last().unwrap()).unwrap();
            assert_eq!((last[0].content, &last[1]), (content::CHANGE_CIPHER_SPEC, &sealed));
            let mut built = vec![None; 256];
            let mut numbers = Vec::new();
            for piece in &came[..came.len() - 1] {
                let record = Record::all(piece).unwrap().remove(0);
                numbers.push(record.sequence);
                let fragment = Fragment::all(&record.body).unwrap().remove(0);
                assert_eq!((fragment.message, fragment.length, fragment.number), (11, 256, 4));
                assert!(fragment.part.len() <= 33);
                for (at, byte) in (fragment.offset as usize..).zip(fragment.part) {
                    built[at] = Some(byte);
                }
            }
            assert!(built.iter().enumerate().all(|(at, byte)| *byte == Some(at as u8)), "{built:?}");
            assert!(numbers.len() > 8 && numbers.is_sorted() != cut.shuffled, "{numbers:?}");
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|two| two[0] != two[1]), "each its own number");
        }
    }

    #[test]
    fn what_is_no_handshake_in_the_clear_passes() {
        let mut way = Recut::new(1, Cut::FINE);
        let data = Record { epoch: 1, ..Record::plain(content::DATA, 9, b"sealed") }.encode();
        assert_eq!(way.datagram(&data), std::slice::from_ref(&data));
        assert_eq!(way.datagram(b"noise"), [b"noise"]);
        let hello = super::super::wire::ClientHello::new(1, &[0xc0a8]).datagram(0);
        assert_eq!(way.datagram(&hello), [hello]);
        assert_eq!(way.pieces(), 0);
    }
}
