//! One socket: its task, and everything that it waits for.
//!
//! Owns: the loop, what the machine wants done. Does not own: what a request leads to (`admission.rs`, `resources.rs`),
//! commands (`commands.rs`), secure channels (`secure.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use landfall_channel::{Channels, Via};
use landfall_coap_core::{
    Code, Endpoint, ExchangeId, NoteId, ObservationId, Output, Rejected, Request, Response,
};
use landfall_event::{RefusedCause, Transport};
use landfall_hub::{AuthError, News, PeerHandle, PeerId, Post, Principal};
use landfall_net::{Batch, DatagramSocket, Path};
use slab::Slab;
use tokio::time::{Instant, Sleep};

use crate::Tick;
use crate::asked::{Asked, Resource};
use crate::commands::{Flight, Station};
use crate::metrics::{Dropped, Share};
use crate::paths::Paths;
use crate::resources::{After, Storing};
use crate::retained::Retained;
use crate::secure::Bond;
use crate::server::CoapServer;
use crate::stray::{Stray, StrayBox};

/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(50);
/// How long requests are still answered after the end: what is stored by then is told.
const FAREWELL: Duration = Duration::from_secs(1);
/// When there is nothing to wait for.
const FAR: Duration = Duration::from_secs(3_600);

/// A request whose sender was authenticated in the background.
pub(crate) struct Authenticated {
    pub(crate) asked: Box<Asked>,
    pub(crate) verdict: Result<Principal, AuthError>,
}

type Authenticating = Pin<Box<dyn Future<Output = Authenticated> + Send>>;

pub(crate) struct Door {
    pub(crate) server: Arc<CoapServer>,
    pub(crate) number: u16,
    pub(crate) endpoint: Endpoint<Via>,
    pub(crate) post: Arc<Post>,
    pub(crate) paths: Paths,
    /// Requests that wait for the store; bounded by the publish window.
    pub(crate) storing: Slab<Storing>,
    /// What came last could be stored at once.
    pub(crate) was_ready: bool,
    pub(crate) stores_made: u64,
    /// Until when which of them waits, by its number and entry; some are stored already.
    pub(crate) store_limits: VecDeque<(Tick, u64, usize)>,
    /// Requests that wait for a command, by when they do not any more; at most `max_waiting`.
    pub(crate) waits: BTreeMap<(Tick, u64), After>,
    pub(crate) waits_made: u64,
    /// Where commands can go; bounded by the observations and by `waits`.
    pub(crate) stations: HashMap<PeerId, Station, ahash::RandomState>,
    pub(crate) observed: HashMap<ObservationId, PeerId, ahash::RandomState>,
    pub(crate) retained: Retained,
    pub(crate) notes: HashMap<NoteId, Flight, ahash::RandomState>,
    /// Notifications to where their device was not heard last, and when that counts as lost; bounded by `notes` and by time.
    pub(crate) doubtful: VecDeque<(Tick, NoteId)>,
    /// Commands whose blocks nobody fetches now, and when they have expired; bounded by `notes`.
    pub(crate) unfetched: BTreeSet<(Tick, NoteId)>,
    /// At most `max_authenticating`.
    pub(crate) authenticating: FuturesUnordered<Authenticating>,
    /// Nothing more is received.
    pub(crate) is_closing: bool,
    pub(crate) socket: DatagramSocket,
    /// `None` over plain UDP.
    pub(crate) secure: Option<Channels<Bond>>,
    /// Channels that are to be closed when what they were told has left.
    pub(crate) parting: Vec<Via>,
    strays: Arc<StrayBox>,
    start: Instant,
    news: Vec<News>,
    words: Vec<Stray>,
    shares: Shares,
}

/// This socket's part of the gauges.
#[derive(Debug, Default)]
struct Shares {
    exchanges: Share,
    observations: Share,
    uploads: Share,
    bytes: Share,
    peers: Share,
    authenticating: Share,
    waiting: Share,
    paths: Share,
    retransmitted: u64,
}

