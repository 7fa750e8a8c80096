//! The bus on JetStream: what is submitted is stored, in order, acknowledged one by one.
//!
//! Owns: [`landfall_hub::Bus`] on NATS: the queue in front of the window, the counters, the way to end. Does not own: the
//! window's rules ([`crate::window`]), connections ([`crate::link`]), the loop between them ([`crate::driver`]), how many
//! publications may be under way (their submitters hold permits for that).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use landfall_event::{Dropped, EventId, Gap, SessionId, Stream};
use landfall_hub::{Anew, Bus, Publication, StoreError, Unstored};
use landfall_net::Scope;
use landfall_spool::RANGES;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::beside::Beside;
use crate::connect::Target;
use crate::driver::Driver;
use crate::fence::Fences;
use crate::keep::Keep;
use crate::pace::{Mark, Pace};
use crate::trouble::{Cause, Trouble, Troubles};
use crate::turnover::{Limits, OfEach};
use crate::window::Bounds;

/// nats-server keeps at most 10,000 messages (`max_buffered_msgs`) in front of a stream and refuses the rest; a window
/// below that, with room for another publisher, never meets the limit.
pub const LARGEST_WINDOW: usize = 8192;
/// Replies that may wait for the connection; further ones are dropped, as a reply is sent at most once anyway.
const REPLIES_WAITING: usize = 4096;

/// How often it is looked at whether everything is stored, at the end.
const SETTLED_POLL: Duration = Duration::from_millis(10);

/// How long the last replies may take.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// How a [`Publisher`] works.
#[derive(Debug, Default)]
pub struct PublisherSettings {
    /// The bounds of the window. `in_flight` is held to [`LARGEST_WINDOW`].
    pub bounds: Bounds,
    /// Nothing is published before there are fences to publish behind ([`Publisher::begin`]).
    pub fenced: bool,
    /// Where events are kept while they cannot be stored; without it they wait in memory.
    pub kept: Option<Kept>,
}

/// A place on disk for what cannot be stored.
#[derive(Debug)]
pub struct Kept {
    pub(crate) keep: Keep,
}

/// How far the right to publish goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has no fences yet.
    #[default]
    Waiting,
    /// It publishes.
    Publishing,
    /// The server has refused an event: somebody else has written the newest fence.
    Fenced,
    /// It knows of every event whether it was stored, and holds those that were not.
    Surrendered,
}

/// What a publisher goes on with that was fenced out.
#[derive(Debug)]
pub struct Resumption {
    /// The right to publish as the new incarnation.
    pub fences: Fences,
    /// Who that is, and which session goes on as which.
    pub anew: Anew,
}

/// What its task is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    Begin(Fences),
    Surrender,
    Resume(Box<Resumption>),
    Renew,
}

/// What a publisher has done since it started, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Publications taken.
    pub submitted: u64,
    /// Acknowledged by JetStream.
    pub stored: u64,
    /// Sent again: after a refusal that passes, or on a new connection.
    pub retried: u64,
    /// Refused for good, or left over when the publisher ended.
    pub refused: u64,
    /// Sent and not acknowledged.
    pub in_flight: u64,
    /// Taken and not sent.
    pub queued: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Replies that were dropped because too many waited for the connection.
    pub replies_dropped: u64,
    /// Dropped from the disk for want of room.
    pub dropped: u64,
    /// Refusals that wait for their stream, beside the queue.
    pub beside: u64,
    /// The most of them; further ones cost the oldest.
    pub beside_limit: u64,
    /// On disk, because they cannot be stored.
    pub kept: u64,
    /// The bytes that they take there.
    pub kept_bytes: u64,
    /// The most bytes; 0 without a disk.
    pub kept_limit: u64,
    /// Fences that a stream had lost, and that were put up again.
    pub fences_restored: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) submitted: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) replies_dropped: AtomicU64,
    /// Left over at the end.
    pub(crate) given_up: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) kept: AtomicU64,
    pub(crate) kept_bytes: AtomicU64,
    pub(crate) kept_limit: AtomicU64,
    pub(crate) fences_restored: AtomicU64,
}

