//! From a handshake to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_dtls::{Limits, ServerConfig};
use landfall_testkit::dtls::{DtlsClient, End, Secret};
use landfall_testkit::pki::Pki;

use crate::world::{Gate, KEY, Said};

#[tokio::test]
async fn a_key_opens_a_channel_and_data_goes_both_ways() {
    let mut gate = Gate::open().await;
    let (mut client, channel) = gate.device("a").await;
    client.send(b"up").await;
    gate.until("data", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Data(channel, b"up".to_vec())]);
    gate.channels.send(&gate.socket, channel, b"down").unwrap();
    assert_eq!(gate.serve(client.receive()).await.unwrap(), b"down");
    assert_eq!((gate.metric("sessions"), gate.metric("handshakes")), (1, 0));
    let suite = "handshakes_established_total{suite=\"TLS_PSK_WITH_AES_128_CCM_8\"}";
    assert_eq!((gate.metric(suite), gate.metric("cookies_total")), (1, 1));
    client.close().await;
    gate.until("the end", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Closed(channel, true)]);
    assert_eq!(gate.channels.get_mut(channel), None, "its words were given back");
    let error = gate.channels.send(&gate.socket, channel, b"late").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    assert_eq!(gate.metric("sessions"), 0);
}

#[tokio::test]
async fn an_end_that_is_ours_is_told_to_the_device_and_to_nobody_else() {
    let mut gate = Gate::open().await;
    let (mut a, of_a) = gate.device("a").await;
    let (mut b, _) = gate.device("b").await;
    gate.channels.close(&gate.socket, of_a);
    assert_eq!(gate.serve(a.ended()).await, End::Closed);
    gate.channels.close_all(&gate.socket);
    assert_eq!(gate.serve(b.ended()).await, End::Closed);
    assert_eq!(gate.take_said(), []);
    assert_eq!((gate.metric("sessions"), gate.channels.get_mut(of_a)), (0, None));
}

