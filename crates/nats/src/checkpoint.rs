//! Checkpoints: which sessions of an incarnation were open, so that whoever repairs it need not read its whole life.
//!
//! Owns: writing one in parts and putting it in force with one last write, reading it. Does not own: when one is due
//! ([`crate::guardian`]), what is open (the hub says it), what is made of it ([`crate::repair`]).
//!
//! A checkpoint lists the sessions that were open and names a place in the connectivity stream. What happened behind that place
//! is read again, and reading an event twice changes nothing; so the place only has to lie before whatever the list may lack.
//!
//! Beside it stands the *mark* of whoever repairs the incarnation, written before anything else of the repair. Where there is none,
//! nobody has closed a session of this incarnation, whatever has become of the streams of events meanwhile. It outlives the rest for
//! longer than anybody is frozen: a server that is killed shows again what was purged, this or that, but never loses what it has
//! acknowledged. So what is gone says nothing, and what is there says nothing either, but the mark.

use landfall_event::subject::{self, CHECKPOINTS_BUCKET, stream_name};
use landfall_event::{
    DeviceId, Epoch, Incarnation, InstanceName, Origin, SessionId, Stream, TenantId, Transport, UnixMs,
};
use landfall_hub::{KeptWill, OpenSession, unix_now};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::desk::{Desk, Expect, Failure};
use crate::lease;

/// Bytes of one part at most, whatever its devices are called: a quarter of what a server takes in one message by default.
const BYTES_OF_PART: usize = 256 << 10;
/// The part that names the others.
const HEAD: &str = "head";
/// What a repairer writes first.
const MARK: &str = "repair";
/// For how long a mark outlives what it stands beside: who is frozen for longer and comes back to a server that was killed meanwhile
/// may find no sign of what was done.
const MARK_LASTS_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Marks that are forgotten at one start, at most.
const MARKS_AT_ONCE: usize = 1_000;

/// The stream behind the bucket of the checkpoints.
pub(crate) fn stream() -> String {
    format!("KV_{CHECKPOINTS_BUCKET}")
}

/// What puts a checkpoint in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    /// Whose incarnation it is; earlier versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceName>,
    /// Tells the parts of one checkpoint from those of another.
    round: u64,
    parts: usize,
    /// Parts with wills.
    #[serde(default)]
    wills: usize,
    /// The fold goes on behind this place.
    behind: u64,
    /// The numbers of messages are known up to this place of theirs.
    #[serde(default)]
    messages_behind: u64,
}

/// Who closes the sessions of an incarnation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mark {
    writer: Incarnation,
    /// By the writer's clock.
    at: UnixMs,
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
    /// The number of its next message.
    #[serde(default)]
    pub(crate) next_message: u64,
    pub(crate) transport: Transport,
    pub(crate) last_seen_at: UnixMs,
}

impl From<OpenSession> for Entry {
    fn from(open: OpenSession) -> Self {
        let OpenSession { info, next, next_message, last_seen_at, will: _ } = open;
        Self {
            app_version: info.app_version.to_string(),
            session: info.session(),
            epoch: info.epoch(),
            transport: info.transport,
            tenant: info.tenant,
            device: info.device,
            next,
            next_message,
            last_seen_at,
        }
    }
}

/// A checkpoint as found.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) open: Vec<Entry>,
    /// Of open sessions, and of those that have ended and owe one.
    pub(crate) wills: Vec<KeptWill>,
    /// The fold goes on behind this place.
    pub(crate) behind: u64,
    /// The numbers of messages are known up to this place of theirs.
    pub(crate) messages_behind: u64,
}

/// Writes the parts of a checkpoint; nothing is in force yet.
pub(crate) async fn write(
    desk: &Desk,
    incarnation: &Incarnation,
    round: u64,
    (open, wills): (&[Entry], &[KeptWill]),
) -> Result<Parts, Failure> {
    let (open, wills) = (in_parts(open, BYTES_OF_PART), in_parts(wills, BYTES_OF_PART));
    let written = Parts { sessions: open.len(), wills: wills.len() };
    for (number, body) in open.into_iter().enumerate() {
        desk.put(&part_subject(incarnation, round, number), body.into(), Expect::Anything).await?;
    }
    for (number, body) in wills.into_iter().enumerate() {
        desk.put(&wills_subject(incarnation, round, number), body.into(), Expect::Anything).await?;
    }
    Ok(written)
}

/// How many parts there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    sessions: usize,
    wills: usize,
}

/// Entries as JSON arrays of so many bytes at most; one that is larger stands alone.
fn in_parts<T: Serialize>(open: &[T], most: usize) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for entry in open {
        let entry = serde_json::to_vec(entry).unwrap_or_default();
        match parts.last_mut().filter(|part| part.len() + entry.len() + 2 <= most) {
            Some(part) => part.push(b','),
            None => parts.push(vec![b'[']),
        }
        parts.last_mut().into_iter().for_each(|part| part.extend_from_slice(&entry));
    }
    parts.iter_mut().for_each(|part| part.push(b']'));
    parts
}

