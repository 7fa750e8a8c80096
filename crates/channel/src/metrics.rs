//! The channels' metrics: every name with its unit, every label from a closed list.
//!
//! Owns: the names, one socket's share of what all sockets count. Does not own: the counting of the protocol
//! (`landfall-dtls`).

use landfall_dtls::{Counts, Failure};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySuite {
    suite: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// Without the numbers of alerts, which the other side chooses.
fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::Version => "version",
        Failure::NoCommonSuite => "no-common-suite",
        Failure::Malformed => "malformed",
        Failure::TooLarge => "too-large",
        Failure::WrongKey => "wrong-key",
        Failure::NoCertificate
        | Failure::UnknownAuthority
        | Failure::CertificateExpired
        | Failure::Certificate => "certificate",
        Failure::Refused => "refused",
        Failure::Unavailable => "unavailable",
        Failure::TimedOut => "timed-out",
        Failure::Alert(_) => "alert",
        Failure::Displaced => "displaced",
        Failure::Limit => "limit",
    }
}

/// The metrics of all channels of a gateway, over all sockets and protocols.
#[derive(Clone, Debug, Default)]
pub struct ChannelMetrics {
    sessions: Gauge,
    vouched: Gauge,
    handshakes: Gauge,
    lookups: Gauge,
    cookies: Counter,
    begun: Counter,
    established: Family<BySuite, Counter>,
    failed: Family<ByReason, Counter>,
    retransmissions: Counter,
    versions: Counter,
    strays: Counter,
    lost: Counter,
    lost_alerts: Counter,
    bad_records: Family<ByKind, Counter>,
    evicted: Counter,
    displaced: Counter,
    limited: Counter,
    guessed_at: Counter,
    pub(crate) vouched_closed: Counter,
    pub(crate) send_errors: Counter,
    pub(crate) defects: Counter,
}

impl ChannelMetrics {
    /// Registers them.
    pub fn register(r: &mut Registry) -> Self {
        let m = Self::default();
        r.register("landfall_dtls_sessions", "Secure channels", m.sessions.clone());
        r.register(
            "landfall_dtls_vouched",
            "Channels that proved nothing in their handshake, and on which a device was let in",
            m.vouched.clone(),
        );
        r.register("landfall_dtls_handshakes", "Handshakes under way", m.handshakes.clone());
        r.register("landfall_dtls_lookups", "Handshakes that wait for the authenticator", m.lookups.clone());
        r.register(
            "landfall_dtls_cookies",
            "ClientHellos that were answered with a cookie",
            m.cookies.clone(),
        );
        r.register("landfall_dtls_handshakes_begun", "Handshakes begun", m.begun.clone());
        r.register(
            "landfall_dtls_handshakes_established",
            "Handshakes that succeeded",
            m.established.clone(),
        );
        r.register(
            "landfall_dtls_handshakes_failed",
            "Handshakes that came to nothing, or were not begun for a limit",
            m.failed.clone(),
        );
        r.register("landfall_dtls_retransmissions", "Flights sent again", m.retransmissions.clone());
        r.register(
            "landfall_dtls_other_versions",
            "ClientHellos of a version that is not spoken",
            m.versions.clone(),
        );
        r.register("landfall_dtls_strays", "Datagrams of nobody", m.strays.clone());
        r.register("landfall_dtls_lost", "Of them data on channels that are gone", m.lost.clone());
        r.register(
            "landfall_dtls_lost_alerts",
            "Alerts that answered data on channels that are gone",
            m.lost_alerts.clone(),
        );
        r.register("landfall_dtls_bad_records", "Records that were dropped", m.bad_records.clone());
        r.register("landfall_dtls_evicted", "Channels closed to make room", m.evicted.clone());
        r.register("landfall_dtls_displaced", "Handshakes given up to make room", m.displaced.clone());
        r.register("landfall_dtls_limited", "Handshakes refused for a limit", m.limited.clone());
        r.register(
            "landfall_dtls_guessed_at",
            "Channels closed because too many records were forged in their name",
            m.guessed_at.clone(),
        );
        r.register(
            "landfall_dtls_vouched_closed",
            "Channels closed because their device was let in on newer ones",
            m.vouched_closed.clone(),
        );
        r.register(
            "landfall_dtls_send_errors",
            "Datagrams that a socket did not take",
            m.send_errors.clone(),
        );
        r.register("landfall_dtls_defects", "Datagrams that met a defect of the gateway", m.defects.clone());
        m
    }

