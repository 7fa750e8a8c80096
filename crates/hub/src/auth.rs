//! The seam to who may do what: a listener hands over what a device showed, and gets a principal or a refusal.
//!
//! Owns: the types of the question and of the answer. Does not own: an implementation (`landfall`: `open`, `devices`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_event::{DeviceId, IdentifiedBy, RefusedCause, TenantId, TopicFilter, Transport};

use crate::BoxFuture;

/// A secret of a device: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes, for comparing and as the key of a handshake only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's common name, if it has one.
    pub common_name: Option<String>,
    /// SHA-256 of the DER, lower-case hex.
    pub fingerprint: String,
}

/// A proof that the sender of a message knows the device's key without having told it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The bytes that were signed.
    pub message: Bytes,
    /// Their HMAC-SHA-256 under the device's key, as the device states it.
    pub mac: [u8; 32],
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(of {} bytes)", self.message.len())
    }
}

/// What a device showed.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// How it came.
    pub transport: Transport,
    /// Where from.
    pub remote_address: SocketAddr,
    /// What it calls itself: the MQTT client id, `ep`, the name in the `LF1` line (without a tenant).
    pub client_id: Arc<str>,
    /// Whose credential this is. Over MQTT the user name. Over CoAP and UDP what the device calls itself: `client_id`, or
    /// `client_id@tenant` where it names a tenant; `None` where it names neither itself nor a tenant, as under DTLS.
    pub username: Option<Arc<str>>,
    /// MQTT password, CoAP or UDP key.
    pub password: Option<Secret>,
    /// What it signed with its key.
    pub signature: Option<Signature>,
    /// Its certificate, verified against `client_ca`.
    pub certificate: Option<PeerCertificate>,
}

/// What a device may publish and subscribe to. `%d` in a filter is the device's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// Filters of topics (MQTT) and paths (CoAP) that it may send to.
    pub publish: Vec<TopicFilter>,
    /// Filters that cover what it may subscribe to.
    pub subscribe: Vec<TopicFilter>,
}

impl Acl {
    /// May the device publish to `topic`?
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|f| f.matches(topic))
    }

    /// May the device subscribe to `filter`: does one of its filters cover everything that `filter` matches?
    pub fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        self.subscribe.iter().any(|f| f.covers(filter))
    }

    /// May a message of `topic` go to the device? A subscription that was allowed once may outlive the right to it.
    pub fn may_receive(&self, topic: &str) -> bool {
        self.subscribe.iter().any(|f| f.matches(topic))
    }
}

/// Who a device turned out to be.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub device: DeviceId,
    /// What that rests on.
    pub identified_by: IdentifiedBy,
    /// Its application version; "" when unknown.
    pub app_version: Arc<str>,
    /// What it may do.
    pub acl: Arc<Acl>,
    /// The silence that the operator allows it: an MQTT keep-alive in the place of the device's own, or how long a CoAP or UDP
    /// device may be silent that announces nothing (no grace factor).
    pub keep_alive: Option<Duration>,
}

/// Why a device was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// For this cause.
    Refused(RefusedCause),
    /// It could not be found out now; the device may come back.
    Unavailable,
}

/// Decides who a device is.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// Looks at what the device showed. May take its time: only this device waits. A signature alone is found right or wrong
    /// at the first poll, so that a listener without a task per device can ask for it in passing.
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, AuthError>>;

    /// The key of a PSK identity (RFC 4279, section 2), and who it proves its holder to be. `shown.username` is the identity,
    /// `device` or `device@tenant`; `shown.client_id` is the same text. Whether the device has the key is found out by whoever
    /// asks. May take its time: only this device waits.
    ///
    /// # Errors
    /// [`RefusedCause::UnknownDevice`] where nobody has this identity, or whoever has it has no key.
    fn psk<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>>;

    /// Does what was found out then still hold? Asked in the moment in which a session begins: credentials may have been
    /// withdrawn while it was on its way. Never waits, and asks nothing of the hub.
    fn still_holds(&self, tenant: &TenantId, device: &DeviceId, acl: &Arc<Acl>) -> bool;
}
