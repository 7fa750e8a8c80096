//! Sockets and handshakes: everything between a listening address and a byte stream that a protocol can be spoken on.
//!
//! Owns: [`Scope`] (the only place where tasks start), [`Endpoint`] addresses, the one accept loop ([`Listener`]),
//! connection limits ([`Gate`]), TLS ([`Tls`]), the WebSocket upgrade ([`ws`]), and reading without a held buffer
//! ([`exchange`]). Does not own: any device protocol, who a device is, or an event.

mod accept;
mod endpoint;
mod limit;
mod scope;
mod stream;
pub mod tls;
pub mod ws;

pub use accept::{AcceptSettings, Accepted, BindError, Listener, Refusal, Serve};
pub use endpoint::{Endpoint, EndpointError, StreamKind};
pub use limit::{Gate, LimitReached, Limits, Permit};
pub use scope::{Drained, Scope};
pub use stream::{Exchanged, READ_CHUNK, Stream, close, exchange, poll_receive, receive};
pub use tls::{ClientAuth, PeerCertificate, Tls, TlsError, TlsSettings, TlsStream};
