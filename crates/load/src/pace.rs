//! When what is to begin: at a steady rate, in turns of sleeping devices, or as fast as it goes.
//!
//! Owns: the intended times. Does not own: the clock, waiting.
//!
//! What is late is not left out and not shifted: each begins when it can, and is measured from when it should have. So a
//! server that stands still for a second is seen by everything that was meant for that second, not by one message only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// How long after the end what was meant for before it may still begin.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A steady rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    start: Instant,
    per_second: f64,
}

impl Steady {
    /// `per_second` is above 0.
    pub(crate) fn new(start: Instant, per_second: f64) -> Self {
        Self { start, per_second }
    }

    /// When number `n` begins, from 0.
    pub(crate) fn at(&self, n: u64) -> Instant {
        self.start + Duration::from_secs_f64(n as f64 / self.per_second)
    }

    /// The part of one of `count`, such that all parts together are this rate, evenly.
    pub(crate) fn share(&self, one: u32, count: u32) -> Self {
        Self { start: self.at(one.into()), per_second: self.per_second / f64::from(count.max(1)) }
    }
}

/// Devices that wake at intervals, each at its own moment of them.
#[derive(Debug)]
pub(crate) struct Rota {
    start: Instant,
    interval: Duration,
    /// Of the interval, 0 to 1: how far a waking is from its regular moment at most.
    jitter: f64,
    devices: u32,
    next: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Rota {
    pub(crate) fn new(start: Instant, devices: u32, interval: Duration, jitter: f64) -> Self {
        let mut rota = Self { start, interval, jitter, devices, next: BinaryHeap::new() };
        rota.next = (0..devices).map(|device| Reverse((rota.at(device, 0), device, 0))).collect();
        rota
    }

    /// The regular moment is that of the first waking, whatever the jitter of those between: it does not add up.
    fn at(&self, device: u32, waking: u32) -> Instant {
        let phase = f64::from(device) / f64::from(self.devices.max(1));
        let off = self.jitter * fraction(u64::from(device) << 32 | u64::from(waking));
        let intervals = f64::from(waking) + phase + off;
        self.start + self.interval.mul_f64(intervals.max(0.0))
    }

    /// Who wakes next, and when.
    fn wake(&mut self) -> Option<(Instant, u32)> {
        let Reverse((at, device, waking)) = self.next.pop()?;
        self.next.push(Reverse((self.at(device, waking + 1), device, waking + 1)));
        Some((at, device))
    }
}

/// A fraction of 0 to 1 that looks random and is always the same (the finalizer of SplitMix64).
fn fraction(of: u64) -> f64 {
    let mut bits = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// In what order things begin.
#[derive(Debug)]
pub(crate) enum Order {
    /// Each as soon as somebody has time for it.
    AsFast,
    /// All at this moment.
    Burst(Instant),
    /// At a rate.
    At(Steady),
    /// When a device wakes.
    Wake(Rota),
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its number, or that of its device.
    pub(crate) n: u64,
    /// When it is meant to begin, which is what it is measured from.
    pub(crate) from: Instant,
}

/// What is to be done, one after the other.
#[derive(Debug)]
pub(crate) struct Schedule {
    order: Order,
    next: u64,
    count: u64,
    until: Option<Instant>,
    /// The one at which it was too late.
    abandoned: bool,
}

impl Schedule {
    /// So many.
    pub(crate) fn count(order: Order, count: u64) -> Self {
        Self { order, next: 0, count, until: None, abandoned: false }
    }

    /// As many as are meant to begin before `until`.
    pub(crate) fn until(order: Order, until: Instant) -> Self {
        Self { order, next: 0, count: u64::MAX, until: Some(until), abandoned: false }
    }

    /// The next one; it may lie ahead.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Job> {
        if self.next >= self.count || self.abandoned {
            return None;
        }
        let job = match &mut self.order {
            Order::AsFast => Job { n: self.next, from: now },
            Order::Burst(at) => Job { n: self.next, from: *at },
            Order::At(steady) => Job { n: self.next, from: steady.at(self.next) },
            Order::Wake(rota) => rota.wake().map(|(from, device)| Job { n: device.into(), from })?,
        };
        if let Some(until) = self.until {
            if job.from >= until {
                self.count = self.next;
                return None;
            }
            if now > until + GRACE {
                self.abandoned = true;
                return None;
            }
        }
        self.next += 1;
        Some(job)
    }

    /// Whether there was not enough time for all that was meant to begin.
    pub(crate) fn is_behind(&self) -> bool {
        self.abandoned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_rate_is_kept_and_shared_evenly() {
        let start = Instant::now();
        let all = Steady::new(start, 1_000.0);
        assert_eq!((all.at(0), all.at(2_500)), (start, start + 2_500 * MS));
        let mut times: Vec<Instant> =
            (0..4).flat_map(|one| (0..3).map(move |n| all.share(one, 4).at(n))).collect();
        times.sort();
        let whole: Vec<Instant> = (0..12).map(|n| all.at(n)).collect();
        for (part, whole) in times.iter().zip(whole) {
            assert!(part.max(&whole).duration_since(*part.min(&whole)) < Duration::from_micros(1));
        }
    }

    #[test]
    fn who_is_late_is_measured_from_when_it_was_meant() {
        let start = Instant::now();
        let mut schedule = Schedule::until(Order::At(Steady::new(start, 10.0)), start + 1_000 * MS);
        let first = schedule.next(start).unwrap();
        // The server stood still for 950 ms: all that was due since is still there, each with its own time.
        let late: Vec<Instant> =
            std::iter::from_fn(|| schedule.next(start + 950 * MS)).map(|job| job.from).collect();
        assert_eq!(first.from, start);
        assert_eq!(late, (1..10).map(|n| start + n * 100 * MS).collect::<Vec<_>>());
        assert!(!schedule.is_behind());
    }

    #[test]
    fn what_is_hopelessly_late_is_abandoned_and_said_so() {
        let start = Instant::now();
        let mut schedule = Schedule::until(Order::At(Steady::new(start, 10.0)), start + 1_000 * MS);
        assert!(schedule.next(start + 10_999 * MS).is_some());
        assert!(schedule.next(start + 11_001 * MS).is_none() && schedule.is_behind());
        let mut schedule = Schedule::count(Order::AsFast, 2);
        assert_eq!(schedule.next(start), Some(Job { n: 0, from: start }));
        assert_eq!(schedule.next(start + MS), Some(Job { n: 1, from: start + MS }));
        assert_eq!((schedule.next(start), schedule.is_behind()), (None, false));
    }

    #[test]
    fn sleepers_wake_once_an_interval_and_jitter_does_not_add_up() {
        let start = Instant::now();
        let (interval, devices) = (1_000 * MS, 50);
        for jitter in [0.0, 0.3] {
            let order = Order::Wake(Rota::new(start, devices, interval, jitter));
            let mut schedule = Schedule::until(order, start + 10 * interval);
            let jobs: Vec<Job> = std::iter::from_fn(|| schedule.next(start)).collect();
            assert!(jobs.is_sorted_by_key(|job| job.from), "in the order of time");
            for device in 0..devices {
                let own: Vec<Instant> =
                    jobs.iter().filter(|job| job.n == u64::from(device)).map(|job| job.from).collect();
                assert!((9..=10).contains(&own.len()), "{device}: {}", own.len());
                for (waking, at) in own.iter().enumerate() {
                    let regular = interval.mul_f64(waking as f64 + f64::from(device) / f64::from(devices));
                    let off = (*at - start).as_secs_f64() - regular.as_secs_f64();
                    assert!((-1e-6..=jitter + 1e-6).contains(&off), "{device}, {waking}: {off}");
                }
            }
        }
    }
}
