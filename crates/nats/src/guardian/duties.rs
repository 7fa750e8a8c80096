//! What is done at every look: those who are gone, the fences' age, the checkpoint, what was dropped.
//!
//! Owns: when each is due.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use futures_util::FutureExt as _;
use landfall_event::subject::{self, stream_name};
use landfall_event::{Incarnation, Stream};
use landfall_hub::KeptWill;
use tokio::time::{Instant, timeout};

use super::{Guardian, Marks};
use crate::checkpoint::{self, Commit, Entry};
use crate::desk::Failure;
use crate::fence::{self, STREAMS};
use crate::lease::{self, LOOKS};
use crate::publisher::Standing;
use crate::turnover::Written;

/// How long what was submitted may take to be stored, before a checkpoint is given up.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Between two that are written because the ledger turns over: a stream that is made so small that it turns over faster is warned of.
const AT_LEAST: Duration = Duration::from_millis(50);

/// Messages behind a checkpoint that make another one worth its while where there are wills: a repair looks through them for
/// the number of each.
const MESSAGES_AFTER: u64 = 1_000_000;

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

    /// What the streams say of themselves: how much of them was written since, also by others, and whether a fence is among the older
    /// part of one that fills. The publisher itself counts what it writes, and does not wait for this.
    async fn look_at_fences(&mut self) -> Result<(), Failure> {
        let origin = self.origin();
        for stream in STREAMS {
            let Some(info) = self.desk.info(stream_name(stream)).await? else {
                tracing::warn!(
                    stream = stream_name(stream),
                    "the stream is gone: restore it, or start a gateway again to make it"
                );
                continue;
            };
            self.bus.limits().of(stream).note(&info);
            let (config, state) = (&info.config, &info.state);
            let newest = fence::newest(&self.desk, stream, &origin.instance, &origin.incarnation).await?;
            // One that is missing is put up again, before an event finds out.
            let place = newest.map_or(0, |(place, _)| place);
            // The oldest go first, so what matters is how far from the oldest it stands once the stream is half full.
            let held = |now: u64, most: i64| u64::try_from(most).is_ok_and(|most| most > 0 && now > most / 2);
            let fills = held(state.bytes, config.max_bytes) || held(state.messages, config.max_messages);
            let older = place.saturating_sub(state.first_sequence);
            let is_old = older < state.last_sequence.saturating_sub(state.first_sequence) / 4;
            if place == 0 || (fills && is_old) {
                self.bus.renew_fences();
            }
        }
        Ok(())
    }

    /// Writes a checkpoint because the ledger has turned over, if the last one is not of this very moment.
    pub(super) async fn keep_pace(&mut self) -> Result<(), Failure> {
        if self.checkpoint.tried.elapsed() < AT_LEAST {
            return Ok(());
        }
        self.checkpoint.tried = Instant::now();
        self.look_at_checkpoint().await
    }

    /// Writes a checkpoint when a repair would otherwise read for long, or when the ledger is about to discard what it would read.
    async fn look_at_checkpoint(&mut self) -> Result<(), Failure> {
        let origin = self.origin();
        let name = stream_name(Stream::Connectivity);
        let Some(info) = self.desk.info(name).await? else { return Err(Failure::Missing(name)) };
        self.bus.limits().of(Stream::Connectivity).note(&info);
        // Before the list is made: what is written later is read again.
        let mark = self.bus.ledger().now(info.state.last_sequence);
        if !self.hub.is_ready() || !self.is_checkpoint_due(&info).await? {
            return Ok(());
        }
        let hub = Arc::clone(&self.hub);
        let messages_behind = self.desk.newest_place(stream_name(Stream::Messages)).await?;
        let mut open = hub.open_sessions();
        let mut wills: Vec<KeptWill> =
            open.iter_mut().filter_map(|open| open.will.take()).map(|will| *will).collect();
        // Behind the sessions: one that ends meanwhile is in one of the two.
        wills.extend(hub.waiting_wills());
        let open: Vec<Entry> = open.into_iter().map(Entry::from).collect();
        // Ends that were submitted before the list was made are not in it, so they must be stored before it counts.
        let mut caught_up = Box::pin(hub.caught_up());
        let at_once = caught_up.as_mut().now_or_never();
        self.bus.let_through();
        let round = self.checkpoint.round + 1;
        let parts = checkpoint::write(&self.desk, &origin.incarnation, round, (&open, &wills)).await?;
        let caught_up = match at_once {
            Some(at_once) => at_once.is_ok(),
            None => matches!(timeout(CATCH_UP, caught_up).await, Ok(Ok(()))),
        };
        // On disk is not stored.
        if !caught_up || self.bus.stats().kept > 0 || !Arc::ptr_eq(&origin, &self.origin()) {
            return Ok(());
        }
        let (behind, replaces) = (mark.place, self.checkpoint.place);
        let commit = Commit { round, parts, behind, messages_behind, replaces };
        let place = match checkpoint::commit(&self.desk, &origin, commit).await {
            Err(Failure::Conflict) => return self.find_checkpoint().await,
            place => place?,
        };
        tracing::debug!(sessions = open.len(), wills = wills.len(), behind, "checkpoint");
        self.checkpoint =
            Marks { round, behind, messages_behind, place, at: Instant::now(), ..self.checkpoint };
        self.bus.is_checkpointed(mark);
        self.let_go_of_wills(behind).await
    }

    /// A checkpoint has them all, so the ledger need not keep them any more.
    async fn let_go_of_wills(&self, behind: u64) -> Result<(), Failure> {
        if !self.hub.keeps_wills() {
            return Ok(());
        }
        let origin = self.origin();
        let all = subject::will_wildcard(&origin.instance, &origin.incarnation);
        self.desk.purge_up_to(stream_name(Stream::Connectivity), &all, behind).await
    }

    async fn is_checkpoint_due(&self, info: &Info) -> Result<bool, Failure> {
        let (last, first, known) = (info.state.last_sequence, info.state.first_sequence, self.checkpoint);
        let open = self.hub.session_count();
        let is_far =
            last.saturating_sub(known.behind) >= self.settings.checkpoint_after.max(open.saturating_mul(2));
        let written = Written { age: known.at.elapsed(), ..self.bus.ledger().written(last) };
        let turned_over = self.bus.limits().of(Stream::Connectivity).is_due(written) && last != known.behind;
        // It was purged, cut, made again or restored: who is present stands in the checkpoint alone.
        let was_cut = self.bus.ledger().take_cut() || last < known.behind || first > known.behind + 1;
        let is_lost = checkpoint::place(&self.desk, &self.origin().incarnation).await? != Some(known.place);
        Ok(is_far || turned_over || was_cut || is_lost || self.is_far_in_messages(open).await?)
    }

    /// With wills, a repair looks through the messages too.
    async fn is_far_in_messages(&self, open: u64) -> Result<bool, Failure> {
        if !self.hub.keeps_wills() {
            return Ok(false);
        }
        let last = self.desk.newest_place(stream_name(Stream::Messages)).await?;
        let behind = last.saturating_sub(self.checkpoint.messages_behind);
        Ok(behind >= MESSAGES_AFTER.max(open.saturating_mul(16)))
    }

    /// The one before the checkpoint that was to be put in force is not where it was. Either that was never heard of, or the bucket was
    /// purged; or somebody has closed the sessions and forgotten this incarnation, and then it has no fences either.
    async fn find_checkpoint(&mut self) -> Result<(), Failure> {
        let origin = self.origin();
        if let Some(place) = checkpoint::place(&self.desk, &origin.incarnation).await? {
            self.checkpoint.place = place;
            return Ok(());
        }
        for stream in STREAMS {
            let newest = fence::newest(&self.desk, stream, &origin.instance, &origin.incarnation).await?;
            if newest.is_none_or(|(_, sign)| sign.writer != origin.incarnation) {
                return Ok(());
            }
        }
        self.checkpoint.place = 0;
        self.bus.ledger().was_cut();
        Ok(())
    }
}
