//! `Spool`: appending to the newest segment, and the account of all of them.
//!
//! Owns: the state, numbers, buffers, the roll from one segment to the next. Opening is in `recover`, handing out and
//! settling in `read`, making room in `shed`.
//! Does not own: the layout of bytes (`format`), the names of files (`directory`).

mod read;
mod recover;
mod shed;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::directory::{Directory, NOTE};
use crate::dropped::Tally;
use crate::error::is_no_room;
use crate::format::{self, Entry, RECORD_HEAD, SEGMENT_HEAD};
use crate::owners::Owners;
use crate::{AppendError, Class, Dropped, NOTE_BYTES, Record, Role, SpoolError, SpoolSettings};

use read::{Handed, Position};
use recover::Hint;
use shed::{Condemned, SHARE};

/// Appended bytes that are kept in memory at most, unless one record alone is larger.
const PENDING: usize = 64 << 10;
/// A spool that has become empty begins a new segment when this much stands in the old one.
const WORN: u64 = 64 << 10;

/// The part of a segment that has to be freed for a message to be let in.
const WORTH: u64 = 4;

/// A segment, as far as it is known without reading it.
#[derive(Debug)]
struct Segment {
    /// Its name: its records have this number or a higher one, below the next segment's.
    first: u64,
    /// The highest number that was in it.
    last: u64,
    /// Its bytes, with what is still in memory.
    bytes: u64,
    /// Records that are not settled.
    live: u64,
    /// Bytes of the messages among them that may be dropped alone.
    loose: u64,
    /// Bytes in it are no records, so that `live` has to be counted anew behind the reader.
    damaged: bool,
}

/// A queue of records in a directory. The crate's documentation says what survives what.
#[derive(Debug)]
pub struct Spool {
    settings: SpoolSettings,
    directory: Directory,
    /// Rising by their names; the last one is appended to. Never empty.
    segments: VecDeque<Segment>,
    /// The file of the last segment.
    writer: File,
    /// The last bytes of the last segment, not yet in its file.
    pending: Vec<u8>,
    /// The number of the next record.
    next: u64,
    /// The bytes of all segments.
    total: u64,
    /// Records that are not settled.
    records: u64,
    owners: Owners,
    /// Where the reader goes on.
    cursor: Position,
    /// The segment that the reader has open.
    reader: Option<(u64, File)>,
    /// What was read and is not yet taken by `next`. All of it is in `out`.
    batch: VecDeque<Record>,
    /// Handed out and not settled.
    out: BTreeMap<u64, Handed>,
    /// The highest number that was read since the opening. What is not above it and not in `out` is done with.
    read: u64,
    /// The highest number that was ever read, as far as is known: nothing up to it is dropped.
    handed: u64,
    /// What is being dropped, if that could not be completed.
    condemned: Option<Condemned>,
    /// What could be dropped, when that was found to be too little and nothing was appended since.
    droppable: Option<u64>,
    /// The disk was full, dropping did not help, and nothing was appended or removed since.
    stuck: bool,
    tally: Tally,
    note: Option<Bytes>,
}

impl Spool {
    /// Appends a record, and gives it the next number. It is in memory until [`Spool::flush`], or until 64 KiB have come
    /// together.
    ///
    /// When the spool is full this drops older records (the crate's documentation says which), and takes as long as writing
    /// the segments anew that they stood in.
    ///
    /// # Errors
    ///
    /// [`AppendError::Full`], [`AppendError::TooLarge`], or the file system's refusal; the record has no number then.
    pub fn append(&mut self, class: &Class, header: &[u8], body: &[u8]) -> Result<u64, AppendError> {
        let length = (RECORD_HEAD + header.len() + body.len()) as u64;
        let most = self.settings.segment_bytes - SEGMENT_HEAD;
        if length > most {
            return Err(AppendError::TooLarge { bytes: length, most });
        }
        let over = self.over(length);
        if over > 0 {
            // For a message alone no segment is written anew to free next to nothing.
            let least = if is_loose(class) { self.settings.segment_bytes / WORTH } else { 0 };
            self.relieve(over.max(least))?;
            if self.over(length) > 0 {
                return Err(AppendError::Full);
            }
        }
        if let Err(error) = self.prepare(length) {
            if self.stuck || !is_no_room(&error) {
                return Err(error.into());
            }
            self.stuck = true;
            // What is dropped from memory leaves the disk as full, and files end in blocks: a little would not help. Whether
            // or not this does, the file system has the last word.
            let much = length + self.pending.len() as u64 + self.settings.segment_bytes;
            let _ = self.relieve(much.min(self.total / SHARE).max(length));
            self.prepare(length)?;
        }
        Ok(self.write(class, header, body))
    }

