//! What became of the files that are read again while the gateway runs.
//!
//! Owns: which of them are broken, since when and how; counts of readings; reminding the operator. Does not own: reading them.
//!
//! A file that is broken changes nothing, so whatever its writer wanted (a device withdrawn, a certificate renewed) has not happened. That
//! has to be seen by more than one line of a log.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use landfall_hub::unix_now;
use parking_lot::Mutex;
use serde::Serialize;

/// How often the log repeats that a file is broken.
pub(crate) const REMIND: Duration = Duration::from_secs(60);
/// The most characters that are kept of what is wrong.
const MOST_WORDS: usize = 1_000;

/// A file of which the gateway uses what it held before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    /// The settings that name it: `auth.devices`, `tls`, `dtls`, or `settings` for the settings file itself.
    pub file: &'static str,
    /// What is wrong with it.
    pub error: String,
    /// Since when, Unix ms.
    pub since: u64,
}

/// What became of one of them so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readings {
    pub(crate) taken: u64,
    pub(crate) refused: u64,
    pub(crate) is_broken: bool,
}

#[derive(Debug, Default)]
struct Slot {
    readings: Readings,
    broken: Option<Broken>,
}

/// The files that are followed.
#[derive(Debug, Default)]
pub struct Reloads {
    slots: Mutex<BTreeMap<&'static str, Slot>>,
}

impl Reloads {
    /// This one will be read again.
    pub(crate) fn follow(&self, file: &'static str) {
        self.slots.lock().entry(file).or_default();
    }

    /// It was read and is in use.
    pub(crate) fn is_taken(&self, file: &'static str) {
        let mut slots = self.slots.lock();
        let slot = slots.entry(file).or_default();
        slot.readings.taken += 1;
        slot.readings.is_broken = false;
        if slot.broken.take().is_some() {
            tracing::info!(file, "a file that was broken is mended and in use");
        }
    }

    /// It was read and cannot be used: what it held before stays in use.
    pub(crate) fn is_broken(&self, file: &'static str, error: &dyn Display) {
        let error: String = error.to_string().chars().take(MOST_WORDS).collect();
        let mut slots = self.slots.lock();
        let slot = slots.entry(file).or_default();
        slot.readings.refused += 1;
        slot.readings.is_broken = true;
        let since = slot.broken.as_ref().map_or_else(unix_now, |before| before.since);
        slot.broken = Some(Broken { file, error, since });
    }

    /// Those that are broken now.
    pub(crate) fn broken(&self) -> Vec<Broken> {
        self.slots.lock().values().filter_map(|slot| slot.broken.clone()).collect()
    }

    pub(crate) fn readings(&self) -> Vec<(&'static str, Readings)> {
        self.slots.lock().iter().map(|(file, slot)| (*file, slot.readings)).collect()
    }

    /// Says of each that is broken that it still is.
    pub(crate) fn remind(&self) {
        let now = unix_now();
        for Broken { file, error, since } in self.broken() {
            let for_s = now.saturating_sub(since) / 1_000;
            tracing::warn!(file, for_s, why = %error, "a file is still broken, and what it held before is in use");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_broken_from_its_first_bad_reading_to_the_next_good_one() {
        let reloads = Reloads::default();
        reloads.follow("auth.devices");
        assert_eq!(reloads.readings(), [("auth.devices", Readings::default())]);
        reloads.is_broken("auth.devices", &"line 3");
        let since = reloads.broken()[0].since;
        reloads.is_broken("auth.devices", &"line 4");
        assert_eq!(reloads.broken(), [Broken { file: "auth.devices", error: "line 4".into(), since }]);
        assert_eq!(reloads.readings()[0].1, Readings { taken: 0, refused: 2, is_broken: true });
        reloads.is_taken("auth.devices");
        assert!(reloads.broken().is_empty());
        assert_eq!(reloads.readings()[0].1, Readings { taken: 1, refused: 2, is_broken: false });
    }
}
