//! A listener with an echo behind it, certificates, and clients.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use landfall_net::{
    AcceptSettings, Accepted, ClientAuth, Exchanged, Gate, Limits, Listener, PeerCertificate, Refusal, Scope,
    Serve, Stream, StreamKind, Tls, TlsSettings, close, exchange,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring};

/// Waits for what must come, and fails when it does not.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes in time")
}

/// What the echo has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) served: Vec<(SocketAddr, StreamKind, Option<PeerCertificate>)>,
    pub(crate) ended: usize,
    pub(crate) refused: Vec<Refusal>,
}

/// Sends everything back; panics when it reads `panic`; ends when the peer does or the scope is cancelled.
pub(crate) struct Echo {
    scope: Scope,
    pub(crate) seen: watch::Sender<Seen>,
}

impl Echo {
    /// Waits until what was seen fits.
    pub(crate) async fn wait_for(&self, fits: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        within(seen.wait_for(fits)).await.expect("the echo lives").clone()
    }

    async fn echo<S: Stream>(&self, mut stream: S) {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        loop {
            let moved = tokio::select! {
                () = self.scope.cancelled() => break,
                moved = exchange(&mut stream, Some(&mut input), &mut output) => moved,
            };
            match moved {
                Ok(Exchanged::Read(_)) => {
                    assert!(!input.windows(5).any(|w| w == b"panic"), "asked to");
                    output.unsplit(std::mem::take(&mut input));
                }
                Ok(Exchanged::Wrote) => {}
                Ok(Exchanged::End) | Err(_) => break,
            }
        }
        while !output.is_empty() && exchange(&mut stream, None, &mut output).await.is_ok() {}
        close(stream, Duration::from_millis(500)).await;
    }
}

impl Serve for Echo {
    async fn serve<S: Stream>(self: Arc<Self>, connection: Accepted<S>) {
        let Accepted { stream, remote, kind, certificate, permit, .. } = connection;
        self.seen.send_modify(|seen| seen.served.push((remote, kind, certificate.map(|c| *c))));
        self.echo(stream).await;
        drop(permit);
        self.seen.send_modify(|seen| seen.ended += 1);
    }

    fn refused(&self, _: SocketAddr, _: StreamKind, why: Refusal) {
        self.seen.send_modify(|seen| seen.refused.push(why));
    }
}

/// A listener that is running.
pub(crate) struct House {
    pub(crate) scope: Scope,
    pub(crate) echo: Arc<Echo>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) at: SocketAddr,
}

impl House {
    pub(crate) async fn open(endpoint: &str, tls: Option<Arc<Tls>>) -> Self {
        Self::with(endpoint, tls, Limits::default(), AcceptSettings::default()).await
    }

    pub(crate) async fn with(
        endpoint: &str,
        tls: Option<Arc<Tls>>,
        limits: Limits,
        settings: AcceptSettings,
    ) -> Self {
        let listener = Listener::bind(&endpoint.parse().unwrap(), tls).await.unwrap();
        Self::at(listener, limits, settings)
    }

    /// Behind balancers on these networks.
    pub(crate) async fn behind(endpoint: &str, tls: Option<Arc<Tls>>, network: &str, limits: Limits) -> Self {
        let listener = Listener::bind(&endpoint.parse().unwrap(), tls).await.unwrap();
        let network: landfall_net::Network = network.parse().unwrap();
        Self::at(listener.behind(Arc::from([network])), limits, hasty())
    }

    fn at(listener: Listener, limits: Limits, settings: AcceptSettings) -> Self {
        let endpoint = listener.endpoint().port();
        let at = listener.local_addr().unwrap();
        assert_eq!(endpoint, at.port());
        let scope = Scope::new();
        let echo = Arc::new(Echo { scope: scope.clone(), seen: watch::Sender::default() });
        let gate = Gate::new(limits);
        listener.run(&scope, Arc::clone(&echo), Arc::clone(&gate), settings);
        Self { scope, echo, gate, at }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.at)).await.unwrap()
    }

    pub(crate) async fn end(self) {
        let drained = self.scope.drain(Duration::from_secs(10)).await;
        assert!(drained.is_clean(), "{drained:?}");
        assert_eq!(self.gate.open(), 0);
    }
}

/// A short handshake deadline, for the tests that wait for it.
pub(crate) fn hasty() -> AcceptSettings {
    AcceptSettings { handshake_timeout: Duration::from_millis(1500) }
}

/// Sends and expects the same back.
pub(crate) async fn echoes<S: Stream>(stream: &mut S, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.unwrap();
    within(stream.flush()).await.unwrap();
    let mut back = vec![0; bytes.len()];
    within(stream.read_exact(&mut back)).await.unwrap();
    assert!(back == bytes, "the same comes back");
}

/// Expects that the peer has closed, orderly or not, and returns what came before.
pub(crate) async fn closed<S: Stream>(stream: &mut S) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    rest
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn server(&self) -> Identity {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self.issue(CertificateParams::new(names).unwrap(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, common_name: &str) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server whose key is for this algorithm.
    pub(crate) fn server_signing(&self, algorithm: &'static SignatureAlgorithm) -> Identity {
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate_for(algorithm).unwrap();
        self.certify(params, ExtendedKeyUsagePurpose::ServerAuth, &key)
    }

    fn issue(&self, params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        self.certify(params, usage, &KeyPair::generate().unwrap())
    }

    fn certify(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        key: &KeyPair,
    ) -> Identity {
        params.extended_key_usages.push(usage);
        let cert = params.signed_by(key, &self.issuer).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// The files of a server in a directory of their own.
pub(crate) struct Files {
    dir: TempDir,
}

impl Files {
    pub(crate) fn of(identity: &Identity) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.write("cert.pem", &identity.cert);
        files.write("key.pem", &identity.key);
        files
    }

    /// Replaces a file in one step.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }

    pub(crate) fn settings(&self) -> TlsSettings {
        TlsSettings {
            max_record: 4_096,
            cert: self.path("cert.pem"),
            key: self.path("key.pem"),
            client_ca: None,
            client_auth: ClientAuth::Required,
        }
    }

    pub(crate) fn load(&self) -> Arc<Tls> {
        Tls::load(self.settings()).unwrap()
    }

    /// With clients verified against `authority`.
    pub(crate) fn load_mutual(&self, authority: &Authority, client_auth: ClientAuth) -> Arc<Tls> {
        self.write("ca.pem", &authority.pem);
        let client_ca = Some(self.path("ca.pem"));
        Tls::load(TlsSettings { client_ca, client_auth, ..self.settings() }).unwrap()
    }
}

/// How a TLS client behaves.
pub(crate) struct Client {
    config: ClientConfig,
}

impl Client {
    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self::speaking(authority, tokio_rustls::rustls::ALL_VERSIONS, None)
    }

    pub(crate) fn speaking(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { cert, key }) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        Self { config }
    }

    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) async fn connect(&self, at: SocketAddr) -> std::io::Result<ClientStream<TcpStream>> {
        self.shake(within(TcpStream::connect(at)).await?).await
    }

    /// Shakes hands over any stream.
    pub(crate) async fn shake<S: Stream>(&self, stream: S) -> std::io::Result<ClientStream<S>> {
        let name = ServerName::try_from("localhost").unwrap();
        within(TlsConnector::from(Arc::new(self.config.clone())).connect(name, stream)).await
    }
}
