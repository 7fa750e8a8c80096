//! Random histories over a few devices, against a model that looks at everything all the time.

use std::collections::HashMap;
use std::sync::Arc;

use landfall_event::Reason;
use proptest::prelude::*;

use super::{Known, Table, open, present, tracker};
use crate::{Ended, Slot, Terms, Tick};

const DEVICES: usize = 4;
const TICK: u64 = 100;

#[derive(Clone, Debug)]
enum Step {
    Open(usize, Terms),
    Seen(usize),
    Close(usize),
    /// Closes by the slot of any session that there ever was.
    CloseAny(prop::sample::Index),
    Hold(usize),
    Release(usize),
    SetTerms(usize, Terms),
    /// Time passes and nobody calls.
    Pass(u64),
    /// Time passes and `expire` is called.
    Expire(u64),
    /// The same, in portions of this size.
    Portions(u64, usize),
    /// A call that brings an old time.
    ExpireBack(u64),
}

fn terms() -> impl Strategy<Value = Terms> {
    prop_oneof![
        1 => Just(Terms::never()),
        5 => (1_u64..500).prop_map(|ms| Terms::after(ms, Reason::IdleTimeout)),
        2 => (500_u64..1_000_000).prop_map(|ms| Terms::after(ms, Reason::KeepAliveTimeout)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let device = || 0..DEVICES;
    prop_oneof![
        6 => (device(), terms()).prop_map(|(device, terms)| Step::Open(device, terms)),
        5 => device().prop_map(Step::Seen),
        2 => device().prop_map(Step::Close),
        2 => any::<prop::sample::Index>().prop_map(Step::CloseAny),
        1 => device().prop_map(Step::Hold),
        2 => device().prop_map(Step::Release),
        2 => (device(), terms()).prop_map(|(device, terms)| Step::SetTerms(device, terms)),
        4 => (0_u64..300).prop_map(Step::Pass),
        6 => (0_u64..300).prop_map(Step::Expire),
        1 => (0_u64..1 << 40).prop_map(Step::Expire),
        2 => (0_u64..2_000, 1_usize..3).prop_map(|(ms, budget)| Step::Portions(ms, budget)),
        1 => (0_u64..5_000).prop_map(Step::ExpireBack),
    ]
}

/// A session as the model sees it.
#[derive(Debug)]
struct Present {
    slot: Slot,
    known: Arc<Known>,
    heard: Tick,
    excused: Tick,
    held: bool,
    terms: Terms,
}

impl Present {
    fn is_silent(&self, now: Tick) -> bool {
        let since = self.heard.max(self.excused);
        !self.held && self.terms.silence_ms.is_some_and(|silence| since + silence <= now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Connected(Slot),
    Disconnected(Slot, Reason),
}

/// The tracker, the model, and what was told of each device.
struct Bench {
    tracker: Table,
    now: Tick,
    present: HashMap<usize, Present>,
    told: [Vec<Told>; DEVICES],
    slots: Vec<(usize, Slot)>,
}

impl Bench {
    fn new() -> Self {
        let (present, told, slots) = (HashMap::new(), Default::default(), Vec::new());
        Self { tracker: tracker(), now: 0, present, told, slots }
    }

    /// An end that the tracker told must be the model's: the session that is there, with what it knows of it.
    fn ended(&mut self, ended: &Ended<Arc<Known>>) {
        let device = ended.tag.number as usize;
        let known = self.present.remove(&device).expect("a disconnected without a connected");
        assert!(Arc::ptr_eq(&ended.tag, &known.known));
        assert_eq!(ended.slot, known.slot);
        assert_eq!((ended.last_seen, ended.terms), (known.heard, known.terms));
        assert!(ended.tag.vitals.is_over());
        self.told[device].push(Told::Disconnected(ended.slot, ended.reason));
    }

    fn open(&mut self, device: usize, terms: Terms) {
        let opened = open(&mut self.tracker, &device.to_string(), device as u32, terms, self.now);
        assert_eq!(opened.replaced.is_some(), self.present.contains_key(&device));
        if let Some(old) = &opened.replaced {
            assert_eq!(old.reason, Reason::TakenOver);
            self.ended(old);
        }
        let (slot, known) = (opened.slot, opened.known);
        self.present.insert(device, Present { slot, known, heard: self.now, excused: 0, held: false, terms });
        self.told[device].push(Told::Connected(slot));
        self.slots.push((device, slot));
    }

    fn close(&mut self, device: usize, slot: Slot) {
        let is_there = self.present.get(&device).is_some_and(|present| present.slot == slot);
        let ended = self.tracker.close(slot, Reason::ClientClosed, self.now);
        assert_eq!(ended.is_some(), is_there, "only the slot of a session under way closes it");
        if let Some(ended) = ended {
            self.ended(&ended);
        }
    }

    /// Exactly those end whose silence has lasted, at the first call that could know.
    fn expire(&mut self, called_with: Tick, budget: usize) {
        let mut due: Vec<Slot> =
            self.present.values().filter(|p| p.is_silent(self.now)).map(|p| p.slot).collect();
        let mut out = Vec::new();
        while self.tracker.expire_some(called_with, budget, &mut out) {}
        let mut ends: Vec<Slot> = out.iter().map(|ended| ended.slot).collect();
        due.sort_by_key(|slot| slot.serial);
        ends.sort_by_key(|slot| slot.serial);
        assert_eq!(ends, due);
        for ended in &out {
            assert_eq!((ended.reason, ended.at), (ended.terms.on_silence, self.now));
            self.ended(ended);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Open(device, terms) => self.open(device, terms),
            Step::CloseAny(ref index) if !self.slots.is_empty() => {
                let (device, slot) = self.slots[index.index(self.slots.len())];
                self.close(device, slot);
            }
            Step::CloseAny(_) => {}
            Step::Close(device) => {
                if let Some(slot) = self.present.get(&device).map(|present| present.slot) {
                    self.close(device, slot);
                }
            }
            Step::Pass(ms) => self.now += ms,
            Step::Expire(ms) => {
                self.now += ms;
                self.expire(self.now, usize::MAX);
            }
            Step::Portions(ms, budget) => {
                self.now += ms;
                self.expire(self.now, budget);
            }
            Step::ExpireBack(ms) => {
                self.expire(self.now, usize::MAX);
                self.expire(self.now.saturating_sub(ms), usize::MAX);
            }
            Step::Seen(device) | Step::Hold(device) | Step::Release(device) | Step::SetTerms(device, _) => {
                if let Some(present) = self.present.get_mut(&device) {
                    sign(&mut self.tracker, present, self.now, step);
                }
            }
        }
    }

    /// What holds between any two steps.
    fn check(&self) {
        assert_eq!(self.tracker.len(), self.present.len());
        assert_eq!(self.tracker.iter().count(), self.present.len());
        for device in 0..DEVICES {
            let expected = self.present.get(&device).map(|present| (present.slot, device as u32));
            assert_eq!(present(&self.tracker, &device.to_string()), expected);
        }
        // Nobody is forgotten: whoever silence can end has a call that is due.
        let ends: Vec<Tick> =
            self.present.values().filter_map(|p| Some(p.heard + p.terms.silence_ms?)).collect();
        assert!(ends.is_empty() || self.tracker.next_deadline().is_some());
    }

    fn finish(mut self) {
        let rest: Vec<_> = self.tracker.drain(Reason::GatewayDraining, self.now).collect();
        for ended in &rest {
            self.ended(ended);
        }
        assert!(self.present.is_empty() && self.tracker.is_empty());
        for told in &self.told {
            assert_eq!(told.len() % 2, 0);
            for pair in told.chunks(2) {
                let [Told::Connected(begun), Told::Disconnected(ended, _)] = pair else {
                    panic!("connected and disconnected do not alternate: {told:?}");
                };
                assert_eq!(begun, ended);
            }
        }
        assert_eq!(self.told.iter().map(Vec::len).sum::<usize>(), 2 * self.slots.len());
    }
}

/// What happens to a session that is there.
fn sign(tracker: &mut Table, present: &mut Present, now: Tick, step: &Step) {
    match step {
        Step::Seen(_) => {
            present.known.vitals.touch(now);
            present.heard = now;
        }
        Step::Hold(_) => {
            present.known.vitals.hold();
            present.held = true;
        }
        Step::Release(_) => {
            present.known.vitals.release(now);
            present.excused = if present.held { now } else { present.excused };
            present.held = false;
        }
        Step::SetTerms(_, terms) => {
            assert!(tracker.set_terms(present.slot, *terms));
            present.terms = *terms;
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_history_is_the_models(steps in prop::collection::vec(step(), 1..150)) {
        let mut bench = Bench::new();
        for step in steps {
            bench.step(&step);
            bench.check();
        }
        bench.finish();
    }
}

/// A device that speaks at these moments and then falls silent, with the silence that it announced.
fn cadence() -> impl Strategy<Value = (Vec<u64>, u64)> {
    (prop::collection::vec(0_u64..30_000, 0..8), 1_u64..20_000)
}

/// Plays cadences against a caller who waits as `next` says; gives the ends with their lateness checked.
fn play(devices: &[(Vec<u64>, u64)], mut next: impl FnMut(&Table, Tick) -> Tick) -> usize {
    let mut tracker = tracker();
    let mut words: Vec<(Tick, Arc<Known>)> = Vec::new();
    for (n, (speaks, silence)) in devices.iter().enumerate() {
        let terms = Terms::after(*silence, Reason::IdleTimeout);
        let known = open(&mut tracker, &n.to_string(), n as u32, terms, 0).known;
        words.extend(speaks.iter().map(|at| (*at, Arc::clone(&known))));
    }
    words.sort_by_key(|(at, _)| *at);
    let (mut words, mut now, mut ends) = (words.into_iter().peekable(), 0, Vec::new());
    while !tracker.is_empty() {
        let wake = next(&tracker, now);
        assert!(wake > now, "a caller would spin");
        while let Some((at, known)) = words.next_if(|(at, _)| *at <= wake) {
            if !known.vitals.is_over() {
                known.vitals.touch(at);
            }
        }
        now = wake;
        tracker.expire(now, &mut ends);
    }
    for ended in &ends {
        let due = ended.last_seen + ended.terms.silence_ms.unwrap();
        assert!(ended.at >= due, "{} ms early", due - ended.at);
        assert!(ended.at - due <= TICK, "{} ms late", ended.at - due);
    }
    ends.len()
}

proptest! {
    #[test]
    fn who_calls_every_tick_is_never_early_and_at_most_a_tick_late(
        devices in prop::collection::vec(cadence(), 1..20),
        gaps in prop::collection::vec(1_u64..=TICK, 1..20),
    ) {
        let mut gaps = gaps.into_iter().cycle();
        let ends = play(&devices, |_, now| now + gaps.next().unwrap());
        prop_assert_eq!(ends, devices.len());
    }

    #[test]
    fn who_sleeps_until_the_next_deadline_is_never_early_and_at_most_a_tick_late(
        devices in prop::collection::vec(cadence(), 1..20),
    ) {
        let ends = play(&devices, |tracker, _| tracker.next_deadline().unwrap());
        prop_assert_eq!(ends, devices.len());
    }
}
