//! The wheel against a sorted set of deadlines.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The same timers, the obvious way.
#[derive(Debug, Default)]
struct Model {
    armed: BTreeMap<u32, Tick>,
    sorted: BTreeSet<(Tick, u32)>,
    now: Tick,
}

impl Model {
    fn arm(&mut self, timer: u32, deadline: Tick) {
        self.cancel(timer);
        self.armed.insert(timer, deadline);
        self.sorted.insert((deadline, timer));
    }

    fn cancel(&mut self, timer: u32) {
        if let Some(deadline) = self.armed.remove(&timer) {
            self.sorted.remove(&(deadline, timer));
        }
    }

    fn due(&self) -> BTreeSet<u32> {
        self.sorted.range(..=(self.now, u32::MAX)).map(|(_, timer)| *timer).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arm(u32, u64),
    Cancel(u32),
    Advance(u64),
    Back(u64),
    Pop(usize),
}

const TIMERS: u32 = 12;

/// Any width of number, so that every level is met.
fn distance() -> impl Strategy<Value = u64> {
    (0_u32..64, any::<u64>()).prop_map(|(shift, bits)| bits >> shift)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..TIMERS, distance()).prop_map(|(timer, delay)| Step::Arm(timer, delay)),
        3 => (0..TIMERS, 0_u64..1500).prop_map(|(timer, delay)| Step::Arm(timer, delay)),
        2 => (0..TIMERS).prop_map(Step::Cancel),
        5 => (0_u64..700).prop_map(Step::Advance),
        1 => distance().prop_map(|far| Step::Advance(far >> 8)),
        1 => (0_u64..700).prop_map(Step::Back),
        3 => (0_usize..4).prop_map(Step::Pop),
        2 => Just(Step::Pop(usize::MAX)),
    ]
}

/// What holds between any two calls.
fn check(wheel: &Wheel, model: &Model) {
    for timer in 0..TIMERS {
        assert_eq!(wheel.deadline(timer), model.armed.get(&timer).copied());
    }
    for (level, slots) in wheel.occupied.iter().enumerate() {
        for slot in 0..SLOTS as u32 {
            let ring = bucket(level, slot);
            assert_eq!(
                slots >> slot & 1 == 1,
                wheel.nodes[ring].next as usize != ring,
                "bit of {level}/{slot}"
            );
        }
    }
    assert_eq!(wheel.has_due(), !model.due().is_empty());
    match (wheel.next_stop(), model.sorted.first()) {
        (stop, None) => assert_eq!(stop, None),
        (stop, Some((deadline, _))) if *deadline <= model.now => assert_eq!(stop, Some(model.now)),
        (stop, Some((deadline, _))) => {
            let stop = stop.expect("something is armed");
            assert!(stop > model.now || stop == Tick::MAX, "{stop} is not ahead");
            assert!(stop <= deadline.saturating_add(wheel.tick_ms), "{stop} is late for {deadline}");
        }
    }
}

proptest! {
    #[test]
    fn the_wheel_is_a_sorted_set(
        start in distance(),
        tick_ms in prop_oneof![Just(1_u64), Just(7), Just(100), Just(1000)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let start = start >> 4;
        let mut wheel = Wheel::new(start, tick_ms);
        let mut model = Model { now: start, ..Model::default() };
        for step in steps {
            match step {
                Step::Arm(timer, delay) => {
                    let deadline = model.now.saturating_add(delay);
                    wheel.arm(timer, deadline);
                    model.arm(timer, deadline);
                }
                Step::Cancel(timer) => {
                    wheel.cancel(timer);
                    model.cancel(timer);
                }
                Step::Advance(by) => {
                    model.now = model.now.saturating_add(by);
                    wheel.advance(model.now);
                }
                Step::Back(by) => wheel.advance(model.now.saturating_sub(by)),
                Step::Pop(budget) => {
                    for _ in 0..budget {
                        let Some(timer) = wheel.pop_due() else { break };
                        prop_assert!(model.due().contains(&timer), "{} was not due", timer);
                        model.cancel(timer);
                    }
                    prop_assert!(budget < usize::MAX || model.due().is_empty());
                }
            }
            check(&wheel, &model);
        }
    }

    #[test]
    fn stepping_by_ticks_gives_the_order_of_ticks(
        delays in prop::collection::vec(0_u64..900_000, 1..60),
        start in 0_u64..1_000_000,
    ) {
        let tick = 100;
        let mut wheel = Wheel::new(start, tick);
        for (timer, delay) in (0_u32..).zip(&delays) {
            wheel.arm(timer, start + delay);
        }
        let (mut now, mut fired) = (start, Vec::new());
        while fired.len() < delays.len() {
            while let Some(timer) = wheel.pop_due() {
                fired.push((start + delays[timer as usize]) / tick);
            }
            now += tick;
            wheel.advance(now);
        }
        prop_assert!(fired.is_sorted());
    }
}

#[test]
fn a_deadline_that_has_passed_is_due_at_once() {
    let mut wheel = Wheel::new(1_000, 100);
    wheel.arm(0, 1_000);
    wheel.arm(1, 3);
    assert_eq!(wheel.next_stop(), Some(1_000));
    assert_eq!((wheel.pop_due(), wheel.pop_due(), wheel.pop_due()), (Some(0), Some(1), None));
}

#[test]
fn a_bucket_that_time_stands_in_gives_only_what_is_due() {
    let mut wheel = Wheel::new(0, 100);
    wheel.arm(0, 140);
    wheel.arm(1, 160);
    wheel.advance(150);
    assert_eq!((wheel.pop_due(), wheel.pop_due()), (Some(0), None));
    assert_eq!(wheel.next_stop(), Some(200));
    wheel.advance(160);
    assert_eq!(wheel.pop_due(), Some(1));
}

#[test]
fn arming_again_and_again_leaves_nothing_behind() {
    let mut wheel = Wheel::new(0, 100);
    wheel.arm(3, 50);
    let before = wheel.footprint();
    for deadline in 0..100_000 {
        wheel.arm(3, deadline * 17);
        wheel.cancel(2);
    }
    assert_eq!(wheel.footprint(), before);
    wheel.cancel(3);
    wheel.cancel(1_000);
    assert_eq!((wheel.next_stop(), wheel.occupied), (None, [0; LEVELS]));
}

#[test]
fn the_ends_of_time_are_inside() {
    let mut wheel = Wheel::new(0, 1);
    wheel.arm(0, Tick::MAX);
    wheel.arm(1, Tick::MAX - 1);
    wheel.advance(Tick::MAX - 1);
    assert_eq!((wheel.pop_due(), wheel.pop_due()), (Some(1), None));
    wheel.advance(Tick::MAX);
    assert_eq!(wheel.pop_due(), Some(0));
}
