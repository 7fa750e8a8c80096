//! Certificates, of the server and of its clients.

use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;

use super::peer::{Peer, Pki, USUAL};
use crate::ServerConfig;
use crate::engine::{Answer, Engine, Failure, Stage};
use crate::handshake::{MessageType, Reader};
use crate::suite::Suite;

fn u24(length: usize) -> [u8; 3] {
    *u32::try_from(length).unwrap().to_be_bytes().last_chunk().unwrap()
}

fn chain(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let list: Vec<u8> = certificates.iter().flat_map(|one| [&u24(one.len())[..], one].concat()).collect();
    [&u24(list.len())[..], &list].concat()
}

fn greeted(config: ServerConfig) -> Peer {
    let mut peer = Peer::new(config, Suite::EcdsaCcm8);
    peer.greet(USUAL);
    peer
}

/// What stands in a CertificateVerify of all messages so far.
fn signed(peer: &Peer, pki: &Pki) -> Vec<u8> {
    let signer = pki.client.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    let signature = signer.sign(peer.transcript.bytes()).unwrap();
    [&[4, 3][..], &u16::try_from(signature.len()).unwrap().to_be_bytes(), &signature].concat()
}

#[test]
fn the_flight_is_whole_and_signed() {
    let mut peer = greeted(Pki::new().config);
    let kinds: Vec<u8> = peer.heard.iter().map(|(header, _)| header.kind.0).collect();
    assert_eq!(kinds, [2, 11, 12, 13, 14]);
    let certificates = peer.heard[1].1.clone();
    let certificate = CertificateDer::from(Reader(&certificates[3..]).vec24().unwrap().to_vec());
    let exchange = peer.heard[2].1.clone();
    let (parameters, signature) = exchange.split_at(4 + 65);
    assert_eq!(parameters[..4], [3, 0, 23, 65]);
    let message = [&peer.randoms[0][..], &peer.randoms[1], parameters].concat();
    let mut reader = Reader(signature);
    let (scheme, signature) = (reader.u16().unwrap(), reader.vec16().unwrap());
    assert!(crate::certificate::is_signed(&certificate, scheme, &message, signature));
    assert_eq!(peer.heard[3].1, [1, 64, 0, 4, 4, 3, 5, 3, 0, 0]);
    let again = peer.record(crate::record::ContentType::HANDSHAKE, b"");
    peer.receive(again);
}

#[test]
fn a_certificate_with_its_proof() {
    let mut pki = Pki::new();
    let config = std::mem::replace(&mut pki.config, super::peer::psk_config());
    let mut peer = greeted(config);
    let certificate = peer.message(MessageType::CERTIFICATE, &chain(&pki.client.cert));
    let exchange = peer.ecdhe_key_exchange();
    let verify = signed(&peer, &pki);
    let verify = peer.message(MessageType::CERTIFICATE_VERIFY, &verify);
    let finished = peer.finished();
    // The wrong way round.
    let change = peer.change();
    for datagram in [finished, change, verify, exchange, certificate] {
        assert_eq!(peer.told.asked(), 0);
        peer.receive(datagram);
    }
    assert_eq!((peer.told.asked(), peer.server.stage()), (1, Stage::Shaking));
    peer.answer(Answer::Admitted);
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn a_certificate_without_its_proof() {
    for early in [true, false] {
        let mut pki = Pki::new();
        let config = std::mem::replace(&mut pki.config, super::peer::psk_config());
        let mut peer = greeted(config);
        let certificate = peer.message(MessageType::CERTIFICATE, &chain(&pki.client.cert));
        let exchange = peer.ecdhe_key_exchange();
        let finished = peer.finished();
        let order = if early { [finished, certificate, exchange] } else { [certificate, exchange, finished] };
        order.into_iter().for_each(|datagram| peer.receive(datagram));
        assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::Certificate), Some(10)));
        assert_eq!(peer.told.asked(), 0);
    }
}

