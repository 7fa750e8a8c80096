//! WebSocket by hand (RFC 6455), client side: handshakes and frames as a test wants them, well formed or not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{PATIENCE, within};

/// Frame opcodes (RFC 6455 section 5.2).
#[allow(missing_docs, reason = "the names of the RFC")]
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// A client's frame, masked as the RFC asks.
pub fn frame(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(opcode, fin, payload.len() as u64, true);
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A frame's first bytes, up to its masking key; the length may lie.
pub fn header(opcode: u8, fin: bool, length: u64, masked: bool) -> Vec<u8> {
    let mask = u8::from(masked) << 7;
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    match length {
        0..=125 => bytes.push(mask | u8::try_from(length).expect("small")),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(length).expect("16 bits").to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// An upgrade request; the subprotocol may be left out.
pub fn upgrade(subprotocol: Option<&str>) -> String {
    let subprotocol =
        subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
    )
}

/// Opens a WebSocket for MQTT; returns the socket behind the server's 101.
///
/// # Panics
/// When the server does not upgrade.
pub async fn open(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.write_all(upgrade(Some("mqtt")).as_bytes()).await.expect("the connection stands");
    let head = within(PATIENCE, "the answer to the upgrade", head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "the server does not upgrade: {head}");
    stream
}

/// An HTTP head up to its empty line, or what came until the end.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A frame from the server: opcode and payload; `None` at the end of the connection.
pub async fn read(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        small => u64::from(small),
    };
    let mut payload = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first & 0x0f, payload))
}
