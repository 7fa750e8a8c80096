//! Clients, whoever stands in their way, an authenticator and a clock that the bytes direct, in front of a listener.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| landfall_dtls::fuzzing::listener(data));
