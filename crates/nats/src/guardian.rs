//! What keeps the ledger true beyond one process's life: the lease, the fences, and the repair of those who are gone.
//!
//! Owns: when each of these is due, and going on as another incarnation when this one was given up for dead. Does not own:
//! how a lease is judged ([`crate::lease`]), how a repair is exact ([`crate::repair`]), the sessions (the hub).

mod duties;
mod rebirth;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use landfall_event::subject::{self, stream_name};
use landfall_event::{Format, Incarnation, Memo, Origin, Stream};
use landfall_hub::{Hub, unix_now};
use landfall_net::Scope;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep};

use crate::adopt::{Adopter, SpoolPlace};
use crate::checkpoint;
use crate::desk::{Desk, Failure};
use crate::fence::{Fences, STREAMS, Sign};
use crate::lease::{self, Claim, Lease, Lookout, Renewal};
use crate::publisher::Standing;
use crate::repair::{Repaired, Repairer};
use crate::{Publisher, Target};

/// How a [`Guardian`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardianSettings {
    /// How long this replica counts as alive after its last sign.
    pub lease_ttl: Duration,
    /// How the ends of others' sessions are told.
    pub format: Format,
    /// Events behind a checkpoint that make another one worth its while. There are at least twice as many as open sessions.
    pub checkpoint_after: u64,
}

impl GuardianSettings {
    /// What holds for every gateway but how long it counts as alive and what it writes.
    pub fn new(lease_ttl: Duration, format: Format) -> Self {
        Self { lease_ttl, format, checkpoint_after: 50_000 }
    }
}

/// Why a guardian has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissed {
    /// Its scope was cancelled.
    Cancelled,
    /// Another process of the same replica name has taken its place: this one has nothing more to say.
    Replaced,
}

/// Whose sessions a repair has closed, or not.
type Report = (Incarnation, Result<Repaired, Failure>);

/// Reports that may wait; a repair that finds no room for its own waits for it.
const REPORTS: usize = 16;

/// See the module's description.
pub struct Guardian {
    hub: Arc<Hub>,
    bus: Arc<Publisher>,
    desk: Desk,
    settings: GuardianSettings,
    scope: Scope,
    lease: Held,
    lookout: Lookout,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    under_repair: HashSet<Incarnation>,
    /// Incarnations that nobody speaks for, since when they were seen so, and the newest fence that was seen.
    orphans: HashMap<Incarnation, (Instant, u64)>,
    looks: u32,
    /// Requests that had come to nothing by the last look.
    failed: u64,
    checkpoint: Marks,
    client: Client,
    closed: watch::Sender<u64>,
}

/// The lease, and the task that writes it.
pub(crate) struct Held {
    renewals: watch::Receiver<Renewal>,
    end: watch::Sender<bool>,
    /// Where it was written last.
    revision: Arc<AtomicU64>,
}

/// What is known of this incarnation's own checkpoint.
#[derive(Clone, Copy, Debug)]
struct Marks {
    round: u64,
    behind: u64,
    /// The numbers of messages are known up to this place of theirs.
    messages_behind: u64,
    /// Where it was put in force; 0: nowhere.
    place: u64,
    at: Instant,
    /// When another one was last begun because the ledger had turned over.
    tried: Instant,
}

impl Marks {
    /// Of an incarnation that begins.
    fn begin(place: u64, behind: u64) -> Self {
        let at = Instant::now();
        Self { round: 0, behind, messages_behind: 0, place, at, tried: at }
    }
}

impl Guardian {
    /// Takes up the replica's lease, puts up its fences, and lets the bus publish. Tries for as long as NATS does not answer.
    ///
    /// # Errors
    /// When JetStream refuses.
    pub async fn take_office(
        hub: &Arc<Hub>,
        bus: &Arc<Publisher>,
        client: Client,
        scope: &Scope,
        settings: GuardianSettings,
    ) -> Result<Self, Failure> {
        let (desk, origin) = (Desk::new(client.clone()), hub.origin());
        // Nothing else is written before that, so nothing else meets what stands in its way.
        let told = desk.heard_by(bus);
        let (lease, (fences, checkpoint)) = loop {
            let began = async {
                let claim = Claim::new(origin.incarnation, settings.lease_ttl);
                let lease = Lease::take(&told, &origin.instance, &origin.replica, claim).await?;
                Ok((lease.at(&desk), begin(&told, &origin).await?))
            };
            match began.await {
                // The publisher has said so.
                Err(Failure::Away(_)) => {}
                other => break other?,
            }
        };
        bus.is_checkpointed(bus.ledger().now(checkpoint.behind));
        bus.begin(fences);
        Ok(Self {
            hub: Arc::clone(hub),
            bus: Arc::clone(bus),
            desk,
            settings,
            scope: scope.clone(),
            lease: Held::keep(lease, scope, settings.lease_ttl),
            lookout: Lookout::default(),
            reports: mpsc::channel(REPORTS),
            under_repair: HashSet::new(),
            orphans: HashMap::new(),
            looks: 0,
            failed: 0,
            checkpoint,
            client,
            closed: watch::channel(0).0,
        })
    }

