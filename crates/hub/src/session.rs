//! One session as the hub holds it: its facts, its lane (the order of its events), its mailbox.
//!
//! Owns: the numbering of the session's messages and the commands under way. Does not own: when it begins and ends (the
//! tracker decides; `hub.rs` drives).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{CommandId, IdentifiedBy, Reason, SessionInfo, UnixMs};
use parking_lot::Mutex;

use crate::bus::Listener;
use crate::mailbox::Mailbox;
use crate::{Command, Principal, StoreError};

/// A message from a device, admitted and allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// MQTT topic or CoAP path.
    pub topic: Arc<str>,
    /// MQTT quality of service; `None` where the protocol has none.
    pub qos: Option<u8>,
    /// The device asked that it be retained.
    pub retain: bool,
    /// The content type that the device named.
    pub content_type: Option<Arc<str>>,
    /// MQTT 5 user properties.
    pub properties: Vec<(Arc<str>, Arc<str>)>,
    /// The payload.
    pub payload: Bytes,
}

/// What the gateway publishes in the device's name when the session ends without a goodbye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The message; its topic has been checked against the ACL.
    pub uplink: Uplink,
    /// How long after the end; a resumed session takes it back in that time. 0 publishes before `disconnected`.
    pub delay_ms: u64,
}

/// A command that has no outcome yet.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) command: Arc<Command>,
    pub(crate) attempts: u32,
    /// Its number in the router's list of expiries.
    pub(crate) expiry: u64,
}

/// The order of one session's events: whoever holds its lock numbers and submits.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Messages numbered so far.
    pub(crate) messages: u64,
    /// Set when `disconnected` has been submitted: nothing of this session follows it.
    pub(crate) ended: Option<Reason>,
    /// Its `connected` was refused for good, so it has no end to tell either.
    pub(crate) never_began: bool,
    pub(crate) will: Option<Box<Will>>,
    #[expect(
        clippy::box_collection,
        reason = "a session without commands, nearly all of them, pays one word"
    )]
    pub(crate) flights: Option<Box<HashMap<CommandId, Flight>>>,
}

impl Lane {
    pub(crate) fn next_message(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    /// Is a command of this id under way?
    pub(crate) fn is_under_way(&self, id: &CommandId) -> bool {
        self.flights.as_ref().is_some_and(|flights| flights.contains_key(id))
    }

    /// Puts a command under way; none of its id is.
    pub(crate) fn take_off(&mut self, command: Arc<Command>, expiry: u64) {
        let flights = self.flights.get_or_insert_default();
        flights.insert(command.id.clone(), Flight { command, attempts: 0, expiry });
    }

    /// The one place where a command stops being under way: whoever gets it settles it.
    pub(crate) fn land(&mut self, id: &CommandId) -> Option<Flight> {
        let flights = self.flights.as_mut()?;
        let flight = flights.remove(id);
        if flights.is_empty() {
            self.flights = None;
        }
        flight
    }

    pub(crate) fn flight(&mut self, id: &CommandId) -> Option<&mut Flight> {
        self.flights.as_mut()?.get_mut(id)
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) info: Arc<SessionInfo>,
    pub(crate) principal: Principal,
    pub(crate) protocol: &'static str,
    pub(crate) remote_id: Arc<str>,
    pub(crate) remote_address: SocketAddr,
    pub(crate) keep_alive_ms: Option<u64>,
    pub(crate) inferred: bool,
    pub(crate) clean_start: Option<bool>,
    pub(crate) opened_at: UnixMs,
    pub(crate) lane: Mutex<Lane>,
    pub(crate) mailbox: Mailbox,
}

impl Listener for Session {
    fn settled(&self, token: u64, result: Result<(), StoreError>) {
        self.mailbox.settled(token, result);
    }
}

impl Session {
    pub(crate) fn identified_by(&self) -> IdentifiedBy {
        self.principal.identified_by
    }
}
