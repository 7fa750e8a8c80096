//! One test for each rule of the tracker.

use landfall_event::{Family, Reason};

use super::{Known, begin, expired, idle, known, open, present, tracker};
use crate::{Terms, Tracked};

const GONE: (u32, Reason) = (1, Reason::IdleTimeout);

#[test]
fn open_begins_a_session_and_close_ends_it_once() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 5);
    assert!(opened.replaced.is_none());
    assert_eq!((tracker.len(), present(&tracker, "a")), (1, Some((opened.slot, 1))));
    opened.vitals.touch(40);
    opened.vitals.count_in(7);

    let ended = tracker.close(opened.slot, Reason::ClientClosed, 50).unwrap();
    assert_eq!((ended.slot, ended.tag.number), (opened.slot, 1));
    assert_eq!((ended.reason, ended.last_seen, ended.at), (Reason::ClientClosed, 40, 50));
    assert_eq!((ended.terms, ended.tag.vitals.counters().bytes_in), (idle(1_000), 7));
    assert!(opened.vitals.is_over());

    assert!(tracker.close(opened.slot, Reason::ClientClosed, 60).is_none());
    assert!(tracker.is_empty() && present(&tracker, "a").is_none() && tracker.session(opened.slot).is_none());
    assert_eq!((expired(&mut tracker, 1_000_000), tracker.next_deadline()), (vec![], None));
}

#[test]
fn a_takeover_ends_the_old_session_before_the_new_one() {
    let mut tracker = tracker();
    let old = open(&mut tracker, "a", 1, idle(1_000), 0);
    let new = open(&mut tracker, "a", 2, idle(1_000), 300);
    let ended = new.replaced.as_ref().unwrap();
    assert_eq!((ended.slot, ended.tag.number, ended.reason, ended.at), (old.slot, 1, Reason::TakenOver, 300));
    assert!(old.vitals.is_over() && !new.vitals.is_over());
    assert_eq!((tracker.len(), present(&tracker, "a")), (1, Some((new.slot, 2))));
}

#[test]
fn a_stale_slot_closes_nothing() {
    let mut tracker = tracker();
    let old = open(&mut tracker, "a", 1, idle(1_000), 0);
    let new = open(&mut tracker, "a", 2, idle(1_000), 0);
    assert_eq!(old.slot.place, new.slot.place, "the place is used again");
    assert!(tracker.close(old.slot, Reason::ConnectionLost, 1).is_none());
    assert!(!tracker.set_terms(old.slot, idle(1)));
    assert!(tracker.session(old.slot).is_none());

    tracker.close(new.slot, Reason::ClientClosed, 2).unwrap();
    let other = open(&mut tracker, "b", 3, idle(1_000), 3);
    assert!(tracker.close(new.slot, Reason::ConnectionLost, 4).is_none());
    assert_eq!(tracker.session(other.slot).map(|live| live.tag.number), Some(3));
}

#[test]
fn an_old_deadline_does_not_end_the_newer_session_in_its_place() {
    let mut tracker = tracker();
    open(&mut tracker, "a", 1, idle(1_000), 0);
    open(&mut tracker, "a", 2, idle(5_000), 500);
    assert_eq!(expired(&mut tracker, 1_000), []);
    assert_eq!(expired(&mut tracker, 5_499), []);
    assert_eq!(expired(&mut tracker, 5_500), [(2, Reason::IdleTimeout)]);
}

#[test]
fn families_and_tenants_live_side_by_side() {
    let mut tracker = tracker();
    let mqtt = || Known { family: Family::Mqtt, ..known("a", 2) };
    let elsewhere = || Known { tenant: "other".parse().unwrap(), ..known("a", 3) };
    for known in [known("a", 1), mqtt(), elsewhere()] {
        assert!(begin(&mut tracker, known, idle(100), 0).replaced.is_none());
    }
    for known in [known("a", 1), mqtt(), elsewhere()] {
        assert_eq!(tracker.get(known.key()).unwrap().1.number, known.number);
    }
    let mut tags: Vec<u32> = tracker.iter().map(|live| live.tag.number).collect();
    tags.sort_unstable();
    assert_eq!(tags, [1, 2, 3]);
}

