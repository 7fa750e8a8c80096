//! The MQTT listener: from a stream to the protocol machine to the session, and back.
//!
//! Owns: the loop of one connection, letting clients in, sessions that outlive their connection, commands as messages.
//! Does not own: the protocol (`landfall-mqtt-core`), sockets and TLS (`landfall-net`), sessions and events
//! (`landfall-hub`), the store (`landfall-nats`).

mod act;
mod budget;
mod commands;
mod conn;
mod faults;
mod flights;
mod handshake;
mod listener;
mod outbound;
mod owed;
mod record;
mod sessions;
mod shelf;

pub use listener::{MqttConfig, MqttServer};
pub use sessions::{OfflineLimits, Sessions};