    pub(crate) fn established(&self, suite: &'static str) {
        self.established.get_or_create(&BySuite { suite }).inc();
    }

    pub(crate) fn failed(&self, why: Failure) {
        self.failed.get_or_create(&ByReason { reason: reason(why) }).inc();
    }
}

/// How many there are of what a socket has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fill {
    pub(crate) sessions: usize,
    /// Of the sessions.
    pub(crate) vouched: usize,
    pub(crate) handshakes: usize,
    pub(crate) lookups: usize,
}

/// One socket's part of what all sockets count. Its gauges end with it.
#[derive(Debug)]
pub(crate) struct Share {
    metrics: ChannelMetrics,
    sessions: i64,
    vouched: i64,
    handshakes: i64,
    lookups: i64,
    counts: Counts,
}

fn set(share: &mut i64, gauge: &Gauge, n: usize) {
    let now = i64::try_from(n).unwrap_or(i64::MAX);
    if now != *share {
        gauge.inc_by(now - *share);
        *share = now;
    }
}

impl Share {
    pub(crate) fn new(metrics: ChannelMetrics) -> Self {
        Self { metrics, sessions: 0, vouched: 0, handshakes: 0, lookups: 0, counts: Counts::default() }
    }

    /// So many there are now.
    pub(crate) fn set(&mut self, Fill { sessions, vouched, handshakes, lookups }: Fill) {
        set(&mut self.sessions, &self.metrics.sessions, sessions);
        set(&mut self.vouched, &self.metrics.vouched, vouched);
        set(&mut self.handshakes, &self.metrics.handshakes, handshakes);
        set(&mut self.lookups, &self.metrics.lookups, lookups);
    }

    /// So much was counted by now.
    pub(crate) fn count(&mut self, now: &Counts) {
        if self.counts == *now {
            return;
        }
        let (then, m) = (std::mem::replace(&mut self.counts, *now), &self.metrics);
        let bad = |kind, now: u64, then: u64| {
            if now > then {
                m.bad_records.get_or_create(&ByKind { kind }).inc_by(now - then);
            }
        };
        m.cookies.inc_by(now.cookies - then.cookies);
        m.begun.inc_by(now.begun - then.begun);
        m.retransmissions.inc_by(now.retransmitted - then.retransmitted);
        m.versions.inc_by(now.versions - then.versions);
        m.strays.inc_by(now.strays - then.strays);
        m.lost.inc_by(now.lost - then.lost);
        m.lost_alerts.inc_by(now.alerts - then.alerts);
        bad("malformed", now.malformed, then.malformed);
        bad("forged", now.forged, then.forged);
        bad("replayed", now.replayed, then.replayed);
        bad("unexpected", now.unexpected, then.unexpected);
        m.evicted.inc_by(now.evicted - then.evicted);
        m.displaced.inc_by(now.displaced - then.displaced);
        m.limited.inc_by(now.limited - then.limited);
        m.guessed_at.inc_by(now.guessed_at - then.guessed_at);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(Fill::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_adds_what_is_new_and_takes_its_gauges_along() {
        let metrics = ChannelMetrics::register(&mut Registry::default());
        let (mut one, mut other) = (Share::new(metrics.clone()), Share::new(metrics.clone()));
        let fill = |sessions, handshakes| Fill { sessions, vouched: 1, handshakes, lookups: 1 };
        one.set(fill(5, 2));
        other.set(fill(1, 1));
        one.set(fill(4, 0));
        let counts = Counts { cookies: 3, forged: 2, ..Counts::default() };
        one.count(&counts);
        other.count(&counts);
        one.count(&Counts { cookies: 4, ..counts });
        assert_eq!((metrics.sessions.get(), metrics.handshakes.get(), metrics.lookups.get()), (5, 1, 2));
        assert_eq!(metrics.vouched.get(), 2);
        drop(one);
        assert_eq!((metrics.sessions.get(), metrics.handshakes.get(), metrics.lookups.get()), (1, 1, 1));
        assert_eq!(metrics.cookies.get(), 7);
        assert_eq!(metrics.bad_records.get_or_create(&ByKind { kind: "forged" }).get(), 4);
    }
}
