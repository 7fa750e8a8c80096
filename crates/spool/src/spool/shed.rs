//! Making room: which records are dropped, and dropping them so that a session goes whole or not at all.
//!
//! Owns: the choice, the plan on disk, the segments that are written anew. Does not own: when room is needed.
//!
//! A plan is written to the file `dropping` before the first segment changes and removed after the last one has. Numbers are
//! never given twice, so a plan that is carried out a second time finds nothing.

use std::collections::HashSet;
use std::io;

use super::{Spool, is_loose};
use crate::directory::DROPPING;
use crate::error::is_no_room;
use crate::format::{self, Entry, Fields, Step};
use crate::{AppendError, Owner};

/// The part of the limit that is freed at once.
pub(super) const SHARE: u64 = 8;

/// What is dropped.
#[derive(Debug, Default)]
pub(super) struct Condemned {
    /// Owners of which everything in `after < number <= through` goes.
    victims: HashSet<Owner>,
    /// Nothing up to this number goes.
    after: u64,
    /// The last number of a victim.
    through: u64,
    /// Messages in `after < number <= cutoff` go, whoever's they are, but for pinned ones.
    cutoff: u64,
}

impl Condemned {
    /// Whether the record goes with its session.
    pub(super) fn is_victim(&self, entry: &Entry) -> bool {
        entry.number > self.after
            && entry.number <= self.through
            && entry.class.owner.is_some_and(|owner| self.victims.contains(&owner))
    }

    /// Whether the record goes.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        let message = is_loose(&entry.class) && entry.number > self.after && entry.number <= self.cutoff;
        message || self.is_victim(entry)
    }

    /// Its sessions.
    pub(super) fn victims(&self) -> &HashSet<Owner> {
        &self.victims
    }

    /// No higher number goes.
    pub(super) fn end(&self) -> u64 {
        self.through.max(self.cutoff)
    }

    fn encode(&self) -> Vec<u8> {
        let numbers = [self.after, self.through, self.cutoff].into_iter().flat_map(u64::to_le_bytes);
        numbers.chain(self.victims.iter().copied().flatten()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, owners) = bytes.split_first_chunk::<24>()?;
        let mut numbers = Fields(numbers);
        let (owners, rest) = owners.as_chunks::<16>();
        rest.is_empty().then(|| Self {
            victims: owners.iter().copied().collect(),
            after: numbers.u64(),
            through: numbers.u64(),
            cutoff: numbers.u64(),
        })
    }
}

impl Spool {
    /// Frees `must` bytes, and more if that is little. On an error other than a lack of room, and where too little may be
    /// dropped, nothing is.
    pub(super) fn relieve(&mut self, must: u64) -> Result<(), AppendError> {
        let full = match self.shed(must, 0) {
            Err(AppendError::Io(error)) if is_no_room(&error) => error,
            outcome => return outcome,
        };
        // A plan and a segment written anew take room themselves, which is reserved; it is taken back from what comes free.
        let reserve = self.settings.segment_bytes;
        if self.directory.release() {
            let before = self.total;
            let outcome = self.shed(must, reserve);
            if before.saturating_sub(self.total) >= 2 * reserve {
                let _ = self.directory.reserve(reserve);
            }
            if !matches!(&outcome, Err(AppendError::Io(error)) if is_no_room(error)) {
                return outcome;
            }
        }
        // Without: a whole segment can be removed all the same.
        if self.shed_segments(must) >= must {
            let _ = self.complete_dropping();
            Ok(())
        } else {
            Err(AppendError::Io(full))
        }
    }

