//! One policy over one cadence: how often it is wrong, and how soon it is right.

use landfall_session::{Cadence, Patience};

/// What a policy did to one device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trial {
    /// Sessions that ended although the device spoke again.
    pub(crate) false_alarms: usize,
    /// The mean silence in ms after which a device that is lost at a random moment is told.
    pub(crate) told_after: f64,
    /// The same, once the cadence is known.
    pub(crate) settled: f64,
}

/// As a gateway does it: the fixed timeout until the cadence is known, and a new session that knows nothing after an end.
pub(crate) fn learned(intervals: &[u64], patience: &Patience, fixed_ms: u64) -> Trial {
    let (mut cadence, mut in_force) = (Cadence::default(), fixed_ms);
    let (mut false_alarms, mut all, mut settled) = (0, Mean::default(), Mean::default());
    for interval in intervals {
        all.add(in_force, *interval);
        if patience.silence_ms(&cadence).is_some() {
            settled.add(in_force, *interval);
        }
        if *interval > in_force {
            false_alarms += 1;
            (cadence, in_force) = (Cadence::default(), fixed_ms);
            continue;
        }
        cadence.heard(*interval);
        in_force = patience.revised(&cadence, in_force).unwrap_or(in_force);
    }
    Trial { false_alarms, told_after: all.value(), settled: settled.value() }
}

/// By time: what holds at a random moment.
#[derive(Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: u64, weight: u64) {
        self.sum += value as f64 * weight as f64;
        self.weight += weight as f64;
    }

    fn value(&self) -> f64 {
        self.sum / self.weight
    }
}

/// The shortest fixed timeout that is wrong at most this often, known when all is over.
pub(crate) fn fixed(mut intervals: Vec<u64>, false_alarms: usize) -> u64 {
    intervals.sort_unstable_by(|a, b| b.cmp(a));
    intervals.get(false_alarms).copied().unwrap_or(0)
}

/// A fleet under both policies.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) words: usize,
    /// The same for both.
    pub(crate) false_alarms: usize,
    /// One fixed timeout for all, in ms: the shortest that is not wrong more often.
    pub(crate) one_for_all: u64,
    /// A fixed timeout for each device by hindsight, in ms: the mean over the devices.
    pub(crate) hindsight: f64,
    /// Mean over the devices, in ms.
    pub(crate) learned: f64,
    /// The device in the middle, in ms.
    pub(crate) median: f64,
    /// Mean over the devices once their cadences are known, in ms.
    pub(crate) settled: f64,
}

pub(crate) fn compare(fleet: &[Vec<u64>], patience: &Patience, fixed_ms: u64) -> Comparison {
    let trials: Vec<Trial> = fleet.iter().map(|device| learned(device, patience, fixed_ms)).collect();
    let false_alarms = trials.iter().map(|trial| trial.false_alarms).sum();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mut told: Vec<f64> = trials.iter().map(|trial| trial.told_after).collect();
    told.sort_unstable_by(f64::total_cmp);
    let own = fleet.iter().zip(&trials);
    let own: Vec<f64> = own.map(|(device, trial)| fixed(device.clone(), trial.false_alarms) as f64).collect();
    Comparison {
        words: fleet.iter().map(Vec::len).sum(),
        false_alarms,
        one_for_all: fixed(fleet.concat(), false_alarms),
        hindsight: mean(&own),
        learned: mean(&told),
        median: told[told.len() / 2],
        settled: mean(&trials.iter().map(|trial| trial.settled).collect::<Vec<_>>()),
    }
}