/// What the publisher's face and its task share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    /// What has no fence, beside the queue and the window.
    pub(crate) beside: Mutex<Beside>,
    /// The queue is no longer empty, or the end is asked for.
    pub(crate) wake: Notify,
    /// The end is asked for.
    pub(crate) closing: Notify,
    pub(crate) counters: Counters,
    pub(crate) ready: AtomicBool,
    pub(crate) keeping: AtomicBool,
    /// There is a disk, and it takes what cannot be stored.
    pub(crate) disk_has_room: AtomicBool,
    pub(crate) standing: watch::Sender<Standing>,
    /// The limits of the streams, as last told.
    pub(crate) limits: OfEach<Limits>,
    /// How far the ledger has turned over.
    pub(crate) ledger: Pace,
    order: Mutex<Option<Order>>,
    /// There is an order.
    pub(crate) ordered: Notify,
    dropped: Mutex<Option<Dropped>>,
    /// What keeps events from being stored.
    pub(crate) troubles: Troubles,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Publication>,
    /// Publications that were taken out of it, ever.
    taken: u64,
    /// When submitting ends: nothing is taken any more, and what is not stored by then is given up.
    deadline: Option<Instant>,
    /// While the publisher has surrendered: the first numbers of each session that are not stored.
    unstored: Option<Index>,
}

/// Adds a gap, to the last one if it goes on with that.
fn add_gap(gaps: &mut Vec<Gap>, gap: Gap) {
    let has_room = gaps.len() < RANGES;
    match gaps.last_mut() {
        Some(last) if last.session == gap.session && last.to.checked_add(1) == Some(gap.from) => {
            last.to = gap.to;
        }
        _ if has_room => gaps.push(gap),
        _ => {}
    }
}

/// Sessions with something that is not stored.
pub(crate) type Index = HashMap<SessionId, Unstored>;

/// Notes a publication, which comes behind all that are noted.
pub(crate) fn note(index: &mut Index, id: EventId) {
    if let EventId::Session(session, stream, seq) = id {
        let unstored = index.entry(session).or_default();
        let first = match stream {
            Stream::Connectivity => &mut unstored.presence,
            Stream::Messages => &mut unstored.messages,
            Stream::Access => return,
        };
        first.get_or_insert(seq);
    }
}

impl Shared {
    /// Moves up to `most` publications out of the queue.
    pub(crate) fn take(&self, most: usize, into: &mut Vec<Publication>) {
        let mut queue = self.queue.lock();
        let count = most.min(queue.waiting.len());
        queue.taken = queue.taken.saturating_add(u64::try_from(count).unwrap_or(0));
        into.extend(queue.waiting.drain(..count));
    }

    /// Puts what was taken back in front.
    pub(crate) fn put_back(&self, publications: Vec<Publication>) {
        let mut queue = self.queue.lock();
        queue.taken = queue.taken.saturating_sub(u64::try_from(publications.len()).unwrap_or(0));
        publications.into_iter().rev().for_each(|publication| queue.waiting.push_front(publication));
    }

    /// Publications that were taken out of the queue, ever; and those that were or are in it.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let queue = self.queue.lock();
        (queue.taken, queue.taken.saturating_add(u64::try_from(queue.waiting.len()).unwrap_or(0)))
    }

    /// When to give up, once the end has been asked for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.lock().deadline
    }

    pub(crate) fn is_queue_empty(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }

    /// Takes nothing more and gives back what waits.
    pub(crate) fn end(&self) -> VecDeque<Publication> {
        let mut queue = self.queue.lock();
        queue.deadline.get_or_insert_with(Instant::now);
        std::mem::take(&mut queue.waiting)
    }

    /// Notes what waits behind what `index` knows already, and everything that comes, until [`Self::rewrite`].
    pub(crate) fn index(&self, mut index: Index) {
        let mut queue = self.queue.lock();
        queue.waiting.iter().for_each(|waiting| note(&mut index, waiting.id));
        queue.unstored = Some(index);
    }

    /// What is known of the sessions' unstored events, taken; and everything that waits, for `rewrite` to change.
    pub(crate) fn rewrite(
        &self,
        rewrite: impl FnOnce(&Index, VecDeque<Publication>) -> VecDeque<Publication>,
    ) {
        let mut queue = self.queue.lock();
        let index = queue.unstored.take().unwrap_or_default();
        let waiting = std::mem::take(&mut queue.waiting);
        queue.waiting = rewrite(&index, waiting);
        drop(queue);
        self.wake.notify_one();
    }

    /// The order that has come since the last call.
    pub(crate) fn take_order(&self) -> Option<Order> {
        self.order.lock().take()
    }

    /// Adds to what was dropped. Of more gaps than [`RANGES`] that nobody has asked for yet the messages are only counted.
    pub(crate) fn note_dropped(&self, more: Dropped) {
        let mut dropped = self.dropped.lock();
        match &mut *dropped {
            Some(dropped) => {
                dropped.sessions += more.sessions;
                dropped.messages += more.messages;
                more.gaps.into_iter().for_each(|gap| add_gap(&mut dropped.gaps, gap));
            }
            None => *dropped = Some(more),
        }
    }

    /// Takes what has no fence. It counts as submitted when it is settled: nobody waits for it.
    pub(crate) fn put_beside(&self, publication: Publication) {
        let crowded_out = match self.deadline() {
            Some(_) => Some(publication),
            None => self.beside.lock().put(publication),
        };
        match crowded_out {
            Some(publication) => self.refuse_beside(publication, StoreError::Closed),
            None => self.wake.notify_one(),
        }
    }

    /// What has no fence is not stored.
    pub(crate) fn refuse_beside(&self, publication: Publication, error: StoreError) {
        self.counters.submitted.fetch_add(1, Ordering::Relaxed);
        self.refuse(publication, error);
    }

    pub(crate) fn refuse(&self, publication: Publication, error: StoreError) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        publication.receipt.refused(error);
    }
}

