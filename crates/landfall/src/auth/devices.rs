//! `devices`: what a device shows is held against the file of devices.
//!
//! Owns: the order of the ways to prove oneself, the bound on verifications, following the file. Does not own: the file's
//! syntax (`super::file`), the comparison itself (`super::password`).

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use landfall_event::{DeviceId, IdentifiedBy, RefusedCause, TenantId, Transport};
use landfall_hub::{
    Acl, AuthError, Authenticator, BoxFuture, Credentials, PeerCertificate, Principal, Secret, Signature,
};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::file::{self, CertificateName, Device, Table};
use super::lanes::{Fill, Lane, Lanes, Source};
use super::password::{self, DigestKey, Memory, StoredPassword};
use crate::readable;
use crate::reloads::Reloads;
use crate::settings::Problems;

/// Between two looks at the file. A change is read when two looks in a row find the same, so that no half-written file is:
/// half a second at most, and well within the second in which a withdrawn device's sessions end.
const LOOK: Duration = Duration::from_millis(250);

/// The setting that names the file.
pub(crate) const DEVICES: &str = "auth.devices";

/// Knows the devices of a file.
#[derive(Debug)]
pub struct DevicesAuth {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    key: DigestKey,
    lanes: Arc<Lanes>,
    /// For the names of devices, in the lane of those whose address proves nothing.
    names: RandomState,
    changes: watch::Sender<u64>,
    /// What the file looked like when it was last read, well or not.
    read: watch::Sender<Look>,
}

/// What a look at the file finds, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Absent,
    Present { modified: SystemTime, length: u64, inode: u64 },
}

impl Look {
    fn at(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).map_or(Self::Absent, |found| Self::Present {
            modified: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            length: found.len(),
            inode: found.ino(),
        })
    }
}

impl DevicesAuth {
    /// Reads the file. At most `verifications` passwords are verified at once, and `waiting` wait for that.
    ///
    /// # Errors
    /// What is wrong with the file, with the lines.
    pub fn open(path: &Path, (verifications, waiting): (usize, usize)) -> Result<Self, Problems> {
        let look = Look::at(path);
        let table = file::read(path)?;
        warn_of_short_keys(&table);
        Ok(Self {
            path: path.to_owned(),
            table: RwLock::new(Arc::new(table)),
            key: DigestKey::random(),
            lanes: Lanes::new(verifications, waiting),
            names: RandomState::new(),
            changes: watch::Sender::new(0),
            read: watch::Sender::new(look),
        })
    }

    /// How many devices the file has.
    pub fn devices(&self) -> usize {
        self.table().len()
    }

    /// How full each lane of those is who wait for their password to be verified.
    pub(crate) fn lanes(&self) -> [(&'static str, Fill); 4] {
        self.lanes.fill()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read())
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// An entry's ACL is its own, and one that says the same keeps it over a reload: so the pointer is the entry's name.
    pub(super) fn still_valid(&self, tenant: &TenantId, device: &DeviceId, acl: &Arc<Acl>) -> bool {
        let table = self.table.read();
        table.device(tenant, device).is_some_and(|device| Arc::ptr_eq(&device.acl, acl))
    }

    pub(super) async fn run(&self, stop: CancellationToken, reloads: &Reloads) {
        let mut clock = tokio::time::interval(LOOK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = *self.read.borrow();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = clock.tick() => {}
            }
            let path = self.path.clone();
            let Ok(look) = tokio::task::spawn_blocking(move || Look::at(&path)).await else { return };
            let settled = look == last;
            last = look;
            if settled && look != *self.read.borrow() {
                self.reload(reloads).await;
                self.read.send_replace(look);
            }
        }
    }

