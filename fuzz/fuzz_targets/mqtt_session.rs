//! A client and a shell that the bytes direct, checked packet by packet against a model.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| landfall_mqtt_core::fuzzing::session(data));