/// See the module's description. Dropping it ends nothing: [`Publisher::close`] does.
pub struct Publisher {
    shared: Arc<Shared>,
    replies: mpsc::Sender<(String, Bytes)>,
    published: watch::Receiver<bool>,
    replied: watch::Receiver<bool>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Starts publishing to `target`; `client` sends the replies. Connects in the background, and again for as long as it
    /// takes. The tasks in `scope` end by [`close`](Self::close) and not by the scope's cancellation, so that what
    /// happens while everything else ends is published too.
    pub fn start(scope: &Scope, target: Target, client: Client, settings: PublisherSettings) -> Self {
        let shared = Arc::new(Shared::default());
        let (end, published) = watch::channel(false);
        let keep = settings.kept.map(|kept| kept.keep);
        let bounds =
            Bounds { in_flight: settings.bounds.in_flight.clamp(1, LARGEST_WINDOW), ..settings.bounds };
        scope.spawn(Driver::new(Arc::clone(&shared), target, (bounds, settings.fenced), keep, end).run());
        let (replies, waiting) = mpsc::channel(REPLIES_WAITING);
        let (all, replied) = watch::channel(false);
        scope.spawn(send_replies(client, waiting, published.clone(), all));
        Self { shared, replies, published, replied }
    }

    /// Takes nothing more, publishes what has been submitted, waits for its acknowledgements. What is left after `within`
    /// is refused as `Closed`; it may be stored all the same. True when nothing was left but refusals. Replies are sent until then, and for a second longer if the
    /// connection is away.
    pub async fn close(&self, within: Duration) -> bool {
        {
            let mut queue = self.shared.queue.lock();
            let deadline = Instant::now() + within;
            queue.deadline = Some(queue.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        }
        self.shared.closing.notify_one();
        self.shared.wake.notify_one();
        ended(&self.published).await;
        ended(&self.replied).await;
        self.shared.counters.given_up.load(Ordering::Relaxed) == 0
    }

    /// Waits until everything that was submitted is stored, refused or dropped, for so long at most. True when it is.
    pub async fn settled(&self, within: Duration) -> bool {
        let all = async {
            while {
                let stats = self.stats();
                stats.queued + stats.in_flight + stats.kept > 0
            } {
                sleep(SETTLED_POLL).await;
            }
        };
        timeout(within, all).await.is_ok()
    }

    /// Publishes from now on, behind these fences.
    pub fn begin(&self, fences: Fences) {
        self.order(Order::Begin(fences));
    }

    /// Once fenced out: finds out of everything that was sent whether it is stored. The fences must be somebody else's in
    /// every stream by now, so that it stays as it is. [`Self::standing`] tells when it is done.
    pub fn surrender(&self) {
        self.order(Order::Surrender);
    }

    /// What of a session is not stored, once surrendered.
    pub fn unstored(&self, session: SessionId) -> Unstored {
        let queue = self.shared.queue.lock();
        queue.unstored.as_ref().and_then(|index| index.get(&session)).copied().unwrap_or_default()
    }

    /// Goes on as another incarnation, with what was not stored written anew.
    pub fn resume(&self, resumption: Resumption) {
        self.order(Order::Resume(Box::new(resumption)));
    }

    /// Writes the fences again, before a limit of their streams drops them: everything in flight settles first.
    pub(crate) fn renew_fences(&self) {
        self.order(Order::Renew);
    }

    /// How far the ledger has turned over since the last checkpoint.
    pub(crate) fn ledger(&self) -> &Pace {
        &self.shared.ledger
    }

    /// The limits of the streams.
    pub(crate) fn limits(&self) -> &OfEach<Limits> {
        &self.shared.limits
    }

    /// A checkpoint waits for what was submitted so far.
    pub(crate) fn let_through(&self) {
        self.shared.ledger.waits_for(self.shared.taken().1);
        self.shared.ordered.notify_one();
    }

    /// A checkpoint of that moment is in force.
    pub(crate) fn is_checkpointed(&self, mark: Mark) {
        self.shared.ledger.is_checkpointed(mark);
        self.shared.ordered.notify_one();
    }

    /// How far its right to publish goes, now and later.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// What keeps events from being stored; the last one that did, while nothing has been stored since.
    pub fn trouble(&self) -> Option<Trouble> {
        self.shared.troubles.now(Instant::now())
    }

    /// Whoever writes before there is anything to publish has met this; the next event that is stored ends it.
    pub(crate) fn meets(&self, why: &str) {
        let cause = Cause::of(why);
        // Who publishes knows better than anybody why nobody answers.
        if cause != Cause::NotStored || self.trouble().is_none() {
            self.shared.troubles.note(cause, why, Instant::now());
        }
    }

    /// What was dropped since the last call, if anything was.
    pub fn take_dropped(&self) -> Option<Dropped> {
        self.shared.dropped.lock().take()
    }

    fn order(&self, order: Order) {
        *self.shared.order.lock() = Some(order);
        self.shared.ordered.notify_one();
    }

    /// What it has done and what it holds.
    pub fn stats(&self) -> PublisherStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (stored, refused) = (read(&counters.stored), read(&counters.refused));
        let in_flight = read(&counters.in_flight);
        let submitted = read(&counters.submitted);
        let dropped = read(&counters.dropped);
        PublisherStats {
            submitted,
            stored,
            retried: read(&counters.retried),
            refused,
            in_flight,
            queued: submitted.saturating_sub(stored + refused + in_flight + dropped + read(&counters.kept)),
            reconnects: read(&counters.reconnects),
            replies_dropped: read(&counters.replies_dropped),
            dropped,
            beside: self.shared.beside.lock().len(),
            beside_limit: Beside::limit(),
            kept: read(&counters.kept),
            kept_bytes: read(&counters.kept_bytes),
            kept_limit: read(&counters.kept_limit),
            fences_restored: read(&counters.fences_restored),
        }
    }
}

