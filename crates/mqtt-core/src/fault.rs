//! What a client did wrong, and what that is called towards the client, in a `disconnected` and in an `access.refused`.

use landfall_event::{Reason, RefusedCause};

use crate::guard;

/// A broken rule of the protocol, or a limit that the protocol has a code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The bytes cannot be read as a packet.
    Malformed,
    /// The packet is no packet for this moment, or contradicts itself.
    ProtocolError,
    /// Valid, and not served here.
    NotServed,
    /// A protocol name or level that is not served.
    UnsupportedVersion,
    /// An empty client id with a session to be kept (3.1.1).
    IdentifierRejected,
    /// Enhanced authentication by a method that is not served; none is.
    BadAuthenticationMethod,
    /// The device may not do that.
    NotAuthorized,
    /// A topic name with a wildcard, a control character, too many levels or too many bytes.
    TopicNameInvalid,
    /// More QoS 1 and 2 messages at once than the Receive Maximum.
    ReceiveMaximumExceeded,
    /// Topic alias 0, above the maximum, or never set.
    TopicAliasInvalid,
    /// A packet above the Maximum Packet Size.
    PacketTooLarge,
    /// More of something than its limit.
    QuotaExceeded,
    /// Declared as UTF-8 and is not.
    PayloadFormatInvalid,
    /// The message could not be stored and 3.1.1 has no word for that.
    NotStored,
}

impl Violation {
    /// The MQTT 5.0 reason code, for CONNACK and DISCONNECT alike (section 2.4).
    pub fn code(self) -> u8 {
        match self {
            Self::Malformed => 0x81,
            Self::ProtocolError => 0x82,
            Self::NotServed | Self::NotStored => 0x83,
            Self::UnsupportedVersion => 0x84,
            Self::IdentifierRejected => 0x85,
            Self::NotAuthorized => 0x87,
            Self::BadAuthenticationMethod => 0x8C,
            Self::TopicNameInvalid => 0x90,
            Self::ReceiveMaximumExceeded => 0x93,
            Self::TopicAliasInvalid => 0x94,
            Self::PacketTooLarge => 0x95,
            Self::QuotaExceeded => 0x97,
            Self::PayloadFormatInvalid => 0x99,
        }
    }

    /// The `disconnected` reason when it ends a session.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotAuthorized => Reason::NotAuthorized,
            _ => Reason::ProtocolError,
        }
    }

    /// The `access.refused` cause when there is no session yet.
    pub fn cause(self) -> RefusedCause {
        match self {
            Self::UnsupportedVersion => RefusedCause::UnsupportedVersion,
            Self::BadAuthenticationMethod => RefusedCause::BadCredentials,
            Self::NotAuthorized => RefusedCause::NotAuthorized,
            Self::PacketTooLarge | Self::QuotaExceeded | Self::ReceiveMaximumExceeded => {
                RefusedCause::LimitReached
            }
            _ => RefusedCause::Malformed,
        }
    }
}

/// The end of a connection by the client's own doing. The reply, where the version has one, is already in `out`: send it,
/// then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The broken rule.
    pub violation: Violation,
    /// Why the session ended, if there was one.
    pub reason: Reason,
    /// Why the attempt was refused, if there was no session yet.
    pub cause: RefusedCause,
    /// The kind of packet that broke it: CONNECT as long as there is no session, whatever came.
    pub packet: &'static str,
    /// What was wrong, in the field's terms; a fixed text, safe for a log.
    pub detail: &'static str,
}

impl Fault {
    /// Packet and rule in one text, of a closed set: nothing of it comes from the client.
    pub fn told(&self) -> String {
        format!("{}: {}", self.packet, self.detail)
    }
}

/// A violation with its explanation, inside the crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) violation: Violation,
    pub(crate) packet: &'static str,
    pub(crate) detail: &'static str,
}

impl Broken {
    /// A rule that CONNECT broke, unless [`Self::of`] names another packet.
    pub(crate) fn new(violation: Violation, detail: &'static str) -> Self {
        Self { violation, packet: "CONNECT", detail }
    }

    /// The same, broken by the packet that begins with this byte.
    pub(crate) fn of(self, first: u8) -> Self {
        Self { packet: guard::kind::name(first >> 4), ..self }
    }

    pub(crate) fn malformed(detail: &'static str) -> Self {
        Self::new(Violation::Malformed, detail)
    }

    pub(crate) fn protocol(detail: &'static str) -> Self {
        Self::new(Violation::ProtocolError, detail)
    }
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self {
            violation: broken.violation,
            reason: broken.violation.reason(),
            cause: broken.violation.cause(),
            packet: broken.packet,
            detail: broken.detail,
        }
    }
}
