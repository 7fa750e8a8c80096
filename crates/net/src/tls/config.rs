//! The server configuration that the PEM files give.
//!
//! Owns: versions, client verification, ALPN, tickets. Does not own: when the files are read.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{ClientAuth, TlsError, TlsSettings};

/// The most that a PEM file may hold, bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The configurations for plain streams and for WebSocket: they differ in what they call themselves (RFC 7301).
pub(super) fn build(settings: &TlsSettings) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let certs = read_certificates("tls.cert", &settings.cert)?;
    let key = read_key("tls.key", &settings.key)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable = |problem: String| TlsError::Unusable {
                setting: "tls.client_ca",
                path: path.clone(),
                problem,
            };
            let mut roots = RootCertStore::empty();
            for cert in read_certificates("tls.client_ca", path)? {
                roots.add(cert).map_err(|e| unusable(format!("a certificate in it cannot be used: {e}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match settings.client_auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| unusable(e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|error| TlsError::Unusable {
        setting: "tls.key",
        path: settings.key.clone(),
        problem: format!("it does not go with tls.cert = {:?}: {error}", settings.cert),
    })?;
    // Nothing is kept per client: a ticket carries its session, sealed with a key that dies with this configuration.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if settings.client_ca.is_none() {
        config.ticketer = ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
    } else {
        // A resumed session is not verified again: it would outlive its certificate.
        config.send_tls13_tickets = 0;
    }
    let mut web = config.clone();
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    web.alpn_protocols = vec![b"http/1.1".to_vec(), b"mqtt".to_vec()];
    Ok((Arc::new(config), Arc::new(web)))
}

fn read_certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_file(setting, path)?;
    let certs: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let unusable = |problem: String| TlsError::Unusable { setting, path: path.to_owned(), problem };
    let certs = certs.map_err(|e| unusable(format!("it is no PEM: {}", what_of(&e))))?;
    if certs.is_empty() {
        return Err(unusable("it holds no CERTIFICATE block".to_owned()));
    }
    Ok(certs)
}

fn read_key(setting: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
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
