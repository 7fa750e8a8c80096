//! A CA of one test, and what it signs.

use std::sync::Arc;

use dimpl::DtlsCertificate;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

pub(crate) struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) server: Arc<CertifiedKey>,
    /// The server's, in the form of a client's.
    server_shown: [Vec<u8>; 2],
    /// The CA's certificate.
    pub(crate) authority_pem: String,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let issuer = Issuer::new(params, key);
        let (leaf, leaf_key) = issue(&issuer, "localhost", ExtendedKeyUsagePurpose::ServerAuth, |_| ());
        let private = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&private).unwrap();
        let server = CertifiedKey::new(vec![leaf.der().clone()], key);
        let authority_pem = certificate.pem();
        Self {
            issuer,
            roots: Arc::new(roots),
            server: Arc::new(server),
            server_shown: [leaf.der().to_vec(), leaf_key.serialize_der()],
            authority_pem,
        }
    }

    pub(crate) fn client(&self, name: &str) -> DtlsCertificate {
        shown(issue(&self.issuer, name, ExtendedKeyUsagePurpose::ClientAuth, |_| ()))
    }

    /// Certificate and key in PEM.
    pub(crate) fn client_pem(&self, name: &str) -> [String; 2] {
        let (certificate, key) = issue(&self.issuer, name, ExtendedKeyUsagePurpose::ClientAuth, |_| ());
        [certificate.pem(), key.serialize_pem()]
    }

    pub(crate) fn expired(&self, name: &str) -> DtlsCertificate {
        shown(issue(&self.issuer, name, ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }))
    }

    pub(crate) fn server_as_client(&self) -> DtlsCertificate {
        let [certificate, private_key] = self.server_shown.clone();
        DtlsCertificate { certificate, private_key }
    }
}

fn shown((certificate, key): (Certificate, KeyPair)) -> DtlsCertificate {
    DtlsCertificate { certificate: certificate.der().to_vec(), private_key: key.serialize_der() }
}

fn issue(
    issuer: &Issuer<'static, KeyPair>,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
    change: impl FnOnce(&mut CertificateParams),
) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate, key)
}
