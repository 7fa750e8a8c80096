//! What the tracker costs, with a thousand, a hundred thousand and a million sessions.
//!
//! Owns: the sessions that are measured. Does not own: the wheel alone (`wheel.rs`), the table of figures (`scripts/bench.sh`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that cannot be set up is to stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use landfall_event::{DeviceId, Family, Reason, TenantId};
use landfall_session::{Ended, KeyRef, Terms, Tick, Tracked, Tracker, Vitals};

/// The tracker's tick.
const TICK_MS: u64 = 100;
/// The silences end within this time, evenly.
const SPAN_MS: u64 = 300_000;
/// How far from one session to the next that is touched: a prime, so that all are reached, and none is near the last.
const STRIDE: usize = 611_953;

struct Device {
    tenant: TenantId,
    id: DeviceId,
    vitals: Vitals,
}

impl Tracked for Device {
    fn key(&self) -> KeyRef<'_> {
        KeyRef { tenant: &self.tenant, device: &self.id, family: Family::Udp }
    }

    fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}

type Table = Tracker<Arc<Device>>;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for &sessions in sizes() {
        at_rest(&mut criterion, sessions);
        all_at_once(&mut criterion, sessions);
    }
    criterion.final_summary();
}

/// A million is for measuring; a run that only shows that the benches work takes the smallest.
fn sizes() -> &'static [u32] {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    if is_measured { &[1_000, 100_000, 1_000_000] } else { &[1_000] }
}

fn device(tenant: &TenantId, number: u32) -> Arc<Device> {
    let id = format!("meter-{number:09}").parse().unwrap();
    Arc::new(Device { tenant: tenant.clone(), id, vitals: Vitals::new(0) })
}

fn devices(sessions: u32) -> Vec<Arc<Device>> {
    let tenant = "default".parse().unwrap();
    (0..sessions).map(|number| device(&tenant, number)).collect()
}

/// The time after which session `number` of so many ends when it is silent.
fn terms(number: usize, sessions: usize) -> Terms {
    let part = SPAN_MS * number as u64 / sessions.max(1) as u64;
    Terms::after(SPAN_MS + part, Reason::IdleTimeout)
}

fn open_all(devices: Vec<Arc<Device>>) -> Table {
    let mut table = Tracker::new(0, TICK_MS, std::hash::RandomState::new());
    let sessions = devices.len();
    for (number, device) in devices.into_iter().enumerate() {
        table.open(device, terms(number, sessions), 0);
    }
    table
}

/// One device speaks, or comes and goes, while so many are there.
fn at_rest(criterion: &mut Criterion, sessions: u32) {
    let mut group = criterion.benchmark_group("tracker");
    group.throughput(Throughput::Elements(1));
    let mut table = open_all(devices(sessions));
    // A datagram brings the name in bytes of its own.
    let names = devices(sessions);
    let (mut at, mut now): (usize, Tick) = (0, 0);
    group.bench_function(BenchmarkId::new("find and touch", sessions), |bencher| {
        bencher.iter(|| {
            at = (at + STRIDE) % names.len();
            now += 1;
            let (_, device) = table.get(names[at].key()).unwrap();
            device.vitals().touch(black_box(now));
        });
    });
    let tenant = "default".parse().unwrap();
    let mut number = sessions;
    group.bench_function(BenchmarkId::new("open and close", sessions), |bencher| {
        let newcomer = || {
            number += 1;
            device(&tenant, number)
        };
        let come_and_go = |device| {
            let opened = table.open(device, terms(0, 1), now);
            table.close(opened.slot, Reason::ConnectionLost, now)
        };
        bencher.iter_batched(newcomer, come_and_go, BatchSize::SmallInput);
    });
    group.finish();
}

/// All of them come, and all of them fall silent.
fn all_at_once(criterion: &mut Criterion, sessions: u32) {
    let mut group = criterion.benchmark_group("tracker");
    group.throughput(Throughput::Elements(sessions.into()));
    // Each run needs a table of its own, which takes longer to make than to measure.
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_millis(500));
    group.bench_function(BenchmarkId::new("open all", sessions), |bencher| {
        bencher.iter_batched(|| devices(sessions), open_all, BatchSize::PerIteration);
    });
    group.bench_function(BenchmarkId::new("expire all, tick by tick", sessions), |bencher| {
        let full = || (open_all(devices(sessions)), Vec::with_capacity(sessions as usize));
        bencher.iter_batched(full, expire_all, BatchSize::PerIteration);
    });
    group.finish();
}

/// Hands everything back, so that dropping it is not measured.
fn expire_all((mut table, mut ended): (Table, Vec<Ended<Arc<Device>>>)) -> (Table, Vec<Ended<Arc<Device>>>) {
    for now in (SPAN_MS..=2 * SPAN_MS).step_by(TICK_MS as usize) {
        table.expire(now, &mut ended);
    }
    assert!(table.is_empty());
    (table, ended)
}
