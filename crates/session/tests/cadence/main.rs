//! Learned cadence against fixed timeouts, at the same number of false alarms: over generated fleets and over recordings.
//! The figures stand in `docs/presence.md` (`LANDFALL_BLESS=1` writes them).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod cadences;
mod page;
mod trial;
