//! A CoAP client as RFC 7252, 7641 and 7959 want it, in virtual time: one confirmable request at a time, with its
//! retransmissions, and an answer to whatever the server starts.
//!
//! Owns: the client's rules, and what it believes to have happened. Does not own: the link, or what is right.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use landfall_coap_core::block::{BlockValue, cut};
use landfall_coap_core::{Code, Kind, Message, Token, codec, number};
use landfall_testkit::proxy::Seed;

/// How long the client waits for what was promised by an empty acknowledgement, and remembers message ids.
const EXCHANGE_LIFETIME: u64 = 247_000;
const MAX_RETRANSMIT: u32 = 4;

/// What the client is to do.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// A confirmable POST.
    Post(Bytes),
    /// A non-confirmable POST, which nobody waits for.
    Shout(Bytes),
    /// A confirmable POST in blocks of this size exponent.
    Upload(Bytes, u8),
    /// A GET of a large body.
    Fetch(String),
    /// A GET with Observe 0.
    Observe,
    /// A GET of what a notification had only the first block of.
    Rest(Bytes),
    /// A GET with Observe 1, with the token of the observation.
    Deregister,
}

/// What the client believes to have become of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A final response came.
    Answered(Code, Bytes),
    /// None came, in the time that a client waits.
    Silent,
    /// The server has reset the request.
    Reset,
}

/// A request under way.
#[derive(Debug)]
struct Exchange {
    task: Task,
    token: Token,
    mid: u16,
    wire: Bytes,
    /// Times sent.
    sent: u32,
    timeout: u64,
    /// When to send again or, once acknowledged, to give up.
    at: u64,
    acknowledged: bool,
    /// Bytes of the upload that are acknowledged, or the body fetched so far.
    done: Vec<u8>,
}

/// Counts of what the test wants to have happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) retransmissions: u64,
    pub(crate) piggybacked: u64,
    pub(crate) separate: u64,
    pub(crate) duplicates: u64,
    pub(crate) proofs: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    seed: Seed,
    mid: u16,
    token: u64,
    tasks: VecDeque<Task>,
    exchange: Option<Exchange>,
    /// When the next task begins.
    rest_until: u64,
    echo: Option<Bytes>,
    observed: Option<Token>,
    newest: HashMap<Token, u32>,
    /// The size exponent of the blocks that are fetched.
    szx: u8,
    /// What came from the server by message id, to know a duplicate.
    heard: HashMap<u16, (u64, Vec<u8>)>,
    out: Vec<Bytes>,
    pub(crate) outcomes: Vec<(Task, Outcome)>,
    /// Notifications in the order in which they came, each once.
    pub(crate) notes: Vec<Bytes>,
    pub(crate) counts: Counts,
}

