//! The NATS subjects and streams: the only place that forms or parses one.
//!
//! Owns: the layout `kaa.v1.…`, how a device's or tenant's id becomes one subject token, which subjects each stream
//! stores. Does not own: publishing or subscribing (`landfall-nats`).

use std::sync::Arc;

use crate::{
    DeviceId, Event, Incarnation, InstanceName, ReplicaId, ServiceKind, SessionId, Stream, TenantId,
};

/// Every event of every instance.
pub const WATCH_ALL: &str = "kaa.v1.events.>";

/// Subject filters of [`Stream::Connectivity`], for all instances.
const CONNECTIVITY: &[&str] = &[
    "kaa.v1.events.*.endpoint.connectivity.>",
    "kaa.v1.events.*.endpoint.lifecycle.>",
    "kaa.v1.events.*.endpoint.metadata.>",
    "kaa.v1.events.*.endpoint.config.>",
    "kaa.v1.events.*.service.>",
    "landfall.fence.connectivity.>",
    "landfall.will.>",
];

/// Subject filters of [`Stream::Messages`], for all instances.
const MESSAGES: &[&str] = &["kaa.v1.events.*.endpoint.message.>", "landfall.fence.messages.>"];

/// Subject filters of [`Stream::Access`], for all instances.
const ACCESS: &[&str] = &["kaa.v1.events.*.endpoint.access.>"];

/// The stream's name in JetStream. All instances share the streams.
pub const fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Connectivity => "LANDFALL_CONNECTIVITY",
        Stream::Messages => "LANDFALL_MESSAGES",
        Stream::Access => "LANDFALL_ACCESS",
    }
}

/// The subject filters that the stream binds: those of all instances.
pub const fn stream_subjects(stream: Stream) -> &'static [&'static str] {
    match stream {
        Stream::Connectivity => CONNECTIVITY,
        Stream::Messages => MESSAGES,
        Stream::Access => ACCESS,
    }
}

/// The subjects of one instance's events, formed once.
#[derive(Clone, Debug)]
pub struct Subjects {
    connected: Arc<str>,
    disconnected: Arc<str>,
    moved: Arc<str>,
    dormant: Arc<str>,
    awake: Arc<str>,
    upstream: Arc<str>,
    downstream: Arc<str>,
    refused: Arc<str>,
    join: Arc<str>,
    keep_alive: Arc<str>,
    leave: Arc<str>,
    dropped: Arc<str>,
}

impl Subjects {
    /// Forms the subjects of `instance`.
    pub fn new(instance: &InstanceName) -> Self {
        let form = |rest: &str| Arc::from(format!("kaa.v1.events.{instance}.{rest}"));
        Self {
            connected: form("endpoint.connectivity.connected"),
            disconnected: form("endpoint.connectivity.disconnected"),
            moved: form("endpoint.connectivity.moved"),
            dormant: form("endpoint.connectivity.dormant"),
            awake: form("endpoint.connectivity.awake"),
            upstream: form("endpoint.message.upstream"),
            downstream: form("endpoint.message.downstream"),
            refused: form("endpoint.access.refused"),
            join: form("service.lifecycle.join"),
            keep_alive: form("service.lifecycle.keep-alive"),
            leave: form("service.lifecycle.leave"),
            dropped: form("service.lifecycle.events-dropped"),
        }
    }

    /// The subject on which `event` is published.
    pub fn of(&self, event: &Event) -> Arc<str> {
        Arc::clone(match event {
            Event::Connected(_) => &self.connected,
            Event::Disconnected(_) => &self.disconnected,
            Event::Moved(_) => &self.moved,
            Event::Dormant(_) => &self.dormant,
            Event::Awake(_) => &self.awake,
            Event::Upstream(_) => &self.upstream,
            Event::Downstream(_) => &self.downstream,
            Event::Refused(_) => &self.refused,
            Event::Dropped(_) => &self.dropped,
            Event::Service(service) => match service.kind {
                ServiceKind::Join => &self.join,
                ServiceKind::KeepAlive => &self.keep_alive,
                ServiceKind::Leave => &self.leave,
            },
        })
    }

