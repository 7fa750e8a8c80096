//! The CoAP listener: from a datagram, plain or under DTLS, to the protocol machine to the session, and back.
//!
//! Owns: the resources of the gateway, one socket's task, commands as responses and notifications. Does not own: the
//! protocol (`landfall-coap-core`), sockets (`landfall-net`), DTLS (`landfall-channel`), sessions and events (`landfall-hub`).
//!
//! One task serves one socket and every device behind it, and nothing in it waits for one of them: what takes time (the
//! store, the authenticator, a command that may come) is a place in a bounded table.

mod admission;
mod asked;
mod commands;
mod config;
mod door;
mod metrics;
mod paths;
mod registrations;
mod resources;
mod retained;
mod secure;
mod server;
mod stray;
mod sweep;

pub use config::CoapConfig;
pub use server::CoapServer;

use landfall_coap_core::Tick;