    /// Frees `must` bytes, or a share of everything and `spare` bytes if there is so much that may be dropped.
    fn shed(&mut self, must: u64, spare: u64) -> Result<(), AppendError> {
        let before = self.total;
        self.complete_dropping()?;
        if before.saturating_sub(self.total) >= must + spare {
            return Ok(());
        }
        if self.droppable.is_some_and(|droppable| droppable < must) {
            return Err(AppendError::Full);
        }
        let want = must.max(self.settings.limit_bytes.min(self.total) / SHARE) + spare;
        let (condemned, bytes) = self.plan(must, want)?;
        if bytes < must {
            self.droppable = Some(bytes);
            return Err(AppendError::Full);
        }
        // The highest numbers may be among those that go, and would be given again if nothing told of them.
        self.hint()?;
        self.directory.put(DROPPING, &condemned.encode())?;
        self.tally.sessions(&condemned.victims);
        for victim in &condemned.victims {
            self.owners.forget(victim);
        }
        self.condemned = Some(condemned);
        Ok(self.complete_dropping()?)
    }

    /// What is dropped to free `want` bytes, and how many bytes that frees. Messages of other sessions only if complete
    /// sessions do not free `must`.
    fn plan(&mut self, must: u64, want: u64) -> io::Result<(Condemned, u64)> {
        let handed = self.handed;
        let (mut condemned, mut bytes) = (Condemned { after: handed, ..Condemned::default() }, 0);
        for session in self.owners.complete(handed) {
            if bytes >= want {
                break;
            }
            if condemned.victims.is_empty() {
                condemned.after = session.first - 1;
            }
            condemned.victims.insert(session.owner);
            condemned.through = condemned.through.max(session.last);
            bytes += session.bytes;
        }
        if bytes >= must {
            return Ok((condemned, bytes));
        }
        for index in 0..self.segments.len() {
            if self.segments.get(index).is_none_or(|segment| segment.loose == 0 || segment.last <= handed) {
                continue;
            }
            let image = self.image(index)?;
            let mut walk = self.walk(index, &image);
            loop {
                match walk.step() {
                    Step::Record(entry) if entry.number <= handed || condemned.is_victim(&entry) => {}
                    Step::Record(entry) if is_loose(&entry.class) => {
                        bytes += entry.length as u64;
                        if condemned.end() == 0 || entry.number <= condemned.after {
                            condemned.after = entry.number - 1;
                        }
                        condemned.cutoff = entry.number;
                        if bytes >= want {
                            return Ok((condemned, bytes));
                        }
                    }
                    Step::Record(_) | Step::Damage { .. } => {}
                    Step::More | Step::End => break,
                }
            }
        }
        Ok((condemned, bytes))
    }

    /// Carries out what is planned. On an error the plan stays, and the reader passes over what it holds.
    pub(super) fn complete_dropping(&mut self) -> io::Result<()> {
        let Some(condemned) = self.condemned.take() else { return Ok(()) };
        let outcome = self.sweep(&condemned);
        if outcome.is_ok() {
            // A plan that stays is carried out once more at the next opening, and finds nothing.
            let _ = self.directory.delete(DROPPING);
        } else {
            self.condemned = Some(condemned);
        }
        outcome
    }

    fn sweep(&mut self, condemned: &Condemned) -> io::Result<()> {
        let (mut index, mut outcome) = (0, Ok(()));
        while let Some(segment) = self.segments.get(index) {
            let count = self.segments.len();
            if segment.live > 0 && segment.last > condemned.after && segment.first <= condemned.end() {
                // The first error does not stop it: another segment may go as a whole, and leave room.
                let swept = self.sweep_segment(index, condemned);
                outcome = outcome.and(swept);
            }
            if self.segments.len() == count {
                index += 1;
            }
        }
        outcome
    }

