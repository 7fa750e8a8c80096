//! `landfall verify`: what is planted in the streams of a real server is found, and nothing where a real gateway has spoken.

mod following;
mod gateway;
mod limits;
mod planted;

use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use landfall_event::{
    Disconnected, Encoded, Epoch, Event, EventId, Format, Identity, Incarnation, Occasion, Origin, Service,
    ServiceKind, SessionId, SessionRef, Stream, Subjects, Transport, Upstream, encode, encode_raw_upstream,
};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES};
use landfall_testkit::{Gateway, NatsServer, forged};
use serde_json::Value;

/// Streams as gateways make them, and what they never said.
struct Forger {
    nats: NatsServer,
    context: jetstream::Context,
}

impl Forger {
    async fn start() -> Self {
        Self::keeping(|_| {}).await
    }

    /// The stream of messages has limits.
    async fn keeping(limit: impl Fn(&mut stream::Config)) -> Self {
        let nats = NatsServer::start().await;
        let context = jetstream::new(nats.client().await);
        let bound = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect();
        let connectivity = stream::Config {
            name: CONNECTIVITY.to_owned(),
            subjects: bound(&["kaa.v1.events.*.endpoint.connectivity.>", "kaa.v1.events.*.service.>"]),
            ..stream::Config::default()
        };
        context.create_stream(connectivity).await.unwrap();
        let mut messages = stream::Config {
            name: MESSAGES.to_owned(),
            subjects: bound(&["kaa.v1.events.*.endpoint.message.>"]),
            ..stream::Config::default()
        };
        limit(&mut messages);
        context.create_stream(messages).await.unwrap();
        Self { nats, context }
    }

    /// Speaks as a gateway of this instance, which is alive as far as anybody can tell.
    async fn instance(&self, name: &str) -> Forged<'_> {
        let now = now();
        let origin = Origin {
            instance: name.parse().unwrap(),
            replica: "r1".parse().unwrap(),
            incarnation: Incarnation::new(now, unique()),
        };
        let forged = Forged { forger: self, origin, format: Format::Json };
        forged.says(1, ServiceKind::Join).await;
        forged
    }

    /// Runs `landfall verify` with these arguments to its end.
    async fn verify(&self, arguments: &[&str]) -> Output {
        let url = self.nats.url();
        let all: Vec<&str> =
            ["verify", "--nats", &url].into_iter().chain(arguments.iter().copied()).collect();
        Gateway::builder().output(&all).await
    }

    /// The same with `--json`: its exit status, and what it says.
    async fn judge(&self, arguments: &[&str]) -> (i32, Value) {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.verify(&all).await;
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)));
        (output.status.code().unwrap(), json)
    }

    /// The kinds of what is found in an instance; the exit status must agree.
    async fn kinds(&self, instance: &str, more: &[&str]) -> Vec<String> {
        let all: Vec<&str> = ["--instance", instance].into_iter().chain(more.iter().copied()).collect();
        let (status, json) = self.judge(&all).await;
        let kinds = kinds(&json);
        assert_eq!(status, i32::from(!kinds.is_empty()), "{json}");
        assert_eq!(json["violationCount"], kinds.len(), "{json}");
        kinds
    }
}

/// What one gateway says.
struct Forged<'a> {
    forger: &'a Forger,
    origin: Origin,
    format: Format,
}

impl Forged<'_> {
    fn session(&self, device: &str, epoch: u64) -> SessionRef {
        let identity = Identity::new(SessionId::new(now(), unique()), Epoch(epoch));
        forged::session(device, identity, Transport::Mqtt)
    }

    async fn begins(&self, session: &SessionRef) {
        self.tells(EventId::Session(session.session(), Stream::Connectivity, 1), &forged::connected(session))
            .await;
    }

    async fn ends(&self, session: &SessionRef, seq: u64) {
        let id = EventId::Session(session.session(), Stream::Connectivity, seq);
        self.tells(
            id,
            &Event::Disconnected(Disconnected { ended: vec![forged::ended(session, seq, now())] }),
        )
        .await;
    }

    async fn message(&self, session: &SessionRef, seq: u64) {
        let id = EventId::Session(session.session(), Stream::Messages, seq);
        self.tells(id, &Event::Upstream(upstream(session, seq))).await;
    }

    /// The payload as the body, and the rest as headers.
    async fn raw_message(&self, session: &SessionRef, seq: u64) {
        let id = EventId::Session(session.session(), Stream::Messages, seq);
        let occasion = Occasion { origin: &self.origin, id, at: now() };
        let upstream = upstream(session, seq);
        let encoded = encode_raw_upstream(&occasion, &upstream);
        self.publish(&Event::Upstream(upstream), encoded).await;
    }

    async fn says(&self, n: u64, kind: ServiceKind) {
        let event = Event::Service(Service { kind, version: "0", sessions: 0, started_at: now() });
        self.tells(EventId::Gateway(self.origin.incarnation, n), &event).await;
    }

    async fn tells(&self, id: EventId, event: &Event) {
        let occasion = Occasion { origin: &self.origin, id, at: now() };
        self.publish(event, encode(self.format, &occasion, event)).await;
    }

    async fn publish(&self, event: &Event, encoded: Encoded) {
        let mut headers = HeaderMap::new();
        for (name, value) in &encoded.headers {
            headers.insert(*name, value.as_str());
        }
        let subject = Subjects::new(&self.origin.instance).of(event);
        let sent = self.forger.context.publish_with_headers(subject.to_string(), headers, encoded.body).await;
        sent.unwrap().await.expect("the stream stores it");
    }
}

fn upstream(session: &SessionRef, seq: u64) -> Upstream {
    forged::upstream(session, seq, format!("{{\"n\":{seq}}}"))
}

/// The kinds in a report, in its order.
fn kinds(json: &Value) -> Vec<String> {
    let all = json["violations"].as_array().expect("violations").iter();
    all.map(|violation| violation["kind"].as_str().expect("a kind").to_owned()).collect()
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Different each time.
fn unique() -> [u8; 10] {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
