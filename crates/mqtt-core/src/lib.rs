//! The server's side of MQTT 3.1.1 and 5.0 as a machine without I/O: bytes in, actions and bytes out.
//!
//! Owns: every rule of the two specifications that one connection can be held to, and the topics of commands. Does not own:
//! sockets, time (keep-alive is the session tracker's), identity, storage, or what waits for a device that is away.
//! Pure: no clock, socket, task or randomness.
//!
//! A shell makes one [`Connection`] per network connection, appends what it reads to a buffer, and calls
//! [`Connection::poll`] until it returns `None`. After any call that takes `out`, it writes `out` to the network. Each
//! [`Action`] says which call answers it.
//!
//! `docs/mqtt.md` says clause by clause what is served.

mod action;
mod answer;
mod codec;
pub mod commands;
mod connect;
mod connection;
mod encode;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod inbound;
mod limits;
mod mark;
mod message;
mod outbound;
mod packet;
mod session;
mod state;
mod subscribe;
mod types;

pub use action::{Ack, Action, ConnectRequest, Delivery, Goodbye, Inbound, Will};
pub use answer::{Accept, DisconnectWhy, PublishFailure, Refusal, Verdict};
pub use commands::RequestForm;
pub use connection::Connection;
pub use fault::{Fault, Violation};
pub use limits::Limits;
pub use message::Message;
pub use state::SessionState;
pub use subscribe::{SubscribeRequest, Subscription};
pub use types::{DeliveryToken, QoS, Token, UserProperties, Version};
