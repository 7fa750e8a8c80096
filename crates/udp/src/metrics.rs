//! The listener's metrics: every name with its unit, every label from a closed list.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a good datagram was not taken. The device is not told: it sends again what it gets no ack for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dropped {
    /// The publish window is full.
    WindowFull,
    /// `max_unstored` acks wait for the store.
    UnstoredFull,
    /// `max_authenticating` datagrams wait for the authenticator.
    AuthenticatingFull,
    /// The authenticator did not know, or not in time.
    Unauthenticated,
    /// No session begins while NATS is away.
    Away,
    /// No session begins while the gateway drains.
    Draining,
    /// The session ended while the datagram was looked at, twice.
    Ended,
    /// Its channel was closed: the device's session was ended for good, or it has a newer channel.
    ChannelClosed,
    /// The store will never take it.
    NotStored,
    /// A defect of the listener; the error is in the log.
    Panicked,
}

impl Dropped {
    fn as_str(self) -> &'static str {
        match self {
            Self::WindowFull => "window-full",
            Self::UnstoredFull => "unstored-full",
            Self::AuthenticatingFull => "authenticating-full",
            Self::Unauthenticated => "unauthenticated",
            Self::Away => "away",
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::ChannelClosed => "channel-closed",
            Self::NotStored => "not-stored",
            Self::Panicked => "panicked",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByReason {
    reason: &'static str,
}

/// Handles are cached here: a family's lookup stays off the path of a good datagram.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    dropped: Family<ByReason, Counter>,
    pub(crate) retransmitted: Counter,
    pub(crate) acks: Counter,
    pub(crate) unsent_acks: Counter,
    pub(crate) commands: Counter,
    pub(crate) unsent_commands: Counter,
    pub(crate) unstored: Gauge,
    pub(crate) authenticating: Gauge,
    pub(crate) congested: Gauge,
    pub(crate) signed_devices: Gauge,
    pub(crate) socket_errors: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("landfall_udp_datagrams", "Datagrams received", self.received.clone());
        r.register("landfall_udp_received_bytes", "Bytes of them", self.received_bytes.clone());
        r.register("landfall_udp_dropped", "Good datagrams that were not taken", self.dropped.clone());
        r.register(
            "landfall_udp_retransmitted",
            "Signed datagrams that came again with the same bytes",
            self.retransmitted.clone(),
        );
        r.register("landfall_udp_acks", "Acks sent", self.acks.clone());
        r.register("landfall_udp_unsent_acks", "Acks that the socket did not take", self.unsent_acks.clone());
        r.register("landfall_udp_commands", "Commands sent", self.commands.clone());
        r.register(
            "landfall_udp_unsent_commands",
            "Times that the socket did not take a command",
            self.unsent_commands.clone(),
        );
        r.register("landfall_udp_unstored", "Datagrams whose ack waits for the store", self.unstored.clone());
        r.register(
            "landfall_udp_authenticating",
            "Datagrams that wait for the authenticator",
            self.authenticating.clone(),
        );
        r.register(
            "landfall_udp_congested",
            "Devices whose command waits for room in a socket",
            self.congested.clone(),
        );
        r.register(
            "landfall_udp_signed_devices",
            "Devices whose newest signed number is remembered",
            self.signed_devices.clone(),
        );
        r.register("landfall_udp_socket_errors", "Times that a socket failed", self.socket_errors.clone());
    }

    pub(crate) fn dropped(&self, reason: Dropped) {
        self.dropped.get_or_create(&ByReason { reason: reason.as_str() }).inc();
    }
}

/// A number for a gauge.
pub(crate) fn level(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
