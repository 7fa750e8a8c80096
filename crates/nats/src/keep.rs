//! What cannot be published now, on disk.
//!
//! Owns: how a publication is written into the spool and read from it, who is told when it is stored, writing it anew when the
//! incarnation has changed meanwhile. Does not own: when something is kept ([`crate::driver`]), files and their limit
//! (`landfall-spool`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use landfall_event::{
    Dropped, EventId, Gap, Incarnation, InstanceName, Memo, ReplicaId, SessionId, Stream, header_name,
    subject,
};
use landfall_hub::{Listener, Publication, Receipt, StoreError};
use landfall_spool::{AppendError, Class, Record, Role, Spool};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::publisher::{Index, Shared, note};
use crate::translation::Translation;

/// Whose events a spool holds, as its directory says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    pub(crate) instance: InstanceName,
    pub(crate) replica: ReplicaId,
    pub(crate) incarnation: Incarnation,
    /// The newest places of the two streams when the first record was written: what is in it can only lie behind.
    pub(crate) connectivity_behind: u64,
    pub(crate) messages_behind: u64,
}

impl Owner {
    pub(crate) fn behind(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Connectivity | Stream::Access => self.connectivity_behind,
            Stream::Messages => self.messages_behind,
        }
    }
}

/// What is written of a publication beside its body.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    /// `c` or `m`.
    stream: &'a str,
    subject: &'a str,
    id: EventId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memo: Option<Memo>,
}

/// The memos of records that an earlier process has left, and which of these records are stored now.
#[derive(Debug, Default)]
pub(crate) struct Memos(Mutex<Vec<(Memo, bool)>>);

impl Memos {
    fn note(&self, memo: Memo) -> u64 {
        let mut noted = self.0.lock();
        noted.push((memo, false));
        u64::try_from(noted.len() - 1).unwrap_or(u64::MAX)
    }

    /// Those whose records are stored.
    pub(crate) fn take_stored(&self) -> Vec<Memo> {
        let noted = std::mem::take(&mut *self.0.lock());
        noted.into_iter().filter_map(|(memo, is_stored)| is_stored.then_some(memo)).collect()
    }
}

impl Listener for Memos {
    fn settled(&self, token: u64, result: Result<(), StoreError>) {
        let mut noted = self.0.lock();
        if let Some((_, is_stored)) = usize::try_from(token).ok().and_then(|at| noted.get_mut(at)) {
            *is_stored = result.is_ok();
        }
    }
}

