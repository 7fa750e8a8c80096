//! The accept loop over plain TCP and under hostile handshakes.

use std::time::Duration;

use landfall_event::RefusedDetail;
use landfall_net::{BindError, LimitReached, Limits, Listener, Refusal, StreamKind};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Authority, Client, Files, House, closed, echoes, hasty, within};

#[tokio::test]
async fn both_address_families_are_served() {
    for endpoint in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://localhost:0"] {
        let house = House::open(endpoint, None).await;
        let mut client = house.connect().await;
        echoes(&mut client, b"hello").await;
        let seen = house.echo.wait_for(|seen| seen.served.len() == 1).await;
        assert_eq!(seen.served[0], (client.local_addr().unwrap(), StreamKind::Tcp, None));
        assert_eq!(house.gate.open(), 1);
        drop(client);
        house.echo.wait_for(|seen| seen.ended == 1).await;
        house.end().await;
    }
}

#[tokio::test]
async fn an_ipv4_peer_of_an_ipv6_socket_is_told_as_ipv4() {
    let house = House::open("tcp://[::]:0", None).await;
    let mut client = TcpStream::connect(("127.0.0.1", house.at.port())).await.unwrap();
    echoes(&mut client, b"x").await;
    let seen = house.echo.wait_for(|seen| seen.served.len() == 1).await;
    assert_eq!(seen.served[0].0, client.local_addr().unwrap());
    house.end().await;
}

#[tokio::test]
async fn a_drain_closes_every_connection_and_frees_the_port() {
    let house = House::open("tcp://127.0.0.1:0", None).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = house.connect().await;
        echoes(&mut client, b"here").await;
        clients.push(client);
    }
    let at = house.at;
    house.scope.cancel();
    for client in &mut clients {
        assert_eq!(closed(client).await, b"");
    }
    drop(clients);
    house.end().await;
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens");
    let again = House::open(&format!("tcp://{at}"), None).await;
    echoes(&mut again.connect().await, b"again").await;
    again.end().await;
}

#[tokio::test]
async fn an_address_in_use_and_a_missing_certificate_are_told_with_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
    let error = Listener::bind(&endpoint.parse().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, BindError::Bind { .. }));
    assert!(error.to_string().contains(&endpoint), "{error}");
    let error = Listener::bind(&"wss://127.0.0.1:0".parse().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, BindError::NoTls { .. }));
    assert!(error.to_string().contains("wss:// needs tls.cert and tls.key"), "{error}");
}

#[tokio::test]
async fn the_limit_of_all_connections_holds_and_a_place_comes_back() {
    let limits = Limits { connections: 2, per_address: 0 };
    let house = House::with("tcp://127.0.0.1:0", None, limits, hasty()).await;
    let (mut first, mut second) = (house.connect().await, house.connect().await);
    echoes(&mut first, b"1").await;
    echoes(&mut second, b"2").await;
    assert_eq!(closed(&mut house.connect().await).await, b"");
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 1).await;
    assert_eq!(seen.refused, [Refusal::Limit(LimitReached::Connections)]);
    drop(first);
    house.echo.wait_for(|seen| seen.ended == 1).await;
    echoes(&mut house.connect().await, b"3").await;
    echoes(&mut second, b"still").await;
    house.end().await;
}

#[tokio::test]
async fn the_limit_of_one_address_leaves_the_others_alone() {
    let limits = Limits { connections: 100, per_address: 1 };
    let house = House::with("tcp://0.0.0.0:0", None, limits, hasty()).await;
    let from = async |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        within(socket.connect(format!("127.0.0.1:{}", house.at.port()).parse().unwrap())).await.unwrap()
    };
    let mut first = from("127.0.0.1").await;
    echoes(&mut first, b"1").await;
    assert_eq!(closed(&mut from("127.0.0.1").await).await, b"");
    echoes(&mut from("127.0.0.2").await, b"other").await;
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 1).await;
    assert_eq!(seen.refused, [Refusal::Limit(LimitReached::Address)]);
    echoes(&mut first, b"still").await;
    house.end().await;
}

