//! The machine against datagrams and a virtual clock, clause by clause.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod blocks;
mod exchanges;
mod framing;
mod limits;
mod observe;
mod options;
mod outgoing;
mod parting;
mod proof;
mod reuse;
