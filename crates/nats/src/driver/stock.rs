//! What was stored before a connection was lost: asking the streams.
//!
//! Owns: when that is asked, and settling what is found. Does not own: how a stream is read ([`crate::link`]).
//!
//! Nothing is asked, or sent again, before the fences are written anew: then what is on its way on an older connection can no longer be
//! stored, so the answer stays true; and what the streams show stands before a write that was acknowledged, so that a server
//! which is killed keeps it.

use std::collections::{HashMap, HashSet, VecDeque};

use landfall_event::{EventId, Stream, subject};

use super::{Driver, Item, Newest};
use crate::ack;
use crate::desk::Failure;
use crate::fence::STREAMS;
use crate::keep::Keep;
use crate::link::Link;
use crate::publisher::Standing;
use crate::window::Tick;

/// Where something waits that the stream may have.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// In the window, under this number.
    Window(u64),
    /// Ahead of everything, or behind the disk.
    Aside,
    /// On the disk, under this id.
    Disk(EventId),
}

impl Driver {
    /// Before anything is sent: where the streams end now, if that is not known yet; and which messages they hold that are on the
    /// disk, or were under way for so long that a stream may have forgotten their ids.
    pub(super) async fn take_stock(&mut self, link: &Link) -> Result<(), Failure> {
        let mut newest = Newest { connectivity: 0, messages: 0 };
        let (mut remembered, mut replicated) = (Tick::MAX, false);
        for stream in STREAMS {
            let Some(end) = link.end_of(stream).await.map_err(Failure::away)? else { continue };
            *newest.of(stream) = end.newest;
            remembered = remembered.min(Tick::try_from(end.remembers.as_millis() / 2).unwrap_or(Tick::MAX));
            replicated |= end.is_replicated;
            self.shared.limits.of(stream).note(&end.info);
        }
        self.newest.get_or_insert(newest);
        self.heed_copies(replicated);
        // Who is fenced out sends nothing, and asks when that is final.
        if matches!(self.standing(), Standing::Fenced | Standing::Surrendered) {
            return Ok(());
        }
        let since = self.window.doubtful_since();
        let must_ask = self.unsure || !self.is_keep_empty();
        // Also with nothing in doubt: a server that was killed may show fences again that were purged with this one's end.
        self.renew_fences(link).await?;
        let forgotten = since.is_some_and(|since| self.now().saturating_sub(since) >= remembered);
        if self.standing() == Standing::Fenced || !(must_ask || forgotten) {
            return Ok(());
        }
        self.ask(link).await.map_err(Failure::away)
    }

    /// With fences to publish behind for the first time: whether the streams are kept on several servers.
    pub(super) async fn look_at_copies(&mut self, link: &Link) -> Result<(), Failure> {
        let mut replicated = false;
        for stream in STREAMS {
            let end = link.end_of(stream).await.map_err(Failure::away)?;
            if let Some(end) = end {
                replicated |= end.is_replicated;
                self.shared.limits.of(stream).note(&end.info);
            }
        }
        self.heed_copies(replicated);
        Ok(())
    }

    /// A stream that is kept on several servers takes one message at a time that names a fence, and refuses others meanwhile.
    fn heed_copies(&mut self, replicated: bool) {
        if self.fences.is_some() {
            self.window.one_by_one(replicated);
        }
    }

    /// Settles whatever the streams hold already of what is in the window, aside and on the disk.
    pub(super) async fn ask(&mut self, link: &Link) -> Result<(), async_nats::Error> {
        let kept = self.keep.as_mut().filter(|keep| !keep.is_empty()).map(Keep::ids).unwrap_or_default();
        for stream in STREAMS {
            let Some(end) = link.end_of(stream).await? else { continue };
            let (mut behind, mut unsure) = self.unsure_of(stream);
            if let Some(keep) = self.keep.as_ref().filter(|_| !kept.is_empty()) {
                behind = behind.min(keep.behind(stream));
                for (now, id) in &kept {
                    unsure.entry(*now).or_insert(Where::Disk(*id));
                }
            }
            if unsure.is_empty() {
                continue;
            }
            // A stream that was made anew begins at 1 again.
            let behind = if behind > end.newest { 0 } else { behind };
            let mut found = Vec::new();
            // What is sought cannot stand behind the newest: the fences were written before.
            let range = (behind, end.newest);
            link.ids_within(stream, range, |id| found.extend(unsure.remove_entry(&id))).await?;
            let (stream, count) = (subject::stream_name(stream), found.len());
            tracing::info!(stream, found = count, "asked what was stored before the connection was lost");
            self.are_stored(found);
        }
        self.window.no_doubt();
        self.unsure = false;
        self.ahead.iter_mut().chain(&mut self.later).for_each(|item| item.sent = false);
        if !kept.is_empty() {
            tracing::info!(events = kept.len(), "publishing what was kept on disk");
        }
        Ok(())
    }

    /// What of the stream is in the window and aside, and behind which place it can only be.
    fn unsure_of(&self, stream: Stream) -> (u64, HashMap<EventId, Where>) {
        let window = self.window.unsettled().map(|(number, item)| (item, Where::Window(number)));
        let aside = self.ahead.iter().chain(&self.later).filter(|item| item.sent);
        let all = window.chain(aside.map(|item| (item, Where::Aside)));
        let (mut behind, mut unsure) = (u64::MAX, HashMap::new());
        for (item, place) in all.filter(|(item, _)| item.publication.stream == stream) {
            behind = behind.min(item.behind);
            unsure.insert(item.publication.id, place);
        }
        (behind, unsure)
    }

    fn are_stored(&mut self, found: Vec<(EventId, Where)>) {
        let mut aside = HashSet::new();
        for (id, place) in found {
            match (place, &mut self.keep) {
                (Where::Window(number), _) => self.settle(number, &ack::Answer::stored(0)),
                (Where::Disk(id), Some(keep)) => keep.are_stored([id]),
                (Where::Disk(_), None) => {}
                (Where::Aside, _) => drop(aside.insert(id)),
            }
        }
        if aside.is_empty() {
            return;
        }
        let is_found = |item: &Item| aside.contains(&item.publication.id);
        let (ahead, later) = (std::mem::take(&mut self.ahead), std::mem::take(&mut self.later));
        let (stored_ahead, ahead): (VecDeque<Item>, VecDeque<Item>) = ahead.into_iter().partition(is_found);
        let (stored_later, later): (VecDeque<Item>, VecDeque<Item>) = later.into_iter().partition(is_found);
        (self.ahead, self.later) = (ahead, later);
        stored_ahead.into_iter().chain(stored_later).for_each(|item| self.is_stored(item));
    }
}
