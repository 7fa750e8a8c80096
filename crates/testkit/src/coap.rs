//! A CoAP client written by hand: confirmable messages sent again as RFC 7252 says, observations, blocks, and raw bytes.
//!
//! Owns: one carrier, and what a client has to do on it (acknowledge, recognise what comes again, refuse what it does not
//! know). Does not own: the bytes of a message ([`message`]). It shares nothing with the gateway, which it judges: an answer
//! from another address than the one asked, an answer with a foreign token and a malformed message fail the test.

pub mod message;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use message::{Block, Message, code, kind, method, option};

use crate::carrier::Carrier;
use crate::dtls::DtlsClient;
use crate::proxy::Seed;
use crate::wait::{PATIENCE, within};

/// How long a client waits and how often it sends (RFC 7252 section 4.8).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Before the first retransmission; doubled for each further.
    pub ack_timeout: Duration,
    /// The first wait is drawn between `ack_timeout` and this many times as much.
    pub random_factor: f64,
    /// Retransmissions.
    pub retransmits: u32,
    /// For an answer that was promised by an empty acknowledgement, or to a message that wants none.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { ack_timeout: Duration::from_secs(2), random_factor: 1.5, retransmits: 4, patience: PATIENCE }
    }
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The server sent a reset.
    Reset,
    /// Nothing came, though the request was sent as often as it may be.
    Silent,
}

/// A resource that is observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    token: Vec<u8>,
    request: Message,
}

/// One client at one address.
#[derive(Debug)]
pub struct CoapClient {
    carrier: Carrier,
    timing: Timing,
    seed: Seed,
    next_id: u16,
    next_token: u32,
    /// Tokens of requests under way and of observations.
    live: HashSet<Vec<u8>>,
    /// What was answered to each message of the server's, by its id: `None` where nothing was.
    answered: HashMap<u16, Option<Message>>,
    held: VecDeque<Message>,
    strays: Vec<Message>,
    rough: bool,
    acknowledges: bool,
    counts: Counts,
}

/// What a client has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that it sent again.
    pub retransmitted: u64,
    /// Messages of the server's that came again.
    pub repeated: u64,
    /// Datagrams that were no messages, on a rough way.
    pub malformed: u64,
}