    /// Hands everything that was appended to the kernel: it survives the process from here on.
    ///
    /// # Errors
    ///
    /// What the file system says. Nothing is lost by that: what is not written stays in memory, and the next flush goes on
    /// with it.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut from = self.active().bytes - self.pending.len() as u64;
        let mut done = 0;
        let outcome = loop {
            let rest = self.pending.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.writer.write_at(rest, from) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done += written;
                    from += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // A record may be cut in two by this, one half in the file and one here. A process that dies now leaves a torn end.
        self.pending.drain(..done);
        outcome
    }

    /// The number that the next record gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Whether every record is settled.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records that are not settled. Where the file system hinders dropping, those that are being dropped still count.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// What the spool takes on disk, with what is not yet flushed. Settled records count until their segment is removed.
    pub fn bytes(&self) -> u64 {
        self.total
    }

    /// What [`Spool::bytes`] does not exceed.
    pub fn limit(&self) -> u64 {
        self.settings.limit_bytes
    }

    /// What was dropped since this was last called.
    pub fn take_dropped(&mut self) -> Dropped {
        self.tally.take()
    }

    /// The note that [`Spool::set_note`] left with the directory, also before it was opened. `None` if there is none, or if it
    /// is damaged.
    pub fn note(&self) -> Option<Bytes> {
        self.note.clone()
    }

    /// Leaves a note with the directory, such as who writes this spool, in place of an older one: a reader sees the old one
    /// or the new one.
    ///
    /// # Errors
    ///
    /// [`SpoolError::NoteTooLong`], or the file system's refusal; the old note stays then.
    pub fn set_note(&mut self, note: &[u8]) -> Result<(), SpoolError> {
        if note.len() > NOTE_BYTES {
            return Err(SpoolError::NoteTooLong(note.len()));
        }
        let path = self.directory.path().join(NOTE);
        self.directory.put(NOTE, note).map_err(SpoolError::io("write", path))?;
        self.note = Some(Bytes::copy_from_slice(note));
        Ok(())
    }

    /// Removes the directory of an empty spool, and with it the note and the memory of which numbers were given.
    ///
    /// # Errors
    ///
    /// [`SpoolError::NotEmpty`]: the spool is closed, with everything in it. Or the file system's refusal, for example since
    /// somebody else put a file there.
    pub fn remove(self) -> Result<(), SpoolError> {
        if self.records > 0 {
            return Err(SpoolError::NotEmpty(self.records));
        }
        self.directory.clear()
    }

    /// By how many bytes a record of `length` would exceed the limit.
    fn over(&self, length: u64) -> u64 {
        let head = if self.rolls(length) { SEGMENT_HEAD } else { 0 };
        (self.total + length + head).saturating_sub(self.settings.limit_bytes)
    }

    /// Whether a record of `length` begins a new segment.
    fn rolls(&self, length: u64) -> bool {
        let bytes = self.active().bytes;
        bytes > SEGMENT_HEAD && bytes + length > self.settings.segment_bytes
    }

    /// Makes place in memory, or a new segment, for a record of `length`. On an error nothing has changed but what is
    /// flushed.
    fn prepare(&mut self, length: u64) -> io::Result<()> {
        if self.rolls(length) {
            self.flush()?;
            self.roll()?;
            self.tidy(self.segments.len().saturating_sub(2));
            Ok(())
        } else if !self.pending.is_empty() && self.pending.len() as u64 + length > PENDING as u64 {
            // It need not have got rid of everything.
            self.flush().or_else(|error| {
                if self.pending.len() as u64 + length > PENDING as u64 { Err(error) } else { Ok(()) }
            })
        } else {
            Ok(())
        }
    }

