//! One session as the hub holds it: its facts, its signs of life, its lane (the order of its events), its mailbox.
//!
//! Owns: the numbering of the session's events and the commands under way. Does not own: when it begins and ends (the
//! tracker decides; `hub.rs` drives).
//!
//! There may be a million of these: what few sessions have stands behind one pointer ([`Extra`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{
    CommandId, Connected, Describe, DeviceId, Event, IdentifiedBy, PublishProperties, Reason, SessionInfo,
    SessionRef, TenantId, UnixMs, Upstream,
};
use landfall_session::{Cadence, KeyRef, Terms, Tick, Tracked, Vitals};
use parking_lot::Mutex;

use crate::address::Address;
use crate::bus::Listener;
use crate::hub::Hello;
use crate::mailbox::Mailbox;
use crate::{Acl, Command, Post, StoreError, Unstored};

/// The protocol of a session, as `connected` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.
    Mqtt31,
    /// MQTT 3.1.1.
    Mqtt311,
    /// MQTT 5.0.
    Mqtt5,
    /// CoAP (RFC 7252).
    Coap,
    /// The `LF1` line in a datagram.
    Udp,
}

impl Protocol {
    /// Its name and version on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt31 => "MQTT/3.1",
            Self::Mqtt311 => "MQTT/3.1.1",
            Self::Mqtt5 => "MQTT/5.0",
            Self::Coap => "CoAP",
            Self::Udp => "UDP",
        }
    }
}

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
    /// What else an MQTT 5 PUBLISH says of itself.
    pub publish: Option<Box<PublishProperties>>,
    /// The payload.
    pub payload: Bytes,
}

impl Uplink {
    /// The event that it becomes.
    pub fn of(self, session: SessionRef, seq: u64, will: bool) -> Upstream {
        Upstream {
            session,
            seq,
            topic: self.topic,
            qos: self.qos,
            retain: self.retain,
            will,
            content_type: self.content_type,
            properties: self.properties,
            publish: self.publish,
            payload: self.payload,
        }
    }
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
    /// It was written, and whether it arrived is to be seen.
    pub(crate) is_unsure: bool,
    /// Its number in the router's list of expiries.
    pub(crate) expiry: u64,
}

/// A device that has announced sleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asleep {
    pub(crate) since: Tick,
    /// What silence does once it is awake.
    pub(crate) terms: Terms,
    /// `dormant` was published.
    pub(crate) told: bool,
}

/// What the gateway learns of a device's own rhythm.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) cadence: Cadence,
    /// The silence in force, in ms.
    pub(crate) silence_ms: u64,
}

/// The commands of a session that have no outcome yet.
#[derive(Debug, Default)]
struct Commands {
    flights: HashMap<CommandId, Flight>,
    /// Of those, what a listener with a [`Post`] has not taken yet, oldest first.
    unsent: VecDeque<Arc<Command>>,
}

/// What few sessions have.
#[derive(Debug, Default)]
struct Extra {
    /// What the protocol calls the device, where that is not its name.
    remote_id: Option<Arc<str>>,
    will: Option<Box<Will>>,
    commands: Option<Box<Commands>>,
    asleep: Option<Asleep>,
    learned: Option<Learned>,
}

impl Extra {
    fn is_empty(&self) -> bool {
        let Self { remote_id, will, commands, asleep, learned } = self;
        remote_id.is_none() && will.is_none() && commands.is_none() && asleep.is_none() && learned.is_none()
    }
}

/// How far a session's `connected` has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On its way to the store.
    #[default]
    Submitted,
    /// Stored.
    Begun,
    /// Refused for good, so the session has no end to tell either.
    NeverBegan,
}

/// News for a listener.
type Held = (Arc<Post>, u64, Result<(), StoreError>);

/// A session's beginning, and the news that waits for it. Its lock is taken last: a bus may tell at any moment.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    stage: Stage,
    #[expect(clippy::box_collection, reason = "nearly all sessions have begun, and pay one word")]
    held: Option<Box<Vec<Held>>>,
}

