//! A million sessions: what they cost, and that none is lost.

use std::sync::Arc;
use std::time::Duration;

use landfall_event::Reason;

use super::{Known, Table, idle, known, tracker};
use crate::{Terms, Vitals};

const MILLION: u32 = 1_000_000;

/// Real time that has passed; only to see that the work stays within a generous bound.
#[expect(clippy::disallowed_methods, reason = "the test measures the tracker, which is given its own time")]
fn stopwatch() -> impl Fn() -> Duration {
    let start = std::time::Instant::now();
    move || start.elapsed()
}

fn fill(tracker: &mut Table, terms: impl Fn(u32) -> Terms) -> Vec<Arc<Known>> {
    let tenant = known("any", 0).tenant;
    let open = |n| {
        let known = Arc::new(Known { tenant: tenant.clone(), ..known(&format!("meter-{n:09}"), n) });
        let opened = tracker.open(Arc::clone(&known), terms(n), u64::from(n) / 1_000);
        assert!(opened.replaced.is_none());
        known
    };
    (0..MILLION).map(open).collect()
}

#[test]
fn a_million_sessions_are_opened_touched_and_expired() {
    let elapsed = stopwatch();
    let mut tracker = tracker();
    let all = fill(&mut tracker, |n| idle(300_000 + u64::from(n % 7) * 1_000));
    assert_eq!(tracker.len(), MILLION as usize);

    // Every device speaks every 100 s for ten minutes; nobody goes.
    let mut ends = Vec::new();
    for now in (100_000..=600_000).step_by(100_000) {
        for known in &all {
            known.vitals.touch(now);
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
            assert!(!std::mem::replace(&mut gone[ended.tag.number as usize], true), "ended twice");
        }
    }
    assert!(gone.iter().all(|gone| *gone) && tracker.is_empty());
    assert_eq!(tracker.next_deadline(), None);
    assert!(elapsed() < Duration::from_secs(120), "took {:?}", elapsed());
}

#[test]
fn a_million_at_once_and_a_leap_of_a_year() {
    let mut tracker = tracker();
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
    type Session = crate::tracker::Session<Arc<Known>>;
    assert_eq!(size_of::<Session>(), 32);
    assert_eq!(size_of::<Place<Session>>(), 32);
    assert_eq!(size_of::<Vitals>(), 48);

    let mut tracker = tracker();
    let empty = tracker.footprint();
    assert!(empty <= 24 * 1024, "{empty} bytes for nobody");
    let all = fill(&mut tracker, |_| idle(300_000));
    let each = tracker.footprint() as f64 / f64::from(MILLION);
    println!("{each:.1} bytes for each of {MILLION} sessions");
    assert!(each < 72.0, "{each} bytes for each session");

    // Coming and going, in any number, takes no more room than was needed at once.
    let full = tracker.footprint();
    drop(all);
    let spent: Vec<_> = tracker.drain(Reason::GatewayDraining, 2_000).take(500_000).collect();
    for ended in spent {
        let number = ended.tag.number;
        let again = known(ended.tag.device.as_str(), number);
        tracker.open(Arc::new(again), idle(u64::from(number) * 1_000), 3_000);
    }
    assert_eq!(tracker.footprint(), full);
}
