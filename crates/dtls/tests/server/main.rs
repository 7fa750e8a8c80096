//! The server engine against clients that others wrote, in virtual time.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test"
)]

mod certificates;
mod interop;
mod lossy;
mod pki;
mod psk;
mod world;
