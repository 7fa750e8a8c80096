//! Request bodies that arrive block by block (RFC 7959, section 2.5).
//!
//! Owns: the order of blocks, what a repeated block means, the bounds. Does not own: the messages; a retransmission is
//! answered before it gets here.

use std::hash::Hash;

use bytes::Bytes;

use super::shelf::Shelf;
use super::{BlockValue, BodyLimits, Fingerprint};
use crate::Tick;
use crate::message::Token;

/// One block as it came.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The request that it is a block of.
    pub what: Fingerprint,
    /// The token of its message.
    pub token: Token,
    /// The option that says which block it is.
    pub block: BlockValue,
    /// What the client says the whole will be. It is held against the limit and believed in nothing else.
    pub size1: Option<u64>,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What comes of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upload {
    /// 2.31 with this Block1: the block is held, or has been before.
    Continue(BlockValue),
    /// The body is complete. Its response, whatever it is, carries this Block1.
    Done {
        /// All blocks, in order.
        body: Bytes,
        /// The last block's option.
        block: BlockValue,
    },
    /// An error response; `Block1` need not be in it.
    Refuse(Refusal),
}

/// Why a block is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 4.00: the block is not as long as it says (RFC 7959, section 2.2).
    Bad,
    /// 4.08: a block before it is missing, or it differs from what was sent before. The client starts again (section 2.9.2).
    Incomplete,
    /// 4.13 with Size1: the body is longer than this many bytes, or says that it will be (section 2.9.3).
    TooLarge {
        /// The longest body that is taken.
        max: u32,
    },
    /// 5.03 with Max-Age: there is no room now.
    Busy {
        /// Seconds until something goes; at least 1.
        max_age: u32,
    },
}

/// Uploads that were begun anew before they were whole, of which a body knows the tokens.
const MAX_FORMERS: usize = 4;

#[derive(Debug)]
struct Body {
    started: Tick,
    data: Vec<u8>,
    /// Of its first block.
    token: Token,
    /// The tokens of the uploads that it took the place of: a block of theirs may still be under way, and is none of its own.
    formers: Vec<Token>,
}

impl Body {
    fn begin(now: Tick, token: Token, before: Option<Self>) -> Self {
        let mut formers = Vec::new();
        if let Some(before) = before {
            formers = before.formers;
            formers.push(before.token);
            formers.retain(|former| *former != token);
            formers.drain(..formers.len().saturating_sub(MAX_FORMERS));
        }
        Self { started: now, data: Vec::new(), token, formers }
    }

    /// A block was taken. A client that has another token for each block may come to any of them in time.
    fn has_taken(&mut self, token: Token) {
        if token != self.token {
            self.formers = Vec::new();
        }
    }
}

/// Every body that is on its way in, keyed by who sends it and what the request is; two of the same at once are not for one peer to have.
#[derive(Debug)]
pub struct Uploads<P> {
    limits: BodyLimits,
    shelf: Shelf<P, Body>,
}

impl<P: Clone + Eq + Hash> Uploads<P> {
    /// None yet.
    pub fn new(limits: BodyLimits) -> Self {
        Self { limits, shelf: Shelf::new() }
    }

    /// Takes one block. Block 0 begins anew, whatever there was before (RFC 7959, section 2.5); a late block of what it took the
    /// place of is told by its token, where a client has one for all blocks of a body.
    pub fn receive(&mut self, now: Tick, peer: &P, part: Part<'_>) -> Upload {
        let Part { what, token, block, size1, payload } = part;
        self.expire(now);
        let fits = if block.more() { payload.len() == block.size() } else { payload.len() <= block.size() };
        if !fits {
            return Upload::Refuse(Refusal::Bad);
        }
        let mut before = self.shelf.take(peer, what);
        if let Some(body) = before.take_if(|body| block.num() > 0 && body.formers.contains(&token)) {
            self.keep(now, peer, what, body);
            return Upload::Refuse(Refusal::Incomplete);
        }
        let end = block.offset() + payload.len();
        if end > self.limits.body || size1.is_some_and(|size| size > self.limits.body as u64) {
            return Upload::Refuse(Refusal::TooLarge {
                max: u32::try_from(self.limits.body).unwrap_or(u32::MAX),
            });
        }
        let body = match before {
            before if block.num() == 0 => Body::begin(now, token, before),
            Some(body) => body,
            None => return Upload::Refuse(Refusal::Incomplete),
        };
        self.advance(now, peer, body, part)
    }

