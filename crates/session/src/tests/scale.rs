//! A million sessions: what they cost, and that none is lost.

use std::sync::Arc;
use std::time::Duration;

use landfall_event::{DeviceId, Family, Reason, TenantId};

use super::idle;
use crate::{Key, Terms, Tracker, Vitals};

const MILLION: u32 = 1_000_000;

/// Real time that has passed; only to see that the work stays within a generous bound.
#[expect(clippy::disallowed_methods, reason = "the test measures the tracker, which is given its own time")]
fn stopwatch() -> impl Fn() -> Duration {
    let start = std::time::Instant::now();
    move || start.elapsed()
}

fn fill(tracker: &mut Tracker<Arc<u32>>, terms: impl Fn(u32) -> Terms) -> Vec<Arc<Vitals>> {
    let tenant: TenantId = "default".parse().unwrap();
    let open = |n| {
        let device: DeviceId = format!("meter-{n:09}").parse().unwrap();
        let key = Key { tenant: tenant.clone(), device, family: Family::Udp };
        let opened = tracker.open(key, Arc::new(n), terms(n), u64::from(n) / 1_000);
        assert!(opened.replaced.is_none());
        opened.vitals
    };
    (0..MILLION).map(open).collect()
}

#[test]
fn a_million_sessions_are_opened_touched_and_expired() {
    let elapsed = stopwatch();
    let mut tracker = Tracker::new(0, 100, std::hash::RandomState::new());
    let vitals = fill(&mut tracker, |n| idle(300_000 + u64::from(n % 7) * 1_000));
    assert_eq!(tracker.len(), MILLION as usize);

    // Every device speaks every 100 s for ten minutes; nobody goes.
    let mut ends = Vec::new();
    for now in (100_000..=600_000).step_by(100_000) {
        for vitals in &vitals {
            vitals.touch(now);
        }
        for at in (now..now + 100_000).step_by(10_000) {
            tracker.expire(at, &mut ends);
        }
    }
    assert_eq!((ends.len(), tracker.len()), (0, MILLION as usize));

    // All fall silent at 600 s. A seventh goes with each second from 900 s on, tick by tick.
    let mut gone = vec![false; MILLION as usize];
    for now in (700_000..=906_000).step_by(100) {
        tracker.expire(now, &mut ends);
        for ended in ends.drain(..) {
            assert_eq!(now, 600_000 + ended.terms.silence_ms.unwrap(), "on its tick");
            assert_eq!(ended.reason, Reason::IdleTimeout);
            assert!(!std::mem::replace(&mut gone[*ended.tag as usize], true), "ended twice");
        }
    }
    assert!(gone.iter().all(|gone| *gone) && tracker.is_empty());
    assert_eq!(tracker.next_deadline(), None);
    assert!(elapsed() < Duration::from_secs(120), "took {:?}", elapsed());
}

#[test]
fn a_million_at_once_and_a_leap_of_a_year() {
    let mut tracker = Tracker::new(0, 100, std::hash::RandomState::new());
    fill(&mut tracker, |n| idle(1_000 + u64::from(n)));
    let (mut out, mut ends) = (Vec::new(), 0);
    while tracker.expire_some(365 * 86_400_000, 4_096, &mut out) {
        assert!(out.len() <= 4_096);
        ends += out.drain(..).count();
    }
    assert_eq!(ends + out.len(), MILLION as usize);
    assert_eq!((tracker.len(), tracker.next_deadline()), (0, None));
}

#[test]
fn a_session_costs_what_the_documentation_says() {
    // As the slab keeps a place: a vacant one hides in a value that a session never has.
    #[expect(dead_code, reason = "only its size counts")]
    enum Place<T> {
        Vacant(usize),
        Taken(T),
    }
    type Session = crate::tracker::Session<Arc<u32>>;
    assert_eq!(size_of::<Session>(), 80);
    assert_eq!(size_of::<Place<Session>>(), 80);
    assert_eq!(size_of::<Vitals>() + 2 * size_of::<usize>(), 64);

    let mut tracker = Tracker::new(0, 100, std::hash::RandomState::new());
    let empty = tracker.footprint();
    assert!(empty <= 24 * 1024, "{empty} bytes for nobody");
    let vitals = fill(&mut tracker, |_| idle(300_000));
    let each = tracker.footprint() as f64 / f64::from(MILLION);
    println!("{each:.1} bytes for each of {MILLION} sessions");
    assert!(each < 200.0, "{each} bytes for each session");

    // Coming and going, in any number, takes no more room than was needed at once.
    let full = tracker.footprint();
    drop(vitals);
    let spent: Vec<_> = tracker.drain(Reason::GatewayDraining, 2_000).take(500_000).collect();
    for (n, ended) in spent.into_iter().enumerate() {
        tracker.open(ended.key, ended.tag, idle(n as u64 * 1_000), 3_000);
    }
    assert_eq!(tracker.footprint(), full);
}
