//! What most tests need: a nats-server, a recorder, a wiretap, and a gateway between.

use std::net::SocketAddr;
use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::Value;

use crate::ledger::{self, Open};
use crate::process::exists;
use crate::wiretap::Wiretap;
use crate::{Gateway, GatewayBuilder, NatsServer, Recorder, contract, within};

/// A running whole. Parts are public: a test breaks what it wants to break.
#[derive(Debug)]
pub struct World {
    /// The gateway. Declared first, so that it ends before its nats-server.
    pub gateway: Gateway,
    /// What was published.
    pub recorder: Recorder,
    /// Everything that NATS carried.
    pub wiretap: Wiretap,
    /// A plain client, for commands.
    pub client: async_nats::Client,
    /// The nats-server.
    pub nats: NatsServer,
}

impl World {
    /// One with default settings.
    pub async fn start() -> Self {
        Self::with(|settings| settings).await
    }

    /// One with settings of the test's own.
    pub async fn with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let nats = NatsServer::start().await;
        let recorder = Recorder::start(&nats).await;
        let wiretap = Wiretap::start(&nats).await;
        let client = nats.client().await;
        let gateway = settings(Gateway::builder().nats(&nats)).start().await;
        Self { gateway, recorder, wiretap, client, nats }
    }

    /// The MQTT listener over TCP.
    pub fn mqtt(&self) -> SocketAddr {
        self.gateway.mqtt("tcp")
    }

    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.gateway.run_file().instance
    }

    /// Sends a command to a device of the default tenant and returns the reply: the JSON of its `downstream` event.
    ///
    /// # Panics
    /// When no reply comes.
    pub async fn command(&self, device: &str, payload: &str, headers: &[(&str, &str)]) -> Value {
        let subject = format!("kaa.v1.service.{}.command.default.{device}", self.instance());
        self.command_on(subject, payload, headers).await
    }

    /// The same on any subject.
    ///
    /// # Panics
    /// When no reply comes.
    pub async fn command_on(&self, subject: String, payload: &str, headers: &[(&str, &str)]) -> Value {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let request = async_nats::Request::new()
            .payload(payload.to_owned().into())
            .headers(map)
            .timeout(Some(Duration::from_secs(30)));
        let reply = within(
            Duration::from_secs(30),
            "the reply to a command",
            self.client.send_request(subject, request),
        );
        let reply = reply.await.expect("a gateway that answers commands");
        serde_json::from_slice(&reply.payload).expect("a reply in JSON")
    }

    /// The end of most tests: every event seen obeys the contract, no subject is foreign, the ledger is kept, no thread of
    /// the gateway panicked.
    ///
    /// # Panics
    /// When one of these does not hold.
    pub async fn assert_sound(&self, open: Open) {
        self.gateway.assert_sound();
        let found: Vec<String> =
            self.recorder.all().iter().flat_map(|event| contract::violations(event)).collect();
        assert!(found.is_empty(), "events that break the contract:\n  {}", found.join("\n  "));
        self.wiretap.assert_clean(self.instance()).await;
        ledger::assert_kept(&self.nats, open).await;
    }

    /// Ends the gateway in order (SIGTERM) and holds everything against the contract: afterwards nobody is present.
    ///
    /// # Panics
    /// When it does not end well, or a promise is broken.
    pub async fn close(self) {
        self.gateway.terminate();
        let status = self.gateway.exited(Duration::from_secs(20)).await;
        assert!(status.success(), "the gateway ends with {status}; its log:\n{}", self.gateway.log());
        assert!(!exists(self.gateway.pid()), "it is gone");
        self.assert_sound(Open::None).await;
    }
}
