//! What a PEM file holds: certificates, a private key.
//!
//! Owns: reading one file, within a bound, and what is told of a bad one: never what it holds. Does not own: what the parts
//! make together (`config`, `dtls`), when a file is read (`files`).

use std::io::Read as _;
use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// The most that a PEM file may hold, bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The certificates of a file, at least one.
pub(super) fn read_certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_file(setting, path)?;
    let certs: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let unusable = |problem: String| TlsError::Unusable { setting, path: path.to_owned(), problem };
    let certs = certs.map_err(|e| unusable(format!("it is no PEM: {}", what_of(&e))))?;
    if certs.is_empty() {
        return Err(unusable("it holds no CERTIFICATE block".to_owned()));
    }
    Ok(certs)
}

/// Who may have issued a certificate.
pub(super) fn read_roots(setting: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in read_certificates(setting, path)? {
        roots.add(cert).map_err(|error| TlsError::Unusable {
            setting,
            path: path.to_owned(),
            problem: format!("a certificate in it cannot be used: {error}"),
        })?;
    }
    Ok(roots)
}

/// The first private key of a file.
pub(super) fn read_key(setting: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read_file(setting, path)?;
    let unusable =
        |problem: &str| TlsError::Unusable { setting, path: path.to_owned(), problem: problem.to_owned() };
    if find(&text, b"ENCRYPTED") {
        return Err(unusable("its key is encrypted; an unencrypted one is needed"));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => unusable("it holds no PRIVATE KEY block"),
        other => unusable(&format!("it is no PEM: {}", what_of(&other))),
    })
}

/// The kind of the fault only: the library's own text may quote the file.
fn what_of(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a block has no end line",
        pem::Error::IllegalSectionStart { .. } => "a block's first line is malformed",
        pem::Error::Base64Decode(_) => "a block is no base64",
        _ => "it cannot be parsed",
    }
}

fn read_file(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { setting, path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        let problem = format!("it is larger than {MAX_FILE} bytes");
        return Err(TlsError::Unusable { setting, path: path.to_owned(), problem });
    }
    Ok(text)
}

fn find(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|w| w == word)
}
