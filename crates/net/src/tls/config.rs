//! The server configuration that the PEM files give.
//!
//! Owns: versions, client verification, ALPN, tickets. Does not own: reading the files (`pem`), and when.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};

use super::{ClientAuth, TlsError, TlsSettings, pem};

/// The configurations for plain streams and for WebSocket: they differ in what they call themselves (RFC 7301).
pub(super) fn build(settings: &TlsSettings) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
    let certs = pem::read_certificates("tls.cert", &settings.cert)?;
    let key = pem::read_key("tls.key", &settings.key)?;
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
            let roots = Arc::new(pem::read_roots("tls.client_ca", path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
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
