//! The secure channels of a datagram socket: DTLS between the socket and whoever reads it.
//!
//! Owns: asking the authenticator whose PSK identity or certificate it is without making anybody else wait, DTLS timers as
//! one timer of the socket's task, refusals, metrics. Does not own: the protocol (`landfall-dtls`), sessions and presence
//! (the listeners, `landfall-hub`), the socket's loop.

mod channels;
mod config;
mod kept;
mod lookup;
mod metrics;
mod outlet;
mod via;
mod words;

pub use channels::Channels;
pub use config::ChannelConfig;
pub use metrics::ChannelMetrics;
pub use via::{Channel, Via};
pub use words::{Word, Words};
