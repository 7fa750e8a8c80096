//! The UDP listener: one datagram is one message, its first line says whose and what for.
//!
//! Owns: the `LF1` line, replay protection, acks after the store, commands as datagrams, presence on secure channels. Does
//! not own: sockets (`landfall-net`), DTLS (`landfall-channel`), sessions, silence and events (`landfall-hub`), who a device
//! is (the authenticator).

mod admission;
mod answer;
mod arrival;
mod commands;
mod config;
mod door;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod line;
mod memo;
mod metrics;
mod replay;
mod secure;
mod server;
mod unstored;

pub use config::UdpConfig;
pub use line::{Answer, Key, Line, LineError, MAX_LINE, MAX_SECONDS, MAX_STATUS, Signed, escape};
pub use replay::{Novelty, Replay};
pub use server::UdpServer;
