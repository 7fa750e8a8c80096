//! The sessions and commands that an earlier start left in the store.
//!
//! Owns: reading them back, each command once. Does not own: the records (`record.rs`), what becomes of them (`sessions.rs`).

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use ahash::RandomState;
use landfall_event::{CommandId, DeviceId, Outcome, TenantId, UnixMs};
use landfall_hub::{Command, Hub, SessionStore, StoreError, StoredQueue, StoredSession, unix_now};
use parking_lot::Mutex;

use super::{DeviceKey, OfflineLimits, Queued, Sessions, Spot};
use crate::budget::Budget;
use crate::flights::{FlightRecord, Flying};
use crate::record::{QueuedCommand, SessionRecord};
use crate::shelf::{Entry, EntryCell, Shelf};

/// What tells one command from all others.
type CommandKey = (TenantId, DeviceId, CommandId, UnixMs);

fn command_key(command: &Command) -> CommandKey {
    (command.tenant.clone(), command.device.clone(), command.id.clone(), command.received_at)
}

impl Sessions {
    /// None yet. What an earlier start left comes with [`Sessions::restore`], before anybody is let in.
    pub fn new(hub: Arc<Hub>, store: Arc<dyn SessionStore>, limits: OfflineLimits) -> Self {
        Self {
            places: Mutex::default(),
            calendar: Mutex::default(),
            kept: AtomicUsize::new(0),
            limits,
            budget: Budget::new(limits.queue_bytes),
            hub,
            shelf: Shelf::new(store),
            knocks: Mutex::default(),
            knocked: tokio::sync::Notify::new(),
            me: OnceLock::new(),
        }
    }

    /// Reads the sessions and queues that an earlier start left in the store. Once, before anybody is let in.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn restore(&self) -> Result<(), StoreError> {
        let store = self.shelf.store();
        let (stored, queued) = (store.sessions().await?, store.queued().await?);
        let flying = self.load_sessions(stored);
        self.load_queues(queued, flying);
        Ok(())
    }

    /// Returns the commands that are under way.
    fn load_sessions(&self, stored: Vec<StoredSession>) -> HashSet<CommandKey, RandomState> {
        let now = unix_now();
        let mut known = HashSet::default();
        for session in stored {
            let key = (session.tenant, session.device);
            match SessionRecord::decode(&session.state) {
                Ok(mut record) => {
                    let flying = self.load_flights(&key, std::mem::take(&mut record.flights));
                    known.extend(flying.iter().map(|flying| command_key(&flying.left.command)));
                    let place = self.place(&key);
                    self.park(&key, &mut place.spot.lock(), (record, now), (VecDeque::new(), flying));
                    self.set_kept(&place, true);
                }
                Err(error) => {
                    tracing::error!(tenant = ?key.0, device = ?key.1, %error, "a stored session cannot be read, dropped");
                    drop(self.shelf.write(&key, None));
                }
            }
        }
        known
    }

    fn load_flights(&self, (tenant, device): &DeviceKey, records: Vec<FlightRecord>) -> Vec<Flying> {
        let flying =
            records.into_iter().map(|record| record.flying(&self.hub, tenant.clone(), device.clone()));
        let read = flying.filter_map(|flying| {
            flying
                .inspect_err(|error| {
                    tracing::error!(?tenant, ?device, %error, "a command under way cannot be read, dropped");
                })
                .ok()
        });
        read.collect()
    }

    /// A command whose storing was not acknowledged may have been stored twice: its double is removed. So is one that had
    /// gone out, and was not removed yet.
    fn load_queues(&self, stored: Vec<StoredQueue>, mut known: HashSet<CommandKey, RandomState>) {
        for entry in stored {
            let cell = Arc::new(Mutex::new(Entry::Stored(entry.number)));
            match QueuedCommand::decode(&entry) {
                Ok(command) => {
                    if known.insert(command_key(&command)) {
                        self.requeue(Arc::new(command), cell);
                    } else {
                        self.shelf.dequeue(&cell);
                    }
                }
                Err(error) => {
                    tracing::error!(tenant = ?entry.tenant, device = ?entry.device, %error, "a queued command cannot be read, dropped");
                    self.shelf.dequeue(&cell);
                }
            }
        }
    }

    /// What was taken before the restart counts, and stays also where there is no room for it.
    fn requeue(&self, command: Arc<Command>, cell: EntryCell) {
        let Some(share) = self.budget.share(&command, true) else { return };
        let key = (command.tenant.clone(), command.device.clone());
        let queued = Queued { command, cell, _share: share };
        let place = self.places.lock().get(&key).cloned();
        match place.as_ref().map(|place| place.spot.lock()).as_deref_mut() {
            Some(Spot { lying: Some(lying), .. }) => {
                lying.queue.push_back(queued);
                self.reschedule(&key, lying);
            }
            _ => self.settle(&queued, Outcome::Failed, "session-discarded"),
        }
    }
}
