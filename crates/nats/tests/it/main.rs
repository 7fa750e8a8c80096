//! The bus against real nats-server processes: killed, frozen, cut off, absent, configured otherwise.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod access;
mod connect;
mod embedded;
mod faults;
mod guardian;
mod keeping;
mod limits;
mod node;
mod publisher;
mod reading;
mod requests;
mod revived;
mod store;
mod streams;
mod support;
mod trouble;
mod wills;