    /// The stream that stores `event`.
    pub fn stream_of(&self, event: &Event) -> Stream {
        event.stream()
    }
}

/// Where the stream stores the fences of one incarnation of a gateway: whoever holds the newest one of them may publish in
/// its name.
pub fn fence(stream: Stream, instance: &InstanceName, incarnation: &Incarnation) -> String {
    format!("{}.{instance}.{incarnation}", fence_root(stream))
}

/// Every fence of the instance in the stream.
pub fn fence_wildcard(stream: Stream, instance: &InstanceName) -> String {
    format!("{}.{instance}.*", fence_root(stream))
}

/// Reads the incarnation out of a fence's subject; `None` unless [`fence`] could have formed it.
pub fn parse_fence(stream: Stream, instance: &InstanceName, subject: &str) -> Option<Incarnation> {
    let rest = subject.strip_prefix(fence_root(stream))?.strip_prefix('.')?;
    rest.strip_prefix(instance.as_str())?.strip_prefix('.')?.parse().ok()
}

const fn fence_root(stream: Stream) -> &'static str {
    match stream {
        Stream::Connectivity => "landfall.fence.connectivity",
        Stream::Messages => "landfall.fence.messages",
        // No stream binds it.
        Stream::Access => "landfall.fence.access",
    }
}

/// Where [`Stream::Connectivity`] stores the will of a session, which an incarnation of a gateway owes.
pub fn will(instance: &InstanceName, incarnation: &Incarnation, session: &SessionId) -> String {
    format!("landfall.will.{instance}.{incarnation}.{session}")
}

/// Every will that the incarnation owes, or may owe yet.
pub fn will_wildcard(instance: &InstanceName, incarnation: &Incarnation) -> String {
    format!("landfall.will.{instance}.{incarnation}.*")
}

/// Reads the session out of a will's subject; `None` unless [`will`] could have formed it.
pub fn parse_will(subject: &str) -> Option<SessionId> {
    let mut tokens = subject.strip_prefix("landfall.will.")?.split('.').skip(1);
    let (incarnation, session) = (tokens.next()?, tokens.next()?);
    incarnation.parse::<Incarnation>().ok()?;
    if tokens.next().is_some() { None } else { session.parse().ok() }
}

/// The same will as another incarnation's; `None` unless [`will`] could have formed the subject.
pub fn will_of(subject: &str, incarnation: &Incarnation) -> Option<String> {
    let session = parse_will(subject)?;
    let instance = subject.strip_prefix("landfall.will.")?.split('.').next()?;
    Some(format!("landfall.will.{instance}.{incarnation}.{session}"))
}

/// The presence events of the instance: what its ledger is made of.
pub fn presence_wildcard(instance: &InstanceName) -> String {
    format!("kaa.v1.events.{instance}.endpoint.connectivity.*")
}

/// The key-value bucket of the replicas' leases, shared by all instances.
pub const LEASES_BUCKET: &str = "LANDFALL_LEASES";

/// The subject of a replica's lease in [`LEASES_BUCKET`].
pub fn lease_subject(instance: &InstanceName, replica: &ReplicaId) -> String {
    format!("$KV.{LEASES_BUCKET}.{}.{}", key_token(instance.as_str()), key_token(replica.as_str()))
}

/// The leases of all replicas of the instance.
pub fn lease_wildcard(instance: &InstanceName) -> String {
    format!("$KV.{LEASES_BUCKET}.{}.*", key_token(instance.as_str()))
}

/// The leases of all instances: what [`LEASES_BUCKET`] binds.
pub fn all_leases() -> String {
    format!("$KV.{LEASES_BUCKET}.>")
}

