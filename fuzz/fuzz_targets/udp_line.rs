//! The bytes are a datagram, and a play of signed numbers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| landfall_udp::fuzzing::line(data));
