//! One connection to nats-server, spoken to directly.
//!
//! Owns: what is to be written, what was read, and whether the server is still there. Does not own: what is published
//! ([`crate::link`]), the bytes of the protocol ([`crate::protocol`]).
//!
//! It is never repaired: a client that connects again by itself throws away what it had not written yet, and the stream would get
//! messages out of order with a hole in between.

use async_nats::ServerAddr;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, timeout};

use crate::connect::{CONNECT_TIMEOUT, Complaints, ConnectError, PING_INTERVAL, Target};
use crate::dial::{Info, Stream, dial};
use crate::protocol::{self, ServerOp};

/// Bytes that are read at once.
const READ: usize = 64 << 10;
/// Pings that may go unanswered.
const PATIENCE: u32 = 2;

/// The connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// See the module's description.
pub(crate) struct Line {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    input: BytesMut,
    out: BytesMut,
    /// The largest message that the server takes, headers and body.
    pub(crate) largest: usize,
    heard: Instant,
    pinged: Instant,
    pings: u32,
    complaints: Complaints,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("unwritten", &self.out.len()).finish_non_exhaustive()
    }
}

impl Line {
    /// Connects.
    pub(crate) async fn open(target: &Target, address: &ServerAddr) -> Result<Self, ConnectError> {
        let refused =
            |why: &str| ConnectError::Refused { to: address.as_url_str().to_owned(), why: why.to_owned() };
        let dialled = timeout(CONNECT_TIMEOUT, dial(target, address)).await;
        let (stream, input, info) = dialled.map_err(|_| refused("it does not answer"))??;
        let (reader, writer) = split(stream);
        let out = BytesMut::with_capacity(READ);
        let (now, largest, complaints) = (Instant::now(), info.max_payload, Complaints::default());
        Ok(Self { reader, writer, input, out, largest, heard: now, pinged: now, pings: 0, complaints })
    }

    /// What the server has complained of.
    pub(crate) fn said(&self) -> Option<String> {
        self.complaints.said()
    }

    /// What is to be written; [`Self::flush`] writes it.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Writes everything; when this is cut off, what is left is written by the next one.
    pub(crate) async fn flush(&mut self) -> Result<(), Lost> {
        while self.out.has_remaining() {
            match self.writer.write_buf(&mut self.out).await {
                Ok(0) | Err(_) => return Err(Lost),
                Ok(_) => {}
            }
        }
        self.writer.flush().await.map_err(|_| Lost)
    }

    /// Waits for the next message for this connection. `take` is shown its subject, its status and its body, and says whether it is
    /// what is waited for. May be cut off.
    pub(crate) async fn next<T>(
        &mut self,
        mut take: impl FnMut(&[u8], Option<u16>, &[u8]) -> Option<T>,
    ) -> Result<T, Lost> {
        loop {
            while let Some((op, taken)) = protocol::read(&self.input).map_err(|_| Lost)? {
                let mut found = None;
                match op {
                    ServerOp::Message { subject, status, body } => found = take(subject, status, body),
                    ServerOp::Ping => self.out.extend_from_slice(b"PONG\r\n"),
                    ServerOp::Pong => self.pings = 0,
                    ServerOp::Error(said) => {
                        self.complaints.complain(String::from_utf8_lossy(said).into_owned());
                    }
                    // It knows who the gateway is by now, and may take less of it.
                    ServerOp::Info(json) => {
                        self.largest =
                            serde_json::from_slice(json).map_or(self.largest, |info: Info| info.max_payload);
                    }
                    ServerOp::Ok => {}
                }
                self.input.advance(taken);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            self.flush().await?;
            self.input.reserve(READ);
            match self.reader.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Err(Lost),
                Ok(_) => (self.heard, self.pings) = (Instant::now(), 0),
            }
        }
    }

    /// Asks a server that has been silent whether it is still there.
    pub(crate) fn look(&mut self, now: Instant) -> Result<(), Lost> {
        let since = self.heard.max(self.pinged);
        if now.saturating_duration_since(since) < PING_INTERVAL {
            return Ok(());
        }
        if self.pings >= PATIENCE {
            return Err(Lost);
        }
        self.pings += 1;
        self.pinged = now;
        self.out.extend_from_slice(b"PING\r\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::ConnectSettings;

    /// A connection, and its other end, which has said what a server says at first.
    async fn connected() -> (Line, BufReader<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let target = Target::new(ConnectSettings { urls: vec![url], ..ConnectSettings::default() }).unwrap();
        let server = async {
            let mut server = BufReader::new(listener.accept().await.unwrap().0);
            server.write_all(b"INFO {\"max_payload\":1000}\r\n").await.unwrap();
            assert!(heard(&mut server).await.starts_with("CONNECT {"));
            assert_eq!(heard(&mut server).await, "PING");
            server.write_all(b"PONG\r\n").await.unwrap();
            server
        };
        let (line, server) = tokio::join!(Line::open(&target, target.address(0).unwrap()), server);
        (line.unwrap(), server)
    }

    async fn heard(server: &mut BufReader<TcpStream>) -> String {
        let mut line = String::new();
        server.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    #[tokio::test]
    async fn what_a_server_says_between_messages_is_answered_and_taken() {
        let (mut line, mut server) = connected().await;
        assert_eq!(line.largest, 1000);
        server.write_all(b"INFO {\"max_payload\":10}\r\nPING\r\n-ERR 'x'\r\n").await.unwrap();
        let next = line.next(|subject, _, body| Some((subject.to_vec(), body.to_vec())));
        let answered = async {
            assert_eq!(heard(&mut server).await, "PONG");
            server.write_all(b"MSG a.1 1 2\r\nhi\r\n").await.unwrap();
        };
        let (message, ()) = tokio::join!(next, answered);
        assert_eq!(message, Ok((b"a.1".to_vec(), b"hi".to_vec())));
        assert_eq!(line.largest, 10, "an account may be let send less than others");
        drop(server);
        assert_eq!(line.next(|_, _, _| Some(())).await, Err(Lost));
    }

    #[tokio::test]
    async fn a_silent_server_is_asked_before_it_counts_as_gone() {
        let (mut line, mut server) = connected().await;
        let late = Instant::now() + PING_INTERVAL * 9;
        assert_eq!((line.look(late), line.look(late)), (Ok(()), Ok(())), "one question at a time");
        line.flush().await.unwrap();
        assert_eq!(heard(&mut server).await, "PING");
        assert_eq!(line.look(late + PING_INTERVAL), Ok(()));
        assert_eq!(line.look(late + PING_INTERVAL * 2), Err(Lost));
    }
}
