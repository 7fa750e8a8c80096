//! The bytes of a segment: its head, its records, and a walk over them that survives damage.
//!
//! Owns: the layout. Does not own: files, or what is done about damage.
//!
//! All numbers are little-endian. A segment's file is named by the number of its first record, and begins with
//! `LFSPOOL`, the version (1 byte), that number (8) and the CRC-32C of these (4). A record is
//!
//! ```text
//!  0  4  length of the whole record           28 16  owner, or zeros
//!  4  4  CRC-32C of all the others            44  1  role
//!  8  8  number                               45  1  flags: 1 has an owner, 2 pinned
//! 16  8  tag                                  46  2  zero
//! 24  4  length of the header                 48     header, then body
//! ```
//!
//! The checksum of a record is begun with that of its segment's name, so that bytes of another segment (which a file
//! system can bring back after a loss of power) are never taken for records of this one.

use bytes::Bytes;

use crate::crc::checksum;
use crate::{Class, Record, Role};

/// Bytes before a segment's first record.
pub(crate) const SEGMENT_HEAD: u64 = 20;
/// Bytes of a record before its header.
pub(crate) const RECORD_HEAD: usize = 48;
/// No segment is larger, whatever the settings of its writer were.
pub(crate) const SEGMENT_MOST: u64 = 1 << 30;
/// Numbers stay below this one.
pub(crate) const NUMBER_END: u64 = 1 << 62;

const MAGIC: [u8; 7] = *b"LFSPOOL";
const VERSION: u8 = 1;
const OWNED: u8 = 1;
const PINNED: u8 = 2;

/// What the checksums of a segment's records begin with.
pub(crate) fn seed(first: u64) -> u32 {
    checksum(0, &[&first.to_le_bytes()])
}

/// The first bytes of the segment that begins with the record `first`.
pub(crate) fn segment_head(first: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(SEGMENT_HEAD as usize);
    head.extend_from_slice(&MAGIC);
    head.push(VERSION);
    head.extend_from_slice(&first.to_le_bytes());
    let sum = checksum(0, &[&head]);
    head.extend_from_slice(&sum.to_le_bytes());
    head
}

/// What the first bytes of a segment say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Ours.
    Good,
    /// Intact, and of another version.
    OtherVersion,
    /// Cut or changed. The records behind it have checksums of their own.
    Damaged,
}

/// Reads the head of the segment that the file's name calls `first`.
pub(crate) fn read_segment_head(bytes: &[u8], first: u64) -> Head {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else { return Head::Damaged };
    let intact = rest.first_chunk::<4>().is_some_and(|sum| u32::from_le_bytes(*sum) == checksum(0, &[head]));
    match head.split_first_chunk::<7>() {
        Some((magic, [version, number @ ..])) if intact && *magic == MAGIC => {
            if *version != VERSION {
                Head::OtherVersion
            } else if *number == first.to_le_bytes() {
                Head::Good
            } else {
                Head::Damaged
            }
        }
        _ => Head::Damaged,
    }
}

/// Appends a record to `out`. The caller has seen to it that the length fits into a segment.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    seed: u32,
    number: u64,
    class: &Class,
    header: &[u8],
    body: &[u8],
) -> usize {
    let length = RECORD_HEAD + header.len() + body.len();
    let mut fixed = [0; RECORD_HEAD - 8];
    let flags = u8::from(class.owner.is_some()) * OWNED + u8::from(class.pinned) * PINNED;
    let fields = number
        .to_le_bytes()
        .into_iter()
        .chain(class.tag.to_le_bytes())
        .chain((header.len() as u32).to_le_bytes())
        .chain(class.owner.unwrap_or_default())
        .chain([class.role.to_byte(), flags]);
    for (to, from) in fixed.iter_mut().zip(fields) {
        *to = from;
    }
    let size = (length as u32).to_le_bytes();
    let sum = checksum(seed, &[&size, &fixed, header, body]);
    out.extend_from_slice(&size);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&fixed);
    out.extend_from_slice(header);
    out.extend_from_slice(body);
    length
}

/// A record as the walk finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) class: Class,
    /// Where it begins in what was walked.
    pub(crate) at: usize,
    /// Its whole length.
    pub(crate) length: usize,
    header: usize,
}

impl Entry {
    /// A record that is being appended; nothing was walked.
    pub(crate) fn new(number: u64, class: Class, length: usize) -> Self {
        Self { number, class, at: 0, length, header: 0 }
    }

