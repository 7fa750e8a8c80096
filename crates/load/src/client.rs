//! A minimal MQTT 3.1.1 client: as few instructions as possible between the load and the socket.
//!
//! Owns: CONNECT, PUBLISH and the acknowledgements of QoS 1. Does not own: sessions, subscriptions, anything a load does
//! not need.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CONNECT_DEADLINE: Duration = Duration::from_secs(60);

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let more = length >> 7;
        let digit = u8::try_from(length & 0x7f).unwrap_or(0);
        out.put_u8(if more > 0 { digit | 0x80 } else { digit });
        if more == 0 {
            break;
        }
        length = more;
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

/// Connects with a clean session and waits for CONNACK.
pub(crate) async fn connect(server: SocketAddr, client_id: &str, keep_alive_s: u16) -> io::Result<TcpStream> {
    let opening = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut packet = BytesMut::new();
        packet.put_u8(0x10);
        put_length(&mut packet, 12 + client_id.len());
        put_text(&mut packet, "MQTT");
        packet.put_slice(&[4, 2]);
        packet.put_u16(keep_alive_s);
        put_text(&mut packet, client_id);
        stream.write_all(&packet).await?;
        let mut connack = [0_u8; 4];
        stream.read_exact(&mut connack).await?;
        match connack {
            [0x20, 2, _, 0] => Ok(stream),
            [0x20, 2, _, code] => Err(io::Error::other(format!("CONNACK refuses with {code}"))),
            other => Err(io::Error::other(format!("not a CONNACK: {other:02x?}"))),
        }
    };
    tokio::time::timeout(CONNECT_DEADLINE, opening).await?
}

/// Appends a PUBLISH; `packet_id` is for QoS 1.
pub(crate) fn put_publish(out: &mut BytesMut, topic: &str, packet_id: Option<u16>, payload: &[u8]) {
    out.put_u8(if packet_id.is_some() { 0x32 } else { 0x30 });
    put_length(out, 2 + topic.len() + packet_id.map_or(0, |_| 2) + payload.len());
    put_text(out, topic);
    if let Some(id) = packet_id {
        out.put_u16(id);
    }
    out.put_slice(payload);
}

/// Takes every complete PUBACK out of `input` and hands its packet id to `acked`.
pub(crate) fn take_pubacks(input: &mut BytesMut, mut acked: impl FnMut(u16)) -> io::Result<()> {
    while let Some([kind, length, high, low]) = input.first_chunk::<4>() {
        if (*kind, *length) != (0x40, 2) {
            return Err(io::Error::other(format!("not a PUBACK: {kind:02x} {length:02x}")));
        }
        acked(u16::from_be_bytes([*high, *low]));
        input.advance(4);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_written_as_section_3_3_says() {
        let mut out = BytesMut::new();
        put_publish(&mut out, "a/b", Some(10), b"x");
        assert_eq!(&out[..], [0x32, 8, 0, 3, b'a', b'/', b'b', 0, 10, b'x']);
        out.clear();
        put_publish(&mut out, "a", None, &[0; 200]);
        assert_eq!(&out[..6], [0x30, 0xcb, 0x01, 0, 1, b'a']);
    }

    #[test]
    fn pubacks_are_taken_when_they_are_complete() {
        let mut input = BytesMut::from(&[0x40, 2, 0, 7, 0x40, 2, 1][..]);
        let mut ids = Vec::new();
        take_pubacks(&mut input, |id| ids.push(id)).unwrap();
        assert_eq!((ids, input.len()), (vec![7], 3));
        assert!(take_pubacks(&mut BytesMut::from(&[0xe0, 0, 0, 0][..]), |_| ()).is_err());
    }
}
