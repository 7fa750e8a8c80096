//! Opening: what is there, what of it is whole, and where it goes on.
//!
//! Owns: the survey of the segments, and mending them. Does not own: what is done with the records.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};

use super::read::Position;
use super::shed::Condemned;
use super::{PENDING, Segment, Spool};
use crate::directory::{DROPPING, Directory, HEAD, NOTE};
use crate::dropped::Tally;
use crate::format::{
    self, Fields, Head, NUMBER_END, RECORD_HEAD, SEGMENT_HEAD, SEGMENT_MOST, Step, Walk, read_segment_head,
};
use crate::owners::Owners;
use crate::{Recovery, SpoolError, SpoolSettings};

/// The smallest segment.
const SEGMENT_LEAST: u64 = 1 << 10;
/// The limit is at least so many segments.
const SEGMENTS_LEAST: u64 = 4;

/// What the hint says.
#[derive(Clone, Copy)]
pub(super) struct Hint {
    /// Every lower number is settled.
    pub(super) head: u64,
    /// No higher number was handed out.
    pub(super) handed: u64,
    /// No such number, and no higher one, was given by then.
    pub(super) next: u64,
    /// Nor was one afterwards.
    pub(super) closed: bool,
}

/// What is known of the segments while they are surveyed.
struct Survey<'a> {
    directory: &'a Directory,
    /// The oldest number that is not settled.
    head: u64,
    condemned: Option<&'a Condemned>,
    segments: VecDeque<Segment>,
    /// Segments of which nothing is needed.
    spent: Vec<u64>,
    owners: Owners,
    recovery: Recovery,
    /// A number that was never given.
    next: u64,
}

/// What one segment's records amount to.
#[derive(Default)]
struct Health {
    /// Bytes and records that are no good.
    lost_bytes: u64,
    lost_records: u64,
    /// Where the last good record ends, in the file.
    end: u64,
    /// Whether a good record follows on damage, or the head is damaged: cutting the end off does not mend it.
    inner: bool,
}

impl Spool {
    /// Opens the spool of a directory, which is made if it is missing, and takes its lock. What was found whole is handed out
    /// from the oldest record on that is not known to be settled.
    ///
    /// This reads every segment once, and mends those that are damaged. No content of the files makes it fail, but for an
    /// intact segment of another version.
    ///
    /// # Errors
    ///
    /// [`SpoolError::InUse`], [`SpoolError::Settings`], [`SpoolError::Version`], or the file system's refusal.
    pub fn open(settings: SpoolSettings) -> Result<(Self, Recovery), SpoolError> {
        check(&settings)?;
        let directory = Directory::open(&settings.dir)?;
        let hint = Hint::read(&directory);
        let head = hint.map_or(1, |hint| hint.head);
        let condemned = directory.get(DROPPING).and_then(|plan| Condemned::decode(&plan));
        let firsts = directory.segments()?;
        let mut survey = Survey::new(&directory, head, condemned.as_ref());
        for (place, first) in firsts.iter().enumerate() {
            survey.segment(*first, firsts.get(place + 1).copied().unwrap_or(NUMBER_END))?;
        }
        let Survey { mut segments, spent, owners, mut recovery, next, .. } = survey;
        let next = next_number(next, hint, condemned.as_ref(), firsts.is_empty());
        // Without a hint nobody knows what was handed out.
        let handed = hint.map_or(next - 1, |hint| hint.handed.max(head - 1));
        let writer = writer(&directory, &mut segments, next)?;
        for first in spent.into_iter().filter(|first| segments.back().is_none_or(|last| last.first != *first))
        {
            let path = directory.segment(first);
            fs::remove_file(&path).map_err(SpoolError::io("remove", &path))?;
        }
        let mut spool = Self {
            total: segments.iter().map(|segment| segment.bytes).sum(),
            records: segments.iter().map(|segment| segment.live).sum(),
            note: directory.get(NOTE),
            cursor: Position::start_of(0),
            settings,
            directory,
            segments,
            writer,
            pending: Vec::new(),
            next,
            owners,
            reader: None,
            batch: VecDeque::new(),
            out: BTreeMap::new(),
            read: head - 1,
            handed,
            condemned: None,
            droppable: None,
            stuck: false,
            tally: Tally::default(),
        };
        // On a full disk it has to wait, and so may what follows.
        let _ = spool.directory.reserve(spool.settings.segment_bytes);
        if let Some(condemned) = condemned {
            spool.tally.sessions(condemned.victims());
            spool.condemned = Some(condemned);
            let _ = spool.complete_dropping();
        }
        spool.hint().map_err(SpoolError::io("write", spool.directory.path().join(HEAD)))?;
        recovery.records = spool.records;
        recovery.bytes = spool.total;
        Ok((spool, recovery))
    }
}

/// Whether the settings can be.
fn check(settings: &SpoolSettings) -> Result<(), SpoolError> {
    if !(SEGMENT_LEAST..=SEGMENT_MOST).contains(&settings.segment_bytes) {
        return Err(SpoolError::Settings("a segment has 1 KiB to 1 GiB"));
    }
    if settings.limit_bytes / SEGMENTS_LEAST < settings.segment_bytes {
        return Err(SpoolError::Settings("the limit is at least four segments"));
    }
    Ok(())
}