    fn origin(&self) -> Arc<Origin> {
        self.hub.origin()
    }

    fn repairer(&self) -> Repairer {
        Repairer {
            desk: self.desk.clone(),
            hub: Arc::clone(&self.hub),
            origin: Origin::clone(&self.origin()),
            format: self.settings.format,
        }
    }

    /// Sessions of gateways that are gone which this one has closed, ever.
    pub fn closed(&self) -> watch::Receiver<u64> {
        self.closed.subscribe()
    }

    /// Closes the sessions of every incarnation that nobody speaks for: this replica's earlier ones above all. Returns when
    /// they are closed, by this process or another.
    ///
    /// # Errors
    /// When JetStream refuses.
    pub async fn settle_the_past(&mut self) -> Result<(), Failure> {
        loop {
            let orphans = match self.orphans_now().await {
                Err(Failure::Away(why)) => {
                    tracing::warn!(why, "waiting for JetStream, to close what earlier gateways left open");
                    continue;
                }
                orphans => orphans?,
            };
            if orphans.is_empty() {
                if let Err(error) = checkpoint::forget_marks(&self.desk).await {
                    tracing::debug!(%error, "the next start forgets the old marks");
                }
                return Ok(());
            }
            for orphan in orphans {
                match self.repairer().repair(orphan).await {
                    Ok(Repaired::Closed(sessions)) => self.count_closed(sessions),
                    // Its rival may be gone half-way.
                    Ok(Repaired::Overtaken) => sleep(lease::interval(self.settings.lease_ttl)).await,
                    Err(Failure::Away(why)) => tracing::warn!(why, "the repair is tried again"),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Publishes what earlier gateways kept on disk while NATS was away, before [`settle_the_past`](Self::settle_the_past)
    /// closes what they left open. Returns what was kept beside those events that are stored now.
    pub async fn adopt(&self, place: &SpoolPlace, target: &Target) -> Vec<Memo> {
        let memos = Arc::default();
        let adopter = Adopter {
            hub: &self.hub,
            repairer: self.repairer(),
            lease_ttl: self.settings.lease_ttl,
            scope: &self.scope,
            target,
            client: self.client.clone(),
            memos: Arc::clone(&memos),
        };
        adopter.adopt_all(place).await;
        memos.take_stored()
    }

    fn count_closed(&self, sessions: usize) {
        self.closed.send_modify(|closed| *closed += u64::try_from(sessions).unwrap_or(0));
    }

    /// Every incarnation that has left fences or a checkpoint and that no lease names: fences alone may be lost with what their streams
    /// lose.
    async fn orphans_now(&self) -> Result<Vec<Incarnation>, Failure> {
        let origin = self.origin();
        let mut found = HashSet::new();
        for stream in STREAMS {
            let filter = subject::fence_wildcard(stream, &origin.instance);
            for name in self.desk.subjects(stream_name(stream), &filter).await? {
                found.extend(subject::parse_fence(stream, &origin.instance, &name));
            }
        }
        found.extend(checkpoint::all(&self.desk, &origin.instance).await?);
        // A gateway takes its lease before it has any of them: whose fences were seen has one by now, or is gone.
        let leases = lease::all(&self.desk, &origin.instance).await?;
        let alive: HashSet<Incarnation> = leases.iter().map(|lease| lease.claim.incarnation).collect();
        found.retain(|one| *one != origin.incarnation && !alive.contains(one));
        Ok(found.into_iter().collect())
    }

    /// Keeps watch until `scope` is cancelled, or another process of the same name takes over.
    pub async fn keep_watch(&mut self, scope: &Scope) -> Dismissed {
        self.bus.ledger().is_watched(true);
        let dismissed = self.watch(scope).await;
        self.bus.ledger().is_watched(false);
        dismissed
    }

    async fn watch(&mut self, scope: &Scope) -> Dismissed {
        let bus = Arc::clone(&self.bus);
        let mut looks = tokio::time::interval(lease::interval(self.settings.lease_ttl));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standing = self.bus.standing();
        loop {
            let due = tokio::select! {
                biased;
                () = scope.cancelled() => return Dismissed::Cancelled,
                () = fenced(&mut standing) => Due::Rebirth,
                renewal = self.lease.ended() => match renewal {
                    Renewal::Replaced => return Dismissed::Replaced,
                    _ => Due::Rebirth,
                },
                Some((incarnation, repaired)) = self.reports.1.recv() => Due::Repaired(incarnation, repaired),
                () = bus.ledger().due.notified() => Due::Checkpoint,
                _ = looks.tick() => Due::Look,
            };
            match due {
                Due::Rebirth => {
                    let reborn = tokio::select! {
                        () = scope.cancelled() => return Dismissed::Cancelled,
                        reborn = self.begin_anew() => reborn,
                    };
                    if let Some(dismissed) = reborn {
                        return dismissed;
                    }
                }
                Due::Repaired(incarnation, repaired) => self.repaired(incarnation, repaired),
                Due::Checkpoint => {
                    if let Err(error) = self.keep_pace().await {
                        tracing::debug!(%error, "no checkpoint was written");
                    }
                }
                Due::Look => {
                    // Each has its own bound; what is not done now is done at the next look.
                    if let Err(error) = self.look().await {
                        tracing::debug!(%error, "the other replicas could not be looked at");
                    }
                }
            }
        }
    }

    fn repaired(&mut self, incarnation: Incarnation, repaired: Result<Repaired, Failure>) {
        self.under_repair.remove(&incarnation);
        match repaired {
            Ok(Repaired::Closed(sessions)) => self.count_closed(sessions),
            Ok(Repaired::Overtaken) => tracing::info!(%incarnation, "another replica closes its sessions"),
            Err(error) => tracing::warn!(%incarnation, %error, "its sessions are not all closed yet"),
        }
    }

    /// Gives lease and fences back, once everything is closed and published. Where wills wait for their delay, fences and wills stay:
    /// whoever starts next, or another replica, finds them by these.
    ///
    /// # Errors
    /// When JetStream does not answer: then whoever starts next finds that nothing is open.
    pub async fn leave(self) -> Result<(), Failure> {
        let _ = self.lease.end.send(true);
        let (repairer, origin) = (self.repairer(), self.origin());
        let own = origin.incarnation;
        let (owed, _) = self.hub.wills_fill();
        if owed > 0 {
            tracing::info!(wills = owed, "wills wait for their delay; whoever comes next publishes them");
            let subject = subject::lease_subject(&origin.instance, &origin.replica);
            return lease::remove(&self.desk, &subject, &own).await;
        }
        // Nothing is open, and nobody else may take them for an orphan's: they are written once more, to be the newest.
        let fences = repairer.fence(own).await?;
        // Removes the lease too.
        repairer.forget(own, &fences).await?;
        // Nothing of it is left that would look for the mark.
        checkpoint::forget_all(&self.desk, &own).await
    }
}

enum Due {
    Rebirth,
    Repaired(Incarnation, Result<Repaired, Failure>),
    Look,
    /// The ledger has turned over by a part since the last one.
    Checkpoint,
}

/// Waits until an event was refused by its fence.
async fn fenced(standing: &mut watch::Receiver<Standing>) {
    if standing.wait_for(|standing| *standing == Standing::Fenced).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Puts up the incarnation's fences, and tells of its first checkpoint. It has taken its lease before: whoever has fences and no lease
/// is gone.
async fn begin(desk: &Desk, origin: &Origin) -> Result<(Fences, Marks), Failure> {
    let (instance, incarnation) = (origin.instance.clone(), origin.incarnation);
    let sign = Sign { instance, incarnation, writer: incarnation, at: unix_now() };
    // Before there are fences to find it by: a repair never reads what was before.
    let behind = desk.newest_place(stream_name(Stream::Connectivity)).await?;
    let place = checkpoint::begin(desk, &sign.instance, &incarnation, behind).await?;
    Ok((Fences::seize(desk, &sign).await?, Marks::begin(place, behind)))
}

impl Held {
    /// Writes the lease again and again in a task of its own: nothing that takes its time may delay it.
    pub(crate) fn keep(mut lease: Lease, scope: &Scope, ttl: Duration) -> Self {
        let (tell, renewals) = watch::channel(Renewal::Held);
        let (end, mut ended) = watch::channel(false);
        let revision = Arc::new(AtomicU64::new(lease.revision()));
        let written = Arc::clone(&revision);
        scope.spawn(async move {
            let mut ticks = tokio::time::interval(lease::interval(ttl));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    _ = ended.wait_for(|ended| *ended) => return,
                    _ = ticks.tick() => {}
                }
                let renewal = lease.renew().await;
                written.store(lease.revision(), Ordering::Relaxed);
                tell.send_if_modified(|now| std::mem::replace(now, renewal) != renewal);
                if matches!(renewal, Renewal::Gone | Renewal::Replaced) {
                    return;
                }
            }
        });
        Self { renewals, end, revision }
    }

    /// Writes it no more; returns when that is so.
    pub(crate) async fn finish(mut self) {
        let _ = self.end.send(true);
        while self.renewals.changed().await.is_ok() {}
    }

    /// Waits until it is no longer this replica's.
    async fn ended(&mut self) -> Renewal {
        let lost = |renewal: &Renewal| matches!(renewal, Renewal::Gone | Renewal::Replaced);
        let renewal = self.renewals.wait_for(lost).await.map(|renewal| *renewal);
        match renewal {
            Ok(renewal) => renewal,
            Err(_) => std::future::pending().await,
        }
    }
}

impl std::fmt::Debug for Guardian {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guardian").field("under_repair", &self.under_repair).finish_non_exhaustive()
    }
}
