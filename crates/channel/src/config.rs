//! What all sockets with channels share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use landfall_dtls::{Limits, ServerConfig};
use tokio::sync::watch;

/// What all sockets with channels share.
#[derive(Clone)]
pub struct ChannelConfig {
    /// What handshakes need. Those that begin after it has changed have the new one; what is there stays as it is.
    pub server: watch::Receiver<Arc<ServerConfig>>,
    /// Limits of one socket.
    pub limits: Limits,
    /// Channels of one socket that one device may be let in on which has proven nothing in their handshakes. With one more its
    /// oldest is closed. At least 1.
    pub max_vouched_per_device: usize,
    /// How long the authenticator may take.
    pub auth_timeout: Duration,
}

/// Keys and certificates are left out.
impl fmt::Debug for ChannelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelConfig")
            .field("limits", &self.limits)
            .field("auth_timeout", &self.auth_timeout)
            .finish_non_exhaustive()
    }
}
