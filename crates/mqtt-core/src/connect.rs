//! CONNECT and CONNACK: what a client must say first, and what it is answered.
//!
//! Owns: validation of CONNECT, the choice of the answer's form before the version is agreed, the properties of CONNACK.
//! Does not own: who the client is (the shell).

use std::sync::Arc;

use bytes::BytesMut;

use crate::encode::ConnAck;
use crate::fault::{Broken, Violation};
use crate::guard::{self, Header, PROTOCOL_BYTES, Protocol, kind};
use crate::packet::Connect;
use crate::session::{Session, Terms};
use crate::{Accept, ConnectRequest, Limits, Refusal, SessionState, Version, codec, encode};

/// Bytes of a 5.0 CONNACK that says yes or no and nothing more: who takes less hears nothing.
const BARE_SIZE: u32 = 5;

/// What a client must take that gives no client id: a CONNACK with the one that it is assigned, of up to 40 bytes.
const UNNAMED_SIZE: u32 = BARE_SIZE + 3 + 40;

/// What a reason string takes beside its text.
const REASON_HEAD: u32 = 3;

/// A CONNECT that waits for the shell's answer.
#[derive(Debug)]
pub(crate) struct Offer {
    version: Version,
    clean_start: bool,
    has_client_id: bool,
    keep_alive: u16,
    session_expiry: u32,
    problem_information: bool,
    receive_maximum: u16,
    maximum_packet_size: u32,
}

/// A CONNECT that is turned away before the shell is asked.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) broken: Broken,
    /// The form of the CONNACK; `None`: the connection is closed without one.
    reply: Option<Version>,
    /// The client may be told why in words.
    in_words: bool,
}

impl Rejected {
    /// Without a CONNACK: 3.1.1 has return codes for few things, and a stranger to MQTT would not read one.
    fn silent(broken: Broken) -> Self {
        Self { broken, reply: None, in_words: false }
    }

    fn told(broken: Broken, version: Version) -> Self {
        Self { broken, reply: Some(version), in_words: false }
    }

    /// Writes the CONNACK, if there is a code for it.
    pub(crate) fn answer(&self, out: &mut BytesMut) {
        match self.reply {
            Some(Version::V5) => {
                let reason = self.in_words.then_some(self.broken.detail);
                encode::connack_refusal(self.broken.violation.code(), reason, Version::V5, out);
            }
            Some(Version::V31 | Version::V311) => match self.broken.violation {
                Violation::UnsupportedVersion => encode::connack_refusal(1, None, Version::V311, out),
                Violation::IdentifierRejected => encode::connack_refusal(2, None, Version::V311, out),
                // Section 3.1.4 of 3.1.1: closed without CONNACK.
                _ => {}
            },
            None => {}
        }
    }
}

