//! The CoAP client of the tests against a server that others wrote: what judges the gateway must itself be right.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::time::Duration;

use landfall_testkit::coap::{CoapClient, Message, Timing, Unanswered, code, kind, method, option};
use landfall_testkit::process::Process;
use landfall_testkit::{Faults, PATIENCE, UdpProxy, eventually, interop};

/// libcoap's server, answering; `None` when it is not installed and need not be.
async fn server() -> Option<(Process, SocketAddr)> {
    // It takes no port 0: one that was free a moment ago.
    let at = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = interop::coap_server(at.port(), &["-d", "10", "-e"])?;
    let quick = Timing { ack_timeout: Duration::from_millis(50), retransmits: 0, ..Timing::default() };
    eventually(PATIENCE, "a coap-server that listens", async || {
        let mut client = CoapClient::new(at, 1).await.timing(quick);
        client.ping().await.then_some(())
    })
    .await;
    Some((server, at))
}

#[tokio::test]
async fn requests_of_every_kind_are_answered() {
    let Some((_server, at)) = server().await else { return };
    let mut client = CoapClient::new(at, 2).await;
    let core = client.get(".well-known/core", &[]).await;
    assert_eq!((core.code, core.kind), (code(2, 5), kind::ACK));
    assert!(core.text().contains("</time>") && core.uint(option::CONTENT_FORMAT) == Some(40), "{core:?}");
    assert_eq!(client.put("kept", &[], "value").await.code_text(), "2.01");
    assert_eq!(client.get("kept", &[]).await.text(), "value");
    assert_eq!(client.delete("kept", &[]).await.code_text(), "2.02");
    assert_eq!(client.get("kept", &[]).await.code_text(), "4.04");
    // A second later, as a message of the server's own.
    let late = client.get("async", &["1"]).await;
    assert_eq!((late.kind, late.text().as_str()), (kind::CON, "done"));
    let non = client.request(Message::request(method::GET).path("time").non()).await;
    assert_eq!((non.kind, non.code), (kind::NON, code(2, 5)));
    assert!(client.ping().await && client.strays().is_empty());
}

#[tokio::test]
async fn bodies_go_and_come_in_blocks() {
    let Some((_server, at)) = server().await else { return };
    let mut client = CoapClient::new(at, 3).await;
    let body: Vec<u8> = (0..5000_u32).map(|i| (i % 251) as u8).collect();
    let put = Message::request(method::PUT).path("example_data");
    for exponent in [2, 6] {
        let stored = client.upload(&put, &body, exponent).await;
        assert_eq!(stored.code >> 5, 2, "{stored:?}");
        let read = client.download(&Message::request(method::GET).path("example_data")).await;
        assert_eq!(read.code, code(2, 5));
        assert!(read.payload == body);
    }
}

#[tokio::test]
async fn an_observation_goes_on_until_it_is_cancelled_or_reset() {
    let Some((_server, at)) = server().await else { return };
    let mut client = CoapClient::new(at, 4).await;
    let (time, first) = client.observe("time", &[]).await;
    let mut numbers = vec![first.uint(option::OBSERVE).unwrap()];
    for _ in 0..2 {
        numbers.push(client.notification(&time).await.uint(option::OBSERVE).unwrap());
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let last = client.cancel(&time).await;
    assert_eq!(last.value(option::OBSERVE), None);
    let (other, _) = client.observe("time", &[]).await;
    client.forget(&other);
    assert_eq!(client.stray().await.code, code(2, 5));
    assert!(client.ping().await && client.held().is_empty());
}

#[tokio::test]
async fn on_a_bad_way_every_request_has_its_answer() {
    let Some((_server, at)) = server().await else { return };
    let faults = Faults { loss: 0.3, duplicate: 0.2, delay: (0, 10), ..Faults::NONE };
    let proxy = UdpProxy::start(at, 11, faults).await;
    let timing = Timing {
        ack_timeout: Duration::from_millis(30),
        retransmits: 8,
        patience: PATIENCE,
        random_factor: 1.5,
    };
    let mut client = CoapClient::new(proxy.address(), 5).await.timing(timing);
    for i in 0..12 {
        let value = format!("{i}");
        assert_eq!(client.put("kept", &[], &value).await.code >> 5, 2);
        assert_eq!(client.get("kept", &[]).await.text(), value);
    }
    assert!(client.counts().retransmitted > 4, "{:?}", client.counts());
    proxy.set(Faults::CUT);
    let once = Timing { retransmits: 1, ..timing };
    let mut client = client.timing(once);
    assert_eq!(client.try_request(Message::request(method::GET)).await, Err(Unanswered::Silent));
}

#[tokio::test]
async fn raw_bytes_show_what_they_draw() {
    let Some((_server, at)) = server().await else { return };
    let mut client = CoapClient::new(at, 6).await;
    // A critical option that nobody knows: 4.02.
    let mut unknown = Message::request(method::GET).path("time").option(9, "?");
    unknown.id = client.id();
    let drawn = client.drawn_by(&unknown.encode()).await;
    assert_eq!(drawn.len(), 1);
    let answer = Message::decode(&drawn[0]).unwrap();
    assert_eq!((answer.code, answer.id), (code(4, 2), unknown.id));
    // A reset that nobody waits for draws nothing.
    let reset = Message::empty(kind::RST, client.id());
    assert!(client.drawn_by(&reset.encode()).await.is_empty());
}