/// A checkpoint that is about to be in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) round: u64,
    pub(crate) parts: Parts,
    /// The fold goes on behind this place.
    pub(crate) behind: u64,
    /// The numbers of messages are known up to this place of theirs.
    pub(crate) messages_behind: u64,
    /// Where the one before it was put in force; 0: there is none.
    pub(crate) replaces: u64,
}

/// Puts a checkpoint in force and forgets the one before it. Returns where it stands.
///
/// # Errors
/// [`Failure::Conflict`] when the one before it is not in force any more: somebody has forgotten the incarnation, or the bucket was
/// purged.
pub(crate) async fn commit(desk: &Desk, origin: &Origin, commit: Commit) -> Result<u64, Failure> {
    let (Commit { round, parts, behind, messages_behind, replaces }, incarnation) =
        (commit, &origin.incarnation);
    let Parts { sessions: parts, wills } = parts;
    let instance = Some(origin.instance.clone());
    let head = Head { instance, round, parts, wills, behind, messages_behind };
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let subject = subject::checkpoint_subject(incarnation, HEAD);
    let place = desk.put(&subject, head.into(), Expect::Last(replaces)).await?;
    if let Some(before) = round.checked_sub(1) {
        desk.purge(&stream(), &subject::checkpoint_subject(incarnation, &format!("{before}.*"))).await?;
    }
    Ok(place)
}

/// Puts the first one in force, with nothing open at this place; if there is one, that stays. Returns where it stands.
pub(crate) async fn begin(
    desk: &Desk,
    instance: &InstanceName,
    incarnation: &Incarnation,
    behind: u64,
) -> Result<u64, Failure> {
    let messages_behind = desk.newest_place(stream_name(Stream::Messages)).await?;
    let instance = Some(instance.clone());
    let head = Head { instance, round: 0, parts: 0, wills: 0, behind, messages_behind };
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let subject = subject::checkpoint_subject(incarnation, HEAD);
    match desk.put(&subject, head.into(), Expect::Last(0)).await {
        Err(Failure::Conflict) => Ok(place(desk, incarnation).await?.unwrap_or(0)),
        begun => begun,
    }
}

/// Where the checkpoint in force stands; `None` when there is none.
pub(crate) async fn place(desk: &Desk, incarnation: &Incarnation) -> Result<Option<u64>, Failure> {
    let head = desk.last(&stream(), &subject::checkpoint_subject(incarnation, HEAD)).await?;
    Ok(head.map(|head| head.sequence))
}

/// The incarnations of the instance that have a checkpoint.
pub(crate) async fn all(desk: &Desk, instance: &InstanceName) -> Result<Vec<Incarnation>, Failure> {
    let mut found = Vec::new();
    for (name, _, body) in desk.newest_of_each(&stream(), &subject::checkpoint_wildcard(HEAD)).await? {
        let head = serde_json::from_slice::<Head>(&body);
        if head.is_ok_and(|head| head.instance.as_ref() == Some(instance)) {
            found.extend(subject::parse_checkpoint(&name, HEAD));
        }
    }
    Ok(found)
}

/// The lowest place of the ledger that any checkpoint, of whatever instance, reads behind; `None` when there are none.
pub(crate) async fn lowest(desk: &Desk) -> Result<Option<u64>, Failure> {
    if desk.info(&stream()).await?.is_none() {
        return Ok(None);
    }
    let heads = desk.newest_of_each(&stream(), &subject::checkpoint_wildcard(HEAD)).await?;
    // One that cannot be read may need everything.
    Ok(heads
        .iter()
        .map(|(.., body)| serde_json::from_slice::<Head>(body).map_or(0, |head| head.behind))
        .min())
}

/// Says that `writer` closes the sessions of the incarnation, whatever becomes of the fences.
pub(crate) async fn mark(
    desk: &Desk,
    incarnation: &Incarnation,
    writer: &Incarnation,
) -> Result<(), Failure> {
    let body = serde_json::to_vec(&Mark { writer: *writer, at: unix_now() }).unwrap_or_default();
    let subject = subject::checkpoint_subject(incarnation, MARK);
    desk.put(&subject, body.into(), Expect::Anything).await.map(drop)
}

/// True when somebody else than `writer` has begun to close sessions of the incarnation.
pub(crate) async fn is_marked(
    desk: &Desk,
    incarnation: &Incarnation,
    writer: &Incarnation,
) -> Result<bool, Failure> {
    let mark = desk.last(&stream(), &subject::checkpoint_subject(incarnation, MARK)).await?;
    // One that cannot be read is somebody else's.
    Ok(mark.is_some_and(|mark| {
        serde_json::from_slice::<Mark>(&mark.body).map_or(true, |mark| mark.writer != *writer)
    }))
}

