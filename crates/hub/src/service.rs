//! What the gateway says of itself on `service.lifecycle.*`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_event::{Event, Service, ServiceKind, UnixMs};
use landfall_net::Scope;
use tokio::sync::oneshot;

use crate::{Hub, Receipt, StoreError};

impl Hub {
    /// Says one thing; the receiver is told when it is stored.
    pub(crate) fn say(&self, kind: ServiceKind) -> oneshot::Receiver<Result<(), StoreError>> {
        let (receipt, stored) = Receipt::once();
        let event = Event::Service(Service {
            kind,
            version: self.config.version,
            sessions: self.session_count(),
            started_at: self.started_at(),
        });
        self.submit(self.gateway_event_id(), self.clock.unix(), &event, receipt);
        stored
    }

    fn started_at(&self) -> UnixMs {
        self.clock.unix().saturating_sub(self.clock.tick())
    }

    /// Announces this incarnation (`join`), and says in `scope` every `service_interval` that it still serves.
    /// Returns when `join` is stored.
    ///
    /// # Errors
    /// When the bus will not store it.
    pub async fn announce(self: &Arc<Self>, scope: &Scope) -> Result<(), StoreError> {
        self.announced.store(true, Ordering::Release);
        let joined = self.say(ServiceKind::Join).await.unwrap_or(Err(StoreError::Closed));
        let hub = Arc::clone(self);
        scope.spawn_until_cancelled(async move {
            let mut interval = tokio::time::interval(hub.config.service_interval);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval.tick().await;
            loop {
                interval.tick().await;
                if hub.is_draining() {
                    break;
                }
                // What it says is of that moment: nothing that should be told later.
                if !hub.bus.is_ready() {
                    continue;
                }
                // One at a time: while the bus is away, no second one is queued behind the first.
                let _ = hub.say(ServiceKind::KeepAlive).await;
            }
        });
        joined
    }
}
