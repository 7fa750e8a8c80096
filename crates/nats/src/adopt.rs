//! Spools that an earlier process has left behind.
//!
//! Owns: finding them, and publishing what is in them before their sessions are closed. Does not own: the files
//! (`landfall-spool`), how events leave the disk ([`crate::driver`]).
//!
//! What a gateway kept while NATS was away belongs before the ends that a repair would make up: a device that said goodbye
//! has left by its own word. So whoever starts with such a spool at hand writes the fence of the incarnation that wrote it,
//! folds which of its sessions are open, publishes what is kept of these and of those that began on disk, and only then closes
//! the rest. If somebody without the spool has closed them already, what is kept of them is no longer said, and counted; the
//! sessions that began on disk are told and closed all the same, as those of the incarnation that wrote them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use landfall_event::subject::{self, stream_name};
use landfall_event::{EventId, Incarnation, Origin, ReplicaId, SessionId, Stream};
use landfall_hub::Hub;
use landfall_net::Scope;
use landfall_spool::{Spool, SpoolError, SpoolSettings};
use tokio::time::sleep;

use crate::desk::Failure;
use crate::fence::Fences;
use crate::guardian::Held;
use crate::keep::{Keep, Memos, Owner};
use crate::lease::{self, Claim, Lease};
use crate::message::event_id;
use crate::publisher::{Kept, Standing};
use crate::reading::{self, Selection};
use crate::repair::Repairer;
use crate::translation::Translation;
use crate::window::Bounds;
use crate::{Publisher, PublisherSettings, Target};

/// The largest segment of a spool.
const SEGMENT: u64 = 4 << 20;
/// A spool has so many segments at least.
const SEGMENTS: u64 = 4;
/// How long the events of one spool may take to be published before the gateway goes on without them; they stay on disk.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often the events of one spool are begun with anew, when another gateway is closing its sessions meanwhile.
const TRIES: u32 = 8;

/// Where events are kept while NATS is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolPlace {
    /// The directory; each incarnation has one of its own below it.
    pub dir: PathBuf,
    /// The most bytes of one incarnation.
    pub limit_bytes: u64,
}

impl SpoolPlace {
    fn settings(&self, dir: PathBuf) -> SpoolSettings {
        let segment_bytes = SEGMENT.min(self.limit_bytes / SEGMENTS);
        SpoolSettings { dir, limit_bytes: self.limit_bytes, segment_bytes }
    }

    /// A place for the incarnation's own events.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(&self, origin: &Origin) -> Result<Kept, SpoolError> {
        let dir = self.dir.join(origin.incarnation.to_string());
        let (spool, _) = Spool::open(self.settings(dir))?;
        let Origin { instance, replica, incarnation } = origin.clone();
        let owner = Owner { instance, replica, incarnation, connectivity_behind: 0, messages_behind: 0 };
        Ok(Kept { keep: Keep::new(spool, owner) })
    }
}

/// Who publishes what is found.
pub(crate) struct Adopter<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) repairer: Repairer,
    pub(crate) lease_ttl: Duration,
    pub(crate) scope: &'a Scope,
    pub(crate) target: &'a Target,
    pub(crate) client: async_nats::Client,
    pub(crate) memos: Arc<Memos>,
}

