//! The packets of a client as the machine sees them: versions erased, no type of the codec.

use std::num::NonZeroU32;

use crate::action::Inbound;
use crate::{ConnectRequest, QoS};

/// A packet that a client may send after CONNECT.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP with its reason code; 0 on 3.1.1.
    Ack(AckKind, u16, u8),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingRequest,
    Disconnect(Disconnect),
}

/// A CONNECT: what the shell is asked about, and what only the machine needs.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) request: ConnectRequest,
    /// Enhanced authentication is asked for.
    pub(crate) has_auth_method: bool,
    pub(crate) problem_information: bool,
    pub(crate) receive_maximum: u16,
    /// `u32::MAX` when the client sets none.
    pub(crate) maximum_packet_size: u32,
}

/// A PUBLISH. The machine fills in the token, and the topic where only an alias came.
#[derive(Debug)]
pub(crate) struct Publish {
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    /// False: the topic of `message` is a placeholder, and the alias names the right one.
    pub(crate) has_topic: bool,
    pub(crate) alias: Option<u16>,
    pub(crate) message: Inbound,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    Ack,
    Rec,
    Rel,
    Comp,
}

#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) packet_id: u16,
    pub(crate) id: Option<NonZeroU32>,
    pub(crate) filters: Vec<Asked>,
}

#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
}

#[derive(Debug)]
pub(crate) struct Unsubscribe {
    pub(crate) packet_id: u16,
    pub(crate) filters: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Disconnect {
    pub(crate) code: u8,
    pub(crate) session_expiry: Option<u32>,
}
