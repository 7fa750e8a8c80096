//! Going on as another incarnation.
//!
//! Owns: the order of it. Each step may be cut off by the end of the process, and whoever comes next finds a state that it can
//! repair.

use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_event::{Incarnation, Origin};
use landfall_hub::unix_now;
use tokio::time::sleep;

use super::{Dismissed, Guardian, Held, Marks, begin};
use crate::desk::Failure;
use crate::lease;
use crate::publisher::{Resumption, Standing};

/// Between two tries while NATS does not answer.
const AGAIN: Duration = Duration::from_millis(500);

impl Guardian {
    /// This incarnation was given up for dead: the sessions that are open begin anew under the next one. Tries until it is
    /// done; `Some` when there is nothing to go on with.
    pub(super) async fn begin_anew(&mut self) -> Option<Dismissed> {
        let old = self.origin();
        let incarnation = Incarnation::new(unix_now(), rand::random());
        let new = Origin { incarnation, ..Origin::clone(&old) };
        loop {
            match self.is_replaced(&old, &new).await {
                Ok(true) => return Some(Dismissed::Replaced),
                Ok(false) => match self.reborn(&old, &new).await {
                    Ok(()) => return None,
                    Err(error) => tracing::warn!(%error, "not published anew yet"),
                },
                Err(error) => tracing::warn!(%error, "not published anew yet"),
            }
            sleep(AGAIN).await;
        }
    }

    async fn is_replaced(&self, old: &Origin, new: &Origin) -> Result<bool, Failure> {
        // An earlier try may have taken the lease for the new one.
        let ours = [old.incarnation, new.incarnation];
        let leases = lease::all(&self.desk, &old.instance).await?;
        // Whoever came later wrote behind our last word; what stands before it was removed, and a server that was killed may show
        // it again.
        let written = self.lease.revision.load(Ordering::Relaxed);
        let mut namesakes =
            leases.iter().filter(|lease| lease.replica == old.replica && lease.revision > written);
        Ok(namesakes.any(|lease| !ours.contains(&lease.claim.incarnation)))
    }

    async fn reborn(&mut self, old: &Origin, new: &Origin) -> Result<(), Failure> {
        // From here on nothing more of the old incarnation is stored, so what the bus finds out stays true.
        self.repairer().fence(old.incarnation).await?;
        self.surrender().await;
        // Whoever gave it up may have gone half-way; what it left is closed before anything of it begins again.
        let closed = match self.repairer().close_all(old.incarnation).await {
            Err(Failure::Conflict) => false,
            closed => closed.map(|_| true)?,
        };
        let _ = self.lease.end.send(true);
        let (lease, fences) = begin(&self.desk, new, self.settings.lease_ttl).await?;
        self.lease = Held::keep(lease, &self.scope, self.settings.lease_ttl);
        self.checkpoint = Marks { round: 0, behind: fences.connectivity.sequence() };
        let anew = self.hub.begin_anew(new.incarnation, |session| self.bus.unstored(session));
        tracing::warn!(
            sessions = anew.renewals.len(), incarnation = %new.incarnation,
            "this gateway counted as lost; its sessions begin anew"
        );
        self.bus.resume(Resumption { fences, anew });
        let mut standing = self.bus.standing();
        let _ = standing.wait_for(|standing| *standing == Standing::Publishing).await;
        if closed && let Err(error) = self.repairer().forget(old.incarnation).await {
            tracing::debug!(%error, "somebody else will forget the old incarnation");
        }
        Ok(())
    }

    async fn surrender(&self) {
        let mut standing = self.bus.standing();
        if *standing.borrow_and_update() != Standing::Surrendered {
            self.bus.surrender();
            let _ = standing.wait_for(|standing| *standing == Standing::Surrendered).await;
        }
    }
}
