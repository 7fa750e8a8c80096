//! The directory of a spool: its lock, the names of its files, and its small files.
//!
//! Owns: which file is called what, who may have the directory, how a small file is replaced whole.
//! Does not own: what is in a segment.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::SpoolError;
use crate::crc::checksum;
use crate::format::{Fields, NUMBER_END};

/// Which records are settled and handed out: a hint, written in place.
pub(crate) const HEAD: &str = "head";
/// The caller's note.
pub(crate) const NOTE: &str = "note";
/// What is being dropped.
pub(crate) const DROPPING: &str = "dropping";
/// Room on the disk for one segment.
const RESERVE: &str = "reserve";
const LOCK: &str = "lock";
const SEGMENT: &str = "segment";
/// What is written is complete only when it has lost this.
const UNFINISHED: &str = "unfinished";
const SMALL_MAGIC: [u8; 8] = *b"LFSPOOLs";

/// A directory that is ours alone until this is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    head: File,
    /// Holds the lock; closing it gives it back.
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is missing (for this user alone), locks it, and clears away what was never finished.
    pub(crate) fn open(path: &Path) -> Result<Self, SpoolError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(SpoolError::io("make", path))?;
        let lock = lock(path)?;
        let head = path.join(HEAD);
        let head = options().truncate(false).open(&head).map_err(SpoolError::io("open", &head))?;
        let directory = Self { path: path.to_owned(), head, _lock: lock };
        for name in directory.names()? {
            let file = directory.path.join(name);
            if file.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&file).map_err(SpoolError::io("remove", &file))?;
            }
        }
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the segment that begins with the record `first`. Twenty digits: the names sort as the numbers do.
    pub(crate) fn segment(&self, first: u64) -> PathBuf {
        self.path.join(format!("{first:020}.{SEGMENT}"))
    }

    /// The segments that are there, by their first numbers, rising. Files of other names are none of ours.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, SpoolError> {
        let mut found: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| name.to_str()?.strip_suffix(SEGMENT)?.strip_suffix('.'))
            .filter(|digits| digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit()))
            .filter_map(|digits| digits.parse().ok())
            .filter(|first| (1..NUMBER_END).contains(first))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    fn names(&self) -> Result<Vec<OsString>, SpoolError> {
        let list =
            fs::read_dir(&self.path).and_then(|list| list.map(|entry| Ok(entry?.file_name())).collect());
        list.map_err(SpoolError::io("list", &self.path))
    }

    /// Makes a segment's file, or empties it, and writes its first bytes. On an error nothing is left of it.
    pub(crate) fn create(&self, first: u64, head: &[u8]) -> io::Result<File> {
        let path = self.segment(first);
        let mut file = options().truncate(true).open(&path)?;
        if let Err(error) = file.write_all(head) {
            // Whether it can be removed changes nothing: without records it is removed at the next opening.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(file)
    }

    /// Puts `bytes` in the place of the file `path` at once, whole, and gives the new file.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<File> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".");
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let written = options().truncate(true).open(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            fs::rename(&unfinished, path)?;
            Ok(file)
        });
        if written.is_err() {
            // What is left is removed at the next opening, and takes room until then.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Replaces a small file by `bytes` and their checksum.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(&self.path.join(name), &seal(bytes)).map(drop)
    }

    /// What [`Directory::put`] wrote. `None`: nothing, or it is damaged.
    pub(crate) fn get(&self, name: &str) -> Option<Bytes> {
        open(&fs::read(self.path.join(name)).ok()?)
    }

    /// Removes a small file, if it is there.
    pub(crate) fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Overwrites the hint with bytes that are always equally many: on a full disk too, and seen whole or not at all by
    /// whoever comes after a killed process.
    pub(crate) fn put_head(&self, bytes: &[u8]) -> io::Result<()> {
        self.head.write_all_at(&seal(bytes), 0)
    }

    /// Takes `bytes` of the disk, so that there is room for a segment when the disk is full. On an error nothing is taken.
    pub(crate) fn reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.path.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|data| data.len() == bytes) {
            return Ok(());
        }
        let fill = || {
            let mut file = options().truncate(true).open(&path)?;
            // Zeros in full: a hole would take no room.
            io::copy(&mut io::repeat(0).take(bytes), &mut file)
        };
        fill().map(drop).inspect_err(|_| drop(fs::remove_file(&path)))
    }

    /// Gives back what was reserved. Whether it was.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(self.path.join(RESERVE)).is_ok()
    }

    /// Removes the files that a spool makes, and the directory if it holds nothing else.
    pub(crate) fn clear(&self) -> Result<(), SpoolError> {
        for first in self.segments()? {
            let path = self.segment(first);
            fs::remove_file(&path).map_err(SpoolError::io("remove", &path))?;
        }
        for name in [HEAD, NOTE, DROPPING, RESERVE, LOCK] {
            self.delete(name).map_err(SpoolError::io("remove", self.path.join(name)))?;
        }
        fs::remove_dir(&self.path).map_err(SpoolError::io("remove", &self.path))
    }
}

/// Takes the lock of the directory, which the system gives back when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(LOCK);
    let in_use = || SpoolError::InUse { dir: dir.to_owned() };
    let file = options().truncate(false).open(&path).map_err(SpoolError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use()),
        Err(TryLockError::Error(error)) => return Err(SpoolError::io("lock", &path)(error)),
    }
    // Whoever removes a spool removes its lock; one that was opened just before locks nothing.
    let inode = |data: fs::Metadata| (data.dev(), data.ino());
    let ours = file.metadata().map(inode).map_err(SpoolError::io("look at", &path))?;
    let there = fs::metadata(&path).map(inode).ok();
    if there == Some(ours) { Ok(file) } else { Err(in_use()) }
}

/// What the spool writes is for its own user: it holds what devices sent.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn seal(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let sum = checksum(0, &[&SMALL_MAGIC, &length, bytes]).to_le_bytes();
    [&SMALL_MAGIC, length.as_slice(), sum.as_slice(), bytes].concat()
}

fn open(sealed: &[u8]) -> Option<Bytes> {
    let (magic, rest) = sealed.split_first_chunk::<8>()?;
    let (fixed, bytes) = rest.split_first_chunk::<12>()?;
    let mut fields = Fields(fixed);
    let (length, sum) = (fields.u64(), fields.u32());
    let intact = *magic == SMALL_MAGIC
        && length == bytes.len() as u64
        && checksum(0, &[magic, &length.to_le_bytes(), bytes]) == sum;
    intact.then(|| Bytes::copy_from_slice(bytes))
}
