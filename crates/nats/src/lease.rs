//! Leases: which incarnation of which replica is alive, as each says of itself.
//!
//! Owns: writing a replica's own lease again and again, and the judgement that another one's has ended. Does not own: what
//! follows from that ([`crate::guardian`]), the fences that make it safe to be wrong ([`crate::fence`]).
//!
//! A lease has no clock of the server in it. Who looks adds up for how long it saw a lease unchanged, by its own monotonic
//! clock. A look after a long pause counts little, and when NATS did not answer the count begins anew: so neither a wall
//! clock that steps, nor NATS being away, nor a standstill of the one who looks makes anybody count as dead.

use std::collections::HashMap;
use std::time::Duration;

use landfall_event::subject::{self, LEASES_BUCKET};
use landfall_event::{Incarnation, InstanceName, ReplicaId, UnixMs};
use landfall_hub::unix_now;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::checkpoint;
use crate::desk::{Desk, Expect, Failure};

/// Looks within one time to live: a lease is written so often, and looked at so often.
pub(crate) const LOOKS: u32 = 4;

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim {
    /// The incarnation that is alive.
    pub(crate) incarnation: Incarnation,
    /// When it started, by its own clock.
    pub(crate) started_at: UnixMs,
    /// How long it counts as alive after this.
    pub(crate) ttl_ms: u64,
}

impl Claim {
    /// Of an incarnation that speaks from now on.
    pub(crate) fn new(incarnation: Incarnation, ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { incarnation, started_at: unix_now(), ttl_ms }
    }
}

/// A lease as found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) replica: ReplicaId,
    pub(crate) claim: Claim,
    pub(crate) revision: u64,
}

/// The stream behind the bucket of the leases.
pub(crate) fn stream() -> String {
    format!("KV_{LEASES_BUCKET}")
}

/// How often a lease of this time to live is written and looked at.
pub(crate) fn interval(ttl: Duration) -> Duration {
    ttl / LOOKS
}

/// What became of a lease that was to be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// It is held.
    Held,
    /// Somebody who took this replica for dead has removed it.
    Gone,
    /// Another process of the same name holds it now.
    Replaced,
    /// NATS did not answer.
    Away,
}

/// A replica's own lease.
#[derive(Debug)]
pub(crate) struct Lease {
    desk: Desk,
    instance: InstanceName,
    subject: String,
    claim: Claim,
    revision: u64,
}

impl Lease {
    /// The same lease, written at another desk from now on.
    pub(crate) fn at(self, desk: &Desk) -> Self {
        Self { desk: desk.clone(), ..self }
    }

    /// Takes the replica's lease, whoever held it: a replica has one process, and it is the newest.
    pub(crate) async fn take(
        desk: &Desk,
        instance: &InstanceName,
        replica: &ReplicaId,
        claim: Claim,
    ) -> Result<Self, Failure> {
        Self::take_unless(desk, instance, replica, claim, |_| false).await?.ok_or(Failure::Conflict)
    }

