//! What goes onto the wire and comes back from it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panics")]

mod generate;
mod golden;
mod page;
mod payloads;
mod properties;
mod samples;
