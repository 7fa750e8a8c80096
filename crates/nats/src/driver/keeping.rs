//! While nothing can be stored: what waits goes to the disk, and comes back from there.
//!
//! Owns: when that begins and ends, and the order of it: what was sent, what goes ahead, what is on disk, what came since. Does
//! not own: how it is written ([`crate::keep`]).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_event::Stream;
use landfall_hub::Publication;
use tokio::time::Instant;

use super::{BATCH, Driver, Item, Newest};
use crate::keep::Keep;
use crate::publisher::{Shared, Standing};

/// How long nothing is stored before what waits goes to the disk: a server that restarts needs no disk.
const KEEP_AFTER: Duration = Duration::from_secs(1);

impl Driver {
    /// Nothing can be stored from now on.
    pub(super) fn goes_away(&mut self) {
        self.away_since.get_or_insert_with(Instant::now);
    }

    /// Something was stored.
    pub(super) fn is_back(&mut self) {
        self.away_since = None;
        if let Some(lasted) = self.shared.troubles.is_over(Instant::now()) {
            let (kept, ..) = self.keep.as_ref().map_or((0, 0, 0), Keep::fill);
            let waiting = kept + self.window.unsettled().count() as u64 + self.later.len() as u64;
            // A moment is none that anybody has noticed.
            if lasted >= KEEP_AFTER {
                tracing::info!(waiting, "storing again after {} s", lasted.as_secs());
                self.catching_up += waiting;
            }
        }
        if self.keeping {
            self.keeping = false;
            self.shared.keeping.store(false, Ordering::Relaxed);
        }
    }

    /// Says so once what waited through an outage is told.
    pub(super) fn has_caught_up(&mut self) {
        let is_behind =
            self.keeping || !self.is_keep_empty() || !self.ahead.is_empty() || !self.later.is_empty();
        if self.catching_up > 0 && !is_behind && self.away_since.is_none() {
            tracing::info!(events = self.catching_up, "what waited is told");
            self.catching_up = 0;
        }
    }

    /// Puts what waits on the disk, if nothing has been stored for long enough.
    pub(super) fn keep_what_waits(&mut self) {
        // What was surrendered stays where it is until it is written anew.
        if !self.may_keep() {
            return;
        }
        let is_away = self.away_since.is_some_and(|since| since.elapsed() >= KEEP_AFTER);
        if !self.keeping && is_away && self.keep.is_some() {
            tracing::warn!("NATS is away: what happens is kept on disk");
            self.begin_keeping();
        }
        if self.window.paused_until().is_some() && self.window.in_flight() == 0 && self.has_loose() {
            self.keep_again();
        }
        // Nothing goes to the disk while something older is only in memory: a process that is killed loses the newest.
        if self.keeping && !self.has_loose() {
            self.keep_queue();
        }
        self.count_in_flight();
    }

    /// Also one that is fenced out, since it needs NATS to go on: what is stored of the disk is found out then.
    pub(super) fn may_keep(&self) -> bool {
        matches!(self.standing(), Standing::Publishing | Standing::Fenced)
    }

    /// Puts what is in the window and ahead of the disk back where it was, if nothing was stored since the disk was begun with.
    pub(super) fn keep_again(&mut self) {
        if self.keeping && self.may_keep() && !(self.window.is_empty() && self.ahead.is_empty()) {
            self.begin_keeping();
        }
    }

    /// Whether what waits in the queue may go into the window beside the disk: not while the disk takes it, since the disk is asked
    /// first whenever something comes.
    pub(super) fn may_pass_disk(&self) -> bool {
        !self.keeping || self.keep.as_ref().is_none_or(Keep::is_full)
    }

    /// Something is in the window, and nowhere else.
    fn has_loose(&self) -> bool {
        self.window.unsettled().any(|(_, item)| item.record.is_none())
    }