impl Client {
    /// Message ids and tokens begin at `first`, so that clients can be made that look alike.
    pub(crate) fn new(seed: u64, first: u16, tasks: impl IntoIterator<Item = Task>) -> Self {
        Self {
            seed: Seed(seed),
            mid: first,
            token: u64::from(first),
            tasks: tasks.into_iter().collect(),
            exchange: None,
            rest_until: 0,
            echo: None,
            observed: None,
            newest: HashMap::new(),
            szx: 6,
            heard: HashMap::new(),
            out: Vec::new(),
            outcomes: Vec::new(),
            notes: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.exchange.is_none()
    }

    /// What is to be sent.
    pub(crate) fn drain(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        match &self.exchange {
            Some(exchange) => Some(exchange.at),
            None => (!self.tasks.is_empty()).then_some(self.rest_until),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: u64) {
        let Some(exchange) = &mut self.exchange else {
            if self.rest_until <= now
                && let Some(task) = self.tasks.pop_front()
            {
                self.begin(now, task);
            }
            return;
        };
        if exchange.at > now {
            return;
        }
        if exchange.acknowledged || exchange.sent > MAX_RETRANSMIT {
            return self.end(now, Outcome::Silent);
        }
        exchange.sent += 1;
        exchange.timeout *= 2;
        exchange.at = now + exchange.timeout;
        self.counts.retransmissions += 1;
        self.out.push(exchange.wire.clone());
    }

    fn begin(&mut self, now: u64, task: Task) {
        if let Task::Shout(body) = &task {
            let mut message = self.request(Kind::Non, Code::POST, "up");
            message.payload = body.clone();
            self.out.push(codec::encode(&message));
            self.rest_until = now + self.seed.below(500);
            return;
        }
        let done = if let Task::Rest(first) = &task { first.to_vec() } else { Vec::new() };
        self.ask(now, task, done);
    }

    /// Sends the next request of a task.
    fn ask(&mut self, now: u64, task: Task, done: Vec<u8>) {
        let message = self.message(&task, &done);
        let wire = codec::encode(&message);
        let timeout = 2_000 + self.seed.below(1_001);
        self.out.push(wire.clone());
        self.exchange = Some(Exchange {
            task,
            token: message.token,
            mid: message.id,
            wire,
            sent: 1,
            timeout,
            at: now + timeout,
            acknowledged: false,
            done,
        });
    }

    fn message(&mut self, task: &Task, done: &[u8]) -> Message {
        match task {
            Task::Post(body) | Task::Shout(body) => {
                let mut message = self.request(Kind::Con, Code::POST, "up");
                message.payload = body.clone();
                message
            }
            Task::Upload(body, szx) => {
                let mut message = self.request(Kind::Con, Code::POST, "up");
                let num = u32::try_from(done.len() / (16 << szx)).unwrap();
                let (payload, block) = cut(body, BlockValue::new(num, false, *szx).unwrap()).unwrap();
                message.options.push(number::BLOCK1, block.encode());
                message.payload = payload;
                message
            }
            Task::Fetch(_) | Task::Rest(_) => {
                let path = if matches!(task, Task::Fetch(_)) { "big" } else { "obs" };
                let mut message = self.request(Kind::Con, Code::GET, path);
                if let Task::Fetch(name) = task {
                    message.options.push(number::URI_PATH, name.clone());
                }
                if !done.is_empty() {
                    let num = u32::try_from(done.len() / (16 << self.szx)).unwrap();
                    message
                        .options
                        .push(number::BLOCK2, BlockValue::new(num, false, self.szx).unwrap().encode());
                } else if self.seed.below(2) == 0 {
                    message.options.push(number::BLOCK2, BlockValue::first(2).encode());
                }
                message
            }
            Task::Observe => {
                let mut message = self.request(Kind::Con, Code::GET, "obs");
                message.options.push_uint(number::OBSERVE, 0);
                message
            }
            Task::Deregister => {
                let mut message = self.request(Kind::Con, Code::GET, "obs");
                message.options.push_uint(number::OBSERVE, 1);
                message.token = self.observed.unwrap_or(message.token);
                message
            }
        }
    }

    fn request(&mut self, kind: Kind, code: Code, path: &'static str) -> Message {
        let token = self.token.to_be_bytes();
        let length = 1 + usize::try_from(self.token % 8).unwrap();
        let mut message = Message::new(kind, code, self.mid, Token::new(&token[8 - length..]).unwrap());
        self.mid = self.mid.wrapping_add(1);
        self.token += 1;
        message.options.push(number::URI_PATH, path);
        if let Some(echo) = &self.echo {
            message.options.push(number::ECHO, echo.clone());
        }
        message
    }

    fn end(&mut self, now: u64, outcome: Outcome) {
        let exchange = self.exchange.take().expect("an exchange ends once");
        if let (Task::Deregister, Outcome::Answered(..)) = (&exchange.task, &outcome) {
            self.observed = None;
        }
        match (exchange.task, outcome) {
            (Task::Rest(_), Outcome::Answered(Code::CONTENT, whole)) => self.notes.push(whole),
            (Task::Rest(_), _) => {}
            done => self.outcomes.push(done),
        }
        self.rest_until = now + self.seed.below(500);
    }

    pub(crate) fn receive(&mut self, now: u64, datagram: &[u8]) {
        let Ok(message) = codec::decode(datagram) else { return };
        match message.kind {
            Kind::Ack => self.acknowledged(now, &message),
            Kind::Rst => {
                if self.exchange.as_ref().is_some_and(|exchange| exchange.mid == message.id) {
                    self.end(now, Outcome::Reset);
                }
            }
            Kind::Con | Kind::Non => self.told(now, &message, datagram),
        }
    }

    fn acknowledged(&mut self, now: u64, message: &Message) {
        let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.mid == message.id) else {
            return;
        };
        if message.code == Code::EMPTY {
            if !exchange.acknowledged {
                exchange.acknowledged = true;
                exchange.at = now + EXCHANGE_LIFETIME;
            }
            return;
        }
        assert_eq!(message.token, exchange.token, "an acknowledgement carries the token of its request");
        self.counts.piggybacked += 1;
        self.answered(now, message);
    }

    /// A message that the server starts: a separate response or a notification.
    fn told(&mut self, now: u64, message: &Message, datagram: &[u8]) {
        let reply = |kind| codec::encode(&Message::empty(kind, message.id));
        if message.code == Code::EMPTY {
            return self.out.push(reply(Kind::Rst));
        }
        let before = self.heard.get(&message.id).filter(|(at, _)| now - at < EXCHANGE_LIFETIME);
        if let Some((_, bytes)) = before {
            assert_eq!(bytes, datagram, "a message id is not used twice within its lifetime");
            self.counts.duplicates += 1;
            if message.kind == Kind::Con {
                self.out.push(reply(Kind::Ack));
            }
            return;
        }
        let noted = message.options.has(number::OBSERVE) && self.is_observed(message.token);
        // The answer to a deregistration has the observation's token, but no Observe option.
        let awaited = self.exchange.as_ref().is_some_and(|exchange| {
            exchange.token == message.token && !(noted && matches!(exchange.task, Task::Deregister))
        });
        if !noted && !awaited {
            self.out.push(reply(Kind::Rst));
            return;
        }
        self.heard.insert(message.id, (now, datagram.to_vec()));
        if message.kind == Kind::Con {
            self.out.push(reply(Kind::Ack));
        }
        if noted {
            self.note(message);
        }
        if awaited {
            self.counts.separate += 1;
            self.answered(now, message);
        }
    }

    fn is_observed(&self, token: Token) -> bool {
        let asked = |exchange: &Exchange| matches!(exchange.task, Task::Observe) && exchange.token == token;
        self.observed == Some(token) || self.exchange.as_ref().is_some_and(asked)
    }

    fn note(&mut self, message: &Message) {
        let number = message.options.uint(number::OBSERVE).unwrap();
        assert!(number < 1 << 24, "an Observe number has 24 bits");
        let before = self.newest.insert(message.token, number);
        assert!(
            before.is_none_or(|before| is_newer(number, before)),
            "{before:?} came before {number}, though one is sent at a time"
        );
        let block = message.options.first(number::BLOCK2).map(|block| BlockValue::decode(block).unwrap());
        match block.filter(|block| block.more()) {
            Some(block) => {
                assert_eq!(block.offset(), 0, "a notification has the first block");
                self.szx = block.szx();
                self.tasks.push_front(Task::Rest(message.payload.clone()));
            }
            None => self.notes.push(message.payload.clone()),
        }
    }

    /// A response to the request under way.
    fn answered(&mut self, now: u64, message: &Message) {
        let exchange = self.exchange.as_mut().expect("somebody waits");
        let (task, mut done) = (exchange.task.clone(), std::mem::take(&mut exchange.done));
        if message.code == Code::UNAUTHORIZED
            && let Some(echo) = message.options.first(number::ECHO)
        {
            assert!(self.counts.proofs < 100, "a proof is believed");
            self.counts.proofs += 1;
            self.echo = Some(echo.clone());
            return self.ask(now, task, done);
        }
        match &task {
            Task::Upload(body, szx) if message.code == Code::CONTINUE => {
                let block = BlockValue::decode(message.options.first(number::BLOCK1).unwrap()).unwrap();
                assert_eq!((block.offset(), block.szx()), (done.len(), *szx), "the block that was sent");
                let sent = body.slice(done.len()..done.len() + block.size());
                done.extend_from_slice(&sent);
                return self.ask(now, task, done);
            }
            Task::Fetch(_) | Task::Rest(_) if message.code == Code::CONTENT => {
                if let Some(block) = message.options.first(number::BLOCK2) {
                    let block = BlockValue::decode(block).unwrap();
                    assert_eq!(block.offset(), done.len(), "the block that was asked for");
                    done.extend_from_slice(&message.payload);
                    self.szx = block.szx();
                    if block.more() {
                        return self.ask(now, task, done);
                    }
                } else {
                    done.extend_from_slice(&message.payload);
                }
                return self.end(now, Outcome::Answered(message.code, done.into()));
            }
            Task::Observe if message.code == Code::CONTENT => {
                if let Some(number) = message.options.uint(number::OBSERVE) {
                    self.observed = Some(message.token);
                    let newest = self.newest.entry(message.token).or_insert(number);
                    if is_newer(number, *newest) {
                        *newest = number;
                    }
                }
            }
            _ => {}
        }
        self.end(now, Outcome::Answered(message.code, message.payload.clone()));
    }
}

/// Whether one number of a notification is after another, as far as numbers say (RFC 7641, section 3.4).
fn is_newer(number: u32, than: u32) -> bool {
    let half = 1 << 23;
    (than < number && number - than < half) || (than > number && than - number > half)
}
