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

    /// The bytes, for comparing only.
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

/// What a device showed.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// How it came.
    pub transport: Transport,
    /// Where from.
    pub remote_address: SocketAddr,
    /// What it calls itself: the MQTT client id, `ep`, the name in the `LF1` line.
    pub client_id: Arc<str>,
    /// MQTT user name.
    pub username: Option<Arc<str>>,
    /// MQTT password, CoAP or UDP key.
    pub password: Option<Secret>,
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
    /// The keep-alive that the operator set for it, over the device's own.
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
    /// Looks at what the device showed. May take its time: only this device waits.
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, AuthError>>;

    /// Does what was found out then still hold? Asked when a session has just begun: credentials may have been withdrawn
    /// while it was on its way.
    fn still_holds(&self, principal: &Principal) -> bool;
}
