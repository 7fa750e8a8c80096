//! What the messages carry.
//!
//! Owns: the bytes, with a stamp if events are to be matched with them. Does not own: the stamp's form ([`crate::says`]).

use super::drive::Message;
use crate::clock::Clock;
use crate::says::Stamp;

/// One device's payloads.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    bytes: Vec<u8>,
    stamped: Option<(Clock, u32, u32)>,
}

impl Payload {
    /// The same each time.
    pub(crate) fn plain(size: usize) -> Self {
        Self { bytes: vec![b'x'; size], stamped: None }
    }

    /// With a stamp of this run and device.
    pub(crate) fn stamped(size: usize, clock: Clock, run: u32, device: u32) -> Self {
        Self { stamped: Some((clock, run, device)), ..Self::plain(size) }
    }

    pub(crate) fn of(&mut self, message: Message) -> &[u8] {
        if let Some((clock, run, device)) = self.stamped {
            let at_us = clock.unix_us(message.from);
            Stamp { run, device, seq: message.seq, at_us }.put(&mut self.bytes);
        }
        &self.bytes
    }
}
