//! What the timer wheel costs, with a thousand, a hundred thousand and a million timers.
//!
//! Owns: the timers that are measured. Does not own: what they stand for (`tracker.rs`).

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use landfall_session::{Tick, Wheel};

/// The width of the narrowest bucket.
const TICK_MS: u64 = 100;
/// Every timer is due once in this time.
const SPAN_MS: u64 = 300_000;
/// How far from one timer to the next that is armed: a prime, so that all are reached, and none is near the last.
const STRIDE: u32 = 611_953;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for &timers in sizes() {
        wheel(&mut criterion, timers);
    }
    criterion.final_summary();
}

/// A million is for measuring; a run that only shows that the benches work takes the smallest.
fn sizes() -> &'static [u32] {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    if is_measured { &[1_000, 100_000, 1_000_000] } else { &[1_000] }
}

fn armed(timers: u32) -> Wheel {
    let mut wheel = Wheel::new(0, TICK_MS);
    for timer in 0..timers {
        wheel.arm(timer, SPAN_MS * u64::from(timer) / u64::from(timers));
    }
    wheel
}

fn wheel(criterion: &mut Criterion, timers: u32) {
    let mut group = criterion.benchmark_group("wheel");
    let (mut wheel, mut at) = (armed(timers), 0);
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("arm again", timers), |bencher| {
        bencher.iter(|| {
            at = (at + STRIDE) % timers;
            wheel.arm(black_box(at), SPAN_MS + u64::from(at % 997));
        });
    });
    // Each comes due once and is armed for the next time.
    let (mut wheel, mut now): (Wheel, Tick) = (armed(timers), 0);
    group.throughput(Throughput::Elements(timers.into()));
    group.bench_function(BenchmarkId::new("a whole turn, tick by tick", timers), |bencher| {
        bencher.iter(|| {
            for _ in 0..SPAN_MS / TICK_MS {
                now += TICK_MS;
                wheel.advance(now);
                while let Some(timer) = wheel.pop_due() {
                    wheel.arm(timer, now + SPAN_MS);
                }
            }
        });
    });
    group.finish();
}
