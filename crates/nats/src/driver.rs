//! The publisher's task: from the queue through the window onto one connection after another.
//!
//! Owns: when to connect, send, send again and give up; and, after an outage that a stream's duplicate window does not
//! reach across, asking the stream what it holds before anything is sent a second time. Does not own: the order of sending
//! ([`crate::window`]).

mod aside;
mod fencing;
mod keeping;
mod office;
mod stock;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use landfall_event::Stream;
use landfall_hub::{Publication, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::connect::{Target, reconnect_delay};
use crate::fence::Fences;
use crate::keep::Keep;
use crate::line::Lost;
use crate::link::Link;
use crate::publisher::{Order, Shared, Standing};
use crate::trouble::Cause;
use crate::turnover::OfEach;
use crate::window::{Bounds, Settled, Tick, Verdict, Window};
use crate::{ack, beside};

/// Messages that are sent before acknowledgements are looked at again, and the other way round.
const BATCH: usize = 256;
/// A batch ends with the message that makes it so large: a slow way is to carry it within the patience for one.
const BATCH_BYTES: usize = 256 << 10;
/// How often a silent connection is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Why a connection is no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It broke, or the server has been silent for too long.
    Lost(&'static str),
    /// JetStream does not answer, of which a complaint has been made.
    Unanswered,
    /// Everything is settled and the end has been asked for, or its deadline has passed.
    Finished,
}

/// A publication in the window.
#[derive(Debug)]
struct Item {
    publication: Publication,
    /// The newest place in its stream that was known before it was first sent: it can only lie behind.
    behind: u64,
    /// Its record in the spool, if it came from there.
    record: Option<u64>,
    /// It was sent and not answered: the stream may have it.
    sent: bool,
}

/// The newest place that is known of each stream that has fences; nothing of another is in the window.
#[derive(Clone, Copy, Debug)]
struct Newest {
    connectivity: u64,
    messages: u64,
}

impl Newest {
    fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Connectivity | Stream::Access => &mut self.connectivity,
            Stream::Messages => &mut self.messages,
        }
    }
}