    fn begin_keeping(&mut self) {
        let Some(mut keep) = self.keep.take() else { return };
        let (mut ahead, mut behind) = (VecDeque::new(), VecDeque::new());
        let mut reached_disk = keep.is_empty();
        // What was surrendered stands in one row, also what came from the disk and from behind it.
        let in_window = self.window.drain().map(|(item, sent)| Item { sent: sent || item.sent, ..item });
        for item in in_window.chain(std::mem::take(&mut self.ahead)) {
            self.unsure |= item.sent;
            match item.record {
                Some(number) => {
                    reached_disk = true;
                    keep.take_back(number, item.publication.receipt);
                }
                None if reached_disk => behind.push_back(item),
                // What goes ahead of a spool that is not empty stays ahead of it.
                None => ahead.push_back(item),
            }
        }
        keep.rewind();
        behind.append(&mut self.later);
        if keep.is_empty() {
            let mut newest = self.newest.unwrap_or(Newest { connectivity: 0, messages: 0 });
            for item in behind.iter().filter(|item| item.sent) {
                let place = newest.of(item.publication.stream);
                *place = (*place).min(item.behind);
            }
            keep.begin(newest.connectivity, newest.messages);
        }
        (self.ahead, self.later) = (ahead, behind);
        self.keep = Some(keep);
        self.keeping = true;
    }

    /// Moves what is behind the spool to the disk, as far as there is room; what finds none waits in memory, as its bounds allow.
    fn keep_queue(&mut self) {
        let Some(mut keep) = self.keep.take() else { return };
        while let Some(item) = self.later.pop_front() {
            if let Some(publication) = keep.put(item.publication, item.sent, &self.shared) {
                self.later.push_front(Item { publication, ..item });
                break;
            }
        }
        let mut found = Vec::with_capacity(BATCH);
        // What was submitted before it found no room.
        while self.later.is_empty() {
            self.shared.take(BATCH, &mut found);
            if found.is_empty() {
                break;
            }
            if let Some(left) = put_all(&mut keep, &mut found, &self.shared) {
                self.shared.put_back(left);
                break;
            }
        }
        // Before those are told who take it for stored: whoever asks then finds it counted.
        self.shared.counters.kept.store(keep.fill().0, Ordering::Relaxed);
        keep.flush();
        keep.tell_dropped(&self.shared);
        self.shared.keeping.store(!keep.is_full(), Ordering::Relaxed);
        self.keep = Some(keep);
    }

    /// The next publication from the disk.
    pub(super) fn next_kept(&mut self) -> Option<Item> {
        let keep = self.keep.as_mut()?;
        loop {
            let (number, publication) = keep.next(&self.shared)?;
            if publication.stream == Stream::Access {
                keep.settle(number);
                self.shared.put_beside(publication);
                continue;
            }
            let behind = keep.behind(publication.stream);
            return Some(Item { publication, behind, record: Some(number), sent: false });
        }
    }

    pub(super) fn is_keep_empty(&self) -> bool {
        self.keep.as_ref().is_none_or(Keep::is_empty)
    }

    /// At the end: what could not be stored stays on the disk for the next start. Returns how much that is.
    pub(super) fn leave_kept(&mut self) -> u64 {
        let nothing_waits = self.window.is_empty()
            && self.ahead.is_empty()
            && self.later.is_empty()
            && self.shared.is_queue_empty();
        if self.may_keep() && !nothing_waits {
            self.begin_keeping();
            self.keep_queue();
        }
        let Some(mut keep) = self.keep.take() else { return 0 };
        keep.flush();
        let (left, ..) = keep.fill();
        keep.remove();
        left
    }
}

/// Puts all of them on the disk; gives back those that found no room.
fn put_all(keep: &mut Keep, found: &mut Vec<Publication>, shared: &Shared) -> Option<Vec<Publication>> {
    let mut rest = found.drain(..);
    while let Some(publication) = rest.next() {
        if let Some(publication) = keep.put(publication, false, shared) {
            return Some(std::iter::once(publication).chain(rest).collect());
        }
    }
    None
}
