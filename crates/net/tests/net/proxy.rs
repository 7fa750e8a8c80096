//! Behind a balancer that tells whose connection it is.

use landfall_net::{LimitReached, Limits, Refusal, StreamKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Authority, Client, Files, House, echoes, within};

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\r\n";

fn version_2(last: u8) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [&signature[..], &[0x21, 0x11, 0, 12, 192, 0, 2, last, 192, 0, 2, 1, 0x9C, 0x40, 7, 0x5B]].concat()
}

async fn dial(house: &House, header: &[u8]) -> TcpStream {
    let mut stream = house.connect().await;
    within(stream.write_all(header)).await.unwrap();
    stream
}

#[tokio::test]
async fn the_address_that_a_balancer_tells_is_the_clients_on_every_kind_of_stream() {
    let authority = Authority::new("ca");
    let files = Files::of(&authority.server());
    for (kind, header) in
        [("tcp", LINE.to_vec()), ("tcp", version_2(7)), ("tls", LINE.to_vec()), ("tls", version_2(7))]
    {
        let tls = (kind == "tls").then(|| files.load());
        let house =
            House::behind(&format!("{kind}://127.0.0.1:0"), tls, "127.0.0.0/8", Limits::default()).await;
        let mut stream = dial(&house, &header).await;
        if kind == "tls" {
            echoes(&mut Client::trusting(&authority).shake(stream).await.unwrap(), b"hello").await;
        } else {
            echoes(&mut stream, b"hello").await;
            drop(stream);
        }
        let seen = house.echo.wait_for(|seen| seen.served.len() == 1).await;
        assert_eq!(seen.served[0].0.to_string(), "192.0.2.7:40000");
        house.end().await;
    }
    let house = House::behind("ws://127.0.0.1:0", None, "127.0.0.1", Limits::default()).await;
    let request = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    let stream = dial(&house, &[LINE, request].concat()).await;
    let seen = house.echo.wait_for(|seen| seen.served.len() == 1).await;
    assert_eq!(
        (seen.served[0].0.to_string().as_str(), seen.served[0].1),
        ("192.0.2.7:40000", StreamKind::Ws)
    );
    drop(stream);
    house.end().await;
}

#[tokio::test]
async fn a_header_that_is_missing_broken_or_late_is_refused_and_counted() {
    let house = House::behind("tcp://127.0.0.1:0", None, "127.0.0.1/32", Limits::default()).await;
    let connect = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
    for bytes in [&connect[..], b"PROXY TCP4 nowhere\r\n", &[b'P'; 300], b"PROXY TCP4 192.0."] {
        let mut stream = dial(&house, bytes).await;
        let mut said = Vec::new();
        // A reset ends it as well: there are bytes that nobody reads.
        let _ = within(stream.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "{said:02x?}");
    }
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 4).await;
    assert_eq!(seen.refused, [Refusal::NoProxyHeader; 4]);
    assert!(seen.served.is_empty());
    // A balancer that looks whether we live opens, and closes.
    drop(house.connect().await);
    echoes(&mut dial(&house, LINE).await, b"hello").await;
    assert_eq!(house.echo.wait_for(|seen| seen.served.len() == 1).await.refused.len(), 4);
    house.end().await;
}

#[tokio::test]
async fn from_others_nothing_is_believed() {
    let house = House::behind("tcp://127.0.0.1:0", None, "192.0.2.0/24", Limits::default()).await;
    let mut stream = dial(&house, b"").await;
    echoes(&mut stream, LINE).await;
    let seen = house.echo.wait_for(|seen| seen.served.len() == 1).await;
    assert_eq!(
        seen.served[0].0,
        stream.local_addr().unwrap(),
        "its own address, and the header is the protocol's to refuse"
    );
    drop(stream);
    house.end().await;
}

#[tokio::test]
async fn the_bound_of_one_address_is_the_clients_and_not_the_balancers() {
    let limits = Limits { connections: 9, per_address: 1 };
    let house = House::behind("tcp://127.0.0.1:0", None, "127.0.0.1", limits).await;
    let mut held = Vec::new();
    for last in 1..=4 {
        let mut stream = dial(&house, &version_2(last)).await;
        echoes(&mut stream, b"hello").await;
        held.push(stream);
    }
    let mut fifth = dial(&house, &version_2(4)).await;
    let _ = within(fifth.read_to_end(&mut Vec::new())).await;
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 1).await;
    assert_eq!(seen.refused, [Refusal::Limit(LimitReached::Address)]);
    drop((held, fifth));
    house.end().await;
}