impl Bus for Publisher {
    fn submit(&self, publication: Publication) {
        if publication.stream == Stream::Access {
            self.shared.put_beside(publication);
            return;
        }
        self.shared.counters.submitted.fetch_add(1, Ordering::Relaxed);
        let mut queue = self.shared.queue.lock();
        if queue.deadline.is_some() {
            drop(queue);
            self.shared.refuse(publication, StoreError::Closed);
            return;
        }
        let id = publication.id;
        queue.waiting.push_back(publication);
        // A queue that was not empty has a notification under way, or a task that looks again before it sleeps.
        let first = queue.waiting.len() == 1;
        if let Some(index) = &mut queue.unstored {
            note(index, id);
        }
        drop(queue);
        if first {
            self.shared.wake.notify_one();
        }
    }

    fn reply(&self, to: &str, body: Bytes) {
        if self.replies.try_send((to.to_owned(), body)).is_err() {
            self.shared.counters.replies_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Relaxed)
    }

    fn is_keeping(&self) -> bool {
        self.shared.keeping.load(Ordering::Relaxed)
    }

    fn can_keep(&self) -> bool {
        self.shared.disk_has_room.load(Ordering::Relaxed)
    }
}

/// Waits for the end of a task: told, or seen by its disappearance.
async fn ended(task: &watch::Receiver<bool>) {
    let _ = task.clone().wait_for(|ended| *ended).await;
}

/// Sends replies until the publisher has ended, and then those that wait.
async fn send_replies(
    client: Client,
    mut waiting: mpsc::Receiver<(String, Bytes)>,
    published: watch::Receiver<bool>,
    all: watch::Sender<bool>,
) {
    let send = async |(to, body): (String, Bytes)| {
        if let Err(error) = client.publish(to, body).await {
            tracing::debug!(%error, "a reply was not sent");
        }
    };
    loop {
        let reply = tokio::select! {
            reply = waiting.recv() => reply,
            () = ended(&published) => None,
        };
        match reply {
            Some(reply) => send(reply).await,
            None => break,
        }
    }
    waiting.close();
    let rest = async {
        while let Some(reply) = waiting.recv().await {
            send(reply).await;
        }
        client.flush().await
    };
    if !matches!(timeout(LAST_REPLIES, rest).await, Ok(Ok(()))) {
        tracing::debug!("the last replies may not have been sent");
    }
    all.send_replace(true);
}