impl CoapClient {
    /// A client at an address of its own; nothing is sent yet. Message ids, tokens and jitter come from `seed`.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn new(server: SocketAddr, seed: u64) -> Self {
        Self::over(Carrier::plain(server).await, seed)
    }

    /// The same over a secure channel whose handshake has succeeded.
    pub fn secure(channel: DtlsClient, seed: u64) -> Self {
        Self::over(Carrier::secure(channel), seed)
    }

    fn over(carrier: Carrier, seed: u64) -> Self {
        let mut seed = Seed(seed);
        let drawn = seed.draw();
        Self {
            carrier,
            timing: Timing::default(),
            next_id: (drawn >> 48) as u16,
            next_token: drawn as u32,
            seed,
            live: HashSet::new(),
            answered: HashMap::new(),
            held: VecDeque::new(),
            strays: Vec::new(),
            rough: false,
            acknowledges: true,
            counts: Counts::default(),
        }
    }

    /// With other times.
    #[must_use]
    pub fn timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// On a way that corrupts: what is malformed, or has a foreign token in an acknowledgement, is counted and passed over.
    #[must_use]
    pub fn rough(self) -> Self {
        Self { rough: true, ..self }
    }

    /// Stops or starts acknowledging (and resetting) what the server sends.
    pub fn acknowledge(&mut self, acknowledges: bool) {
        self.acknowledges = acknowledges;
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.carrier.local_addr()
    }

    /// Takes another address, as a device does behind a NAT that forgot it. The old one stays bound until the new one is,
    /// so they differ.
    pub async fn rebind(&mut self) {
        self.carrier.rebind().await;
        self.answered.clear();
    }

    /// Talks to another address of the server from now on.
    pub async fn redirect(&mut self, server: SocketAddr) {
        self.carrier.redirect(server).await;
        self.answered.clear();
    }

    /// Its secure channel.
    ///
    /// # Panics
    /// When it has none.
    pub fn channel(&mut self) -> &mut DtlsClient {
        self.carrier.channel()
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Messages whose token it does not know; each was answered with a reset.
    pub fn strays(&self) -> &[Message] {
        &self.strays
    }

    /// Waits for one more of these.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn stray(&mut self) -> Message {
        let before = self.strays.len();
        within(self.timing.patience, "a message that is not known", async {
            while self.strays.len() == before {
                let other = self.step().await;
                self.held.extend(other);
            }
        })
        .await;
        self.strays[before].clone()
    }

    /// Takes the messages that came while something else was waited for.
    pub fn held(&mut self) -> Vec<Message> {
        self.held.drain(..).collect()
    }

    /// Sends a request, again and again where it is confirmable, and waits for its answer. An id is given to it; a token
    /// too where it has none.
    ///
    /// # Errors
    /// [`Unanswered`].
    ///
    /// # Panics
    /// When what comes breaks the protocol.
    pub async fn try_request(&mut self, mut request: Message) -> Result<Message, Unanswered> {
        request.id = self.id();
        if request.token.is_empty() {
            request.token = self.token();
        }
        self.live.insert(request.token.clone());
        let answer = self.exchange(&request).await;
        let goes_on = answer.as_ref().is_ok_and(|answer| answer.value(option::OBSERVE).is_some());
        if !goes_on {
            self.live.remove(&request.token);
        }
        answer
    }

    /// The same for a request that must be answered.
    ///
    /// # Panics
    /// When it is not, or what comes breaks the protocol.
    pub async fn request(&mut self, request: Message) -> Message {
        let what = format!("{request:?}");
        self.try_request(request).await.unwrap_or_else(|why| panic!("{what}: {why:?}"))
    }

    /// GET.
    ///
    /// # Panics
    /// As of [`Self::request`].
    pub async fn get(&mut self, path: &str, queries: &[&str]) -> Message {
        self.request(Message::request(method::GET).path(path).queries(queries)).await
    }

    /// POST.
    ///
    /// # Panics
    /// As of [`Self::request`].
    pub async fn post(&mut self, path: &str, queries: &[&str], payload: impl AsRef<[u8]>) -> Message {
        self.request(Message::request(method::POST).path(path).queries(queries).payload(payload)).await
    }

    /// PUT.
    ///
    /// # Panics
    /// As of [`Self::request`].
    pub async fn put(&mut self, path: &str, queries: &[&str], payload: impl AsRef<[u8]>) -> Message {
        self.request(Message::request(method::PUT).path(path).queries(queries).payload(payload)).await
    }

    /// DELETE.
    ///
    /// # Panics
    /// As of [`Self::request`].
    pub async fn delete(&mut self, path: &str, queries: &[&str]) -> Message {
        self.request(Message::request(method::DELETE).path(path).queries(queries)).await
    }

    /// A ping (RFC 7252 section 4.3): true when the server answers with a reset.
    ///
    /// # Panics
    /// When what comes breaks the protocol.
    pub async fn ping(&mut self) -> bool {
        let ping = Message::empty(kind::CON, self.id());
        self.exchange(&ping).await == Err(Unanswered::Reset)
    }

    /// Observes a resource; the first answer comes along.
    ///
    /// # Panics
    /// When the server does not take it, and as of [`Self::request`].
    pub async fn observe(&mut self, path: &str, queries: &[&str]) -> (Observation, Message) {
        let token = self.token();
        let request = Message::request(method::GET).path(path).queries(queries).number(option::OBSERVE, 0);
        let request = Message { token: token.clone(), ..request };
        let answer = self.request(request.clone()).await;
        assert!(answer.value(option::OBSERVE).is_some(), "{path} is not observed: {answer:?}");
        (Observation { token, request }, answer)
    }

    /// The next notification of an observation, acknowledged.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn notification(&mut self, observation: &Observation) -> Message {
        if let Some(at) = self.held.iter().position(|message| message.token == observation.token) {
            return self.held.remove(at).expect("it was found there");
        }
        within(self.timing.patience, "a notification", async {
            loop {
                let message = self.intake().await;
                if message.token == observation.token && message.kind != kind::ACK {
                    return message;
                }
                self.held.push_back(message);
            }
        })
        .await
    }

    /// Ends an observation with a request (Observe 1).
    ///
    /// # Panics
    /// As of [`Self::request`].
    pub async fn cancel(&mut self, observation: &Observation) -> Message {
        let mut request = observation.request.clone();
        request.options.retain(|(number, _)| *number != option::OBSERVE);
        self.request(request.number(option::OBSERVE, 1)).await
    }

    /// Forgets an observation: its next notification is answered with a reset.
    pub fn forget(&mut self, observation: &Observation) {
        self.live.remove(&observation.token);
    }

    /// Sends a body in blocks (Block1) of 2^(`exponent` + 4) bytes, or smaller where the server wants that. Returns the
    /// answer to the last, or the first that is no 2.31 Continue.
    ///
    /// # Panics
    /// As of [`Self::request`].
    pub async fn upload(&mut self, request: &Message, body: &[u8], exponent: u8) -> Message {
        let mut exponent = exponent;
        let mut at = 0;
        loop {
            let size = 16 << exponent;
            let end = body.len().min(at + size);
            let number = u32::try_from(at / size).expect("a short body");
            let block = Block { number, more: end < body.len(), exponent };
            let part = request.clone().number(option::BLOCK1, block.value()).payload(&body[at..end]);
            let answer = self.request(part).await;
            if answer.code != code(2, 31) {
                return answer;
            }
            let said = answer.block(option::BLOCK1).expect("2.31 has a Block1");
            assert_eq!(said.number, number, "2.31 for another block");
            assert!(said.exponent <= exponent && block.more, "2.31 that cannot be: {answer:?}");
            exponent = said.exponent;
            // A smaller size holds for what follows; of this block all has arrived.
            at = end;
        }
    }

    /// Asks for what follows while an answer is a part (Block2), and returns the last answer with the whole body.
    ///
    /// # Panics
    /// When a part does not fit the one before, and as of [`Self::request`].
    pub async fn download(&mut self, request: &Message) -> Message {
        let mut answer = self.request(request.clone()).await;
        let etag = answer.value(option::ETAG).map(<[u8]>::to_vec);
        let mut body = std::mem::take(&mut answer.payload);
        while let Some(block) = answer.block(option::BLOCK2).filter(|block| block.more) {
            assert_eq!(
                body.len(),
                (block.number as usize + 1) * block.size(),
                "a full block before the last"
            );
            let mut next = request.clone();
            next.options.retain(|(number, _)| ![option::BLOCK2, option::OBSERVE].contains(number));
            let next_block = Block { number: block.number + 1, more: false, exponent: block.exponent };
            answer = self.request(next.number(option::BLOCK2, next_block.value())).await;
            assert_eq!(answer.value(option::ETAG), etag.as_deref(), "a block of another body");
            let said = answer.block(option::BLOCK2).expect("a part says which");
            assert_eq!((said.number, said.exponent), (next_block.number, block.exponent));
            body.append(&mut answer.payload);
        }
        answer.payload = body;
        answer
    }

    /// Sends one message as it is, once.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn send(&mut self, message: &Message) {
        self.send_raw(&message.encode()).await;
    }

    /// Sends one datagram.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.carrier.send(bytes).await;
    }

    /// The next message, unanswered, and not looked at for repetition.
    ///
    /// # Panics
    /// When none comes in time, or it is malformed.
    pub async fn receive(&mut self) -> Message {
        let bytes = within(self.timing.patience, "a message", self.receive_raw()).await;
        Message::decode(&bytes).unwrap_or_else(|problem| panic!("{problem}: {bytes:02x?}"))
    }

    /// Sends one datagram and then a ping; returns every datagram that came before the pong. Between them the server has
    /// seen the datagram and said what it says at once.
    ///
    /// # Panics
    /// When no pong comes.
    pub async fn drawn_by(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.send_raw(bytes).await;
        let ping = Message::empty(kind::CON, self.id());
        let pong = Message::empty(kind::RST, ping.id).encode();
        within(self.timing.patience, "the pong", async {
            let mut came = Vec::new();
            let mut again = tokio::time::interval(self.timing.ack_timeout);
            loop {
                tokio::select! {
                    bytes = self.receive_raw() => match bytes {
                        bytes if bytes == pong => return came,
                        bytes => came.push(bytes),
                    },
                    // The first tick is at once.
                    _ = again.tick() => self.send(&ping).await,
                }
            }
        })
        .await
    }

    /// The next message id.
    pub fn id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// A token that is not in use.
    pub fn token(&mut self) -> Vec<u8> {
        self.next_token = self.next_token.wrapping_add(1);
        self.next_token.to_be_bytes().to_vec()
    }

    /// Sends, again and again, until an answer.
    async fn exchange(&mut self, request: &Message) -> Result<Message, Unanswered> {
        let bytes = request.encode();
        let jitter = 1.0 + (self.timing.random_factor - 1.0) * (self.seed.below(1000) as f64 / 1000.0);
        let mut wait = self.timing.ack_timeout.mul_f64(jitter);
        let mut left = self.timing.retransmits;
        self.send_raw(&bytes).await;
        let mut promised = request.kind != kind::CON;
        let mut deadline = Instant::now() + if promised { self.timing.patience } else { wait };
        loop {
            let Ok(message) = timeout_at(deadline, self.intake()).await else {
                if promised || left == 0 {
                    return Err(Unanswered::Silent);
                }
                left -= 1;
                wait *= 2;
                deadline = Instant::now() + wait;
                self.counts.retransmitted += 1;
                self.send_raw(&bytes).await;
                continue;
            };
            match message.kind {
                kind::RST if message.id == request.id => return Err(Unanswered::Reset),
                kind::ACK if message.id == request.id && message.code == 0 => {
                    promised = true;
                    deadline = Instant::now() + self.timing.patience;
                }
                kind::ACK if message.id == request.id => {
                    if message.token == request.token {
                        return Ok(message);
                    }
                    assert!(self.rough, "an answer with a foreign token: {message:?} to {request:?}");
                    self.counts.malformed += 1;
                }
                // To something earlier that has its answer already.
                kind::ACK | kind::RST => {}
                _ if message.token == request.token => return Ok(message),
                _ => self.held.push_back(message),
            }
        }
    }

    /// The next message that is new and meant for this client.
    async fn intake(&mut self) -> Message {
        loop {
            if let Some(message) = self.step().await {
                return message;
            }
        }
    }

    /// Takes one datagram, and answers what a client has to answer.
    async fn step(&mut self) -> Option<Message> {
        let bytes = self.receive_raw().await;
        let message = match Message::decode(&bytes) {
            Ok(message) => message,
            Err(problem) => {
                assert!(self.rough, "a malformed message, {problem}: {bytes:02x?}");
                self.counts.malformed += 1;
                return None;
            }
        };
        if matches!(message.kind, kind::ACK | kind::RST) {
            return Some(message);
        }
        if let Some(before) = self.answered.get(&message.id).cloned() {
            self.counts.repeated += 1;
            if let Some(answer) = before {
                self.send(&answer).await;
            }
            return None;
        }
        let known = self.live.contains(&message.token);
        let answer = match (known, message.kind) {
            (true, kind::CON) => Some(Message::empty(kind::ACK, message.id)),
            (true, _) => None,
            (false, _) => Some(Message::empty(kind::RST, message.id)),
        };
        let answer = answer.filter(|_| self.acknowledges);
        if let Some(answer) = &answer {
            self.send(answer).await;
        }
        self.answered.insert(message.id, answer);
        if known {
            return Some(message);
        }
        self.strays.push(message);
        None
    }

    async fn receive_raw(&self) -> Vec<u8> {
        self.carrier.receive().await
    }
}
