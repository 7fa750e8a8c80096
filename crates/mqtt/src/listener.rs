//! The MQTT server: what all its listeners and connections share.
//!
//! Owns: settings, the way from an accepted stream to a served connection. Does not own: sockets and TLS
//! (`landfall-net`), one connection (`conn.rs`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use landfall_event::{RefusedCause, RefusedDetail, Transport};
use landfall_hub::{Attempt, Authenticator, Hub};
use landfall_mqtt_core::Limits;
use landfall_net::{Accepted, Refusal, Serve, Stream, StreamKind};

use crate::faults::Faults;
use crate::handshake::Newcomer;
use crate::sessions::Sessions;

/// Settings of all MQTT listeners.
#[derive(Clone, Debug)]
pub struct MqttConfig {
    /// The protocol's bounds.
    pub limits: Arc<Limits>,
    /// From the accepted connection to CONNACK.
    pub connect_timeout: Duration,
    /// How long a client may leave what is sent to it unread before it is a slow consumer.
    pub write_timeout: Duration,
    /// How long one packet may take, from its first byte to its last.
    pub packet_timeout: Duration,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            limits: Arc::default(),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            packet_timeout: Duration::from_secs(300),
        }
    }
}

/// Serves MQTT on whatever streams it is given.
#[derive(Debug)]
pub struct MqttServer {
    config: MqttConfig,
    hub: Arc<Hub>,
    auth: Arc<dyn Authenticator>,
    sessions: Arc<Sessions>,
    faults: Faults,
}

impl MqttServer {
    /// A server on this hub.
    pub fn new(
        config: MqttConfig,
        hub: Arc<Hub>,
        auth: Arc<dyn Authenticator>,
        sessions: Arc<Sessions>,
    ) -> Arc<Self> {
        hub.set_authenticator(Arc::clone(&auth));
        Arc::new(Self { config, hub, auth, sessions, faults: Faults::default() })
    }

    pub(crate) fn config(&self) -> &MqttConfig {
        &self.config
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) fn auth(&self) -> &dyn Authenticator {
        &*self.auth
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Messages that wait for the publish window, per connection: as many as a client may have unacknowledged, so that one
    /// that keeps to that is read from, and its PINGREQ answered, all the while. Their bytes have a bound of their own.
    pub(crate) fn parked_limit(&self) -> usize {
        usize::from(self.config.limits.receive_maximum.max(self.config.limits.unacknowledged_v311)).max(1)
    }

    /// The keep-alive in seconds that holds: the operator's for the device, else the client's within the limit.
    pub(crate) fn keep_alive(&self, asked: u16, operator: Option<Duration>) -> u16 {
        if let Some(operator) = operator {
            return u16::try_from(operator.as_secs()).unwrap_or(u16::MAX);
        }
        match (asked, self.config.limits.max_keep_alive) {
            (asked, 0) => asked,
            (0, most) => most,
            (asked, most) => asked.min(most),
        }
    }

    pub(crate) fn make_client_id(&self) -> Arc<str> {
        let random: u128 = rand::random();
        format!("auto-{random:032x}").into()
    }
}

pub(crate) fn transport(kind: StreamKind) -> Transport {
    match kind {
        StreamKind::Tcp => Transport::Mqtt,
        StreamKind::Tls => Transport::Mqtts,
        StreamKind::Ws => Transport::MqttWs,
        StreamKind::Wss => Transport::MqttWss,
    }
}

impl Serve for MqttServer {
    /// Everything that a connection needs stands behind one pointer, and letting it in, which needs the most, is given
    /// back: the task of an idle connection is a few words.
    fn serve<S: Stream>(self: Arc<Self>, accepted: Accepted<S>) -> impl Future<Output = ()> + Send + 'static {
        let arriving = Box::pin(Newcomer::new(self, accepted).welcome());
        async move {
            if let Some(conn) = arriving.await {
                conn.run().await;
            }
        }
    }

    fn refused(&self, remote: SocketAddr, kind: StreamKind, why: Refusal) {
        let (cause, detail) = match why {
            Refusal::Limit(_) => (RefusedCause::LimitReached, None),
            Refusal::TlsFailed(detail) => (RefusedCause::TlsFailed, Some(detail)),
            Refusal::Malformed(detail) => (RefusedCause::Malformed, Some(detail)),
            Refusal::NoProxyHeader => (RefusedCause::Malformed, Some(RefusedDetail::NoProxyHeader)),
            Refusal::Origin => (RefusedCause::NotAuthorized, Some(RefusedDetail::NoOrigin)),
        };
        let attempt = Attempt::new(cause, transport(kind), remote);
        self.hub.refused(&match detail {
            Some(detail) => attempt.with_detail(detail.as_str()),
            None => attempt,
        });
    }
}