/// Reads instance and replica out of a lease's subject; `None` unless [`lease_subject`] could have formed it.
pub fn parse_lease_subject(subject: &str) -> Option<(InstanceName, ReplicaId)> {
    let keys = subject.strip_prefix("$KV.")?.strip_prefix(LEASES_BUCKET)?.strip_prefix('.')?;
    let (instance, replica) = keys.split_once('.')?;
    Some((parse_key_token(instance)?.parse().ok()?, parse_key_token(replica)?.parse().ok()?))
}

/// Keys have no `~`.
fn key_token(token: &str) -> String {
    token.replace('~', "=7E")
}

fn parse_key_token(token: &str) -> Option<String> {
    (!token.contains('~')).then(|| token.replace("=7E", "~"))
}

/// The key-value bucket of the checkpoints that keep a repair short, shared by all instances.
pub const CHECKPOINTS_BUCKET: &str = "LANDFALL_CHECKPOINTS";

/// The checkpoints of all incarnations: what [`CHECKPOINTS_BUCKET`] binds.
pub fn all_checkpoints() -> String {
    format!("$KV.{CHECKPOINTS_BUCKET}.>")
}

/// The subject of one part of an incarnation's checkpoint in [`CHECKPOINTS_BUCKET`].
pub fn checkpoint_subject(incarnation: &Incarnation, part: &str) -> String {
    format!("$KV.{CHECKPOINTS_BUCKET}.{incarnation}.{part}")
}

/// This part of every incarnation's checkpoint.
pub fn checkpoint_wildcard(part: &str) -> String {
    format!("$KV.{CHECKPOINTS_BUCKET}.*.{part}")
}

/// Reads the incarnation out of the subject of this part of its checkpoint; `None` unless [`checkpoint_subject`] could have formed it.
pub fn parse_checkpoint(subject: &str, part: &str) -> Option<Incarnation> {
    let rest = subject.strip_prefix("$KV.")?.strip_prefix(CHECKPOINTS_BUCKET)?.strip_prefix('.')?;
    rest.strip_suffix(part)?.strip_suffix('.')?.parse().ok()
}

/// What an event's subject says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSubject<'a> {
    /// Who published: an instance's name.
    pub instance: &'a str,
    /// Of what it speaks: `endpoint`, `service`.
    pub entity: &'a str,
    /// The group: `connectivity`, `message`, ...
    pub group: &'a str,
    /// The type: `connected`, ...; with further tokens where a publisher appends some.
    pub kind: &'a str,
}

/// Reads the subject of an event, also one of another publisher.
pub fn parse_event(subject: &str) -> Option<EventSubject<'_>> {
    let mut tokens = subject.strip_prefix("kaa.v1.events.")?.splitn(4, '.');
    let (instance, entity) = (tokens.next()?, tokens.next()?);
    let (group, kind) = (tokens.next()?, tokens.next()?);
    let whole = [instance, entity, group].iter().all(|token| !token.is_empty());
    (whole && kind.split('.').all(|token| !token.is_empty())).then_some(EventSubject {
        instance,
        entity,
        group,
        kind,
    })
}

/// True for a byte that stands for itself in a token.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'-')
}

/// Writes a text as one subject token: every byte outside `[A-Za-z0-9_~-]` becomes `%XX`. Two texts never meet in one
/// token. The empty text stays empty, which is no token: ids are never empty.
pub fn escape_token(text: &str) -> String {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            token.push('%');
            token.push(digit(byte >> 4));
            token.push(digit(byte & 0x0f));
        }
    }
    token
}

/// Reads what [`escape_token`] wrote, and nothing else: an escape of a byte that needs none, a lower-case digit, a byte
/// that should have been escaped or bytes that are no UTF-8 give `None`.
pub fn unescape_token(token: &str) -> Option<String> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut text = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if is_plain(byte) {
            text.push(byte);
        } else if byte == b'%' {
            let escaped = (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?;
            if is_plain(escaped) {
                return None;
            }
            text.push(escaped);
        } else {
            return None;
        }
    }
    String::from_utf8(text).ok()
}

