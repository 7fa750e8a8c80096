//! The async driver between listeners and the bus: it opens and ends sessions, numbers and submits their events, routes
//! commands to them, and holds the bounds that keep memory finite.
//!
//! Owns: `SessionHandle`, the tracker shards, the command router, the publish window, the `Bus`, `SessionStore` and
//! `Authenticator` seams, the metrics. Does not own: protocols (the `*-core` crates), sockets (`landfall-net` and the
//! listeners), NATS (`landfall-nats`), settings (`landfall`).

mod address;
mod anew;
mod attempt;
mod auth;
mod bus;
mod clock;
mod command;
mod config;
mod ending;
mod handle;
mod hub;
mod left;
mod mailbox;
mod mark;
pub mod memory;
mod metrics;
mod peer;
mod post;
mod quiet;
mod refusals;
mod router;
mod service;
mod session;
mod view;
mod wills;

pub use anew::{Anew, OpenSession, Unstored};
pub use attempt::{Attempt, claimed_name};
pub use auth::{Acl, AuthError, Authenticator, Credentials, PeerCertificate, Principal, Secret, Signature};
pub use bus::{Bus, Listener, Publication, Receipt, SessionStore, StoreError, StoredQueue, StoredSession};
pub use clock::unix_now;
pub use command::{Command, CommandRequest, Wait};
pub use config::{HubConfig, UpstreamBody};
pub use handle::{Permit, Remains, SessionHandle};
pub use hub::{Hello, Hub, OpenError};
pub use left::LeftCommand;
pub use mailbox::{Mail, Settled};
pub use mark::{Marker, may_receive_command};
pub use peer::{Heard, PeerHandle, PeerId};
pub use post::{News, Post};
pub use router::{Adopted, NotKept, Offline};
pub use session::{Protocol, Uplink, Will};
pub use view::SessionView;
pub use wills::{KeptWill, Owed};

/// A boxed future, for the seams that are `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
