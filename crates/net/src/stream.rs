//! Moving bytes on any stream without holding a buffer while nothing moves.
//!
//! Owns: the read scratch of each thread, reading and writing side by side, closing so that the peer gets the last
//! words. Does not own: the streams themselves.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

/// The most bytes that one read gives.
pub const READ_CHUNK: usize = 16 * 1024;

/// The most that [`close`] reads and throws away.
const MAX_LINGER: usize = 1024 * 1024;

thread_local! {
    /// Every read of a thread goes through this one buffer. Nothing awaits while it is borrowed.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_CHUNK].into_boxed_slice());
}

/// A connected byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// What [`exchange`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// So many bytes were appended to the input.
    Read(usize),
    /// The peer sends nothing more.
    End,
    /// All or a part of the output was taken by the stream; nothing was there to read.
    Wrote,
}

/// Appends what the stream has to `into`: at least one byte, at most [`READ_CHUNK`]; 0 is the end of the stream.
///
/// While the stream has nothing, no buffer is held: the read goes through a buffer of the thread, and `into` allocates
/// only for bytes that have come. So an idle connection with an empty `into` (see [`BytesMut::new`]) costs no buffer.
pub fn poll_receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        into.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Waits for bytes and appends them to `into`; 0 is the end of the stream. Nothing is lost when it is dropped.
pub async fn receive<S: AsyncRead + Unpin>(stream: &mut S, into: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| poll_receive(stream, cx, into)).await
}

/// Writes `output` and reads into `input`, whichever the stream allows; returns as soon as something moved.
///
/// With `input` None nothing is read: that is how back-pressure reaches the peer, while answers still go out. What was
/// written is gone from `output`, what was read stands in `input`, so it may be dropped at any time (`select!`). With
/// nothing to write and no `input` it waits for ever. An emptied `output` gives its memory back.
pub async fn exchange<S: Stream>(
    stream: &mut S,
    mut input: Option<&mut BytesMut>,
    output: &mut BytesMut,
) -> io::Result<Exchanged> {
    poll_fn(|cx| {
        let wrote = poll_send(stream, cx, output)?;
        if let Some(input) = input.as_deref_mut()
            && let Poll::Ready(read) = poll_receive(stream, cx, input)?
        {
            return Poll::Ready(Ok(if read == 0 { Exchanged::End } else { Exchanged::Read(read) }));
        }
        if wrote { Poll::Ready(Ok(Exchanged::Wrote)) } else { Poll::Pending }
    })
    .await
}

/// Writes what the stream takes now and pushes it on. Says whether `output` became shorter.
fn poll_send<S: Stream>(stream: &mut S, cx: &mut Context<'_>, output: &mut BytesMut) -> io::Result<bool> {
    let mut wrote = false;
    while !output.is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, output)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(n) => output.advance(n),
            Poll::Pending => break,
        }
        wrote = true;
    }
    if output.is_empty() {
        if output.capacity() > 0 {
            *output = BytesMut::new();
        }
        // TLS and WebSocket may hold what they took. When this is pending, its waker brings us back here.
        let _ = Pin::new(stream).poll_flush(cx)?;
    }
    Ok(wrote)
}

/// Ends the stream: flushes, says goodbye as the stream's kind does, and waits at most `within` for the peer to go.
///
/// What still comes is read and thrown away: a socket that is closed with unread bytes resets the connection, and the
/// peer may lose what was written last.
pub async fn close<S: Stream>(mut stream: S, within: Duration) {
    let goodbye = async {
        stream.shutdown().await?;
        let mut thrown = 0;
        while thrown < MAX_LINGER {
            match poll_fn(|cx| poll_discard(&mut stream, cx)).await? {
                0 => break,
                n => thrown += n,
            }
        }
        io::Result::Ok(())
    };
    // Whatever goes wrong here, the stream is dropped next.
    let _ = timeout(within, goodbye).await;
}

fn poll_discard<S: Stream>(stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    })
}
