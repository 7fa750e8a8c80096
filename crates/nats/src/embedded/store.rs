//! The server's directory: who may use it, how the server is configured, what an earlier one left.
//!
//! Owns: the lock, the configuration, the log, the process id file, the ports file. Does not own: the streams in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{EmbeddedError, EmbeddedSettings, Password, USER};

/// Above this the log is set aside: there are never more than two of this size, and what a minute adds.
const LOG_LIMIT: u64 = 8 << 20;
/// How much of the log an error shows.
const LAST_WORDS: u64 = 2_000;
/// How long a server that was left over has to end in order, and then by force.
const LEFTOVER_GRACE: Duration = Duration::from_secs(5);
/// How often a file or a process that cannot announce itself is looked at.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A directory that this process alone uses, for as long as this value lives.
#[derive(Debug)]
pub(super) struct StoreDir {
    path: PathBuf,
    _lock: File,
}

#[derive(Deserialize)]
struct Ports {
    #[serde(default)]
    nats: Vec<String>,
}

impl StoreDir {
    /// Makes and locks the directory.
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedError> {
        let failed = |why: String| EmbeddedError::Store { path: path.to_path_buf(), why };
        fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
        let path = path.canonicalize().map_err(|error| failed(error.to_string()))?;
        if path.to_str().is_none_or(|text| text.chars().any(char::is_control)) {
            return Err(failed("its path is not plain text".to_owned()));
        }
        let mut lock = OpenOptions::new();
        let lock = lock.create(true).truncate(false).write(true).open(path.join("landfall.lock"));
        let lock = lock.map_err(|error| failed(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse(path)),
            Err(TryLockError::Error(error)) => Err(failed(error.to_string())),
        }
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join("nats-server.conf")
    }

    fn log(&self) -> PathBuf {
        self.path.join("nats-server.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.path.join("nats-server.pid")
    }

    fn ports_dir(&self) -> PathBuf {
        self.path.join("ports")
    }

    fn failed(path: &Path, error: &std::io::Error) -> EmbeddedError {
        EmbeddedError::Store { path: path.to_path_buf(), why: error.to_string() }
    }

    /// Writes the configuration for a server on `port`; 0 is a free one. It holds the password, so nobody else may read it.
    pub(super) fn configure(
        &self,
        settings: &EmbeddedSettings,
        password: &Password,
        port: u16,
    ) -> Result<(), EmbeddedError> {
        let ports_dir = self.ports_dir();
        // A file of an earlier process of the same id would name a wrong port.
        let _ = fs::remove_dir_all(&ports_dir);
        fs::create_dir_all(&ports_dir).map_err(|error| Self::failed(&ports_dir, &error))?;
        let path = self.configuration();
        let text = configuration((settings, password), &self.path, &ports_dir, port);
        let write = || {
            let mut file = OpenOptions::new();
            let mut file = file.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            // One of an earlier version is everybody's.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())
        };
        write().map_err(|error| Self::failed(&path, &error))
    }

    /// The log, opened for a new server: for its stdout and its stderr, and where its words begin.
    pub(super) fn open_log(&self) -> Result<(Stdio, Stdio, u64), EmbeddedError> {
        let path = self.log();
        let open = || {
            if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
                fs::rename(&path, path.with_extension("log.old"))?;
            }
            let log = OpenOptions::new().create(true).append(true).open(&path)?;
            let begins = log.metadata()?.len();
            Ok((log.try_clone()?.into(), log.into(), begins))
        };
        open().map_err(|error: std::io::Error| Self::failed(&path, &error))
    }

    /// Sets the log of a running server aside when it is too long. The server writes to the end of whatever the file is, so it is
    /// copied and emptied; what comes between the two is lost. Says whether the log begins anew.
    pub(super) fn shorten_log(&self) -> bool {
        let path = self.log();
        if fs::metadata(&path).map_or(0, |log| log.len()) <= LOG_LIMIT {
            return false;
        }
        let shortened = fs::copy(&path, path.with_extension("log.old"))
            .and_then(|_| OpenOptions::new().write(true).open(&path)?.set_len(0));
        if let Err(error) = &shortened {
            tracing::warn!(%error, path = %path.display(), "the log of nats-server cannot be shortened");
        }
        shortened.is_ok()
    }

