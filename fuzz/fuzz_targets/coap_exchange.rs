//! Clients, a shell and a clock that the bytes direct, checked output by output against a model.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| landfall_coap_core::fuzzing::exchange(data));
