//! Certificates for one test: an authority, a server, and clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority_pem = certificate.pem();
        let authority = folder.path().join("ca.pem");
        std::fs::write(&authority, &authority_pem).expect("the temporary folder can be written");
        let issuer = Issuer::new(params, key);
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = issue(folder.path(), "server", &params, &issuer);
        Self { folder, issuer, authority, authority_pem, server }
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
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let file = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        issue(self.folder.path(), &format!("client-{file}"), &params, &self.issuer)
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

fn issue(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
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