/// Forgets the marks that nobody looks for any more.
pub(crate) async fn forget_marks(desk: &Desk) -> Result<(), Failure> {
    let oldest = unix_now().saturating_sub(MARK_LASTS_MS);
    let marks = desk.newest_of_each(&stream(), &subject::checkpoint_wildcard(MARK)).await?;
    let is_old = |body: &[u8]| serde_json::from_slice::<Mark>(body).is_ok_and(|mark| mark.at < oldest);
    for (subject, place, _) in marks.iter().filter(|(.., body)| is_old(body)).take(MARKS_AT_ONCE) {
        desk.purge_up_to(&stream(), subject, *place).await?;
    }
    Ok(())
}

/// True when nobody but `writer` has begun to close sessions of the incarnation.
///
/// Whoever closes the sessions leaves a mark first, and that stays: so where there is none nobody had begun when this looked, and
/// whoever begins later finds what was written before. With the whole bucket purged, only a lease tells that nobody had.
pub(crate) async fn is_untouched(
    desk: &Desk,
    instance: &InstanceName,
    incarnation: &Incarnation,
    writer: &Incarnation,
) -> Result<bool, Failure> {
    if is_marked(desk, incarnation, writer).await? {
        return Ok(false);
    }
    if place(desk, incarnation).await?.is_some() {
        return Ok(true);
    }
    let leases = lease::all(desk, instance).await?;
    Ok(leases.iter().any(|lease| lease.claim.incarnation == *incarnation))
}

/// The checkpoint in force; an empty one from the beginning of the stream on when there is none.
pub(crate) async fn read(desk: &Desk, incarnation: &Incarnation) -> Result<Checkpoint, Failure> {
    let Some(head) = desk.last(&stream(), &subject::checkpoint_subject(incarnation, HEAD)).await? else {
        return Ok(Checkpoint::default());
    };
    let Ok(head) = serde_json::from_slice::<Head>(&head.body) else { return Ok(Checkpoint::default()) };
    let sessions = (0..head.parts).map(|part| part_subject(incarnation, head.round, part)).collect();
    let wills = (0..head.wills).map(|part| wills_subject(incarnation, head.round, part)).collect();
    // A part that is missing: the next checkpoint was about to replace this one. The stream knows it all.
    let (Some(open), Some(wills)) = (parts(desk, sessions).await?, parts(desk, wills).await?) else {
        return Ok(Checkpoint::default());
    };
    Ok(Checkpoint { open, wills, behind: head.behind, messages_behind: head.messages_behind })
}

async fn parts<T: DeserializeOwned>(desk: &Desk, subjects: Vec<String>) -> Result<Option<Vec<T>>, Failure> {
    let mut all = Vec::new();
    for subject in subjects {
        let Some(found) = desk.last(&stream(), &subject).await? else { return Ok(None) };
        let Ok(mut part) = serde_json::from_slice::<Vec<T>>(&found.body) else { return Ok(None) };
        all.append(&mut part);
    }
    Ok(Some(all))
}

/// Forgets the incarnation's checkpoint; the mark stays.
pub(crate) async fn forget(desk: &Desk, incarnation: &Incarnation) -> Result<(), Failure> {
    // The head last: by it the incarnation is found again.
    for parts in ["*.*", HEAD] {
        desk.purge(&stream(), &subject::checkpoint_subject(incarnation, parts)).await?;
    }
    Ok(())
}

/// Forgets whatever there is of an incarnation that nobody is any more.
pub(crate) async fn forget_all(desk: &Desk, incarnation: &Incarnation) -> Result<(), Failure> {
    desk.purge(&stream(), &subject::checkpoint_subject(incarnation, ">")).await
}

fn part_subject(incarnation: &Incarnation, round: u64, part: usize) -> String {
    subject::checkpoint_subject(incarnation, &format!("{round}.{part}"))
}

fn wills_subject(incarnation: &Incarnation, round: u64, part: usize) -> String {
    subject::checkpoint_subject(incarnation, &format!("{round}.w{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: &str) -> Entry {
        Entry {
            tenant: TenantId::default(),
            device: device.parse().unwrap(),
            app_version: String::new(),
            session: SessionId::new(1, [1; 10]),
            epoch: Epoch(1),
            next: 2,
            next_message: 1,
            transport: Transport::Mqtt,
            last_seen_at: 7,
        }
    }

    #[test]
    fn a_part_has_a_size_in_bytes_whatever_its_devices_are_called() {
        let open: Vec<Entry> = (0..300).map(|n| entry(&format!("{n:03}-{}", "d".repeat(n % 60)))).collect();
        let parts = in_parts(&open, 4_096);
        assert!(parts.len() > 10 && parts.iter().all(|part| part.len() <= 4_096), "{}", parts.len());
        let read = |part: &Vec<u8>| serde_json::from_slice::<Vec<Entry>>(part).unwrap();
        assert_eq!(parts.iter().flat_map(read).collect::<Vec<_>>(), open);
        assert_eq!(in_parts(&open[..2], 1).len(), 2, "one that is larger stands alone");
        assert!(in_parts::<Entry>(&[], 4_096).is_empty());
    }
}
