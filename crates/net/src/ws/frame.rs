//! The frames that a client sends, decoded in place.
//!
//! Owns: RFC 6455 sections 5.1 to 5.5 for the receiving side of a server. Does not own: sockets; bytes come in, payload
//! and signals go out.

/// A rule that the client broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A text frame: MQTT is binary only [MQTT-6.0.0-1].
    #[error("a text frame, where only binary ones are allowed")]
    Text,
    /// A frame longer than [`super::MAX_FRAME`].
    #[error("a frame that is too long")]
    TooLong,
    /// A frame that RFC 6455 forbids.
    #[error("a malformed frame: {0}")]
    Malformed(&'static str),
}

impl Fault {
    /// The close code that it is told with (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLong => 1009,
            Self::Malformed(_) => 1002,
        }
    }
}

/// How the client's side of the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It sent a close frame, with this code if any.
    Closed(Option<u16>),
    /// It broke a rule.
    Fault(Fault),
}

/// The longest frame head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// The longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

/// Turns the bytes of a client into payload, in place. Holds a frame's head and a control frame's payload, no more.
#[derive(Debug)]
pub struct Decoder {
    /// The head of the next frame, as far as it has come.
    head: [u8; MAX_HEAD],
    head_len: u8,
    /// Turned as the payload is consumed: its first byte is the next to apply.
    mask: [u8; 4],
    kind: Kind,
    /// A data message has begun and its last frame has not come.
    in_message: bool,
    /// Bytes of payload that the current frame still has; 0 between frames.
    remaining: u64,
    /// What has come of a control frame's payload.
    control: Vec<u8>,
    /// The payload of the last ping: RFC 6455 section 5.5.3 lets older ones go unanswered.
    ping: Option<Vec<u8>>,
    ending: Option<Ending>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the beginning of the first frame.
    pub fn new() -> Self {
        Self {
            head: [0; MAX_HEAD],
            head_len: 0,
            mask: [0; 4],
            kind: Kind::Data,
            in_message: false,
            remaining: 0,
            control: Vec::new(),
            ping: None,
            ending: None,
        }
    }

    /// Decodes all of `chunk` and leaves the payload at its front; returns how long that is. After the [`Ending`]
    /// nothing more is decoded.
    pub fn decode(&mut self, chunk: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while self.ending.is_none() && from < chunk.len() {
            if self.remaining == 0 {
                from += self.take_head(chunk.get(from..).unwrap_or_default());
                continue;
            }
            let left = usize::try_from(self.remaining).unwrap_or(usize::MAX);
            let n = left.min(chunk.len() - from);
            if let Some(payload) = chunk.get_mut(from..from + n) {
                unmask(payload, &mut self.mask);
                if self.kind != Kind::Data {
                    self.control.extend_from_slice(payload);
                }
            }
            if self.kind == Kind::Data {
                chunk.copy_within(from..from + n, to);
                to += n;
            }
            from += n;
            self.remaining -= n as u64;
            if self.remaining == 0 {
                self.frame_done();
            }
        }
        to
    }

    /// The ping that is to be answered now, if one came since the last call.
    pub fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// How the client's side ended, once it has.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Takes what it needs for the head from `bytes`; returns how many that were.
    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for byte in bytes {
            let Some(slot) = self.head.get_mut(usize::from(self.head_len)) else { break };
            *slot = *byte;
            self.head_len += 1;
            taken += 1;
            match self.parse_head() {
                Ok(false) => {}
                Ok(true) => break,
                Err(fault) => {
                    self.ending = Some(Ending::Fault(fault));
                    break;
                }
            }
        }
        taken
    }

    /// Says whether the head is complete, and if so begins the frame.
    fn parse_head(&mut self) -> Result<bool, Fault> {
        let [first, second, ..] = self.head;
        if self.head_len == 1 {
            self.check_first(first)?;
        }
        if self.head_len < 2 {
            return Ok(false);
        }
        if second & 0x80 == 0 {
            return Err(Fault::Malformed("a client's frame is masked"));
        }
        let (len, wanted) = match second & 0x7f {
            126 => (self.big_endian(2), 8),
            127 => (self.big_endian(8), 14),
            short => (u64::from(short), 6),
        };
        if self.head_len == 2 && first & 0x08 != 0 && len_is_extended(second) {
            return Err(Fault::Malformed("a control frame has at most 125 bytes"));
        }
        if self.head_len < wanted {
            return Ok(false);
        }
        self.begin_frame(first, len, usize::from(wanted))?;
        Ok(true)
    }

    /// FIN, RSV and opcode.
    fn check_first(&self, first: u8) -> Result<(), Fault> {
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(Fault::Malformed("no extension was agreed on"));
        }
        match first & 0x0f {
            0x0 if !self.in_message => Err(Fault::Malformed("a continuation continues nothing")),
            0x1 | 0x2 if self.in_message => Err(Fault::Malformed("a message begins inside another")),
            0x1 => Err(Fault::Text),
            0x0 | 0x2 => Ok(()),
            0x8..=0xa if fin => Ok(()),
            0x8..=0xa => Err(Fault::Malformed("a control frame is not fragmented")),
            _ => Err(Fault::Malformed("its opcode is reserved")),
        }
    }

    fn begin_frame(&mut self, first: u8, len: u64, head_len: usize) -> Result<(), Fault> {
        if len > super::MAX_FRAME {
            return Err(Fault::TooLong);
        }
        if let Some(mask) = head_len.checked_sub(4).and_then(|at| self.head.get(at..)?.first_chunk()) {
            self.mask = *mask;
        }
        self.kind = match first & 0x0f {
            0x8 => Kind::Close,
            0x9 => Kind::Ping,
            0xa => Kind::Pong,
            _ => Kind::Data,
        };
        if self.kind == Kind::Data {
            self.in_message = first & 0x80 == 0;
        }
        self.remaining = len;
        self.head_len = 0;
        if len == 0 {
            self.frame_done();
        }
        Ok(())
    }

    fn frame_done(&mut self) {
        let control = std::mem::take(&mut self.control);
        match self.kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping => self.ping = Some(control),
            Kind::Close => self.ending = Some(closing(&control)),
        }
    }

    /// The `n` bytes behind the first two, as a number.
    fn big_endian(&self, n: usize) -> u64 {
        self.head.iter().skip(2).take(n).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

fn len_is_extended(second: u8) -> bool {
    u64::from(second & 0x7f) > MAX_CONTROL
}

/// What a close frame's payload says (RFC 6455 sections 5.5.1 and 7.4).
fn closing(payload: &[u8]) -> Ending {
    let malformed = |why| Ending::Fault(Fault::Malformed(why));
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ending::Closed(None)
        } else {
            malformed("a close code has two bytes")
        };
    };
    if std::str::from_utf8(reason).is_err() {
        return malformed("a close reason is UTF-8");
    }
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ending::Closed(Some(code)),
        _ => malformed("its close code must not be sent"),
    }
}

/// Applies the mask and turns it, so that its first byte is for the first byte that follows.
fn unmask(payload: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*mask)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter()) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len());
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
