//! The async driver between listeners and the bus: it opens and ends sessions, numbers and submits their events, routes
//! commands to them, and holds the bounds that keep memory finite.
//!
//! Owns: `SessionHandle`, the tracker shards, the command router, the publish window, the `Bus`, `SessionStore` and
//! `Authenticator` seams, the metrics. Does not own: protocols (the `*-core` crates), sockets (`landfall-net` and the
//! listeners), NATS (`landfall-nats`), settings (`landfall`).

mod auth;
mod bus;
mod command;

pub use auth::{Acl, AuthError, Authenticator, Credentials, PeerCertificate, Principal, Secret};
pub use bus::{Bus, Publication, Receipt, SessionStore, StoreError, StoredQueue, StoredSession};
pub use command::{Command, CommandRequest, Wait};

/// A boxed future, for the seams that are `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
