//! The tracker, by rule, against a naive model, and at size.

mod model;
mod rules;
mod scale;

use std::ops::Deref;
use std::sync::Arc;

use landfall_event::{DeviceId, Family, Reason, TenantId};

use crate::{Ended, KeyRef, Slot, Terms, Tick, Tracked, Tracker, Vitals};

/// A session as a caller keeps it.
#[derive(Debug)]
struct Known {
    tenant: TenantId,
    device: DeviceId,
    family: Family,
    /// What the test knows it by.
    number: u32,
    vitals: Vitals,
}

impl Tracked for Known {
    fn key(&self) -> KeyRef<'_> {
        KeyRef { tenant: &self.tenant, device: &self.device, family: self.family }
    }

    fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}

/// A new session of this device, in the default tenant, over UDP.
fn known(device: &str, number: u32) -> Known {
    let (tenant, device) = ("default".parse().unwrap(), device.parse().unwrap());
    Known { tenant, device, family: Family::Udp, number, vitals: Vitals::new(0) }
}

/// What a session is begun with, and what came of it.
struct Begun {
    slot: Slot,
    replaced: Option<Ended<Arc<Known>>>,
    known: Arc<Known>,
}

impl Deref for Begun {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

/// Tags are shared, as a hub shares them.
type Table = Tracker<Arc<Known>>;

fn begin(tracker: &mut Table, known: Known, terms: Terms, now: Tick) -> Begun {
    let known = Arc::new(known);
    let opened = tracker.open(Arc::clone(&known), terms, now);
    Begun { slot: opened.slot, replaced: opened.replaced, known }
}

/// Begins a session of this device.
fn open(tracker: &mut Table, device: &str, number: u32, terms: Terms, now: Tick) -> Begun {
    begin(tracker, known(device, number), terms, now)
}

/// The device's session, by its slot and number.
fn present(tracker: &Table, device: &str) -> Option<(Slot, u32)> {
    tracker.get(known(device, 0).key()).map(|(slot, tag)| (slot, tag.number))
}

fn idle(silence_ms: u64) -> Terms {
    Terms::after(silence_ms, Reason::IdleTimeout)
}

/// A tracker at 0 with ticks of 100 ms.
fn tracker() -> Table {
    Tracker::new(0, 100, std::hash::RandomState::new())
}

/// Who is ended at `now`, and why.
fn expired(tracker: &mut Table, now: u64) -> Vec<(u32, Reason)> {
    let mut out = Vec::new();
    tracker.expire(now, &mut out);
    out.into_iter().map(|ended| (ended.tag.number, ended.reason)).collect()
}
