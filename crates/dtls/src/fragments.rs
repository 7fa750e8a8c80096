//! Handshake messages of the client, put together from their fragments (RFC 6347, section 4.2.3).
//!
//! Owns: the order of messages, the bound of what is held. Does not own: what a message says.
//!
//! Nothing here is authenticated: whoever can send from the client's address can put a false byte in. So the first byte that
//! came for a place stays, and what is held has a bound whatever the headers claim.

use crate::handshake::{FragmentHeader, MessageType};

/// The most bytes of messages that are held for one handshake; one message cannot be larger.
pub(crate) const MAX_BYTES: usize = 8 * 1_024;

/// How many messages from the next on are held: a client sends no more in one flight.
const AHEAD: u16 = 4;

/// The next messages of one handshake, as far as they have come.
#[derive(Debug)]
pub(crate) struct Fragments {
    /// The number of the message that is next.
    next: u16,
    /// In no order; at most [`AHEAD`], their lengths together at most [`MAX_BYTES`].
    partial: Vec<Partial>,
}

/// One message, as far as it has come.
#[derive(Debug)]
struct Partial {
    message_seq: u16,
    kind: MessageType,
    length: usize,
    /// Up to the end of the farthest fragment.
    bytes: Vec<u8>,
    /// One bit for each byte that has come. Empty for a message that came in one piece.
    have: Vec<u8>,
    /// Bytes that have not come.
    missing: usize,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is held, or has been before.
    Held,
    /// It is of a message that was taken before.
    Old,
    /// It is of a message too far ahead, there is no room for it, or it contradicts what came before.
    Dropped,
}

/// A message is longer than [`MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Fragments {
    /// None yet; the message `next` is the first that will be taken.
    pub(crate) fn new(next: u16) -> Self {
        Self { next, partial: Vec::new() }
    }

    /// The number of the message that is next.
    pub(crate) fn next(&self) -> u16 {
        self.next
    }

    /// Takes one fragment: `body` is what its header says it is.
    pub(crate) fn insert(&mut self, header: &FragmentHeader, body: &[u8]) -> Result<Fate, TooLarge> {
        let ahead = header.message_seq.wrapping_sub(self.next);
        if ahead >= AHEAD {
            return Ok(if ahead > u16::MAX / 2 { Fate::Old } else { Fate::Dropped });
        }
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(TooLarge);
        }
        if let Some(partial) =
            self.partial.iter_mut().find(|partial| partial.message_seq == header.message_seq)
        {
            return Ok(partial.add(header, body));
        }
        // An empty piece of what is not empty says nothing that would be worth a place.
        if body.is_empty() && length != 0 {
            return Ok(Fate::Dropped);
        }
        if !self.make_room(ahead, length) {
            return Ok(Fate::Dropped);
        }
        let mut partial = Partial::new(header, length);
        let fate = partial.add(header, body);
        self.partial.push(partial);
        Ok(fate)
    }

    /// Whether a message of `length` bytes, `ahead` of the next, may be held. What is farther ahead gives way to it.
    fn make_room(&mut self, ahead: u16, length: usize) -> bool {
        let distance = |partial: &Partial| partial.message_seq.wrapping_sub(self.next);
        let nearer = self.partial.iter().filter(|partial| distance(partial) < ahead);
        let mut room = MAX_BYTES.saturating_sub(nearer.map(|partial| partial.length).sum());
        if length > room {
            return false;
        }
        room -= length;
        let next = self.next;
        self.partial.retain(|partial| {
            let farther = partial.message_seq.wrapping_sub(next) > ahead;
            let stays = !farther || partial.length <= room;
            if farther && stays {
                room -= partial.length;
            }
            stays
        });
        true
    }

    /// The next message, when all of it has come; then the one after it is next.
    pub(crate) fn take(&mut self) -> Option<(FragmentHeader, Vec<u8>)> {
        let complete = |partial: &Partial| partial.message_seq == self.next && partial.missing == 0;
        let at = self.partial.iter().position(complete)?;
        let partial = self.partial.swap_remove(at);
        self.next = self.next.wrapping_add(1);
        let length = u32::try_from(partial.length).unwrap_or(u32::MAX);
        Some((FragmentHeader::whole(partial.kind, length, partial.message_seq), partial.bytes))
    }

    /// Bytes of memory behind it.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let partials = self.partial.capacity() * size_of::<Partial>();
        partials + self.partial.iter().map(|one| one.bytes.capacity() + one.have.capacity()).sum::<usize>()
    }
}

impl Partial {
    fn new(header: &FragmentHeader, length: usize) -> Self {
        let &FragmentHeader { message_seq, kind, .. } = header;
        Self { message_seq, kind, length, bytes: Vec::new(), have: Vec::new(), missing: length }
    }

    fn add(&mut self, header: &FragmentHeader, body: &[u8]) -> Fate {
        let offset = usize::try_from(header.offset).unwrap_or(usize::MAX);
        let contradicts = header.kind != self.kind || usize::try_from(header.length) != Ok(self.length);
        if contradicts || offset.saturating_add(body.len()) > self.length {
            return Fate::Dropped;
        }
        if self.missing == 0 {
            return Fate::Held;
        }
        if body.len() == self.length {
            self.bytes = body.to_vec();
            self.have = Vec::new();
            self.missing = 0;
            return Fate::Held;
        }
        self.reach(offset + body.len());
        let places = self.bytes.iter_mut().enumerate().skip(offset);
        for ((at, place), byte) in places.zip(body) {
            let bit = 1 << (at % 8);
            let Some(bits) = self.have.get_mut(at / 8).filter(|bits| **bits & bit == 0) else { continue };
            *bits |= bit;
            *place = *byte;
            self.missing -= 1;
        }
        Fate::Held
    }

    /// Makes the first `end` bytes places, by halves and never beyond the message.
    fn reach(&mut self, end: usize) {
        if end > self.bytes.capacity() {
            let half = self.bytes.capacity() + self.bytes.capacity() / 2;
            let wanted = half.clamp(end, self.length.max(end));
            self.bytes.reserve_exact(wanted - self.bytes.len());
            self.have.reserve_exact(wanted.div_ceil(8) - self.have.len());
        }
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
            self.have.resize(end.div_ceil(8), 0);
        }
    }
}

#[cfg(test)]
mod tests;
