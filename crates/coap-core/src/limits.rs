//! What peers may ask for, and the protocol's parameters. One value is shared by all endpoints of a listener.
//!
//! Owns: the numbers. Does not own: what happens at each bound (the module that keeps to it says it).

use crate::block::BodyLimits;

/// The bounds of an endpoint; [`Default`] holds the values that the gateway starts with. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until the empty acknowledgement leaves and the answer becomes a separate response (RFC 7252, section 5.2.2); below
    /// `ack_timeout`. 1,000.
    pub piggyback_ms: u64,
    /// ACK_TIMEOUT (section 4.8). 2,000.
    pub ack_timeout_ms: u64,
    /// ACK_RANDOM_FACTOR less one, in percent: the jitter of the first timeout. 50.
    pub ack_random_percent: u64,
    /// MAX_RETRANSMIT, 0 to 10. 4.
    pub max_retransmit: u32,
    /// MAX_LATENCY: how long a datagram may be under way. 100,000.
    pub max_latency_ms: u64,
    /// Peers with any state. 262,144.
    pub max_peers: usize,
    /// Requests that wait for their answer. 65,536.
    pub max_exchanges: usize,
    /// The same of one peer. 64.
    pub max_exchanges_per_peer: usize,
    /// Message ids remembered for deduplication. 1,048,576.
    pub max_remembered: usize,
    /// The same of one peer. 16,384.
    pub max_remembered_per_peer: usize,
    /// Bytes of answers kept for duplicates. 67,108,864.
    pub max_replay_bytes: usize,
    /// Observations. 262,144.
    pub max_observations: usize,
    /// The same of one peer. 8.
    pub max_observations_per_peer: usize,
    /// Confirmable messages to one peer, in flight or waiting. 32.
    pub max_outgoing_per_peer: usize,
    /// Bytes of confirmable messages to all peers, in flight or waiting. 67,108,864.
    pub max_outgoing_bytes: usize,
    /// Bytes of the largest body taken. 1,048,576.
    pub max_body: usize,
    /// Bodies that are being assembled. 4,096.
    pub max_uploads: usize,
    /// Bodies of one peer that are being assembled, or kept for their blocks. 4.
    pub max_bodies_per_peer: usize,
    /// Bytes of bodies that are being assembled. 67,108,864.
    pub max_upload_bytes: usize,
    /// Bodies kept for the blocks still to be fetched. 4,096.
    pub max_downloads: usize,
    /// Bytes of bodies kept for the blocks still to be fetched. 67,108,864.
    pub max_download_bytes: usize,
    /// How long a body may wait for its next block. 120,000.
    pub block_timeout_ms: u64,
    /// How long the blocks of one body may take in all. 900,000.
    pub body_timeout_ms: u64,
    /// How long the next notification waits for the peer to fetch the blocks of the last one; each block begins it anew.
    /// 5,000.
    pub fetch_ms: u64,
    /// How long an Echo value is good for (RFC 9175, section 2.3). 60,000.
    pub echo_window_ms: u64,
    /// Seconds of Max-Age in 5.03: when to try again. 5.
    pub retry_after_s: u32,
}

impl Limits {
    /// MAX_TRANSMIT_SPAN: from the first transmission of a confirmable message to its last (section 4.8.2). 45 s.
    #[must_use]
    pub fn max_transmit_span_ms(&self) -> u64 {
        self.longest_timeout_ms() * ((1 << self.max_retransmit.min(10)) - 1)
    }

    /// EXCHANGE_LIFETIME: how long a message id of a confirmable message is remembered (section 4.8.2). 247 s.
    #[must_use]
    pub fn exchange_lifetime_ms(&self) -> u64 {
        self.max_transmit_span_ms() + 2 * self.max_latency_ms + self.ack_timeout_ms
    }

    /// NON_LIFETIME: the same of a non-confirmable message (section 4.8.2). 145 s.
    #[must_use]
    pub fn non_lifetime_ms(&self) -> u64 {
        self.max_transmit_span_ms() + self.max_latency_ms
    }

    /// The bounds of request bodies.
    pub(crate) fn uploads(&self) -> BodyLimits {
        BodyLimits {
            body: self.max_body,
            bodies: self.max_uploads,
            per_peer: self.max_bodies_per_peer,
            bytes: self.max_upload_bytes,
            idle_ms: self.block_timeout_ms,
            whole_ms: self.body_timeout_ms,
        }
    }

    /// The bounds of response bodies.
    pub(crate) fn downloads(&self) -> BodyLimits {
        BodyLimits { bodies: self.max_downloads, bytes: self.max_download_bytes, ..self.uploads() }
    }

    /// The longest first timeout: ACK_TIMEOUT * ACK_RANDOM_FACTOR. 3 s.
    pub(crate) fn longest_timeout_ms(&self) -> u64 {
        self.ack_timeout_ms + self.ack_timeout_ms * self.ack_random_percent / 100
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            piggyback_ms: 1_000,
            ack_timeout_ms: 2_000,
            ack_random_percent: 50,
            max_retransmit: 4,
            max_latency_ms: 100_000,
            max_peers: 262_144,
            max_exchanges: 65_536,
            max_exchanges_per_peer: 64,
            max_remembered: 1_048_576,
            max_remembered_per_peer: 16_384,
            max_replay_bytes: 67_108_864,
            max_observations: 262_144,
            max_observations_per_peer: 8,
            max_outgoing_per_peer: 32,
            max_outgoing_bytes: 67_108_864,
            max_body: 1_048_576,
            max_uploads: 4_096,
            max_bodies_per_peer: 4,
            max_upload_bytes: 67_108_864,
            max_downloads: 4_096,
            max_download_bytes: 67_108_864,
            block_timeout_ms: 120_000,
            body_timeout_ms: 900_000,
            fetch_ms: 5_000,
            echo_window_ms: 60_000,
            retry_after_s: 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn the_derived_times_are_those_of_section_4_8_2() {
        let limits = Limits::default();
        assert_eq!(limits.max_transmit_span_ms(), 45_000);
        assert_eq!(limits.exchange_lifetime_ms(), 247_000);
        assert_eq!(limits.non_lifetime_ms(), 145_000);
    }
}
