//! `open`: a device is who it says it is. For the loopback interface only; the settings see to that.

use std::sync::Arc;

use landfall_event::{DeviceId, Family, IdentifiedBy, RefusedCause, TenantId, TopicFilter};
use landfall_hub::{Acl, AuthError, Authenticator, BoxFuture, Credentials, Principal, Secret};
use tokio::sync::watch;

/// Believes what a device calls itself, and allows all the same. Passwords, keys and signatures are not looked at.
#[derive(Debug)]
pub struct OpenAuth {
    tenant: TenantId,
    acl: Arc<Acl>,
    changes: watch::Sender<u64>,
}

/// `#`: everything but what begins with `$`.
fn every_topic() -> impl Iterator<Item = TopicFilter> {
    "#".parse().into_iter()
}

impl OpenAuth {
    /// Everybody who names no tenant is of the tenant `default`. Everybody may send to `topics`, and subscribe to them and to `#`.
    pub fn new(topics: &[TopicFilter]) -> Self {
        let subscribe = every_topic().chain(topics.iter().cloned()).collect();
        let acl = Arc::new(Acl { publish: topics.to_vec(), subscribe });
        Self { tenant: TenantId::default(), acl, changes: watch::Sender::new(0) }
    }

    fn believe(&self, credentials: &Credentials) -> Option<Principal> {
        Some(Principal {
            tenant: self.tenant(credentials)?,
            device: credentials.client_id.parse().ok()?,
            identified_by: Self::foundation(credentials),
            app_version: "".into(),
            acl: Arc::clone(&self.acl),
            keep_alive: None,
        })
    }

    /// Under DTLS a device with a certificate calls itself what that says; over MQTT it names itself in any case.
    fn foundation(credentials: &Credentials) -> IdentifiedBy {
        match (credentials.transport.family(), &credentials.certificate) {
            (Family::Coap | Family::Udp, Some(_)) => IdentifiedBy::Certificate,
            _ => IdentifiedBy::Anonymous,
        }
    }

    /// Over CoAP and UDP, what stands behind the device's name and `@`. An MQTT user name says nothing here.
    fn tenant(&self, credentials: &Credentials) -> Option<TenantId> {
        let named = match (credentials.transport.family(), &credentials.username) {
            (Family::Coap | Family::Udp, Some(name)) => name.strip_prefix(&*credentials.client_id)?,
            _ => "",
        };
        if named.is_empty() {
            return Some(self.tenant.clone());
        }
        named.strip_prefix('@')?.parse().ok()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Default for OpenAuth {
    fn default() -> Self {
        Self::new(&every_topic().collect::<Vec<_>>())
    }
}

impl Authenticator for OpenAuth {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let principal = self.believe(credentials).ok_or(AuthError::Refused(RefusedCause::Malformed));
        Box::pin(std::future::ready(principal))
    }

    /// Keys stand in the file of devices only.
    fn psk<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        let nobody = AuthError::Refused(RefusedCause::UnknownDevice);
        Box::pin(std::future::ready(Err(nobody)))
    }

    fn still_holds(&self, _: &TenantId, _: &DeviceId, _: &Arc<Acl>) -> bool {
        true
    }
}
