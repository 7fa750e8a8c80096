//! The machine against byte vectors and sequences, clause by clause.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod connect;
mod edges;
mod framing;
mod inbound;
mod outbound;
mod peer;
mod resume;
mod subscribe;
