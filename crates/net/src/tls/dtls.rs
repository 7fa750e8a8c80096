//! What DTLS proves itself by, from PEM files.
//!
//! Owns: which files there are, that the key fits the certificate and its suites, reading them again. Does not own: the
//! protocol (`landfall-dtls`), pre-shared keys (the authenticator).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureAlgorithm};

use super::files::{self, Following, Stamp};
use super::{TlsError, pem};
use crate::Scope;

const KEYS_NEEDED: &str = "DTLS needs a key for ECDSA on P-256 or P-384; dtls.cert and dtls.key can name others than tls.cert \
                           and tls.key";

/// A PEM file, and the settings key that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFile {
    /// The settings key, for errors.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// The files of DTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsSettings {
    /// The server's certificate, followed by its intermediates.
    pub cert: PemFile,
    /// Its private key: PKCS #8 or SEC1, not encrypted, for ECDSA on P-256 or P-384.
    pub key: PemFile,
    /// What becomes of a key that is for anything else: an error where this is true, else the certificate is left out.
    pub ecdsa_needed: bool,
    /// Who may have issued a client's certificate. Without it no client is asked for one.
    pub client_ca: Option<PemFile>,
}

impl DtlsSettings {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(|file| file.path.as_path())
    }
}

/// What the files held when they were read.
#[derive(Clone)]
pub struct DtlsKeys {
    /// The server's certificate with its key, which is for ECDSA on P-256 or P-384. `None` where it is for anything else.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Who may have issued a client's certificate.
    pub client_ca: Option<Arc<RootCertStore>>,
}

impl fmt::Debug for DtlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsKeys")
            .field("certificate", &self.certificate.is_some())
            .field("client_ca", &self.client_ca.as_ref().map(|roots| roots.len()))
            .finish()
    }
}

/// The files as they were when they were read last.
#[derive(Debug)]
pub struct DtlsFiles {
    settings: DtlsSettings,
    stamp: Stamp,
}

impl DtlsFiles {
    /// Reads the files. Blocks on the file system.
    ///
    /// # Errors
    /// [`TlsError`] names what to mend.
    pub fn load(settings: DtlsSettings) -> Result<(Self, DtlsKeys), TlsError> {
        let stamp = files::stamp_of(settings.paths());
        let keys = read(&settings)?;
        Ok((Self { settings, stamp }, keys))
    }

    /// Reads the files again if one of them has changed since the last look; `None` if none has. Blocks on the file system.
    ///
    /// # Errors
    /// As [`DtlsFiles::load`], once for each change.
    pub fn reload_if_changed(&mut self) -> Result<Option<DtlsKeys>, TlsError> {
        self.reload(false)
    }

    fn reload(&mut self, in_any_case: bool) -> Result<Option<DtlsKeys>, TlsError> {
        let stamp = files::stamp_of(self.settings.paths());
        if stamp == self.stamp && !in_any_case {
            return Ok(None);
        }
        // Also when they cannot be used: a broken file is told once, not at every look.
        self.stamp = stamp;
        read(&self.settings).map(Some)
    }

    /// Starts a task that looks at the files and gives `take` what they hold when they have changed. A bad new file is logged as an
    /// error, once, and `take` is not called.
    pub fn watch(mut self, scope: &Scope, following: Following, take: impl Fn(DtlsKeys) + Send + 'static) {
        files::watch(scope, following, self.settings.cert.path.clone(), move |in_any_case| {
            let keys = self.reload(in_any_case)?;
            Ok(keys.map(&take).is_some())
        });
    }
}

fn read(settings: &DtlsSettings) -> Result<DtlsKeys, TlsError> {
    let DtlsSettings { cert, key, ecdsa_needed, client_ca } = settings;
    let unusable =
        |problem: String| TlsError::Unusable { setting: key.setting, path: key.path.clone(), problem };
    let chain = pem::read_certificates(cert.setting, &cert.path)?;
    let private = pem::read_key(key.setting, &key.path)?;
    let roots = |file: &PemFile| pem::read_roots(file.setting, &file.path).map(Arc::new);
    let client_ca = client_ca.as_ref().map(roots).transpose()?;
    let private = ring::sign::any_supported_type(&private)
        .map_err(|error| unusable(format!("it cannot be used: {error}; {KEYS_NEEDED}")))?;
    let certified = CertifiedKey::new(chain, private);
    certified.keys_match().map_err(|error| {
        unusable(format!("it does not go with {} = {:?}: {error}", cert.setting, cert.path))
    })?;
    // Of the curves, ring signs with P-256 and P-384 only.
    let is_ecdsa = certified.key.algorithm() == SignatureAlgorithm::ECDSA;
    if *ecdsa_needed && !is_ecdsa {
        return Err(unusable(KEYS_NEEDED.to_owned()));
    }
    Ok(DtlsKeys { certificate: is_ecdsa.then(|| Arc::new(certified)), client_ca })
}
