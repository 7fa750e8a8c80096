//! An endpoint with a clock, and short ways to say what a client sends and to read what it gets.

use std::sync::Arc;

use landfall_coap_core::{
    Code, Endpoint, ExchangeId, Kind, Limits, Message, ObservationId, Output, Request, Response, Tick, Token,
    codec, number,
};

pub(crate) type Outputs = Vec<Output<u32>>;

pub(crate) struct Bench {
    pub(crate) endpoint: Endpoint<u32>,
    pub(crate) now: Tick,
    /// Blocks of bodies are let in by themselves.
    pub(crate) lets_in: bool,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self { endpoint: Endpoint::new(Arc::new(limits), &[7; 32]), now: 1_000_000, lets_in: true }
    }

    pub(crate) fn drain(&mut self) -> Outputs {
        let mut outputs = Vec::new();
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Request { exchange, request, .. } if request.is_partial && self.lets_in => {
                    self.endpoint.respond(self.now, exchange, Response::new(Code::CONTINUE));
                }
                Output::Fetched { .. } if self.lets_in => {}
                output => outputs.push(output),
            }
        }
        outputs
    }

    pub(crate) fn raw(&mut self, peer: u32, datagram: &[u8]) -> Outputs {
        self.endpoint.receive(self.now, &peer, datagram);
        self.drain()
    }

    pub(crate) fn send(&mut self, peer: u32, message: &Message) -> Outputs {
        self.raw(peer, &codec::encode(message))
    }

    /// A message that came before: what it gets, once more.
    pub(crate) fn again(&mut self, peer: u32, message: &Message) -> Outputs {
        let mut outputs = self.send(peer, message);
        assert_eq!(outputs.pop(), Some(Output::Repeated { peer }), "it is no other message");
        outputs
    }

    /// A request of a peer whose address is proven, handed up.
    pub(crate) fn ask(&mut self, peer: u32, message: &Message) -> (ExchangeId, Request) {
        let asked = handed_up(&self.send(peer, message));
        self.endpoint.prove(&peer);
        asked
    }

    pub(crate) fn respond(&mut self, exchange: ExchangeId, response: Response) -> Outputs {
        self.endpoint.respond(self.now, exchange, response);
        self.drain()
    }

    /// A registration for `/command`, answered; with what the client gets.
    pub(crate) fn register(&mut self, peer: u32, id: u16, token: &[u8]) -> (ObservationId, Message) {
        let (exchange, _) = self.ask(peer, &register(id, token));
        let state = Response::new(Code::CONTENT);
        let observation = self.endpoint.observe(self.now, exchange, state).unwrap();
        let outputs = self.drain();
        (observation, sent(&outputs).pop().unwrap())
    }

    /// Lets the time pass, deadline by deadline; with the time of everything that came of it.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<(Tick, Output<u32>)> {
        let (until, mut came) = (self.now + ms, Vec::new());
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.endpoint.handle_timeout(self.now);
            let now = self.now;
            came.extend(self.drain().into_iter().map(|output| (now, output)));
        }
        self.now = until;
        came
    }

    /// What came of letting the time pass.
    pub(crate) fn wait(&mut self, ms: u64) -> Outputs {
        self.pass(ms).into_iter().map(|(_, output)| output).collect()
    }
}

/// The messages among the outputs.
pub(crate) fn sent(outputs: &[Output<u32>]) -> Vec<Message> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Transmit { bytes, .. } => Some(codec::decode(bytes).unwrap()),
            _ => None,
        })
        .collect()
}

/// The only message among the outputs.
pub(crate) fn one(outputs: &[Output<u32>]) -> Message {
    let mut messages = sent(outputs);
    assert_eq!(messages.len(), 1, "{outputs:?}");
    messages.remove(0)
}

/// The only request among the outputs.
pub(crate) fn handed_up(outputs: &[Output<u32>]) -> (ExchangeId, Request) {
    let mut requests = requests(outputs);
    assert_eq!(requests.len(), 1, "{outputs:?}");
    requests.remove(0)
}

pub(crate) fn requests(outputs: &[Output<u32>]) -> Vec<(ExchangeId, Request)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Request { exchange, request, .. } => Some((*exchange, request.clone())),
            _ => None,
        })
        .collect()
}

pub(crate) fn token(bytes: &[u8]) -> Token {
    Token::new(bytes).unwrap()
}

/// A request for `/a/b`.
pub(crate) fn request(kind: Kind, code: Code, id: u16) -> Message {
    let mut message = Message::new(kind, code, id, token(b"tok"));
    message.options.push(number::URI_PATH, "a");
    message.options.push(number::URI_PATH, "b");
    message
}

pub(crate) fn get(id: u16) -> Message {
    request(Kind::Con, Code::GET, id)
}

pub(crate) fn post(id: u16, payload: &'static str) -> Message {
    let mut message = request(Kind::Con, Code::POST, id);
    message.payload = payload.into();
    message
}

/// GET `/command` with Observe 0.
pub(crate) fn register(id: u16, with: &[u8]) -> Message {
    let mut message = Message::new(Kind::Con, Code::GET, id, token(with));
    message.options.push_uint(number::OBSERVE, 0);
    message.options.push(number::URI_PATH, "command");
    message
}

pub(crate) fn ack(id: u16) -> Message {
    Message::empty(Kind::Ack, id)
}

pub(crate) fn rst(id: u16) -> Message {
    Message::empty(Kind::Rst, id)
}

pub(crate) fn changed() -> Response {
    Response::new(Code::CHANGED)
}

pub(crate) fn content(payload: impl Into<bytes::Bytes>) -> Response {
    Response::new(Code::CONTENT).with_payload(payload)
}
