//! What the tests of this crate share: an authenticator that lets everybody in, and who publishes.

use std::sync::Arc;

use landfall_event::{DeviceId, IdentifiedBy, Incarnation, Origin, RefusedCause, TenantId};
use landfall_hub::{Acl, AuthError, Authenticator, BoxFuture, Credentials, Principal, Secret};

/// Believes what a device calls itself, and allows everything but to `picky`, which may send `t` only.
#[derive(Debug)]
pub(crate) struct Anybody;

impl Authenticator for Anybody {
    fn authenticate<'a>(&'a self, c: &'a Credentials) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let all = || vec!["#".parse().unwrap()];
            let publish = if &*c.client_id == "picky" { vec!["t".parse().unwrap()] } else { all() };
            Ok(Principal {
                tenant: "default".parse().unwrap(),
                device: c.client_id.parse().unwrap(),
                identified_by: IdentifiedBy::Anonymous,
                app_version: "".into(),
                acl: Arc::new(Acl { publish, subscribe: all() }),
                keep_alive: None,
            })
        })
    }

    fn psk<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        Box::pin(async { Err(AuthError::Refused(RefusedCause::UnknownDevice)) })
    }

    fn still_holds(&self, _: &TenantId, _: &DeviceId, _: &Arc<Acl>) -> bool {
        true
    }
}

pub(crate) fn origin() -> Origin {
    Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: Incarnation::new(1, [7; 10]),
    }
}
