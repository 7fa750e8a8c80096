//! Records of nobody: data under keys that were lost with a restart, or never were.
//!
//! Owns: which of them are answered, and how often. Does not own: whose a record is (the listener).
//!
//! A device that never waits for an answer would go on for days on a channel that is gone. It is told `bad_record_mac`, in the
//! clear, since there is nothing else to say it with (RFC 6347, section 4.1.2.7). What that can be misused for:
//!
//! - An answer is smaller than the least record of data, and is itself never answered: nothing is amplified, and two servers do
//!   not go on between each other.
//! - Where an association stands, whatever it makes of a record, nobody is answered: no forged record makes this side say a
//!   word against a channel that lives. That a client takes such a word from somebody who forges *this side's* address is
//!   nothing that could be helped here.

use landfall_session::Tick;

use super::{Address, Counts, Listener, Sink};
use crate::alert::Alert;
use crate::engine::Engine;
use crate::record::{ContentType, MAX_SEQUENCE, RecordHeader};

/// The least that follows the header of a record of data: the explicit nonce and the shortest tag.
const LEAST_BODY: u16 = 16;

/// The number of an answer is so much above that of the record: beyond what the handshake used, which the client counts.
const AHEAD: u64 = 1 << 10;

/// What addresses of late are told apart in. Two that fall on one place are answered as one.
const PLACES: usize = 4_096;

/// An address is answered once in this time, in ms: whoever does not heed the first answer will not heed the next.
const PAUSE_MS: u64 = 10_000;

/// How often is answered.
pub(super) struct Strays {
    per_second: u32,
    /// Answers left in this second.
    left: u32,
    second: Tick,
    /// When somebody at each place may be answered again; none before the first.
    again: Box<[Tick]>,
}

impl Strays {
    pub(super) fn new(now: Tick, per_second: u32) -> Self {
        Self { per_second, left: per_second, second: now / 1_000, again: Box::default() }
    }

    /// Whether somebody at this place is answered now; if so that is noted.
    fn take(&mut self, now: Tick, place: u64) -> bool {
        if self.second != now / 1_000 {
            (self.second, self.left) = (now / 1_000, self.per_second);
        }
        if self.left == 0 {
            return false;
        }
        if self.again.is_empty() {
            self.again = vec![0; PLACES].into_boxed_slice();
        }
        let at = usize::try_from(place % PLACES as u64).unwrap_or_default();
        let Some(again) = self.again.get_mut(at).filter(|again| **again <= now) else { return false };
        *again = now + PAUSE_MS;
        self.left -= 1;
        true
    }
}

impl<E: Engine, P: Copy> Listener<E, P> {
    /// A record has come to where nobody is.
    pub(super) fn astray(
        &mut self,
        now: Tick,
        (path, address): (&P, &Address),
        header: RecordHeader,
        sink: &mut impl Sink<P>,
    ) {
        let Counts { strays, lost, alerts, .. } = &mut self.counts;
        *strays += 1;
        let is_data = header.content == ContentType::APPLICATION_DATA && header.epoch > 0;
        if !is_data || header.length < LEAST_BODY {
            return;
        }
        *lost += 1;
        if self.strays.take(now, self.hasher.hash_one(address)) {
            *alerts += 1;
            let number = (header.sequence + AHEAD) & MAX_SEQUENCE;
            sink.transmit(path, &Alert::BAD_RECORD_MAC.to_record(number));
        }
    }
}
