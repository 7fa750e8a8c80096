//! Who may connect, and as whom: the two modes of `auth.mode`.
//!
//! Owns: `open` (a device is who it says it is) and `devices` (a file says who is who), the file's reloading, and whether a
//! principal of earlier still holds. Does not own: what a listener does with an answer (`landfall-hub`, the listeners).

mod devices;
mod file;
mod lanes;
mod open;
mod password;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use landfall_event::{DeviceId, TenantId};
use landfall_hub::{Acl, AuthError, Authenticator, BoxFuture, Credentials, Principal, Secret};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::reloads::Reloads;
use crate::settings::{self, AuthMode, Problems};

pub use devices::DevicesAuth;
pub(crate) use lanes::Fill;
pub use open::OpenAuth;
pub(crate) use password::hash as hash_password;

/// The authenticator that the settings ask for.
#[derive(Debug)]
pub enum Auth {
    /// `auth.mode = "open"`.
    Open(OpenAuth),
    /// `auth.mode = "devices"`.
    Devices(DevicesAuth),
}

impl Auth {
    /// Makes the authenticator; reads the file of devices.
    ///
    /// # Errors
    /// What is wrong with the file of devices, with the lines.
    pub fn from_settings(settings: &settings::Auth) -> Result<Self, Problems> {
        match settings.mode {
            AuthMode::Open => Ok(Self::Open(OpenAuth::new(&settings.open_topics))),
            AuthMode::Devices => {
                let bounds = (settings.max_verifications, settings.max_waiting);
                DevicesAuth::open(&settings.devices, bounds).map(Self::Devices)
            }
        }
    }

    /// Would the same device be let in today as it was then? False once its entry is gone or differs in anything. Ask for
    /// every open session after each of [`Auth::changes`].
    pub fn still_valid(&self, tenant: &TenantId, device: &DeviceId, acl: &Arc<Acl>) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Devices(devices) => devices.still_valid(tenant, device, acl),
        }
    }

    /// How full each lane of those is who wait for their password to be verified; none where nobody waits.
    pub(crate) fn lanes(&self) -> Vec<(&'static str, Fill)> {
        match self {
            Self::Open(_) => Vec::new(),
            Self::Devices(devices) => devices.lanes().to_vec(),
        }
    }

    /// Changes whenever principals of before may no longer hold.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match self {
            Self::Open(open) => open.changes(),
            Self::Devices(devices) => devices.changes(),
        }
    }

    /// Follows the file of devices until `stop`. Nothing is reloaded without it. `reloads` is told what became of each reading.
    pub async fn run(&self, stop: CancellationToken, reloads: &Reloads) {
        match self {
            Self::Open(_) => stop.cancelled().await,
            Self::Devices(devices) => {
                reloads.follow(devices::DEVICES);
                devices.run(stop, reloads).await;
            }
        }
    }

    /// Reads the file of devices again, changed or not.
    pub async fn reload(&self, reloads: &Reloads) {
        match self {
            Self::Open(_) => {}
            Self::Devices(devices) => devices.reload(reloads).await,
        }
    }
}

impl Authenticator for Auth {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        match self {
            Self::Open(open) => open.authenticate(credentials),
            Self::Devices(devices) => devices.authenticate(credentials),
        }
    }

    fn psk<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        match self {
            Self::Open(open) => open.psk(shown),
            Self::Devices(devices) => devices.psk(shown),
        }
    }

    fn still_holds(&self, tenant: &TenantId, device: &DeviceId, acl: &Arc<Acl>) -> bool {
        self.still_valid(tenant, device, acl)
    }
}
