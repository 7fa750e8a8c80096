//! Settings of the UDP listeners.

use std::time::Duration;

/// Settings of all UDP listeners. Every bound on what they keep stands here.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// Bytes of payload in one datagram; a larger one is refused whole.
    pub max_datagram: usize,
    /// A device that was heard within this time is sent its commands at once; for another they wait for its next word. Zero: for
    /// every one.
    pub reach: Duration,
    /// Datagrams whose ack waits for the store, over all sockets. Further ones are dropped.
    pub max_unstored: usize,
    /// Datagrams whose sender is still being authenticated, per socket. Further ones are dropped.
    pub max_authenticating: usize,
    /// How long one of them waits.
    pub auth_timeout: Duration,
    /// Devices that sign, whose newest number is remembered. About 100 bytes each; further devices are refused.
    pub max_signed_devices: usize,
    /// A signed datagram that could not be taken may come again within this time of when it first came, in whole seconds:
    /// whoever kept a copy cannot begin a session with it later.
    pub retry_within: Duration,
    /// Devices whose command found no room in the socket and is tried again soon, per socket. Further ones wait for the
    /// device's next word.
    pub max_congested: usize,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            max_datagram: 8 * 1024,
            reach: Duration::from_secs(30),
            max_unstored: 65_536,
            max_authenticating: 256,
            auth_timeout: Duration::from_secs(5),
            max_signed_devices: 1_000_000,
            retry_within: Duration::from_secs(300),
            max_congested: 1_024,
        }
    }
}
