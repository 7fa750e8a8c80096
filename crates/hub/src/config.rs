//! What the hub is told at its making: parsed and valid already.

use std::time::Duration;

use landfall_event::{Format, Origin};
use landfall_session::Patience;

/// The body of upstream events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamBody {
    /// The event in the configured format, the payload inside it.
    Event,
    /// The payload untouched; the head as `Landfall-*` headers.
    Raw,
}

/// The hub's settings.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Who publishes.
    pub origin: Origin,
    /// The gateway's version, told in service events.
    pub version: &'static str,
    /// How events are encoded.
    pub format: Format,
    /// How upstream messages are.
    pub upstream_body: UpstreamBody,
    /// How late silence may be detected.
    pub tick: Duration,
    /// Sessions begin also while the bus is away, if it keeps what they publish.
    pub admit_while_away: bool,
    /// The silence that ends the session of a device that does not connect, where neither it nor its entry says so.
    pub idle_timeout: Duration,
    /// Learn that silence from the device's own rhythm, `idle_timeout` at most; `None` does not.
    pub adaptive: Option<Patience>,
    /// Between two `service.lifecycle.keep-alive`.
    pub service_interval: Duration,
    /// Bytes of messages that may be on their way to the store.
    pub window_bytes: usize,
    /// Sessions in all.
    pub max_sessions: usize,
    /// Commands that may wait for one device's connection.
    pub commands_per_session: usize,
    /// Commands under way in all.
    pub max_commands: usize,
    /// Devices remembered whose silence ended their session: commands for them wait.
    pub max_quiet_devices: usize,
    /// The longest time to live that a command may ask for.
    pub max_command_ttl: Duration,
    /// Refusals of one source and cause within this time become one event.
    pub refusal_interval: Duration,
    /// Sources of refusals told apart within that time.
    pub max_refusal_sources: usize,
    /// Wills that may wait for their delay; further ones are published at once.
    pub max_waiting_wills: usize,
}

impl HubConfig {
    /// The defaults for everything but who publishes.
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            version: env!("CARGO_PKG_VERSION"),
            format: Format::Json,
            upstream_body: UpstreamBody::Event,
            tick: Duration::from_millis(100),
            admit_while_away: true,
            idle_timeout: Duration::from_secs(300),
            adaptive: None,
            service_interval: Duration::from_secs(10),
            window_bytes: 32 << 20,
            max_sessions: 1_000_000,
            commands_per_session: 32,
            max_commands: 65_536,
            max_quiet_devices: 65_536,
            max_command_ttl: Duration::from_secs(7 * 24 * 3600),
            refusal_interval: Duration::from_secs(10),
            max_refusal_sources: 128,
            max_waiting_wills: 100_000,
        }
    }

    pub(crate) fn idle_timeout_ms(&self) -> u64 {
        u64::try_from(self.idle_timeout.as_millis()).unwrap_or(u64::MAX)
    }
}
