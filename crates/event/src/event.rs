//! The one event enum, and what an event says about itself.
//!
//! Owns: which facts an event carries. Does not own: how they are written ([`crate::json`], [`crate::avro`]) or on
//! which subject ([`crate::subject`]).

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arcstr::ArcStr;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::as_text;
use crate::{
    CommandId, CommandName, DeviceId, Epoch, IdError, IdentifiedBy, Incarnation, Initiator, InstanceName,
    Outcome, Reason, RefusedCause, ReplicaId, SessionId, TenantId, Transport, UnixMs,
};

/// Who publishes: the same for every event of one start of one gateway process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The name that all replicas share.
    pub instance: InstanceName,
    /// This process's name.
    pub replica: ReplicaId,
    /// This start of it.
    pub incarnation: Incarnation,
}

/// The stream that stores an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `LANDFALL_CONNECTIVITY`: presence and the gateway's own life.
    Connectivity,
    /// `LANDFALL_MESSAGES`: `message.*`.
    Messages,
    /// `LANDFALL_ACCESS`: who was turned away. Nobody's presence follows from it, so it has no fences.
    Access,
}

/// An event's unique id, which is also its `Nats-Msg-Id`. Never made of a protocol's packet id: those come again inside
/// the duplicate window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventId {
    /// `{session}.c.{seq}` or `{session}.m.{seq}`; `{session}.a.{seq}` is kept for events of access that are of one session.
    Session(SessionId, Stream, u64),
    /// `{incarnation}.g.{n}`: an event of no single session, numbered by its gateway.
    Gateway(Incarnation, u64),
    /// `{session}.w.{n}`: no event, but what the gateway keeps of a session's will; `n` tells what is kept at different times apart.
    Will(SessionId, u64),
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session, Stream::Connectivity, seq) => write!(f, "{session}.c.{seq}"),
            Self::Session(session, Stream::Messages, seq) => write!(f, "{session}.m.{seq}"),
            Self::Session(session, Stream::Access, seq) => write!(f, "{session}.a.{seq}"),
            Self::Gateway(incarnation, n) => write!(f, "{incarnation}.g.{n}"),
            Self::Will(session, n) => write!(f, "{session}.w.{n}"),
        }
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('.');
        let (Some(owner), Some(stream), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdError::NotEventId);
        };
        // Only the digits that Display writes: no sign, no leading zero.
        let n: u64 = number.parse().map_err(|_| IdError::NotEventId)?;
        if n.to_string() != number {
            return Err(IdError::NotEventId);
        }
        let owner = owner.parse()?;
        match stream {
            "c" => Ok(Self::Session(owner, Stream::Connectivity, n)),
            "m" => Ok(Self::Session(owner, Stream::Messages, n)),
            "a" => Ok(Self::Session(owner, Stream::Access, n)),
            "g" => Ok(Self::Gateway(owner, n)),
            "w" => Ok(Self::Will(owner, n)),
            _ => Err(IdError::NotEventId),
        }
    }
}

as_text!(EventId);

/// What holds for a whole session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// The device's application version; "" when unknown.
    pub app_version: ArcStr,
    /// Which of the device's sessions it is.
    pub identity: Identity,
    /// How the device reached the gateway.
    pub transport: Transport,
}

impl SessionInfo {
    /// The session.
    pub fn session(&self) -> SessionId {
        self.identity.session()
    }

    /// The session's place among all sessions of its device.
    pub fn epoch(&self) -> Epoch {
        self.identity.epoch()
    }
}

/// A session's id and epoch. They change together, once for each time that a gateway which was given up for dead announces
/// its live sessions anew: whoever reads or replaces them holds the lock that orders the session's events.
#[derive(Debug)]
pub struct Identity {
    high: AtomicU64,
    low: AtomicU64,
    epoch: AtomicU64,
}

impl Identity {
    /// The two together.
    pub fn new(session: SessionId, epoch: Epoch) -> Self {
        let (high, low) = session.halves();
        Self { high: AtomicU64::new(high), low: AtomicU64::new(low), epoch: AtomicU64::new(epoch.0) }
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        SessionId::of_halves(self.high.load(Ordering::Relaxed), self.low.load(Ordering::Relaxed))
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Puts another session in its place.
    pub fn replace(&self, session: SessionId, epoch: Epoch) {
        let (high, low) = session.halves();
        self.high.store(high, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
        self.epoch.store(epoch.0, Ordering::Relaxed);
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self::new(self.session(), self.epoch())
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (self.session(), self.epoch()) == (other.session(), other.epoch())
    }
}

impl Eq for Identity {}

/// Whatever holds the facts of a session: one that keeps more of it than an event tells.
pub trait Describe: fmt::Debug + Send + Sync {
    /// The facts.
    fn info(&self) -> &SessionInfo;
}

impl Describe for SessionInfo {
    fn info(&self) -> &SessionInfo {
        self
    }
}

/// An event's session. It shares what the caller holds, so that an event costs no copy of it and a session no second
/// allocation.
#[derive(Clone, Debug)]
pub struct SessionRef(Arc<dyn Describe>);

impl<T: Describe + 'static> From<Arc<T>> for SessionRef {
    fn from(session: Arc<T>) -> Self {
        Self(session)
    }
}

impl From<SessionInfo> for SessionRef {
    fn from(info: SessionInfo) -> Self {
        Self(Arc::new(info))
    }
}

impl Deref for SessionRef {
    type Target = SessionInfo;

