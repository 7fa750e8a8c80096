//! `landfall.run.json`: how a running gateway tells the commands on the same machine where it is.
//!
//! Owns: the file's content, writing it at once, removing it at an orderly end. Does not own: whether the process that wrote it
//! still runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file's name, below `nats.store_dir`.
pub const NAME: &str = "landfall.run.json";

/// What a running gateway says of itself, to its own user alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Its process.
    pub pid: u32,
    /// `instance.name`.
    pub instance: String,
    /// This process's name among the replicas.
    pub replica: String,
    /// This start of it.
    pub incarnation: String,
    /// The URL of NATS: with the password of an embedded server, without any other credentials.
    pub nats: String,
    /// Where the admin interface listens; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Where it listens for devices, per protocol, with the ports that were taken.
    pub listeners: BTreeMap<String, Vec<String>>,
}

impl fmt::Debug for RunFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFile")
            .field("pid", &self.pid)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

/// A run file that is there for as long as this value. Dropping it removes the file, unless another gateway has put its own
/// in its place.
#[derive(Debug)]
pub struct Announced {
    path: PathBuf,
    incarnation: String,
}

impl RunFile {
    /// Where the file of a gateway with this `nats.store_dir` is.
    pub fn path(store_dir: &Path) -> PathBuf {
        store_dir.join(NAME)
    }

    /// Writes the file in one step, and makes the directory when it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn announce(&self, store_dir: &Path) -> io::Result<Announced> {
        std::fs::create_dir_all(store_dir)?;
        let path = Self::path(store_dir);
        let unfinished = store_dir.join(format!("{NAME}.{}", self.pid));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let write = || {
            let mut file = OpenOptions::new();
            let mut file = file.create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&text)?;
            fs::rename(&unfinished, &path)
        };
        let written = write();
        if written.is_err() {
            // What is in the way is told by the error itself.
            let _ = std::fs::remove_file(&unfinished);
        }
        written.map(|()| Announced { path, incarnation: self.incarnation.clone() })
    }

    /// Reads the file below `store_dir`.
    ///
    /// # Errors
    /// What the file system says, or that the file is none of ours.
    pub fn read(store_dir: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(Self::path(store_dir))?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let ours = |run: RunFile| run.incarnation == self.incarnation;
        let mine =
            std::fs::read(&self.path).is_ok_and(|bytes| serde_json::from_slice(&bytes).is_ok_and(ours));
        if mine {
            // At the end of the process there is nobody left to be told.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(incarnation: &str) -> RunFile {
        RunFile {
            pid: 7,
            instance: "landfall".into(),
            replica: "a1".into(),
            incarnation: incarnation.into(),
            nats: "nats://127.0.0.1:4222".into(),
            admin: Some("127.0.0.1:8080".into()),
            listeners: BTreeMap::from([("mqtt".to_owned(), vec!["tcp://127.0.0.1:1883".to_owned()])]),
        }
    }

    #[test]
    fn it_is_there_while_the_gateway_runs_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("data/nats");
        let announced = run("i1").announce(&store).unwrap();
        assert_eq!(RunFile::read(&store).unwrap(), run("i1"));
        assert_eq!(std::fs::read_dir(&store).unwrap().count(), 1, "nothing else is left behind");
        let mode = fs::metadata(RunFile::path(&store)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it may hold a password");
        drop(announced);
        assert_eq!(RunFile::read(&store).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_gateway_does_not_remove_the_file_of_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let first = run("i1").announce(directory.path()).unwrap();
        let second = run("i2").announce(directory.path()).unwrap();
        drop(first);
        assert_eq!(RunFile::read(directory.path()).unwrap().incarnation, "i2");
        drop(second);
        assert!(RunFile::read(directory.path()).is_err());
    }

    #[test]
    fn garbage_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(RunFile::path(directory.path()), "{").unwrap();
        assert!(RunFile::read(directory.path()).is_err());
    }
}
