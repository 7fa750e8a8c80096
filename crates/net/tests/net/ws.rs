//! The WebSocket upgrade and frames, with a client of other making, and by hand where it would not misbehave.

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use landfall_event::RefusedDetail;
use landfall_net::ws::{Origins, upgrade};
use landfall_net::{Exchanged, Limits, Refusal, Stream, StreamKind, exchange};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as ClientError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{Authority, Client, Files, House, closed, hasty, within};

async fn dial<S: Stream>(
    stream: S,
    path: &str,
    offer: Option<&str>,
) -> Result<WebSocketStream<S>, ClientError> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    if let Some(offer) = offer {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_str(offer).unwrap());
    }
    let (socket, response) = within(client_async(request, stream)).await?;
    let first = offer.and_then(|offer| offer.split(", ").find(|name| ["mqtt", "mqttv3.1"].contains(name)));
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], first.unwrap_or_default());
    Ok(socket)
}

async fn open(house: &House) -> WebSocketStream<TcpStream> {
    dial(house.connect().await, "/mqtt", Some("mqtt")).await.unwrap()
}

/// Reads binary messages until `n` bytes have come.
async fn payload<S: Stream>(socket: &mut WebSocketStream<S>, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < n {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Binary(more) => bytes.extend_from_slice(&more),
            other => panic!("{other:?}"),
        }
    }
    bytes
}

fn part(bytes: &[u8], opcode: Data, last: bool) -> Message {
    Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(opcode), last))
}

#[tokio::test]
async fn mqtt_is_served_at_its_paths_and_no_others() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    for (path, offer) in [
        ("/mqtt", "mqtt"),
        ("/", "mqttv3.1, mqtt"),
        ("/", "x, mqtt"),
        ("/", "mqttv3.1"),
        ("/mqtt?x=1", "mqtt"),
    ] {
        let mut socket = dial(house.connect().await, path, Some(offer)).await.unwrap();
        socket.send(Message::Binary(b"hello".to_vec().into())).await.unwrap();
        assert_eq!(payload(&mut socket, 5).await, b"hello");
    }
    for (path, offer, status) in [
        ("/mqtt", None, 400),
        ("/mqtt", Some("mqttv3.1.1"), 400),
        ("/mqtt", Some("MQTT"), 400),
        ("/x", Some("mqtt"), 404),
    ] {
        match dial(house.connect().await, path, offer).await {
            Err(ClientError::Http(response)) => assert_eq!(response.status(), status, "{path} {offer:?}"),
            other => panic!("{path} {offer:?}: {other:?}"),
        }
    }
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 4).await;
    let details = [RefusedDetail::NoSubprotocol, RefusedDetail::NoSubprotocol, RefusedDetail::NoSubprotocol];
    assert_eq!(seen.refused[..3], details.map(Refusal::Malformed));
    assert_eq!(seen.refused[3], Refusal::Malformed(RefusedDetail::NoPath));
    assert!(seen.served.iter().all(|(_, kind, _)| *kind == StreamKind::Ws));
    house.end().await;

    let house = House::open("ws://127.0.0.1:0/devices", None).await;
    assert!(dial(house.connect().await, "/devices", Some("mqtt")).await.is_ok());
    assert!(dial(house.connect().await, "/mqtt", Some("mqtt")).await.is_err());
    house.end().await;
}

/// A browser lets every page open a WebSocket to every host, and says whose page it is.
#[tokio::test]
async fn pages_of_another_host_are_turned_away() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    for (origin, served) in [
        (None, true),
        (Some("http://localhost"), true),
        (Some("https://evil.example"), false),
        (Some("null"), false),
    ] {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", HeaderValue::from_static(origin));
        }
        match within(client_async(request, house.connect().await)).await {
            Ok(_) => assert!(served, "{origin:?}"),
            Err(ClientError::Http(response)) => {
                assert_eq!((response.status().as_u16(), served), (403, false));
            }
            Err(other) => panic!("{origin:?}: {other}"),
        }
    }
    assert_eq!(house.echo.wait_for(|seen| seen.refused.len() == 2).await.refused, [Refusal::Origin; 2]);
    house.end().await;
}

#[tokio::test]
async fn it_is_served_over_tls_with_the_client_certificate() {
    let authority = Authority::new("ca");
    let tls = Files::of(&authority.server()).load_mutual(&authority, landfall_net::ClientAuth::Optional);
    let house = House::open("wss://[::1]:0", Some(tls)).await;
    let pump = authority.client("pump-17");
    let client = Client::speaking(&authority, tokio_rustls::rustls::ALL_VERSIONS, Some(&pump));
    let stream = client.offering(&["http/1.1"]).connect(house.at).await.unwrap();
    let mut socket = dial(stream, "/mqtt", Some("mqtt")).await.unwrap();
    let bytes = vec![0x5a; 300_000];
    socket.send(Message::Binary(bytes.clone().into())).await.unwrap();
    assert!(payload(&mut socket, bytes.len()).await == bytes);
    let seen = house.echo.wait_for(|seen| seen.served.len() == 1).await;
    let (_, kind, certificate) = &seen.served[0];
    assert_eq!(*kind, StreamKind::Wss);
    assert_eq!(certificate.as_ref().unwrap().common_name.as_deref(), Some("pump-17"));
    house.end().await;
}

