//! The log's word on clients that break the protocol.
//!
//! Owns: which packet and which rule, one line for each, and how many lines there may be. Does not own: the events.

use std::net::SocketAddr;
use std::time::Duration;

use landfall_hub::SessionHandle;
use landfall_mqtt_core::Fault;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Lines in one [`WINDOW`], of devices and of strangers each.
const MOST: u32 = 20;
/// How often there may be so many.
const WINDOW: Duration = Duration::from_secs(10);

/// Bounds the lines: neither a stranger nor a broken device fills the log, and strangers do not hide a device.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    devices: Mutex<Pace>,
    strangers: Mutex<Pace>,
}

impl Faults {
    /// A device that had been let in.
    pub(crate) fn tell(&self, handle: &SessionHandle, fault: &Fault) {
        let Some(untold) = self.devices.lock().next(Instant::now()) else { return };
        tracing::info!(
            tenant = ?handle.tenant().as_str(),
            device = ?handle.device().as_str(),
            session = %handle.id(),
            remote = %handle.remote_address(),
            packet = fault.packet,
            rule = fault.detail,
            untold,
            "a device broke the protocol and was disconnected"
        );
    }

    /// Somebody who had not been let in yet.
    pub(crate) fn tell_stranger(&self, remote: SocketAddr, fault: &Fault) {
        let Some(untold) = self.strangers.lock().next(Instant::now()) else { return };
        tracing::info!(%remote, packet = fault.packet, rule = fault.detail, untold, "a client was refused: it broke the protocol");
    }
}

/// How many lines there were in the window that runs.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Pace {
    /// May one more be told? Then how many before it were not.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), told: 0, untold: self.untold };
        }
        if self.told >= MOST {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_faults_is_few_lines_and_what_was_left_out_is_counted() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let told = (0..1_000).filter(|_| pace.next(start).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(pace.next(start + WINDOW / 2), None);
        assert_eq!(pace.next(start + WINDOW), Some(981));
        assert_eq!(pace.next(start + WINDOW), Some(0));
    }
}
