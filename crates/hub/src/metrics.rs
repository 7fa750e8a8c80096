//! The hub's metrics: every name with its unit, every label from a closed list.

use landfall_event::{Outcome, Reason, RefusedCause, Transport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByTransport {
    transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByOutcome {
    outcome: &'static str,
}

/// A million sessions may end at once: no lookup for each.
#[derive(Debug)]
struct Ends {
    family: Family<ByReason, Counter>,
    /// In the order of the closed list.
    counters: Vec<Counter>,
}

impl Default for Ends {
    fn default() -> Self {
        let family = Family::<ByReason, Counter>::default();
        let counter = |reason: &Reason| family.get_or_create(&ByReason { reason: reason.as_str() }).clone();
        let counters = Reason::ALL.iter().map(counter).collect();
        Self { family, counters }
    }
}

/// Handles are cached here: a family's lookup stays off the path of a message.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) sessions: Gauge,
    opened: Family<ByTransport, Counter>,
    ended: Ends,
    refused: Family<ByCause, Counter>,
    commands: Family<ByOutcome, Counter>,
    pub(crate) commands_under_way: Gauge,
    pub(crate) untold: Gauge,
    pub(crate) quiet_commands: Gauge,
    pub(crate) quiet_devices: Gauge,
    pub(crate) refusal_sources: Gauge,
    pub(crate) messages_in: Counter,
    pub(crate) messages_out: Counter,
    pub(crate) payload_bytes_in: Counter,
    pub(crate) payload_bytes_out: Counter,
    pub(crate) window_waits: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("landfall_sessions", "Sessions open now", self.sessions.clone());
        r.register("landfall_sessions_opened", "Sessions begun", self.opened.clone());
        r.register("landfall_sessions_ended", "Sessions ended", self.ended.family.clone());
        r.register("landfall_refused", "Attempts turned away", self.refused.clone());
        r.register(
            "landfall_refusal_sources",
            "Sources of refusals told apart now",
            self.refusal_sources.clone(),
        );
        r.register("landfall_commands", "Commands that reached their outcome", self.commands.clone());
        r.register(
            "landfall_commands_under_way",
            "Commands without an outcome yet",
            self.commands_under_way.clone(),
        );
        r.register(
            "landfall_untold_ends",
            "Ends of sessions that are not on their way to the store yet",
            self.untold.clone(),
        );
        r.register(
            "landfall_quiet_commands",
            "Commands that wait for the next word of a device whose silence ended its session",
            self.quiet_commands.clone(),
        );
        r.register(
            "landfall_quiet_devices",
            "Devices remembered whose silence ended their session",
            self.quiet_devices.clone(),
        );
        r.register("landfall_messages_in", "Messages from devices", self.messages_in.clone());
        r.register("landfall_messages_out", "Messages to devices", self.messages_out.clone());
        r.register("landfall_payload_in_bytes", "Payload bytes from devices", self.payload_bytes_in.clone());
        r.register("landfall_payload_out_bytes", "Payload bytes to devices", self.payload_bytes_out.clone());
        r.register(
            "landfall_publish_window_waits",
            "Times that a connection stopped reading because the publish window was full",
            self.window_waits.clone(),
        );
    }

    pub(crate) fn opened(&self, transport: Transport) {
        self.sessions.inc();
        self.opened.get_or_create(&ByTransport { transport: transport.as_str() }).inc();
    }

    pub(crate) fn ended(&self, reason: Reason) {
        self.sessions.dec();
        match self.ended.counters.get(reason as usize) {
            Some(counter) => counter.inc(),
            None => self.ended.family.get_or_create(&ByReason { reason: reason.as_str() }).inc(),
        };
    }

    pub(crate) fn refused(&self, cause: RefusedCause, count: u64) {
        self.refused.get_or_create(&ByCause { cause: cause.as_str() }).inc_by(count);
    }

    pub(crate) fn settled(&self, outcome: Outcome) {
        self.commands.get_or_create(&ByOutcome { outcome: outcome.as_str() }).inc();
    }
}
