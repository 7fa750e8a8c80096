use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn window(in_flight: usize) -> Window<u64> {
    Window::new(Bounds { in_flight, ack_timeout_ms: 1_000, first_pause_ms: 10, longest_pause_ms: 80 })
}

fn sent(window: &mut Window<u64>, now: Tick) -> Vec<u64> {
    std::iter::from_fn(|| window.next(now).map(|(number, _)| number)).collect()
}

/// A window with `count` messages in flight after a stored probe.
fn opened(in_flight: usize, count: u64) -> Window<u64> {
    let mut window = window(in_flight);
    window.admit(0);
    assert_eq!(sent(&mut window, 0), [0]);
    assert_eq!(window.settle(0, Verdict::Stored, 0), Settled::Done(0));
    for item in 1..=count {
        window.admit(item);
    }
    assert_eq!(sent(&mut window, 0), (1..=count).collect::<Vec<_>>());
    window
}

#[test]
fn a_new_connection_carries_one_message_until_it_is_stored() {
    let mut window = window(8);
    for item in 0..4 {
        window.admit(item);
    }
    assert_eq!(sent(&mut window, 0), [0]);
    assert_eq!(window.settle(0, Verdict::Final, 1), Settled::Done(0));
    assert_eq!(sent(&mut window, 1), [1], "a final refusal says nothing about the next message");
    assert_eq!(window.settle(1, Verdict::Stored, 2), Settled::Done(1));
    assert_eq!(sent(&mut window, 2), [2, 3]);
}

#[test]
fn the_window_spans_from_the_oldest_unsettled_message() {
    let mut window = opened(4, 4);
    assert!(window.room() == 0);
    assert_eq!(window.settle(3, Verdict::Stored, 1), Settled::Done(3));
    assert!(window.room() == 0, "the oldest still holds it");
    assert_eq!(window.settle(1, Verdict::Stored, 1), Settled::Done(1));
    assert!(window.room() > 0);
    assert_eq!(window.settle(2, Verdict::Stored, 1), Settled::Done(2));
    assert_eq!(window.in_flight(), 1);
    assert_eq!(window.unsettled().count(), 1);
}

#[test]
fn a_passing_refusal_waits_for_all_in_flight_then_pauses_then_probes_in_order() {
    let mut window = opened(8, 4);
    window.admit(5);
    assert_eq!(window.settle(2, Verdict::Passing, 5), Settled::Again);
    assert_eq!(window.settle(3, Verdict::Passing, 5), Settled::Again);
    assert_eq!(sent(&mut window, 6), [0_u64; 0], "1 and 4 are still in flight");
    assert_eq!(window.settle(1, Verdict::Stored, 7), Settled::Done(1));
    assert_eq!(window.settle(4, Verdict::Passing, 8), Settled::Again);
    assert_eq!(window.paused_until(), Some(18));
    assert!(!window.is_open());
    assert_eq!(sent(&mut window, 17), [0_u64; 0]);
    assert_eq!(sent(&mut window, 18), [2], "the oldest alone");
    assert_eq!(window.settle(2, Verdict::Passing, 19), Settled::Again);
    assert_eq!(window.paused_until(), Some(39), "the pause doubles");
    assert_eq!(sent(&mut window, 39), [2]);
    assert_eq!(window.settle(2, Verdict::Stored, 40), Settled::Done(2));
    assert!(window.is_open());
    assert_eq!(sent(&mut window, 40), [3, 4, 5]);
}

#[test]
fn pauses_have_a_longest() {
    let mut window = window(8);
    window.admit(0);
    let mut now = 0;
    for _ in 0..40 {
        assert_eq!(sent(&mut window, now), [0]);
        assert_eq!(window.settle(0, Verdict::Passing, now), Settled::Again);
        let until = window.paused_until().unwrap();
        assert!(until - now <= 80);
        now = until;
    }
    assert_eq!(sent(&mut window, now), [0]);
}

#[test]
fn a_reset_sends_everything_unsettled_again_before_anything_new() {
    let mut window = opened(8, 4);
    assert_eq!(window.settle(2, Verdict::Stored, 1), Settled::Done(2));
    window.reset(2);
    window.admit(5);
    assert_eq!(window.in_flight(), 0);
    assert_eq!(sent(&mut window, 3), [1]);
    assert_eq!(window.settle(1, Verdict::Stored, 4), Settled::Done(1));
    assert_eq!(sent(&mut window, 4), [3, 4, 5]);
}

