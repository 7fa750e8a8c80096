//! The TLS stream of one connection.
//!
//! Owns: the handshake, and the socket's side of the engine. Does not own: TLS itself (`engine`), the deadline (`accept`).
//!
//! While the connection idles it holds no buffer: bytes are read into, and sealed in, buffers of the thread, and only an
//! unfinished record, or what the reader or the socket has not taken, is kept until it is.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::PeerCertificate;
use super::engine::{Engine, MAX_PLAINTEXT, MAX_SEALED, Plain, Seal};
use super::hello::names_a_protocol_of;
use crate::Stream;

/// How long a peer has to take the alert that tells why its handshake failed.
const ALERT_LINGER: Duration = Duration::from_secs(1);

/// The most that is kept of unfinished records: a handshake message of 64 KiB, as rustls allows, and one record more.
pub(super) const MAX_INCOMING: usize = 64 * 1024 + MAX_SEALED;

thread_local! {
    /// What a read of any TLS connection of the thread goes through. Nothing awaits while it is borrowed.
    static OPENING: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_SEALED].into_boxed_slice());
    /// Likewise for what is written.
    static SEALING: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_SEALED].into_boxed_slice());
}

/// A TLS connection after its handshake; boxed, so that it is cheap to move.
#[derive(Debug)]
pub struct TlsStream<S = TcpStream> {
    inner: Box<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    engine: Engine,
    /// Read and not processed: an unfinished record.
    incoming: BytesMut,
    /// Decrypted and not read.
    plain: BytesMut,
    /// Sealed and not written.
    outgoing: BytesMut,
    /// The goodbye has been sealed: nothing may follow it.
    closing: bool,
}

impl<S: Stream> TlsStream<S> {
    /// Takes a connection through the handshake: as `named`, unless the client names application protocols of which `named` has
    /// none.
    pub(super) async fn accept(
        mut stream: S,
        named: Arc<ServerConfig>,
        unnamed: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let (mut incoming, plain, outgoing) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        let fits = names_a_protocol_of(&named, &mut stream, &mut incoming).await?;
        let engine = Engine::new(if fits { named } else { unnamed }).map_err(io::Error::other)?;
        let mut inner = Box::new(Inner { stream, engine, incoming, plain, outgoing, closing: false });
        let begun = inner.process();
        let shaken = match begun {
            Ok(()) => poll_fn(|cx| inner.poll_handshake(cx)).await,
            Err(error) => Err(error),
        };
        match shaken {
            Ok(()) => Ok(Self { inner }),
            Err(error) => {
                // The alert is written as far as it goes; without the linger a reset could overtake it.
                if poll_fn(|cx| inner.poll_drain(cx)).await.is_ok() {
                    crate::close(inner.stream, ALERT_LINGER).await;
                }
                Err(error)
            }
        }
    }

    /// What the client's verified certificate says, if it showed one.
    pub fn peer_certificate(&self) -> Option<PeerCertificate> {
        self.inner.engine.peer_certificate()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// Processes what was read before there was an engine.
    fn process(&mut self) -> io::Result<()> {
        let mut plain = Plain { reader: None, rest: &mut self.plain };
        let received = self.engine.receive(&mut self.incoming, &mut plain, &mut self.outgoing);
        self.incoming.advance(*received.as_ref().unwrap_or(&0));
        if received.is_err() {
            self.incoming.clear();
        }
        release(&mut self.incoming);
        received.map(drop).map_err(invalid)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let drained = self.poll_drain(cx)?;
            if !self.engine.is_handshaking() {
                return drained.map(Ok);
            }
            // Reads also while there is something to write: a client may do likewise, and with both pipes full each
            // would wait for the other.
            if ready!(self.poll_fill(cx, None))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Writes what is sealed. Ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.outgoing.advance(n),
            }
        }
        release(&mut self.outgoing);
        Poll::Ready(Ok(()))
    }

    /// Reads once and processes what came. Says whether the stream below has ended.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        reader: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<bool>> {
        OPENING.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            let bytes = read.filled_mut();
            if bytes.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let mut plain = Plain { reader, rest: &mut self.plain };
            let received = if self.incoming.is_empty() {
                let received = self.engine.receive(bytes, &mut plain, &mut self.outgoing);
                let done = *received.as_ref().unwrap_or(&0);
                self.incoming.extend_from_slice(bytes.get(done..).unwrap_or_default());
                received
            } else {
                self.incoming.extend_from_slice(bytes);
                let received = self.engine.receive(&mut self.incoming, &mut plain, &mut self.outgoing);
                self.incoming.advance(*received.as_ref().unwrap_or(&0));
                received
            };
            if received.is_err() {
                self.incoming.clear();
            }
            release(&mut self.incoming);
            received.map_err(invalid)?;
            if self.incoming.len() > MAX_INCOMING {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a handshake message is too long",
                )));
            }
            Poll::Ready(Ok(false))
        })
    }

    /// Seals one record and writes what the stream takes of it; the rest is kept. Needs `outgoing` to be empty.
    fn seal(&mut self, cx: &mut Context<'_>, what: &Seal<'_>) -> io::Result<()> {
        SEALING.with_borrow_mut(|scratch| {
            let sealed =
                self.engine.seal(what, scratch, &mut self.incoming, &mut self.outgoing).map_err(invalid)?;
            let Some(record) = sealed.and_then(|n| scratch.get(..n)) else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            let mut written = 0;
            if self.outgoing.is_empty()
                && let Poll::Ready(n) = Pin::new(&mut self.stream).poll_write(cx, record)?
            {
                written = n;
            }
            // From here on the record is this stream's to finish: a peer cannot do without a part of it.
            self.outgoing.extend_from_slice(record.get(written..).unwrap_or_default());
            Ok(())
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.get_mut().inner;
        let before = buf.filled().len();
        loop {
            if !this.plain.is_empty() {
                let n = this.plain.len().min(buf.remaining());
                buf.put_slice(this.plain.get(..n).unwrap_or_default());
                this.plain.advance(n);
                release(&mut this.plain);
            }
            if buf.remaining() == 0 || buf.filled().len() > before || this.engine.is_peer_closed() {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = this.engine.failure() {
                return Poll::Ready(Err(invalid(error.clone())));
            }
            let filled = this.poll_fill(cx, Some(buf));
            if !this.outgoing.is_empty() {
                // An alert or an answer of TLS itself. When this is pending, its waker brings us back.
                let _ = this.poll_drain(cx);
            }
            match filled {
                // What was decrypted before the failure is delivered first.
                Poll::Ready(Err(_)) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                // A client that goes without a word may have been cut off (RFC 8446 section 6.1).
                Poll::Ready(Ok(true)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self.get_mut().inner;
        // What is kept goes first, and bounds what can pile up: one record.
        ready!(this.poll_drain(cx))?;
        if this.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let plain = buf.get(..MAX_PLAINTEXT).unwrap_or(buf);
        if !plain.is_empty() {
            this.seal(cx, &Seal::Data(plain))?;
        }
        Poll::Ready(Ok(plain.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.get_mut().inner;
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self.get_mut().inner;
        ready!(this.poll_drain(cx))?;
        if !this.closing && this.engine.failure().is_none() {
            this.closing = true;
            this.seal(cx, &Seal::CloseNotify)?;
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// Gives back the memory of a buffer that is empty.
fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > 0 {
        *buffer = BytesMut::new();
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