/// The outcomes of commands to the instance's devices.
pub fn downstream_subject(instance: &InstanceName) -> String {
    format!("kaa.v1.events.{instance}.endpoint.message.downstream")
}

/// The messages of the instance's devices.
pub fn upstream_subject(instance: &InstanceName) -> String {
    format!("kaa.v1.events.{instance}.endpoint.message.upstream")
}

/// `{tenant}.{device}` as two tokens.
fn device_tokens(tenant: &TenantId, device: &DeviceId) -> String {
    format!("{}.{}", escape_token(tenant.as_str()), escape_token(device.as_str()))
}

/// Reads what [`device_tokens`] wrote.
fn parse_device(tokens: &str) -> Option<(TenantId, DeviceId)> {
    let (tenant, device) = tokens.split_once('.')?;
    Some((unescape_token(tenant)?.parse().ok()?, unescape_token(device)?.parse().ok()?))
}

/// The part of a request's subject behind `kaa.v1.service.{instance}.`.
fn service_call<'a>(instance: &InstanceName, subject: &'a str) -> Option<&'a str> {
    subject.strip_prefix("kaa.v1.service.")?.strip_prefix(instance.as_str())?.strip_prefix('.')
}

/// Where a command to the device is requested.
pub fn command_subject(instance: &InstanceName, tenant: &TenantId, device: &DeviceId) -> String {
    format!("kaa.v1.service.{instance}.command.{}", device_tokens(tenant, device))
}

/// Commands to every device of the instance.
pub fn command_wildcard(instance: &InstanceName) -> String {
    format!("kaa.v1.service.{instance}.command.*.*")
}

/// Reads the device out of a command's subject; `None` unless [`command_subject`] could have formed it.
pub fn parse_command(instance: &InstanceName, subject: &str) -> Option<(TenantId, DeviceId)> {
    parse_device(service_call(instance, subject)?.strip_prefix("command.")?)
}

/// What an operator asks of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCall {
    /// List the open sessions.
    Sessions,
    /// End the device's sessions.
    Kick {
        /// The device's tenant.
        tenant: TenantId,
        /// The device.
        device: DeviceId,
    },
}

/// Where an operator's call is requested.
pub fn admin_subject(instance: &InstanceName, call: &AdminCall) -> String {
    match call {
        AdminCall::Sessions => format!("kaa.v1.service.{instance}.admin.sessions"),
        AdminCall::Kick { tenant, device } => {
            format!("kaa.v1.service.{instance}.admin.kick.{}", device_tokens(tenant, device))
        }
    }
}

/// Every operator's call to the instance.
pub fn admin_wildcard(instance: &InstanceName) -> String {
    format!("kaa.v1.service.{instance}.admin.>")
}

/// Reads an operator's call; `None` unless [`admin_subject`] could have formed it.
pub fn parse_admin(instance: &InstanceName, subject: &str) -> Option<AdminCall> {
    let call = service_call(instance, subject)?.strip_prefix("admin.")?;
    if call == "sessions" {
        return Some(AdminCall::Sessions);
    }
    let (tenant, device) = parse_device(call.strip_prefix("kick.")?)?;
    Some(AdminCall::Kick { tenant, device })
}

/// The stream of the offline queues, shared by all instances.
pub const QUEUE_STREAM: &str = "LANDFALL_QUEUE";

/// Every device's offline queue, of all instances: what [`QUEUE_STREAM`] binds.
pub const QUEUE_ALL: &str = "landfall.queue.*.*.*";

/// The offline queues that earlier builds wrote without saying whose they are.
pub const QUEUE_NOBODYS: &str = "landfall.queue.*.*";