/// Refusals are not kept on disk now; an earlier build put them there beside the ledger's events.
fn stream_of(envelope: &Envelope<'_>) -> Stream {
    let is_access = || subject::parse_event(envelope.subject).is_some_and(|parsed| parsed.group == "access");
    match envelope.stream {
        "m" => Stream::Messages,
        _ if is_access() => Stream::Access,
        _ => Stream::Connectivity,
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Keep {
    spool: Spool,
    owner: Owner,
    /// Who waits for a record to be stored.
    promises: HashMap<u64, Receipt>,
    /// The same of records that may not be in the system's hands yet.
    unflushed: Vec<(u64, Receipt)>,
    translations: Translations,
    /// Records that are stored already, though that was not heard, by the ids that they were kept under.
    stored: HashSet<EventId>,
    subjects: Vec<Arc<str>>,
    full: bool,
}

impl Keep {
    /// Keeps in `spool` from now on.
    pub(crate) fn new(spool: Spool, owner: Owner) -> Self {
        Self {
            spool,
            owner,
            promises: HashMap::new(),
            unflushed: Vec::new(),
            translations: Vec::new(),
            stored: HashSet::new(),
            subjects: Vec::new(),
            full: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spool.is_empty()
    }

    /// Records, bytes of them, and the most bytes.
    pub(crate) fn fill(&self) -> (u64, u64, u64) {
        (self.spool.len(), self.spool.bytes(), self.spool.limit())
    }

    /// No more can be kept for now.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Since which place of the stream records may be stored without our knowing.
    pub(crate) fn behind(&self, stream: Stream) -> u64 {
        self.owner.behind(stream)
    }

    /// The first record comes now, and the streams end there.
    pub(crate) fn begin(&mut self, connectivity_behind: u64, messages_behind: u64) {
        self.owner = Owner { connectivity_behind, messages_behind, ..self.owner.clone() };
        self.sign();
    }

    fn sign(&mut self) {
        let note = serde_json::to_vec(&self.owner).unwrap_or_default();
        if let Err(error) = self.spool.set_note(&note) {
            tracing::warn!(%error, "the spool could not be signed");
        }
    }

    /// Writes a publication. With the next [`flush`](Self::flush) its share of the publish window comes back, and who waits for it is
    /// told when it is stored, or now if being on disk is enough.
    ///
    /// Gives it back when there is no room, or the disk does not take it. One that was `sent`, and may be in the stream, is never
    /// dropped, nor is its session. One that never fits is refused, and named as dropped.
    pub(crate) fn put(
        &mut self,
        publication: Publication,
        sent: bool,
        shared: &Shared,
    ) -> Option<Publication> {
        let envelope = Envelope {
            stream: if publication.stream == Stream::Messages { "m" } else { "c" },
            subject: &publication.subject,
            id: publication.id,
            headers: publication
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            memo: publication.receipt.memo(),
        };
        let header = serde_json::to_vec(&envelope).unwrap_or_default();
        match self.spool.append(&class(&publication, sent), &header, &publication.body) {
            Ok(number) => {
                self.full = false;
                self.unflushed.push((number, publication.receipt));
                None
            }
            Err(AppendError::TooLarge { bytes, most }) => {
                refuse_large(publication, (bytes, most), shared);
                None
            }
            Err(error) => {
                if !self.full {
                    tracing::warn!(%error, "the spool takes no more; devices wait");
                }
                self.full = true;
                Some(publication)
            }
        }
    }

    /// Hands everything to the system, so that it outlives this process.
    pub(crate) fn flush(&mut self) {
        if let Err(error) = self.spool.flush() {
            tracing::warn!(%error, "the spool could not be written");
            return;
        }
        for (number, receipt) in self.unflushed.drain(..) {
            if let Some(receipt) = receipt.kept() {
                self.promises.insert(number, receipt);
            }
        }
    }

    /// The next publication to be sent, and the number of its record. What is known to be stored, or is not said any more, is settled on the way.
    pub(crate) fn next(&mut self, shared: &Shared) -> Option<(u64, Publication)> {
        if !self.unflushed.is_empty() {
            self.flush();
        }
        loop {
            let record = match self.spool.next() {
                Ok(record) => record?,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    return None;
                }
            };
            let number = record.number;
            let Some(publication) = self.read(&record) else {
                tracing::error!(number, "a record of the spool is none of ours");
                self.settle(number);
                continue;
            };
            if self.stored.remove(&publication.id) {
                shared.counters.stored.fetch_add(1, Ordering::Relaxed);
                self.settle(number);
                publication.receipt.stored();
                continue;
            }
            match self.translate(number, publication, shared) {
                Some(publication) => return Some((number, publication)),
                None => self.settle(number),
            }
        }
    }

    fn read(&mut self, record: &Record) -> Option<Publication> {
        let envelope: Envelope<'_> = serde_json::from_slice(&record.header).ok()?;
        let stream = stream_of(&envelope);
        let headers = envelope.headers.into_iter().map(|(name, value)| Some((header_name(&name)?, value)));
        Some(Publication {
            stream,
            headers: headers.collect::<Option<_>>()?,
            id: envelope.id,
            subject: match envelope.id {
                // Each has its own.
                EventId::Will(..) => envelope.subject.into(),
                _ => self.subject(envelope.subject),
            },
            body: Bytes::copy_from_slice(&record.body),
            receipt: self.promise(record.number),
        })
    }

    /// Who waits for the record; also one that could not be flushed.
    fn promise(&mut self, number: u64) -> Receipt {
        let unflushed = self.unflushed.iter().position(|(other, _)| *other == number);
        let promise = match unflushed {
            Some(at) => Some(self.unflushed.swap_remove(at).1),
            None => self.promises.remove(&number),
        };
        promise.unwrap_or_else(|| Receipt::unheard(None))
    }

    fn subject(&mut self, subject: &str) -> Arc<str> {
        if let Some(known) = self.subjects.iter().find(|known| ***known == *subject) {
            return Arc::clone(known);
        }
        let made: Arc<str> = subject.into();
        self.subjects.push(Arc::clone(&made));
        made
    }

    fn translate(&self, number: u64, mut publication: Publication, shared: &Shared) -> Option<Publication> {
        for (below, translation) in &self.translations {
            if number < *below {
                publication = translation.rewrite(publication, shared)?;
            }
        }
        Some(publication)
    }

    /// Everything that is kept so far is written anew when it is read.
    pub(crate) fn translate_all(&mut self, translation: Arc<Translation>, incarnation: Incarnation) {
        if self.is_empty() {
            self.translations.clear();
        } else {
            self.translations.push((self.spool.next_number(), translation));
        }
        self.owner.incarnation = incarnation;
        self.sign();
    }

    /// A record that was handed out is not sent after all: it will be handed out again.
    pub(crate) fn take_back(&mut self, number: u64, receipt: Receipt) {
        if let Some(receipt) = receipt.kept() {
            self.promises.insert(number, receipt);
        }
    }

    /// Everything that was handed out and not settled is handed out again, from the oldest on.
    pub(crate) fn rewind(&mut self) {
        self.spool.rewind();
    }

    /// A record that was handed out is done with.
    pub(crate) fn settle(&mut self, number: u64) {
        self.spool.settle(number);
        if self.spool.is_empty() {
            self.promises.clear();
            self.stored.clear();
            self.translations.clear();
            self.full = false;
        }
    }

    /// The ids that everything which is kept will be published under, and those it was kept under.
    pub(crate) fn ids(&mut self) -> HashMap<EventId, EventId> {
        let (translations, mut ids) = (self.translations.clone(), HashMap::new());
        self.for_each_record(|number, id| {
            if let Some(now) = translated(&translations, number, id) {
                ids.insert(now, id);
            }
        });
        ids
    }

    /// Those that were kept under these ids are stored.
    pub(crate) fn are_stored(&mut self, ids: impl IntoIterator<Item = EventId>) {
        self.stored.extend(ids);
    }

    /// Notes what is kept and not known to be stored, under the ids that it will be published under.
    pub(crate) fn note_unstored(&mut self, index: &mut Index) {
        let (translations, stored) = (self.translations.clone(), self.stored.clone());
        self.for_each_record(|number, id| {
            if !stored.contains(&id)
                && let Some(now) = translated(&translations, number, id)
            {
                note(index, now);
            }
        });
    }

    /// Lets `memos` hear which of the records that have a memo are stored. Nobody else waits for a record of an earlier process.
    pub(crate) fn tell(&mut self, memos: &Arc<Memos>) {
        #[derive(Deserialize)]
        struct Noted {
            memo: Option<Memo>,
        }
        let promises = &mut self.promises;
        let shown = self.spool.for_each(|record| {
            if let Ok(Noted { memo: Some(memo) }) = serde_json::from_slice(&record.header) {
                let receipt = Receipt::token(Arc::clone(memos) as _, memos.note(memo), None);
                promises.insert(record.number, receipt);
            }
        });
        if let Err(error) = shown {
            tracing::error!(%error, "the spool cannot be read");
        }
    }

    /// Shows the id that every record was kept under, in order.
    pub(crate) fn for_each(&mut self, mut each: impl FnMut(EventId)) {
        self.for_each_record(|_, id| each(id));
    }

    fn for_each_record(&mut self, mut each: impl FnMut(u64, EventId)) {
        #[derive(Deserialize)]
        struct Id {
            id: EventId,
        }
        let shown = self.spool.for_each(|record| {
            if let Ok(Id { id }) = serde_json::from_slice(&record.header) {
                each(record.number, id);
            }
        });
        if let Err(error) = shown {
            tracing::error!(%error, "the spool cannot be read");
        }
    }

    /// Tells what was dropped for want of room.
    pub(crate) fn tell_dropped(&mut self, shared: &Shared) {
        let dropped = self.spool.take_dropped();
        if dropped.sessions == 0 && dropped.messages == 0 {
            return;
        }
        self.forget_dropped();
        let records = dropped.session_records + dropped.messages;
        shared.counters.dropped.fetch_add(records, Ordering::Relaxed);
        let gap = |range: &landfall_spool::DroppedRange| {
            let session = SessionId::from_bytes(range.owner?)?;
            Some(Gap { session, from: range.from_tag, to: range.to_tag })
        };
        let gaps = dropped.ranges.iter().filter_map(gap).collect();
        shared.note_dropped(Dropped { sessions: dropped.sessions, messages: dropped.messages, gaps });
    }

    /// Who waits for a record that was dropped with its session waits no longer.
    fn forget_dropped(&mut self) {
        if self.promises.len() as u64 <= self.spool.len() {
            return;
        }
        let mut left = HashSet::new();
        let shown = self.spool.for_each(|record| {
            left.insert(record.number);
        });
        if shown.is_ok() {
            self.promises.retain(|number, _| left.contains(number));
        }
    }

    /// Removes the directory, if nothing is in it.
    pub(crate) fn remove(self) {
        if !self.spool.is_empty() {
            return;
        }
        if let Err(error) = self.spool.remove() {
            tracing::debug!(%error, "the empty spool was not removed");
        }
    }
}

/// How records below a number are written anew, the first one first.
type Translations = Vec<(u64, Arc<Translation>)>;

/// The id that a record is published under; `None` when it is no longer said.
fn translated(translations: &Translations, number: u64, id: EventId) -> Option<EventId> {
    let mut later = translations.iter().filter(|(below, _)| number < *below);
    later.try_fold(id, |id, (_, translation)| translation.id(id))
}

/// What the spool has to know to drop the right things.
fn class(publication: &Publication, sent: bool) -> Class {
    let (session, stream, seq) = match publication.id {
        EventId::Session(session, stream, seq) => (session, stream, seq),
        EventId::Gateway(..) => return Class { owner: None, role: Role::Other, tag: 0, pinned: true },
        // Goes with its session.
        EventId::Will(session, _) => {
            return Class { owner: Some(*session.as_bytes()), role: Role::Other, tag: 0, pinned: true };
        }
    };
    let kind = subject::parse_event(&publication.subject).map_or("", |parsed| parsed.kind);
    let role = match (stream, kind) {
        // Who saw the beginning has to see the end.
        _ if sent => Role::Other,
        (_, "connected") => Role::Begins,
        (_, "disconnected") => Role::Ends,
        (Stream::Messages, "upstream") => Role::Message,
        _ => Role::Other,
    };
    Class { owner: Some(*session.as_bytes()), role, tag: seq, pinned: sent || publication.receipt.is_heard() }
}

/// The limit is so small that the publication is larger than what the disk takes in one piece.
fn refuse_large(publication: Publication, (bytes, most): (u64, u64), shared: &Shared) {
    tracing::warn!(id = %publication.id, bytes, most, "too large for the spool, so it is lost");
    let gaps = match publication.id {
        EventId::Session(session, Stream::Messages, seq) => vec![Gap { session, from: seq, to: seq }],
        _ => Vec::new(),
    };
    shared.note_dropped(Dropped { sessions: 0, messages: 1, gaps });
    let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    shared.refuse(publication, StoreError::TooLarge { size: size(bytes), limit: size(most) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_an_earlier_build_kept_beside_the_ledger_go_to_their_own_stream() {
        let id = EventId::Gateway(Incarnation::new(1, [0; 10]), 1);
        let of = |stream, kind: &str| {
            let subject = subject::WATCH_ALL.replace('>', &format!("landfall.{kind}"));
            stream_of(&Envelope { stream, subject: &subject, id, headers: Vec::new(), memo: None })
        };
        assert_eq!(of("c", "endpoint.access.refused"), Stream::Access);
        assert_eq!(of("c", "endpoint.connectivity.connected"), Stream::Connectivity);
        assert_eq!(of("c", "service.lifecycle.join"), Stream::Connectivity);
        assert_eq!(of("m", "endpoint.message.upstream"), Stream::Messages);
    }

    /// Disks that an earlier version has written are read.
    #[test]
    fn an_envelope_without_a_memo_is_as_it_always_was() {
        let id = EventId::Session(SessionId::new(7, [1; 10]), Stream::Messages, 3);
        let envelope = Envelope { stream: "m", subject: "s", id, headers: Vec::new(), memo: None };
        let written = serde_json::to_string(&envelope).unwrap();
        assert_eq!(
            written,
            format!(r#"{{"stream":"m","subject":"s","id":{}}}"#, serde_json::to_string(&id).unwrap())
        );
        assert!(serde_json::from_str::<Envelope<'_>>(&written).unwrap().memo.is_none());
    }

    #[test]
    fn only_a_memo_whose_event_is_stored_is_told() {
        let memos = Arc::new(Memos::default());
        let memo = |number| Memo { session: 1, number, packet_id: 2, mark: 3 };
        let receipts: Vec<_> =
            (0..4).map(|n| Receipt::token(Arc::clone(&memos) as _, memos.note(memo(n)), None)).collect();
        for (n, receipt) in receipts.into_iter().enumerate() {
            match n {
                0 => receipt.refused(StoreError::Refused(String::new())),
                1 => receipt.stored(),
                2 => drop(receipt),
                _ => receipt.kept().unwrap().stored(),
            }
        }
        assert_eq!(memos.take_stored(), [memo(1), memo(3)]);
    }
}
