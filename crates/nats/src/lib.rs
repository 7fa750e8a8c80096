//! The bus on NATS JetStream: events stored in order and acknowledged, requests in, sessions kept, a server of one's own.
//!
//! Owns: every connection to NATS, and the embedded server. Does not own: what an event says and on which subject
//! (`landfall-event`), when one happens (`landfall-hub`).

mod ack;
mod adopt;
mod beside;
mod checkpoint;
mod commands;
mod connect;
mod desk;
mod dial;
mod driver;
pub mod embedded;
mod fence;
mod guardian;
mod health;
mod history;
mod keep;
mod lease;
mod line;
mod link;
mod message;
mod pace;
mod persist;
mod protocol;
mod publisher;
mod reading;
mod repair;
mod store;
pub mod streams;
mod translation;
mod trim;
mod trouble;
mod turnover;
mod wills;
pub mod window;

pub use adopt::SpoolPlace;
pub use commands::{AdminAnswer, AdminRequest, RequestStats, Requests, Sink, SubscribeError};
pub use connect::{ConnectError, ConnectSettings, Target};
pub use desk::Failure;
pub use fence::Fences;
pub use guardian::{Dismissed, Guardian, GuardianSettings};
pub use health::Health;
pub use history::{Extent, History, Place, Since};
pub use message::header;
pub use publisher::{
    Kept, LARGEST_WINDOW, Publisher, PublisherSettings, PublisherStats, Resumption, Standing,
};
pub use store::JetStreamStore;
pub use trim::{Trimmed, trim};
pub use trouble::{Cause, Trouble};
