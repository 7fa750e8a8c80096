//! What a device says: topic, path, payload, and the answer that it takes for a yes.
//!
//! Owns: the settings of messages, and the stamp that leads from an event back to the message. Does not own: packets.

use clap::Args;
use landfall_coap_core::{Code, Kind};

use crate::coap::{Expected, Method, Request};
use crate::fleet::Fleet;
use crate::target::Carrier;

/// Settings of the messages.
#[derive(Args, Clone, Debug)]
pub(crate) struct Says {
    /// MQTT topic; an `n` in braces is the device's number, `{id}` its name. Without either, the number is added as a level.
    #[arg(long, default_value = "load")]
    topic: String,
    /// MQTT quality of service. For UDP 0 means that no ack is asked for.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Payload bytes.
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// CoAP method.
    #[arg(long, value_enum, default_value = "post")]
    method: Method,
    /// CoAP path and query.
    #[arg(long, default_value = "/load?ep={id}")]
    path: String,
    /// The CoAP response code that is a success.
    #[arg(long, default_value = "2.04")]
    expect: Expected,
    /// CoAP requests are not confirmable.
    #[arg(long)]
    non: bool,
    /// More words of the `LF1` line: `hb=60`.
    #[arg(long, default_value = "")]
    pub(crate) words: String,
}

impl Says {
    /// Of devices that say nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            topic: String::new(),
            qos: 0,
            size: 0,
            method: Method::Post,
            path: String::new(),
            expect: Expected(Code::CHANGED),
            non: false,
            words: String::new(),
        }
    }

    pub(crate) fn topic(&self, fleet: &Fleet, n: u32) -> String {
        if self.topic.contains("{n}") || self.topic.contains("{id}") {
            fleet.fill(&self.topic, n)
        } else {
            format!("{}/{n}", self.topic)
        }
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        vec![b'x'; self.size]
    }

    /// What is said in a record of DTLS, behind the line's head.
    pub(crate) fn in_a_record(&self, head: &str) -> String {
        let payload = if self.size > 0 { format!("\n{}", "x".repeat(self.size)) } else { String::new() };
        format!("{head} seq={{n}} ack{payload}")
    }

    /// A request with a body, unless it is a GET or a DELETE.
    pub(crate) fn request(&self, fleet: &Fleet, n: u32) -> Request {
        let kind = if self.non { Kind::Non } else { Kind::Con };
        let payload = if self.has_body() { self.payload() } else { Vec::new() };
        Request::new(kind, self.method.code(), &fleet.fill(&self.path, n), &payload)
    }

    pub(crate) fn has_body(&self) -> bool {
        matches!(self.method, Method::Post | Method::Put)
    }

    /// Bytes of a message's payload.
    pub(crate) fn bytes_over(&self, carrier: Carrier) -> usize {
        if carrier == Carrier::Coap && !self.has_body() { 0 } else { self.size }
    }

    pub(crate) fn is_confirmable(&self) -> bool {
        !self.non
    }

    /// Whether this code is the one that is expected.
    pub(crate) fn judge(&self, code: Code) -> Result<(), String> {
        if code == self.expect.0 {
            Ok(())
        } else {
            Err(format!("the response is {code} instead of {}", self.expect.0))
        }
    }

    pub(crate) fn is_expected(&self, code: Code) -> bool {
        code == self.expect.0
    }
}

/// Which message of which run a payload is, and when it was meant to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u32,
    pub(crate) device: u32,
    pub(crate) seq: u64,
    /// Unix time in µs.
    pub(crate) at_us: u64,
}

impl Stamp {
    /// Bytes that it takes at the beginning of a payload.
    pub(crate) const LENGTH: usize = 54;

    /// Writes it over the beginning of `payload`, if there is room.
    pub(crate) fn put(&self, payload: &mut [u8]) {
        let Some(place) = payload.first_chunk_mut::<{ Self::LENGTH }>() else { return };
        *place = *b"lf 00000000 00000000 0000000000000000 0000000000000000";
        hex(place.get_mut(3..11), self.run.into());
        hex(place.get_mut(12..20), self.device.into());
        hex(place.get_mut(21..37), self.seq);
        hex(place.get_mut(38..54), self.at_us);
    }

    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload.get(..Self::LENGTH)?).ok()?;
        let mut parts = text.strip_prefix("lf ")?.split(' ');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (run, device) = (number()?, number()?);
        Some(Self {
            run: u32::try_from(run).ok()?,
            device: u32::try_from(device).ok()?,
            seq: number()?,
            at_us: number()?,
        })
    }
}

fn hex(place: Option<&mut [u8]>, mut value: u64) {
    for digit in place.into_iter().flatten().rev() {
        let low = u8::try_from(value & 15).unwrap_or(0);
        *digit = if low < 10 { b'0' + low } else { b'a' - 10 + low };
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_put() {
        let stamp = Stamp { run: 0xdead_beef, device: 17, seq: 123_456_789, at_us: 1_764_000_000_123_456 };
        let mut payload = vec![b'x'; 100];
        stamp.put(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(&payload[..21], b"lf deadbeef 00000011 ");
        assert_eq!(payload[Stamp::LENGTH..], [b'x'; 100 - Stamp::LENGTH]);
        let mut short = vec![b'x'; 20];
        stamp.put(&mut short);
        assert_eq!((short.as_slice(), Stamp::read(&short)), (&[b'x'; 20][..], None));
        assert_eq!(Stamp::read(&[b'x'; 100]), None);
    }
}
