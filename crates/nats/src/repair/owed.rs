//! The wills that a repair finds owed: numbering them, publishing what is due, handing over what waits.
//!
//! Owns: that each is published once, whoever repairs, and before its session's `disconnected`. Does not own: which are owed
//! ([`crate::wills`]), waiting (the hub).
//!
//! A will is the last message of its session. Its number is the next one behind those that are stored, and whoever repairs finds the same
//! one, until it is stored itself: then the session's newest message is its will, and there is nothing left to publish.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Message};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use landfall_event::wire::{self, Body};
use landfall_event::{
    Dropped, Encoded, Event, EventId, Occasion, SessionId, Stream, encode, encode_raw_upstream, subject,
};
use landfall_hub::{BoxFuture, KeptWill, UpstreamBody, unix_now};
use tokio::time::timeout;

use super::{Open, Repairer};
use crate::desk::{Expect, Failure};
use crate::fence::Fence;
use crate::message::{event_headers, header};
use crate::reading::{At, Selection};
use crate::wills::{self, Heard, Wills};

/// Wills that are published at the same time.
const WILLS_AT_ONCE: usize = 32;
/// How long the wills that wait may take to be kept.
const TAKING_OVER: Duration = Duration::from_secs(10);

impl Repairer {
    /// Sessions that began behind the fence, on other gateways: what a device has taken up again is not owed.
    pub(super) async fn see_later_sessions(&self, wills: &mut Wills, fence: u64) -> Result<(), Failure> {
        if wills.is_empty() {
            return Ok(());
        }
        let presence = vec![subject::presence_wildcard(self.instance())];
        let see = |_: At, message: Message| {
            if let Ok(event) = wire::read(|name| header(&message, name), &message.payload) {
                wills.see_later(&event);
            }
        };
        self.read(Stream::Connectivity, Selection::behind(fence).of(presence), see).await
    }

    /// Gives each its number and time, and leaves out what is published already.
    pub(super) async fn number_wills(
        &self,
        owed: Vec<KeptWill>,
        open: &HashMap<SessionId, Open>,
        behind: u64,
    ) -> Result<Vec<KeptWill>, Failure> {
        if owed.is_empty() {
            return Ok(owed);
        }
        let mut heard: HashMap<SessionId, Option<Heard>> =
            owed.iter().map(|will| (will.session(), None)).collect();
        let messages =
            vec![subject::upstream_subject(self.instance()), subject::downstream_subject(self.instance())];
        let selection = Selection::behind(behind).of(messages).headers_only();
        let hear = |at: At, message: Message| wills::hear(&mut heard, at.place, &message);
        self.read(Stream::Messages, selection, hear).await?;
        let mut judged: Vec<BoxFuture<'_, _>> = Vec::with_capacity(owed.len());
        for will in owed {
            let heard = heard.get(&will.session()).copied().flatten();
            let known = open.get(&will.session()).map_or(1, |open| open.next_message.max(1));
            judged.push(Box::pin(self.number(will, heard, known)));
        }
        let judged: Vec<Option<KeptWill>> =
            stream::iter(judged).buffered(WILLS_AT_ONCE).try_collect().await?;
        Ok(judged.into_iter().flatten().collect())
    }

    async fn number(
        &self,
        will: KeptWill,
        heard: Option<Heard>,
        known: u64,
    ) -> Result<Option<KeptWill>, Failure> {
        let is_published = match (will.owed, heard) {
            (_, None) => false,
            (Some(owed), Some(heard)) => heard.seq >= owed.seq,
            (None, Some(heard)) => self.is_will(heard).await?,
        };
        let next = heard.map_or(known, |heard| known.max(heard.seq.saturating_add(1)));
        Ok((!is_published).then(|| wills::number(will, next, unix_now())))
    }

    /// Is the session's newest message its will?
    async fn is_will(&self, heard: Heard) -> Result<bool, Failure> {
        let found = self.desk.at(subject::stream_name(Stream::Messages), heard.place).await?;
        Ok(found.is_some_and(|found| {
            let value = |name: &str| found.headers.get(name).map(HeaderValue::as_str);
            let event = wire::read(value, &found.payload);
            matches!(event.map(|event| event.body), Ok(Body::Upstream(upstream)) if upstream.details.will)
        }))
    }

    /// Publishes those that are due, and returns those that wait.
    pub(super) async fn publish_due(
        &self,
        owed: Vec<KeptWill>,
        fence: &Fence,
    ) -> Result<Vec<KeptWill>, Failure> {
        let now = unix_now();
        let (due, later): (Vec<_>, Vec<_>) =
            owed.into_iter().partition(|will| will.owed.is_some_and(|owed| owed.due_at <= now));
        let mut published: Vec<BoxFuture<'_, _>> = Vec::with_capacity(due.len());
        for will in due {
            published.push(Box::pin(self.publish_will(will, fence)));
        }
        let refused: Vec<bool> =
            stream::iter(published).buffer_unordered(WILLS_AT_ONCE).try_collect().await?;
        let messages = refused.into_iter().filter(|refused| *refused).count();
        if messages > 0 {
            let messages = u64::try_from(messages).unwrap_or(u64::MAX);
            self.hub.tell_dropped(Dropped { sessions: 0, messages, gaps: Vec::new() });
        }
        Ok(later)
    }

    /// True when the stream will not have it.
    async fn publish_will(&self, will: KeptWill, fence: &Fence) -> Result<bool, Failure> {
        let (session, seq) = (will.session(), will.owed.map_or(1, |owed| owed.seq));
        let id = EventId::Session(session, Stream::Messages, seq);
        let upstream = will.uplink.of(will.info.into(), seq, true);
        let occasion = Occasion { origin: &self.origin, id, at: unix_now() };
        let Encoded { body, headers: own } = match self.hub.upstream_body() {
            UpstreamBody::Raw => encode_raw_upstream(&occasion, &upstream),
            UpstreamBody::Event => encode(self.format, &occasion, &Event::Upstream(upstream)),
        };
        let mut headers = HeaderMap::new();
        let put = |name: &'static str, value: &dyn Display| headers.insert(name, value.to_string());
        event_headers(id, &own, Some(fence), put).map_err(|error| Failure::Refused(error.to_string()))?;
        let subject = subject::upstream_subject(self.instance());
        match self.desk.put(&subject, body, Expect::Headers(&headers)).await {
            Ok(_) => Ok(false),
            Err(Failure::Refused(why)) => {
                tracing::warn!(%session, why, "a will was refused and is lost");
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for those that are not due in the place of the one that owed them; returns when they are kept.
    pub(crate) async fn take_over(&self, owed: Vec<KeptWill>) -> Result<(), Failure> {
        let kept: Vec<_> = owed.into_iter().map(|will| self.hub.owe(will)).collect();
        let kept = timeout(TAKING_OVER, futures_util::future::join_all(kept)).await;
        let kept = kept.map_err(|_| Failure::Away("the wills that wait are not kept yet".to_owned()))?;
        if kept.iter().all(|kept| matches!(kept, Ok(Ok(())))) {
            return Ok(());
        }
        Err(Failure::Away("the wills that wait are not kept".to_owned()))
    }
}
