//! Certificates for one test: an authority, a server, and clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A certificate with its key, as files and as text.
#[derive(Debug)]
pub struct Identity {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// The certificate's PEM.
    pub certificate_pem: String,
    /// The key's PEM.
    pub key_pem: String,
    /// The certificate's DER.
    pub der: Vec<u8>,
}

impl Identity {
    /// The certificate's SHA-256 fingerprint as `openssl x509 -fingerprint` writes it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(&self.der);
        digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// An authority of one test, its files in a temporary folder.
#[derive(Debug)]
pub struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    authority: PathBuf,
    authority_pem: String,
    server: Identity,
}

impl Pki {
    /// A new authority and a server certificate for `localhost` and 127.0.0.1.
    ///
    /// # Panics
    /// When keys cannot be made or files cannot be written.
    pub fn new() -> Self {
        Self::named("a test's authority")
    }

    /// The same, the authority under this name.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn named(name: &str) -> Self {
        Self::with_server_key(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// The same, the server's key one for ECDSA on P-384.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn p384() -> Self {
        Self::with_server_key("a test's authority", &PKCS_ECDSA_P384_SHA384)
    }

    fn with_server_key(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let params = authority(name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority_pem = certificate.pem();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, &authority_pem).expect("the temporary folder can be written");
        let issuer = Issuer::new(params, key);
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let server = issue(folder.path(), "server", &params, &key, &issuer);
        Self { folder, issuer, authority: file, authority_pem, server }
    }

    /// The authority's certificate file.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The server's certificate and key.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// A client certificate whose subject's common name is `name`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn client(&self, name: &str) -> Identity {
        self.issue("client", &client(name), &self.issuer)
    }

    /// A client certificate that was good until 2020.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn expired(&self, name: &str) -> Identity {
        let mut params = client(name);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.issue("expired", &params, &self.issuer)
    }

    /// A client certificate that is a server's, by its extended key usage.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn for_servers(&self, name: &str) -> Identity {
        let mut params = client(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue("server", &params, &self.issuer)
    }

    /// A client certificate of an authority below this one. The file holds both, the client's first.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn client_by_branch(&self, name: &str) -> Identity {
        let params = authority("a test's branch");
        let key = KeyPair::generate().expect("a key");
        let branch = params.signed_by(&key, &self.issuer).expect("a certificate");
        let mut identity = self.issue("branch", &client(name), &Issuer::new(params, key));
        identity.certificate_pem += &branch.pem();
        std::fs::write(&identity.certificate, &identity.certificate_pem)
            .expect("the temporary folder can be written");
        identity
    }

    fn issue(&self, prefix: &str, params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Identity {
        let name = params.distinguished_name.get(&DnType::CommonName);
        let name = format!("{name:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let key = KeyPair::generate().expect("a key");
        issue(self.folder.path(), &format!("{prefix}-{name}"), params, &key, issuer)
    }

    /// A TLS client that trusts this authority, and shows `identity` when there is one.
    pub fn client_config(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        self.client_config_of(identity, rustls::ALL_VERSIONS)
    }

    /// The same with a choice of TLS versions.
    ///
    /// # Panics
    /// When the certificates cannot be used.
    pub fn client_config_of(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority_pem.as_bytes()).expect("own PEM");
        roots.add(authority).expect("own certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that ring speaks")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("own PEM");
                let certificate = CertificateDer::from(identity.der.clone());
                builder.with_client_auth_cert(vec![certificate], key).expect("own certificate")
            }
        };
        Arc::new(config)
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

/// What an authority says of itself.
fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What a client says of itself.
fn client(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn issue(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
) -> Identity {
    let certificate = params.signed_by(key, issuer).expect("a certificate");
    let identity = Identity {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        der: certificate.der().to_vec(),
    };
    std::fs::write(&identity.certificate, &identity.certificate_pem)
        .expect("the temporary folder can be written");
    std::fs::write(&identity.key, &identity.key_pem).expect("the temporary folder can be written");
    identity
}
