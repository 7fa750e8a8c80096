//! A bounded queue of records on disk, for what cannot be published now.
//!
//! Owns: the files of one directory, the order of the records in it, what is dropped when it is full.
//! Does not own: what a record says. Records are opaque bytes with a small [`Class`]: whose it is, and whether it begins
//! or ends a session. It has no clock, no task and no thread: calls return when the system call does.
//!
//! # The order of things
//!
//! [`Spool::append`] gives a record the next number. [`Spool::next`] hands records out in the order of their numbers,
//! [`Spool::settle`] says that one is done with, [`Spool::rewind`] hands out again what is not. Numbers rise from 1 and are
//! never given twice while the directory lives; gaps are what was dropped or lost.
//!
//! # What survives what
//!
//! | event | what of it is there afterwards |
//! |---|---|
//! | `kill -9` of the process | every record that was appended before the last [`Spool::flush`] that succeeded |
//! | [`Spool`] dropped, the process ends by itself | every record |
//! | loss of power, a kernel's crash | what the kernel had written by then: nothing is synchronised |
//! | a write that was cut off | everything before it; the torn end is removed and counted ([`Recovery`]) |
//! | changed bytes within a segment | every other record, if the changed one's length is intact; else those before it in its segment, and every other segment |
//! | a full disk | every record that was accepted; [`AppendError::Io`] for those that were not |
//!
//! A record that was settled can be handed out again after a crash: the segment it stood in was still needed, and the hint of
//! what is settled is written when the spool is read on, when a segment is removed, and when the spool is dropped. Whoever
//! publishes asks the stream first, or publishes under the same id. A record that was handed out before a crash counts as
//! handed out after it.
//!
//! # What is dropped when it is full
//!
//! The limit counts bytes on disk. An append that would exceed it drops, in this order and an eighth of the limit at once:
//!
//! 1. complete sessions, the oldest first: a begin and an end of the same owner, with everything of that owner;
//! 2. if that is not enough: messages, the oldest first, that nobody waits for ([`Class::pinned`]);
//! 3. if that is not enough either: nothing. The append fails with [`AppendError::Full`]; that of a message already when less
//!    than a quarter of a segment would come free, since that would be written anew for each message then.
//!
//! What was handed out is never dropped, and neither is the rest of a session of which something was handed out, but for its
//! messages: whoever saw the begin sees the end. Records are handed out to the reader a piece of a segment at a time
//! (an eighth of a segment, 64 KiB at most), and all of the piece counts. A session is dropped whole or not at all, also
//! when the process is killed meanwhile: what is being dropped is written down first, and an opening completes it. What
//! was dropped is counted and listed for [`Spool::take_dropped`]; that account is lost with the process.
//!
//! Writing segments anew takes room itself, that of one segment, which the limit does not count. The file `reserve` holds it, so
//! that dropping also works where the disk, and not the limit, is what is full. Where even that was not to be had, only segments
//! go that hold nothing but what may be dropped.
//!
//! # The cost
//!
//! Memory: 64 KiB of appended records or one record, one piece being read, one segment while something is dropped, around 100
//! bytes for each owner of a record that is not settled, and for each record handed out and not settled. No record has a place
//! in memory otherwise.

mod crc;
mod directory;
mod dropped;
mod error;
mod format;
mod owners;
mod spool;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bytes::Bytes;

pub use dropped::{Dropped, DroppedRange, RANGES};
pub use error::{AppendError, SpoolError};
pub use spool::Spool;

/// The longest note, in bytes ([`Spool::set_note`]).
pub const NOTE_BYTES: usize = 4096;

/// Where a spool is, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The directory. It is made if it is missing, for this user alone, and holds nothing but the spool.
    pub dir: PathBuf,
    /// Most bytes of all segments together; at least four segments. The disk has to have one segment more.
    pub limit_bytes: u64,
    /// Most bytes of one segment, the unit in which room is given back: 1 KiB to 1 GiB, for example 4 MiB. No record is
    /// larger. It is read into memory whole when something in it is dropped.
    pub segment_bytes: u64,
}

/// Whose record it is: 16 opaque bytes, such as a session's id.
pub type Owner = [u8; 16];

/// What a record is to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A session's first record.
    Begins,
    /// May be dropped alone when the spool is full.
    Message,
    /// A session's last record.
    Ends,
    /// Is never dropped alone; goes with its session when that is dropped whole.
    Other,
}

/// What the spool knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Whose it is. A record of nobody belongs to no session, whatever its role.
    pub owner: Option<Owner>,
    /// What it is to its owner.
    pub role: Role,
    /// The caller's number, such as the message's own; given back when the message is dropped.
    pub tag: u64,
    /// Somebody waits for it: it is not dropped as a message. (It goes with its session when that is dropped whole.)
    pub pinned: bool,
}

/// A record that is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, for [`Spool::settle`].
    pub number: u64,
    /// What was said of it when it was appended.
    pub class: Class,
    /// The first part of what was appended. It shares memory with its neighbours: a piece of a segment is given back when all
    /// its records are dropped.
    pub header: Bytes,
    /// The second part.
    pub body: Bytes,
}

/// What opening a directory found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that are not known to be settled: those that [`Spool::next`] will hand out.
    pub records: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Records that are lost to damage: at least so many. A torn end counts as one.
    pub lost_records: u64,
    /// Bytes in which no intact record was found.
    pub lost_bytes: u64,
}
