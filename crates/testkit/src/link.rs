//! A bad link for datagrams, in virtual time: loss, duplication, corruption, delay, and so disorder.
//!
//! Owns: what becomes of each datagram, drawn from a seed, so that a fault comes again. Does not own: a clock (every call
//! is told the time), a socket ([`crate::udp_proxy`] lays this link between real ones), or either end.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use crate::proxy::Seed;

/// What a link does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// How likely one is lost, 0 to 1.
    pub loss: f64,
    /// How likely one comes twice, 0 to 1. Each copy is delayed on its own, and may be corrupted on its own.
    pub duplicate: f64,
    /// How likely one bit of one is wrong, 0 to 1.
    pub corrupt: f64,
    /// From and to how many ms one is on its way, both included. One that is sent later can come sooner.
    pub delay: (u64, u64),
}

impl Faults {
    /// A link that does nothing to datagrams.
    pub const NONE: Self = Self { loss: 0.0, duplicate: 0.0, corrupt: 0.0, delay: (0, 0) };

    /// A link that loses everything.
    pub const CUT: Self = Self { loss: 1.0, ..Self::NONE };
}

/// What became of datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given to the link.
    pub sent: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Copies made beyond the first.
    pub duplicated: u64,
    /// Copies with a wrong bit.
    pub corrupted: u64,
    /// Copies that came, or were ready to, after one that was sent later to the same end.
    pub overtaken: u64,
    /// Copies that came.
    pub delivered: u64,
}

/// A link between ends that are named `A`, at a time in ms that only the caller knows.
#[derive(Debug)]
pub struct Link<A> {
    seed: Seed,
    faults: Faults,
    under_way: BinaryHeap<UnderWay<A>>,
    serial: u64,
    /// The number of the newest that came to each end, to know what was overtaken.
    newest: HashMap<A, u64>,
    counts: Counts,
}

impl<A: Clone + Eq + Hash> Link<A> {
    /// An empty link.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            seed: Seed(seed),
            faults,
            under_way: BinaryHeap::new(),
            serial: 0,
            newest: HashMap::new(),
            counts: Counts::default(),
        }
    }

    /// Treats what is sent from now on otherwise.
    pub fn set(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Gives it a datagram for `to`.
    pub fn send(&mut self, now: u64, to: A, bytes: &[u8]) {
        self.counts.sent += 1;
        self.serial += 1;
        if self.chance(self.faults.loss) {
            self.counts.lost += 1;
            return;
        }
        if self.chance(self.faults.duplicate) {
            self.counts.duplicated += 1;
            self.put(now, to.clone(), bytes);
        }
        self.put(now, to, bytes);
    }

    /// When the next datagram comes.
    pub fn next_due(&self) -> Option<u64> {
        self.under_way.peek().map(|next| next.due)
    }

    /// Takes what has come by `now`, in the order of its coming.
    pub fn deliver(&mut self, now: u64) -> Vec<(A, Vec<u8>)> {
        let mut come = Vec::new();
        while self.next_due().is_some_and(|due| due <= now) {
            let Some(next) = self.under_way.pop() else { break };
            self.counts.delivered += 1;
            let newest = self.newest.entry(next.to.clone()).or_default();
            if *newest > next.serial {
                self.counts.overtaken += 1;
            }
            *newest = next.serial.max(*newest);
            come.push((next.to, next.bytes));
        }
        come
    }

    /// How many datagrams are on their way.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// True when none is on its way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What became of datagrams so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn put(&mut self, now: u64, to: A, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if self.chance(self.faults.corrupt) && !bytes.is_empty() {
            self.counts.corrupted += 1;
            let bit = self.seed.below(bytes.len() as u64 * 8);
            bytes[usize::try_from(bit / 8).expect("an index")] ^= 1 << (bit % 8);
        }
        let (least, most) = self.faults.delay;
        let due = now + least + self.seed.below(most.saturating_sub(least) + 1);
        // Two copies of one datagram keep the order in which they were put here; that order says nothing.
        self.under_way.push(UnderWay { due, serial: self.serial, to, bytes });
    }

    fn chance(&mut self, probability: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        ((self.seed.draw() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

#[derive(Debug)]
struct UnderWay<A> {
    due: u64,
    serial: u64,
    to: A,
    bytes: Vec<u8>,
}

impl<A> UnderWay<A> {
    fn order(&self) -> (u64, u64) {
        (self.due, self.serial)
    }
}

/// The heap gives its greatest: the one that is due soonest, of these the one that was sent first.
impl<A> Ord for UnderWay<A> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

impl<A> PartialOrd for UnderWay<A> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<A> PartialEq for UnderWay<A> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<A> Eq for UnderWay<A> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(link: &mut Link<u8>) -> Vec<(u8, Vec<u8>)> {
        link.deliver(u64::MAX)
    }

    #[test]
    fn without_faults_everything_comes_once_in_order() {
        let mut link = Link::new(1, Faults::NONE);
        for i in 0..100_u8 {
            link.send(u64::from(i), i % 3, &[i]);
        }
        let come = all(&mut link);
        assert_eq!(come, (0..100).map(|i| (i % 3, vec![i])).collect::<Vec<_>>());
        assert_eq!(link.counts(), Counts { sent: 100, delivered: 100, ..Counts::default() });
    }

    #[test]
    fn a_datagram_comes_when_it_is_due_and_not_before() {
        let mut link = Link::new(1, Faults { delay: (10, 10), ..Faults::NONE });
        link.send(5, 0, b"x");
        assert_eq!(link.next_due(), Some(15));
        assert!(link.deliver(14).is_empty());
        assert_eq!(link.deliver(15), [(0, b"x".to_vec())]);
        assert_eq!((link.next_due(), link.is_empty()), (None, true));
    }

    #[test]
    fn faults_come_as_often_as_told_and_again_with_the_same_seed() {
        let faults = Faults { loss: 0.3, duplicate: 0.2, corrupt: 0.1, delay: (5, 500) };
        let run = |seed| {
            let mut link = Link::new(seed, faults);
            for i in 0..20_000_u64 {
                link.send(i, 0, &i.to_be_bytes());
            }
            (all(&mut link), link.counts())
        };
        let (come, counts) = run(7);
        let share = |part: u64, of: u64| part as f64 / of as f64;
        assert!((share(counts.lost, counts.sent) - 0.3).abs() < 0.02, "{counts:?}");
        assert!((share(counts.duplicated, counts.sent - counts.lost) - 0.2).abs() < 0.02, "{counts:?}");
        assert!((share(counts.corrupted, counts.delivered) - 0.1).abs() < 0.02, "{counts:?}");
        assert!(counts.overtaken > counts.delivered / 2, "{counts:?}");
        assert_eq!(counts.delivered, counts.sent - counts.lost + counts.duplicated);
        assert_eq!((come, counts), run(7));
        assert_ne!(counts, run(8).1);
    }

    #[test]
    fn a_cut_link_lets_nothing_through_until_it_is_mended() {
        let mut link = Link::new(3, Faults::CUT);
        link.send(0, 0, b"lost");
        link.set(Faults::NONE);
        link.send(0, 0, b"");
        assert_eq!(all(&mut link), [(0, Vec::new())]);
    }
}