/// Reads the first packet; `None` when more bytes are needed. Each check looks at no more bytes than it needs, so where the
/// bytes are cut changes nothing.
pub(crate) fn read(
    input: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<(Offer, Box<ConnectRequest>)>, Rejected> {
    match input.first() {
        None => return Ok(None),
        Some(first) if first >> 4 != kind::CONNECT => {
            return Err(Rejected::silent(Broken::protocol("a first packet that is no CONNECT")));
        }
        Some(first) if first & 0x0F != 0 => {
            return Err(Rejected::silent(Broken::malformed("reserved flags that are not as reserved")));
        }
        Some(_) => {}
    }
    let Some(header) = guard::header(input).map_err(Rejected::silent)? else { return Ok(None) };
    let Some(version) = version(input, header)? else { return Ok(None) };
    if header.total()
        > usize::try_from(limits.max_connect_size.min(limits.max_packet_size)).unwrap_or(usize::MAX)
    {
        let broken = Broken::new(Violation::PacketTooLarge, "a CONNECT above the maximum size");
        return Err(Rejected::told(broken, version));
    }
    let Some(packet) = input.get(..header.total()) else { return Ok(None) };
    let notes = guard::connect(packet, header, version, limits).map_err(|b| Rejected::told(b, version))?;
    let connect =
        codec::decode_connect(input, header, version, notes).map_err(|b| Rejected::told(b, version))?;
    judge(&connect).map_err(|broken| {
        let words = u32::try_from(broken.detail.len()).unwrap_or(u32::MAX);
        let in_words = words.saturating_add(BARE_SIZE + REASON_HEAD);
        Rejected {
            broken,
            reply: (connect.maximum_packet_size >= BARE_SIZE).then_some(version),
            in_words: connect.problem_information && connect.maximum_packet_size >= in_words,
        }
    })?;
    Ok(Some((Offer::new(&connect), Box::new(connect.request))))
}

/// The version, as soon as the bytes tell it.
fn version(input: &BytesMut, header: Header) -> Result<Option<Version>, Rejected> {
    let wanted = header.length + header.remaining.min(PROTOCOL_BYTES);
    let Some(body) = input.get(header.length..wanted) else { return Ok(None) };
    match guard::protocol(body) {
        Protocol::Served(version) => Ok(Some(version)),
        Protocol::Unsupported(version) => {
            let broken = Broken::new(Violation::UnsupportedVersion, "a protocol level that is not served");
            Err(Rejected::told(broken, version))
        }
        Protocol::Unknown => {
            let broken = Broken::new(Violation::UnsupportedVersion, "a CONNECT of another protocol");
            Err(Rejected::silent(broken))
        }
    }
}

/// What is well-formed and still not taken.
fn judge(connect: &Connect) -> Result<(), Broken> {
    if connect.has_auth_method {
        return Err(Broken::new(Violation::BadAuthenticationMethod, "enhanced authentication is not served"));
    }
    if connect.maximum_packet_size < BARE_SIZE {
        return Err(Broken::new(Violation::NotServed, "a maximum packet size that no answer fits into"));
    }
    if connect.request.client_id.is_empty() && connect.maximum_packet_size < UNNAMED_SIZE {
        return Err(Broken::new(
            Violation::IdentifierRejected,
            "a maximum packet size that no assigned client id fits into",
        ));
    }
    Ok(())
}

impl Offer {
    fn new(connect: &Connect) -> Self {
        let request = &connect.request;
        Self {
            version: request.version,
            clean_start: request.clean_start,
            has_client_id: !request.client_id.is_empty(),
            keep_alive: request.keep_alive,
            session_expiry: request.session_expiry,
            problem_information: connect.problem_information,
            receive_maximum: connect.receive_maximum,
            maximum_packet_size: connect.maximum_packet_size,
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Lets the client in: CONNACK, then what a resumed session still has to send.
    pub(crate) fn accept(
        &self,
        accept: &Accept,
        state: Option<SessionState>,
        limits: &Limits,
        out: &mut BytesMut,
    ) -> Session {
        let state = state.filter(|_| !self.clean_start);
        let session_expiry =
            self.session_expiry.min(limits.max_session_expiry).min(accept.session_expiry.unwrap_or(u32::MAX));
        let mut terms = Terms {
            version: self.version,
            problem_information: self.problem_information,
            session_present: state.is_some(),
            keep_alive: accept.keep_alive.unwrap_or_else(|| bounded(self.keep_alive, limits.max_keep_alive)),
            session_expiry,
            asked_no_expiry: self.session_expiry == 0,
            receive_maximum: self.receive_maximum,
            told_receive_maximum: self.version.is_5(),
            maximum_packet_size: self.maximum_packet_size,
        };
        let assigned = accept.assigned_client_id.as_ref().map(Arc::as_ref);
        let mut ack = ConnAck {
            session_present: terms.session_present,
            session_expiry: (session_expiry != self.session_expiry).then_some(session_expiry),
            receive_maximum: Some(limits.receive_maximum.max(1)),
            maximum_packet_size: Some(limits.max_packet_size),
            assigned_client_id: assigned
                .filter(|id| !self.has_client_id && id.len() <= usize::from(u16::MAX)),
            topic_alias_maximum: limits.topic_alias_maximum,
            server_keep_alive: (terms.keep_alive != self.keep_alive).then_some(terms.keep_alive),
            no_shared_subscriptions: true,
            retain_available: true,
        };
        ack.shrink(self.maximum_packet_size);
        terms.told_receive_maximum &= ack.receive_maximum.is_some();
        encode::connack(&ack, self.version, out);
        let mut session = Session::new(terms, state.unwrap_or_default(), accept.key, limits);
        session.resume(out);
        session
    }

    pub(crate) fn refuse(&self, refusal: Refusal, out: &mut BytesMut) {
        let code = match self.version {
            Version::V31 | Version::V311 => refusal.return_code(),
            Version::V5 => refusal.code(),
        };
        encode::connack_refusal(code, None, self.version, out);
    }
}

/// A keep-alive within the bound: none, or a longer one, becomes the longest.
fn bounded(keep_alive: u16, max: u16) -> u16 {
    match (keep_alive, max) {
        (asked, 0) => asked,
        (0, max) => max,
        (asked, max) => asked.min(max),
    }
}
