//! The DTLS client of the tests and the way that cuts handshakes to pieces, against servers that others wrote: what judges
//! the gateway must itself be right.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use landfall_testkit::coap::{CoapClient, Message, code, method};
use landfall_testkit::dtls::recut::Cut;
use landfall_testkit::dtls::{DtlsClient, End, Pace, Secret};
use landfall_testkit::interop::dtls::{Build, coap_server, openssl_server};
use landfall_testkit::process::{Process, Signal};
use landfall_testkit::{Faults, PATIENCE, Pki, UdpProxy, eventually};

const KEY: &[u8] = b"sesame-sesame-16";

/// A port that was free a moment ago, as was the one above: these servers take no port 0.
fn ports() -> SocketAddr {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Some(above) = first.port().checked_add(1) else { continue };
        if UdpSocket::bind(("127.0.0.1", above)).is_ok() {
            return first;
        }
    }
}

/// libcoap's server with PSK and where its DTLS is; `None` when it is not installed.
fn coaps(build: Build) -> Option<(Process, SocketAddr)> {
    let at = ports();
    let server = coap_server(build, at.port(), &["-d", "10", "-k", std::str::from_utf8(KEY).unwrap()])?;
    Some((server, (at.ip(), at.port() + 1).into()))
}

/// OpenSSL's server with PSK, or with a certificate of this authority.
async fn openssl(pki: Option<&Pki>) -> Option<(Process, SocketAddr)> {
    let at = ports();
    let server = match pki {
        None => {
            let key: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
            openssl_server(at.port(), &["-nocert", "-psk", &key, "-cipher", "ALL:@SECLEVEL=0"])?
        }
        Some(pki) => {
            let [cert, key] =
                [&pki.server().certificate, &pki.server().key].map(|path| path.to_str().unwrap());
            let authority = pki.authority().to_str().unwrap();
            openssl_server(at.port(), &["-cert", cert, "-key", key, "-Verify", "2", "-CAfile", authority])?
        }
    };
    server.logged("ACCEPT", PATIENCE).await;
    Some((server, at))
}

/// A client that is patient with a server that has only just begun to listen.
async fn shake(server: SocketAddr, secret: &Secret) -> DtlsClient {
    let pace = Pace { again: Duration::from_millis(100), retransmits: 6, ..Pace::default() };
    eventually(PATIENCE, "a handshake", async || {
        let mut client = DtlsClient::paced(server, secret, pace).await;
        client.handshake().await.ok().map(|()| client)
    })
    .await
}

#[tokio::test]
async fn coap_over_psk_with_both_libraries() {
    for build in [Build::OpenSsl, Build::GnuTls] {
        let Some((server, at)) = coaps(build) else { return };
        let client = shake(at, &Secret::psk("me", KEY)).await;
        assert!(client.peer_certificate().is_none());
        let mut client = CoapClient::secure(client, 1);
        assert_eq!(client.put("kept", &[], "value").await.code_text(), "2.01", "{build:?}");
        assert_eq!(client.get("kept", &[]).await.text(), "value");
        let body = vec![b'x'; 5_000];
        let put = Message::request(method::PUT).path("example_data");
        assert_eq!(client.upload(&put, &body, 6).await.code >> 5, 2);
        let read = client.download(&Message::request(method::GET).path("example_data")).await;
        assert!(read.code == code(2, 5) && read.payload == body);
        let (time, _) = client.observe("time", &[]).await;
        client.notification(&time).await;
        // Its end is one in order for its clients.
        server.signal(Signal::INT);
        assert_eq!(client.channel().ended().await, End::Closed, "{build:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_says_how() {
    let pki = Pki::new();
    let Some((_server, at)) = openssl(Some(&pki)).await else { return };
    let mut client = DtlsClient::new(at, &Secret::psk("me", KEY)).await;
    // The server has a certificate only: handshake_failure.
    assert_eq!(client.handshake().await.unwrap_err(), End::Alert(40));
    // OpenSSL drops what it cannot decipher, and so says nothing to a wrong key.
    let Some((_server, at)) = openssl(None).await else { return };
    let pace = Pace { again: Duration::from_millis(50), retransmits: 2, ..Pace::default() };
    let mut client = DtlsClient::paced(at, &Secret::psk("me", b"another"), pace).await;
    assert_eq!(client.handshake().await.unwrap_err(), End::Silent);
}

#[tokio::test]
async fn words_go_both_ways() {
    let Some((server, at)) = openssl(None).await else { return };
    let mut client = shake(at, &Secret::psk("Client_identity", KEY)).await;
    client.send(b"a word to the server\n").await;
    server.logged("a word to the server", PATIENCE).await;
    server.say("a word to the client\n");
    assert_eq!(client.receive().await.unwrap(), b"a word to the client\n");
}

#[tokio::test]
async fn certificates_both_ways() {
    let pki = Pki::new();
    let Some((server, at)) = openssl(Some(&pki)).await else { return };
    let secret = Secret::certificate(&pki.client("pump"));
    let mut client = shake(at, &secret).await;
    assert_eq!(client.peer_certificate().unwrap(), pki.server().der);
    client.send(b"hello\n").await;
    server.logged("hello", PATIENCE).await;
    assert!(server.log().contains("pump"), "{}", server.log());
    client.close().await;
    server.logged("DONE", PATIENCE).await;
}

#[tokio::test]
async fn a_handshake_in_pieces_is_a_handshake() {
    let pki = Pki::new();
    let Some((server, at)) = openssl(Some(&pki)).await else { return };
    let proxy = UdpProxy::start(at, 7, Faults::NONE).await;
    // OpenSSL takes no empty piece of what is not empty.
    proxy.cut(Cut { empty: 0, ..Cut::FINE });
    let mut client = shake(proxy.address(), &Secret::certificate(&pki.client("pump"))).await;
    client.send(b"hello\n").await;
    server.logged("hello", PATIENCE).await;
    assert!(proxy.pieces() > 30, "{}", proxy.pieces());
}

#[tokio::test]
async fn loss_both_ways_is_made_up_for() {
    let Some((_server, at)) = coaps(Build::GnuTls) else { return };
    let proxy = UdpProxy::start(at, 3, Faults { loss: 0.2, ..Faults::NONE }).await;
    let secret = Secret::psk("me", KEY);
    let shaken = (0..5).map(|_| shake(proxy.address(), &secret));
    assert_eq!(futures_util::future::join_all(shaken).await.len(), 5);
    let (there, back) = proxy.counts();
    assert!(there.lost + back.lost > 2, "{there:?} {back:?}");
}