    /// Reads the file again. One that is broken changes nothing.
    pub(super) async fn reload(&self, reloads: &Reloads) {
        let path = self.path.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || file::read(&path)).await else { return };
        let mut table = match read {
            Ok(table) => table,
            Err(problems) => {
                reloads.is_broken(DEVICES, &problems);
                for problem in &problems.0 {
                    tracing::error!(%problem, "the file of devices was not taken over; the devices of before stay valid");
                }
                return;
            }
        };
        reloads.is_taken(DEVICES);
        let withdrawn = table.inherit(&self.table());
        tracing::info!(devices = table.len(), withdrawn, "the file of devices was read again");
        warn_of_short_keys(&table);
        if let Some(text) = readable::open_to_others(DEVICES, &self.path) {
            tracing::warn!("{text}");
        }
        *self.table.write() = Arc::new(table);
        if withdrawn > 0 {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// From now on no password can be hashed.
    #[cfg(test)]
    pub(super) fn forbid_hashing(&self) {
        self.lanes.close();
    }

    /// Changes when the file has been read again, well or not.
    #[cfg(test)]
    pub(super) fn looks(&self) -> watch::Receiver<impl Sized + use<>> {
        self.read.subscribe()
    }

    async fn identify(&self, credentials: &Credentials) -> Result<Principal, AuthError> {
        let table = self.table();
        if let Some(device) = credentials.certificate.as_ref().and_then(|shown| by_certificate(&table, shown))
        {
            return Ok(principal(device, IdentifiedBy::Certificate));
        }
        let Some(name) = &credentials.username else {
            let unknown = credentials.certificate.is_some();
            let cause = if unknown { RefusedCause::UnknownDevice } else { RefusedCause::BadCredentials };
            return Err(AuthError::Refused(cause));
        };
        let device = table.user(name);
        let right = match (&credentials.signature, &credentials.password) {
            (Some(signature), _) => signed(device, signature),
            (None, Some(password)) => self.verify(&table, device, (credentials, password)).await?,
            (None, None) => false,
        };
        match device {
            None => Err(AuthError::Refused(RefusedCause::UnknownDevice)),
            Some(_) if !right => Err(AuthError::Refused(RefusedCause::BadCredentials)),
            Some(device) => {
                let principal = principal(device, IdentifiedBy::Password);
                // The file may have changed meanwhile.
                let valid = self.still_valid(&principal.tenant, &principal.device, &principal.acl);
                if valid { Ok(principal) } else { Err(AuthError::Refused(RefusedCause::BadCredentials)) }
            }
        }
    }

    /// Whoever is not known, and whoever has no key, is told from the others by nothing but the answer: one look each.
    fn key_of(&self, shown: &Credentials) -> Result<(Secret, Principal), AuthError> {
        let table = self.table();
        let found = shown.username.as_ref().and_then(|name| table.identity(name));
        found
            .map(|(device, key)| (key.clone(), principal(device, IdentifiedBy::Psk)))
            .ok_or(AuthError::Refused(RefusedCause::UnknownDevice))
    }

    /// Is it this device's password? A no takes as long for a device that is not known, has no password, or has a plain one
    /// as for one whose hash has the file's costliest parameters.
    async fn verify(
        &self,
        table: &Table,
        device: Option<&Arc<Device>>,
        (credentials, shown): (&Credentials, &Secret),
    ) -> Result<bool, AuthError> {
        let decoy = table.decoy.clone();
        match device.and_then(|device| device.spec.password.as_ref().map(|stored| (device, stored))) {
            Some((_, StoredPassword::Plain(stored))) if self.key.equal(stored, shown.expose()) => {
                return Ok(true);
            }
            Some((device, StoredPassword::Argon2(_))) => {
                return self.verify_hash(device, (credentials, shown)).await;
            }
            _ => {}
        }
        if let Some(params) = decoy {
            let (shown, source) = (shown.clone(), host_of(credentials));
            let burn = move |memory: &mut Memory| password::burn(params, shown.expose(), memory);
            self.bounded((Lane::Unknown, source), burn).await?;
        }
        Ok(false)
    }

    async fn verify_hash(
        &self,
        device: &Arc<Device>,
        (credentials, shown): (&Credentials, &Secret),
    ) -> Result<bool, AuthError> {
        let digest = self.key.digest(shown.expose());
        if device.verified.get().is_some_and(|verified| password::same(verified, &digest)) {
            return Ok(true);
        }
        let place = self.place_of(device, credentials);
        let (device, shown) = (Arc::clone(device), shown.clone());
        let verify = move |memory: &mut Memory| {
            let Some(StoredPassword::Argon2(hash)) = &device.spec.password else { return false };
            let right = password::verify_argon2(hash, shown.expose(), memory);
            if right {
                device.verified.get_or_init(|| digest);
            }
            right
        };
        let right = self.bounded(place, verify).await?;
        if !right {
            if let (Lane::Known | Lane::Failing, source) = place {
                self.lanes.has_failed(source, Instant::now());
            }
            // Told no sooner than a name that is not known: how long that takes would tell which names are.
            let turn = self.lanes.enter(Lane::Unknown, host_of(credentials)).await;
            turn.ok_or(AuthError::Unavailable)?;
        }
        Ok(right)
    }

    /// Where this device's password waits to be verified.
    fn place_of(&self, device: &Device, credentials: &Credentials) -> (Lane, Source) {
        if matches!(credentials.transport, Transport::Coap | Transport::Udp) {
            let name = (device.spec.tenant.as_str(), device.spec.id.as_str());
            return (Lane::Unproven, Source::Name(self.names.hash_one(name)));
        }
        let host = host_of(credentials);
        (if self.lanes.is_failing(host) { Lane::Failing } else { Lane::Known }, host)
    }

    /// Runs what takes long on a thread of its own. The permit goes with it: a device that gives up frees no place early.
    async fn bounded<T: Send + 'static>(
        &self,
        (lane, source): (Lane, Source),
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let mut permit = self.lanes.enter(lane, source).await.ok_or(AuthError::Unavailable)?;
        let task = tokio::task::spawn_blocking(move || work(&mut permit.memory));
        task.await.map_err(|_| AuthError::Unavailable)
    }
}

