//! Checkpoints: which sessions of an incarnation were open, so that whoever repairs it need not read its whole life.
//!
//! Owns: writing one in parts and putting it in force with one last write, reading it. Does not own: when one is due
//! ([`crate::guardian`]), what is open (the hub says it), what is made of it ([`crate::repair`]).
//!
//! A checkpoint lists the sessions that were open and names a place in the connectivity stream. What happened behind that place
//! is read again, and reading an event twice changes nothing; so the place only has to lie before whatever the list may lack.

use landfall_event::subject::{self, CHECKPOINTS_BUCKET};
use landfall_event::{DeviceId, Epoch, Incarnation, SessionId, TenantId, Transport, UnixMs};
use landfall_hub::OpenSession;
use serde::{Deserialize, Serialize};

use crate::desk::{Desk, Expect, Failure};

/// Sessions in one part: some 200 bytes each.
const IN_ONE_PART: usize = 2_000;
/// The part that names the others.
const HEAD: &str = "head";

/// The stream behind the bucket of the checkpoints.
pub(crate) fn stream() -> String {
    format!("KV_{CHECKPOINTS_BUCKET}")
}

/// What puts a checkpoint in force.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    /// Tells the parts of one checkpoint from those of another.
    round: u64,
    parts: usize,
    /// The fold goes on behind this place.
    behind: u64,
}

/// One open session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) app_version: String,
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    /// The number of its next connectivity event.
    pub(crate) next: u64,
    pub(crate) transport: Transport,
    pub(crate) last_seen_at: UnixMs,
}

impl From<OpenSession> for Entry {
    fn from(open: OpenSession) -> Self {
        let OpenSession { info, next, last_seen_at } = open;
        Self {
            app_version: info.app_version.to_string(),
            session: info.session(),
            epoch: info.epoch(),
            transport: info.transport,
            tenant: info.tenant,
            device: info.device,
            next,
            last_seen_at,
        }
    }
}

/// A checkpoint as found.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) open: Vec<Entry>,
    /// The fold goes on behind this place.
    pub(crate) behind: u64,
}

/// Writes the parts of a checkpoint; nothing is in force yet. Returns how many there are.
pub(crate) async fn write(
    desk: &Desk,
    incarnation: &Incarnation,
    round: u64,
    open: &[Entry],
) -> Result<usize, Failure> {
    let mut parts = 0;
    for part in open.chunks(IN_ONE_PART) {
        let body = serde_json::to_vec(part).unwrap_or_default();
        desk.put(&part_subject(incarnation, round, parts), body.into(), Expect::Anything).await?;
        parts += 1;
    }
    Ok(parts)
}

/// Puts a checkpoint in force and forgets the one before it.
pub(crate) async fn commit(
    desk: &Desk,
    incarnation: &Incarnation,
    (round, parts): (u64, usize),
    behind: u64,
) -> Result<(), Failure> {
    let head = serde_json::to_vec(&Head { round, parts, behind }).unwrap_or_default();
    desk.put(&subject::checkpoint_subject(incarnation, HEAD), head.into(), Expect::Anything).await?;
    if let Some(before) = round.checked_sub(1) {
        desk.purge(&stream(), &subject::checkpoint_subject(incarnation, &format!("{before}.*"))).await?;
    }
    Ok(())
}

/// Puts the first one in force, with nothing open at this place; if there is one, that stays.
pub(crate) async fn begin(desk: &Desk, incarnation: &Incarnation, behind: u64) -> Result<(), Failure> {
    let head = serde_json::to_vec(&Head { round: 0, parts: 0, behind }).unwrap_or_default();
    let subject = subject::checkpoint_subject(incarnation, HEAD);
    match desk.put(&subject, head.into(), Expect::Last(0)).await {
        Ok(_) | Err(Failure::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The checkpoint in force; an empty one from the beginning of the stream on when there is none.
pub(crate) async fn read(desk: &Desk, incarnation: &Incarnation) -> Result<Checkpoint, Failure> {
    let Some(head) = desk.last(&stream(), &subject::checkpoint_subject(incarnation, HEAD)).await? else {
        return Ok(Checkpoint::default());
    };
    let Ok(head) = serde_json::from_slice::<Head>(&head.body) else { return Ok(Checkpoint::default()) };
    let mut open = Vec::new();
    for part in 0..head.parts {
        let found = desk.last(&stream(), &part_subject(incarnation, head.round, part)).await?;
        // A part that is missing: the next checkpoint was about to replace this one. The stream knows it all.
        let Some(found) = found else { return Ok(Checkpoint::default()) };
        let Ok(mut entries) = serde_json::from_slice::<Vec<Entry>>(&found.body) else {
            return Ok(Checkpoint::default());
        };
        open.append(&mut entries);
    }
    Ok(Checkpoint { open, behind: head.behind })
}

/// Forgets whatever there is of the incarnation.
pub(crate) async fn forget(desk: &Desk, incarnation: &Incarnation) -> Result<(), Failure> {
    desk.purge(&stream(), &subject::checkpoint_subject(incarnation, ">")).await
}

fn part_subject(incarnation: &Incarnation, round: u64, part: usize) -> String {
    subject::checkpoint_subject(incarnation, &format!("{round}.{part}"))
}
