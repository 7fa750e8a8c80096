//! A hierarchical timer wheel: deadlines in buckets of 64 whose width grows by 64 from level to level.
//!
//! Owns: one deadline for each small integer (a *timer*), and which of them are due.
//! Does not own: what a timer stands for, or whether its deadline still means anything when it is due.
//!
//! A timer is two links and a deadline, 16 bytes, in one array; a bucket is a ring of them through a node that stands for
//! the bucket. Arming, re-arming and cancelling unlink and link: constant time, and nothing is left behind, so the memory
//! is bounded by the highest timer and not by how often timers are armed. Eleven levels span every `u64`, so there is no
//! overflow list. Going forward costs a step for each bucket passed that holds something, however far the jump, and one
//! for each timer that moves down a level, at most once per jump.

use crate::Tick;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 11;
/// The node of the ring of timers that are due.
const DUE: usize = LEVELS * SLOTS;
/// The node of timer 0.
const FIRST: usize = DUE + 1;

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: u32,
    next: u32,
    deadline: Tick,
}

/// Timers `0..`, each armed for one deadline or not at all.
#[derive(Debug)]
pub struct Wheel {
    /// The buckets' nodes, the due ring's, then the timers'. A node that is linked to itself is an empty ring or an
    /// unarmed timer.
    nodes: Vec<Node>,
    /// A bit for each bucket that holds a timer.
    occupied: [u64; LEVELS],
    tick_ms: u64,
    now: Tick,
}

impl Wheel {
    /// A wheel that stands at `now` and whose narrowest bucket is `tick_ms` wide (0 is read as 1).
    pub fn new(now: Tick, tick_ms: u64) -> Self {
        let mut wheel = Self { nodes: Vec::new(), occupied: [0; LEVELS], tick_ms: tick_ms.max(1), now };
        wheel.grow(FIRST);
        wheel
    }

    /// Arms `timer` for `deadline`, whatever it was armed for before. It is due at once if that is not after the time
    /// reached.
    pub fn arm(&mut self, timer: u32, deadline: Tick) {
        let at = FIRST + timer as usize;
        self.grow(at + 1);
        self.unlink(at);
        self.node_mut(at).deadline = deadline;
        self.place(at, deadline);
    }

    /// Disarms `timer`, if it is armed.
    pub fn cancel(&mut self, timer: u32) {
        let at = FIRST + timer as usize;
        if at < self.nodes.len() {
            self.unlink(at);
        }
    }

    /// What `timer` is armed for.
    pub fn deadline(&self, timer: u32) -> Option<Tick> {
        let at = FIRST + timer as usize;
        self.nodes.get(at).filter(|node| node.next as usize != at).map(|node| node.deadline)
    }

    /// Takes the wheel to `now`: every timer whose deadline is not after `now` becomes due. A `now` before the time
    /// reached changes nothing.
    pub fn advance(&mut self, now: Tick) {
        if now <= self.now {
            return;
        }
        let (from, to) = (self.now / self.tick_ms, now / self.tick_ms);
        self.now = now;
        let top = level_between(from, to);
        // What a bucket below `top` holds agrees with `from` where `from` and `to` still agree, and is less where they part.
        for level in 0..top {
            self.pass(level, u64::MAX);
        }
        let reached = slot_of(to, top);
        self.pass(top, (1 << reached) - 1);
        self.sort_out(top, reached);
    }

    /// Disarms and hands out a timer that is due: bucket by bucket, so in the order of ticks when `advance` goes by ticks,
    /// and less sorted the wider the buckets were that it leapt over.
    pub fn pop_due(&mut self) -> Option<u32> {
        let at = self.node(DUE).next as usize;
        if at == DUE {
            return None;
        }
        self.unlink(at);
        Some((at - FIRST) as u32)
    }

    /// True when [`Wheel::pop_due`] has something to hand out.
    pub fn has_due(&self) -> bool {
        self.node(DUE).next as usize != DUE
    }

