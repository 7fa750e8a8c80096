//! Hostile WebSocket clients: handshakes that ask for something else, and frames that are no frames of a client.

use landfall_testkit::packet::{self, Connect, Publish, kind};
use landfall_testkit::websocket::{self, frame, header, opcode};
use landfall_testkit::{PATIENCE, Version, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = async { while matches!(stream.read_buf(&mut bytes).await, Ok(n) if n > 0) {} };
    within(PATIENCE, "the end of the connection", end).await;
    bytes
}

#[tokio::test]
async fn handshakes_that_are_none_are_refused() {
    let world = super::world().await;
    let address = world.gateway.mqtt("ws");
    let good = websocket::upgrade(Some("mqtt"));
    let requests = [
        ("no subprotocol", websocket::upgrade(None)),
        ("another subprotocol", websocket::upgrade(Some("chat"))),
        ("no key", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")),
        ("another version", good.replace("Version: 13", "Version: 8")),
        ("no upgrade", good.replace("Upgrade: websocket\r\n", "")),
        ("POST", good.replacen("GET", "POST", 1)),
        ("HTTP/1.0", good.replacen("HTTP/1.1", "HTTP/1.0", 1)),
        ("a head of 1 MB", good.replace("Host:", &format!("X-Pad: {}\r\nHost:", "x".repeat(1 << 20)))),
        ("a thousand headers", good.replace("Host:", &format!("{}Host:", "X-A: b\r\n".repeat(1_000)))),
        ("no HTTP", "\u{0}\u{1}\u{2}\r\n\r\n".to_owned()),
    ];
    for (name, request) in requests {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The gateway may close while this is still being sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = until_closed(&mut stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{name}: {}", String::from_utf8_lossy(&answer));
    }
    let mut stream = websocket::open(address).await;
    stream
        .write_all(&frame(opcode::BINARY, true, &Connect::new(Version::V4, "fine").encode()))
        .await
        .unwrap();
    assert_eq!(websocket::read(&mut stream).await.unwrap().1[0], kind::CONNACK << 4);
    drop(stream);
    world.close().await;
}

#[tokio::test]
async fn frames_that_are_none_end_the_connection() {
    let world = super::world().await;
    let connect = Connect::new(Version::V5, "framed").encode();
    let unmasked = [header(opcode::BINARY, true, connect.len() as u64, false), connect.clone()].concat();
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("unmasked", unmasked),
        ("text", frame(opcode::TEXT, true, &connect)),
        ("reserved opcode", frame(3, true, &connect)),
        ("reserved bits", [&[0xf2], &frame(opcode::BINARY, true, &connect)[1..]].concat()),
        ("continuation of nothing", frame(opcode::CONTINUATION, true, &connect)),
        ("a ping in two frames", frame(opcode::PING, false, b"x")),
        ("a ping of 126 bytes", frame(opcode::PING, true, &[b'x'; 126])),
        ("a length of 2^63", header(opcode::BINARY, true, 1 << 63, true)),
        ("a length of 1 GB", [header(opcode::BINARY, true, 1 << 30, true), vec![0; 4096]].concat()),
        ("a close of one byte", frame(opcode::CLOSE, true, b"x")),
        ("MQTT within that is none", frame(opcode::BINARY, true, b"\xff\xff\xff\xff\xff")),
        ("MQTT with a length beyond its frame (A18), then text", {
            [frame(opcode::BINARY, true, &[0x10, 0xff, 0xff, 0x7f]), frame(opcode::TEXT, true, b"x")].concat()
        }),
    ];
    let before = world.gateway.resident_bytes();
    for (name, bytes) in attacks {
        let mut stream = websocket::open(world.gateway.mqtt("ws")).await;
        let _ = stream.write_all(&bytes).await;
        let said = until_closed(&mut stream).await;
        let connack = [0x20, 0x03, 0x00, 0x00];
        assert!(!said.windows(4).any(|window| window == connack), "{name}: accepted");
    }
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    assert!(world.recorder.of("connected", "framed").is_empty());
    world.close().await;
}

#[tokio::test]
async fn mqtt_packets_and_frames_need_not_agree() {
    // [MQTT-6.0.0-2]: no alignment may be assumed, so packets in pieces and several in one frame are as good.
    let world = super::world().await;
    let mut stream = websocket::open(world.gateway.mqtt("ws")).await;
    let mut bytes = Connect::new(Version::V5, "pieces").encode();
    bytes.extend(Publish::new(Version::V5, "t", "1", 1, 1).encode());
    let (first, rest) = bytes.split_at(3);
    let (second, third) = rest.split_at(rest.len() - 2);
    let pieces = [
        frame(opcode::BINARY, false, first),
        frame(opcode::PING, true, b"between"),
        frame(opcode::CONTINUATION, true, second),
        frame(opcode::BINARY, true, b""),
        frame(opcode::BINARY, true, &[third, packet::ping().as_slice()].concat()),
    ];
    stream.write_all(&pieces.concat()).await.unwrap();
    let mut answers = Vec::new();
    let mut pong = false;
    while answers.len() < 3 || !pong {
        match within(PATIENCE, "a frame", websocket::read(&mut stream)).await.expect("the connection stands")
        {
            (opcode::PONG, payload) => {
                assert_eq!(payload, b"between");
                pong = true;
            }
            (opcode::BINARY, mut payload) => {
                // Answers may share a frame as well.
                while !payload.is_empty() {
                    answers.push(payload[0] >> 4);
                    payload.drain(..2 + usize::from(payload[1]));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    answers.sort_unstable();
    assert_eq!(answers, [kind::CONNACK, kind::PUBACK, kind::PINGRESP]);
    assert_eq!(world.recorder.expect("connected", "pieces").await.text("transport"), "mqtt-ws");
    stream.write_all(&frame(opcode::CLOSE, true, &1000_u16.to_be_bytes())).await.unwrap();
    until_closed(&mut stream).await;
    // A WebSocket closed in order is not an MQTT DISCONNECT.
    let end = world.recorder.expect("disconnected", "pieces").await;
    assert_eq!(end.text("reason"), "connection-lost");
    world.close().await;
}
