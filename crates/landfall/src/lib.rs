//! Landfall, the device connectivity gateway: settings, who may connect, the operator's commands and interface, and the
//! composition of the parts.
//!
//! Owns: what an operator configures, sees and types. Does not own: protocols, sessions, NATS (the crates below).

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
mod descriptors;
mod document;
mod failure;
pub mod logging;
mod readable;
pub mod reloads;
pub mod runfile;
pub mod settings;
mod signals;
mod text;

pub use failure::Failure;
