//! The listener on real sockets, against a hub and a bus in memory: what a device gets, when, and what is published.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod commands;
mod identity;
mod messages;
mod presence;
mod resources;
mod reuse;
mod secure;
mod world;