    fn deref(&self) -> &SessionInfo {
        self.0.info()
    }
}

impl PartialEq for SessionRef {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// When something happened, under which id it is published, by whom.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// Who publishes.
    pub origin: &'a Origin,
    /// The event's id.
    pub id: EventId,
    /// When it happened.
    pub at: UnixMs,
}

/// Everything that Landfall publishes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A session has begun.
    Connected(Connected),
    /// One session has ended, or several at once.
    Disconnected(Disconnected),
    /// A session's device is heard from another address.
    Moved(Moved),
    /// A device went quiet as it had announced.
    Dormant(Dormant),
    /// A dormant device spoke again.
    Awake(Awake),
    /// A device sent a message.
    Upstream(Upstream),
    /// A command reached its one final outcome.
    Downstream(Downstream),
    /// Attempts were turned away.
    Refused(Refused),
    /// The gateway speaks of itself.
    Service(Service),
    /// Events were dropped.
    Dropped(Dropped),
}

/// `connectivity.connected`.
#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    /// The session that begins; its number in the connectivity stream is always 1.
    pub session: SessionRef,
    /// The protocol and its version: "MQTT/5.0", "MQTT/3.1.1", "CoAP".
    pub protocol: &'static str,
    /// What the protocol calls the device: the MQTT client id, the PSK identity.
    pub remote_id: Arc<str>,
    /// Where it connects from.
    pub remote_address: SocketAddr,
    /// What its identity rests on.
    pub identified_by: IdentifiedBy,
    /// The silence that ends the session; `None` when none does.
    pub keep_alive_ms: Option<u64>,
    /// True where the protocol has no connect.
    pub inferred: bool,
    /// MQTT's clean start; `None` where the protocol has no such word.
    pub clean_start: Option<bool>,
}

/// What passed through a session; bytes are payload bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages from the device.
    pub messages_in: u64,
    /// Messages to the device.
    pub messages_out: u64,
    /// Payload bytes from the device.
    pub bytes_in: u64,
    /// Payload bytes to the device.
    pub bytes_out: u64,
}

/// What a silence was measured against, where a session was ended because of the device's own habit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// The device's usual interval, in ms: the mean that was learned.
    pub interval_ms: u64,
    /// How long it had been silent, in ms.
    pub silent_ms: u64,
    /// How improbable that was: minus the decimal logarithm of the probability. On the wire 0 to 1000, in thousandths.
    pub phi: f64,
}

/// One session's end.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The session.
    pub session: SessionRef,
    /// Its number among the session's connectivity events.
    pub seq: u64,
    /// Why.
    pub reason: Reason,
    /// Who ended it.
    pub initiator: Initiator,
    /// True when the end was concluded from silence or from a dead gateway.
    pub inferred: bool,
    /// When the session began.
    pub connected_at: UnixMs,
    /// When the device was last heard.
    pub last_seen_at: Option<UnixMs>,
    /// When the session ended.
    pub at: UnixMs,
    /// What passed through it.
    pub counters: Option<Counters>,
    /// Why the silence counted as the end; `None` where neither device nor operator left it to the learned cadence.
    pub evidence: Option<Evidence>,
    /// The broken rule of a device that broke its protocol: a fixed text, nothing of which comes from the device. Only in an end that
    /// an event tells by itself, as every end is that a connection brings.
    pub detail: Option<Box<str>>,
}

/// `connectivity.disconnected`: never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnected {
    /// The sessions that ended.
    pub ended: Vec<Ended>,
}

/// `connectivity.moved`.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// The session, which goes on.
    pub session: SessionRef,
    /// Its number among the session's connectivity events.
    pub seq: u64,
    /// Where the device was heard before.
    pub from: SocketAddr,
    /// Where it is heard now.
    pub to: SocketAddr,
}

/// `connectivity.dormant`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dormant {
    /// The session, which goes on.
    pub session: SessionRef,
    /// Its number among the session's connectivity events.
    pub seq: u64,
    /// How long the device said that it would sleep, in ms.
    pub sleep_ms: u64,
    /// When the session ends unless the device is heard before: the sleep and then its usual silence.
    pub wake_by: UnixMs,
}

/// `connectivity.awake`.
#[derive(Clone, Debug, PartialEq)]
pub struct Awake {
    /// The session, which goes on.
    pub session: SessionRef,
    /// Its number among the session's connectivity events.
    pub seq: u64,
    /// How long the device was dormant, in ms.
    pub dormant_ms: u64,
}

