//! Going on as another incarnation.
//!
//! Owns: the order of it. Each step may be cut off by the end of the process, and whoever comes next finds a state that it can
//! repair.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_event::{Incarnation, Origin, SessionId};
use landfall_hub::unix_now;
use tokio::time::sleep;

use super::{Dismissed, Guardian, Held, begin};
use crate::desk::Failure;
use crate::lease::{self, Claim, Found, Lease};
use crate::publisher::{Resumption, Standing};
use crate::repair::{Closed, Repairer};

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
            match self.reborn(&old, &new).await {
                Ok(None) => return Some(Dismissed::Replaced),
                Ok(Some(())) => return None,
                Err(error) => tracing::warn!(%error, "not published anew yet"),
            }
            sleep(AGAIN).await;
        }
    }

    /// True when another process has this replica's name by now.
    fn is_replaced(&self, found: &Found, ours: [Incarnation; 2]) -> bool {
        // Whoever came later wrote behind our last word; what stands before it was removed, and a server that was killed may show
        // it again.
        let written = self.lease.revision.load(Ordering::Relaxed);
        found.revision > written && !ours.contains(&found.claim.incarnation)
    }

    /// `None` when there is another process of this name.
    async fn reborn(&mut self, old: &Origin, new: &Origin) -> Result<Option<()>, Failure> {
        // An earlier try may have taken the lease for the new one.
        let ours = [old.incarnation, new.incarnation];
        let leases = lease::all(&self.desk, &old.instance).await?;
        let mut namesakes = leases.iter().filter(|lease| lease.replica == old.replica);
        if namesakes.any(|lease| self.is_replaced(lease, ours)) {
            return Ok(None);
        }
        // From here on nothing more of the old incarnation is stored, so what the bus finds out stays true. The fences are written
        // in the new one's name: the bus would take those of its own for its own.
        let repairer = Repairer { origin: new.clone(), ..self.repairer() };
        repairer.fence(old.incarnation).await?;
        self.surrender().await;
        // Whoever gave it up may have gone half-way. What it left is closed before anything of it begins again; a rival who is at it
        // is let be, and it is tried again.
        // Its own devices are there: what their connections leave goes on with them.
        let here: HashSet<SessionId> =
            self.hub.open_sessions().into_iter().map(|open| open.info.session()).collect();
        let Closed { count, fences: closed, owed } = repairer.close_all(old.incarnation, &here).await?;
        self.count_closed(count);
        let claim = Claim::new(new.incarnation, self.settings.lease_ttl);
        // All of that may have taken its time, and another process its place.
        let is_left = |found: &Found| self.is_replaced(found, ours);
        let lease = Lease::take_unless(&self.desk, &old.instance, &old.replica, claim, is_left).await?;
        let Some(lease) = lease else { return Ok(None) };
        let _ = self.lease.end.send(true);
        self.lease = Held::keep(lease, &self.scope, self.settings.lease_ttl);
        let (fences, checkpoint) = begin(&self.desk, new).await?;
        self.checkpoint = checkpoint;
        self.bus.is_checkpointed(self.bus.ledger().now(checkpoint.behind));
        // What the ledger knew of the old one is in `owed`, or somebody else's.
        let is_ours = |session| here.contains(&session) || self.bus.unstored(session).presence == Some(1);
        self.hub.forget_wills(is_ours);
        let anew = self.hub.begin_anew(new.incarnation, |session| self.bus.unstored(session));
        tracing::warn!(
            sessions = anew.renewals.len(), incarnation = %new.incarnation,
            "this gateway counted as lost; its sessions begin anew"
        );
        self.bus.resume(Resumption { fences, anew });
        let mut standing = self.bus.standing();
        // It may be fenced out again before this is looked at.
        let _ = standing.wait_for(|standing| *standing != Standing::Surrendered).await;
        repairer.take_over(owed).await?;
        if let Err(error) = repairer.forget(old.incarnation, &closed).await {
            tracing::debug!(%error, "somebody else will forget the old incarnation");
        }
        Ok(Some(()))
    }

    async fn surrender(&self) {
        let mut standing = self.bus.standing();
        if *standing.borrow_and_update() != Standing::Surrendered {
            self.bus.surrender();
            let _ = standing.wait_for(|standing| *standing == Standing::Surrendered).await;
        }
    }
}
