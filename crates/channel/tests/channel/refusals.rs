//! Who is not let in, and what is told of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_dtls::Limits;
use landfall_testkit::dtls::wire::{ClientHello, PSK_CCM_8};
use landfall_testkit::dtls::{DtlsClient, End, Secret};
use landfall_testkit::pki::Pki;

use crate::world::{Gate, KEY, short};

/// decrypt_error.
const DECRYPT_ERROR: u8 = 51;

async fn shake(gate: &mut Gate, secret: &Secret) -> Result<(), End> {
    let mut client = DtlsClient::new(gate.address, secret).await;
    gate.serve(client.handshake()).await
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_identity_look_the_same_to_whoever_tries() {
    let mut gate = Gate::open().await;
    for secret in [Secret::psk("a", [1; 16]), Secret::psk("nobody", KEY)] {
        assert_eq!(shake(&mut gate, &secret).await, Err(End::Alert(DECRYPT_ERROR)), "{secret:?}");
    }
    assert_eq!(gate.refusals(), ["bad-credentials coaps", "unknown-device coaps"]);
    assert_eq!(gate.metric("handshakes_failed_total{reason=\"wrong-key\"}"), 2);
    assert_eq!((gate.metric("handshakes"), gate.take_said()), (0, vec![]));
}

#[tokio::test]
async fn a_certificate_of_nobody_is_refused_with_the_authenticators_cause() {
    let pki = Pki::new();
    let mut gate = Gate::with(|offer, _| {
        let server = pki.server();
        let certified = crate::world::certified(&server.certificate_pem, &server.key_pem);
        offer.certificate = Some(Arc::new(certified));
        offer.client_ca = Some(Arc::new(crate::world::roots(&pki)));
        offer.require_client_certificate = true;
    })
    .await;
    let nobody = Secret::certificate(&pki.client("nobody"));
    assert!(shake(&mut gate, &nobody).await.is_err());
    assert_eq!(gate.refusals(), ["not-authorized coaps"]);
    let stranger = Secret::certificate(&Pki::new().client("a"));
    assert!(shake(&mut gate, &stranger).await.is_err());
    assert_eq!(gate.refusals(), ["not-authorized coaps", "tls-failed coaps"]);
}

#[tokio::test]
async fn an_authenticator_that_is_away_slow_or_broken_costs_one_handshake() {
    let mut gate = Gate::with(|_, config| config.auth_timeout = short(20)).await;
    for name in ["slow", "broken"] {
        assert!(shake(&mut gate, &Secret::psk(name, KEY)).await.is_err(), "{name}");
    }
    gate.auth.is_away.store(true, Ordering::SeqCst);
    assert!(shake(&mut gate, &Secret::psk("a", KEY)).await.is_err());
    gate.auth.is_away.store(false, Ordering::SeqCst);
    assert_eq!(gate.metric("handshakes_failed_total{reason=\"unavailable\"}"), 3);
    assert_eq!(gate.refusals(), ["tls-failed coaps"], "the others are told together, later");
    let _device = gate.device("a").await;
}

#[tokio::test]
async fn a_question_ends_with_its_handshake() {
    let mut gate = Gate::with(|_, config| {
        config.limits = Limits { handshake_timeout_ms: 300, ..Limits::default() };
    })
    .await;
    let mut client = DtlsClient::new(gate.address, &Secret::psk("slow", KEY)).await;
    let auth = Arc::clone(&gate.auth);
    let mut shaking = std::pin::pin!(client.handshake());
    let mut was_asked = false;
    let ended = std::future::poll_fn(|cx| {
        assert!(shaking.as_mut().poll(cx).is_pending());
        let asked = auth.under_way.load(Ordering::SeqCst);
        was_asked |= asked > 0;
        if was_asked && asked == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    gate.serve(ended).await;
    assert_eq!(
        (gate.metric("handshakes"), gate.metric("handshakes_failed_total{reason=\"timed-out\"}")),
        (0, 1)
    );
    assert_eq!(gate.refusals(), ["tls-failed coaps"]);
}

#[tokio::test]
async fn a_limit_and_another_version_are_told() {
    let mut gate = Gate::with(|_, config| {
        config.limits = Limits { max_sessions: 1, ..Limits::default() };
    })
    .await;
    let (client, _) = gate.device("a").await;
    let mut other = DtlsClient::new(gate.address, &Secret::psk("b", KEY)).await;
    let refused = "handshakes_failed_total{reason=\"limit\"}";
    gate.serve_until(other.handshake(), "the refusal", |gate| gate.metric(refused) == 1).await;
    assert_eq!((gate.refusals(), gate.metric("limited_total")), (vec!["limit-reached coaps".to_owned()], 1));
    let hello = ClientHello { version: [0xfe, 0xff], ..ClientHello::new(1, &[PSK_CCM_8]) };
    client.send_datagram(&hello.datagram(0)).await;
    gate.until("the other version", |gate| gate.metric("other_versions_total") == 1).await;
    assert_eq!(gate.refusals(), ["limit-reached coaps", "unsupported-version coaps"]);
    client.send_datagram(b"no record").await;
    gate.until("what is no record", |gate| gate.metric("bad_records_total{kind=\"malformed\"}") == 1).await;
}
