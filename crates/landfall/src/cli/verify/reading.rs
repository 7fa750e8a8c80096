//! Both streams, read side by side as they grow.
//!
//! Owns: where reading begins, which stream goes first, what is known of the time before. Does not own: what is found in them
//! (`landfall_ledger`), how a stream is read (`landfall_nats::History`).

use std::collections::HashSet;

use async_nats::Message;
use landfall_event::subject::parse_event;
use landfall_event::{Incarnation, InstanceName, Stream, UnixMs, wire};
use landfall_hub::unix_now;
use landfall_ledger::{Stored, Verifier};
use landfall_nats::{Failure, History, Place, Since, header};

/// Where nobody keeps leases, an incarnation that was heard within this time is alive: six times its keep-alive, in milliseconds.
const HEARD_WITHIN: UnixMs = 60_000;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With what the streams hold.
    Whole,
    /// With what was stored at this time.
    Time(UnixMs),
    /// With this place of the connectivity stream.
    Place(u64),
}

/// What the verifier is told of the first message of a stream: when that was stored.
type Note = fn(&mut Verifier, UnixMs);

/// How far the streams are read.
pub(super) struct Reading {
    history: History,
    instance: Option<InstanceName>,
    pub(super) verifier: Verifier,
    connectivity: Since,
    messages: Since,
    /// Until the first round is over.
    beginning: Option<Beginning>,
    /// Messages on the subject of an event that are none.
    pub(super) foreign: u64,
}

impl Reading {
    /// Reads the events of one instance, or of all.
    pub(super) fn new(
        history: History,
        instance: Option<InstanceName>,
        verifier: Verifier,
        beginning: Beginning,
    ) -> Self {
        let (connectivity, messages) = match beginning {
            Beginning::Whole => (Since::Behind(0), Since::Behind(0)),
            Beginning::Time(at) => (Since::Time(at), Since::Time(at)),
            Beginning::Place(place) => (Since::Behind(place.saturating_sub(1)), Since::Behind(0)),
        };
        let beginning = Some(beginning);
        Self { history, instance, verifier, connectivity, messages, beginning, foreign: 0 }
    }

    /// Reads what both streams hold by now. A message is stored behind its session's `connected`, so the end of the messages
    /// is fixed first, and the connectivity stream read first.
    pub(super) async fn round(&mut self) -> Result<(), Failure> {
        let now = unix_now();
        let messages = self.history.extent(Stream::Messages, now).await?;
        let connectivity = self.history.extent(Stream::Connectivity, now).await?;
        let beginning = self.beginning.take();
        let is_first = beginning.is_some();
        let is_placed = matches!(beginning, Some(Beginning::Place(_)));
        let is_partial = is_placed || (is_first && connectivity.is_cut);
        let note: Note = if is_partial { Verifier::begin_at } else { |_, _| {} };
        let first = self.read(Stream::Connectivity, self.connectivity, connectivity.newest, note).await?;
        self.connectivity = Since::Behind(connectivity.newest);
        if is_partial && first.is_none() {
            self.verifier.begin_at(now);
        }
        if is_placed {
            self.messages = first.map_or(Since::Behind(messages.newest), Since::Time);
        }
        let note: Note = if is_first && messages.is_cut { Verifier::messages_begin_at } else { |_, _| {} };
        self.read(Stream::Messages, self.messages, messages.newest, note).await?;
        self.messages = Since::Behind(messages.newest);
        Ok(())
    }

    /// Reads one stream, and returns when the first message of it was stored.
    async fn read(
        &mut self,
        stream: Stream,
        since: Since,
        until: u64,
        note: Note,
    ) -> Result<Option<UnixMs>, Failure> {
        let Self { history, instance, verifier, foreign, .. } = self;
        let mut first = None;
        let each = |at: Place, message: &Message| {
            if first.is_none() {
                first = Some(at.stored_at);
                note(verifier, at.stored_at);
            }
            let Some(subject) = parse_event(&message.subject) else { return };
            if instance.as_ref().is_some_and(|instance| subject.instance != instance.as_str()) {
                return;
            }
            match wire::read(|name| header(message, name), &message.payload) {
                Ok(event) => verifier.read(&Stored {
                    instance: subject.instance,
                    stream,
                    place: at.number,
                    stored_at: at.stored_at,
                    event: &event,
                }),
                Err(_) => *foreign += 1,
            }
        };
        history.read(stream, since, until, each).await?;
        Ok(first)
    }

    /// Who holds a lease now; where nobody keeps leases, who was heard lately in what was read.
    pub(super) async fn alive(&self) -> Result<HashSet<Incarnation>, Failure> {
        let now = unix_now();
        let leases = self.history.alive(self.instance.as_ref(), now).await?;
        Ok(match leases {
            Some(leases) => leases.into_iter().collect(),
            None => self.verifier.heard_since(now.saturating_sub(HEARD_WITHIN)),
        })
    }
}