/// `message.upstream`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The session that sent it.
    pub session: SessionRef,
    /// Its number among the session's messages.
    pub seq: u64,
    /// MQTT topic or CoAP path (segments joined by "/"); "" where the protocol has none, and absent on the wire then.
    pub topic: Arc<str>,
    /// MQTT quality of service; `None` where the protocol has none.
    pub qos: Option<u8>,
    /// The device asked that it be retained.
    pub retain: bool,
    /// The gateway sends it in the device's name, as its will.
    pub will: bool,
    /// The content type that the device named.
    pub content_type: Option<Arc<str>>,
    /// MQTT 5 user properties, in order; empty where the protocol has none.
    pub properties: Vec<(Arc<str>, Arc<str>)>,
    /// What else an MQTT 5 PUBLISH says of itself, if it does.
    pub publish: Option<Box<PublishProperties>>,
    /// The payload, untouched.
    pub payload: Bytes,
}

/// What few MQTT 5 messages say, for whoever is to answer them or to keep them (MQTT 5.0, section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// Response Topic: where the device expects an answer.
    pub response_topic: Option<Arc<str>>,
    /// Correlation Data: what the answer is to bring with it.
    pub correlation_data: Option<Bytes>,
    /// Message Expiry Interval, in milliseconds.
    pub expiry_ms: Option<u64>,
    /// Payload Format Indicator 1: the payload is text in UTF-8.
    pub is_utf8: bool,
}

impl PublishProperties {
    /// Boxed, if anything is said at all.
    pub fn said(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// About how many bytes they are on the wire.
    pub fn weight(&self) -> usize {
        let topic = self.response_topic.as_ref().map_or(0, |topic| topic.len());
        // Written as Base64, it grows by a third.
        topic + self.correlation_data.as_ref().map_or(0, |data| data.len() / 3 * 4 + 4)
    }
}

/// `message.downstream`.
#[derive(Clone, Debug, PartialEq)]
pub struct Downstream {
    /// The device's tenant, as the command named it.
    pub tenant: TenantId,
    /// The device, as the command named it.
    pub device: DeviceId,
    /// The session that the command went to, and its number among that session's messages.
    pub session: Option<(SessionRef, u64)>,
    /// The command.
    pub command: CommandId,
    /// Its name.
    pub name: CommandName,
    /// What became of it.
    pub outcome: Outcome,
    /// From the command's arrival to its outcome.
    pub latency_ms: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// The device's answer.
    pub response: Option<Bytes>,
    /// The device's status of its answer, or a word on why the outcome is what it is.
    pub status: Option<Arc<str>>,
}

/// `access.refused`: attempts of one source with one cause, coalesced.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Why they were turned away.
    pub cause: RefusedCause,
    /// How they came.
    pub transport: Transport,
    /// Where the last of them came from.
    pub remote_address: SocketAddr,
    /// The device, where it had proved who it is.
    pub device: Option<(TenantId, DeviceId)>,
    /// What was wrong, in words of a closed set: [`crate::RefusedDetail`], or the rule of a protocol that was broken. Never of the
    /// other side's making.
    pub detail: Option<&'static str>,
    /// What the first of them that gave a name called itself, proven by nothing: at most [`Refused::MAX_CLAIM`] bytes.
    pub claimed: Option<Arc<str>>,
    /// How many of them gave another name.
    pub other_claims: u64,
    /// The first topic or filter that was denied: at most [`crate::MAX_TOPIC`] bytes.
    pub topic: Option<Arc<str>>,
    /// How many of them were denied another one.
    pub other_topics: u64,
    /// How many attempts this event stands for.
    pub count: u64,
    /// When the first of them came.
    pub first_at: UnixMs,
    /// When the last of them came.
    pub last_at: UnixMs,
}

impl Refused {
    /// The most bytes of a claimed name that are told.
    pub const MAX_CLAIM: usize = 128;
}

/// What a gateway says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// It has started and serves.
    Join,
    /// It still serves.
    KeepAlive,
    /// It has drained and is about to exit.
    Leave,
}

/// `service.lifecycle.{join|keep-alive|leave}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// What it says.
    pub kind: ServiceKind,
    /// The gateway's version.
    pub version: &'static str,
    /// Sessions open now.
    pub sessions: u64,
    /// When this incarnation started.
    pub started_at: UnixMs,
}

/// Messages that were dropped, by their numbers in their session, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The session.
    pub session: SessionId,
    /// The number of the first that was dropped.
    pub from: u64,
    /// The number of the last.
    pub to: u64,
}

/// `service.lifecycle.events-dropped`: a bound was met, and this is what was lost to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropped {
    /// Sessions that began and ended meanwhile, of which nothing is told: neither end, nor a message.
    pub sessions: u64,
    /// Messages of other sessions.
    pub messages: u64,
    /// Which those were, where their session can tell a reader.
    pub gaps: Vec<Gap>,
}

impl Event {
    /// The stream that stores the event.
    pub fn stream(&self) -> Stream {
        match self {
            Self::Upstream(_) | Self::Downstream(_) => Stream::Messages,
            Self::Connected(_)
            | Self::Disconnected(_)
            | Self::Moved(_)
            | Self::Dormant(_)
            | Self::Awake(_)
            | Self::Dropped(_)
            | Self::Service(_) => Stream::Connectivity,
            Self::Refused(_) => Stream::Access,
        }
    }
}
