//! Sockets and handshakes: everything between a listening address and bytes that a protocol can be spoken in.
//!
//! Owns: [`Scope`] (the only place where tasks start), [`Endpoint`] and [`DatagramEndpoint`] addresses, the one accept
//! loop ([`Listener`]), connection limits ([`Gate`]), what a
//! balancer says of its clients ([`Network`]), TLS ([`Tls`]), the files of DTLS ([`DtlsFiles`]), the WebSocket
//! upgrade ([`ws`]), reading without a held buffer ([`exchange`]), and datagrams that are answered the way that they came
//! ([`Datagrams`]). Does not own: any device protocol, who a device is, or an event.

mod accept;
mod datagram;
mod endpoint;
mod limit;
mod proxy;
mod scope;
mod stream;
pub mod tls;
pub mod ws;

pub use accept::{AcceptSettings, Accepted, Listener, Refusal, Serve};
pub use datagram::{Batch, DatagramSettings, DatagramSocket, Datagrams, Path};
pub use endpoint::{BindError, DatagramEndpoint, DatagramKind, Endpoint, EndpointError, StreamKind};
pub use limit::{Gate, LimitReached, Limits, Permit};
pub use proxy::{Network, NetworkError};
pub use scope::{Drained, Scope};
pub use stream::{Exchanged, READ_CHUNK, Stream, close, exchange, poll_receive, receive};
pub use tls::{
    ClientAuth, DtlsFiles, DtlsKeys, DtlsSettings, Following, PeerCertificate, PemFile, Tls, TlsError,
    TlsSettings, TlsStream,
};