impl Beginning {
    /// Gives the news back when it can be told now, else keeps it until the beginning is settled.
    pub(crate) fn hold(&mut self, news: Held) -> Option<Held> {
        match self.stage {
            Stage::Begun => Some(news),
            Stage::NeverBegan => Some((news.0, news.1, Err(StoreError::Closed))),
            Stage::Submitted => {
                self.held.get_or_insert_default().push(news);
                None
            }
        }
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.stage == Stage::Begun
    }

    /// `connected` is stored, or never will be: what waited for that.
    pub(crate) fn settle(&mut self, result: &Result<(), StoreError>) -> Vec<Held> {
        self.stage = if result.is_ok() { Stage::Begun } else { Stage::NeverBegan };
        let held = self.held.take().into_iter().flat_map(|held| *held);
        held.map(|(post, token, news)| (post, token, result.clone().and(news))).collect()
    }
}

/// What is true or not of a session, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    /// The listener wants to hear of the end.
    Watched = 1,
    /// The listener knows that there are commands.
    Told = 2,
    /// What is under way outlives the session.
    Outlived = 4,
    /// It began with a clean start: what the device left before has ended.
    Clean = 8,
}

/// The order of one session's events: whoever holds its lock numbers and submits.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Messages numbered so far.
    messages: u64,
    /// Connectivity events numbered so far.
    presence: u32,
    /// Set when `disconnected` has been numbered: nothing of this session follows it.
    pub(crate) ended: Option<Reason>,
    flags: u8,
    /// Here and not beside the lane, where they would take eight bytes.
    pub(crate) protocol: Protocol,
    pub(crate) identified_by: IdentifiedBy,
    /// Where the device was last heard from.
    pub(crate) remote: Address,
    /// The listener that last heard it; `None` for a session with a mailbox of its own.
    pub(crate) post: Option<Arc<Post>>,
    /// The listener's own.
    pub(crate) memo: [u64; 2],
    extra: Option<Box<Extra>>,
}

impl Lane {
    pub(crate) fn new(protocol: Protocol, identified_by: IdentifiedBy, remote: Address) -> Self {
        Self {
            protocol,
            identified_by,
            messages: 0,
            presence: 0,
            ended: None,
            flags: 0,
            remote,
            post: None,
            memo: [0; 2],
            extra: None,
        }
    }

