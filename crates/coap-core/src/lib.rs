//! The server's side of CoAP as a machine without I/O: datagrams and time in, datagrams and requests out.
//!
//! Owns: RFC 7252's message layer, RFC 7641 (Observe), RFC 7959 (Block1 and Block2), RFC 7967 (No-Response), RFC 9175 (Echo,
//! Request-Tag), the grammar of paths, links and Content-Formats. Does not own: sockets, the clock, who a device is, what a
//! resource does. Pure: no clock, socket, task or randomness.
//!
//! A shell makes one [`Endpoint`] per socket and gives it every datagram, the time at every call, and each deadline that
//! [`Endpoint::next_timeout`] names. After any call that changes it, the shell takes every [`Output`] from
//! [`Endpoint::poll`] until it returns `None`. Each [`Output::Request`] is answered once, by [`Endpoint::respond`] or
//! [`Endpoint::observe`], in its own time.
//!
//! `docs/coap.md` says clause by clause what is served.

pub mod block;
pub mod codec;
pub mod content;
pub mod echo;
mod endpoint;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
pub mod link;
mod message;
mod options;
mod output;
mod remembered;
mod request;
mod response;
mod secrets;
pub mod uri;

pub use endpoint::Endpoint;
pub use limits::Limits;
pub use message::{Code, Kind, Message, Token};
pub use options::{Options, number};
pub use output::{Answered, Ending, ExchangeId, NoteFailure, NoteId, ObservationId, Output, Rejected};
pub use request::{Method, Observe, Request};
pub use response::Response;
pub use secrets::Seed;

/// Milliseconds since an origin of the shell's own; never goes back.
pub type Tick = u64;
