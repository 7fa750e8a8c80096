//! Fences: what keeps a gateway that was given up for dead from publishing as if nothing had happened.
//!
//! Owns: what a fence is, how one stands on a publish, writing one. Does not own: who is dead ([`crate::repair`]), what a
//! gateway does that was fenced out ([`crate::driver`]).
//!
//! An incarnation begins by writing a message on its own subject in each stream, and every event that it publishes later names
//! the place of that message: the server refuses the event if that message is no longer the newest of its subject. Whoever
//! closes the incarnation's sessions writes the next one first, expecting the one that it knows. So one closes them, whatever
//! else the dead one has under way is refused, and what stands before the new fence is all that there will ever be.

use std::fmt::Display;
use std::sync::Arc;

use landfall_event::{Incarnation, InstanceName, Stream, UnixMs, subject};
use landfall_hub::unix_now;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::desk::{Desk, Expect, Failure};

/// The header that says which place the newest message of a subject has to have.
const EXPECTED_PLACE: &str = "Nats-Expected-Last-Subject-Sequence";
/// The header by which the place is that of another subject than the message's own (nats-server 2.11).
const OF_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// The streams that have fences, in the order in which they are fenced: who holds the first one goes on to the second.
pub(crate) const STREAMS: [Stream; 2] = [Stream::Connectivity, Stream::Messages];

/// What a fence says, for people and for whoever finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sign {
    /// The instance.
    pub(crate) instance: InstanceName,
    /// Whose fence it is.
    pub(crate) incarnation: Incarnation,
    /// Who wrote it: the same, or who closes its sessions.
    pub(crate) writer: Incarnation,
    /// When, by the writer's clock.
    pub(crate) at: UnixMs,
}

/// The newest fence of one incarnation in one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    subject: Arc<str>,
    sequence: u64,
    /// The place as a header says it.
    place: Arc<str>,
}

impl Fence {
    pub(crate) fn new(subject: impl Into<Arc<str>>, sequence: u64) -> Self {
        Self { subject: subject.into(), sequence, place: sequence.to_string().into() }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Lets the server refuse a message unless this is still the newest fence.
    pub(crate) fn guard(&self, put: &mut impl FnMut(&'static str, &dyn Display)) {
        put(EXPECTED_PLACE, &self.place);
        put(OF_SUBJECT, &self.subject);
    }
}

/// What was found when a fence was written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// The one before it.
    Held,
    /// An older one or none: the stream has lost it.
    WasGone,
}

/// The right to publish as one incarnation: its newest fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fences {
    sign: Sign,
    pub(crate) connectivity: Fence,
    pub(crate) messages: Fence,
}

impl Fences {
    /// Takes the right to publish as the incarnation, whoever has it.
    pub(crate) async fn seize(desk: &Desk, sign: &Sign) -> Result<Self, Failure> {
        let [connectivity, messages] = STREAMS;
        Ok(Self {
            connectivity: seize(desk, connectivity, sign).await?,
            messages: seize(desk, messages, sign).await?,
            sign: sign.clone(),
        })
    }

    /// Writes the one of a stream again. What is still on its way behind the one before it is refused from then on, and whatever
    /// the stream has shown of it is as safe as this.
    ///
    /// One that is missing, or that stands elsewhere than it was written, is not one that somebody else has written: the stream was
    /// purged, cut by its limits, made again or restored. It is put up again, if nobody has begun to close the incarnation's sessions.
    ///
    /// One that is where it was says nothing by itself: a server that was killed may show it again after whoever closed the sessions
    /// has purged it together with his own. So it counts only if there is no mark.
    ///
    /// # Errors
    /// [`Failure::Conflict`] when somebody else has the right now.
    pub(crate) async fn renew(&mut self, desk: &Desk, stream: Stream) -> Result<Renewed, Failure> {
        let sign = Sign { at: unix_now(), ..self.sign.clone() };
        let known = self.of(stream).sequence();
        let mut place = known;
        loop {
            let is_elsewhere = place != known;
            if is_elsewhere && !is_ours(desk, &sign).await? {
                return Err(Failure::Conflict);
            }
            match write(desk, stream, &sign, place).await {
                Err(Failure::Conflict) => {
                    // An earlier try may have been stored without our knowing, so it counts who wrote the newest.
                    place = match newest(desk, stream, &sign.instance, &sign.incarnation).await? {
                        Some((place, found)) if found.writer == sign.writer => place,
                        Some(_) => return Err(Failure::Conflict),
                        None => 0,
                    };
                }
                written => {
                    let fence = written?;
                    // Who began after this was written finds it there, and writes the next one.
                    let is_lost = if is_elsewhere {
                        !is_ours(desk, &sign).await?
                    } else {
                        checkpoint::is_marked(desk, &sign.incarnation, &sign.writer).await?
                    };
                    if is_lost {
                        return Err(Failure::Conflict);
                    }
                    let renewed = if place < known { Renewed::WasGone } else { Renewed::Held };
                    match stream {
                        Stream::Connectivity | Stream::Access => self.connectivity = fence,
                        Stream::Messages => self.messages = fence,
                    }
                    return Ok(renewed);
                }
            }
        }
    }

    /// The one of a stream; of one that has none, the ledger's.
    pub(crate) fn of(&self, stream: Stream) -> &Fence {
        match stream {
            Stream::Connectivity | Stream::Access => &self.connectivity,
            Stream::Messages => &self.messages,
        }
    }
}

/// Writes a fence behind the place `last` of the one before it (0: there is none) and returns its own.
///
/// # Errors
/// [`Failure::Conflict`] when another one has been written since.
pub(crate) async fn write(desk: &Desk, stream: Stream, sign: &Sign, last: u64) -> Result<Fence, Failure> {
    let subject = subject::fence(stream, &sign.instance, &sign.incarnation);
    let body = serde_json::to_vec(sign).unwrap_or_default();
    let sequence = desk.put(&subject, body.into(), Expect::Last(last)).await?;
    Ok(Fence::new(subject, sequence))
}

/// The newest fence of the incarnation in the stream, and what it says.
pub(crate) async fn newest(
    desk: &Desk,
    stream: Stream,
    instance: &InstanceName,
    incarnation: &Incarnation,
) -> Result<Option<(u64, Sign)>, Failure> {
    let subject = subject::fence(stream, instance, incarnation);
    let last = desk.last(subject::stream_name(stream), &subject).await?;
    // One that cannot be read was written by nobody who closes sessions.
    Ok(last.map(|last| {
        let unreadable =
            || Sign { instance: instance.clone(), incarnation: *incarnation, writer: *incarnation, at: 0 };
        (last.sequence, serde_json::from_slice(&last.body).unwrap_or_else(|_| unreadable()))
    }))
}

/// Whether nobody else has begun to close the sessions of the incarnation that the sign names.
async fn is_ours(desk: &Desk, sign: &Sign) -> Result<bool, Failure> {
    checkpoint::is_untouched(desk, &sign.instance, &sign.incarnation, &sign.writer).await
}

async fn seize(desk: &Desk, stream: Stream, sign: &Sign) -> Result<Fence, Failure> {
    loop {
        let last =
            newest(desk, stream, &sign.instance, &sign.incarnation).await?.map_or(0, |(place, _)| place);
        match write(desk, stream, sign, last).await {
            Err(Failure::Conflict) => {}
            other => return other,
        }
    }
}