#[tokio::test]
async fn packets_span_frames_and_frames_hold_packets() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    let mut socket = open(&house).await;
    for message in [
        part(b"one ", Data::Binary, false),
        part(b"", Data::Continue, false),
        part(b"two ", Data::Continue, false),
        Message::Ping(b"in between".to_vec().into()),
        part(b"three", Data::Continue, true),
        Message::Pong(b"unasked".to_vec().into()),
        part(b"", Data::Binary, true),
        part(b" four", Data::Binary, true),
    ] {
        socket.feed(message).await.unwrap();
    }
    socket.flush().await.unwrap();
    let (mut bytes, mut pongs) = (Vec::new(), Vec::new());
    while bytes.len() < 18 || pongs.is_empty() {
        match within(socket.next()).await.unwrap().unwrap() {
            Message::Binary(more) => bytes.extend_from_slice(&more),
            Message::Pong(pong) => pongs.push(pong),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, b"one two three four");
    assert_eq!(pongs, [&b"in between"[..]]);
    house.end().await;
}

#[tokio::test]
async fn a_text_frame_is_closed_with_1003() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    let mut socket = open(&house).await;
    socket.send(Message::Text("hello".into())).await.unwrap();
    match within(socket.next()).await.unwrap().unwrap() {
        Message::Close(Some(CloseFrame { code, .. })) => assert_eq!(code, CloseCode::Unsupported),
        other => panic!("{other:?}"),
    }
    house.echo.wait_for(|seen| seen.ended == 1).await;
    house.end().await;
}

#[tokio::test]
async fn closing_is_answered_from_either_side() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    let mut socket = open(&house).await;
    let close = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    socket.send(Message::Close(Some(close))).await.unwrap();
    match within(socket.next()).await.unwrap().unwrap() {
        Message::Close(Some(CloseFrame { code, .. })) => assert_eq!(code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    house.echo.wait_for(|seen| seen.ended == 1).await;

    let mut socket = open(&house).await;
    house.echo.wait_for(|seen| seen.served.len() == 2).await;
    house.scope.cancel();
    match within(socket.next()).await.unwrap().unwrap() {
        Message::Close(Some(CloseFrame { code, .. })) => assert_eq!(code, CloseCode::Normal),
        other => panic!("{other:?}"),
    }
    drop(socket);
    house.end().await;
}

/// Upgrades by hand, sends the bytes, and returns the close code that comes.
async fn close_code_after(house: &House, bytes: &[u8]) -> u16 {
    let mut stream = open(house).await.into_inner();
    within(stream.write_all(bytes)).await.unwrap();
    let mut head = [0; 4];
    within(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[..2], [0x88, 2], "a close frame with a code");
    u16::from_be_bytes([head[2], head[3]])
}

#[tokio::test]
async fn frames_that_break_the_rules_are_closed_with_the_reason() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    let huge = [&[0x82, 0xff], &(1_u64 << 40).to_be_bytes()[..], &[0; 4]].concat();
    let overflowing = [&[0x82, 0xff], &u64::MAX.to_be_bytes()[..], &[0; 4]].concat();
    for (bytes, code) in [
        (&huge[..], 1009),
        (&overflowing[..], 1009),
        (&[0x82, 0x01, 0x00][..], 1002),
        (&[0xc2, 0x80][..], 1002),
        (&[0x80, 0x80][..], 1002),
        (&[0x83, 0x80][..], 1002),
        (&[0x8b, 0x80][..], 1002),
        (&[0x09, 0x80][..], 1002),
        (&[0x89, 0xfe][..], 1002),
        (&[0x02, 0x80, 0, 0, 0, 0, 0x82][..], 1002),
        (&[0x88, 0x81, 0, 0, 0, 0, 3][..], 1002),
        (&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed][..], 1002),
        (&[0x88, 0x83, 0, 0, 0, 0, 0x03, 0xe8, 0xff][..], 1002),
        (&[0x81][..], 1003),
    ] {
        assert_eq!(close_code_after(&house, bytes).await, code, "{bytes:02x?}");
    }
    house.echo.wait_for(|seen| seen.ended == 14).await;
    house.end().await;
}

