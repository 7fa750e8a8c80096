//! The fences while it publishes: written again before their streams discard them, put up again when a stream has lost one; and
//! the ledger held back until a checkpoint knows what it is about to discard.
//!
//! Owns: when that is due, by what was written. Does not own: how a fence is written ([`crate::fence`]), the limits
//! ([`crate::turnover`]).
//!
//! Nothing is sent between the decision and the new fence, so what this publisher writes behind one fence is bounded by a quarter of
//! the stream and one message, at whatever rate devices send.

use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_event::Stream;
use tokio::time::Instant;

use super::{Driver, Newest};
use crate::desk::Failure;
use crate::fence::{Renewed, STREAMS};
use crate::link::Link;
use crate::publisher::{Order, Standing};
use crate::turnover::{STORED_WITH, Written};

/// What was written since a fence was.
#[derive(Debug)]
pub(super) struct Since {
    own: u64,
    own_bytes: u64,
    /// Of the fence.
    place: u64,
    at: Instant,
}

impl Default for Since {
    fn default() -> Self {
        Self { own: 0, own_bytes: 0, place: 0, at: Instant::now() }
    }
}

impl Since {
    fn written(&self, newest: u64, age: Duration) -> Written {
        let others = newest.saturating_sub(self.place).saturating_sub(self.own);
        Written { own: self.own, own_bytes: self.own_bytes, others, age }
    }
}

impl Driver {
    /// Counts a message that is sent.
    pub(super) fn count_written(&mut self, stream: Stream, bytes: usize) {
        let bytes = STORED_WITH.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let since = self.since.of_mut(stream);
        since.own = since.own.saturating_add(1);
        since.own_bytes = since.own_bytes.saturating_add(bytes);
        if stream == Stream::Connectivity {
            self.shared.ledger.count(bytes);
        }
    }

    /// True when nothing more is sent before the fences are written again; each is of this age at least.
    pub(super) fn must_renew(&mut self, age: Duration) -> bool {
        if self.fences.is_none() || self.standing() != Standing::Publishing {
            return false;
        }
        if matches!(self.order, Some(Order::Renew)) {
            return true;
        }
        let Newest { connectivity, messages } =
            self.newest.unwrap_or(Newest { connectivity: 0, messages: 0 });
        let is_due = [(Stream::Connectivity, connectivity), (Stream::Messages, messages)].iter().any(
            |(stream, newest)| {
                let written = self.since.of(*stream).written(*newest, age);
                self.shared.limits.of(*stream).is_due(written)
            },
        );
        if is_due && self.order.is_none() {
            self.order = Some(Order::Renew);
        }
        is_due
    }

    /// With time the oldest goes too.
    pub(super) fn look_at_age(&mut self) {
        let age = STREAMS.map(|stream| self.since.of(stream).at.elapsed()).into_iter().max();
        self.must_renew(age.unwrap_or_default());
    }

    /// The server has refused an event by its fence: that is not the newest any more, or it is not there.
    pub(super) fn doubts_fence(&mut self) {
        self.goes_away();
        if self.fences.is_none() {
            self.fenced_out();
        } else if self.standing() == Standing::Publishing && self.order.is_none() {
            self.order = Some(Order::Renew);
        }
    }

    /// Writes each stream's fence again; what is sent later stands behind the new one, and what was sent before is stored by now or
    /// never will be. The right may turn out to be lost.
    pub(super) async fn renew_fences(&mut self, link: &Link) -> Result<(), Failure> {
        let desk = link.desk();
        for stream in STREAMS {
            let Some(fences) = &mut self.fences else { return Ok(()) };
            match fences.renew(&desk, stream).await {
                Err(Failure::Conflict) => {
                    self.fenced_out();
                    return Ok(());
                }
                Err(error) => return Err(error),
                Ok(Renewed::Held) => {}
                Ok(Renewed::WasGone) => self.was_gone(stream),
            }
            self.fence_is_new(stream);
        }
        Ok(())
    }

    /// The fences were written just now.
    pub(super) fn fences_are_new(&mut self) {
        STREAMS.into_iter().for_each(|stream| self.fence_is_new(stream));
    }

    fn fence_is_new(&mut self, stream: Stream) {
        let place = self.fences.as_ref().map_or(0, |fences| fences.of(stream).sequence());
        *self.since.of_mut(stream) = Since { place, ..Since::default() };
        if let Some(newest) = &mut self.newest {
            let newest = newest.of(stream);
            *newest = (*newest).max(place);
        }
    }

    /// The stream had lost the fence. What it holds begins anew too, if it was made again.
    fn was_gone(&mut self, stream: Stream) {
        let name = landfall_event::subject::stream_name(stream);
        tracing::warn!(
            stream = name,
            "this gateway's fence was gone and nobody had closed its sessions: the stream was purged, cut, made again or restored; \
             the fence is written again, and the sessions go on"
        );
        self.shared.counters.fences_restored.fetch_add(1, Ordering::Relaxed);
        if stream == Stream::Connectivity {
            self.shared.ledger.was_cut();
        }
        let place = self.fences.as_ref().map_or(0, |fences| fences.of(stream).sequence());
        let Some(newest) = &mut self.newest else { return };
        if place > *newest.of(stream) {
            return;
        }
        *newest.of(stream) = place;
        let all = self.window.unsettled_mut().chain(&mut self.ahead).chain(&mut self.later);
        all.filter(|item| item.publication.stream == stream).for_each(|item| item.behind = 0);
        if let Some(keep) = &mut self.keep {
            keep.begin(0, 0);
        }
    }

    /// How many of so many may be taken from the queue now: while half of the ledger has turned over since the last checkpoint, only
    /// what the next one waits for.
    pub(super) fn let_through(&mut self, room: usize) -> usize {
        let ledger = &self.shared.ledger;
        let newest = self.newest.map_or(0, |newest| newest.connectivity);
        let limits = self.shared.limits.of(Stream::Connectivity);
        let written = ledger.written(newest);
        if limits.is_due(Written { age: Duration::ZERO, ..written }) {
            ledger.due.notify_one();
        }
        if self.is_keep_empty() && limits.is_half(written) {
            ledger.let_through(self.shared.taken().0, room, Instant::now())
        } else {
            room
        }
    }
}
