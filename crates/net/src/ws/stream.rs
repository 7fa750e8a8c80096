//! A WebSocket as a byte stream.
//!
//! Owns: payload in, payload out, pings answered, the close handshake. Does not own: decoding (`frame`).
//!
//! Nothing is buffered while the connection idles: frames are decoded in the reader's own buffer and written straight
//! from the writer's, and only what the socket did not take is kept, until it does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Decoder, Ending};

/// The most payload that one frame to the client carries.
const MAX_SENT: usize = 64 * 1024;

/// The opcodes that a server sends, with FIN.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// The close code of an orderly end (RFC 6455 section 7.4.1).
const NORMAL: u16 = 1000;

/// How far the close frame of this side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Not begun.
    Open,
    /// To be sent when everything before it is, with this code; None repeats a close that had none.
    Due(Option<u16>),
    /// In `out` or gone: nothing may follow it.
    Sent,
}

/// The server's side of a WebSocket after its upgrade.
#[derive(Debug)]
pub struct WsStream<S> {
    stream: S,
    decoder: Decoder,
    /// What came behind the upgrade request.
    early: Bytes,
    /// Frames, or the rest of one, that the stream has not taken.
    out: BytesMut,
    /// The ping to answer when `out` is empty. A later one takes its place, so a flood of them costs no memory.
    ping: Option<Vec<u8>>,
    closing: Closing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsStream<S> {
    pub(super) fn new(stream: S, early: Bytes) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            early,
            out: BytesMut::new(),
            ping: None,
            closing: Closing::Open,
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Reads raw bytes into `buf` and decodes them there. Says whether the stream below has ended.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(n));
            if self.early.is_empty() {
                self.early = Bytes::new();
            }
        }
        let raw = buf.filled_mut().get_mut(before..).unwrap_or_default();
        let ended = raw.is_empty();
        let payload = self.decoder.decode(raw);
        buf.set_filled(before + payload);
        if let Some(ping) = self.decoder.take_ping() {
            self.ping = Some(ping);
        }
        if self.closing == Closing::Open {
            match self.decoder.ending() {
                None => {}
                Some(Ending::Closed(code)) => self.closing = Closing::Due(code),
                Some(Ending::Fault(fault)) => self.closing = Closing::Due(Some(fault.close_code())),
            }
        }
        Poll::Ready(Ok(ended))
    }

    /// Writes what is kept, and the control frames that are due. Ready when nothing is left.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.out.is_empty() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => self.out.advance(n),
                }
            }
            self.out = BytesMut::new();
            if self.closing == Closing::Sent {
                self.ping = None;
            }
            if let Some(ping) = self.ping.take() {
                put_control(&mut self.out, PONG, &ping);
            } else if let Closing::Due(code) = self.closing {
                let code = code.map(u16::to_be_bytes);
                put_control(&mut self.out, CLOSE, code.as_ref().map_or(&[], |code| code.as_slice()));
                self.closing = Closing::Sent;
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn has_control(&self) -> bool {
        self.ping.is_some() || matches!(self.closing, Closing::Due(_)) || !self.out.is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if this.has_control() {
                // When this is pending, its waker brings us back here; when it fails, so will the next read.
                let _ = Pin::new(&mut *this).poll_flush(cx);
            }
            if buf.remaining() == 0 || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            match this.decoder.ending() {
                Some(Ending::Closed(_)) => return Poll::Ready(Ok(())),
                Some(Ending::Fault(fault)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
                None => {}
            }
            if ready!(this.poll_fill(cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What is kept goes first, and bounds what can pile up: one frame.
        ready!(this.poll_push(cx))?;
        if this.closing == Closing::Sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let payload = buf.get(..MAX_SENT).unwrap_or(buf);
        if payload.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut head = [0; 10];
        let head = frame_head(BINARY, payload.len(), &mut head);
        let slices = [IoSlice::new(head), IoSlice::new(payload)];
        let wrote = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, &slices))?;
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        // The head promises the whole payload, so from here on the frame is this stream's to finish.
        this.out.extend_from_slice(head.get(wrote..).unwrap_or_default());
        this.out.extend_from_slice(payload.get(wrote.saturating_sub(head.len())..).unwrap_or_default());
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_push(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing == Closing::Open {
            this.closing = Closing::Due(Some(NORMAL));
        }
        ready!(this.poll_push(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

fn put_control(out: &mut BytesMut, first: u8, payload: &[u8]) {
    let mut head = [0; 10];
    out.put_slice(frame_head(first, payload.len(), &mut head));
    out.put_slice(payload);
}

/// A server's frame is not masked (RFC 6455 section 5.1).
fn frame_head(first: u8, len: usize, head: &mut [u8; 10]) -> &[u8] {
    let mut out = &mut head[..];
    out.put_u8(first);
    if let Ok(short) = u8::try_from(len)
        && short < 126
    {
        out.put_u8(short);
    } else if let Ok(medium) = u16::try_from(len) {
        out.put_u8(126);
        out.put_u16(medium);
    } else {
        out.put_u8(127);
        out.put_u64(len as u64);
    }
    let used = 10 - out.len();
    head.get(..used).unwrap_or_default()
}
