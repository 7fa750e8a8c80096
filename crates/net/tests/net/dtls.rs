//! The files of DTLS: which keys fit, what is told of those that do not, replacing them.

use std::time::Duration;

use landfall_net::{
    DatagramEndpoint, DatagramSettings, Datagrams, DtlsFiles, DtlsSettings, Following, PemFile, Scope,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tokio::sync::mpsc;

use crate::support::{Authority, Files, within};

fn settings(files: &Files) -> DtlsSettings {
    DtlsSettings {
        cert: PemFile { setting: "dtls.cert", path: files.path("cert.pem") },
        key: PemFile { setting: "dtls.key", path: files.path("key.pem") },
        ecdsa_needed: true,
        client_ca: None,
    }
}

#[test]
fn a_key_for_ecdsa_is_taken_and_another_is_left_out_or_refused() {
    let authority = Authority::new("ca");
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let files = Files::of(&authority.server_signing(algorithm));
        let (_, keys) = DtlsFiles::load(settings(&files)).unwrap();
        assert!(keys.certificate.is_some() && keys.client_ca.is_none(), "{keys:?}");
    }
    let files = Files::of(&authority.server_signing(&PKCS_ED25519));
    let error = DtlsFiles::load(settings(&files)).unwrap_err().to_string();
    assert!(error.contains("dtls.key") && error.contains("key.pem"), "{error}");
    assert!(error.contains("a key for ECDSA on P-256 or P-384"), "{error}");
    let (_, keys) = DtlsFiles::load(DtlsSettings { ecdsa_needed: false, ..settings(&files) }).unwrap();
    assert!(keys.certificate.is_none(), "{keys:?}");
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_the_setting_that_names_it() {
    let authority = Authority::new("ca");
    let (identity, other) = (authority.server(), authority.server());
    let files = Files::of(&identity);
    files.write("other.pem", &other.key);
    files.write("odd.pem", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    files.write("ca.pem", &authority.pem);
    let file = |setting, name| PemFile { setting, path: files.path(name) };
    let good = DtlsSettings { client_ca: Some(file("tls.client_ca", "ca.pem")), ..settings(&files) };
    let (_, keys) = DtlsFiles::load(good.clone()).unwrap();
    assert_eq!(format!("{keys:?}"), "DtlsKeys { certificate: true, client_ca: Some(1) }");
    for (settings, expected) in [
        (DtlsSettings { cert: file("dtls.cert", "none.pem"), ..good.clone() }, ["dtls.cert", "none.pem"]),
        (
            DtlsSettings { cert: file("dtls.cert", "key.pem"), ..good.clone() },
            ["dtls.cert", "no CERTIFICATE"],
        ),
        (DtlsSettings { key: file("tls.key", "cert.pem"), ..good.clone() }, ["tls.key", "no PRIVATE KEY"]),
        (DtlsSettings { key: file("tls.key", "odd.pem"), ..good.clone() }, ["tls.key", "cannot be used"]),
        (
            DtlsSettings { key: file("tls.key", "other.pem"), ..good.clone() },
            ["tls.key", "go with dtls.cert"],
        ),
        (
            DtlsSettings { client_ca: Some(file("dtls.client_ca", "none.pem")), ..good },
            ["dtls.client_ca", "none.pem"],
        ),
    ] {
        let error = DtlsFiles::load(settings).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("c2Vj") && !text.contains("secret"), "{text}");
        assert!(other.key.lines().filter(|l| !l.starts_with('-')).all(|line| !text.contains(line)), "{text}");
    }
}

#[tokio::test]
async fn new_files_are_handed_on_and_bad_ones_are_not() {
    let authority = Authority::new("ca");
    let files = Files::of(&authority.server());
    let (mut read, first) = DtlsFiles::load(settings(&files)).unwrap();
    assert!(read.reload_if_changed().unwrap().is_none());
    files.write("cert.pem", "");
    assert!(read.reload_if_changed().is_err());
    assert!(read.reload_if_changed().unwrap().is_none(), "it is told once");

    let scope = Scope::new();
    let (tell, mut told) = mpsc::channel(8);
    read.watch(&scope, Following::every(Duration::from_millis(20)), move |keys| tell.try_send(keys).unwrap());
    let identity = authority.server();
    files.write("key.pem", &identity.key);
    files.write("cert.pem", &identity.cert);
    let keys = within(told.recv()).await.unwrap();
    let chain = |keys: &landfall_net::DtlsKeys| keys.certificate.as_ref().unwrap().cert.clone();
    assert_ne!(chain(&keys), chain(&first));
    scope.cancel();
    assert!(scope.drain(Duration::from_secs(10)).await.is_clean());
}

#[tokio::test]
async fn a_secure_address_is_bound_as_a_plain_one_and_stays_what_it_is() {
    let endpoint: DatagramEndpoint = "dtls://127.0.0.1:0".parse().unwrap();
    let sockets = Datagrams::bind(&endpoint, DatagramSettings { sockets: 2, ..DatagramSettings::default() });
    let sockets = sockets.await.unwrap();
    for socket in &sockets {
        assert!(socket.endpoint().kind().is_dtls());
        assert_eq!(socket.endpoint().to_string(), format!("dtls://{}", sockets[0].local_addr()));
    }
}
