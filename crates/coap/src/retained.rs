//! Observers of devices that fell silent: kept for the device's next session, as the commands that wait for it are.
//!
//! Owns: which they are, on one socket, and who gives way when there is no room for another. Does not own: what is sent to an
//! observer (`commands.rs`).
//!
//! A device that is heard again by another request than a registration believes that it observes still: it was told nothing
//! else. So it does.

use std::collections::{BTreeMap, HashMap};

use landfall_channel::Via;
use landfall_coap_core::ObservationId;
use landfall_event::{Family, Reason};
use landfall_hub::PeerHandle;

use crate::commands::Observer;
use crate::door::Door;
use crate::stray::{DeviceKey, device_key};

/// The observers that are kept; bounded by the observations of the socket, of whom they are the first to go.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_device: HashMap<DeviceKey, Observer, ahash::RandomState>,
    /// Oldest registration first.
    by_age: BTreeMap<ObservationId, DeviceKey>,
}

impl Retained {
    fn take(&mut self, device: &DeviceKey) -> Option<Observer> {
        let observer = self.by_device.remove(device)?;
        self.by_age.remove(&observer.id);
        Some(observer)
    }

    /// Returns the one before.
    fn put(&mut self, device: DeviceKey, observer: Observer) -> Option<Observer> {
        let before = self.take(&device);
        self.by_age.insert(observer.id, device.clone());
        self.by_device.insert(device, observer);
        before
    }
}

impl Door {
    /// A session is over. Whether its observer is kept depends on how it ended: only silence leaves the device in the belief
    /// that it observes.
    pub(crate) fn part_with(&mut self, peer: &PeerHandle, mut observer: Observer) {
        self.observed.remove(&observer.id);
        if !matches!(peer.end_reason(), Some(Reason::IdleTimeout | Reason::LifetimeExpired)) {
            return self.endpoint.unobserve(observer.id);
        }
        // What is on its way goes out again with the device's next word.
        self.endpoint.recall(observer.id);
        (observer.note, observer.doubted) = (None, None);
        let device = device_key(peer);
        self.server.strays.retain(device.clone(), self.number);
        if let Some(before) = self.retained.put(device, observer) {
            self.endpoint.unobserve(before.id);
        }
        // It may have been faster than the news of its silence.
        if let Some(peer) = self.server.hub.peer(peer.tenant(), peer.device(), Family::Coap)
            && !peer.is_over()
        {
            self.regain_here(&peer);
        }
    }

    /// A device begins a session: it observes as before.
    pub(crate) fn regain(&mut self, peer: &PeerHandle) {
        if self.server.strays.regain(peer, self.number) {
            self.regain_here(peer);
        }
    }

    /// The same for an observer of this socket.
    pub(crate) fn regain_here(&mut self, peer: &PeerHandle) {
        let device = device_key(peer);
        let Some(observer) = self.retained.take(&device) else { return };
        self.server.strays.forsake(&device, self.number);
        let id = observer.id;
        if peer.transport() != self.transport() || !self.take_in(peer, observer) {
            self.endpoint.unobserve(id);
            return self.tidy(peer);
        }
        self.observed.insert(id, peer.id());
        self.give_up_if_over(peer);
        self.send_commands_here(peer);
    }

    /// An observation that is kept is over.
    pub(crate) fn on_retained_ended(&mut self, observation: ObservationId, via: &Via) {
        if let Some(device) = self.retained.by_age.get(&observation).cloned() {
            tracing::debug!(remote = %via.path, "the observation of a silent device has ended");
            self.retained.take(&device);
            self.server.strays.forsake(&device, self.number);
        }
    }

    /// Before another observation: one of a silent device gives way where there is no room.
    pub(crate) fn make_room_to_observe(&mut self) {
        if self.endpoint.observations() < self.endpoint.limits().max_observations {
            return;
        }
        let oldest = self.retained.by_age.first_key_value().map(|(_, device)| device.clone());
        if let Some(device) = oldest
            && let Some(observer) = self.retained.take(&device)
        {
            self.server.strays.forsake(&device, self.number);
            self.endpoint.unobserve(observer.id);
        }
    }
}
