//! The listener's metrics: every name with its unit, every label from a closed list.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a good request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Dropped {
    /// The publish window is full.
    WindowFull,
    /// `max_authenticating` requests wait for the authenticator.
    AuthenticatingFull,
    /// The authenticator did not know, or not in time.
    Unauthenticated,
    /// `max_registrations` are there.
    RegistrationsFull,
    /// A bound of the protocol's machine is reached.
    Busy,
    /// A body is larger than is taken.
    TooLarge,
    /// The answer may not be sent before the address is proven.
    Unproven,
    /// The store will not have it.
    NotStored,
    /// It was not stored in time.
    StoreTimeout,
    /// Nothing new is taken while NATS is away.
    Away,
    /// No session begins while the gateway drains.
    Draining,
    /// The session ended while the request was looked at, twice.
    Ended,
    /// It met a defect of the gateway.
    Panicked,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByReason {
    reason: Dropped,
}

/// Handles are cached here: a family's lookup stays off the path of a good request.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) send_errors: Counter,
    pub(crate) socket_errors: Counter,
    pub(crate) requests: Counter,
    pub(crate) pings: Counter,
    pub(crate) unmatched: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) retransmissions: Counter,
    pub(crate) notifications: Counter,
    dropped: Family<ByReason, Counter>,
    pub(crate) exchanges: Gauge,
    pub(crate) observations: Gauge,
    pub(crate) uploads: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) peers: Gauge,
    pub(crate) authenticating: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) paths: Gauge,
    pub(crate) registrations: Gauge,
}

impl Metrics {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("landfall_coap_datagrams", "Datagrams received", self.received.clone());
        r.register("landfall_coap_received_bytes", "Bytes of them", self.received_bytes.clone());
        r.register("landfall_coap_sent_datagrams", "Datagrams sent", self.sent.clone());
        r.register("landfall_coap_sent_bytes", "Bytes of them", self.sent_bytes.clone());
        r.register(
            "landfall_coap_send_errors",
            "Datagrams that a socket did not take",
            self.send_errors.clone(),
        );
        r.register("landfall_coap_socket_errors", "Times that a socket failed", self.socket_errors.clone());
        r.register("landfall_coap_requests", "Requests, duplicates not counted", self.requests.clone());
        r.register("landfall_coap_pings", "Pings", self.pings.clone());
        r.register(
            "landfall_coap_unmatched",
            "Acknowledgements, resets and responses to nothing that is under way",
            self.unmatched.clone(),
        );
        r.register("landfall_coap_duplicates", "Messages that came again", self.duplicates.clone());
        r.register("landfall_coap_retransmissions", "Messages sent again", self.retransmissions.clone());
        r.register("landfall_coap_notifications", "Commands sent to observers", self.notifications.clone());
        r.register("landfall_coap_dropped", "Good requests that were not served", self.dropped.clone());
        r.register("landfall_coap_exchanges", "Requests that wait for their answer", self.exchanges.clone());
        r.register("landfall_coap_observations", "Observations", self.observations.clone());
        r.register("landfall_coap_uploads", "Bodies that are being assembled", self.uploads.clone());
        r.register(
            "landfall_coap_kept_bytes",
            "Bytes of bodies and messages that the machine keeps",
            self.bytes.clone(),
        );
        r.register("landfall_coap_peers", "Addresses with any state", self.peers.clone());
        r.register(
            "landfall_coap_authenticating",
            "Requests that wait for the authenticator",
            self.authenticating.clone(),
        );
        r.register("landfall_coap_waiting", "Requests that wait for a command", self.waiting.clone());
        r.register("landfall_coap_paths", "Addresses remembered with their session", self.paths.clone());
        r.register("landfall_coap_registrations", "Registrations at /rd", self.registrations.clone());
    }

    pub(crate) fn dropped(&self, reason: Dropped) {
        self.dropped.get_or_create(&ByReason { reason }).inc();
    }
}

/// A number for a gauge.
pub(crate) fn level(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// One socket's part of a gauge that all sockets share.
#[derive(Debug, Default)]
pub(crate) struct Share(i64);

impl Share {
    /// The socket's part is `n` now.
    pub(crate) fn set(&mut self, gauge: &Gauge, n: usize) {
        let now = level(n);
        if now != self.0 {
            gauge.inc_by(now - self.0);
            self.0 = now;
        }
    }
}
