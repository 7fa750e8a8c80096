//! One device that speaks the `LF1` line over UDP.
//!
//! Owns: its lines and acks. Does not own: the line's words (docs/udp.md), many datagrams at a time ([`crate::publish`]).

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

/// A datagram without an ack is sent again after this, and so often.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);
pub(crate) const TIMES: u32 = 10;

/// Writes a device's datagram into `out`.
pub(crate) fn put(out: &mut Vec<u8>, head: &str, seq: u64, is_acked: bool, payload: &[u8]) {
    out.clear();
    // Writing into memory does not fail.
    let _ = write!(out, "{head} seq={seq}{}", if is_acked { " ack" } else { "" });
    if !payload.is_empty() {
        out.push(b'\n');
        out.extend_from_slice(payload);
    }
}

/// The number of the datagram that is acked.
pub(crate) fn acked(datagram: &[u8]) -> Option<u64> {
    std::str::from_utf8(datagram).ok()?.strip_prefix("LF1 ack seq=")?.trim_end().parse().ok()
}

/// A device's first words: `LF1 {id}` and more of its own.
pub(crate) fn head(id: &str, words: &str) -> String {
    if words.is_empty() { format!("LF1 {id}") } else { format!("LF1 {id} {words}") }
}

/// One device with one datagram at a time.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) socket: UdpSocket,
    head: String,
    seq: u64,
    pub(crate) again: u64,
}

impl Line {
    pub(crate) fn new(socket: UdpSocket, head: String) -> Self {
        Self { socket, head, seq: 0, again: 0 }
    }

    /// Says it until it is acked.
    pub(crate) async fn say(&mut self, payload: &[u8]) -> io::Result<()> {
        self.seq += 1;
        let mut out = Vec::new();
        put(&mut out, &self.head, self.seq, true, payload);
        for attempt in 0..TIMES {
            self.again += u64::from(attempt > 0);
            self.socket.send(&out).await?;
            if self.ack(Instant::now() + AGAIN).await? {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no ack"))
    }

    async fn ack(&mut self, until: Instant) -> io::Result<bool> {
        let mut buffer = [0; 128];
        loop {
            let receiving = self.socket.recv(&mut buffer);
            let Ok(length) = tokio::time::timeout_at(until.into(), receiving).await else { return Ok(false) };
            if acked(buffer.get(..length?).unwrap_or_default()) == Some(self.seq) {
                return Ok(true);
            }
        }
    }

    /// Says goodbye, which nobody answers.
    pub(crate) async fn leave(self) -> io::Result<()> {
        self.socket.send(format!("{} bye", self.head).as_bytes()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_a_line_and_a_payload() {
        let mut out = Vec::new();
        put(&mut out, &head("load-1", "hb=30"), 7, true, b"x");
        assert_eq!(out, b"LF1 load-1 hb=30 seq=7 ack\nx");
        put(&mut out, &head("load-1", ""), 8, false, b"");
        assert_eq!(out, b"LF1 load-1 seq=8");
        assert_eq!((acked(b"LF1 ack seq=12"), acked(b"LF1 cmd id=1 name=x")), (Some(12), None));
    }

    #[tokio::test]
    async fn it_is_said_until_it_is_acked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server.local_addr().unwrap()).await.unwrap();
        let mut line = Line::new(socket, head("d", ""));
        let serve = async {
            let mut buffer = [0; 64];
            server.recv(&mut buffer).await.unwrap();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"LF1 d seq=1 ack\nhi");
            server.send_to(b"LF1 ack seq=1", from).await.unwrap();
        };
        let (said, ()) = tokio::join!(line.say(b"hi"), serve);
        said.unwrap();
        assert_eq!(line.again, 1);
    }
}
