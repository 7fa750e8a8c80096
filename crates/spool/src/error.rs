//! What can go wrong with a spool, by what its caller can do.
//!
//! Owns: the error types. Does not own: deciding which of them ends a process.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a spool could not be opened, read or changed.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another process, or another `Spool` of this one, has the directory. Nothing was touched.
    #[error("the spool {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The settings contradict each other; the text says what is allowed.
    #[error("settings of the spool: {0}")]
    Settings(&'static str),
    /// An intact file of a version that this one does not know: it is left alone.
    #[error("{} was written by another version", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// A note is longer than [`NOTE_BYTES`](crate::NOTE_BYTES).
    #[error("a note of {0} bytes is too long")]
    NoteTooLong(usize),
    /// A spool is removed only when nothing is left in it.
    #[error("the spool still has {0} records")]
    NotEmpty(u64),
    /// The file system refused. The spool's state is what it was; the same call may succeed later.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SpoolError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// Why a record was not taken. In every case the spool is as it was before, but for what was dropped to make room.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The limit is reached, and nothing that may be dropped would make room.
    #[error("the spool is full, and nothing in it may be dropped")]
    Full,
    /// The record would not fit into a segment, now or later.
    #[error("a record of {bytes} bytes is too large, {most} fit")]
    TooLarge {
        /// What the record takes on disk, in bytes.
        bytes: u64,
        /// What fits.
        most: u64,
    },
    /// The file system refused, for example because the disk is full. A later append may succeed.
    #[error("the spool cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Whether it is room that is missing: on the disk, in a quota, or below the limit of a file's size.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
