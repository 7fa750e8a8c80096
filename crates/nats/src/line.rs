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

use crate::connect::{CONNECT_TIMEOUT, ConnectError, PING_INTERVAL, Target};
use crate::dial::{Stream, dial};
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
    pings: u32,
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
        Ok(Self { reader, writer, input, out, largest: info.max_payload, heard: Instant::now(), pings: 0 })
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
                        tracing::warn!(said = ?String::from_utf8_lossy(said), "the NATS server complains");
                    }
                    ServerOp::Info(_) | ServerOp::Ok => {}
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
                Ok(_) => self.heard = Instant::now(),
            }
        }
    }

    /// Asks a server that has been silent whether it is still there.
    pub(crate) fn look(&mut self, now: Instant) -> Result<(), Lost> {
        let silent = now.saturating_duration_since(self.heard);
        if silent < PING_INTERVAL * (self.pings + 1) {
            return Ok(());
        }
        if self.pings >= PATIENCE {
            return Err(Lost);
        }
        self.pings += 1;
        self.out.extend_from_slice(b"PING\r\n");
        Ok(())
    }
}
