//! What was dropped to stay below the limit, kept until somebody asks.
//!
//! Owns: the counts and the ranges. Does not own: the choice of what is dropped.

use std::collections::{HashMap, HashSet};

use crate::Owner;

/// How many ranges are kept until [`Spool::take_dropped`](crate::Spool::take_dropped); the messages of further ones
/// are only counted.
pub const RANGES: usize = 65_536;

/// What was dropped since it was last asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Whole sessions, from begin to end.
    pub sessions: u64,
    /// Records that went with them.
    pub session_records: u64,
    /// Messages of other sessions, or of none.
    pub messages: u64,
    /// Which messages these were, as far as they fit ([`RANGES`]). None of a session that was dropped whole
    /// afterwards.
    pub ranges: Vec<DroppedRange>,
    /// Messages that are in no range, since there were too many ranges.
    pub unlisted: u64,
    /// Bytes in which no intact record was found when they were read: the disk, or another program, changed them. What
    /// opening found is in [`Recovery`](crate::Recovery) instead.
    pub damaged_bytes: u64,
}

/// Messages of one owner that were dropped, of neighbouring tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedRange {
    /// Whose they were.
    pub owner: Option<Owner>,
    /// The first one's tag.
    pub from_tag: u64,
    /// The last one's tag. Every tag from the first to this one was dropped.
    pub to_tag: u64,
}

impl Dropped {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Collects [`Dropped`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) told: Dropped,
    /// Each owner's last range, which the next message may continue.
    last: HashMap<Option<Owner>, usize>,
}

impl Tally {
    pub(crate) fn take(&mut self) -> Dropped {
        self.last = HashMap::new();
        std::mem::take(&mut self.told)
    }

    pub(crate) fn message(&mut self, owner: Option<Owner>, tag: u64) {
        self.told.messages += 1;
        let ranges = &mut self.told.ranges;
        let count = ranges.len();
        let last = self.last.get(&owner).and_then(|place| ranges.get_mut(*place));
        if let Some(last) = last.filter(|last| last.to_tag.checked_add(1) == Some(tag)) {
            last.to_tag = tag;
        } else if count < RANGES {
            self.last.insert(owner, count);
            ranges.push(DroppedRange { owner, from_tag: tag, to_tag: tag });
        } else {
            self.told.unlisted += 1;
        }
    }

    /// These sessions were dropped whole: which of their messages went before no longer matters.
    pub(crate) fn sessions(&mut self, victims: &HashSet<Owner>) {
        self.told.sessions += victims.len() as u64;
        if victims.is_empty() || self.told.ranges.is_empty() {
            return;
        }
        self.told.ranges.retain(|range| range.owner.is_none_or(|owner| !victims.contains(&owner)));
        self.last = self.told.ranges.iter().enumerate().map(|(place, range)| (range.owner, place)).collect();
    }
}