impl Adopter<'_> {
    /// Publishes whatever other incarnations of this instance have left below the directory and nobody holds.
    pub(crate) async fn adopt_all(&self, place: &SpoolPlace) {
        for dir in directories(&place.dir) {
            let mut tries = 1..=TRIES;
            let adopted = loop {
                let adopted = self.adopt(place, &dir).await;
                // A survivor may be closing its sessions at this moment: what it leaves is told behind it.
                let again = matches!(&adopted, Err(AdoptError::Overtaken)) && tries.next().is_some();
                if !again {
                    break adopted;
                }
                sleep(lease::interval(self.lease_ttl)).await;
            };
            if let Err(error) = adopted {
                tracing::error!(?dir, %error, "what is kept there was not published");
            }
        }
    }

    async fn adopt(&self, place: &SpoolPlace, dir: &Path) -> Result<(), AdoptError> {
        let (spool, recovery) = match Spool::open(place.settings(dir.to_owned())) {
            Err(SpoolError::InUse { .. }) => return Ok(()),
            opened => opened?,
        };
        let owner = spool.note().and_then(|note| serde_json::from_slice::<Owner>(&note).ok());
        let Some(owner) = owner else {
            return if spool.is_empty() {
                spool.remove().map_err(Into::into)
            } else {
                Err(AdoptError::Nobody)
            };
        };
        if spool.is_empty() {
            return spool.remove().map_err(Into::into);
        }
        if owner.instance != self.repairer.origin.instance {
            return Ok(());
        }
        tracing::info!(
            ?dir, incarnation = %owner.incarnation, events = recovery.records, lost = recovery.lost_records,
            "publishing what an earlier gateway kept while NATS was away"
        );
        let dead = owner.incarnation;
        let held = self.speak_for(dead).await?;
        let published = self.publish_as(dead, Keep::new(spool, owner)).await;
        held.give_back(&self.repairer, dead).await?;
        published
    }

    /// Takes a lease for the incarnation, named as it is, so that nobody closes its sessions while they are told of.
    async fn speak_for(&self, dead: Incarnation) -> Result<Held, Failure> {
        let (desk, instance) = (&self.repairer.desk, &self.repairer.origin.instance);
        let claim = Claim::new(dead, self.lease_ttl);
        let lease = Lease::take(desk, instance, &namesake(dead)?, claim).await?;
        Ok(Held::keep(lease, self.scope, self.lease_ttl))
    }

    async fn publish_as(&self, dead: Incarnation, mut keep: Keep) -> Result<(), AdoptError> {
        let (fences, open) = self.right_to(dead).await?;
        let mut unchanged = self.begun(&mut keep, fences.connectivity.sequence()).await?;
        unchanged.extend(open);
        keep.tell(&self.memos);
        keep.translate_all(Arc::new(Translation::of(dead, unchanged)), dead);
        self.publish(keep, fences).await
    }

    /// The sessions that begin on disk and nowhere else. One that the stream holds before the fence all the same is open in the
    /// ledger or was closed there.
    async fn begun(&self, keep: &mut Keep, fence: u64) -> Result<HashSet<SessionId>, Failure> {
        let mut begun = HashSet::new();
        keep.for_each(|id| {
            if let EventId::Session(session, Stream::Connectivity, 1) = id {
                begun.insert(session);
            }
        });
        let stream = self.repairer.desk.stream(stream_name(Stream::Connectivity)).await?;
        let selection = Selection::behind(keep.behind(Stream::Connectivity)).before(fence).headers_only();
        let stored = |_, message: Message| {
            if let Some(EventId::Session(session, Stream::Connectivity, 1)) = event_id(&message) {
                begun.remove(&session);
            }
        };
        reading::read(&stream, selection, stored).await.map_err(Failure::away)?;
        Ok(begun)
    }

    /// Behind which fences the events are published, and which sessions are open in the ledger.
    async fn right_to(&self, dead: Incarnation) -> Result<(Fences, HashSet<SessionId>), Failure> {
        // Sessions that began on disk are open in a moment, also of one that was forgotten: there have to be fences to find it by.
        let fences = self.repairer.fence(dead).await?;
        let open = self.repairer.open(dead, fences.connectivity.sequence()).await?;
        Ok((fences, open))
    }

    async fn publish(&self, keep: Keep, fences: Fences) -> Result<(), AdoptError> {
        let settings =
            PublisherSettings { bounds: Bounds::default(), fenced: true, kept: Some(Kept { keep }) };
        let publisher = Publisher::start(self.scope, self.target.clone(), self.client.clone(), settings);
        publisher.begin(fences);
        let mut standing = publisher.standing();
        let overtaken = async {
            let _ = standing.wait_for(|standing| *standing == Standing::Fenced).await;
        };
        let published = tokio::select! {
            done = publisher.close(PATIENCE) => if done { Ok(()) } else { Err(AdoptError::Unfinished) },
            () = overtaken => {
                publisher.close(Duration::ZERO).await;
                Err(AdoptError::Overtaken)
            }
        };
        if let Some(dropped) = publisher.take_dropped() {
            self.hub.tell_dropped(dropped);
        }
        published
    }
}

/// Why a spool was not published.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Nats(#[from] Failure),
    #[error("its owner is unknown; it is left as it is")]
    Nobody,
    #[error("not all of it was stored; the rest stays for the next start")]
    Unfinished,
    #[error("another gateway closes its sessions; the rest stays for the next start")]
    Overtaken,
}

/// The name of the lease under which somebody speaks for an incarnation that is gone.
fn namesake(dead: Incarnation) -> Result<ReplicaId, Failure> {
    dead.to_string().parse().map_err(|_| Failure::Refused(format!("{dead} is no name of a lease")))
}

impl Held {
    /// Speaks for the incarnation no longer: whoever finds its fences closes what it left open.
    async fn give_back(self, repairer: &Repairer, dead: Incarnation) -> Result<(), Failure> {
        self.finish().await;
        let subject = subject::lease_subject(&repairer.origin.instance, &namesake(dead)?);
        lease::remove(&repairer.desk, &subject, &dead).await
    }
}

/// Directories that are named as an incarnation's.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let named = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.parse::<Incarnation>().is_ok())
    };
    // In the order of their starts.
    let mut found: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).collect();
    found.sort();
    found
}