    /// Begins a new segment. Nothing of the old one is pending.
    fn roll(&mut self) -> io::Result<()> {
        let first = self.next;
        self.writer = self.directory.create(first, &format::segment_head(first))?;
        self.segments.push_back(Segment::new(first));
        self.total += SEGMENT_HEAD;
        Ok(())
    }

    fn write(&mut self, class: &Class, header: &[u8], body: &[u8]) -> u64 {
        let number = self.next;
        let seed = format::seed(self.active().first);
        let length = format::encode(&mut self.pending, seed, number, class, header, body);
        let entry = Entry::new(number, *class, length);
        self.next += 1;
        self.total += length as u64;
        self.records += 1;
        self.droppable = None;
        self.stuck = false;
        self.owners.add(&entry);
        if let Some(active) = self.segments.back_mut() {
            active.bytes += length as u64;
            active.add(&entry);
        }
        number
    }

    /// The last segment. There is always one; the empty one stands in for what cannot be.
    fn active(&self) -> &Segment {
        const NONE: &Segment = &Segment::new(0);
        self.segments.back().unwrap_or(NONE)
    }

    /// The place of the segment that the record `number` would be in.
    fn place(&self, number: u64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.first <= number).checked_sub(1)
    }

    /// The first number that is not of the segment at `index`.
    fn ceiling(&self, index: usize) -> u64 {
        self.segments.get(index + 1).map_or(self.next, |next| next.first)
    }

    /// Removes the file of the segment at `index`, which is not the last one, and the segment.
    fn discard(&mut self, index: usize) -> io::Result<()> {
        let Some(segment) = self.segments.get(index) else { return Ok(()) };
        match fs::remove_file(self.directory.segment(segment.first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.total -= segment.bytes;
        self.records -= segment.live;
        self.stuck = false;
        self.reader.take_if(|(first, _)| *first == segment.first);
        self.segments.remove(index);
        Ok(())
    }

    /// Writes down what is settled and what was handed out. Only a hint, so an error has no consequence but that records are
    /// handed out again.
    fn hint(&self) -> io::Result<()> {
        self.write_hint(false)
    }

    /// `closed`: everything that was appended is flushed, and nothing more comes.
    fn write_hint(&self, closed: bool) -> io::Result<()> {
        let head = self.out.keys().next().copied().unwrap_or(self.read + 1);
        let hint = Hint { head, handed: self.handed, next: self.next, closed };
        self.directory.put_head(&hint.encode())
    }
}

impl Drop for Spool {
    /// Flushes, and writes down what is settled, as far as the file system lets it.
    fn drop(&mut self) {
        let closed = self.flush().is_ok();
        let _ = self.write_hint(closed);
    }
}

impl Segment {
    /// An empty one.
    const fn new(first: u64) -> Self {
        Self { first, last: first.saturating_sub(1), bytes: SEGMENT_HEAD, live: 0, loose: 0, damaged: false }
    }

    /// A record that is not settled stands in it.
    fn add(&mut self, entry: &Entry) {
        self.last = entry.number;
        self.live += 1;
        if is_loose(&entry.class) {
            self.loose += entry.length as u64;
        }
    }

    /// A record of it is done with.
    fn release(&mut self, length: u64, loose: bool) {
        self.live = self.live.saturating_sub(1);
        if loose {
            self.loose = self.loose.saturating_sub(length);
        }
    }
}

/// Whether a record may be dropped without its session.
fn is_loose(class: &Class) -> bool {
    class.role == Role::Message && !class.pinned
}

#[cfg(test)]
impl Spool {
    /// How many owners are known.
    pub(crate) fn owners_len(&self) -> usize {
        self.owners.len()
    }

    /// Nothing up to this number is dropped.
    pub(crate) fn handed(&self) -> u64 {
        self.handed
    }
}