    /// The record itself, as a share of what was walked.
    pub(crate) fn record(&self, bytes: &Bytes) -> Record {
        let (number, class) = (self.number, self.class);
        let body = self.at + RECORD_HEAD + self.header;
        let header = bytes.slice(self.at + RECORD_HEAD..body);
        Record { number, class, header, body: bytes.slice(body..self.at + self.length) }
    }

    /// Its bytes.
    pub(crate) fn whole<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.at..self.at + self.length).unwrap_or_default()
    }
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// An intact record.
    Record(Entry),
    /// Bytes that hold no intact record, and how many records they were (at least).
    Damage {
        /// How many bytes were passed over.
        bytes: u64,
        /// How many records that cost, as far as their lengths tell.
        records: u64,
    },
    /// The bytes end within a record, and more of the segment follows.
    More,
    /// Nothing is left.
    End,
}

/// A walk over the records of a segment or of a piece of it.
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    seed: u32,
    floor: u64,
    ceiling: u64,
    complete: bool,
}

/// What stands at one place.
enum Found {
    Record(Entry),
    /// Not intact; the length that it claims.
    Claims(usize),
    /// Not even a length.
    Nothing,
    /// Longer than what is there.
    Cut,
}

impl<'a> Walk<'a> {
    /// Walks over `bytes`, which begin with a record of the segment `first`. Numbers lie in `floor..ceiling` and rise.
    /// `complete`: the segment ends where the bytes do.
    pub(crate) fn new(bytes: &'a [u8], first: u64, floor: u64, ceiling: u64, complete: bool) -> Self {
        Self { bytes, at: 0, seed: seed(first), floor, ceiling, complete }
    }

    /// How far it has come.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The lowest number that may follow.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The next step. Behind damage the walk goes on where the damaged record's length leads, if an intact record is
    /// there, else it gives the rest up: a search would find records that are part of somebody's body.
    pub(crate) fn step(&mut self) -> Step {
        if self.at >= self.bytes.len() {
            return Step::End;
        }
        let (mut at, mut records) = (self.at, 0);
        loop {
            match self.look(at) {
                Found::Record(_) if records > 0 => return self.pass(at, records),
                Found::Record(entry) => {
                    self.at = at + entry.length;
                    self.floor = entry.number + 1;
                    return Step::Record(entry);
                }
                Found::Claims(length) => {
                    at += length;
                    records += 1;
                    if at == self.bytes.len() {
                        return if self.complete { self.pass(at, records) } else { Step::More };
                    }
                }
                Found::Cut if !self.complete => return Step::More,
                Found::Nothing if !self.complete => return Step::More,
                Found::Cut | Found::Nothing => return self.pass(self.bytes.len(), records + 1),
            }
        }
    }

    fn pass(&mut self, to: usize, records: u64) -> Step {
        let bytes = (to - self.at) as u64;
        self.at = to;
        Step::Damage { bytes, records }
    }

    fn look(&self, at: usize) -> Found {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let Some((fixed, _)) = rest.split_first_chunk::<RECORD_HEAD>() else { return Found::Cut };
        let mut fields = Fields(fixed);
        let length = fields.u32() as usize;
        if length < RECORD_HEAD || length as u64 > SEGMENT_MOST {
            return Found::Nothing;
        }
        let (Some(size), Some(summed)) = (rest.get(..4), rest.get(8..length)) else { return Found::Cut };
        let sum = fields.u32();
        if checksum(self.seed, &[size, summed]) != sum {
            return Found::Claims(length);
        }
        let (number, tag, header) = (fields.u64(), fields.u64(), fields.u32() as usize);
        let owner = fields.take::<16>();
        let [role, flags] = fields.take::<2>();
        let Some(role) = Role::from_byte(role) else { return Found::Claims(length) };
        if !(self.floor..self.ceiling).contains(&number) || header > length - RECORD_HEAD {
            return Found::Claims(length);
        }
        let owner = (flags & OWNED != 0).then_some(owner);
        let class = Class { owner, role, tag, pinned: flags & PINNED != 0 };
        Found::Record(Entry { number, class, at, length, header })
    }
}

/// Takes fields from the front of bytes; zeros when they run out.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

impl Role {
    fn to_byte(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Begins => 1,
            Self::Message => 2,
            Self::Ends => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Other),
            1 => Some(Self::Begins),
            2 => Some(Self::Message),
            3 => Some(Self::Ends),
            _ => None,
        }
    }
}
