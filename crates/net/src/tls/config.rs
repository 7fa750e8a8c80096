//! The server configuration that the PEM files give.
//!
//! Owns: versions, client verification, ALPN, tickets. Does not own: reading the files (`pem`), and when.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};

use super::{ClientAuth, TlsError, TlsSettings, pem};

/// What rustls counts of a record's size beside its plaintext.
const RECORD_HEAD: usize = 5;

/// The configurations differ in what they call themselves (RFC 7301).
#[derive(Clone)]
pub(super) struct Configs {
    /// For `tls://`.
    pub(super) stream: Arc<ServerConfig>,
    /// For `wss://`.
    pub(super) web: Arc<ServerConfig>,
    /// For clients that name protocols of which none is ours: none is chosen, as if they had named none. Firmware that is made
    /// for another service names that service's.
    pub(super) unnamed: Arc<ServerConfig>,
}

/// Makes the configurations of what the files say.
pub(super) fn build(settings: &TlsSettings) -> Result<Configs, TlsError> {
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
        // A resumed session is not verified again: it would outlive its certificate, and a ticket would carry the whole chain.
        config.send_tls13_tickets = 0;
    }
    // Small devices have no room for the 16 KiB that a record may have.
    config.max_fragment_size = Some(settings.max_record + RECORD_HEAD);
    let unnamed = Arc::new(config.clone());
    let mut web = config.clone();
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    web.alpn_protocols = vec![b"http/1.1".to_vec(), b"mqtt".to_vec()];
    Ok(Configs { stream: Arc::new(config), web: Arc::new(web), unnamed })
}
