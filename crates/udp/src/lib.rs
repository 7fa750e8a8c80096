//! The UDP listener: one datagram is one message, its first line says whose and what for.
//!
//! Owns: the `LF1` line, replay protection, acks after the store, commands as datagrams. Does not own: sockets
//! (`landfall-net`), sessions, silence and events (`landfall-hub`), who a device is (the authenticator).

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod line;
mod replay;

pub use line::{Answer, Key, Line, LineError, MAX_LINE, MAX_SECONDS, MAX_STATUS, Signed, escape};
pub use replay::{Novelty, Replay};
