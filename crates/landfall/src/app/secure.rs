//! DTLS: from the settings and the PEM files to what all channels share, and the new files while the gateway runs.
//!
//! Owns: what is offered to devices, each socket's share of the bounds. Does not own: reading the files (`landfall-net`),
//! the channels (`landfall-channel`).

use std::sync::Arc;

use landfall_channel::ChannelConfig;
use landfall_dtls::{Limits, ServerConfig};
use landfall_net::{ClientAuth, DtlsFiles, DtlsKeys, Following, Scope};
use tokio::sync::watch;

use super::parts::milliseconds;
use crate::Failure;
use crate::settings::{AuthMode, Settings};

/// What `dtls://` addresses need.
pub(super) struct Secure {
    config: Arc<ChannelConfig>,
    files: Option<DtlsFiles>,
    offer: Offer,
    server: watch::Sender<Arc<ServerConfig>>,
}

impl Secure {
    /// `None` where no address is for DTLS. Reads the files.
    pub(super) fn load(settings: &Settings) -> Result<Option<Self>, Failure> {
        let sockets = settings.dtls_sockets();
        if sockets == 0 {
            return Ok(None);
        }
        let loaded = settings.dtls.settings(&settings.tls, settings.auth.mode).map(DtlsFiles::load);
        let loaded = loaded.transpose().map_err(|error| Failure::Usage(error.to_string()))?;
        let (files, keys) = loaded.map_or((None, None), |(files, keys)| (Some(files), Some(keys)));
        let offer = Offer::of(settings);
        let (server, current) = watch::channel(offer.with(keys));
        let config = ChannelConfig {
            server: current,
            limits: limits(settings, sockets),
            max_vouched_per_device: settings.dtls.max_vouched_per_device.div_ceil(sockets),
            auth_timeout: settings.dtls.handshake_timeout,
        };
        Ok(Some(Self { config: Arc::new(config), files, offer, server }))
    }

    /// What all channels share.
    pub(super) fn config(&self) -> Arc<ChannelConfig> {
        Arc::clone(&self.config)
    }

    /// From now on new handshakes find what the files hold then.
    pub(super) fn watch(self, scope: &Scope, following: impl FnOnce() -> Following) {
        let (offer, server) = (self.offer, self.server);
        if let Some(files) = self.files {
            files.watch(scope, following(), move |keys| {
                server.send_replace(offer.with(Some(keys)));
            });
        }
    }
}

/// What devices are offered besides the certificate.
#[derive(Clone, Copy, Debug)]
struct Offer {
    psk: bool,
    client_auth: ClientAuth,
    mtu: usize,
    max_forged: u32,
}

impl Offer {
    fn of(settings: &Settings) -> Self {
        Self {
            psk: settings.auth.mode == AuthMode::Devices,
            client_auth: settings.dtls.client_auth(&settings.tls),
            mtu: settings.dtls.mtu,
            max_forged: u32::try_from(settings.dtls.max_forged).unwrap_or(ServerConfig::MOST_FORGED),
        }
    }

    fn with(self, keys: Option<DtlsKeys>) -> Arc<ServerConfig> {
        if keys.as_ref().is_some_and(|keys| keys.certificate.is_none()) {
            tracing::info!(
                "the key of the section [tls] is not for ECDSA: DTLS is for devices with a pre-shared key only"
            );
        }
        let (certificate, client_ca) = keys.map_or((None, None), |keys| (keys.certificate, keys.client_ca));
        Arc::new(ServerConfig {
            psk: self.psk,
            certificate,
            require_client_certificate: client_ca.is_some() && self.client_auth == ClientAuth::Required,
            client_ca,
            mtu: self.mtu,
            max_forged: self.max_forged,
        })
    }
}

