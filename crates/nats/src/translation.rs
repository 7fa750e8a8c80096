//! Writing anew what one incarnation left unstored, as another's.
//!
//! Owns: which session's events stay, change or are no longer said. Does not own: how an event is written anew
//! (`landfall_event::reissue`), which session goes on as which (the hub).

use std::collections::{HashMap, HashSet};

use landfall_event::{
    Dropped, Encoded, EventId, Fate, Gap, Incarnation, Renewal, SessionId, Stream, reissue, subject,
};
use landfall_hub::{Publication, StoreError};

use crate::publisher::{Index, Shared};

/// How what an incarnation left unstored is written anew.
#[derive(Debug)]
pub(crate) struct Translation {
    incarnation: Incarnation,
    renewals: HashMap<SessionId, Renewal>,
    /// Sessions that the ledger does not know, or knows as they are: they stay.
    unchanged: HashSet<SessionId>,
}

impl Translation {
    /// Of everything that `index` knows; the sessions that others go on as are among the unchanged ones.
    pub(crate) fn new(
        incarnation: Incarnation,
        renewals: HashMap<SessionId, Renewal>,
        index: &Index,
    ) -> Self {
        let begun = index.iter().filter(|(_, unstored)| unstored.presence == Some(1)).map(|(id, _)| *id);
        let unchanged = begun.chain(renewals.values().map(|renewal| renewal.session)).collect();
        Self { incarnation, renewals, unchanged }
    }

    /// Of these sessions only, which stay as they are.
    pub(crate) fn of(incarnation: Incarnation, unchanged: HashSet<SessionId>) -> Self {
        Self { incarnation, renewals: HashMap::new(), unchanged }
    }

    fn fate(&self, session: SessionId) -> Fate {
        match self.renewals.get(&session) {
            Some(renewal) => Fate::Renew(*renewal),
            None if self.unchanged.contains(&session) => Fate::Keep,
            None => Fate::Drop,
        }
    }

    /// The id that an event has anew; `None` when it is no longer said.
    pub(crate) fn id(&self, id: EventId) -> Option<EventId> {
        match id {
            EventId::Session(session, stream, seq) => match self.fate(session) {
                Fate::Keep => Some(id),
                Fate::Renew(renewal) => Some(renewal.id(stream, seq)),
                Fate::Drop => None,
            },
            EventId::Gateway(..) => Some(id),
            EventId::Will(session, _) => (self.fate(session) == Fate::Keep).then_some(id),
        }
    }

    /// The publication anew. One of a session that was closed in the ledger is refused; a message of such a one is counted and named.
    pub(crate) fn rewrite(&self, mut publication: Publication, shared: &Shared) -> Option<Publication> {
        let encoded = Encoded {
            body: std::mem::take(&mut publication.body),
            headers: std::mem::take(&mut publication.headers),
        };
        let anew = reissue(publication.id, &encoded, self.incarnation, |session| self.fate(session));
        let Some((id, Encoded { body, headers })) = anew else {
            if let EventId::Session(session, Stream::Messages, seq) = publication.id {
                let gaps = vec![Gap { session, from: seq, to: seq }];
                shared.note_dropped(Dropped { sessions: 0, messages: 1, gaps });
            }
            let why = "its session was closed while the gateway counted as lost".to_owned();
            shared.refuse(publication, StoreError::Refused(why));
            return None;
        };
        if let EventId::Will(..) = id {
            let subject = subject::will_of(&publication.subject, &self.incarnation);
            publication.subject = subject.map_or(publication.subject, Into::into);
        }
        Some(Publication { id, body, headers, ..publication })
    }
}