#[tokio::test]
async fn one_devices_lookup_makes_nobody_wait() {
    let mut gate = Gate::open().await;
    let mut slow = DtlsClient::new(gate.address, &Secret::psk("slow", KEY)).await;
    let auth = Arc::clone(&gate.auth);
    let mut shaking = std::pin::pin!(slow.handshake());
    let asked = std::future::poll_fn(|cx| {
        assert!(shaking.as_mut().poll(cx).is_pending());
        match auth.under_way.load(Ordering::SeqCst) {
            0 => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    });
    gate.serve(asked).await;
    assert_eq!((gate.metric("lookups"), gate.metric("handshakes")), (1, 1));
    let _quick = gate.device("a").await;
    auth.go.notify_one();
    gate.serve(shaking).await.unwrap();
    gate.until(
        "slow",
        |gate| matches!(gate.said.as_slice(), [Said::Opened(_, Some(device), _)] if device == "slow"),
    )
    .await;
    assert_eq!((gate.metric("lookups"), auth.under_way.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn another_handshake_at_the_address_is_told_before_the_end_of_what_it_replaces() {
    let mut gate = Gate::open().await;
    let (client, first) = gate.device("a").await;
    let mut again = client.beside(&Secret::psk("b", KEY));
    gate.serve(again.handshake()).await.unwrap();
    gate.until("both", |gate| gate.said.len() == 2).await;
    let said = gate.take_said();
    let [Said::Opened(second, Some(device), _), Said::Closed(closed, false)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!((device.as_str(), *closed), ("b", first));
    assert_ne!(*second, first);
    again.send(b"x").await;
    gate.until("data", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Data(*second, b"x".to_vec())]);
}

#[tokio::test]
async fn a_device_that_shakes_hands_elsewhere_has_its_newest_channel_alone() {
    let mut gate = Gate::open().await;
    let (mut before, first) = gate.device("a").await;
    let (_other, _) = gate.device("b").await;
    let secret = Secret::psk("a", KEY);
    let again = DtlsClient::connect(gate.address, &secret);
    let mut again = gate.serve(again).await;
    gate.until("both", |gate| gate.said.len() == 2).await;
    let said = gate.take_said();
    let [Said::Opened(second, Some(device), _), Said::Closed(closed, false)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!((device.as_str(), *closed), ("a", first));
    assert_eq!(gate.serve(before.ended()).await, End::Closed, "it is told");
    assert_eq!(gate.metric("sessions"), 2);
    again.send(b"x").await;
    gate.until("data", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Data(*second, b"x".to_vec())]);
}

#[tokio::test]
async fn silence_ends_a_channel_and_says_nothing_of_the_device() {
    let mut gate = Gate::with(|_, config| {
        config.limits = Limits { session_timeout_ms: 50, ..Limits::default() };
    })
    .await;
    let (_client, channel) = gate.device("a").await;
    gate.until("the end", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Closed(channel, false)]);
    assert_eq!(gate.metric("sessions"), 0);
}

fn certified(pki: &Pki, offer: &mut ServerConfig, is_required: bool) {
    let tls = pki.server();
    offer.certificate = Some(Arc::new(crate::world::certified(&tls.certificate_pem, &tls.key_pem)));
    offer.client_ca = Some(Arc::new(crate::world::roots(pki)));
    offer.require_client_certificate = is_required;
}

#[tokio::test]
async fn a_certificate_is_looked_up_by_its_name() {
    let pki = Pki::new();
    let mut gate = Gate::with(|offer, _| certified(&pki, offer, true)).await;
    let secret = Secret::certificate(&pki.client("b"));
    let client = DtlsClient::connect(gate.address, &secret);
    let _client = gate.serve(client).await;
    gate.until("b", |gate| !gate.said.is_empty()).await;
    let said = gate.take_said();
    assert!(
        matches!(said.as_slice(), [Said::Opened(_, Some(device), name)] if device == "b" && name == "b"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_new_configuration_is_for_new_handshakes() {
    let mut gate = Gate::open().await;
    let (mut client, channel) = gate.device("a").await;
    let pki = Pki::new();
    gate.server.send_modify(|server| {
        let mut offer = ServerConfig {
            psk: false,
            certificate: None,
            client_ca: None,
            require_client_certificate: false,
            mtu: 1_200,
            max_forged: 1_000,
        };
        certified(&pki, &mut offer, false);
        *server = Arc::new(offer);
    });
    let mut other = DtlsClient::new(gate.address, &Secret::psk("b", KEY)).await;
    // handshake_failure
    assert_eq!(gate.serve(other.handshake()).await, Err(End::Alert(40)));
    client.send(b"as before").await;
    gate.until("data", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Data(channel, b"as before".to_vec())]);
}

#[tokio::test]
async fn gauges_end_with_their_socket() {
    let mut gate = Gate::open().await;
    let _device = gate.device("a").await;
    assert_eq!(gate.metric("sessions"), 1);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &gate.drop_channels()).unwrap();
    assert!(text.contains("landfall_dtls_sessions 0"), "{text}");
}

/// Anybody who has a device's key can have it vouch for channel after channel: each device has few of them.
#[tokio::test]
async fn one_device_vouches_for_few_channels() {
    let pki = Pki::new();
    let mut gate = Gate::with(|offer, _| {
        certified(&pki, offer, false);
        offer.client_ca = None;
    })
    .await;
    let secret = Secret::certificate(&pki.client("whoever"));
    let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
    let tenant = landfall_event::TenantId::default();
    let mut opened = Vec::new();
    for device in [&other, &one, &one, &one] {
        let client = DtlsClient::connect(gate.address, &secret);
        let client = gate.serve(client).await;
        gate.until("it", |gate| gate.said.iter().any(|said| matches!(said, Said::Opened(..)))).await;
        let Some(Said::Opened(channel, None, _)) = gate.said.pop() else { panic!("{:?}", gate.said) };
        assert!(gate.channels.vouch(&gate.socket, channel, (&tenant, device)));
        assert!(gate.channels.vouch(&gate.socket, channel, (&tenant, device)), "once is enough");
        opened.push((client, channel));
    }
    let (_, oldest) = opened[1];
    gate.until("the end of its oldest", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Closed(oldest, false)]);
    assert_eq!(gate.serve(opened[1].0.ended()).await, End::Closed);
    assert_eq!((gate.metric("vouched"), gate.metric("vouched_closed_total")), (3, 1));
    // One that ends makes room for one.
    let (client, channel) = &mut opened[2];
    client.close().await;
    let channel = *channel;
    gate.until("an end", |gate| !gate.said.is_empty()).await;
    assert_eq!(gate.take_said(), [Said::Closed(channel, true)]);
    let client = DtlsClient::connect(gate.address, &secret);
    let _client = gate.serve(client).await;
    gate.until("it", |gate| !gate.said.is_empty()).await;
    let Some(Said::Opened(channel, None, _)) = gate.said.pop() else { panic!("{:?}", gate.said) };
    assert!(gate.channels.vouch(&gate.socket, channel, (&tenant, &one)));
    assert_eq!((gate.metric("vouched"), gate.metric("vouched_closed_total")), (3, 1));
}