/// What one of the sockets has of the bounds that hold in all.
fn limits(settings: &Settings, sockets: usize) -> Limits {
    let dtls = &settings.dtls;
    let share = |in_all: usize| in_all.div_ceil(sockets.max(1));
    Limits {
        max_sessions: share(dtls.max_sessions),
        max_handshakes: share(dtls.max_handshakes),
        max_handshakes_per_host: share(dtls.max_handshakes_per_address),
        max_per_host: share(dtls.max_per_address),
        handshake_timeout_ms: milliseconds(dtls.handshake_timeout),
        session_timeout_ms: milliseconds(dtls.session_timeout),
        alerts_per_second: u32::try_from(share(dtls.lost_alerts)).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::settings::{Environment, File};

    fn settings(text: &str) -> Settings {
        let file = File { path: "landfall.toml".into(), text: text.to_owned() };
        Settings::load(Some(&file), &Environment::default()).unwrap()
    }

    const DEVICES: &str = "[auth]\nmode = \"devices\"\n[udp]\nlisten = [\"dtls://127.0.0.1:0\"]\nsockets = 3\n\
                           [coap]\nlisten = [\"dtls://127.0.0.1:0\", \"udp://127.0.0.1:0\"]\nsockets = 2\n";

    /// A certificate of this key and the key, in a directory.
    fn files(directory: &Path, algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let cert = rcgen::CertificateParams::new(["gateway".to_owned()]).unwrap().self_signed(&key).unwrap();
        for (name, text) in [("key.pem", key.serialize_pem()), ("cert.pem", cert.pem())] {
            let new = directory.join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, directory.join(name)).unwrap();
        }
        let named = |section: &str| {
            let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
            format!("[{section}]\ncert = {cert:?}\nkey = {key:?}\n")
        };
        (named("tls"), named("dtls"))
    }

    fn offered(text: &str) -> Result<Arc<ServerConfig>, String> {
        let secure = Secure::load(&settings(text)).map_err(|failure| failure.to_string())?;
        Ok(Arc::clone(&secure.unwrap().config.server.borrow()))
    }

    #[test]
    fn without_an_address_nothing_is_read() {
        let none = Secure::load(&settings("[dtls]\ncert = \"nowhere\"\nkey = \"nowhere\"\n")).unwrap();
        assert!(none.is_none());
    }

    #[test]
    fn the_bounds_are_shared_out_among_the_sockets_of_dtls() {
        let text =
            format!("{DEVICES}[dtls]\nmax_sessions = 51\nmax_handshakes = 3\nsession_timeout = \"2m\"\n");
        let secure = Secure::load(&settings(&text)).unwrap().unwrap();
        let limits = secure.config().limits;
        assert_eq!((limits.max_sessions, limits.max_handshakes, limits.max_per_host), (11, 1, 3_277));
        assert_eq!((limits.handshake_timeout_ms, limits.session_timeout_ms), (30_000, 120_000));
        assert_eq!((limits.max_handshakes_per_host, limits.alerts_per_second), (103, 20));
        assert_eq!(secure.config().max_vouched_per_device, 1);
        let text = format!("{DEVICES}[dtls]\nmax_forged = 7\nlost_alerts = 0\nmax_vouched_per_device = 11\n");
        let secure = Secure::load(&settings(&text)).unwrap().unwrap();
        let config = secure.config();
        assert_eq!((config.limits.alerts_per_second, config.max_vouched_per_device), (0, 3));
        assert_eq!(config.server.borrow().max_forged, 7);
    }

    #[test]
    fn keys_are_for_known_devices_and_certificates_for_keys_that_fit() {
        let directory = tempfile::tempdir().unwrap();
        let open = "[coap]\nlisten = [\"dtls://127.0.0.1:0\"]\n";
        let (of_tls, own) = files(directory.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        let config = offered(DEVICES).unwrap();
        assert!(config.psk && config.certificate.is_none() && !config.require_client_certificate);
        for section in [&of_tls, &own] {
            let config = offered(&format!("{open}{section}")).unwrap();
            assert!(!config.psk && config.certificate.is_some() && config.client_ca.is_none());
            assert!(!config.require_client_certificate, "nobody says who signs them");
            let ca = format!("{section}client_ca = {:?}\n", directory.path().join("cert.pem"));
            let config = offered(&format!("{DEVICES}{ca}")).unwrap();
            assert!(config.psk && config.client_ca.is_some() && config.require_client_certificate);
            let config = offered(&format!("{DEVICES}{ca}client_auth = \"optional\"\n")).unwrap();
            assert!(config.client_ca.is_some() && !config.require_client_certificate);
        }
        let (of_tls, own) = files(directory.path(), &rcgen::PKCS_ED25519);
        let config = offered(&format!("{DEVICES}{of_tls}")).unwrap();
        assert!(config.psk && config.certificate.is_none(), "it is not meant for DTLS");
        for (text, setting) in
            [(format!("{open}{of_tls}"), "tls.key"), (format!("{DEVICES}{own}"), "dtls.key")]
        {
            let error = offered(&text).err().unwrap();
            assert!(
                error.contains(setting) && error.contains("key.pem") && error.contains("P-256"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn new_files_are_for_new_handshakes() {
        let directory = tempfile::tempdir().unwrap();
        let (_, own) = files(directory.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        let secure = Secure::load(&settings(&format!("{DEVICES}{own}"))).unwrap().unwrap();
        let mut server = secure.config().server.clone();
        let first = Arc::clone(&server.borrow_and_update());
        let scope = Scope::new();
        secure.watch(&scope, || Following::every(Duration::from_millis(20)));
        files(directory.path(), &rcgen::PKCS_ECDSA_P384_SHA384);
        tokio::time::timeout(Duration::from_secs(20), server.changed()).await.expect("in time").unwrap();
        let second = Arc::clone(&server.borrow());
        let chain = |config: &ServerConfig| config.certificate.as_ref().unwrap().cert.clone();
        assert!(chain(&first) != chain(&second) && second.psk && second.mtu == first.mtu);
        scope.cancel();
        scope.drain(Duration::from_secs(10)).await;
    }
}