/// The key-value bucket of the stored sessions, shared by all instances.
pub const SESSIONS_BUCKET: &str = "LANDFALL_SESSIONS";

/// `service.lifecycle.join` of all instances.
pub const JOIN_ALL: &str = "kaa.v1.events.*.service.lifecycle.join";

/// `connectivity.connected` of all instances.
pub const CONNECTED_ALL: &str = "kaa.v1.events.*.endpoint.connectivity.connected";

/// Where the device's offline queue is stored.
pub fn queue_subject(instance: &InstanceName, tenant: &TenantId, device: &DeviceId) -> String {
    format!("landfall.queue.{instance}.{}", device_tokens(tenant, device))
}

/// Every offline queue of the instance.
pub fn queue_wildcard(instance: &InstanceName) -> String {
    format!("landfall.queue.{instance}.*.*")
}

/// Reads the device out of a queue's subject; `None` unless [`queue_subject`] could have formed it for the instance.
pub fn parse_queue(instance: &InstanceName, subject: &str) -> Option<(TenantId, DeviceId)> {
    parse_device(subject.strip_prefix("landfall.queue.")?.strip_prefix(instance.as_str())?.strip_prefix('.')?)
}

/// Reads the device out of a subject of [`QUEUE_NOBODYS`].
pub fn parse_nobodys_queue(subject: &str) -> Option<(TenantId, DeviceId)> {
    parse_device(subject.strip_prefix("landfall.queue.")?)
}

/// `{tenant}.{device}` as two tokens of a key. Keys have no `%` and no `~`: an escape begins with `=` there, and `~` is
/// escaped too.
fn device_key(tenant: &TenantId, device: &DeviceId) -> String {
    device_tokens(tenant, device).replace('%', "=").replace('~', "=7E")
}

/// Reads what [`device_key`] wrote.
fn parse_device_key(key: &str) -> Option<(TenantId, DeviceId)> {
    // A `%` or `~` that stands for itself was never written, so nothing else can become one here.
    if key.contains(['%', '~']) {
        return None;
    }
    // An escape has exactly two digits and `=` is itself escaped, so every `=7E` is a whole one.
    parse_device(&key.replace("=7E", "~").replace('=', "%"))
}

/// The key of the device's stored session in [`SESSIONS_BUCKET`].
pub fn session_key(instance: &InstanceName, tenant: &TenantId, device: &DeviceId) -> String {
    format!("{}.{}", key_token(instance.as_str()), device_key(tenant, device))
}

/// Reads the device out of a session's key; `None` unless [`session_key`] could have formed it for the instance.
pub fn parse_session_key(instance: &InstanceName, key: &str) -> Option<(TenantId, DeviceId)> {
    parse_device_key(key.strip_prefix(&key_token(instance.as_str()))?.strip_prefix('.')?)
}

/// Reads the device out of a session's key as earlier builds wrote it, without saying whose it is.
pub fn parse_nobodys_session_key(key: &str) -> Option<(TenantId, DeviceId)> {
    parse_device_key(key)
}

/// The subject filter of one key's entries in [`SESSIONS_BUCKET`], and of all with `key` = `>`.
pub fn session_subject(key: &str) -> String {
    format!("$KV.{SESSIONS_BUCKET}.{key}")
}

/// Every stored session of the instance.
pub fn session_wildcard(instance: &InstanceName) -> String {
    session_subject(&format!("{}.*.*", key_token(instance.as_str())))
}

/// Every stored session that earlier builds wrote without saying whose it is.
pub fn nobodys_sessions() -> String {
    session_subject("*.*")
}

/// Reads the key out of the subject of an entry of [`SESSIONS_BUCKET`].
pub fn parse_session_subject(subject: &str) -> Option<&str> {
    subject.strip_prefix("$KV.")?.strip_prefix(SESSIONS_BUCKET)?.strip_prefix('.')
}

#[cfg(test)]
mod tests;
