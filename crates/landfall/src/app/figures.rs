//! Metrics of what is bounded: how full it is, and its bound; and what the publisher has done.

use std::fmt;
use std::sync::Arc;

use landfall_net::Gate;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::parts::Standing;
use crate::auth::{Auth, Fill};
use crate::reloads::Reloads;
use crate::settings::Settings;

pub(super) fn register(
    registry: &mut Registry,
    standing: &Arc<Standing>,
    (gate, auth, reloads): (&Arc<Gate>, &Arc<Auth>, &Arc<Reloads>),
    settings: &Settings,
) {
    registry.register_collector(Box::new(Figures {
        standing: Arc::clone(standing),
        gate: Arc::clone(gate),
        auth: Arc::clone(auth),
        reloads: Arc::clone(reloads),
        most_connections: gate.limits().connections,
        most_sessions: settings.presence.max_sessions,
        most_channels: settings.dtls.max_sessions,
        most_handshakes: settings.dtls.max_handshakes,
        window: settings.nats.publish_window,
    }));
}

#[derive(Debug)]
struct Figures {
    standing: Arc<Standing>,
    gate: Arc<Gate>,
    auth: Arc<Auth>,
    reloads: Arc<Reloads>,
    most_connections: usize,
    most_sessions: usize,
    most_channels: usize,
    most_handshakes: usize,
    window: usize,
}

fn level(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.standing.bus().stats();
        let window = self.standing.hub().window_fill();
        let wills = self.standing.hub().wills_fill();
        let kept = self.standing.sessions().map_or((0, 0), |sessions| sessions.fill());
        let gauges = [
            ("landfall_connections", "Connections open now, handshakes included", level(self.gate.open())),
            ("landfall_connections_limit", "The most of them", level(self.most_connections)),
            ("landfall_sessions_limit", "The most sessions", level(self.most_sessions)),
            ("landfall_waiting_wills", "Wills that wait for their delay", level(wills.0)),
            ("landfall_waiting_wills_limit", "The most of them", level(wills.1)),
            ("landfall_dtls_sessions_limit", "The most secure channels", level(self.most_channels)),
            ("landfall_dtls_handshakes_limit", "The most handshakes of DTLS", level(self.most_handshakes)),
            ("landfall_persistent_sessions", "MQTT sessions that outlive their connection", level(kept.0)),
            ("landfall_persistent_sessions_limit", "The most of them", level(kept.1)),
            (
                "landfall_publish_window_bytes",
                "Bytes of device messages on their way to the store",
                level(window.0),
            ),
            ("landfall_publish_window_limit_bytes", "The most of them", level(window.1)),
            ("landfall_publish_in_flight", "Events sent and not acknowledged", level_of(stats.in_flight)),
            ("landfall_publish_in_flight_limit", "The most of them", level(self.window)),
            ("landfall_publish_queued", "Events taken and not sent", level_of(stats.queued)),
            ("landfall_refusals_waiting", "Refusals that wait for their stream", level_of(stats.beside)),
            ("landfall_refusals_waiting_limit", "The most of them", level_of(stats.beside_limit)),
            ("landfall_spool_events", "Events kept on disk while NATS is away", level_of(stats.kept)),
            ("landfall_spool_bytes", "Bytes of them", level_of(stats.kept_bytes)),
            ("landfall_spool_limit_bytes", "The most of them", level_of(stats.kept_limit)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counters = [
            ("landfall_published", "Events acknowledged by JetStream", stats.stored),
            ("landfall_publish_retries", "Events sent again", stats.retried),
            ("landfall_publish_refused", "Events that will never be stored", stats.refused),
            ("landfall_spool_dropped_events", "Events dropped from the disk for want of room", stats.dropped),
            (
                "landfall_fences_restored",
                "Fences that a stream had lost (purged, cut, made again) and that were put up again",
                stats.fences_restored,
            ),
            ("landfall_nats_reconnects", "Publishing connections after the first", stats.reconnects),
            ("landfall_replies_dropped", "Replies to requesters that were dropped", stats.replies_dropped),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        self.lanes(&mut encoder)?;
        self.files(&mut encoder)
    }
}

impl Figures {
    /// Files that are read again while the gateway runs.
    fn files(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let readings = self.reloads.readings();
        let help = "Files of which what they held before is in use, since they cannot be used";
        let mut family =
            encoder.encode_descriptor("landfall_config_broken", help, None, MetricType::Gauge)?;
        for (file, reading) in &readings {
            let broken = ConstGauge::new(i64::from(reading.is_broken));
            broken.encode(family.encode_family(&[("file", *file)])?)?;
        }
        let help = "Files that were read again, and what came of it";
        let mut family =
            encoder.encode_descriptor("landfall_config_reloads", help, None, MetricType::Counter)?;
        for (file, reading) in &readings {
            for (outcome, count) in [("taken", reading.taken), ("refused", reading.refused)] {
                let labels = [("file", *file), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// Passwords that are verified or wait for it.
    fn lanes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let lanes = self.auth.lanes();
        type Figure = fn(&Fill) -> usize;
        let families: [(&str, &str, Figure); 3] = [
            ("landfall_verifications_running", "Passwords that are verified now", |fill| fill.running),
            ("landfall_verifications_waiting", "Passwords that wait to be verified", |fill| fill.waiting),
            ("landfall_verifications_waiting_limit", "The most of them", |fill| fill.limit),
        ];
        for (name, help, figure) in families {
            if lanes.is_empty() {
                break;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (lane, fill) in &lanes {
                ConstGauge::new(level(figure(fill))).encode(family.encode_family(&[("lane", *lane)])?)?;
            }
        }
        Ok(())
    }
}

fn level_of(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
