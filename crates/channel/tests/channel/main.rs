//! Channels on a loopback socket, with clients of a stack that others wrote.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod handshakes;
mod refusals;
mod world;
