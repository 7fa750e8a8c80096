//! The bus on NATS JetStream: events stored in order and acknowledged, requests in, sessions kept, a server of one's own.
//!
//! Owns: every connection to NATS, and the embedded server. Does not own: what an event says and on which subject
//! (`landfall-event`), when one happens (`landfall-hub`).

mod ack;
mod commands;
mod connect;
mod driver;
pub mod embedded;
mod health;
mod link;
mod publisher;
mod reading;
mod store;
pub mod streams;
pub mod window;

pub use commands::{AdminAnswer, AdminRequest, RequestStats, Requests, Sink, SubscribeError};
pub use connect::{ConnectError, ConnectSettings, Target};
pub use health::Health;
pub use publisher::{LARGEST_WINDOW, Publisher, PublisherSettings, PublisherStats};
pub use store::JetStreamStore;