    /// Writes a segment anew without what is condemned, or removes it if nothing is left. What was read stays where it is, so
    /// that the cursor and the places of what was handed out hold.
    fn sweep_segment(&mut self, index: usize, condemned: &Condemned) -> io::Result<()> {
        let image = self.image(index)?;
        let Some(segment) = self.segments.get(index) else { return Ok(()) };
        let last = index + 1 == self.segments.len();
        // What was pending stays pending, so that the new file is not longer than the old one.
        let filed = image.len() - if last { self.pending.len().min(image.len()) } else { 0 };
        let (mut kept, mut pending) = (format::segment_head(segment.first), Vec::new());
        let mut gone = Vec::new();
        let mut walk = self.walk(index, &image);
        loop {
            let from = walk.at();
            match walk.step() {
                Step::Record(entry) if entry.number > self.read && condemned.holds(&entry) => {
                    gone.push(entry);
                }
                // Damage is kept too: the reader counts it, and it may lie before the cursor.
                Step::Record(_) | Step::Damage { .. } => {
                    let cut = filed.clamp(from, walk.at());
                    kept.extend_from_slice(image.get(from..cut).unwrap_or_default());
                    pending.extend_from_slice(image.get(cut..walk.at()).unwrap_or_default());
                }
                Step::More | Step::End => break,
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        if !last && segment.live == gone.len() as u64 {
            self.discard(index)?;
            for entry in &gone {
                self.tell(entry, condemned.is_victim(entry));
            }
            return Ok(());
        }
        let file = self.directory.replace(&self.directory.segment(segment.first), &kept)?;
        self.reader.take_if(|(open, _)| *open == segment.first);
        if let Some(segment) = self.segments.get_mut(index) {
            let bytes = (kept.len() + pending.len()) as u64;
            self.total -= segment.bytes.saturating_sub(bytes);
            segment.bytes = bytes;
        }
        if last {
            self.writer = file;
            self.pending = pending;
        }
        for entry in &gone {
            self.drop_record(index, entry, condemned.is_victim(entry));
        }
        Ok(())
    }

    /// A record is gone from a segment that stays. `whole`: with its session.
    pub(super) fn drop_record(&mut self, index: usize, entry: &Entry, whole: bool) {
        self.records = self.records.saturating_sub(1);
        if let Some(segment) = self.segments.get_mut(index) {
            segment.release(entry.length as u64, is_loose(&entry.class));
        }
        self.tell(entry, whole);
    }

    /// A record is gone. The sessions of which everything goes are counted, and their owners forgotten, beforehand.
    fn tell(&mut self, entry: &Entry, whole: bool) {
        if whole {
            self.tally.told.session_records += 1;
        } else {
            self.owners.remove(entry.class.owner, entry.length as u64);
            self.tally.message(entry.class.owner, entry.class.tag);
        }
    }

    /// Removes segments that hold nothing but what may be dropped, until `must` bytes are free: how many were freed. That
    /// takes no room, and one removal is whole or not at all, so it needs no plan.
    fn shed_segments(&mut self, must: u64) -> u64 {
        let (mut index, mut freed) = (0, 0);
        while freed < must && index + 1 < self.segments.len() {
            match self.shed_segment(index) {
                Some(bytes) => freed += bytes,
                None => index += 1,
            }
        }
        freed
    }

    fn shed_segment(&mut self, index: usize) -> Option<u64> {
        let segment = self.segments.get(index)?;
        let (bytes, first) = (segment.bytes, segment.first);
        if first <= self.handed {
            return None;
        }
        let image = self.image(index).ok()?;
        let (mut sessions, mut gone) = (HashSet::new(), Vec::new());
        let mut walk = self.walk(index, &image);
        loop {
            match walk.step() {
                Step::Record(entry) => {
                    let planned = self.condemned.as_ref().map(|condemned| condemned.is_victim(&entry));
                    let inside = |owner: &Owner| {
                        let span = self.owners.span(owner, self.handed);
                        span.is_some_and(|(from, to)| from >= first && to < self.ceiling(index))
                    };
                    let own = entry.class.owner.filter(inside);
                    let planned = planned == Some(true);
                    sessions.extend(own.filter(|_| !planned));
                    if !planned && own.is_none() && !is_loose(&entry.class) {
                        return None;
                    }
                    gone.push((entry, planned || own.is_some()));
                }
                Step::Damage { .. } => return None,
                Step::More | Step::End => break,
            }
        }
        self.discard(index).ok()?;
        self.tally.sessions(&sessions);
        for owner in &sessions {
            self.owners.forget(owner);
        }
        for (entry, whole) in &gone {
            self.tell(entry, *whole);
        }
        Some(bytes)
    }
}