    pub(crate) fn next_message(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    /// Messages numbered so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The number of the session's next connectivity event; `connected` is 1.
    pub(crate) fn next_presence(&mut self) -> u64 {
        self.presence = self.presence.saturating_add(1);
        self.presence()
    }

    /// The number of the newest connectivity event.
    pub(crate) fn presence(&self) -> u64 {
        u64::from(self.presence)
    }

    /// Numbers what is not stored yet, and whatever comes, from a new `connected` on, which is number 1. Returns what the
    /// numbers of connectivity events and of messages are less than before.
    pub(crate) fn renumber(&mut self, unstored: Unstored) -> (u64, u64) {
        let presence = self.presence();
        let presence_less =
            unstored.presence.map_or(presence.saturating_sub(1), |first| first.saturating_sub(2));
        let messages_less = unstored.messages.map_or(self.messages, |first| first.saturating_sub(1));
        self.presence = u32::try_from(presence.saturating_sub(presence_less)).unwrap_or(u32::MAX);
        self.messages = self.messages.saturating_sub(messages_less);
        if let Some(asleep) = self.extra.as_mut().and_then(|extra| extra.asleep.as_mut())
            && unstored.presence.is_none()
        {
            // The new session was never told to sleep, so nobody is told that it wakes.
            asleep.told = false;
        }
        (presence_less, messages_less)
    }

    pub(crate) fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    pub(crate) fn set(&mut self, flag: Flag, on: bool) {
        if on { self.flags |= flag as u8 } else { self.flags &= !(flag as u8) }
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    fn commands(&mut self) -> Option<&mut Commands> {
        self.extra.as_mut()?.commands.as_deref_mut()
    }

    fn tidy(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        if extra.commands.as_ref().is_some_and(|commands| commands.flights.is_empty()) {
            extra.commands = None;
        }
        if extra.is_empty() {
            self.extra = None;
        }
    }

    pub(crate) fn set_will(&mut self, will: Option<Will>) {
        if will.is_some() || self.extra.is_some() {
            self.extra().will = will.map(Box::new);
            self.tidy();
        }
    }

    pub(crate) fn will(&self) -> Option<&Will> {
        self.extra.as_ref()?.will.as_deref()
    }

    pub(crate) fn will_mut(&mut self) -> Option<&mut Will> {
        self.extra.as_mut()?.will.as_deref_mut()
    }

    pub(crate) fn take_will(&mut self) -> Option<Will> {
        let will = self.extra.as_mut()?.will.take();
        self.tidy();
        will.map(|will| *will)
    }

    pub(crate) fn learned(&self) -> Option<&Learned> {
        self.extra.as_ref()?.learned.as_ref()
    }

    pub(crate) fn learned_mut(&mut self) -> Option<&mut Learned> {
        self.extra.as_mut()?.learned.as_mut()
    }

    pub(crate) fn set_learned(&mut self, learned: Option<Learned>) {
        if learned.is_some() || self.extra.is_some() {
            self.extra().learned = learned;
            self.tidy();
        }
    }

    pub(crate) fn fall_asleep(&mut self, asleep: Asleep) {
        self.extra().asleep = Some(asleep);
    }

    pub(crate) fn asleep(&self) -> Option<Asleep> {
        self.extra.as_ref()?.asleep
    }

    pub(crate) fn wake(&mut self) -> Option<Asleep> {
        let asleep = self.extra.as_mut()?.asleep.take();
        self.tidy();
        asleep
    }

    /// Is a command of this id under way?
    pub(crate) fn is_under_way(&self, id: &CommandId) -> bool {
        let commands = self.extra.as_ref().and_then(|extra| extra.commands.as_ref());
        commands.is_some_and(|commands| commands.flights.contains_key(id))
    }

    /// Puts a command under way; none of its id is.
    pub(crate) fn take_off(&mut self, command: Arc<Command>, expiry: u64) {
        let commands = self.extra().commands.get_or_insert_default();
        commands
            .flights
            .insert(command.id.clone(), Flight { command, attempts: 0, is_unsure: false, expiry });
    }

    /// The one place where a command stops being under way: whoever gets it settles it.
    pub(crate) fn land(&mut self, id: &CommandId) -> Option<Flight> {
        let commands = self.commands()?;
        let flight = commands.flights.remove(id);
        if flight.is_some() {
            commands.unsent.retain(|command| command.id != *id);
        }
        self.tidy();
        flight
    }

    /// All commands under way, as they stop being so, in the order in which they came: each with whether it waits for the
    /// listener.
    pub(crate) fn land_all(&mut self) -> Vec<(Flight, bool)> {
        let commands = self.extra.as_mut().and_then(|extra| extra.commands.take());
        self.tidy();
        let Some(commands) = commands else { return Vec::new() };
        let Commands { flights, unsent } = *commands;
        let waits = |flight: &Flight| unsent.iter().any(|command| command.id == flight.command.id);
        let mut all: Vec<_> = flights.into_values().map(|flight| (waits(&flight), flight)).collect();
        all.sort_by_key(|(_, flight)| flight.expiry);
        all.into_iter().map(|(waits, flight)| (flight, waits)).collect()
    }

    /// What is under way, with how often it was sent.
    pub(crate) fn under_way(&self) -> Vec<(Arc<Command>, u32)> {
        let commands = self.extra.as_ref().and_then(|extra| extra.commands.as_ref());
        let flights = commands.into_iter().flat_map(|commands| commands.flights.values());
        flights.map(|flight| (Arc::clone(&flight.command), flight.attempts)).collect()
    }

    pub(crate) fn flight(&mut self, id: &CommandId) -> Option<&mut Flight> {
        self.commands()?.flights.get_mut(id)
    }

    /// Lets a command that is under way wait for the listener.
    pub(crate) fn let_wait(&mut self, command: Arc<Command>, first: bool) {
        let unsent = &mut self.extra().commands.get_or_insert_default().unsent;
        if first { unsent.push_front(command) } else { unsent.push_back(command) }
    }

    /// The next command that waits for the listener.
    pub(crate) fn next_unsent(&mut self) -> Option<Arc<Command>> {
        self.commands()?.unsent.pop_front()
    }

    /// Commands that wait for the listener.
    pub(crate) fn unsent(&self) -> usize {
        let commands = self.extra.as_ref().and_then(|extra| extra.commands.as_ref());
        commands.map_or(0, |commands| commands.unsent.len())
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) info: SessionInfo,
    pub(crate) vitals: Vitals,
    pub(crate) acl: Arc<Acl>,
    pub(crate) lane: Mutex<Lane>,
    pub(crate) beginning: Mutex<Beginning>,
    /// Of a session with a task of its own; one without hears by its lane's post.
    pub(crate) mailbox: Option<Box<Mailbox>>,
}

impl Tracked for Session {
    fn key(&self) -> KeyRef<'_> {
        let SessionInfo { tenant, device, transport, .. } = &self.info;
        KeyRef { tenant, device, family: transport.family() }
    }

    fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}

impl Describe for Session {
    fn info(&self) -> &SessionInfo {
        &self.info
    }
}

impl Listener for Session {
    fn settled(&self, token: u64, result: Result<(), StoreError>) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.settled(token, result);
        }
    }
}