#[tokio::test]
async fn a_panic_while_serving_ends_that_connection_only() {
    let house = House::open("tcp://127.0.0.1:0", None).await;
    let (mut good, mut bad) = (house.connect().await, house.connect().await);
    echoes(&mut good, b"before").await;
    bad.write_all(b"panic").await.unwrap();
    assert_eq!(closed(&mut bad).await, b"");
    echoes(&mut good, b"after").await;
    echoes(&mut house.connect().await, b"new").await;
    assert_eq!(house.scope.panics(), 1);
    // The permit of the panicked connection came back.
    within(async {
        while house.gate.open() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    house.end().await;
}

#[tokio::test]
async fn a_silent_client_delays_nobody_and_is_dropped_at_the_deadline() {
    let authority = Authority::new("ca");
    for endpoint in ["tls://127.0.0.1:0", "ws://127.0.0.1:0", "wss://127.0.0.1:0"] {
        let tls = Files::of(&authority.server()).load();
        let house = House::with(endpoint, Some(tls), Limits::default(), hasty()).await;
        let mut silent = house.connect().await;
        if endpoint.starts_with("tls") {
            let mut stream = Client::trusting(&authority).connect(house.at).await.unwrap();
            echoes(&mut stream, b"not delayed").await;
        }
        let began = std::time::Instant::now();
        assert_eq!(closed(&mut silent).await, b"");
        assert!(began.elapsed() < Duration::from_secs(5));
        let seen = house.echo.wait_for(|seen| !seen.refused.is_empty()).await;
        let of = if endpoint.starts_with("ws:") { Refusal::Malformed } else { Refusal::TlsFailed };
        assert_eq!(seen.refused, [of(RefusedDetail::TimedOut)], "{endpoint}");
        house.end().await;
    }
}

#[tokio::test]
async fn two_hundred_half_handshakes_cost_the_others_nothing() {
    let authority = Authority::new("ca");
    let tls = Files::of(&authority.server()).load();
    let house = House::with("tls://127.0.0.1:0", Some(tls), Limits::default(), hasty()).await;
    let mut halves = Vec::new();
    for length in 0..200 {
        let mut half = house.connect().await;
        // A record head that promises a handshake message which never comes whole.
        let mut bytes = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
        bytes.resize(1 + length, 0);
        half.write_all(&bytes).await.unwrap();
        halves.push(half);
    }
    let mut good = Client::trusting(&authority).connect(house.at).await.unwrap();
    echoes(&mut good, b"through").await;
    for half in &mut halves {
        closed(half).await;
    }
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 200).await;
    assert!(seen.refused.iter().all(|why| matches!(why, Refusal::TlsFailed(_))));
    echoes(&mut good, b"still").await;
    assert_eq!(house.gate.open(), 1, "only the good one is left");
    house.end().await;
}

#[tokio::test]
async fn a_client_that_goes_before_its_first_byte_is_not_reported() {
    let tls = Files::of(&Authority::new("ca").server()).load();
    let house = House::open("tls://127.0.0.1:0", Some(tls)).await;
    drop(house.connect().await);
    // A second one that does say something marks the point in time.
    let mut other = house.connect().await;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut other).await;
    let seen = house.echo.wait_for(|seen| !seen.refused.is_empty()).await;
    assert_eq!(seen.refused, [Refusal::TlsFailed(RefusedDetail::PlainBytes)]);
    drop(other);
    house.end().await;
}

#[tokio::test]
async fn a_cancel_ends_handshakes_that_are_under_way() {
    let tls = Files::of(&Authority::new("ca").server()).load();
    let house = House::open("tls://127.0.0.1:0", Some(tls)).await;
    let mut silent = house.connect().await;
    let mut half = house.connect().await;
    half.write_all(&[0x16, 3, 1]).await.unwrap();
    within(async {
        while house.gate.open() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let began = std::time::Instant::now();
    house.end().await;
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for the handshake deadline of 10 s");
    closed(&mut silent).await;
    closed(&mut half).await;
}
