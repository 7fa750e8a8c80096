//! The TLS stream of one connection.
//!
//! Owns: when the TLS engine is allowed to read. Does not own: the handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server;

use super::PeerCertificate;

/// How long a peer has to take the alert that tells why its handshake failed.
pub(super) const ALERT_LINGER: Duration = Duration::from_secs(1);

/// A TLS connection after its handshake; boxed, so that it is cheap to move.
#[derive(Debug)]
pub struct TlsStream {
    inner: Box<server::TlsStream<TcpStream>>,
}

impl TlsStream {
    pub(super) fn new(inner: server::TlsStream<TcpStream>) -> Self {
        Self { inner: Box::new(inner) }
    }

    /// What the client's verified certificate says, if it showed one.
    pub fn peer_certificate(&self) -> Option<PeerCertificate> {
        let (_, session) = self.inner.get_ref();
        session.peer_certificates()?.first().map(PeerCertificate::read)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.inner).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
