//! What one connection may ask for. One value is shared by all connections of a listener.

/// The bounds of a connection; [`Default`] holds the values that the gateway starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the largest packet taken, fixed header included; told as Maximum Packet Size. 262,144.
    pub max_packet_size: u32,
    /// Bytes of the largest CONNECT: what a stranger may make the gateway read. 65,536.
    pub max_connect_size: u32,
    /// Bytes of the longest topic name or filter. 1,024.
    pub max_topic_length: usize,
    /// QoS 1 and 2 messages of the client that may wait for their acknowledgement at once, 1..; told as Receive Maximum.
    /// 32.
    pub receive_maximum: u16,
    /// The same for a 3.1.1 client, which cannot be told and would not keep to it: beyond it, reading from it pauses, so
    /// that it waits for its PINGRESP too. 1,024.
    pub unacknowledged_v311: u16,
    /// Topic aliases that a client may hold, 0 for none; told as Topic Alias Maximum. 32.
    pub topic_alias_maximum: u16,
    /// Subscriptions of one session. 64.
    pub max_subscriptions: usize,
    /// Topic filters in one SUBSCRIBE or UNSUBSCRIBE. 128.
    pub max_filters_per_packet: usize,
    /// User properties in one set of properties. 32.
    pub max_user_properties: usize,
    /// Seconds of the longest keep-alive; a client that asks for more, or for none, gets this one. 0: no bound. 65,535.
    pub max_keep_alive: u16,
    /// QoS 2 packet ids that a session may leave without a PUBREL. 1,024.
    pub max_qos2_pending: usize,
    /// Seconds that a session may outlive its connection. 604,800 (a week).
    pub max_session_expiry: u32,
    /// QoS 1 and 2 messages to the client that may be in flight at once, 1..; the client's Receive Maximum lowers it. 32.
    pub outbound_in_flight: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_size: 262_144,
            max_connect_size: 65_536,
            max_topic_length: 1_024,
            receive_maximum: 32,
            unacknowledged_v311: 1_024,
            topic_alias_maximum: 32,
            max_subscriptions: 64,
            max_filters_per_packet: 128,
            max_user_properties: 32,
            max_keep_alive: 65_535,
            max_qos2_pending: 1_024,
            max_session_expiry: 604_800,
            outbound_in_flight: 32,
        }
    }
}
