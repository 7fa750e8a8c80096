//! `landfall.run.json`: how a running gateway tells the commands on the same machine where it is.
//!
//! Owns: the file's content, writing it at once, removing it at an orderly end. Does not own: whether the process that wrote it
//! still runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
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
    /// Devices are let in. Until then they are told to come back.
    #[serde(default)]
    pub serving: bool,
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
    run: RunFile,
}

impl RunFile {
    /// Where the file of a gateway with this `nats.store_dir` is.
    pub fn path(store_dir: &Path) -> PathBuf {
        store_dir.join(NAME)
    }

    /// Writes the file, and makes the directory when it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn announce(self, store_dir: &Path) -> io::Result<Announced> {
        std::fs::create_dir_all(store_dir)?;
        let path = Self::path(store_dir);
        self.write(&path)?;
        Ok(Announced { path, run: self })
    }

    /// Writes the file in one step. A disk without room keeps no gateway from its work: the commands have to be told where it is.
    fn write(&self, path: &Path) -> io::Result<()> {
        let unfinished = path.with_file_name(format!("{NAME}.{}", self.pid));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let write = || {
            let mut file = OpenOptions::new();
            let mut file = file.create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&text)?;
            fs::rename(&unfinished, path)
        };
        let written = write();
        if written.is_err() {
            // What is in the way is told by the error itself.
            let _ = std::fs::remove_file(&unfinished);
        }
        match written {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(?path, %error, "the run file cannot be written");
                Ok(())
            }
            written => written,
        }
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

impl Announced {
    /// Says that devices are let in.
    ///
    /// # Errors
    /// What the file system says.
    pub fn serves(&mut self) -> io::Result<()> {
        self.run.serving = true;
        // Another gateway may have put its own in its place by now.
        if self.read().is_none_or(|run| run.incarnation == self.run.incarnation) {
            return self.run.write(&self.path);
        }
        Ok(())
    }

    fn read(&self) -> Option<RunFile> {
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if self.read().is_some_and(|run| run.incarnation == self.run.incarnation) {
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
            serving: false,
        }
    }

    #[test]
    fn it_is_there_while_the_gateway_runs_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("data/nats");
        let mut announced = run("i1").announce(&store).unwrap();
        assert_eq!(RunFile::read(&store).unwrap(), run("i1"));
        announced.serves().unwrap();
        assert_eq!(RunFile::read(&store).unwrap(), RunFile { serving: true, ..run("i1") });
        assert_eq!(std::fs::read_dir(&store).unwrap().count(), 1, "nothing else is left behind");
        let mode = fs::metadata(RunFile::path(&store)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it may hold a password");
        drop(announced);
        assert_eq!(RunFile::read(&store).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_gateway_does_not_remove_the_file_of_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = run("i1").announce(directory.path()).unwrap();
        let second = run("i2").announce(directory.path()).unwrap();
        first.serves().unwrap();
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
