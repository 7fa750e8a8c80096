//! The tracker, by rule, against a naive model, and at size.

mod model;
mod rules;
mod scale;

use landfall_event::{Family, Reason};

use crate::{Key, Terms, Tracker};

/// A device's key in the default tenant.
fn key(device: &str) -> Key {
    Key { tenant: "default".parse().unwrap(), device: device.parse().unwrap(), family: Family::Udp }
}

fn idle(silence_ms: u64) -> Terms {
    Terms::after(silence_ms, Reason::IdleTimeout)
}

/// A tracker at 0 with ticks of 100 ms; the tag is a number that the test chooses.
fn tracker() -> Tracker<u32> {
    Tracker::new(0, 100, std::hash::RandomState::new())
}

/// Who is ended at `now`, and why.
fn expired(tracker: &mut Tracker<u32>, now: u64) -> Vec<(u32, Reason)> {
    let mut out = Vec::new();
    tracker.expire(now, &mut out);
    out.into_iter().map(|ended| (ended.tag, ended.reason)).collect()
}