/// The state of the task.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    target: Target,
    bounds: Bounds,
    window: Window<Item>,
    newest: Option<Newest>,
    /// Behind which it publishes.
    fences: Option<Fences>,
    /// What it has written since each of them was.
    since: OfEach<fencing::Since>,
    /// What it was asked to do and has not done.
    order: Option<Order>,
    /// What goes before everything in the spool and the queue.
    ahead: VecDeque<Item>,
    /// What is kept on disk: behind `ahead`, before `later` and the queue.
    keep: Option<Keep>,
    /// What was sent before the disk was written to and found no room there.
    later: VecDeque<Item>,
    /// Since when nothing can be stored.
    away_since: Option<Instant>,
    /// What comes is put into the spool.
    keeping: bool,
    /// What waited when something was stored again; 0 once all of it is told.
    catching_up: u64,
    /// Something outside the window was sent and not answered: nothing more is sent before the streams were asked.
    unsure: bool,
    /// Publications on their way from the queue into the window; empty between two steps.
    taken: Vec<Publication>,
    origin: Instant,
    /// Attempts to connect, ever.
    attempts: usize,
    /// Attempts since a connection last stored something: one that is taken and broken again at once counts as well.
    failures: usize,
    /// The highest number that was sent before: a lower one is sent again.
    sent_to: u64,
    end: watch::Sender<bool>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        target: Target,
        (bounds, fenced): (Bounds, bool),
        keep: Option<Keep>,
        end: watch::Sender<bool>,
    ) -> Self {
        if !fenced {
            shared.standing.send_replace(Standing::Publishing);
        }
        Self {
            shared,
            target,
            bounds,
            window: Window::new(bounds),
            newest: None,
            fences: None,
            since: OfEach::default(),
            order: None,
            ahead: VecDeque::new(),
            keep,
            later: VecDeque::new(),
            away_since: None,
            keeping: false,
            catching_up: 0,
            unsure: false,
            taken: Vec::with_capacity(BATCH),
            origin: Instant::now(),
            attempts: 0,
            failures: 0,
            sent_to: 0,
            end,
        }
    }

    /// Publishes until the end is asked for and reached.
    pub(crate) async fn run(mut self) {
        let mut connections = 0_u64;
        while let Some(mut link) = self.connect().await {
            if connections > 0 {
                self.shared.counters.reconnects.fetch_add(1, Ordering::Relaxed);
            }
            connections += 1;
            tracing::info!(to = %self.target, connections, "publishing");
            let end = self.serve(&mut link).await;
            if let Err(End::Lost(why)) = end {
                self.complain_of(&link, &format!("the publishing connection is lost: {why}"));
            }
            self.shared.ready.store(false, Ordering::Relaxed);
            self.goes_away();
            self.window.reset(self.now());
            self.shared.beside.lock().reset();
            self.keep_again();
            self.count_in_flight();
            match end {
                Err(End::Lost(why)) => {
                    let unsettled = self.window.unsettled().count();
                    tracing::debug!(why, unsettled, "the publishing connection is lost");
                }
                Err(End::Unanswered) => {}
                Ok(()) | Err(End::Finished) => break,
            }
        }
    }

    /// Connects, for as long as it takes; `None` when the end is reached first.
    async fn connect(&mut self) -> Option<Link> {
        loop {
            if self.is_finished() {
                return None;
            }
            let deadline = self.shared.deadline();
            let target = self.target.clone();
            let (attempts, delay) = (self.attempts, reconnect_delay(self.failures));
            let attempt = async move {
                sleep(delay).await;
                let address = target.address(attempts)?;
                Some(Link::open(&target, address).await)
            };
            let shared = Arc::clone(&self.shared);
            let opened = {
                let mut attempt = std::pin::pin!(attempt);
                loop {
                    tokio::select! {
                        opened = &mut attempt => break Some(opened),
                        () = shared.closing.notified() => break None,
                        () = until(deadline) => return None,
                        () = sleep(WATCH_INTERVAL) => self.keep_what_waits(),
                        () = shared.wake.notified() => self.keep_what_waits(),
                    }
                }
            };
            let Some(opened) = opened else { continue };
            let opened = opened?;
            self.attempts = self.attempts.wrapping_add(1);
            self.failures = self.failures.saturating_add(1);
            match opened {
                Ok(link) => return Some(link),
                Err(error) => self.complain(&error.to_string()),
            }
        }
    }

    /// Publishes over one connection until it breaks or everything is done.
    async fn serve(&mut self, link: &mut Link) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let stock = tokio::select! {
            stock = self.take_stock(link) => stock,
            () = given_up(&shared) => return Err(End::Finished),
        };
        if let Err(error) = stock {
            self.complain_of(link, &error.to_string());
            return Err(End::Unanswered);
        }
        let mut watch = interval(WATCH_INTERVAL);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.obey(link).await?;
            if self.unsure && self.standing() == Standing::Publishing {
                return Err(End::Lost("what it was sent has to be asked for"));
            }
            self.take_acknowledgements(link)?;
            let patience = Duration::from_millis(self.bounds.ack_timeout_ms);
            self.send_beside(link);
            let more = timeout(patience, self.send_batch(link))
                .await
                .map_err(|_| End::Lost("it takes nothing"))??;
            let ready = self.window.is_open() && self.standing() == Standing::Publishing;
            self.shared.ready.store(ready, Ordering::Relaxed);
            self.count_in_flight();
            if self.is_finished() {
                return Err(End::Finished);
            }
            if more {
                continue;
            }
            let pause = self.window.paused_until().map(|at| self.origin + Duration::from_millis(at));
            tokio::select! {
                biased;
                acknowledgement = link.acknowledgement() => {
                    let (number, answer) = acknowledgement.map_err(|Lost| End::Lost("it broke"))?;
                    self.settle(number, &answer);
                }
                () = self.shared.ordered.notified() => {}
                () = self.shared.wake.notified() => self.keep_what_waits(),
                () = until(pause) => {}
                () = until(self.shared.deadline()) => return Err(End::Finished),
                _ = watch.tick() => {
                    if self.window.is_stalled(self.now()) {
                        return Err(End::Lost("no acknowledgement comes"));
                    }
                    link.look(Instant::now()).map_err(|Lost| End::Lost("it is silent"))?;
                    self.look_at_age();
                    self.keep_what_waits();
                    self.has_caught_up();
                }
            }
        }
    }

    /// Sends what the window lets through, at most a batch; true when there may be more.
    async fn send_batch(&mut self, link: &mut Link) -> Result<bool, End> {
        if self.standing() != Standing::Publishing || matches!(self.order, Some(Order::Renew)) {
            link.flush().await.map_err(|Lost| End::Lost("it broke"))?;
            return Ok(false);
        }
        self.admit();
        let now = self.now();
        let mut sent = 0;
        while sent < BATCH && link.unwritten() < BATCH_BYTES && !self.must_renew(Duration::ZERO) {
            let Some((number, item)) = self.window.next(now) else { break };
            sent += 1;
            if number < self.sent_to {
                self.shared.counters.retried.fetch_add(1, Ordering::Relaxed);
            }
            self.sent_to = self.sent_to.max(number + 1);
            let stream = item.publication.stream;
            let fence = self.fences.as_ref().map(|fences| fences.of(stream));
            match link.send(number, &item.publication, fence) {
                Ok(bytes) => self.count_written(stream, bytes),
                Err(error) => {
                    if let Settled::Done(item) = self.window.settle(number, Verdict::Final, now) {
                        self.settle_kept(item.record);
                        self.shared.refuse(item.publication, error);
                    }
                }
            }
        }
        let must_renew = matches!(self.order, Some(Order::Renew)) && self.window.in_flight() == 0;
        let more = sent == BATCH || link.unwritten() >= BATCH_BYTES || must_renew;
        link.flush().await.map_err(|Lost| End::Lost("it broke"))?;
        Ok(more)
    }

    /// Fills the window from the queue.
    fn admit(&mut self) {
        let mut room = self.window.room().min(BATCH);
        while room > 0
            && let Some(item) =
                self.ahead.pop_front().or_else(|| self.next_kept()).or_else(|| self.later.pop_front())
        {
            room -= 1;
            self.window.admit(item);
        }
        if room > 0 && self.may_pass_disk() {
            let room = self.let_through(room);
            self.shared.take(room, &mut self.taken);
            for publication in self.taken.drain(..) {
                let behind = self.newest.as_mut().map_or(0, |newest| *newest.of(publication.stream));
                self.window.admit(Item { publication, behind, record: None, sent: false });
            }
        }
    }

    /// Takes the acknowledgements that have arrived, without waiting.
    fn take_acknowledgements(&mut self, link: &mut Link) -> Result<(), End> {
        for _ in 0..BATCH {
            let Some(arrived) = link.acknowledgement().now_or_never() else { break };
            let (number, answer) = arrived.map_err(|Lost| End::Lost("it broke"))?;
            self.settle(number, &answer);
        }
        Ok(())
    }

    fn settle(&mut self, number: u64, answer: &ack::Answer) {
        if beside::is_beside(number) {
            return self.settle_beside(number, answer);
        }
        match self.window.settle(number, answer.verdict, self.now()) {
            Settled::Done(item) if answer.verdict == Verdict::Stored => {
                self.failures = 0;
                self.is_back();
                if let Some(newest) = &mut self.newest {
                    let newest = newest.of(item.publication.stream);
                    *newest = (*newest).max(answer.sequence);
                }
                self.is_stored(item);
            }
            Settled::Done(Item { publication, record, .. }) => {
                self.settle_kept(record);
                tracing::warn!(id = %publication.id, why = ?answer.why, "refused for good");
                self.shared.refuse(publication, StoreError::Refused(answer.why.clone()));
            }
            Settled::Again if answer.verdict == Verdict::Fenced => self.doubts_fence(),
            Settled::Again => {
                if answer.is_beside_another {
                    self.window.one_by_one(true);
                }
                self.goes_away();
                self.complain(&answer.why);
            }
            Settled::Unknown => {}
        }
    }

    /// The stream has it.
    fn is_stored(&mut self, Item { publication, record, .. }: Item) {
        self.settle_kept(record);
        self.shared.counters.stored.fetch_add(1, Ordering::Relaxed);
        publication.receipt.stored();
    }

    fn is_finished(&self) -> bool {
        match self.shared.deadline() {
            Some(deadline) => {
                deadline <= Instant::now()
                    || (self.window.is_empty()
                        && self.ahead.is_empty()
                        && self.later.is_empty()
                        && self.is_keep_empty()
                        && self.shared.beside.lock().is_done()
                        && self.shared.is_queue_empty())
            }
            None => false,
        }
    }

    fn settle_kept(&mut self, record: Option<u64>) {
        if let (Some(number), Some(keep)) = (record, &mut self.keep) {
            keep.settle(number);
        }
    }

    fn count_in_flight(&self) {
        let counters = &self.shared.counters;
        let (records, bytes, limit) = self.keep.as_ref().map_or((0, 0, 0), Keep::fill);
        counters.kept.store(records, Ordering::Relaxed);
        counters.kept_bytes.store(bytes, Ordering::Relaxed);
        counters.kept_limit.store(limit, Ordering::Relaxed);
        let has_room = self.may_keep() && self.keep.as_ref().is_some_and(|keep| !keep.is_full());
        self.shared.disk_has_room.store(has_room, Ordering::Relaxed);
        self.shared.counters.in_flight.store(self.window.in_flight() as u64, Ordering::Relaxed);
    }

    fn complain(&self, why: &str) {
        self.shared.troubles.note(Cause::of(why), why, Instant::now());
    }

    /// As [`Self::complain`], of a connection. A server that forbids something leaves it unanswered, and says so beside it.
    fn complain_of(&self, link: &Link, why: &str) {
        match link.said().filter(|said| Cause::of(said) == Cause::PermissionMissing) {
            Some(said) => self.complain(&said),
            None => self.complain(why),
        }
    }

    fn now(&self) -> Tick {
        Tick::try_from(self.origin.elapsed().as_millis()).unwrap_or(Tick::MAX)
    }
}