    /// Goes on with the body that the block belongs to, which is off the shelf.
    fn advance(&mut self, now: Tick, peer: &P, mut body: Body, part: Part<'_>) -> Upload {
        let Part { what, token, block, payload, .. } = part;
        let (start, held) = (block.offset(), body.data.len());
        if start > held {
            // The one in between may still come.
            self.keep(now, peer, what, body);
            return Upload::Refuse(Refusal::Incomplete);
        }
        if start < held {
            let same = body.data.get(start..start + payload.len()) == Some(payload);
            if !same || !block.more() {
                return Upload::Refuse(Refusal::Incomplete);
            }
            self.keep(now, peer, what, body);
            return Upload::Continue(block);
        }
        if !block.more() {
            body.data.extend_from_slice(payload);
            return Upload::Done { body: Bytes::from(body.data), block };
        }
        self.grow(&mut body.data, payload.len());
        if let Some(refusal) = self.no_room(now, peer, &body) {
            return Upload::Refuse(refusal);
        }
        body.data.extend_from_slice(payload);
        body.has_taken(token);
        self.keep(now, peer, what, body);
        Upload::Continue(block)
    }

    /// Makes room for `more` bytes, by halves and never beyond the longest body.
    fn grow(&self, data: &mut Vec<u8>, more: usize) {
        let needed = data.len() + more;
        if needed > data.capacity() {
            let wanted = (data.capacity() + data.capacity() / 2).clamp(needed, self.limits.body.max(needed));
            data.reserve_exact(wanted - data.len());
        }
    }

    fn no_room(&self, now: Tick, peer: &P, body: &Body) -> Option<Refusal> {
        let room = self.shelf.len() < self.limits.bodies
            && self.shelf.of_peer(peer) < self.limits.per_peer
            && self.shelf.weight() + weight(body) <= self.limits.bytes;
        let wait_ms = self.shelf.next_due().unwrap_or(now).saturating_sub(now);
        (!room).then(|| Refusal::Busy {
            max_age: u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1),
        })
    }

    fn keep(&mut self, now: Tick, peer: &P, what: Fingerprint, body: Body) {
        let at = (now + self.limits.idle_ms).min(body.started + self.limits.whole_ms);
        let weight = weight(&body);
        self.shelf.put(peer, what, at, weight, body);
    }

    /// Drops what has lain still for too long or takes too long; says how many. A client that comes back to one gets 4.08.
    pub fn expire(&mut self, now: Tick) -> usize {
        self.shelf.expire(now)
    }

    /// Drops one body of a peer: nothing is wanted of it.
    pub fn drop_one(&mut self, peer: &P, what: Fingerprint) {
        self.shelf.take(peer, what);
    }

    /// Drops what a peer has on its way in.
    pub fn forget(&mut self, peer: &P) {
        self.shelf.take_all_of(peer);
    }

    /// When [`Uploads::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Tick> {
        self.shelf.next_due()
    }

    /// Bodies that are on their way in.
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there are none.
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

    /// Whether more than half of what may be held is: time to ask strangers for proof of their address before theirs is.
    pub fn is_pressed(&self) -> bool {
        self.shelf.len() > self.limits.bodies / 2 || self.shelf.weight() > self.limits.bytes / 2
    }
}

fn weight(body: &Body) -> usize {
    BodyLimits::OVERHEAD + body.data.capacity()
}
