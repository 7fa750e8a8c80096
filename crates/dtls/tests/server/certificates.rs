//! Certificates of both sides.

use std::sync::Arc;

use dimpl::DtlsCertificate;
use landfall_dtls::{Engine, EngineEvent, Failure, Identity, ServerConfig, Stage};

use super::pki::Pki;
use super::world::{Verdict, World, certificate_client, psk_config};

const SUITE: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";

pub(crate) fn config(pki: &Pki, asks: bool, requires: bool) -> ServerConfig {
    ServerConfig {
        psk: false,
        certificate: Some(Arc::clone(&pki.server)),
        client_ca: asks.then(|| Arc::clone(&pki.roots)),
        require_client_certificate: requires,
        ..psk_config()
    }
}

/// A server that requires certificates, and the end that a handshake with it comes to.
fn refused(pki: &Pki, shown: DtlsCertificate, verdict: Verdict) -> Failure {
    let client = certificate_client(shown, 1_200);
    let mut world = World::new(config(pki, true, true), client).answering(Some(verdict));
    world.run_until(100);
    assert_eq!(world.server.stage(), Stage::Over);
    assert!(world.established().is_none() && world.told.data.is_empty());
    match world.told.events.last() {
        Some(EngineEvent::Failed(failure)) => *failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_is_not_asked_is_nobody() {
    let pki = Pki::new();
    let mut world = World::new(config(&pki, false, false), certificate_client(pki.client("x"), 1_200));
    world.shake();
    assert_eq!(world.established(), Some((None, SUITE)));
    world.assert_flows();
    world.close_server();
    world.run();
    assert!(world.client_closed);
}

#[test]
fn a_client_is_who_its_certificate_says() {
    let pki = Pki::new();
    let shown = pki.client("meter-7");
    let der = shown.certificate.clone();
    let mut world = World::new(config(&pki, true, true), certificate_client(shown, 1_200))
        .answering(Some(Verdict::Admitted));
    world.shake();
    assert_eq!(world.established(), Some((Some(Identity::Certificate(der.into())), SUITE)));
    world.assert_flows();
}

#[test]
fn a_certificate_waits_for_its_answer() {
    let pki = Pki::new();
    let client = certificate_client(pki.client("meter-7"), 1_200);
    let mut world = World::new(config(&pki, true, true), client).answering(None);
    world.run_until(1_700);
    assert_eq!((world.server.stage(), world.server.next_timeout()), (Stage::Shaking, None));
    world.answer(&Verdict::Admitted);
    world.shake();
    world.assert_flows();
}

#[test]
fn large_messages_are_cut_both_ways() {
    let pki = Pki::new();
    let config = ServerConfig { mtu: 256, ..config(&pki, true, true) };
    let client = certificate_client(pki.client(&"long".repeat(15)), 300);
    let mut world =
        World::new(config, client).answering(Some(Verdict::Admitted)).with_fate(|way, _, datagram| {
            assert!(way == super::world::Way::Up || datagram.len() <= 256, "{} bytes", datagram.len());
            super::world::Fate::Arrives
        });
    world.shake();
    assert!(world.sent() > 6);
    world.assert_flows();
}

#[test]
fn who_may_not_come_in_does_not() {
    let pki = Pki::new();
    assert_eq!(refused(&pki, pki.client("x"), Verdict::Refused), Failure::Refused);
    assert_eq!(refused(&pki, pki.client("x"), Verdict::Key(b"no answer".to_vec())), Failure::Refused);
    assert_eq!(refused(&pki, pki.client("x"), Verdict::Unavailable), Failure::Unavailable);
}

#[test]
fn a_certificate_of_another_ca_does_not_hold() {
    let (pki, other) = (Pki::new(), Pki::new());
    assert_eq!(refused(&pki, other.client("x"), Verdict::Admitted), Failure::Certificate);
}

#[test]
fn a_certificate_that_has_expired_does_not_hold() {
    let pki = Pki::new();
    assert_eq!(refused(&pki, pki.expired("x"), Verdict::Admitted), Failure::CertificateExpired);
}

#[test]
fn a_servers_certificate_is_no_clients() {
    let pki = Pki::new();
    assert_eq!(refused(&pki, pki.server_as_client(), Verdict::Admitted), Failure::Certificate);
}

#[test]
fn somebody_elses_certificate_does_not_hold() {
    let pki = Pki::new();
    let stolen = DtlsCertificate { private_key: pki.client("thief").private_key, ..pki.client("owner") };
    assert_eq!(refused(&pki, stolen, Verdict::Admitted), Failure::Certificate);
}