#[test]
fn acknowledgements_that_nobody_waits_for_change_nothing() {
    let mut window = opened(8, 2);
    assert_eq!(window.settle(0, Verdict::Stored, 1), Settled::Unknown, "settled before");
    assert_eq!(window.settle(9, Verdict::Stored, 1), Settled::Unknown, "never admitted");
    assert_eq!(window.settle(u64::MAX, Verdict::Passing, 1), Settled::Unknown);
    window.reset(1);
    assert_eq!(window.settle(1, Verdict::Passing, 1), Settled::Unknown, "not in flight");
    assert_eq!(window.settle(1, Verdict::Stored, 1), Settled::Done(1), "stored is stored");
    assert_eq!((window.in_flight(), window.unsettled().count()), (0, 1));
}

#[test]
fn silence_is_told_from_slow_answers() {
    let mut window = opened(32, 1);
    assert!(!window.is_stalled(999));
    assert!(window.is_stalled(1_000), "nothing settled for the whole time");
    for item in 2..=14 {
        let now = (item - 1) * 900;
        window.admit(item);
        assert_eq!(sent(&mut window, now), [item]);
        assert_eq!(window.settle(item, Verdict::Stored, now), Settled::Done(item));
        assert!(!window.is_stalled(now + 99));
    }
    assert!(!window.is_stalled(11_799));
    assert!(window.is_stalled(12_000), "one message has waited twelve times as long");
    window.drain().for_each(drop);
    assert!(!window.is_stalled(90_000));
}

#[test]
fn a_message_whose_connection_was_lost_is_in_doubt_until_it_settles() {
    let mut window = opened(8, 0);
    for (at, item) in [(100, 1), (200, 2)] {
        window.admit(item);
        sent(&mut window, at);
    }
    assert_eq!(window.doubtful_since(), None);
    window.reset(300);
    assert_eq!(window.doubtful_since(), Some(100));
    window.admit(3);
    sent(&mut window, 400);
    window.reset(500);
    assert_eq!(window.doubtful_since(), Some(100), "the earliest counts");
    window.settle(1, Verdict::Stored, 600);
    assert_eq!(window.doubtful_since(), Some(100), "2 is still in doubt");
    window.settle(2, Verdict::Stored, 600);
    window.settle(3, Verdict::Stored, 600);
    assert_eq!(window.doubtful_since(), None);
    window.admit(4);
    sent(&mut window, 700);
    window.settle(4, Verdict::Passing, 700);
    window.reset(700);
    assert_eq!(window.doubtful_since(), None, "what was refused is not in the stream");
    sent(&mut window, 800);
    window.reset(900);
    assert_eq!(window.doubtful_since(), Some(800));
    window.no_doubt();
    assert_eq!(window.doubtful_since(), None);
}

#[test]
fn idle_time_before_a_message_is_not_held_against_it() {
    let mut window = opened(8, 0);
    window.admit(1);
    sent(&mut window, 50_000);
    assert!(!window.is_stalled(50_999));
    assert!(window.is_stalled(51_000));
}

#[test]
fn a_drained_window_waits_for_nothing_that_was_in_it() {
    let mut window = Window::new(Bounds::default());
    for n in 0..3 {
        window.admit(n);
    }
    window.next(0);
    window.settle(0, Verdict::Stored, 1);
    assert!(window.next(1).is_some() && window.next(1).is_some());
    // One of two is refused: nothing is sent until the other has settled, which it never does.
    window.settle(1, Verdict::Fenced, 2);
    assert_eq!(window.drain().collect::<Vec<_>>(), [(1, false), (2, true)], "one was refused");
    window.admit(7);
    assert_eq!(window.next(3).map(|(_, item)| *item), Some(7));
}

#[test]
fn one_by_one_means_one_in_flight() {
    let mut window = Window::new(Bounds::default());
    (0..3).for_each(|n| {
        window.admit(n);
    });
    window.one_by_one(true);
    for n in 0..3_u64 {
        assert!(window.next(n).is_some());
        assert!(window.next(n).is_none(), "until it has settled");
        window.settle(n, Verdict::Stored, n);
    }
    (0..3).for_each(|n| {
        window.admit(n);
    });
    window.one_by_one(false);
    assert!((0..3).all(|_| window.next(9).is_some()));
}

#[test]
fn draining_returns_what_is_left_in_order() {
    let mut window = opened(8, 3);
    window.admit(4);
    window.settle(2, Verdict::Stored, 1);
    window.reset(2);
    window.admit(5);
    assert_eq!(window.drain().collect::<Vec<_>>(), [(1, true), (3, true), (4, true), (5, false)]);
    assert!(window.is_empty());
    assert_eq!(window.settle(1, Verdict::Stored, 1), Settled::Unknown);
    assert_eq!(window.admit(6), 6, "numbers never come again");
}

