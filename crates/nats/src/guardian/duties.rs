//! What is done at every look: those who are gone, the fences' age, the checkpoint, what was dropped.
//!
//! Owns: when each is due.

use std::sync::Arc;
use std::time::Duration;

use landfall_event::subject::stream_name;
use landfall_event::{Incarnation, Stream};
use landfall_hub::unix_now;
use tokio::time::{Instant, timeout};

use super::{Guardian, Marks};
use crate::checkpoint::{self, Entry};
use crate::desk::Failure;
use crate::fence::{self, STREAMS};
use crate::lease::{self, LOOKS};
use crate::publisher::Standing;

/// How long what was submitted may take to be stored, before a checkpoint is given up.
const CATCH_UP: Duration = Duration::from_secs(10);

impl Guardian {
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        if let Some(dropped) = self.bus.take_dropped() {
            self.hub.tell_dropped(dropped);
        }
        self.look_at_leases().await?;
        // The rest is for slower things, and takes its time.
        self.looks = self.looks.wrapping_add(1);
        if !self.looks.is_multiple_of(LOOKS) {
            return Ok(());
        }
        self.look_at_orphans().await?;
        if *self.bus.standing().borrow() == Standing::Publishing {
            self.look_at_fences().await?;
            self.look_at_checkpoint().await?;
        }
        Ok(())
    }

    /// Whose lease has ended.
    async fn look_at_leases(&mut self) -> Result<(), Failure> {
        let origin = self.origin();
        let leases = lease::all(&self.desk, &origin.instance).await?;
        let failed = self.desk.failed();
        let blind = std::mem::replace(&mut self.failed, failed) != failed;
        for lapsed in self.lookout.look(&leases, self.settings.lease_ttl, Instant::now(), blind) {
            if lapsed.replica != origin.replica {
                tracing::warn!(replica = %lapsed.replica, "its lease has ended");
                self.begin_repair(lapsed.claim.incarnation);
            }
        }
        Ok(())
    }

    /// Who has none, and was not closed.
    async fn look_at_orphans(&mut self) -> Result<(), Failure> {
        let (origin, now) = (self.origin(), Instant::now());
        let orphans = self.orphans_now().await?;
        self.orphans.retain(|known, _| orphans.contains(known));
        for orphan in orphans {
            let newest = fence::newest(&self.desk, Stream::Connectivity, &origin.instance, &orphan).await?;
            let place = newest.map_or(0, |(place, _)| place);
            let (since, seen) = *self.orphans.entry(orphan).or_insert((now, place));
            if seen != place {
                // Somebody repairs it.
                self.orphans.insert(orphan, (now, place));
            } else if now.duration_since(since) >= self.settings.lease_ttl {
                self.begin_repair(orphan);
            }
        }
        Ok(())
    }

    fn begin_repair(&mut self, dead: Incarnation) {
        if self.under_repair.insert(dead) {
            let (repairer, report) = (self.repairer(), self.reports.0.clone());
            self.scope.spawn(async move {
                let repaired = repairer.repair(dead).await;
                let _ = report.send((dead, repaired)).await;
            });
        }
    }

    /// Writes the fences again before a limit of a stream drops one.
    async fn look_at_fences(&mut self) -> Result<(), Failure> {
        let origin = self.origin();
        for stream in STREAMS {
            let found = self.desk.stream(stream_name(stream)).await?;
            let info = found.get_info().await.map_err(Failure::away)?;
            let (config, state) = (&info.config, &info.state);
            let Some((place, sign)) =
                fence::newest(&self.desk, stream, &origin.instance, &origin.incarnation).await?
            else {
                continue;
            };
            let age = Duration::from_millis(unix_now().saturating_sub(sign.at));
            let by_age = !config.max_age.is_zero() && age > config.max_age / 3;
            // The oldest go first, so what matters is how far from the oldest it stands once the stream is half full.
            let held = |now: u64, most: i64| u64::try_from(most).is_ok_and(|most| most > 0 && now > most / 2);
            let fills = held(state.bytes, config.max_bytes) || held(state.messages, config.max_messages);
            let older = place.saturating_sub(state.first_sequence);
            let is_old = older < state.last_sequence.saturating_sub(state.first_sequence) / 4;
            if age >= self.settings.fence_rests && (by_age || (fills && is_old)) {
                self.bus.renew_fences();
            }
        }
        Ok(())
    }

    /// Writes a checkpoint when a repair would otherwise read for long.
    async fn look_at_checkpoint(&mut self) -> Result<(), Failure> {
        let origin = self.origin();
        let behind = self.desk.newest_place(stream_name(Stream::Connectivity)).await?;
        let open = self.hub.session_count();
        if behind.saturating_sub(self.checkpoint.behind)
            < self.settings.checkpoint_after.max(open.saturating_mul(2))
            || !self.hub.is_ready()
        {
            return Ok(());
        }
        let open: Vec<Entry> = self.hub.open_sessions().into_iter().map(Entry::from).collect();
        let round = self.checkpoint.round + 1;
        let parts = checkpoint::write(&self.desk, &origin.incarnation, round, &open).await?;
        // Ends that were submitted before the list was made are not in it, so they must be stored before it counts.
        if !matches!(timeout(CATCH_UP, self.hub.caught_up()).await, Ok(Ok(())))
            // On disk is not stored.
            || self.bus.stats().kept > 0
            || !Arc::ptr_eq(&origin, &self.origin())
        {
            return Ok(());
        }
        checkpoint::commit(&self.desk, &origin.incarnation, (round, parts), behind).await?;
        tracing::debug!(sessions = open.len(), behind, "checkpoint");
        self.checkpoint = Marks { round, behind };
        Ok(())
    }
}
