//! TLS 1.2 and 1.3 for stream listeners, from PEM files, replaceable while running.
//!
//! Owns: the settings' meaning, the server configuration, its reload, what a verified client certificate says.
//! Does not own: the handshake's deadline (`accept`), and what a certificate entitles to.

mod certificate;
mod config;
mod engine;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::time::MissedTickBehavior;

use crate::{Scope, Stream, StreamKind};

pub use certificate::PeerCertificate;
pub use stream::TlsStream;

/// Is a client asked for a certificate of `client_ca`?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It may show one; one that does not verify ends the handshake.
    Optional,
    /// It must show one.
    #[default]
    Required,
}

/// The `[tls]` settings: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `tls.cert`: the server's certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// `tls.key`: its private key: PKCS #8, PKCS #1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// `tls.client_ca`: who may have issued a client's certificate. Without it no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// `tls.client_auth`: only with `client_ca`.
    pub client_auth: ClientAuth,
}

/// Why TLS cannot be set up. Names the settings key, the path and what is wrong; never what a key file holds.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting} = {path:?}: {source}")]
    Unreadable {
        /// The settings key.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{setting} = {path:?}: {problem}")]
    Unusable {
        /// The settings key.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The parts do not make a server.
    #[error("tls: {0}")]
    Setup(#[from] rustls::Error),
}

/// TLS as it is now; shared by all listeners that use it.
pub struct Tls {
    settings: TlsSettings,
    current: RwLock<Current>,
}

struct Current {
    /// For `tls://`.
    stream: Arc<ServerConfig>,
    /// For `wss://`.
    web: Arc<ServerConfig>,
    /// The files' state when they were last looked at.
    stamp: Stamp,
}

/// When each file was changed, and how long it is: enough to see that it was replaced.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Tls {
    /// Reads the files and makes the first configuration. Blocks on the file system.
    ///
    /// # Errors
    /// [`TlsError`] names what to mend.
    pub fn load(settings: TlsSettings) -> Result<Arc<Self>, TlsError> {
        let stamp = stamp_of(&settings);
        let (stream, web) = config::build(&settings)?;
        Ok(Arc::new(Self { settings, current: RwLock::new(Current { stream, web, stamp }) }))
    }

    /// Reads the files again. New handshakes use what they say; connections that stand are left alone.
    ///
    /// # Errors
    /// [`TlsError`]; the configuration of before stays in use. Blocks on the file system.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamp = stamp_of(&self.settings);
        let built = config::build(&self.settings);
        let mut current = self.current.write();
        // Also after a failure: a broken file is told once, not at every look.
        current.stamp = stamp;
        (current.stream, current.web) = built?;
        Ok(())
    }

    /// Reloads if a file has changed since the last look. Says whether there was a change.
    ///
    /// # Errors
    /// As [`Tls::reload`].
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if stamp_of(&self.settings) == self.current.read().stamp {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Starts a task that looks at the files `every` so often and reloads them when they changed. A bad new file is
    /// logged as an error, once, and what was before stays in use.
    pub fn watch(self: &Arc<Self>, scope: &Scope, every: Duration) {
        let tls = Arc::clone(self);
        let inner = scope.clone();
        scope.spawn(async move {
            let mut looks = tokio::time::interval(every.max(Duration::from_millis(10)));
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = inner.cancelled() => return,
                    _ = looks.tick() => match tls.reload_if_changed() {
                        Ok(false) => {}
                        Ok(true) => tracing::info!(cert = ?tls.settings.cert, "TLS files reloaded"),
                        Err(error) => tracing::error!(%error, "TLS files changed and cannot be used; the old ones stay"),
                    },
                }
            }
        });
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Takes a connection through the handshake. Has no deadline of its own.
    ///
    /// # Errors
    /// What ended the handshake; the peer has been sent the alert.
    pub async fn accept<S: Stream>(&self, stream: S, kind: StreamKind) -> std::io::Result<TlsStream<S>> {
        TlsStream::accept(stream, self.config(kind)).await
    }

    fn config(&self, kind: StreamKind) -> Arc<ServerConfig> {
        let current = self.current.read();
        Arc::clone(if kind.is_websocket() { &current.web } else { &current.stream })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn stamp_of(settings: &TlsSettings) -> Stamp {
    [Some(&settings.cert), Some(&settings.key), settings.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| std::fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok())
        .collect()
}
