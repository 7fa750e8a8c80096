//! One socket: its task, and everything that it waits for.
//!
//! Owns: the loop, acks, senders that are being authenticated. Does not own: what a datagram leads to (`arrival.rs`),
//! secure channels (`secure.rs`), commands (`commands.rs`).

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use landfall_channel::Via;
use landfall_hub::{AuthError, News, PeerHandle, Post, Principal};
use landfall_net::{Batch, DatagramSocket, Path};
use tokio::time::Sleep;

use crate::answer;
use crate::metrics::Dropped;
use crate::secure::Secure;
use crate::server::UdpServer;

/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(50);
/// How long acks are still said after the end: what is stored by then is told.
const FAREWELL: Duration = Duration::from_secs(1);

/// A datagram whose sender was authenticated in the background.
pub(crate) struct Authenticated {
    pub(crate) via: Via,
    pub(crate) datagram: Bytes,
    /// `None` when the authenticator met a defect of its own.
    pub(crate) verdict: Option<Result<Principal, AuthError>>,
}

type Authenticating = Pin<Box<dyn Future<Output = Authenticated> + Send>>;

pub(crate) struct Door {
    pub(crate) server: Arc<UdpServer>,
    pub(crate) socket: Arc<DatagramSocket>,
    /// `None` over plain UDP.
    pub(crate) secure: Option<Secure>,
    pub(crate) post: Arc<Post>,
    /// At most `max_authenticating`.
    pub(crate) authenticating: FuturesUnordered<Authenticating>,
    /// Devices whose command found no room in the socket; at most `max_congested`.
    pub(crate) congested: VecDeque<PeerHandle>,
    pub(crate) relief: Option<Pin<Box<Sleep>>>,
    news: Vec<News>,
    pub(crate) out: Vec<u8>,
}

enum Turn {
    Received(io::Result<usize>),
    Stop,
}

impl Door {
    pub(crate) fn new(server: Arc<UdpServer>, socket: Arc<DatagramSocket>, secure: Option<Secure>) -> Self {
        Self {
            server,
            socket,
            secure,
            post: Post::new(),
            authenticating: FuturesUnordered::new(),
            congested: VecDeque::new(),
            relief: None,
            news: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let mut stop = pin!(stop);
        let mut batch = Batch::new();
        loop {
            match poll_fn(|cx| self.poll_turn(cx, &mut batch, stop.as_mut())).await {
                Turn::Received(Ok(_)) => batch.iter().for_each(|(path, bytes)| self.on_received(path, bytes)),
                Turn::Received(Err(error)) => {
                    self.server.metrics.socket_errors.inc();
                    tracing::warn!(%error, endpoint = %self.socket.endpoint(), "a UDP socket failed and is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                Turn::Stop => break,
            }
        }
        self.server.metrics.authenticating.dec_by(crate::metrics::level(self.authenticating.len()));
        self.authenticating.clear();
        let _ = tokio::time::timeout(FAREWELL, self.last_acks()).await;
        self.close_channels();
    }

    /// News before datagrams: what is stored makes room for what comes.
    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Turn> {
        if stop.poll(cx).is_ready() {
            return Poll::Ready(Turn::Stop);
        }
        self.poll_news(cx);
        self.poll_channels(cx);
        while let Poll::Ready(Some(done)) = self.authenticating.poll_next_unpin(cx) {
            self.server.metrics.authenticating.dec();
            self.guarded(|door| door.on_authenticated(&done));
        }
        self.poll_relief(cx);
        self.socket.poll_recv(cx, batch).map(Turn::Received)
    }

    fn poll_news(&mut self, cx: &mut Context<'_>) {
        let mut news = std::mem::take(&mut self.news);
        while self.post.poll(cx, &mut news).is_ready() {
            news.drain(..).for_each(|news| self.guarded(|door| door.on_news(news)));
        }
        self.news = news;
    }

    fn on_received(&mut self, path: Path, bytes: &[u8]) {
        self.server.metrics.received.inc();
        self.server.metrics.received_bytes.inc_by(u64::try_from(bytes.len()).unwrap_or(0));
        if self.secure.is_some() {
            self.on_record(path, bytes);
        } else {
            self.guarded(|door| door.on_datagram(path.into(), bytes));
        }
    }

    /// A defect that one datagram meets, or the news of one, must not cost all other devices their listener.
    pub(crate) fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            self.defect();
        }
    }

    pub(crate) fn defect(&self) {
        self.server.metrics.dropped(Dropped::Panicked);
        tracing::error!("a datagram met a defect; it alone is lost");
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Settled { token, result } => {
                if let Err(error) = &result {
                    tracing::debug!(%error, "what a datagram brought will not be stored");
                }
                self.on_settled(token, result.is_ok());
            }
            News::Commands(peer) => self.on_commands(&peer),
            // Of sessions on channels only: the others are not watched.
            News::Ended(peer, reason) => self.on_ended(&peer, reason),
        }
    }

    /// A part of a datagram is stored, or never will be.
    pub(crate) fn on_settled(&mut self, token: u64, is_stored: bool) {
        let server = &self.server;
        let Some((unstored, settled)) = server.unstored.settle(token, is_stored, &server.metrics) else {
            return;
        };
        if !settled.is_stored {
            server.metrics.dropped(Dropped::NotStored);
            return server.give_back(unstored.taken.as_ref());
        }
        server.settle(unstored.taken.as_ref());
        for _ in 0..settled.acks {
            self.ack(&unstored.socket, &unstored.via, unstored.seq);
        }
    }

    /// Says that a datagram is stored. An ack that the socket does not take is not tried again: the device asks again.
    pub(crate) fn ack(&mut self, socket: &Arc<DatagramSocket>, via: &Via, seq: Option<u64>) {
        answer::ack(seq, &mut self.out);
        match self.transmit(socket, via) {
            Ok(()) => self.server.metrics.acks.inc(),
            Err(error) => {
                tracing::debug!(remote = %via.path, %error, "an ack could not be sent");
                self.server.metrics.unsent_acks.inc()
            }
        };
    }

    /// Sends what is in `out` from `socket`, which another task may serve. From a channel only its own task can send: the
    /// hub tells another one of a datagram only when that has heard the device since, on another channel, and so nobody
    /// listens to the first one any more.
    pub(crate) fn transmit(&mut self, socket: &Arc<DatagramSocket>, via: &Via) -> io::Result<()> {
        let Some(channel) = via.channel else { return socket.try_send(&via.path, &self.out) };
        match &mut self.secure {
            Some(secure) if Arc::ptr_eq(socket, &self.socket) => {
                secure.channels.send(socket, channel, &self.out)
            }
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn last_acks(&mut self) {
        let mut news = Vec::new();
        while self.server.unstored.has_of(&self.socket) {
            poll_fn(|cx| self.post.poll(cx, &mut news)).await;
            news.drain(..).for_each(|news| self.guarded(|door| door.on_news(news)));
        }
    }
}