/// However the task ends, nobody waits for it in vain.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.ready.store(false, Ordering::Relaxed);
        self.shared.keeping.store(false, Ordering::Relaxed);
        self.shared.disk_has_room.store(false, Ordering::Relaxed);
        let kept = self.leave_kept();
        self.shared.counters.given_up.fetch_add(kept, Ordering::Relaxed);
        let window: Vec<Item> = self.window.drain().map(|(item, _)| item).collect();
        let rest: Vec<Publication> = window
            .into_iter()
            .chain(self.ahead.drain(..))
            .chain(self.later.drain(..))
            .map(|item| item.publication)
            .collect();
        let left = self.shared.beside.lock().drain();
        left.into_iter().for_each(|one| self.shared.refuse_beside(one, StoreError::Closed));
        self.count_in_flight();
        let taken = std::mem::take(&mut self.taken);
        let rest = rest.into_iter().chain(taken);
        for publication in rest.chain(self.shared.end()) {
            self.shared.counters.given_up.fetch_add(1, Ordering::Relaxed);
            self.shared.refuse(publication, StoreError::Closed);
        }
        self.end.send_replace(true);
    }
}

/// Waits until the deadline of the end has passed, also of one that is set only while this waits.
async fn given_up(shared: &Shared) {
    loop {
        tokio::select! {
            () = until(shared.deadline()) => return,
            () = shared.closing.notified() => {}
        }
    }
}

/// Waits until then; for ever without a time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