    /// When to call [`Wheel::advance`] next: at the latest one tick after the earliest deadline, and always after the
    /// time reached, unless something is due already. `None` when nothing is armed.
    pub fn next_stop(&self) -> Option<Tick> {
        if self.has_due() {
            return Some(self.now);
        }
        let (level, slots) = self.occupied.iter().enumerate().find(|(_, slots)| **slots != 0)?;
        let slot = u64::from(slots.trailing_zeros());
        let shift = BITS * level as u32;
        let above = (self.now / self.tick_ms).checked_shr(shift + BITS).unwrap_or(0);
        let start = above.checked_shl(shift + BITS).unwrap_or(0) | (slot << shift);
        // A wide bucket is opened when its time begins, the narrowest when its time is over.
        let stop = if level == 0 { start.saturating_add(1) } else { start };
        Some(stop.saturating_mul(self.tick_ms))
    }

    /// Bytes allocated.
    pub fn footprint(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    /// Makes everything due in the buckets of `level` that `slots` names.
    fn pass(&mut self, level: usize, slots: u64) {
        let mut left = self.occupied_at(level) & slots;
        while left != 0 {
            let slot = left.trailing_zeros();
            left &= left - 1;
            self.append_to_due(bucket(level, slot));
            self.set_occupied(level, slot, false);
        }
    }

    /// Spreads the bucket that the time reached stands in: some of it may be due, the rest belongs further down.
    fn sort_out(&mut self, level: usize, slot: u32) {
        let ring = bucket(level, slot);
        let mut at = self.node(ring).next as usize;
        self.link(ring, ring);
        self.set_occupied(level, slot, false);
        while at != ring {
            let Node { next, deadline, .. } = *self.node(at);
            self.place(at, deadline);
            at = next as usize;
        }
    }

    /// Links a free node into the ring that its deadline belongs to.
    fn place(&mut self, at: usize, deadline: Tick) {
        if deadline <= self.now {
            return self.push(DUE, at);
        }
        let tick = deadline / self.tick_ms;
        let level = level_between(self.now / self.tick_ms, tick);
        let slot = slot_of(tick, level);
        self.push(bucket(level, slot), at);
        self.set_occupied(level, slot, true);
    }

    fn push(&mut self, ring: usize, at: usize) {
        let last = self.node(ring).prev as usize;
        self.link(last, at);
        self.link(at, ring);
    }

    fn append_to_due(&mut self, ring: usize) {
        let Node { prev: last, next: first, .. } = *self.node(ring);
        let before = self.node(DUE).prev as usize;
        self.link(before, first as usize);
        self.link(last as usize, DUE);
        self.link(ring, ring);
    }

    /// Takes a timer out of its ring; one that is in none stays as it is.
    fn unlink(&mut self, at: usize) {
        let Node { prev, next, .. } = *self.node(at);
        let (prev, next) = (prev as usize, next as usize);
        self.link(prev, next);
        self.link(at, at);
        if prev == next && next < DUE {
            self.set_occupied(next / SLOTS, (next % SLOTS) as u32, false);
        }
    }

    fn link(&mut self, before: usize, after: usize) {
        self.node_mut(before).next = after as u32;
        self.node_mut(after).prev = before as u32;
    }

    /// Node numbers fit 32 bits: four thousand million timers would be 64 GiB of nodes.
    fn grow(&mut self, len: usize) {
        for at in self.nodes.len()..len {
            self.nodes.push(Node { prev: at as u32, next: at as u32, deadline: 0 });
        }
    }

    fn occupied_at(&self, level: usize) -> u64 {
        self.occupied.get(level).copied().unwrap_or(0)
    }

    fn set_occupied(&mut self, level: usize, slot: u32, holds: bool) {
        if let Some(slots) = self.occupied.get_mut(level) {
            *slots = if holds { *slots | 1 << slot } else { *slots & !(1 << slot) };
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "every node number was made by `grow`, and nodes are never removed"
    )]
    fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "every node number was made by `grow`, and nodes are never removed"
    )]
    fn node_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }
}

/// The level of the highest digit in which two ticks differ; 0 when they are equal.
fn level_between(a: u64, b: u64) -> usize {
    (((a ^ b) | 1).ilog2() / BITS) as usize
}

/// A tick's digit at a level.
fn slot_of(tick: u64, level: usize) -> u32 {
    ((tick >> (BITS * level as u32)) % SLOTS as u64) as u32
}

fn bucket(level: usize, slot: u32) -> usize {
    level * SLOTS + slot as usize
}

#[cfg(test)]
mod tests;
