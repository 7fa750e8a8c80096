//! The listener core over a scripted engine, and over the real one with clients that others wrote.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod cookies;
mod crowd;
mod ends;
mod fairness;
mod fake;
mod limits;
mod lost;
mod memory;
mod model;
mod routing;
mod strangers;
mod timers;
mod world;
