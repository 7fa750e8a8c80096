//! A connection that carries MQTT: TCP, TLS, WebSocket, or WebSocket over TLS.
//!
//! Owns: opening it, writing and reading bytes. Does not own: the packets in them ([`crate::client`]). While it is idle it
//! holds no buffer.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::sources::Sources;
use crate::target::Target;
use crate::ws;

/// More than a packet's worth of room: many acknowledgements come with one read.
const ROOM: usize = 16 * 1024;

/// What all links of a fleet share.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) target: Target,
    pub(crate) sources: Sources,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

enum Wire {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read(&mut self, input: &mut BytesMut) -> io::Result<()> {
        let read = match self {
            Self::Tcp(stream) => {
                // The room is made when something is there.
                stream.readable().await?;
                input.reserve(ROOM);
                stream.read_buf(input).await?
            }
            Self::Tls(stream) => stream.read_buf(input).await?,
        };
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        Ok(())
    }
}

/// An open connection.
pub(crate) struct Link {
    wire: Wire,
    /// Bytes of frames that are not complete, where it is a WebSocket.
    frames: Option<BytesMut>,
}

impl Link {
    /// Connects as client `n`, up to where MQTT begins.
    pub(crate) async fn open(door: &Door, n: u32) -> io::Result<Self> {
        let stream = door.sources.tcp(n).await?;
        let wire = match &door.tls {
            Some(config) if door.target.carrier.is_tls() => {
                let name = ServerName::try_from(door.target.host.clone()).map_err(io::Error::other)?;
                let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
                // The future holds the handshake's buffers; on the heap they are given back at its end.
                Wire::Tls(Box::new(Box::pin(connecting).await?))
            }
            _ => Wire::Tcp(stream),
        };
        let mut link = Self { wire, frames: None };
        if door.target.carrier.is_websocket() {
            link.upgrade(&door.target).await?;
        }
        Ok(link)
    }

    async fn upgrade(&mut self, target: &Target) -> io::Result<()> {
        let host = format!("{}:{}", target.host, target.address.port());
        self.wire.write(ws::request(&host, &target.path).as_bytes()).await?;
        let mut input = BytesMut::new();
        while !ws::take_answer(&mut input)? {
            self.wire.read(&mut input).await?;
        }
        self.frames = Some(input);
        Ok(())
    }

    /// Writes all of `out` and leaves it empty.
    pub(crate) async fn write(&mut self, out: &mut BytesMut) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if self.frames.is_some() {
            let mut framed = BytesMut::with_capacity(out.len() + 16);
            ws::put_binary(&mut framed, out);
            self.wire.write(&framed).await?;
        } else {
            self.wire.write(out).await?;
        }
        out.clear();
        Ok(())
    }

    /// Waits for bytes and appends what there is to `input`. May be dropped half-way and called again.
    pub(crate) async fn read(&mut self, input: &mut BytesMut) -> io::Result<()> {
        let Some(frames) = &mut self.frames else { return self.wire.read(input).await };
        self.wire.read(frames).await?;
        let mut answers = BytesMut::new();
        ws::take_frames(frames, input, &mut answers)?;
        slim(frames);
        if answers.is_empty() { Ok(()) } else { self.wire.write(&answers).await }
    }

    /// Whether the server has closed it, without waiting. What it said meanwhile is read away.
    pub(crate) fn is_closed(&mut self) -> bool {
        let stream = match &self.wire {
            Wire::Tcp(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [0; 64];
        loop {
            match stream.try_read(&mut byte) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Says goodbye to the other end of the socket, behind all that was written.
    pub(crate) async fn close(mut self) {
        let _ = match &mut self.wire {
            Wire::Tcp(stream) => stream.shutdown().await,
            Wire::Tls(stream) => stream.shutdown().await,
        };
    }

    /// Ends it by a reset (RST): what a host that was cut off answers later.
    pub(crate) fn reset(self) {
        let stream = match &self.wire {
            Wire::Tcp(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0,
        };
        let _ = stream.set_zero_linger();
    }
}

/// Gives the room of an empty buffer back.
pub(crate) fn slim(buffer: &mut BytesMut) {
    if !buffer.has_remaining() {
        *buffer = BytesMut::new();
    }
}