fn host_of(credentials: &Credentials) -> Source {
    Source::host(credentials.remote_address.ip())
}

fn warn_of_short_keys(table: &Table) {
    let devices = table.short_keys();
    if devices > 0 {
        tracing::warn!(
            devices,
            "pre-shared keys of less than 16 bytes can be guessed by whoever records a handshake; make new ones with \
             `openssl rand -hex 16`"
        );
    }
}

/// Has this device signed it? Costs no argon2 and never waits; a device that is not known, or whose key is not at hand, takes
/// as long as a wrong signature.
fn signed(device: Option<&Arc<Device>>, signature: &Signature) -> bool {
    let stored = device.and_then(|device| device.spec.password.as_ref().map(|stored| (device, stored)));
    let key = match stored {
        Some((_, StoredPassword::Plain(key))) => Some(key.as_slice()),
        Some((device, StoredPassword::Argon2(_))) => {
            if !device.told_unsignable.swap(true, Ordering::Relaxed) {
                let (tenant, id) = (device.spec.tenant.as_str(), device.spec.id.as_str());
                tracing::warn!(
                    device = ?id,
                    ?tenant,
                    "a signed message was refused: the device's password is an argon2id hash, which verifies no signature; \
                     write its key as \"plain:...\" into the file of devices"
                );
            }
            None
        }
        None => None,
    };
    let right = password::has_signed(key.unwrap_or_default(), &signature.message, &signature.mac);
    right && key.is_some()
}

fn by_certificate<'a>(table: &'a Table, shown: &PeerCertificate) -> Option<&'a Arc<Device>> {
    let fingerprint = CertificateName::Fingerprint(shown.fingerprint.to_ascii_lowercase());
    let common_name = || shown.common_name.clone().map(CertificateName::CommonName);
    table.certificate(&fingerprint).or_else(|| table.certificate(&common_name()?))
}

fn principal(device: &Arc<Device>, identified_by: IdentifiedBy) -> Principal {
    Principal {
        tenant: device.spec.tenant.clone(),
        device: device.spec.id.clone(),
        identified_by,
        app_version: device.spec.app_version.as_str().into(),
        acl: Arc::clone(&device.acl),
        keep_alive: device.spec.keep_alive,
    }
}

impl Authenticator for DevicesAuth {
    fn still_holds(&self, tenant: &TenantId, device: &DeviceId, acl: &Arc<Acl>) -> bool {
        self.still_valid(tenant, device, acl)
    }

    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(self.identify(credentials))
    }

    fn psk<'a>(&'a self, shown: &'a Credentials) -> BoxFuture<'a, Result<(Secret, Principal), AuthError>> {
        Box::pin(std::future::ready(self.key_of(shown)))
    }
}