impl Session {
    /// A session that begins at `now`, in the tracker's time.
    pub(crate) fn new(info: SessionInfo, hello: Hello, mailbox: Option<Box<Mailbox>>, now: Tick) -> Self {
        let mut lane = Lane::new(hello.protocol, hello.principal.identified_by, hello.remote_address.into());
        if *hello.remote_id != *info.device.as_str() {
            lane.extra().remote_id = Some(hello.remote_id);
        }
        let (vitals, acl) = (Vitals::new(now), hello.principal.acl);
        Self { info, vitals, acl, lane: Mutex::new(lane), beginning: Mutex::default(), mailbox }
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.info.tenant
    }

    pub(crate) fn device(&self) -> &DeviceId {
        &self.info.device
    }

    pub(crate) fn stage(&self) -> Stage {
        self.beginning.lock().stage
    }

    /// `connected` was refused for good.
    pub(crate) fn never_began(&self) -> bool {
        self.stage() == Stage::NeverBegan
    }

    /// Its device does not connect: nobody but silence ends it.
    pub(crate) fn is_inferred(&self) -> bool {
        self.mailbox.is_none()
    }

    /// By the wall clock.
    pub(crate) fn opened_at(&self) -> UnixMs {
        self.info.session().began_at()
    }

    /// Its `connected`, whose number the caller gives.
    pub(crate) fn connected(
        self: &Arc<Self>,
        lane: &Lane,
        keep_alive_ms: Option<u64>,
        inferred: bool,
        clean_start: Option<bool>,
    ) -> Event {
        Event::Connected(Connected {
            session: Arc::clone(self).into(),
            protocol: lane.protocol.as_str(),
            remote_id: self.remote_id(lane),
            remote_address: lane.remote.into(),
            identified_by: lane.identified_by,
            keep_alive_ms,
            inferred,
            clean_start,
        })
    }

    pub(crate) fn remote_id(&self, lane: &Lane) -> Arc<str> {
        let other = lane.extra.as_ref().and_then(|extra| extra.remote_id.clone());
        other.unwrap_or_else(|| self.info.device.as_str().into())
    }
}