enum Turn {
    Received(io::Result<usize>),
    /// Something was done that may have changed what to wait for.
    Done,
    Stop,
}

impl Door {
    pub(crate) fn new(
        server: Arc<CoapServer>,
        socket: DatagramSocket,
        secure: Option<Channels<Bond>>,
        (number, strays): (u16, Arc<StrayBox>),
    ) -> Self {
        let limits = Arc::clone(&server.config.limits);
        Self {
            endpoint: Endpoint::new(limits, &rand::random()),
            post: Post::new(),
            paths: Paths::new(server.config.max_paths),
            storing: Slab::new(),
            was_ready: true,
            stores_made: 0,
            store_limits: VecDeque::new(),
            waits: BTreeMap::new(),
            waits_made: 0,
            stations: HashMap::default(),
            observed: HashMap::default(),
            retained: Retained::default(),
            unfetched: BTreeSet::new(),
            notes: HashMap::default(),
            doubtful: VecDeque::new(),
            authenticating: FuturesUnordered::new(),
            is_closing: false,
            parting: Vec::new(),
            start: Instant::now(),
            news: Vec::new(),
            words: Vec::new(),
            shares: Shares::default(),
            server,
            number,
            socket,
            secure,
            strays,
        }
    }

    pub(crate) fn transport(&self) -> Transport {
        if self.secure.is_some() { Transport::Coaps } else { Transport::Coap }
    }

    /// Milliseconds since the socket was opened.
    pub(crate) fn now(&self) -> Tick {
        Tick::try_from(self.start.elapsed().as_millis()).unwrap_or(Tick::MAX)
    }

    pub(crate) async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let mut stop = pin!(stop);
        let mut timer = pin!(tokio::time::sleep(FAR));
        let mut batch = Batch::new();
        loop {
            self.set_timer(timer.as_mut());
            match poll_fn(|cx| self.poll_turn(cx, &mut batch, timer.as_mut(), stop.as_mut())).await {
                Turn::Received(Ok(_)) => batch.iter().for_each(|(path, bytes)| self.on_received(path, bytes)),
                Turn::Received(Err(error)) => {
                    self.server.metrics.socket_errors.inc();
                    tracing::warn!(%error, endpoint = %self.socket.endpoint(), "a CoAP socket failed and is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                Turn::Done => {}
                Turn::Stop => break,
            }
            self.look_at_bus();
            self.tell_gauges();
        }
        let _ = tokio::time::timeout(FAREWELL, self.last_answers()).await;
        self.close_channels();
    }

    /// News before datagrams: what is stored makes room for what comes.
    fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        timer: Pin<&mut Sleep>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Turn> {
        if stop.poll(cx).is_ready() {
            return Poll::Ready(Turn::Stop);
        }
        let mut done = self.poll_news(cx) | self.poll_channels(cx);
        while let Poll::Ready(Some(Authenticated { asked, verdict })) =
            self.authenticating.poll_next_unpin(cx)
        {
            // What was asked on a channel that is over would begin a session that nobody ends.
            if self.is_there(asked.via) {
                self.guarded(|door| door.on_verdict(asked, verdict));
            }
            done = true;
        }
        if timer.poll(cx).is_ready() {
            self.guarded(Self::on_time);
            done = true;
        }
        if done {
            return Poll::Ready(Turn::Done);
        }
        self.socket.poll_recv(cx, batch).map(Turn::Received)
    }

    fn poll_news(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut news, mut words) = (std::mem::take(&mut self.news), std::mem::take(&mut self.words));
        let mut done = false;
        // Until both are empty: only then both have the waker.
        while self.post.poll(cx, &mut news).is_ready() | self.strays.poll(cx, &mut words).is_ready() {
            done = true;
            for news in news.drain(..) {
                self.guarded(|door| door.on_news(news));
            }
            for word in words.drain(..) {
                self.guarded(|door| door.on_stray(word));
            }
        }
        (self.news, self.words) = (news, words);
        done
    }