#[tokio::test]
async fn a_request_is_bounded_in_length_and_time() {
    let house = House::with("ws://127.0.0.1:0", None, Limits::default(), hasty()).await;
    let mut endless = house.connect().await;
    endless.write_all(b"GET /mqtt HTTP/1.1\r\n").await.unwrap();
    endless.write_all(format!("X: {}\r\n", "y".repeat(9000)).as_bytes()).await.unwrap();
    assert!(closed(&mut endless).await.starts_with(b"HTTP/1.1 431 "));
    let mut slow = house.connect().await;
    slow.write_all(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    assert_eq!(closed(&mut slow).await, b"");
    for (request, status) in [
        (&b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"[..], "400"),
        (b"POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        (b"GET /mqtt HTTP/1.0\r\n\r\n", "400"),
        (b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0\r\n\r\n", "400"),
        (b"GET /mqtt HTTP/1.1\r\nSec-WebSocket-Version: 8\r\n\r\n", "426"),
    ] {
        let mut client = house.connect().await;
        client.write_all(request).await.unwrap();
        let answer = String::from_utf8(closed(&mut client).await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 7).await;
    assert!(seen.served.is_empty());
    let details = [
        RefusedDetail::RequestTooLarge,
        RefusedDetail::TimedOut,
        RefusedDetail::NoUpgrade,
        RefusedDetail::NoUpgrade,
        RefusedDetail::NoUpgrade,
        RefusedDetail::NoUpgrade,
        RefusedDetail::WebSocketVersion,
    ];
    assert_eq!(seen.refused, details.map(Refusal::Malformed));
    house.end().await;
}

#[tokio::test]
async fn frames_that_come_with_the_request_are_not_lost() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    let mut client = house.connect().await;
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    let all = [request.as_bytes(), &[0x82, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]].concat();
    client.write_all(&all).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[0x82, 2, b'h', b'i']) {
        answer.push(within(client.read_u8()).await.unwrap());
    }
    // The key and its answer are the example of RFC 6455 section 1.3.
    assert!(String::from_utf8_lossy(&answer).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    drop(client);
    house.end().await;
}

#[tokio::test]
async fn a_flood_of_pings_from_a_client_that_does_not_read_keeps_nothing() {
    let house = House::open("ws://127.0.0.1:0", None).await;
    let mut stream = open(&house).await.into_inner();
    let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[b'p'; 125]].concat();
    let many = ping.repeat(8_000);
    let mut pongs = vec![0; 1024 * 1024];
    // The pongs of a megabyte of pings fit into no socket buffer unread; the server must take all pings nevertheless.
    within(stream.write_all(&many)).await.unwrap();
    within(stream.write_all(&[0x82, 0x81, 0, 0, 0, 0, b'x'])).await.unwrap();
    let mut tail = Vec::new();
    while !tail.ends_with(&[0x82, 1, b'x']) {
        let n = within(stream.read(&mut pongs)).await.unwrap();
        assert!(n > 0);
        tail.extend_from_slice(&pongs[..n]);
    }
    assert!(tail.len() <= many.len());
    house.end().await;
}

#[tokio::test]
async fn a_narrow_pipe_changes_nothing() {
    // No narrower: the client takes an answer in crumbs for an attack.
    for width in [200, 1000] {
        let (near, far) = tokio::io::duplex(width);
        let origins = Origins::default();
        let (server, client) =
            within(async { tokio::join!(upgrade(near, None, &origins), dial(far, "/mqtt", Some("mqtt"))) })
                .await;
        let (mut server, client) = (server.unwrap(), client.unwrap());
        let (mut sink, mut source) = client.split();
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
        let echo = async {
            let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
            while let Exchanged::Read(_) | Exchanged::Wrote =
                exchange(&mut server, Some(&mut input), &mut output).await.unwrap()
            {
                output.unsplit(std::mem::take(&mut input));
            }
            server.shutdown().await.unwrap();
        };
        let send = async {
            for part in bytes.chunks(9_999) {
                sink.send(Message::Binary(part.to_vec().into())).await.unwrap();
                sink.send(Message::Ping(b"?".to_vec().into())).await.unwrap();
            }
            sink
        };
        let collect = async {
            let mut back = Vec::new();
            while back.len() < bytes.len() {
                match source.next().await.unwrap().unwrap() {
                    Message::Binary(more) => back.extend_from_slice(&more),
                    Message::Pong(pong) => assert_eq!(pong, &b"?"[..]),
                    other => panic!("{other:?}"),
                }
            }
            assert!(back == bytes);
        };
        let client = async {
            let (mut sink, ()) = tokio::join!(send, collect);
            sink.send(Message::Close(None)).await.unwrap();
        };
        within(async { tokio::join!(echo, client) }).await;
    }
}