    /// The last words in the log from `begins` on.
    pub(super) fn last_words(&self, begins: u64) -> String {
        let read = || {
            let mut log = File::open(self.log())?;
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(begins.max(end.saturating_sub(LAST_WORDS))))?;
            let mut words = Vec::new();
            log.take(LAST_WORDS).read_to_end(&mut words)?;
            Ok::<_, std::io::Error>(words)
        };
        read().map(|words| String::from_utf8_lossy(&words).trim().to_owned()).unwrap_or_default()
    }

    /// Notes who the server is, for the next start.
    pub(super) fn note_pid(&self, pid: u32) {
        let path = self.pid_file();
        if let Err(error) = fs::write(&path, format!("{pid}\n")) {
            tracing::warn!(%error, path = %path.display(), "the process id of nats-server is not noted");
        }
    }

    pub(super) fn forget_pid(&self) {
        let _ = fs::remove_file(self.pid_file());
    }

    /// The port that the server of that process id has taken, once it has written it down.
    pub(super) fn port_of(&self, pid: u32) -> Option<u16> {
        let ending = format!("_{pid}.ports");
        let files = fs::read_dir(self.ports_dir()).ok()?.flatten();
        let file = files.into_iter().find(|file| file.file_name().to_string_lossy().ends_with(&ending))?;
        let ports: Ports = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Ends a server that a killed gateway has left on this store.
    pub(super) async fn end_leftover(&self) -> Result<(), EmbeddedError> {
        let noted = fs::read_to_string(self.pid_file()).unwrap_or_default();
        let Some(pid) = noted.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(()) };
        for signal in [Signal::TERM, Signal::KILL] {
            if !self.is_ours(pid) {
                self.forget_pid();
                return Ok(());
            }
            tracing::warn!(
                pid = pid.as_raw_nonzero(),
                ?signal,
                "ending a nats-server that an earlier gateway left"
            );
            // It may end by itself at this moment.
            let _ = kill_process(pid, signal);
            let deadline = Instant::now() + LEFTOVER_GRACE;
            while self.is_ours(pid) && Instant::now() < deadline {
                sleep(LOOK_INTERVAL).await;
            }
        }
        if self.is_ours(pid) {
            return Err(EmbeddedError::InUse(self.path.clone()));
        }
        self.forget_pid();
        Ok(())
    }

    /// Does the process run a server on this store? The id may have gone to another program since it was noted.
    fn is_ours(&self, pid: Pid) -> bool {
        let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let configuration = self.configuration();
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == configuration.as_os_str().as_encoded_bytes())
    }
}

/// The server's configuration. Its format takes JSON strings as they are written here: control characters, which JSON
/// would write in its own way, were refused with the path.
fn configuration(
    (settings, password): (&EmbeddedSettings, &Password),
    store: &Path,
    ports_dir: &Path,
    port: u16,
) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let port = if port == 0 { "-1".to_owned() } else { port.to_string() };
    let sync = if settings.sync_always { "\n  sync_interval: always" } else { "" };
    format!(
        "# Written anew at every start; changes are lost.\n\
         host: \"127.0.0.1\"\n\
         port: {port}\n\
         server_name: \"landfall-embedded\"\n\
         max_payload: {}\n\
         authorization {{\n  user: \"{USER}\"\n  password: \"{}\"\n}}\n\
         ports_file_dir: {}\n\
         jetstream {{\n  store_dir: {}{sync}\n}}\n",
        settings.max_payload,
        password.0,
        quoted(ports_dir),
        quoted(store),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_quotes_paths() {
        let settings = EmbeddedSettings { sync_always: true, ..EmbeddedSettings::default() };
        let password = Password::random();
        let text = configuration((&settings, &password), Path::new("/a \"b\"\\c"), Path::new("/p"), 0);
        assert!(text.contains(r#"store_dir: "/a \"b\"\\c""#), "{text}");
        assert!(text.contains("port: -1\n") && text.contains("sync_interval: always\n"), "{text}");
        assert!(password != Password::random() && !format!("{password:?}").contains(&*password.0));
        let settings = EmbeddedSettings::default();
        let text = configuration((&settings, &password), Path::new("/s"), Path::new("/p"), 4222);
        assert!(text.contains("port: 4222\n") && !text.contains("sync_interval"), "{text}");
    }

    #[test]
    fn the_log_of_a_running_server_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreDir::open(folder.path()).unwrap();
        let (out, _, _) = store.open_log().unwrap();
        let mut writer = std::process::Command::new("cat").stdin(Stdio::piped()).stdout(out).spawn().unwrap();
        let mut server = writer.stdin.take().unwrap();
        let wait_for = |bytes: u64| {
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while fs::metadata(store.log()).unwrap().len() < bytes {
                assert!(std::time::Instant::now() < deadline, "the log does not grow");
                std::thread::yield_now();
            }
        };
        std::io::Write::write_all(&mut server, b"early\n").unwrap();
        wait_for(6);
        assert!(!store.shorten_log(), "it is short");
        let much = vec![b'x'; usize::try_from(LOG_LIMIT).unwrap()];
        std::io::Write::write_all(&mut server, &much).unwrap();
        wait_for(LOG_LIMIT + 6);
        assert!(store.shorten_log());
        std::io::Write::write_all(&mut server, b"late\n").unwrap();
        drop(server);
        writer.wait().unwrap();
        assert_eq!(fs::read(store.log()).unwrap(), b"late\n");
        assert!(fs::read(store.path.join("nats-server.log.old")).unwrap().starts_with(b"early\n"));
    }

    #[test]
    fn a_store_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let first = StoreDir::open(&folder.path().join("nats")).unwrap();
        assert!(matches!(StoreDir::open(&folder.path().join("nats")), Err(EmbeddedError::InUse(_))));
        drop(first);
        StoreDir::open(&folder.path().join("nats")).unwrap();
    }

    #[test]
    fn a_noted_process_that_is_another_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreDir::open(folder.path()).unwrap();
        store.note_pid(std::process::id());
        assert!(!store.is_ours(rustix::process::getpid()));
    }
}
