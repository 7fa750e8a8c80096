//! How often a device speaks, learned from when it spoke, and how improbable its silence is.
//!
//! Owns: the mean and the spread of a device's intervals, the probability of a silence, the silence at a level.
//! Does not own: whether that ends a session ([`crate::Tracker`]), or who may be judged by it (the caller).
//!
//! # The maths
//!
//! An interval is remembered by its length: it moves mean and spread by its share of the time in memory, which is the last
//! [`MEMORY`] mean intervals. A burst of a hundred words within a second is then worth a second, and the pause behind it
//! what it lasted; counted by words, the burst would have wiped out the memory of the pause and the next one would look
//! like the device's end. The mean is so the interval that a random moment falls into (for a steady device: the interval).
//!
//! Silence has the tail of an exponential distribution that begins a spread before the mean: `p(t) = e^-((t - (mean -
//! spread)) / spread)`, so `phi(t) = -log10 p(t)` is a straight line, and no logarithm is taken for a word. A normal
//! distribution would have a tail that no network has. The spread is taken from intervals above the mean only: shorter
//! ones do not say how long a silence may last.

/// Mean intervals in memory. Fewer follow the evening sooner, more keep the level better; `tests/cadence` was run with 12,
/// 16, 24 and 32.
const MEMORY: f32 = 16.0;

/// Mean intervals that must have been seen before anything is said of a device.
const ENOUGH: f32 = 8.0;

/// From the mean excess over the mean to the spread. With it the level is met for a device that speaks at random moments
/// (Poisson), whose mean by length is twice, and its excess 4 / e² times, the mean by words.
const SPREAD_BY_EXCESS: f32 = 1.75;

/// The least spread, as a share of the mean. A device that has never lost a word will: at level 8 this allows for two in
/// a row, and for jitter besides.
const LEAST_SPREAD: f32 = 1.0 / 8.0;

/// A device's cadence, in 12 bytes. Nothing a device does makes it larger or any of it less than a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cadence {
    mean_ms: f32,
    excess_ms: f32,
    /// The time that all intervals took.
    span_ms: f32,
}

impl Cadence {
    /// `interval_ms` have passed between two words of the device. A 0 says nothing. Leave out an interval that the device
    /// announced as sleep, or in which the gateway itself could not hear.
    pub fn heard(&mut self, interval_ms: u64) {
        let interval = interval_ms as f32;
        if interval_ms == 0 {
            return;
        }
        let memory = self.span_ms.min(self.mean_ms * MEMORY);
        let share = interval / (memory + interval);
        self.mean_ms += share * (interval - self.mean_ms);
        // Over the new mean: the first pause behind a burst is the cadence, and not an exception to it.
        self.excess_ms += share * ((interval - self.mean_ms).max(0.0) - self.excess_ms);
        self.span_ms += interval;
    }

    /// The device's interval, in ms; `None` until enough has been heard.
    pub fn interval_ms(&self) -> Option<u64> {
        self.learned().map(|tail| tail.mean.round() as u64)
    }

    /// `-log10` of the probability that the device is silent for so long and speaks again: 3 is one in a thousand. From 0
    /// on; `None` until enough has been heard.
    pub fn phi(&self, silent_ms: u64) -> Option<f64> {
        let tail = self.learned()?;
        Some(((silent_ms as f64 - tail.begins) / (tail.spread * std::f64::consts::LN_10)).max(0.0))
    }

    /// The silence in ms at which [`Cadence::phi`] reaches `level`; `None` until enough has been heard. A level below 0 is
    /// read as 0.
    pub fn silence_ms(&self, level: f64) -> Option<u64> {
        let tail = self.learned()?;
        // A float that is too large becomes the largest integer, and NaN becomes 0.
        Some((tail.begins + level.max(0.0) * std::f64::consts::LN_10 * tail.spread).ceil() as u64)
    }

    fn learned(&self) -> Option<Tail> {
        let is_learned = self.span_ms > 0.0 && self.span_ms >= self.mean_ms * ENOUGH;
        is_learned.then(|| {
            let spread = (self.excess_ms * SPREAD_BY_EXCESS).max(self.mean_ms * LEAST_SPREAD);
            let begins = (self.mean_ms - spread).max(0.0);
            Tail { mean: self.mean_ms.into(), begins: begins.into(), spread: spread.into() }
        })
    }
}

/// The distribution of a device's silences, in ms.
struct Tail {
    mean: f64,
    begins: f64,
    spread: f64,
}

/// How an operator lets learned cadences be judged. It stands once, not with each device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// The [`phi`](Cadence::phi) at which silence ends a session.
    pub level: f64,
    /// No silence shorter than this ends a session, in ms.
    pub least_ms: u64,
    /// Any silence as long as this does, in ms.
    pub most_ms: u64,
    /// The cadence decides nothing before a device has been heard for this long, in ms: its first pause is not among its
    /// first words. The fixed timeout, twice, has seen each pause that it lets pass.
    pub settle_ms: u64,
}

impl Patience {
    /// The silence in ms that ends the session of a device of this cadence. `None`: not known yet, the fixed timeout holds.
    pub fn silence_ms(&self, cadence: &Cadence) -> Option<u64> {
        let learned = cadence.silence_ms(self.level).filter(|_| cadence.span_ms >= self.settle_ms as f32)?;
        Some(learned.min(self.most_ms).max(self.least_ms))
    }

    /// The same, if it is so far from the silence in force that changing it is worth the while (an eighth): a device that
    /// keeps its cadence costs no timer.
    pub fn revised(&self, cadence: &Cadence, in_force_ms: u64) -> Option<u64> {
        self.silence_ms(cadence).filter(|learned| learned.abs_diff(in_force_ms) > in_force_ms / 8)
    }
}

#[cfg(test)]
mod tests;