    fn set_timer(&self, mut timer: Pin<&mut Sleep>) {
        let waits = self.waits.first_key_value().map(|((until, _), _)| *until);
        let stores = self.store_limits.front().map(|(limit, ..)| *limit);
        let doubtful = self.doubtful.front().map(|(limit, _)| *limit);
        let unfetched = self.unfetched.first().map(|(limit, _)| *limit);
        let next = [self.endpoint.next_timeout(), waits, stores, doubtful, unfetched];
        let next = next.into_iter().flatten().min();
        let deadline = match next {
            Some(tick) => self.start + Duration::from_millis(tick),
            None => Instant::now() + FAR,
        };
        // One that fires too early costs less than one that is set for every datagram.
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
    }

    /// A defect that one device meets must not cost all others their listener.
    pub(crate) fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
            act(self);
            self.drain();
            self.part();
        }));
        if done.is_err() {
            self.server.metrics.dropped(Dropped::Panicked);
            tracing::error!(endpoint = %self.socket.endpoint(), "a message met a defect of the listener");
        }
    }

    fn on_received(&mut self, path: Path, bytes: &[u8]) {
        self.server.metrics.received.inc();
        self.server.metrics.received_bytes.inc_by(u64::try_from(bytes.len()).unwrap_or(0));
        if self.secure.is_some() {
            return self.on_record(path, bytes);
        }
        self.guarded(|door| door.on_message(&path.into(), bytes));
    }

    pub(crate) fn on_message(&mut self, via: &Via, bytes: &[u8]) {
        let now = self.now();
        self.endpoint.receive(now, via, bytes);
    }

    fn on_time(&mut self) {
        let now = self.now();
        // Before the machine forgets what a late turn could still answer.
        self.end_waits(now);
        self.end_stores(now);
        self.endpoint.handle_timeout(now);
        self.end_doubtful(now);
        self.end_unfetched(now);
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Settled { token, result } => self.on_settled(token, result),
            News::Commands(peer) => self.send_commands(&peer),
            News::Ended(peer, reason) => {
                self.server.strays.pass_end(&peer, self.number);
                self.on_ended(&peer);
                self.on_bound_ended(&peer, reason);
            }
        }
    }

    fn on_stray(&mut self, word: Stray) {
        match word {
            Stray::Settled { token, result } => self.on_settled(token, result),
            Stray::Commands(peer) => self.send_commands_here(&peer),
            Stray::Ended(peer) => self.on_ended(&peer),
            Stray::Elsewhere(peer, serial) => self.yield_observer(&peer, serial),
            Stray::Regained(peer) => self.regain_here(&peer),
        }
    }

    /// Does what the machine wants done.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Transmit { peer, bytes } => self.send(&peer, &bytes),
                Output::Request { exchange, peer, request } => self.on_request(exchange, peer, request),
                Output::Fetched { peer, request } => self.on_fetched(peer, &request),
                Output::Ping { peer } => self.on_ping(&peer),
                Output::Heard { peer } => self.on_sign(&peer),
                Output::Proven { peer } => self.on_proven(&peer),
                Output::Repeated { .. } => {
                    self.server.metrics.duplicates.inc();
                }
                Output::ObservationEnded { observation, peer, why } => {
                    self.on_observation_ended(observation, &peer, why);
                }
                Output::Delivered { note, .. } => self.on_delivered(note),
                Output::Unfetched { note, .. } => self.on_unfetched(note),
                Output::Failed { note, why, .. } => self.on_failed(note, why),
                Output::Rejected { peer, why } => self.on_rejected(&peer, why),
            }
        }
    }

    /// What the socket does not take is lost: the machine, or the device, sends again what matters.
    fn send(&mut self, via: &Via, bytes: &[u8]) {
        let sent = match (via.channel, &mut self.secure) {
            (Some(channel), Some(channels)) => channels.send(&self.socket, channel, bytes),
            _ => self.socket.try_send(&via.path, bytes),
        };
        let metrics = &self.server.metrics;
        match sent {
            Ok(()) => {
                metrics.sent.inc();
                metrics.sent_bytes.inc_by(u64::try_from(bytes.len()).unwrap_or(0));
            }
            Err(error) => {
                metrics.send_errors.inc();
                tracing::debug!(remote = %via.path, %error, "a datagram could not be sent");
            }
        }
    }

    fn on_request(&mut self, exchange: ExchangeId, via: Via, request: Request) {
        self.server.metrics.requests.inc();
        if via.channel.is_some() {
            self.endpoint.prove(&via);
        }
        match Asked::read(exchange, via, request) {
            Ok(asked) if asked.resource == Resource::Core => {
                self.spoke(via);
                self.core(&asked);
            }
            Ok(asked) => self.admit(asked),
            Err(code) => {
                if code == Code::BAD_REQUEST {
                    self.refuse(&self.attempt(RefusedCause::Malformed, via));
                }
                self.respond(exchange, Response::new(code));
            }
        }
    }

    /// A heartbeat, of whoever was last heard from exactly there.
    fn on_ping(&mut self, via: &Via) {
        self.server.metrics.pings.inc();
        if self.spoke(*via) {
            return;
        }
        let Some(peer) = self.paths.get(via).cloned() else { return };
        if peer.heard_from(via.path.remote, &self.post).is_ok_and(|heard| heard.commands) {
            self.send_commands(&peer);
        }
    }

    /// The device has acknowledged or reset something: it lives. No word of its own, so it moves no address, and wakes nobody
    /// who has just said that it will sleep.
    fn on_sign(&mut self, via: &Via) {
        if let Some(peer) = self.once(via) {
            peer.touched();
            // There may be room now for one that found none.
            self.send_commands_here(&peer);
        }
    }

    /// Commands may go there now.
    fn on_proven(&mut self, via: &Via) {
        if let Some(peer) = self.once(via) {
            self.send_commands(&peer);
        }
    }

    /// The open session that was heard that way.
    fn once(&self, via: &Via) -> Option<PeerHandle> {
        self.bound(*via).filter(|peer| !peer.is_over()).or_else(|| self.paths.once(via).cloned())
    }

    fn on_rejected(&self, via: &Via, why: Rejected) {
        let metrics = &self.server.metrics;
        tracing::debug!(remote = %via.path, ?why, "a message was not served");
        match why {
            Rejected::Malformed(_) | Rejected::BadOption | Rejected::BadRequest | Rejected::Proxy => {
                self.refuse(&self.attempt(RefusedCause::Malformed, *via));
            }
            Rejected::Busy => metrics.dropped(Dropped::Busy),
            Rejected::TooLarge => metrics.dropped(Dropped::TooLarge),
            Rejected::Unproven => metrics.dropped(Dropped::Unproven),
            Rejected::Unmatched => {
                metrics.unmatched.inc();
            }
            Rejected::Method | Rejected::Incomplete => {}
        }
    }

    /// Nothing more comes in: who waits for a command is answered, who waits for the store as far as it stores.
    async fn last_answers(&mut self) {
        self.is_closing = true;
        self.authenticating.clear();
        self.guarded(|door| door.end_waits(Tick::MAX));
        while !self.storing.is_empty() {
            poll_fn(|cx| if self.poll_news(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
    }

    fn tell_gauges(&mut self) {
        let (metrics, shares, endpoint) = (&self.server.metrics, &mut self.shares, &self.endpoint);
        shares.exchanges.set(&metrics.exchanges, endpoint.exchanges());
        shares.observations.set(&metrics.observations, endpoint.observations());
        shares.uploads.set(&metrics.uploads, endpoint.uploads());
        shares.bytes.set(&metrics.bytes, endpoint.bytes());
        shares.peers.set(&metrics.peers, endpoint.peers());
        metrics.retransmissions.inc_by(endpoint.retransmitted() - shares.retransmitted);
        shares.retransmitted = endpoint.retransmitted();
        shares.authenticating.set(&metrics.authenticating, self.authenticating.len());
        shares.waiting.set(&metrics.waiting, self.waits.len());
        shares.paths.set(&metrics.paths, self.paths.len());
    }
}