#[test]
fn a_proof_of_something_else() {
    let mut pki = Pki::new();
    let config = std::mem::replace(&mut pki.config, super::peer::psk_config());
    let mut peer = greeted(config);
    let certificate = peer.message(MessageType::CERTIFICATE, &chain(&pki.client.cert));
    let early = signed(&peer, &pki);
    let exchange = peer.ecdhe_key_exchange();
    let verify = peer.message(MessageType::CERTIFICATE_VERIFY, &early);
    peer.receive([certificate, exchange, verify].concat());
    assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::Certificate), Some(51)));
}

#[test]
fn no_certificate_where_one_is_required() {
    let mut peer = greeted(Pki::new().config);
    let certificate = peer.message(MessageType::CERTIFICATE, &chain(&[]));
    peer.receive(certificate);
    assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::NoCertificate), Some(40)));
}

#[test]
fn no_certificate_where_none_is_required() {
    let config = ServerConfig { require_client_certificate: false, ..Pki::new().config };
    let mut peer = greeted(config);
    let certificate = peer.message(MessageType::CERTIFICATE, &chain(&[]));
    let exchange = peer.ecdhe_key_exchange();
    let finished = peer.finished();
    let change = peer.change();
    peer.receive([certificate, exchange, change, finished].concat());
    assert_eq!((peer.server.stage(), peer.told.asked()), (Stage::Established, 0));
}

#[test]
fn the_certificate_may_not_be_left_out() {
    let mut peer = greeted(Pki::new().config);
    let exchange = peer.ecdhe_key_exchange();
    peer.receive(exchange);
    assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::Malformed), Some(10)));
}

#[test]
fn certificates_that_cannot_be_read() {
    for body in [&[][..], &[0, 0], &[0, 0, 3, 0, 0, 0], &[0, 0, 4, 0, 0, 9, 1], &[0, 0, 0, 0]] {
        let mut peer = greeted(Pki::new().config);
        let datagram = peer.message(MessageType::CERTIFICATE, body);
        peer.receive(datagram);
        assert_eq!(
            (peer.told.failure(), peer.told.alert()),
            (Some(Failure::Malformed), Some(50)),
            "{body:?}"
        );
    }
    let mut peer = greeted(Pki::new().config);
    let datagram =
        peer.message(MessageType::CERTIFICATE, &chain(&[CertificateDer::from(&b"no certificate"[..])]));
    peer.receive(datagram);
    assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::Certificate), Some(42)));
}

#[test]
fn points_that_are_none() {
    for point in [&[][..], &[4; 65], &[0; 32], &[0]] {
        let config = ServerConfig { client_ca: None, require_client_certificate: false, ..Pki::new().config };
        let mut peer = greeted(config);
        let body = [&[u8::try_from(point.len()).unwrap()][..], point].concat();
        let datagram = peer.message(MessageType::CLIENT_KEY_EXCHANGE, &body);
        peer.receive(datagram);
        assert_eq!(
            (peer.told.failure(), peer.told.alert()),
            (Some(Failure::Malformed), Some(47)),
            "{point:?}"
        );
    }
}

#[test]
fn groups_and_schemes_that_nobody_has() {
    let end = |extensions: &[u8]| {
        let mut peer = Peer::new(Pki::new().config, Suite::EcdsaGcm);
        let body = peer.hello(&[Suite::EcdsaGcm.code(), Suite::EcdsaCcm8.code()], extensions);
        let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
        peer.receive(datagram);
        (peer.told.failure(), peer.told.alert())
    };
    let none = (Some(Failure::NoCommonSuite), Some(40));
    assert_eq!(end(&[0, 10, 0, 4, 0, 2, 0, 25]), none);
    assert_eq!(end(&[0, 13, 0, 4, 0, 2, 8, 7]), none, "Ed25519");
    assert_eq!(end(&[0, 13, 0, 4, 0, 2, 5, 3]), none, "another curve's");
    assert_eq!(end(&[0, 10, 0, 6, 0, 4, 0, 25, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3]), (None, None));
}

#[test]
fn a_certificate_that_nobody_can_have_signed_lets_nobody_in() {
    let config = ServerConfig { client_ca: None, require_client_certificate: true, ..Pki::new().config };
    let mut peer = Peer::new(config, Suite::EcdsaCcm8);
    let body = peer.hello(&[Suite::EcdsaCcm8.code()], USUAL);
    let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
    peer.receive(datagram);
    assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::NoCommonSuite), Some(40)));
}
