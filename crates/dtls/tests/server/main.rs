//! The server engine against clients that others wrote, in virtual time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod certificates;
mod lossy;
mod openssl;
mod pki;
mod psk;
mod world;