#[test]
fn silence_ends_a_session_and_not_a_millisecond_early() {
    let mut tracker = tracker();
    open(&mut tracker, "a", 1, Terms::after(1_050, Reason::KeepAliveTimeout), 1);
    assert_eq!(expired(&mut tracker, 1_050), []);
    let mut out = Vec::new();
    tracker.expire(1_051, &mut out);
    let ended = out.pop().unwrap();
    assert_eq!((ended.reason, ended.last_seen, ended.at), (Reason::KeepAliveTimeout, 1, 1_051));
}

#[test]
fn a_touch_puts_the_end_off_and_leaves_the_wheel_alone() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 0);
    let armed = tracker.wheel.deadline(opened.slot.place);
    opened.vitals.touch(900);
    assert_eq!(tracker.wheel.deadline(opened.slot.place), armed);
    assert_eq!(expired(&mut tracker, 1_000), []);
    assert_eq!(tracker.wheel.deadline(opened.slot.place), Some(1_900));
    assert_eq!(expired(&mut tracker, 1_899), []);
    assert_eq!(expired(&mut tracker, 1_900), [GONE]);
}

#[test]
fn a_touch_after_the_end_brings_nothing_back() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 0);
    assert_eq!(expired(&mut tracker, 1_000), [GONE]);
    opened.vitals.touch(1_001);
    assert!(opened.vitals.is_over() && tracker.is_empty());
}

#[test]
fn a_held_session_is_not_silent() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 0);
    opened.vitals.hold();
    for now in (0..10_000).step_by(100) {
        assert_eq!(expired(&mut tracker, now), []);
    }
    opened.vitals.release(9_950);
    assert_eq!(expired(&mut tracker, 10_949), []);
    let mut out = Vec::new();
    tracker.expire(10_950, &mut out);
    assert_eq!(out.pop().unwrap().last_seen, 0, "a hold is not a sign of life");
}

#[test]
fn a_hold_between_two_looks_counts_as_well() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 0);
    opened.vitals.hold();
    opened.vitals.release(999);
    assert_eq!(expired(&mut tracker, 1_998), []);
    assert_eq!(expired(&mut tracker, 1_999), [GONE]);
}

#[test]
fn a_held_session_can_be_closed_and_taken_over() {
    let mut tracker = tracker();
    open(&mut tracker, "a", 1, idle(1_000), 0).vitals.hold();
    let new = open(&mut tracker, "a", 2, idle(1_000), 5);
    assert_eq!(new.replaced.as_ref().unwrap().tag.number, 1);
    new.vitals.hold();
    assert!(tracker.close(new.slot, Reason::Kicked, 6).is_some());
}

#[test]
fn without_terms_of_silence_a_session_stays() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, Terms::never(), 0);
    assert_eq!((tracker.next_deadline(), expired(&mut tracker, u64::MAX / 2)), (None, vec![]));
    assert_eq!(tracker.session(opened.slot).unwrap().terms.silence_ms, None);
}

#[test]
fn no_silence_at_all_is_read_as_a_millisecond() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(0), 10);
    opened.vitals.hold();
    assert_eq!(expired(&mut tracker, 10), []);
    assert_eq!(expired(&mut tracker, 20), []);
    opened.vitals.release(20);
    assert_eq!(expired(&mut tracker, 21), [GONE]);
}

#[test]
fn terms_that_shorten_bring_the_end_forward() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(3_600_000), 0);
    opened.vitals.touch(500);
    assert!(tracker.set_terms(opened.slot, Terms::after(1_000, Reason::LifetimeExpired)));
    assert_eq!(expired(&mut tracker, 1_499), []);
    assert_eq!(expired(&mut tracker, 1_500), [(1, Reason::LifetimeExpired)]);
}

#[test]
fn terms_that_have_run_out_already_end_the_session_at_the_next_look() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, Terms::never(), 0);
    assert_eq!(expired(&mut tracker, 9_000), []);
    assert!(tracker.set_terms(opened.slot, idle(1_000)));
    assert_eq!(tracker.next_deadline(), Some(9_000));
    assert_eq!(expired(&mut tracker, 9_000), [GONE]);
}

#[test]
fn terms_that_lengthen_put_the_end_off() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 0);
    assert!(tracker.set_terms(opened.slot, idle(2_000)));
    assert_eq!(expired(&mut tracker, 1_999), []);
    assert_eq!(expired(&mut tracker, 2_000), [GONE]);
}