/// The number of the next record. `found`: above all that was found.
fn next_number(found: u64, hint: Option<Hint>, condemned: Option<&Condemned>, new: bool) -> u64 {
    let told = hint.map_or(1, |hint| hint.next.max(hint.handed + 1));
    let planned = condemned.map_or(1, |condemned| condemned.end() + 1);
    let next = found.max(told).max(planned);
    if hint.is_some_and(|hint| hint.closed) || (hint.is_none() && new) {
        return next;
    }
    // A process that was killed had given numbers to records that it did not flush: so many at most.
    next + (PENDING / RECORD_HEAD) as u64 + 1
}

/// The file that is appended to: the last segment's if it is whole (should it be full, the next append begins a new one),
/// else that of a new one.
fn writer(directory: &Directory, segments: &mut VecDeque<Segment>, next: u64) -> Result<File, SpoolError> {
    if let Some(last) = segments.back().filter(|last| !last.damaged) {
        let path = directory.segment(last.first);
        return OpenOptions::new().write(true).open(&path).map_err(SpoolError::io("open", path));
    }
    let created = directory.create(next, &format::segment_head(next));
    let file = created.map_err(SpoolError::io("make", directory.segment(next)))?;
    segments.push_back(Segment::new(next));
    Ok(file)
}

impl Hint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.head, self.handed, self.next, u64::from(self.closed)];
        numbers.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn read(directory: &Directory) -> Option<Self> {
        let bytes = directory.get(HEAD)?;
        let mut fields = Fields(&bytes);
        let (head, handed, next) = (fields.u64(), fields.u64(), fields.u64());
        let hint = Self { head, handed, next, closed: fields.u64() == 1 };
        let plausible = hint.head >= 1 && hint.head <= hint.next && hint.handed < hint.next;
        (plausible && hint.next < NUMBER_END).then_some(hint)
    }
}

impl<'a> Survey<'a> {
    fn new(directory: &'a Directory, head: u64, condemned: Option<&'a Condemned>) -> Self {
        Self {
            directory,
            head,
            condemned,
            segments: VecDeque::new(),
            spent: Vec::new(),
            owners: Owners::default(),
            recovery: Recovery::default(),
            next: 1,
        }
    }

    /// Reads a segment, counts what is in it, and mends it.
    fn segment(&mut self, first: u64, ceiling: u64) -> Result<(), SpoolError> {
        let path = self.directory.segment(first);
        let bytes = read(&path).map_err(SpoolError::io("read", &path))?;
        let head = read_segment_head(&bytes, first);
        if head == Head::OtherVersion {
            return Err(SpoolError::Version { path });
        }
        let mut segment = Segment::new(first);
        segment.bytes = (bytes.len() as u64).max(SEGMENT_HEAD);
        let body = bytes.get(SEGMENT_HEAD as usize..).unwrap_or_default();
        let health = self.count(&mut segment, body, ceiling, head == Head::Good || bytes.is_empty());
        self.recovery.lost_bytes += health.lost_bytes;
        self.recovery.lost_records += health.lost_records;
        self.next = self.next.max(segment.last + 1);
        if health.lost_bytes > 0 {
            // So many records can have been in the lost bytes at most: their numbers are not given again.
            self.next += health.lost_bytes / RECORD_HEAD as u64 + 1;
        }
        self.next = self.next.min(ceiling);
        if segment.live == 0 {
            self.spent.push(first);
            return Ok(());
        }
        if health.lost_bytes > 0 {
            // What cannot be mended now is passed over by the reader.
            segment.damaged = self.mend(&mut segment, body, ceiling, &health).is_err();
        }
        self.segments.push_back(segment);
        Ok(())
    }

    fn count(&mut self, segment: &mut Segment, body: &[u8], ceiling: u64, good: bool) -> Health {
        let lost_bytes = if good { 0 } else { SEGMENT_HEAD };
        let mut health = Health { lost_bytes, inner: !good, end: SEGMENT_HEAD, ..Health::default() };
        let mut walk = Walk::new(body, segment.first, segment.first, ceiling, true);
        let mut damaged = false;
        loop {
            match walk.step() {
                Step::Record(entry) => {
                    health.inner |= damaged;
                    health.end = SEGMENT_HEAD + walk.at() as u64;
                    segment.last = entry.number;
                    if entry.number < self.head {
                        continue;
                    }
                    segment.add(&entry);
                    if self.condemned.is_none_or(|condemned| !condemned.is_victim(&entry)) {
                        self.owners.add(&entry);
                    }
                }
                Step::Damage { bytes, records } => {
                    damaged = true;
                    health.lost_bytes += bytes;
                    health.lost_records += records;
                }
                Step::More | Step::End => return health,
            }
        }
    }

    /// Cuts a torn end off, or writes the segment anew with what is whole and needed.
    fn mend(&self, segment: &mut Segment, body: &[u8], ceiling: u64, health: &Health) -> io::Result<()> {
        let path = self.directory.segment(segment.first);
        if !health.inner {
            OpenOptions::new().write(true).open(path)?.set_len(health.end)?;
            segment.bytes = health.end;
            return Ok(());
        }
        let mut kept = format::segment_head(segment.first);
        let mut walk = Walk::new(body, segment.first, segment.first, ceiling, true);
        loop {
            match walk.step() {
                Step::Record(entry) if entry.number >= self.head => kept.extend_from_slice(entry.whole(body)),
                Step::Record(_) | Step::Damage { .. } => {}
                Step::More | Step::End => break,
            }
        }
        self.directory.replace(&path, &kept)?;
        segment.bytes = kept.len() as u64;
        Ok(())
    }
}

/// Reads a file, as far as a segment can be long.
fn read(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SEGMENT_MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
