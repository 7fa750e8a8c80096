//! The listener on real sockets, against a hub and a store in memory: what a device gets, when, and what is published.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod acks;
mod bounds;
mod client;
mod commands;
mod dtls;
mod messages;
mod page;
mod proof;
mod world;
