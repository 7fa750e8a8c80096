//! The server's flight that a client answers: cut into datagrams, and sent again (RFC 6347, sections 4.2.3 and 4.2.4).
//!
//! Owns: its messages, when they are due again, how often. Does not own: what they say.

use landfall_session::Tick;

use crate::engine::Outlet;
use crate::handshake::{self, FragmentHeader};
use crate::record::{self, ContentType, RecordHeader};

/// The first wait, and the longest (RFC 6347, section 4.2.4.1), in ms.
const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 60_000;

/// A client's repeated flight is not answered more often than this: whoever repeats it for somebody else gains little.
const PAUSE_MS: u64 = 500;

/// How often a flight is sent again in all.
const MAX_RESENT: u8 = 10;

/// A piece of a message smaller than this is not worth beginning at the end of a datagram.
const MIN_PIECE: usize = 64;

/// Both headers before a piece of a message.
const HEADERS: usize = record::HEADER + handshake::HEADER;

/// A flight that was sent, or none yet.
#[derive(Debug)]
pub(super) struct Flight {
    messages: Vec<u8>,
    /// The number of the next record in epoch 0. It grows with every record, so that a repeated flight has new ones.
    next_record: u64,
    mtu: usize,
    sent: Tick,
    wait_ms: u64,
    due: Option<Tick>,
    resent: u8,
}

impl Flight {
    /// None yet. Records begin with the number that the ClientHello had: whatever was sent before it was sent by who keeps no
    /// count (RFC 6347, section 4.2.1).
    pub(super) fn new(next_record: u64, mtu: usize) -> Self {
        let mtu = mtu.max(HEADERS + MIN_PIECE);
        Self { messages: Vec::new(), next_record, mtu, sent: 0, wait_ms: FIRST_WAIT_MS, due: None, resent: 0 }
    }

    /// Sends `messages` for the first time.
    pub(super) fn begin(&mut self, now: Tick, messages: Vec<u8>, outlet: &mut impl Outlet) {
        self.messages = messages;
        self.send(now, outlet);
    }

    /// When it is due again.
    pub(super) fn due(&self) -> Option<Tick> {
        self.due
    }

    /// The client has to wait for somebody else: nothing is due.
    pub(super) fn pause(&mut self) {
        self.due = None;
    }

    /// The client's turn again.
    pub(super) fn resume(&mut self, now: Tick) {
        self.due = (self.resent < MAX_RESENT).then_some(now + self.wait_ms);
    }

    /// Sends it again when it is due; whether it was.
    pub(super) fn handle_timeout(&mut self, now: Tick, outlet: &mut impl Outlet) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.wait_ms = (self.wait_ms * 2).min(LONGEST_WAIT_MS);
            self.resent += 1;
            self.send(now, outlet);
        }
        is_due
    }

    /// The client's flight came again, so this one was lost or is late; whether it is sent again.
    pub(super) fn repeat(&mut self, now: Tick, outlet: &mut impl Outlet) -> bool {
        if self.resent >= MAX_RESENT || now < self.sent + PAUSE_MS {
            return false;
        }
        self.resent += 1;
        self.send(now, outlet);
        true
    }

    /// A number for one more record in epoch 0.
    pub(super) fn take_number(&mut self) -> u64 {
        let number = self.next_record;
        self.next_record = (number + 1) & record::MAX_SEQUENCE;
        number
    }

    /// Several records to a datagram. A message is cut only where a datagram of its own would not hold it: not every client can
    /// put pieces together.
    fn send(&mut self, now: Tick, outlet: &mut impl Outlet) {
        self.sent = now;
        self.resume(now);
        let messages = std::mem::take(&mut self.messages);
        let mut datagram = Vec::with_capacity(self.mtu.min(messages.len() + 8 * HEADERS));
        let mut rest = messages.as_slice();
        while let Some((header, body, after)) = FragmentHeader::read(rest) {
            rest = after;
            let fits_alone = HEADERS + body.len() <= self.mtu;
            let mut offset = 0;
            loop {
                let left = body.len() - offset;
                let room = self.mtu.saturating_sub(datagram.len() + HEADERS);
                if !datagram.is_empty() && left > room && (fits_alone || room < MIN_PIECE) {
                    outlet.transmit(&datagram);
                    datagram.clear();
                    continue;
                }
                let piece = body.get(offset..offset + left.min(room)).unwrap_or_default();
                self.append(header, offset, piece, &mut datagram);
                offset += piece.len();
                if offset == body.len() || piece.is_empty() {
                    break;
                }
            }
        }
        if !datagram.is_empty() {
            outlet.transmit(&datagram);
        }
        self.messages = messages;
    }

    fn append(&mut self, header: FragmentHeader, offset: usize, piece: &[u8], datagram: &mut Vec<u8>) {
        let number = |number| u32::try_from(number).unwrap_or_default();
        let header = FragmentHeader { offset: number(offset), fragment: number(piece.len()), ..header };
        let length = u16::try_from(handshake::HEADER + piece.len()).unwrap_or_default();
        datagram.extend(RecordHeader::new(ContentType::HANDSHAKE, 0, self.take_number(), length).to_bytes());
        datagram.extend(header.to_bytes());
        datagram.extend(piece);
    }
}

#[cfg(test)]
mod tests;
