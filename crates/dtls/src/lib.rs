//! DTLS 1.2 (RFC 6347) for a server, without I/O: datagrams and `now` in; datagrams, data and events out.
//!
//! Owns: associations ([`Server`]), and the listener core that owns their addresses, cookies, timers and limits
//! ([`Listener`]). Does not own: sockets and clocks, who somebody is (the caller answers [`Event::WhoIs`]), presence.

mod alert;
mod certificate;
mod cookie;
mod engine;
mod fragments;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod keys;
mod limits;
mod listener;
mod record;
mod replay;
mod server;
mod suite;

pub use engine::{
    Answer, BadRecord, Closing, Engine, EngineEvent, Failure, Identity, Outlet, SendError, Stage,
};
pub use landfall_session::Tick;
pub use limits::Limits;
pub use listener::{Counts, Event, Key, Listener, Sink};
pub use server::{Server, ServerConfig};
