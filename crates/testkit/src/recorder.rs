//! A plain NATS client subscribed to every event, as an operator would be, that keeps what it saw.
//!
//! Owns: what was seen live, in order, and waiting for it. Does not own: what is stored ([`crate::streams`]); while the
//! nats-server is down this one is deaf, as every plain subscriber is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::NatsServer;
use crate::wait::PATIENCE;

/// One event as it came over the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, untouched.
    pub body: Bytes,
    /// Its body as JSON; null when it is none.
    pub json: Value,
    /// When it came.
    pub at: Instant,
}

impl Seen {
    pub(crate) fn new(subject: String, headers: Option<HeaderMap>, body: Bytes) -> Self {
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Self { subject, headers: headers.unwrap_or_default(), body, json, at: Instant::now() }
    }

    /// The subject's last token: `connected`, `upstream`, `join`.
    pub fn kind(&self) -> &str {
        self.subject.rsplit('.').next().unwrap_or_default()
    }

    /// A text field; "" when it is absent.
    pub fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// A number field.
    ///
    /// # Panics
    /// When it is absent or no whole number.
    pub fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("no number {field:?} in {}", self.json))
    }

    /// A header's value; "" when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(async_nats::HeaderValue::as_str).unwrap_or_default()
    }

    /// True when the event is about this device: as its `endpointId`, or as one of many.
    pub fn is_about(&self, device: &str) -> bool {
        self.text("endpointId") == device
            || self.json["endpointIds"].as_array().is_some_and(|ids| ids.iter().any(|id| id == device))
    }
}

/// Everything seen so far on `kaa.v1.events.>`.
#[derive(Debug)]
pub struct Recorder {
    seen: Arc<Mutex<Vec<Arc<Seen>>>>,
    count: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Recorder {
    /// Subscribes; when this returns, no later event is missed.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn start(server: &NatsServer) -> Self {
        Self::at(&server.url()).await
    }

    /// Subscribes at the server with this URL.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn at(url: &str) -> Self {
        let client = crate::nats::client(url).await;
        let mut events = client.subscribe("kaa.v1.events.>").await.expect("a subscription");
        client.flush().await.expect("the subscription reaches the server");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tell, count) = watch::channel(0);
        let mut task = JoinSet::new();
        let list = seen.clone();
        task.spawn(async move {
            // The client is moved in: it lives as long as its subscription.
            let _client = client;
            while let Some(message) = events.next().await {
                let event = Seen::new(message.subject.to_string(), message.headers, message.payload);
                list.lock().expect("nobody panics while holding it").push(Arc::new(event));
                tell.send_modify(|count| *count += 1);
            }
        });
        Self { seen, count, _task: task }
    }

    /// Everything so far, in order of arrival.
    pub fn all(&self) -> Vec<Arc<Seen>> {
        self.seen.lock().expect("nobody panics while holding it").clone()
    }

    /// All of one kind about one device so far; an end that came as one of many as if it had been told alone.
    pub fn of(&self, kind: &str, device: &str) -> Vec<Arc<Seen>> {
        about(&self.all(), kind, device)
    }

    /// Waits for the first event of a kind about a device.
    pub async fn expect(&self, kind: &str, device: &str) -> Arc<Seen> {
        self.expect_that(kind, device, "", |_| true).await
    }

    /// Waits for the first event of a kind about a device for which `matches` holds; `what` says so in a failure.
    pub async fn expect_that(
        &self,
        kind: &str,
        device: &str,
        what: &str,
        matches: impl Fn(&Seen) -> bool,
    ) -> Arc<Seen> {
        let what = format!("{kind} of {device:?} {what}");
        let first = |all: &[Arc<Seen>]| about(all, kind, device).into_iter().find(|event| matches(event));
        self.wait(PATIENCE, &what, first).await
    }

    /// Waits until there are `count` events of a kind about a device, and returns them.
    pub async fn expect_count(&self, kind: &str, device: &str, count: usize) -> Vec<Arc<Seen>> {
        let what = format!("{count} x {kind} of {device:?}");
        self.wait(PATIENCE, &what, |_| Some(self.of(kind, device)).filter(|found| found.len() >= count)).await
    }

    /// The ends of a device's sessions over this transport so far, in order, each as if it had been told alone: one that
    /// came as one of many has that entry as its body.
    pub fn ends(&self, device: &str, transport: &str) -> Vec<Seen> {
        ends(&self.all(), device, transport)
    }

    /// Waits until there are `count` of them, and returns them.
    pub async fn expect_ends(&self, device: &str, transport: &str, count: usize) -> Vec<Seen> {
        let what = format!("{count} ends of {device:?} over {transport}");
        let enough =
            |all: &[Arc<Seen>]| Some(ends(all, device, transport)).filter(|ends| ends.len() >= count);
        self.wait(PATIENCE, &what, enough).await
    }

    /// Waits for the first of them.
    pub async fn expect_end(&self, device: &str, transport: &str) -> Seen {
        self.expect_ends(device, transport, 1).await.remove(0)
    }

    /// Waits for the first event for which `matches` holds, at most `deadline`.
    ///
    /// # Panics
    /// When there is none; shows everything that was seen.
    pub async fn find(&self, deadline: Duration, what: &str, matches: impl Fn(&Seen) -> bool) -> Arc<Seen> {
        self.wait(deadline, what, |seen| seen.iter().find(|event| matches(event)).cloned()).await
    }

    async fn wait<T>(&self, deadline: Duration, what: &str, look: impl Fn(&[Arc<Seen>]) -> Option<T>) -> T {
        let mut count = self.count.clone();
        let waiting = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = look(&self.all()) {
                    return found;
                }
                count.changed().await.expect("the recorder's task lives as long as the recorder");
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("not seen within {deadline:?}: {what}; seen were:\n{}", self.story()),
        }
    }

    /// Everything so far, one line each, for a failure's message.
    pub fn story(&self) -> String {
        let lines = self.all().into_iter().filter(|event| !event.subject.ends_with(".keep-alive"));
        let lines: Vec<String> = lines
            .map(|event| {
                let mut body = event.json.to_string();
                if body.len() > 700 {
                    body.truncate((0..=700).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0));
                }
                format!("  {} {body}", event.subject)
            })
            .collect();
        let from = lines.len().saturating_sub(60);
        lines[from..].join("\n")
    }
}

fn about(all: &[Arc<Seen>], kind: &str, device: &str) -> Vec<Arc<Seen>> {
    let told = all.iter().filter(|event| event.kind() == kind && event.is_about(device));
    let each = told.flat_map(|event| match event.json["sessions"].as_array() {
        Some(many) => {
            let its = many.iter().filter(|one| one["endpointId"] == device);
            its.map(|one| Arc::new(Seen { json: one.clone(), ..Seen::clone(event) })).collect()
        }
        None => vec![Arc::clone(event)],
    });
    each.collect()
}

fn ends(all: &[Arc<Seen>], device: &str, transport: &str) -> Vec<Seen> {
    let told = all.iter().filter(|event| event.kind() == "disconnected" && event.is_about(device));
    let each = told.flat_map(|event| match event.json["sessions"].as_array() {
        Some(many) => many.iter().map(|one| Seen { json: one.clone(), ..Seen::clone(event) }).collect(),
        None => vec![Seen::clone(event)],
    });
    each.filter(|end| end.text("endpointId") == device && end.text("transport") == transport).collect()
}
