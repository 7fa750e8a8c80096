//! Bytes to messages and back, strictly (RFC 7252, section 3).
//!
//! Owns: the only use of the codec crate, and the checks that it leaves out. Does not own: what a message means.
//!
//! The codec crate reads every version, a payload marker without a payload, Empty messages with a token or a body, and every
//! code; what section 3 and 4.1 call a format error is refused here.

use std::fmt;

use bytes::Bytes;
use coap_lite::error::MessageError;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet};

use crate::message::{Code, Kind, Message, Token};
use crate::options::Options;

/// The longest option value that is written: what the two extension bytes can say (section 3.1).
const MAX_OPTION: usize = 65_535;

/// The most options of a message that is read: each costs the codec far more than its bytes.
const MAX_OPTIONS: usize = 256;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Fewer than four bytes.
    Short,
    /// A version other than 1.
    Version,
    /// A token length of 9 to 15, or a token that is cut off.
    Token,
    /// An option whose number, length or value is reserved, too large or cut off; or more than 256 of them.
    Option,
    /// A payload marker without a payload.
    Marker,
    /// An Empty message with more than a header, or of type NON.
    Empty,
    /// A code of a reserved class (1, 6, 7), or one that its type cannot carry.
    Code,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than a header",
            Self::Version => "version is not 1",
            Self::Token => "token length",
            Self::Option => "option",
            Self::Marker => "payload marker without payload",
            Self::Empty => "empty message with contents",
            Self::Code => "reserved code",
        })
    }
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed {
    /// What is wrong.
    pub fault: Fault,
    /// The message id to send a reset to: the message says that it is confirmable (section 4.2).
    pub reset: Option<u16>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fault, f)
    }
}

impl std::error::Error for Malformed {}

/// Reads one datagram.
///
/// # Errors
///
/// What makes it a message format error. A message of another version is to be ignored silently (section 3), and so has no
/// id to reset.
pub fn decode(datagram: &[u8]) -> Result<Message, Malformed> {
    let &[first, code, high, low, ..] = datagram else {
        return Err(Malformed { fault: Fault::Short, reset: None });
    };
    if first >> 6 != 1 {
        return Err(Malformed { fault: Fault::Version, reset: None });
    }
    let (kind, code, id) = (kind(first), Code(code), u16::from_be_bytes([high, low]));
    let malformed = |fault| Malformed { fault, reset: (kind == Kind::Con).then_some(id) };
    check_code(kind, code, datagram.len()).map_err(malformed)?;
    if has_too_many_options(datagram) {
        return Err(malformed(Fault::Option));
    }
    let packet = Packet::from_bytes(datagram).map_err(|error| malformed(fault(&error)))?;
    // The marker is missed by reading on without it: only a marker can be taken away from the end of a message.
    if packet.payload.is_empty()
        && let Some((&0xFF, rest)) = datagram.split_last()
        && Packet::from_bytes(rest).is_ok()
    {
        return Err(malformed(Fault::Marker));
    }
    let token = Token::new(packet.get_token()).ok_or_else(|| malformed(Fault::Token))?;
    let mut options = Options::new();
    for (number, values) in packet.options() {
        values.iter().for_each(|value| options.push(*number, Bytes::copy_from_slice(value)));
    }
    Ok(Message { kind, id, token, code, options, payload: packet.payload.into() })
}

fn kind(first: u8) -> Kind {
    match first >> 4 & 0b11 {
        0 => Kind::Con,
        1 => Kind::Non,
        2 => Kind::Ack,
        _ => Kind::Rst,
    }
}

/// The code against the type and the length (sections 3, 4.1 to 4.3 and table 1).
fn check_code(kind: Kind, code: Code, length: usize) -> Result<(), Fault> {
    match (code, kind) {
        (Code::EMPTY, Kind::Non) => Err(Fault::Empty),
        (Code::EMPTY, _) if length != 4 => Err(Fault::Empty),
        (Code::EMPTY, _) => Ok(()),
        (_, Kind::Rst) => Err(Fault::Code),
        (code, Kind::Ack) if code.is_request() => Err(Fault::Code),
        (code, _) if matches!(code.class(), 1 | 6 | 7) => Err(Fault::Code),
        _ => Ok(()),
    }
}

/// Counts options by their lengths alone; where they are broken, the codec will say so.
fn has_too_many_options(datagram: &[u8]) -> bool {
    // A header and as many options of one byte are no less.
    if datagram.len() <= 4 + MAX_OPTIONS {
        return false;
    }
    let token = usize::from(datagram.first().map_or(0, |first| first & 0xF));
    let mut at = 4 + token;
    for _ in 0..=MAX_OPTIONS {
        let Some(&first) = datagram.get(at).filter(|first| **first != 0xFF) else { return false };
        let extension = |nibble: u8| match nibble {
            13 => 1,
            14 => 2,
            _ => 0,
        };
        let values = at + 1 + extension(first >> 4);
        let byte = |at: usize| datagram.get(at).copied().map_or(0, usize::from);
        let length = match first & 0xF {
            13 => 13 + byte(values),
            14 => 269 + (byte(values) << 8 | byte(values + 1)),
            short => usize::from(short),
        };
        at = values + extension(first & 0xF) + length;
    }
    true
}

fn fault(error: &MessageError) -> Fault {
    match error {
        MessageError::InvalidTokenLength => Fault::Token,
        _ => Fault::Option,
    }
}

/// Writes one message. Option values longer than the format can say are left out.
#[must_use]
pub fn encode(message: &Message) -> Bytes {
    let mut packet = Packet::new();
    packet.header.set_version(1);
    packet.header.set_type(match message.kind {
        Kind::Con => MessageType::Confirmable,
        Kind::Non => MessageType::NonConfirmable,
        Kind::Ack => MessageType::Acknowledgement,
        Kind::Rst => MessageType::Reset,
    });
    packet.header.code = MessageClass::from(message.code.0);
    packet.header.message_id = message.id;
    packet.set_token(message.token.as_bytes().to_vec());
    for (number, value) in message.options.iter().filter(|(_, value)| value.len() <= MAX_OPTION) {
        packet.add_option(CoapOption::from(number), value.to_vec());
    }
    packet.payload = message.payload.to_vec();
    // Without a limit nothing fails; no bytes at all would be a message that nobody can read.
    packet.to_bytes_unlimited().map(Bytes::from).unwrap_or_default()
}
