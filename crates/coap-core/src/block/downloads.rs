//! Response bodies that leave block by block (RFC 7959, section 2.4).
//!
//! Owns: the bodies that a client has yet to ask the rest of, their entity tags, the bounds. Does not own: the response
//! around a block; its head is the caller's and comes back with every piece.

use std::hash::Hash;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::shelf::Shelf;
use super::{BlockValue, BodyLimits, Fingerprint, Refusal, cut};
use crate::Tick;

/// One block of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<H> {
    /// What the caller said of the whole response.
    pub head: H,
    /// The block's bytes.
    pub payload: Bytes,
    /// The Block2 option.
    pub block: BlockValue,
    /// The ETag option: the same for every block of one body, another for another body.
    pub etag: [u8; 8],
    /// The Size2 option: bytes of the whole body.
    pub total: u32,
}

#[derive(Debug)]
struct Body<H> {
    started: Tick,
    head: H,
    data: Bytes,
    etag: [u8; 8],
}

impl<H: Clone> Body<H> {
    fn piece(&self, wanted: BlockValue) -> Option<Piece<H>> {
        let (payload, block) = cut(&self.data, wanted)?;
        Some(Piece {
            head: self.head.clone(),
            payload,
            block,
            etag: self.etag,
            total: u32::try_from(self.data.len()).unwrap_or(u32::MAX),
        })
    }
}

/// Every body that is on its way out, keyed by who asked and what the request was.
///
/// When there is no room, the one that would go first yields: its client asks again from the start.
#[derive(Debug)]
pub struct Downloads<P, H> {
    limits: BodyLimits,
    shelf: Shelf<P, Body<H>>,
}

impl<P: Clone + Eq + Hash, H: Clone> Downloads<P, H> {
    /// None yet.
    pub fn new(limits: BodyLimits) -> Self {
        Self { limits, shelf: Shelf::new() }
    }

    /// Gives the wanted block of a new response and keeps the body for the others, in place of an older one of the same
    /// request. A body of one block is not kept. `None`: the body is longer than the limit, or has no such block.
    pub fn start(
        &mut self,
        now: Tick,
        peer: &P,
        what: Fingerprint,
        head: H,
        data: Bytes,
        wanted: BlockValue,
    ) -> Option<Piece<H>> {
        self.shelf.expire(now);
        self.shelf.take(peer, what);
        if data.len() > self.limits.body {
            return None;
        }
        let body = Body { started: now, head, etag: etag(&data), data };
        let piece = body.piece(wanted)?;
        if piece.payload.len() < body.data.len() {
            self.keep(now, peer, what, body);
        }
        Some(piece)
    }

    /// The wanted block of a body that is kept. Refused: 4.08 when none is, 4.00 when it has no such block.
    pub fn resume(
        &mut self,
        now: Tick,
        peer: &P,
        what: Fingerprint,
        wanted: BlockValue,
    ) -> Result<Piece<H>, Refusal> {
        self.shelf.expire(now);
        let body = self.shelf.take(peer, what).ok_or(Refusal::Incomplete)?;
        let piece = body.piece(wanted).ok_or(Refusal::Bad);
        self.keep(now, peer, what, body);
        piece
    }

    fn keep(&mut self, now: Tick, peer: &P, what: Fingerprint, body: Body<H>) {
        let weight = BodyLimits::OVERHEAD + body.data.len();
        let at = (now + self.limits.idle_ms).min(body.started + self.limits.whole_ms);
        if weight > self.limits.bytes || self.limits.bodies == 0 || self.limits.per_peer == 0 {
            return;
        }
        while self.shelf.of_peer(peer) >= self.limits.per_peer {
            self.shelf.take_first_of(peer);
        }
        while self.shelf.len() >= self.limits.bodies || self.shelf.weight() + weight > self.limits.bytes {
            self.shelf.take_first();
        }
        self.shelf.put(peer, what, at, weight, body);
    }

    /// What the caller said of the responses that a peer has on their way.
    pub fn heads_mut(&mut self, peer: &P) -> impl Iterator<Item = &mut H> {
        self.shelf.values_mut(peer).map(|body| &mut body.head)
    }

    /// Drops what nobody has asked for long enough; says how many.
    pub fn expire(&mut self, now: Tick) -> usize {
        self.shelf.expire(now)
    }

    /// Drops what a peer has on its way out.
    pub fn forget(&mut self, peer: &P) {
        self.shelf.take_all_of(peer);
    }

    /// When [`Downloads::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Tick> {
        self.shelf.next_due()
    }

    /// Bodies that are kept.
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.shelf.len() == 0
    }

    /// Whether a peer has one on its way.
    pub fn has(&self, peer: &P) -> bool {
        self.shelf.of_peer(peer) > 0
    }

    /// Bytes that they hold, book-keeping included.
    pub fn bytes(&self) -> usize {
        self.shelf.weight()
    }
}

fn etag(data: &Bytes) -> [u8; 8] {
    let whole: [u8; 32] = Sha256::digest(data).into();
    let mut tag = [0; 8];
    tag.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    tag
}
