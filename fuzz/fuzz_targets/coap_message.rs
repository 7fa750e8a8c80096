//! Raw bytes as one datagram of a stranger.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| landfall_coap_core::fuzzing::message(data));
