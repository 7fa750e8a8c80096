//! Settings of the CoAP listeners.

use std::sync::Arc;
use std::time::Duration;

use landfall_coap_core::Limits;

/// Settings of all CoAP listeners. Every bound on what they keep stands here.
#[derive(Clone, Debug)]
pub struct CoapConfig {
    /// The protocol's bounds, of each socket.
    pub limits: Arc<Limits>,
    /// From a request to its answer: what is not stored by then is told 5.03. Seven eighths of the lifetime of an exchange at
    /// most, which is 216 s with the protocol's own times: after it the request could not be answered any more.
    pub request_timeout: Duration,
    /// The longest that a request with `ttd` waits for a command; at most as long as `request_timeout` can be.
    pub max_ttd: Duration,
    /// Whether an address of the loopback interface counts as proven: nobody else can pretend to be there.
    pub trust_loopback: bool,
    /// Requests that wait for a command, per socket. A further one is answered at once.
    pub max_waiting: usize,
    /// Requests whose sender is still being authenticated, per socket. A further one is told 5.03.
    pub max_authenticating: usize,
    /// How long one of them waits.
    pub auth_timeout: Duration,
    /// Addresses that are remembered with the session they belong to, per socket. From a further one a ping is no heartbeat,
    /// and a request without `ep` is told 4.01.
    pub max_paths: usize,
    /// Registrations at `/rd`, over all sockets. A further one is told 5.03.
    pub max_registrations: usize,
}

impl Default for CoapConfig {
    fn default() -> Self {
        Self {
            limits: Arc::default(),
            request_timeout: Duration::from_secs(30),
            max_ttd: Duration::from_secs(60),
            trust_loopback: true,
            max_waiting: 65_536,
            max_authenticating: 256,
            auth_timeout: Duration::from_secs(5),
            max_paths: 1_048_576,
            max_registrations: 1_048_576,
        }
    }
}