#[test]
fn terms_can_be_lifted_and_come_back() {
    let mut tracker = tracker();
    let opened = open(&mut tracker, "a", 1, idle(1_000), 0);
    assert!(tracker.set_terms(opened.slot, Terms::never()));
    assert_eq!((tracker.next_deadline(), expired(&mut tracker, 50_000)), (None, vec![]));
    opened.vitals.touch(60_000);
    assert!(tracker.set_terms(opened.slot, idle(1_000)));
    assert_eq!(expired(&mut tracker, 60_999), []);
    assert_eq!(expired(&mut tracker, 61_000), [GONE]);
}

#[test]
fn time_does_not_run_backwards() {
    let mut tracker = tracker();
    let first = open(&mut tracker, "a", 1, idle(1_000), 5_000);
    assert_eq!(expired(&mut tracker, 100), []);
    let second = open(&mut tracker, "b", 2, idle(1_000), 70);
    assert_eq!(second.vitals.last_seen(), 5_000, "an earlier `now` counts as the latest");
    first.vitals.touch(5_500);
    assert_eq!(
        tracker.close(first.slot, Reason::ClientClosed, 0).unwrap().at,
        5_500,
        "never before the last sign"
    );
    assert_eq!(expired(&mut tracker, 5_999), []);
    assert_eq!(expired(&mut tracker, 6_000), [(2, Reason::IdleTimeout)]);
}

#[test]
fn a_leap_ends_everything_once() {
    let mut tracker = tracker();
    for n in 0..500 {
        open(&mut tracker, &format!("d{n}"), n, idle(u64::from(n) * 977), 0);
    }
    let mut ends: Vec<u32> = expired(&mut tracker, 1 << 50).into_iter().map(|(tag, _)| tag).collect();
    ends.sort_unstable();
    assert_eq!(ends, (0..500).collect::<Vec<u32>>());
    assert_eq!((expired(&mut tracker, 1 << 51), tracker.next_deadline()), (vec![], None));
}

#[test]
fn portions_are_bounded_and_miss_nothing() {
    let mut tracker = tracker();
    let all: Vec<_> = (0..10).map(|n| open(&mut tracker, &format!("d{n}"), n, idle(1_000), 0)).collect();
    let mut out = Vec::new();
    assert!(tracker.expire_some(1_000, 4, &mut out));
    assert_eq!((out.len(), tracker.len(), tracker.next_deadline()), (4, 6, Some(1_000)));
    // One that is heard, one that closes and one that is new between the portions.
    let left: Vec<u32> = tracker.iter().map(|live| live.tag.number).collect();
    let [heard, closed] = [left[0], left[1]].map(|n| &all[n as usize]);
    heard.vitals.touch(1_500);
    assert!(tracker.close(closed.slot, Reason::ClientClosed, 1_500).is_some());
    open(&mut tracker, "new", 99, idle(1_000), 1_500);
    while tracker.expire_some(1_500, 4, &mut out) {}
    assert_eq!((out.len(), tracker.len()), (8, 2));
    assert!(tracker.next_deadline().unwrap() > 1_500);
}

#[test]
fn a_drain_ends_everyone_who_is_asked_for() {
    let mut tracker = tracker();
    for n in 0..10 {
        open(&mut tracker, &format!("d{n}"), n, idle(1_000), 0);
    }
    assert_eq!(tracker.drain(Reason::GatewayDraining, 7).take(3).count(), 3);
    assert_eq!(tracker.len(), 7, "what was not asked for stays");
    let rest: Vec<_> = tracker.drain(Reason::GatewayDraining, 8).collect();
    assert!(rest.iter().all(|ended| ended.reason == Reason::GatewayDraining && ended.at == 8));
    assert_eq!((rest.len(), tracker.len(), tracker.next_deadline()), (7, 0, None));
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    let mut tracker = tracker();
    let first = open(&mut tracker, "d0", 0, idle(1_000), 0);
    tracker.close(first.slot, Reason::ClientClosed, 0).unwrap();
    let before = tracker.footprint();
    for n in 0..20_000 {
        let slot = open(&mut tracker, &format!("d{}", n % 1_000), n, idle(60_000_000), u64::from(n)).slot;
        if n % 3 > 0 {
            open(&mut tracker, &format!("d{}", n % 1_000), n, idle(1_000), u64::from(n));
        }
        tracker.close(slot, Reason::ConnectionLost, u64::from(n));
        tracker.drain(Reason::Kicked, u64::from(n)).for_each(drop);
    }
    assert_eq!((tracker.footprint(), tracker.next_deadline()), (before, None));
}

#[test]
fn the_tracker_and_vitals_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<super::Table>();
    crosses::<crate::Vitals>();
}
