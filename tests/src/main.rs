//! Landfall's end-to-end tests: the real gateway, a real nats-server, real clients. One binary, one link.
//!
//! Each module's first lines say what it shows. `make test` builds the gateway first; a test that finds no binary says so.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

mod admin;
mod architecture;
mod auth;
mod beginning;
mod bench_kit;
mod benches;
mod clients;
mod coap;
mod command_line;
mod commands;
mod documents;
mod dtls;
mod embedded;
mod endings;
mod examples;
mod faults;
mod fields;
mod formats;
mod front;
mod hostile;
mod instances;
mod load;
mod metadata;
mod outage;
mod persistent;
mod presence;
mod readiness;
mod readme;
mod refusals;
mod slow;
mod supply;
mod takeover;
mod timing;
mod topics;
mod udp;
mod under_way;
mod upstream;
mod verify;
mod wills;