/// What can happen between the window and a server.
#[derive(Clone, Debug)]
enum Step {
    Submit(u8),
    Send(u8),
    /// The server takes that many messages off the present connection.
    Take(u8),
    /// ... off an older connection whose bytes still arrive.
    TakeOld(u8),
    /// That many acknowledgements arrive, from anywhere in the queue.
    Answer(u8, usize),
    /// The connection breaks: what it carries may still arrive in part, its acknowledgements are lost.
    Break,
    /// The server stops storing, or stores again.
    Toggle,
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u8..20).prop_map(Step::Submit),
        6 => (1_u8..20).prop_map(Step::Send),
        6 => (1_u8..20).prop_map(Step::Take),
        2 => (1_u8..20).prop_map(Step::TakeOld),
        6 => (1_u8..20, 0_usize..64).prop_map(|(n, i)| Step::Answer(n, i)),
        1 => Just(Step::Break),
        1 => Just(Step::Toggle),
        2 => any::<u8>().prop_map(Step::Wait),
    ]
}

#[derive(Default)]
struct Model {
    now: Tick,
    submitted: u64,
    stream: Vec<u64>,
    known: HashSet<u64>,
    pipe: VecDeque<u64>,
    old_pipe: VecDeque<u64>,
    answers: Vec<(u64, Verdict)>,
    told: HashSet<u64>,
    down: bool,
}

impl Model {
    fn store(&mut self, number: u64) -> Verdict {
        if self.down {
            return Verdict::Passing;
        }
        if self.known.insert(number) {
            self.stream.push(number);
        }
        Verdict::Stored
    }

    fn take(&mut self) {
        if let Some(number) = self.pipe.pop_front() {
            let verdict = self.store(number);
            self.answers.push((number, verdict));
        }
    }

    fn answer(&mut self, window: &mut Window<u64>, at: usize) {
        if self.answers.is_empty() {
            return;
        }
        let (number, verdict) = self.answers.remove(at % self.answers.len());
        match window.settle(number, verdict, self.now) {
            Settled::Done(item) => {
                assert_eq!((item, verdict), (number, Verdict::Stored));
                assert!(self.told.insert(item), "{item} was told twice");
                assert!(self.known.contains(&item), "{item} was told stored and is not");
            }
            Settled::Again => assert_eq!(verdict, Verdict::Passing),
            Settled::Unknown => panic!("an answer of the present connection is always waited for"),
        }
    }

    fn send(&mut self, window: &mut Window<u64>) {
        if let Some((number, item)) = window.next(self.now) {
            assert_eq!(number, *item);
            self.pipe.push_back(number);
        }
    }

    fn apply(&mut self, window: &mut Window<u64>, step: &Step) {
        match step {
            Step::Submit(n) => {
                for _ in 0..*n {
                    if window.room() > 0 {
                        assert_eq!(window.admit(self.submitted), self.submitted);
                        self.submitted += 1;
                    }
                }
            }
            Step::Send(n) => (0..*n).for_each(|_| self.send(window)),
            Step::Take(n) => (0..*n).for_each(|_| self.take()),
            Step::TakeOld(n) => {
                for _ in 0..*n {
                    if let Some(number) = self.old_pipe.pop_front() {
                        self.store(number);
                    }
                }
            }
            Step::Answer(n, index) => (0..*n).for_each(|_| self.answer(window, *index)),
            Step::Break => {
                // A third connection comes only after the first is gone.
                self.old_pipe = std::mem::take(&mut self.pipe);
                self.answers.clear();
                window.reset(self.now);
            }
            Step::Toggle => {
                // A restart cuts older connections. The way back finds at most a probe in flight: what the module says
                // about servers that refuse for less than a round trip.
                if !self.down || window.in_flight() == 0 || window.phase == Phase::Probing {
                    self.down = !self.down;
                    self.old_pipe.clear();
                }
            }
            Step::Wait(ms) => self.now += u64::from(*ms),
        }
        assert!(window.in_flight() <= 16);
        assert_eq!(window.in_flight(), self.pipe.len() + self.answers.len());
        assert!(self.stream.is_sorted(), "out of order: {:?}", self.stream);
    }
}

proptest! {
    #[test]
    fn every_message_is_stored_once_in_order_and_told_once(steps in prop::collection::vec(step(), 1..400)) {
        let mut window = window(16);
        let mut model = Model::default();
        for step in &steps {
            model.apply(&mut window, step);
        }
        // The server recovers and everything settles.
        while window.in_flight() > 0 {
            model.take();
            model.answer(&mut window, 0);
        }
        model.down = false;
        let mut rounds = 0;
        while !window.is_empty() {
            model.now += 100;
            for step in [Step::Send(20), Step::Take(20), Step::Answer(20, 0)] {
                model.apply(&mut window, &step);
            }
            rounds += 1;
            prop_assert!(rounds < 1_000, "{window:?}");
        }
        prop_assert_eq!(model.stream, (0..model.submitted).collect::<Vec<_>>());
        prop_assert_eq!(model.told.len() as u64, model.submitted);
    }
}
