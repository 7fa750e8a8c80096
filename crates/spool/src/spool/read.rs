//! Handing out, settling, and going back.
//!
//! Owns: the cursor, and what is known of the records between the oldest that is not settled and the cursor.
//! Does not own: what is dropped; the reader only passes over it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::{Spool, WORN, is_loose};
use crate::format::{self, Entry, SEGMENT_HEAD, Step, Walk};
use crate::{Owner, Record, SpoolError};

/// Bytes that are read at once; less where segments are small.
const PIECE: u64 = 64 << 10;

/// A place between two records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// The segment's name. Any segment that is gone stands for the one behind it.
    pub(super) segment: u64,
    /// The offset in its file.
    pub(super) offset: u64,
    /// No lower number follows.
    pub(super) number: u64,
}

impl Position {
    pub(super) fn start_of(segment: u64) -> Self {
        Self { segment, offset: SEGMENT_HEAD, number: segment }
    }
}

/// What is kept of a record that was handed out and is not settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    offset: u64,
    length: u64,
    owner: Option<Owner>,
    loose: bool,
}

impl Spool {
    /// The next record, or `None` when every record was handed out. It sees what was appended, flushed or not.
    ///
    /// # Errors
    ///
    /// The file system's refusal to read. The reader stays where it was.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is fallible, and not the end of anything when it says none"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, SpoolError> {
        loop {
            while let Some(record) = self.batch.pop_front() {
                // Settled before it came round again, after a rewind.
                if self.out.contains_key(&record.number) {
                    return Ok(Some(record));
                }
            }
            if !self.load()? {
                return Ok(None);
            }
        }
    }

    /// The record is done with, and will not be handed out again. In any order; a number that was not handed out, or was
    /// settled before, says nothing. Returns whether it said something.
    ///
    /// A segment without a record that is not settled is removed. An error with that is none of the caller's: the segment's
    /// records are settled, and if its file is still there at the next opening, it is removed then.
    pub fn settle(&mut self, number: u64) -> bool {
        let Some(handed) = self.out.remove(&number) else { return false };
        self.owners.remove(handed.owner, handed.length);
        self.records = self.records.saturating_sub(1);
        if let Some(index) = self.place(number)
            && let Some(segment) = self.segments.get_mut(index)
        {
            segment.release(handed.length, handed.loose);
            self.tidy(index);
        }
        true
    }

    /// Back to the oldest record that is not settled: [`Spool::next`] hands out again what was handed out and not settled,
    /// in the order of the numbers.
    pub fn rewind(&mut self) {
        if let Some((&number, handed)) = self.out.first_key_value() {
            let segment = self.place(number).and_then(|index| self.segments.get(index));
            self.cursor = Position {
                segment: segment.map_or(number, |segment| segment.first),
                offset: handed.offset,
                number,
            };
            self.batch.clear();
        }
    }

    /// Shows every record that is not settled, handed out or not, in the order of the numbers. The cursor stays. This reads
    /// every segment.
    ///
    /// # Errors
    ///
    /// The file system's refusal to read; some records may have been shown by then.
    pub fn for_each(&mut self, mut show: impl FnMut(&Record)) -> Result<(), SpoolError> {
        for index in 0..self.segments.len() {
            let Some(segment) = self.segments.get(index) else { break };
            let (first, ceiling) = (segment.first, self.ceiling(index));
            if segment.live == 0 {
                continue;
            }
            let bytes = self.image(index).map_err(SpoolError::io("read", self.directory.segment(first)))?;
            let mut walk = Walk::new(&bytes, first, first, ceiling, true);
            loop {
                match walk.step() {
                    Step::Record(entry) if self.is_live(&entry) => show(&entry.record(&bytes)),
                    Step::Record(_) | Step::Damage { .. } => {}
                    Step::More | Step::End => break,
                }
            }
        }
        Ok(())
    }

    /// Whether a record in a segment is neither settled nor as good as dropped.
    fn is_live(&self, entry: &Entry) -> bool {
        if entry.number <= self.read {
            return self.out.contains_key(&entry.number);
        }
        self.condemned.as_ref().is_none_or(|condemned| !condemned.holds(entry))
    }

    /// Reads on, until there is something in the batch. `false`: there is nothing more.
    fn load(&mut self) -> Result<bool, SpoolError> {
        // What is being dropped should not be read; while it cannot be dropped it is passed over.
        let _ = self.complete_dropping();
        while let Some(index) = self.arrive() {
            let Some(segment) = self.segments.get(index) else { break };
            let (first, ceiling) = (segment.first, self.ceiling(index));
            let whole = segment.bytes.saturating_sub(self.cursor.offset);
            let mut want = PIECE.min(self.settings.segment_bytes / 8).min(whole);
            loop {
                let bytes = self.read_range(index, self.cursor.offset, want);
                let bytes = bytes.map_err(SpoolError::io("read", self.directory.segment(first)))?;
                let mut walk = Walk::new(&bytes, first, self.cursor.number, ceiling, want == whole);
                self.take(index, &bytes, &mut walk);
                self.cursor.number = walk.floor();
                self.cursor.offset += walk.at() as u64;
                if walk.at() > 0 || want == whole {
                    break;
                }
                want = whole;
            }
            if self.read > self.handed {
                self.handed = self.read;
                let _ = self.hint();
            }
            if !self.batch.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the cursor over the ends of segments. The place of the segment in which something follows, if any does.
    fn arrive(&mut self) -> Option<usize> {
        loop {
            let index = self.segments.partition_point(|segment| segment.first < self.cursor.segment);
            let segment = self.segments.get(index)?;
            if segment.first != self.cursor.segment {
                self.cursor = Position::start_of(segment.first);
            }
            if self.cursor.offset < segment.bytes {
                return Some(index);
            }
            let following = self.segments.get(index + 1).map(|following| following.first);
            if segment.damaged {
                self.recount(index);
            }
            self.cursor = Position::start_of(following?);
        }
    }

    /// Takes the walk's records into the batch.
    fn take(&mut self, index: usize, bytes: &Bytes, walk: &mut Walk<'_>) {
        loop {
            match walk.step() {
                Step::Record(entry) => self.take_record(index, bytes, &entry),
                Step::Damage { bytes, .. } => {
                    // Not again after a rewind.
                    if walk.floor() > self.read {
                        self.tally.told.damaged_bytes += bytes;
                    }
                    if let Some(segment) = self.segments.get_mut(index) {
                        segment.damaged = true;
                    }
                }
                Step::More | Step::End => return,
            }
        }
    }

    fn take_record(&mut self, index: usize, bytes: &Bytes, entry: &Entry) {
        let live = self.is_live(entry);
        if entry.number > self.read {
            self.read = entry.number;
            if !live {
                let whole = self.condemned.as_ref().is_some_and(|condemned| condemned.is_victim(entry));
                self.drop_record(index, entry, whole);
                return;
            }
            let handed = Handed {
                offset: self.cursor.offset + entry.at as u64,
                length: entry.length as u64,
                owner: entry.class.owner,
                loose: is_loose(&entry.class),
            };
            self.out.insert(entry.number, handed);
        }
        if live {
            self.batch.push_back(entry.record(bytes));
        }
    }

    /// Counts the records of a damaged segment that the reader has passed: what it did not find does not come any more.
    fn recount(&mut self, index: usize) {
        let ceiling = self.ceiling(index);
        let Some(segment) = self.segments.get_mut(index) else { return };
        let live = self.out.range(segment.first..ceiling).count() as u64;
        self.records = self.records.saturating_sub(segment.live.saturating_sub(live));
        segment.live = live;
        segment.damaged = false;
        self.tidy(index);
    }

    /// Removes a segment of which nothing is needed any more. One that cannot be removed now is tried again when the spool is
    /// opened.
    pub(super) fn tidy(&mut self, index: usize) {
        if self.segments.get(index).is_none_or(|segment| segment.live > 0) {
            return;
        }
        if index + 1 < self.segments.len() {
            let _ = self.hint();
            let _ = self.discard(index);
        } else if self.records == 0 {
            let _ = self.hint();
            if self.total >= WORN.min(self.settings.segment_bytes / 4) {
                let worn = self.pending.len();
                // Its records are settled, whether they reached the file or not.
                if self.roll().is_ok() {
                    self.pending.drain(..worn);
                    let _ = self.discard(self.segments.len().saturating_sub(2));
                    let _ = self.directory.reserve(self.settings.segment_bytes);
                }
            }
        }
    }

    /// Reads `length` bytes of a segment from `offset` on, from the file and from what is not yet in it. What a file has lost
    /// reads as zeros, which are no record.
    fn read_range(&mut self, index: usize, offset: u64, length: u64) -> io::Result<Bytes> {
        let Some(segment) = self.segments.get(index) else { return Ok(Bytes::new()) };
        let (first, last) = (segment.first, index + 1 == self.segments.len());
        let pending = if last { self.pending.len() as u64 } else { 0 };
        let filed = segment.bytes.saturating_sub(pending);
        let from_file = filed.saturating_sub(offset).min(length);
        let mut bytes = vec![0; from_file as usize];
        if from_file > 0 {
            self.fill(first, &mut bytes, offset)?;
        }
        if from_file < length {
            let from = (offset + from_file).saturating_sub(filed) as usize;
            let pending = self.pending.get(from..).unwrap_or_default();
            bytes.extend(pending.iter().take((length - from_file) as usize));
        }
        Ok(bytes.into())
    }

    /// Fills `bytes` from a segment's file.
    fn fill(&mut self, first: u64, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let file = match self.reader.take() {
            Some((open, file)) if open == first => file,
            _ => match File::open(self.directory.segment(first)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            },
        };
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.reader = Some((first, file));
        Ok(())
    }

    /// A whole segment, without its head.
    pub(super) fn image(&mut self, index: usize) -> io::Result<Bytes> {
        let bytes = self.segments.get(index).map_or(SEGMENT_HEAD, |segment| segment.bytes);
        self.read_range(index, SEGMENT_HEAD, bytes.saturating_sub(SEGMENT_HEAD))
    }

    /// A walk over such an image.
    pub(super) fn walk<'a>(&self, index: usize, image: &'a Bytes) -> Walk<'a> {
        let first = self.segments.get(index).map_or(format::NUMBER_END, |segment| segment.first);
        Walk::new(image, first, first, self.ceiling(index), true)
    }
}
