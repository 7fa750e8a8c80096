//! What the streams hold, for whoever reads them as a ledger; and who says that it is alive.
//!
//! Owns: reading a range of a stream in order, without a gap. Does not own: what the events mean (`landfall-ledger`).

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::stream::Info;
use async_nats::{Client, Message, datetime};
use landfall_event::subject::{self, stream_name};
use landfall_event::{Incarnation, InstanceName, Stream, UnixMs};

use crate::desk::{Desk, Failure};
use crate::lease::{self, Claim};
use crate::reading::{self, At, Selection};

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Behind this place; 0 is the beginning.
    Behind(u64),
    /// With the first message that was stored at this time or later.
    Time(UnixMs),
}

/// Where and when a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place in the stream, from 1.
    pub number: u64,
    /// When, by the server's clock.
    pub stored_at: UnixMs,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The place of the newest message; 0 when there never was one.
    pub newest: u64,
    /// Its limits may have cost it its oldest messages.
    pub is_cut: bool,
}

/// Fences are forgotten too, so that it does not begin at 1 says nothing alone.
fn is_cut(info: &Info, now: UnixMs) -> bool {
    let (config, first) = (&info.config, info.state.first_sequence);
    let is_counted =
        [config.max_bytes, config.max_messages, config.max_messages_per_subject].iter().any(|most| *most > 0);
    let created = reading::unix_ms(info.created);
    let is_aged =
        !config.max_age.is_zero() && u128::from(now.saturating_sub(created)) >= config.max_age.as_millis();
    first > 1 && (is_counted || is_aged)
}

/// Reads the two streams.
#[derive(Clone, Debug)]
pub struct History {
    desk: Desk,
}

impl History {
    /// Reads over `client`.
    pub fn new(client: Client) -> Self {
        Self { desk: Desk::new(client) }
    }

    /// What the stream holds at `now`.
    ///
    /// # Errors
    /// When JetStream does not answer, or there is no such stream.
    pub async fn extent(&self, stream: Stream, now: UnixMs) -> Result<Extent, Failure> {
        let name = stream_name(stream);
        let info = self.desk.info(name).await?;
        let info = info.ok_or(Failure::Missing(name))?;
        Ok(Extent { newest: info.state.last_sequence, is_cut: is_cut(&info, now) })
    }

    /// Shows every message from `since` up to the place `until`, in order.
    ///
    /// # Errors
    /// When JetStream does not answer, or answers with a gap.
    pub async fn read(
        &self,
        stream: Stream,
        since: Since,
        until: u64,
        mut each: impl FnMut(Place, &Message),
    ) -> Result<(), Failure> {
        let selection = match since {
            Since::Behind(place) if place >= until => return Ok(()),
            Since::Behind(place) => Selection::behind(place),
            Since::Time(at) => {
                let start_time =
                    datetime::from_nanos(i128::from(at).saturating_mul(1_000_000)).map_err(Failure::away)?;
                Selection::from(DeliverPolicy::ByStartTime { start_time })
            }
        };
        let selection = selection.before(until.saturating_add(1));
        let show = |at: At, message: Message| each(Place { number: at.place, stored_at: at.time }, &message);
        let stream = self.desk.stream(stream_name(stream)).await?;
        reading::read(&stream, selection, show).await.map_err(Failure::away)
    }

    /// The incarnations whose lease was written within twice its time to live before `now`: of one instance, or of all. `None` where
    /// nobody keeps leases.
    ///
    /// # Errors
    /// When JetStream does not answer.
    pub async fn alive(
        &self,
        instance: Option<&InstanceName>,
        now: UnixMs,
    ) -> Result<Option<Vec<Incarnation>>, Failure> {
        if self.desk.info(&lease::stream()).await?.is_none() {
            return Ok(None);
        }
        let filter = instance.map_or_else(subject::all_leases, subject::lease_wildcard);
        let mut alive = Vec::new();
        let selection = Selection::from(DeliverPolicy::LastPerSubject).of(vec![filter]);
        let take = |at: At, message: Message| {
            if let Ok(claim) = serde_json::from_slice::<Claim>(&message.payload)
                && now.saturating_sub(at.time) < claim.ttl_ms.saturating_mul(2)
            {
                alive.push(claim.incarnation);
            }
        };
        let stream = self.desk.stream(&lease::stream()).await?;
        reading::read(&stream, selection, take).await.map_err(Failure::away)?;
        Ok(Some(alive))
    }
}
