//! What comes for a device that is away.
//!
//! Owns: whether it waits, and where. Does not own: what becomes of it (`sessions.rs`).

use std::sync::Arc;

use landfall_event::Outcome;
use landfall_hub::{Command, LeftCommand, NotKept, Offline};

use super::{LastOut, MAX_PAYLOAD, Sessions, is_subscribed};

impl Offline for Sessions {
    fn offer(&self, command: &Arc<Command>) -> Result<(), NotKept> {
        let key = (command.tenant.clone(), command.device.clone());
        let _last_out = LastOut(self, &key);
        let place = self.places.lock().get(&key).cloned().ok_or(NotKept::Absent)?;
        let mut spot = place.spot.lock();
        match spot.lying.as_ref().and_then(|lying| lying.session.as_ref()) {
            Some(left) if left.expires_at <= command.received_at => return Err(NotKept::Absent),
            Some(left) if !is_subscribed(&left.state, command) => return Err(NotKept::NotSubscribed),
            None if !spot.held => return Err(NotKept::Absent),
            _ => {}
        }
        if spot.lying.as_ref().is_some_and(|lying| lying.has(command)) {
            return Err(NotKept::Duplicate);
        }
        let waiting = spot.lying.as_ref().map_or(0, |lying| lying.queue.len());
        if waiting >= self.limits.queue_per_device || command.payload.len() > MAX_PAYLOAD {
            return Err(NotKept::Full);
        }
        let share = self.budget.share(command, false).ok_or(NotKept::Full)?;
        let queued = self.enter(command, share);
        let lying = spot.lying.get_or_insert_default();
        lying.queue.push_back(queued);
        self.reschedule(&key, lying);
        Ok(())
    }

    fn outlived(&self, left: Vec<LeftCommand>) {
        let Some(key) = left.first().map(|left| (left.command.tenant.clone(), left.command.device.clone()))
        else {
            return;
        };
        let _last_out = LastOut(self, &key);
        let place = self.places.lock().get(&key).cloned();
        if let Some(place) = place {
            let mut spot = place.spot.lock();
            if spot.held {
                return spot.lying.get_or_insert_default().left.extend(left);
            }
        }
        for left in &left {
            self.hub.settle_left(left, Outcome::Failed, Some("session-discarded"));
        }
    }
}
