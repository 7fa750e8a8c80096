//! TLS 1.2 and 1.3 for stream listeners, from PEM files, replaceable while running; and the same files for DTLS.
//!
//! Owns: the settings' meaning, the server configuration, its reload, what a verified client certificate says.
//! Does not own: the handshake's deadline (`accept`), what a certificate entitles to, and DTLS itself (`landfall-dtls`).

mod certificate;
mod config;
mod dtls;
mod engine;
mod failure;
mod files;
mod hello;
mod pem;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Scope, Stream, StreamKind};
use parking_lot::RwLock;

use config::Configs;
use files::{Stamp, stamp_of};

pub use certificate::PeerCertificate;
pub use dtls::{DtlsFiles, DtlsKeys, DtlsSettings, PemFile};
pub(crate) use failure::detail_of;
pub use files::Following;
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
    /// `tls.max_record_size`: the most plaintext in one record that is sent, 512 to [`TlsSettings::LARGEST_RECORD`].
    pub max_record: usize,
}

impl TlsSettings {
    /// The most that TLS allows (RFC 8446 section 5.1).
    pub const LARGEST_RECORD: usize = engine::MAX_PLAINTEXT;

    fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// Why TLS or DTLS cannot be set up. Names the settings key, the path and what is wrong; never what a key file holds.
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
    configs: Configs,
    /// The files' state when they were last looked at.
    stamp: Stamp,
}

impl Tls {
    /// Reads the files and makes the first configuration. Blocks on the file system.
    ///
    /// # Errors
    /// [`TlsError`] names what to mend.
    pub fn load(settings: TlsSettings) -> Result<Arc<Self>, TlsError> {
        let stamp = stamp_of(settings.paths());
        let configs = config::build(&settings)?;
        Ok(Arc::new(Self { settings, current: RwLock::new(Current { configs, stamp }) }))
    }

    /// Reads the files again. New handshakes use what they say; connections that stand are left alone.
    ///
    /// # Errors
    /// [`TlsError`]; the configuration of before stays in use. Blocks on the file system.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamp = stamp_of(self.settings.paths());
        let built = config::build(&self.settings);
        let mut current = self.current.write();
        // Also after a failure: a broken file is told once, not at every look.
        current.stamp = stamp;
        current.configs = built?;
        Ok(())
    }

    /// Reloads if a file has changed since the last look. Says whether there was a change.
    ///
    /// # Errors
    /// As [`Tls::reload`].
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if stamp_of(self.settings.paths()) == self.current.read().stamp {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Starts a task that looks at the files and reloads them when they changed. A bad new file is logged as an error, once, and what
    /// was before stays in use.
    pub fn watch(self: &Arc<Self>, scope: &Scope, following: Following) {
        let tls = Arc::clone(self);
        files::watch(scope, following, self.settings.cert.clone(), move |in_any_case| {
            if in_any_case { tls.reload().map(|()| true) } else { tls.reload_if_changed() }
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
        let configs = self.current.read().configs.clone();
        let named = if kind.is_websocket() { configs.web } else { configs.stream };
        TlsStream::accept(stream, named, configs.unnamed).await
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}
