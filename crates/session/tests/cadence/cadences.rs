//! Where the intervals come from: seeded generators, and files that `record.py` wrote.

use std::f64::consts::TAU;
use std::path::PathBuf;

const SECOND: f64 = 1_000.0;
const DAY: f64 = 86_400.0 * SECOND;
/// How long each generated device is heard.
pub(crate) const HEARD: f64 = 7.0 * DAY;
/// Devices in a generated fleet.
pub(crate) const FLEET: usize = 50;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    /// Exponentially distributed, with this mean.
    fn waiting(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }

    /// As many devices report every 10 to 20 s as every 5 to 10 min.
    fn base(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.share())
    }
}

/// A fleet of one kind.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) how: &'static str,
    /// The next interval of a device.
    next: fn(&mut Random, &mut Device) -> f64,
    /// The bases in s.
    pub(crate) bases: (f64, f64),
}

struct Device {
    base: f64,
    at: f64,
    /// Words left of a burst.
    burst: u64,
}

impl Device {
    /// 0 at noon, 1 at midnight, gliding.
    fn night(&self) -> f64 {
        0.5 - 0.5 * (TAU * self.at / DAY).cos()
    }
}

fn steady(random: &mut Random, device: &mut Device) -> f64 {
    device.base + random.waiting(20.0)
}

fn lossy(random: &mut Random, device: &mut Device, loss: f64) -> f64 {
    let mut interval = steady(random, device);
    while random.share() < loss {
        interval += steady(random, device);
    }
    interval
}

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "steady",
        how: "the interval and what a network adds, 20 ms on average",
        next: steady,
        bases: (10.0, 900.0),
    },
    Kind {
        name: "steady, 1 % lost",
        how: "the same, each word lost with this probability",
        next: |random, device| lossy(random, device, 0.01),
        bases: (10.0, 900.0),
    },
    Kind {
        name: "steady, 10 % lost",
        how: "the same",
        next: |random, device| lossy(random, device, 0.1),
        bases: (10.0, 900.0),
    },
    Kind {
        name: "jittered",
        how: "the interval times 0.7 to 1.3",
        next: |random, device| device.base * random.between(0.7, 1.3),
        bases: (10.0, 900.0),
    },
    Kind {
        name: "at random",
        how: "a Poisson process",
        next: |random, device| random.waiting(device.base),
        bases: (10.0, 900.0),
    },
    Kind {
        name: "bursty",
        how: "5 to 40 words 0.2 to 2 s apart, then a pause of the interval times 0.8 to 1.2",
        next: |random, device| {
            if device.burst == 0 {
                device.burst = 5 + random.next() % 36;
                return device.base * random.between(0.8, 1.2);
            }
            device.burst -= 1;
            random.between(0.2, 2.0) * SECOND
        },
        bases: (30.0, 900.0),
    },
    Kind {
        name: "day and night, gliding",
        how: "the interval at noon, ten times as much at midnight, times 0.9 to 1.1",
        next: |random, device| device.base * 10_f64.powf(device.night()) * random.between(0.9, 1.1),
        bases: (10.0, 90.0),
    },
    Kind {
        name: "day and night, ×2 at once",
        how: "the interval for twelve hours, twice as much for twelve hours, times 0.9 to 1.1",
        next: |random, device| {
            let factor = if device.night() < 0.5 { 1.0 } else { 2.0 };
            device.base * factor * random.between(0.9, 1.1)
        },
        bases: (10.0, 450.0),
    },
    Kind {
        name: "day and night, ×10 at once",
        how: "the same, ten times as much",
        next: |random, device| {
            let factor = if device.night() < 0.5 { 1.0 } else { 10.0 };
            device.base * factor * random.between(0.9, 1.1)
        },
        bases: (10.0, 90.0),
    },
];

impl Kind {
    /// The intervals in ms of each device.
    pub(crate) fn fleet(&self) -> Vec<Vec<u64>> {
        let mut random = Random(self.name.len() as u64);
        (0..FLEET).map(|_| self.device(&mut random)).collect()
    }

    fn device(&self, random: &mut Random) -> Vec<u64> {
        let (low, high) = self.bases;
        let base = random.base(low * SECOND, high * SECOND);
        // Each has its own noon.
        let begins = random.between(0.0, DAY);
        let mut device = Device { base, at: begins, burst: 0 };
        let mut intervals = Vec::new();
        while device.at < begins + HEARD {
            let interval = (self.next)(random, &mut device);
            device.at += interval;
            intervals.push(interval as u64);
        }
        intervals
    }
}

/// What `record.py` wrote, and what it is.
pub(crate) const RECORDINGS: &[(&str, &str)] = &[
    ("timer", "every 2 s by the clock"),
    ("work", "a second of rest after work of uneven length"),
    ("loop", "a shell loop, a new process for each word, a second between them"),
    ("files", "a build: a word when a file was written"),
];

pub(crate) fn recording(name: &str) -> Vec<u64> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.txt"));
    std::fs::read_to_string(path).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}
