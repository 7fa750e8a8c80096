//! What the shell tells the machine: how a CONNECT, a SUBSCRIBE or a PUBLISH is answered, and why a connection ends.

use std::sync::Arc;

use landfall_event::{Reason, RefusedCause};

use crate::QoS;

/// How the client is let in. [`Default`] takes what the client asked for, within the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// The client id made for a client that sent none, at most 64 bytes; told to a 5.0 client [MQTT-3.1.3-7].
    pub assigned_client_id: Option<Arc<str>>,
    /// Seconds; the operator's keep-alive in place of the client's, whatever the limits say. 0: none.
    pub keep_alive: Option<u16>,
    /// Seconds; the most that the session may outlive the connection. `None`: what the limits say.
    pub session_expiry: Option<u32>,
    /// Random: under this a new session remembers what its QoS 2 messages were. A resumed one has its own.
    pub key: [u64; 2],
}

/// Why the client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 5.0: 0x86, 3.1.1: 4.
    BadCredentials,
    /// 5.0: 0x87, 3.1.1: 5.
    NotAuthorized,
    /// The client id cannot be used. 5.0: 0x85, 3.1.1: 2.
    IdentifierRejected,
    /// Not now: what the gateway needs is not there. 5.0: 0x88, 3.1.1: 3.
    ServerUnavailable,
    /// Not now: too much to do. 5.0: 0x89, 3.1.1: 3.
    ServerBusy,
    /// 5.0: 0x8A, 3.1.1: 5.
    Banned,
    /// 5.0: 0x97, 3.1.1: 3.
    QuotaExceeded,
    /// 5.0: 0x9C, 3.1.1: 3.
    UseAnotherServer,
    /// 5.0: 0x9F, 3.1.1: 3.
    ConnectionRateExceeded,
}

impl Refusal {
    /// The CONNACK reason code of 5.0 (section 3.2.2.2).
    pub fn code(self) -> u8 {
        match self {
            Self::IdentifierRejected => 0x85,
            Self::BadCredentials => 0x86,
            Self::NotAuthorized => 0x87,
            Self::ServerUnavailable => 0x88,
            Self::ServerBusy => 0x89,
            Self::Banned => 0x8A,
            Self::QuotaExceeded => 0x97,
            Self::UseAnotherServer => 0x9C,
            Self::ConnectionRateExceeded => 0x9F,
        }
    }

    /// The CONNACK return code of 3.1.1 (section 3.2.2.3).
    pub fn return_code(self) -> u8 {
        match self {
            Self::IdentifierRejected => 2,
            Self::BadCredentials => 4,
            Self::NotAuthorized | Self::Banned => 5,
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ConnectionRateExceeded => 3,
        }
    }
}

impl From<RefusedCause> for Refusal {
    /// An unknown device and a wrong password look the same from outside.
    fn from(cause: RefusedCause) -> Self {
        match cause {
            RefusedCause::BadCredentials | RefusedCause::UnknownDevice | RefusedCause::TlsFailed => {
                Self::BadCredentials
            }
            RefusedCause::NotAuthorized | RefusedCause::UnsupportedVersion => Self::NotAuthorized,
            RefusedCause::Malformed => Self::IdentifierRejected,
            RefusedCause::RateLimited => Self::ConnectionRateExceeded,
            RefusedCause::LimitReached => Self::QuotaExceeded,
        }
    }
}

/// The shell's word on one topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Up to this quality of service; more than was asked for is not granted.
    Granted(QoS),
    /// 5.0: 0x87.
    NotAuthorized,
    /// 5.0: 0x97.
    QuotaExceeded,
    /// 5.0: 0x83.
    NotServed,
    /// 5.0: 0x80.
    Failed,
}

/// Why a message of the client was not stored, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishFailure {
    /// The ACL forbids it. 5.0: 0x87.
    NotAuthorized,
    /// Too much, or too large for the store. 5.0: 0x97.
    QuotaExceeded,
    /// The topic is valid and not served. 5.0: 0x90.
    TopicNameInvalid,
    /// The payload is not what its topic asks for. 5.0: 0x99.
    PayloadFormatInvalid,
    /// The store refused it. 5.0: 0x83.
    NotStored,
}

impl PublishFailure {
    /// The PUBACK or PUBREC reason code.
    pub fn code(self) -> u8 {
        match self {
            Self::NotStored => 0x83,
            Self::NotAuthorized => 0x87,
            Self::TopicNameInvalid => 0x90,
            Self::QuotaExceeded => 0x97,
            Self::PayloadFormatInvalid => 0x99,
        }
    }
}

/// Why the gateway ends the connection; told to a 5.0 client in DISCONNECT (section 3.14.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectWhy {
    /// 0x80.
    Unspecified,
    /// 0x83.
    NotServed,
    /// 0x87.
    NotAuthorized,
    /// 0x89.
    ServerBusy,
    /// 0x8B.
    ServerShuttingDown,
    /// 0x8D.
    KeepAliveTimeout,
    /// 0x8E.
    SessionTakenOver,
    /// 0x96.
    MessageRateTooHigh,
    /// 0x97.
    QuotaExceeded,
    /// 0x98.
    AdministrativeAction,
    /// 0x9C.
    UseAnotherServer,
    /// 0xA0.
    MaximumConnectTime,
}

impl DisconnectWhy {
    /// The DISCONNECT reason code.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0x80,
            Self::NotServed => 0x83,
            Self::NotAuthorized => 0x87,
            Self::ServerBusy => 0x89,
            Self::ServerShuttingDown => 0x8B,
            Self::KeepAliveTimeout => 0x8D,
            Self::SessionTakenOver => 0x8E,
            Self::MessageRateTooHigh => 0x96,
            Self::QuotaExceeded => 0x97,
            Self::AdministrativeAction => 0x98,
            Self::UseAnotherServer => 0x9C,
            Self::MaximumConnectTime => 0xA0,
        }
    }
}

impl From<Reason> for DisconnectWhy {
    /// What a client is told when its session ends for `reason`.
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::KeepAliveTimeout | Reason::IdleTimeout => Self::KeepAliveTimeout,
            Reason::TakenOver => Self::SessionTakenOver,
            Reason::NotAuthorized | Reason::CredentialsRevoked => Self::NotAuthorized,
            Reason::CredentialsExpired | Reason::LifetimeExpired => Self::MaximumConnectTime,
            Reason::Kicked | Reason::Deregistered => Self::AdministrativeAction,
            Reason::RateLimited => Self::MessageRateTooHigh,
            Reason::SlowConsumer => Self::QuotaExceeded,
            Reason::GatewayDraining | Reason::GatewayLost => Self::ServerShuttingDown,
            Reason::ClientClosed
            | Reason::ConnectionLost
            | Reason::ProtocolError
            | Reason::NotAdmitted
            | Reason::SecureChannelClosed => Self::Unspecified,
        }
    }
}
