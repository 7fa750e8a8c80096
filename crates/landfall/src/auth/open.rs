//! `open`: a device is who it says it is. For the loopback interface only; the settings see to that.

use std::sync::Arc;

use landfall_event::{IdentifiedBy, RefusedCause, TenantId};
use landfall_hub::{Acl, AuthError, Authenticator, BoxFuture, Credentials, Principal};
use tokio::sync::watch;

use super::default_tenant;

/// Believes the client id and allows everything.
#[derive(Debug)]
pub struct OpenAuth {
    tenant: TenantId,
    acl: Arc<Acl>,
    changes: watch::Sender<u64>,
}

impl OpenAuth {
    /// Everybody is of the tenant `default`.
    pub fn new() -> Self {
        let all: Vec<_> = "#".parse().into_iter().collect();
        let acl = Arc::new(Acl { publish: all.clone(), subscribe: all });
        Self { tenant: default_tenant(), acl, changes: watch::Sender::new(0) }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Default for OpenAuth {
    fn default() -> Self {
        Self::new()
    }
}

impl Authenticator for OpenAuth {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let device = credentials.client_id.parse().map_err(|_| AuthError::Refused(RefusedCause::Malformed));
        Box::pin(std::future::ready(device.map(|device| Principal {
            tenant: self.tenant.clone(),
            device,
            identified_by: IdentifiedBy::Anonymous,
            app_version: "".into(),
            acl: Arc::clone(&self.acl),
            keep_alive: None,
        })))
    }

    fn still_holds(&self, _: &Principal) -> bool {
        true
    }
}