    /// Takes the replica's lease, unless somebody holds it to whom it has to be left: then `None`.
    pub(crate) async fn take_unless(
        desk: &Desk,
        instance: &InstanceName,
        replica: &ReplicaId,
        claim: Claim,
        is_left: impl Fn(&Found) -> bool,
    ) -> Result<Option<Self>, Failure> {
        let subject = subject::lease_subject(instance, replica);
        loop {
            let last = desk.last(&stream(), &subject).await?;
            let revision = last.as_ref().map_or(0, |last| last.sequence);
            let held = last.and_then(|last| serde_json::from_slice(&last.body).ok());
            if held.is_some_and(|claim| is_left(&Found { replica: replica.clone(), claim, revision })) {
                return Ok(None);
            }
            match desk.put(&subject, written(&claim), Expect::Last(revision)).await {
                Ok(revision) => {
                    let (desk, instance) = (desk.clone(), instance.clone());
                    return Ok(Some(Self { desk, instance, subject, claim, revision }));
                }
                Err(Failure::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it was written last.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Writes it again.
    pub(crate) async fn renew(&mut self) -> Renewal {
        match self.desk.put(&self.subject, written(&self.claim), Expect::Last(self.revision)).await {
            Ok(revision) => {
                self.revision = revision;
                Renewal::Held
            }
            Err(Failure::Conflict) => self.lost().await,
            Err(error) => {
                tracing::debug!(%error, "the lease was not written");
                Renewal::Away
            }
        }
    }

    async fn lost(&mut self) -> Renewal {
        match self.desk.last(&stream(), &self.subject).await {
            Ok(None) => self.put_back().await,
            // A server that was killed may show again what was removed before; whoever comes writes behind our last word.
            Ok(Some(last)) if last.sequence < self.revision => Renewal::Gone,
            Ok(Some(last)) => match serde_json::from_slice::<Claim>(&last.body) {
                Ok(claim) if claim.incarnation == self.claim.incarnation => {
                    // Our own word, whose acknowledgement was lost.
                    self.revision = last.sequence;
                    Renewal::Held
                }
                Ok(_) => Renewal::Replaced,
                Err(_) => Renewal::Gone,
            },
            Err(_) => Renewal::Away,
        }
    }
}

impl Lease {
    /// It is missing. Whoever takes a replica for dead marks its checkpoint first and removes the lease last; without that it was
    /// lost with its bucket, and is written again.
    async fn put_back(&mut self) -> Renewal {
        let incarnation = &self.claim.incarnation;
        match checkpoint::is_untouched(&self.desk, &self.instance, incarnation, incarnation).await {
            Ok(true) => {}
            Ok(false) => return Renewal::Gone,
            Err(_) => return Renewal::Away,
        }
        match self.desk.put(&self.subject, written(&self.claim), Expect::Last(0)).await {
            Ok(revision) => {
                tracing::warn!(
                    "this gateway's lease was gone, and nobody had taken it for dead: written again"
                );
                self.revision = revision;
                Renewal::Held
            }
            // Another process of this name, which the next try sees.
            Err(_) => Renewal::Away,
        }
    }
}

fn written(claim: &Claim) -> bytes::Bytes {
    serde_json::to_vec(claim).unwrap_or_default().into()
}

/// Removes the lease if it still names the incarnation.
pub(crate) async fn remove(desk: &Desk, subject: &str, incarnation: &Incarnation) -> Result<(), Failure> {
    let Some(last) = desk.last(&stream(), subject).await? else { return Ok(()) };
    let names_it =
        serde_json::from_slice::<Claim>(&last.body).is_ok_and(|claim| claim.incarnation == *incarnation);
    if names_it {
        desk.purge_up_to(&stream(), subject, last.sequence).await?;
    }
    Ok(())
}

/// Every lease of the instance.
pub(crate) async fn all(desk: &Desk, instance: &InstanceName) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for (name, revision, body) in desk.newest_of_each(&stream(), &subject::lease_wildcard(instance)).await? {
        let Some((_, replica)) = subject::parse_lease_subject(&name) else { continue };
        let Ok(claim) = serde_json::from_slice(&body) else { continue };
        found.push(Found { replica, claim, revision });
    }
    Ok(found)
}

#[derive(Debug)]
struct Seen {
    revision: u64,
    /// For how long it was seen so.
    unchanged: Duration,
}

/// Whose lease has ended, as one process sees it.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    seen: HashMap<ReplicaId, Seen>,
    looked: Option<Instant>,
}

impl Lookout {
    /// Takes one look; returns those whose lease has not changed for its whole time to live, each time it does not.
    /// `blind`: NATS did not answer since the last look, so that nobody may have been able to write.
    pub(crate) fn look(&mut self, leases: &[Found], ttl: Duration, now: Instant, blind: bool) -> Vec<Found> {
        let pause = self.looked.map_or(Duration::ZERO, |looked| now.duration_since(looked));
        self.looked = Some(now);
        let counts = pause.min(interval(ttl) * 3 / 2);
        let mut seen = HashMap::with_capacity(leases.len());
        let mut lapsed = Vec::new();
        for lease in leases {
            let before = self.seen.remove(&lease.replica).filter(|before| before.revision == lease.revision);
            let unchanged =
                before.filter(|_| !blind).map_or(Duration::ZERO, |before| before.unchanged + counts);
            if unchanged >= Duration::from_millis(lease.claim.ttl_ms) {
                lapsed.push(lease.clone());
            }
            seen.insert(lease.replica.clone(), Seen { revision: lease.revision, unchanged });
        }
        self.seen = seen;
        lapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn lease(replica: &str, revision: u64) -> Found {
        let claim = Claim { incarnation: Incarnation::new(1, [1; 10]), started_at: 1, ttl_ms: 10_000 };
        Found { replica: replica.parse().unwrap(), claim, revision }
    }

    fn names(found: &[Found]) -> Vec<&str> {
        found.iter().map(|found| found.replica.as_str()).collect()
    }

    #[test]
    fn a_lease_ends_when_it_was_seen_unchanged_for_its_whole_time() {
        let (mut lookout, start) = (Lookout::default(), Instant::now());
        for look in 0..=5_u64 {
            let now = start + interval(TTL) * u32::try_from(look).unwrap();
            let lapsed = lookout.look(&[lease("a", look), lease("b", 7)], TTL, now, false);
            assert_eq!(names(&lapsed), if look >= 4 { vec!["b"] } else { vec![] }, "look {look}");
        }
        let lapsed = lookout.look(&[lease("a", 5), lease("b", 8)], TTL, start + interval(TTL) * 6, false);
        assert!(lapsed.is_empty(), "it has been written again");
    }

    #[test]
    fn who_could_not_look_judges_nobody() {
        let (mut lookout, start) = (Lookout::default(), Instant::now());
        assert!(lookout.look(&[lease("a", 1)], TTL, start, false).is_empty());
        // NATS was away: the other one may not have been able to write either, and has its whole time from here on.
        let back = start + TTL * 3;
        assert!(lookout.look(&[lease("a", 1)], TTL, back, true).is_empty());
        for look in 1..4 {
            assert!(lookout.look(&[lease("a", 1)], TTL, back + interval(TTL) * look, false).is_empty());
        }
        assert_eq!(names(&lookout.look(&[lease("a", 1)], TTL, back + TTL, false)), ["a"]);
    }

    #[test]
    fn a_standstill_of_who_looks_counts_little() {
        let (mut lookout, start) = (Lookout::default(), Instant::now());
        assert!(lookout.look(&[lease("a", 1)], TTL, start, false).is_empty());
        let back = start + TTL * 30;
        for look in 0..2 {
            assert!(lookout.look(&[lease("a", 1)], TTL, back + interval(TTL) * look, false).is_empty());
        }
        assert!(lookout.look(&[lease("a", 2)], TTL, back + interval(TTL) * 2, false).is_empty(), "it writes");
        // Slow looks see a dead one all the same.
        let mut looks = (1..9).map(|look| back + TTL * (look + 1));
        assert!(looks.any(|at| !lookout.look(&[lease("a", 2)], TTL, at, false).is_empty()));
    }

    #[test]
    fn a_lease_that_is_gone_is_forgotten() {
        let (mut lookout, start) = (Lookout::default(), Instant::now());
        lookout.look(&[lease("a", 1)], TTL, start, false);
        lookout.look(&[], TTL, start + interval(TTL), false);
        assert!(lookout.look(&[lease("a", 1)], TTL, start + interval(TTL) * 2, false).is_empty());
        assert!(lookout.look(&[lease("a", 1)], TTL, start + interval(TTL) * 4, false).is_empty());
    }
}
