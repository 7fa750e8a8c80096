//! A client and a shell that do what bytes tell them, and a model of what the client may be sent.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::source::Source;
use crate::fuzzing::client::Client;
use crate::{
    Accept, Action, Connection, Delivery, DeliveryToken, Limits, Message, PublishFailure, QoS, SessionState,
    SubscribeRequest, Token, Verdict, Version,
};

const TOPICS: [&str; 4] = ["a", "a/b", "c///q/1/x", "$x"];
const FILTERS: [&str; 6] = ["a", "a/#", "+/b", "#", "$share/g/a", "a#"];

/// One session over as many connections as the bytes last.
pub(super) struct Play<'a> {
    source: Source<'a>,
    version: Version,
    limits: Arc<Limits>,
    conn: Connection,
    input: BytesMut,
    out: BytesMut,
    client: Client,
    /// Messages in the shell's hands.
    waiting: Vec<Token>,
    last_token: Option<Token>,
    requests: Vec<SubscribeRequest>,
    /// Deliveries that have not ended.
    delivered: Vec<DeliveryToken>,
}

impl<'a> Play<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        let mut source = Source::new(data);
        let version = if source.flag() { Version::V5 } else { Version::V311 };
        let limits = Arc::new(Limits {
            max_packet_size: 1_024,
            receive_maximum: 4,
            unacknowledged_v311: 6,
            topic_alias_maximum: 3,
            max_subscriptions: 3,
            max_qos2_pending: 6,
            outbound_in_flight: 3,
            ..Limits::default()
        });
        Self {
            source,
            version,
            conn: Connection::new(Arc::clone(&limits)),
            limits,
            input: BytesMut::new(),
            out: BytesMut::new(),
            client: Client::new(version),
            waiting: Vec::new(),
            last_token: None,
            requests: Vec::new(),
            delivered: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        self.connect(None);
        while !self.source.is_empty() {
            self.step();
            self.pump(0);
            self.check();
            if self.conn.is_over() {
                self.reconnect();
            }
        }
    }

    fn connect(&mut self, state: Option<SessionState>) {
        let window = u16::from(self.source.below(5)) + 1;
        self.conn = Connection::new(Arc::clone(&self.limits));
        self.input.clear();
        self.out.clear();
        self.last_token = None;
        self.client.connects(window, state.is_some());
        self.input.put_slice(b"\x10");
        match self.version {
            Version::V31 | Version::V311 => self.input.put_slice(b"\x0d\0\x04MQTT\x04\0\0\x3c\0\x01f"),
            Version::V5 => {
                self.input.put_slice(b"\x11\0\x04MQTT\x05\0\0\x3c\x03\x21");
                self.input.put_u16(window);
                self.input.put_slice(b"\0\x01f");
            }
        }
        assert!(matches!(self.poll(), Some(Action::Connect(_))), "CONNECT is accepted");
        self.conn.accept(&Accept::default(), state, &mut self.out);
        self.pump(0);
        self.client.is_connected();
    }

    /// The next connection of the session: after its state has been written and read, or without it.
    fn reconnect(&mut self) {
        let settle = self.source.flag();
        for token in std::mem::take(&mut self.waiting) {
            if settle {
                self.conn.stored(token, &mut self.out);
                self.client.is_stored(token);
            }
        }
        self.requests.clear();
        let state = self.conn.session_state().at_rest();
        assert!(state.subscriptions.len() <= self.limits.max_subscriptions);
        assert!(state.received.len() <= self.limits.max_qos2_pending);
        assert!(state.in_flight.len() <= usize::from(self.limits.outbound_in_flight));
        let keep = self.source.below(4) != 0;
        if !keep {
            self.delivered.clear();
        }
        self.connect(keep.then_some(state));
    }

    fn poll(&mut self) -> Option<Action> {
        let before = self.input.len();
        let action = self.conn.poll(&mut self.input, &mut self.out);
        assert!(self.input.len() <= before, "input grew");
        action
    }

    /// Polls until nothing comes. `id` is that of a PUBLISH that was just sent.
    fn pump(&mut self, id: u16) {
        while let Some(action) = self.poll() {
            match action {
                Action::Publish(message) if message.qos == QoS::AtMostOnce => {}
                Action::Publish(message) => {
                    assert!(self.last_token < Some(message.token), "tokens rise");
                    self.last_token = Some(message.token);
                    self.client.is_taken(id, message.qos, message.token);
                    self.waiting.push(message.token);
                }
                Action::Subscribe(request) => self.requests.push(request),
                Action::Acknowledged(token, _) => {
                    let at = self.delivered.iter().position(|t| *t == token);
                    assert!(at.is_some(), "{token:?} was never delivered, or has ended");
                    self.delivered.retain(|t| *t != token);
                }
                Action::Disconnect(_) | Action::Fault(_) => assert!(self.conn.is_over()),
                Action::Unsubscribed | Action::WindowOpened => {}
                Action::Connect(_) => assert!(!self.conn.is_open(), "a second CONNECT is no action"),
            }
        }
        let sent = self.out.split();
        self.client.reads(&sent);
    }

    fn check(&self) {
        assert!(self.conn.in_flight() <= usize::from(self.limits.outbound_in_flight));
        assert!(self.conn.subscriptions().len() <= self.limits.max_subscriptions);
        let most = match self.version {
            Version::V5 => self.limits.receive_maximum,
            Version::V31 | Version::V311 => self.limits.unacknowledged_v311,
        };
        assert!(self.waiting.len() <= usize::from(most));
    }

    fn step(&mut self) {
        match self.source.below(16) {
            0..=2 => self.publish(),
            3 => {
                let id = self.id();
                self.client.releases(id);
                self.send(0x62, &id.to_be_bytes());
            }
            4 | 5 => self.acknowledge(),
            6 => self.subscribe(),
            7 => self.unsubscribe(),
            8 => self.send(0xC0, &[]),
            9 | 10 => self.settle(true),
            11 => self.settle(false),
            12 | 13 => self.deliver(),
            14 => self.answer(),
            _ => self.part(),
        }
    }

    fn id(&mut self) -> u16 {
        u16::from(self.source.below(6)) + 1
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        self.input.put_u8(first);
        self.input.put_u8(u8::try_from(body.len()).unwrap_or(0));
        self.input.put_slice(body);
    }

    fn publish(&mut self) {
        // A client that waits for its window on 3.1.1 has sent before: its packet stays in the input.
        if self.conn.blocked() {
            return;
        }
        let (qos, dup) = (self.source.below(3), self.source.flag());
        let (id, topic) = (self.id(), self.source.below(4));
        let dup = dup && qos > 0;
        let mut body = BytesMut::new();
        let topic = TOPICS.get(usize::from(topic)).copied().unwrap_or_default();
        let alias = u16::from(self.source.below(4));
        let only_alias = self.version == Version::V5 && alias > 0 && self.source.flag();
        text(if only_alias { "" } else { topic }, &mut body);
        if qos > 0 {
            body.put_u16(id);
        }
        if self.version == Version::V5 {
            if alias > 0 {
                body.put_slice(&[3, 0x23, 0, u8::try_from(alias).unwrap_or(1)]);
            } else {
                body.put_u8(0);
            }
        }
        body.put_slice(self.source.bytes(9));
        self.send(0x30 | u8::from(dup) << 3 | qos << 1, &body);
        self.pump(id);
    }

    fn acknowledge(&mut self) {
        let known = self.source.flag().then(|| self.client.due(usize::from(self.source.byte()))).flatten();
        let (first, id) = known.unwrap_or_else(|| {
            let kind = self.source.below(3);
            ([0x40, 0x50, 0x70].get(usize::from(kind)).copied().unwrap_or(0x40), self.id())
        });
        let refuses = self.version == Version::V5 && first != 0x70 && self.source.below(4) == 0;
        self.client.acknowledges(first, id, refuses);
        let [high, low] = id.to_be_bytes();
        if refuses {
            self.send(first, &[high, low, 0x97]);
        } else {
            self.send(first, &[high, low]);
        }
    }

    fn subscribe(&mut self) {
        let mut body = BytesMut::from(&[0, 1][..]);
        if self.version == Version::V5 {
            let id = self.source.below(3);
            if id > 0 {
                body.put_slice(&[2, 0x0B, id]);
            } else {
                body.put_u8(0);
            }
        }
        for _ in 0..=self.source.below(3) {
            let filter = usize::from(self.source.below(6));
            text(FILTERS.get(filter).copied().unwrap_or("a"), &mut body);
            body.put_u8(self.source.below(3));
        }
        self.send(0x82, &body);
    }

    fn unsubscribe(&mut self) {
        let mut body = BytesMut::from(&[0, 1][..]);
        if self.version == Version::V5 {
            body.put_u8(0);
        }
        let filter = usize::from(self.source.below(6));
        text(FILTERS.get(filter).copied().unwrap_or("a"), &mut body);
        self.send(0xA2, &body);
    }

    /// The shell has stored a message, or could not: any of those in its hands.
    fn settle(&mut self, stored: bool) {
        if self.waiting.is_empty() {
            return;
        }
        let at = usize::from(self.source.byte()) % self.waiting.len();
        let token = self.waiting.remove(at);
        if stored {
            self.client.is_stored(token);
            self.conn.stored(token, &mut self.out);
            self.conn.stored(token, &mut self.out); // the second is nothing
        } else {
            let action = self.conn.publish_failed(token, PublishFailure::QuotaExceeded, &mut self.out);
            assert!(action.is_some() == (self.version == Version::V311));
            self.client.is_refused(token);
        }
    }

    fn deliver(&mut self) {
        let (topic, qos) = (self.source.below(4), self.source.below(3));
        let topic = TOPICS.get(usize::from(topic)).copied().unwrap_or_default();
        let message = Message::new(topic, "x", QoS::from_level(qos).unwrap_or_default());
        match self.conn.deliver(message, &mut self.out) {
            Delivery::Sent { token: Some(token), .. } => self.delivered.push(token),
            Delivery::Full(_) => {
                assert!(self.client.is_full(usize::from(self.limits.outbound_in_flight)), "there is room");
            }
            Delivery::TooLarge | Delivery::Invalid => assert!(topic.is_empty(), "it can be sent"),
            _ => {}
        }
    }

    /// The shell answers a SUBSCRIBE.
    fn answer(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let request = self.requests.remove(0);
        let verdict = match self.source.below(5) {
            0 => Verdict::NotAuthorized,
            level => Verdict::Granted(QoS::from_level(level % 3).unwrap_or_default()),
        };
        let verdicts = vec![verdict; request.filters().count()];
        self.conn.subscribed(request, &verdicts, &mut self.out);
    }

    /// The client says goodbye, vanishes, or sends something that is no packet.
    fn part(&mut self) {
        match self.source.below(4) {
            0 => self.send(0xE0, &[]),
            1 => {
                let garbage = self.source.bytes(20);
                self.input.put_slice(garbage);
                self.input.put_slice(&[0, 0]);
                self.client.loses_count();
                self.pump(0);
                self.waiting.clear();
                self.requests.clear();
                self.delivered.clear();
                self.client = Client::new(self.version);
                self.connect(None);
            }
            _ => self.reconnect(),
        }
    }
}

fn text(text: &str, out: &mut BytesMut) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(0));
    out.put_slice(text.as_bytes());
}
