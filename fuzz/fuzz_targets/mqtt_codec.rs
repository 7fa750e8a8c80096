//! Raw bytes into the MQTT machine, on a fresh and on an accepted connection of either version.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| landfall_mqtt_core::fuzzing::codec(data));
