//! The window of publishes under way: what was submitted, in order, and which of it may be sent now.
//!
//! Owns: the order of sending and of sending again, the bound on what is in flight, the pause after a refusal that will
//! pass, the judgement that a connection no longer answers. Does not own: sockets, subjects, the clock; `now` is an
//! argument, in milliseconds of the caller's monotonic clock.
//!
//! Numbers are given in order of submission and never come again, so an acknowledgement names exactly one message. The
//! window spans from the oldest message that is not settled to the newest that was admitted, so both its memory and the
//! number in flight are bounded by the same limit.
//!
//! # Order
//! Messages are sent in the order of their numbers. After [`Window::reset`] (a new connection) everything that is not
//! settled is sent again from the oldest on, before anything new. As long as each connection carries an unbroken run that
//! begins at the oldest unsettled message, the first appearance of each message in the stream is in order, even if an
//! older connection's bytes still arrive beside the newer one's: each run is in order, and what a run skips was stored
//! before it began. The second appearance is dropped by the stream's duplicate window; for a message that was sent longer
//! ago than that window reaches, [`Window::doubtful_since`] says that the stream must be asked first.
//!
//! A single message that the server refuses for a passing reason ([`Verdict::Passing`]) while its successors are already
//! on their way breaks that rule, and nothing on this side can call them back. Two things keep that from happening in
//! practice: nothing further is sent until everything in flight has settled, and after every refusal and on every new
//! connection one message goes alone, as a probe, until it is stored. So a server that *comes back* meets at most one
//! message in flight, and one that *goes away* refuses everything from some message on, which is in order again. What
//! remains is a server that refuses one message and takes a later one within one round trip, as a change of leader in a
//! cluster can. Numbers inside the events (`seq`) let a reader see that.

use std::collections::VecDeque;

/// Milliseconds of a monotonic clock with any origin.
pub type Tick = u64;

/// The bounds of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most messages from the oldest unsettled to the newest sent; at least 1.
    pub in_flight: usize,
    /// With something in flight and nothing settled for this long, the connection counts as dead. A single message may
    /// wait twelve times as long while others settle.
    pub ack_timeout_ms: u64,
    /// The pause after the first refusal that will pass; it doubles with each further one.
    pub first_pause_ms: u64,
    /// The longest pause.
    pub longest_pause_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { in_flight: 4096, ack_timeout_ms: 5_000, first_pause_ms: 20, longest_pause_ms: 2_000 }
    }
}

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the stream.
    Stored,
    /// It is not, and may be when sent again.
    Passing,
    /// It is not and never will be.
    Final,
    /// It is not, and nobody may publish as this incarnation any more: its driver stops.
    Fenced,
}

/// What an acknowledgement did.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<T> {
    /// The message has left the window: stored, or refused for good.
    Done(T),
    /// The message will be sent again.
    Again,
    /// No message of that number waits for an acknowledgement.
    Unknown,
}

/// How long a single message may go unanswered while others are answered, in units of `ack_timeout_ms`: a slow disk takes
/// its time over a full window, a lost acknowledgement is rare.
const PATIENCE: u64 = 12;

#[derive(Debug)]
enum Entry<T> {
    /// To be sent, for the first time or again.
    Waiting(T),
    /// Sent on the present connection.
    Sent(T, Tick),
    /// Settled; it leaves when all before it have.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// One message at a time, until one is stored.
    Probing,
    /// As many as the bounds allow.
    Open,
    /// A message was refused for now: nothing is sent until all in flight have settled.
    Settling,
    /// Nothing is sent until then.
    Paused(Tick),
}

/// See the module's description.
#[derive(Debug)]
pub struct Window<T> {
    bounds: Bounds,
    entries: VecDeque<Entry<T>>,
    /// The number of `entries[0]`.
    first: u64,
    /// No entry below this number waits to be sent.
    cursor: u64,
    in_flight: usize,
    phase: Phase,
    /// Pauses since a probe was last stored.
    refusals: u32,
    /// When a message last settled.
    progress: Tick,
    doubt: Option<Doubt>,
    one_by_one: bool,
}

/// Messages whose connection was lost before they were answered: they may be in the stream.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When the first of them was sent.
    since: Tick,
    /// All of them have numbers below this one.
    below: u64,
}

impl<T> Window<T> {
    /// An empty window.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: VecDeque::new(),
            first: 0,
            cursor: 0,
            in_flight: 0,
            phase: Phase::Probing,
            refusals: 0,
            progress: 0,
            doubt: None,
            one_by_one: false,
        }
    }

    /// Has at most one message in flight from now on, or as many as the bounds allow.
    pub fn one_by_one(&mut self, yes: bool) {
        self.one_by_one = yes;
    }

    /// How many more messages may be admitted.
    pub fn room(&self) -> usize {
        self.bounds.in_flight.max(1).saturating_sub(self.entries.len())
    }

    /// Admits a message behind all others and returns its number. The caller asks for [`room`](Self::room) first.
    pub fn admit(&mut self, item: T) -> u64 {
        let number = self.end();
        self.entries.push_back(Entry::Waiting(item));
        number
    }

    /// Hands out the next message to send, and counts it as sent from now on.
    pub fn next(&mut self, now: Tick) -> Option<(u64, &T)> {
        if let Phase::Paused(until) = self.phase
            && now >= until
        {
            self.phase = Phase::Probing;
        }
        let free = match self.phase {
            Phase::Open if !self.one_by_one => true,
            Phase::Open | Phase::Probing => self.in_flight == 0,
            Phase::Settling | Phase::Paused(_) => false,
        };
        if !free {
            return None;
        }
        while self.cursor < self.end() {
            let number = self.cursor;
            self.cursor += 1;
            let entry = self.entry(number)?;
            if matches!(entry, Entry::Waiting(_)) {
                entry.mark_sent(now);
                self.in_flight += 1;
                if self.in_flight == 1 {
                    self.progress = now;
                }
                let index = self.index(number)?;
                return self.entries.get(index).and_then(Entry::item).map(|item| (number, item));
            }
        }
        None
    }

    /// Takes an acknowledgement. `Done` hands the message back.
    pub fn settle(&mut self, number: u64, verdict: Verdict, now: Tick) -> Settled<T> {
        let Some(entry) = self.entry(number) else { return Settled::Unknown };
        let (item, was_sent) = match std::mem::replace(entry, Entry::Done) {
            Entry::Done => return Settled::Unknown,
            Entry::Sent(item, _) => (item, true),
            Entry::Waiting(item) if matches!(verdict, Verdict::Passing | Verdict::Fenced) => {
                *entry = Entry::Waiting(item);
                return Settled::Unknown;
            }
            Entry::Waiting(item) => (item, false),
        };
        if matches!(verdict, Verdict::Passing | Verdict::Fenced) {
            *entry = Entry::Waiting(item);
            self.cursor = self.cursor.min(number);
            self.leave_flight(was_sent, now);
            self.begin_pause(now);
            return Settled::Again;
        }
        self.leave_flight(was_sent, now);
        match self.phase {
            Phase::Probing if verdict == Verdict::Stored => {
                self.phase = Phase::Open;
                self.refusals = 0;
            }
            Phase::Settling if self.in_flight == 0 => self.phase = Phase::Paused(self.pause_end(now)),
            Phase::Probing | Phase::Open | Phase::Settling | Phase::Paused(_) => {}
        }
        while matches!(self.entries.front(), Some(Entry::Done)) {
            self.entries.pop_front();
            self.first += 1;
        }
        self.cursor = self.cursor.max(self.first);
        self.doubt = self.doubt.filter(|doubt| self.first < doubt.below);
        Settled::Done(item)
    }

    /// The connection is gone: whatever is not settled waits again, in order. A pause goes on.
    pub fn reset(&mut self, now: Tick) {
        if let Some(oldest) = self.oldest_sent() {
            let since = self.doubt.map_or(oldest, |doubt| doubt.since.min(oldest));
            self.doubt = Some(Doubt { since, below: self.end() });
        }
        for entry in &mut self.entries {
            entry.mark_waiting();
        }
        self.cursor = self.first;
        self.in_flight = 0;
        self.progress = now;
        self.phase = match self.phase {
            Phase::Paused(until) => Phase::Paused(until),
            Phase::Settling => Phase::Paused(self.pause_end(now)),
            Phase::Probing | Phase::Open => Phase::Probing,
        };
    }

    /// True when the connection should have answered by now and has not.
    pub fn is_stalled(&self, now: Tick) -> bool {
        if self.in_flight == 0 {
            return false;
        }
        let oldest = self.oldest_sent().unwrap_or(now);
        now.saturating_sub(self.progress) >= self.bounds.ack_timeout_ms
            || now.saturating_sub(oldest) >= self.bounds.ack_timeout_ms.saturating_mul(PATIENCE)
    }

    /// Since when there are messages that were sent on a connection that was lost, so that they may be in the stream already.
    pub fn doubtful_since(&self) -> Option<Tick> {
        self.doubt.map(|doubt| doubt.since)
    }

    /// The stream has been asked: whatever it holds has been settled. That was no answer of this connection, so what is sent next is a
    /// probe.
    pub fn no_doubt(&mut self) {
        self.doubt = None;
        if self.phase == Phase::Open {
            self.phase = Phase::Probing;
        }
    }

    /// When the present pause ends, if there is one.
    pub fn paused_until(&self) -> Option<Tick> {
        match self.phase {
            Phase::Paused(until) => Some(until),
            Phase::Probing | Phase::Open | Phase::Settling => None,
        }
    }

    /// True while the server stores what it is sent, as far as is known.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open || (self.phase == Phase::Probing && self.refusals == 0)
    }

    /// Messages sent and not settled.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// True when every admitted message has settled.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The messages in the window that are not settled, in order.
    pub fn unsettled(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.first..).zip(&self.entries).filter_map(|(number, entry)| Some((number, entry.item()?)))
    }

    /// The same, to be changed.
    pub fn unsettled_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(Entry::item_mut)
    }

    /// Empties the window: everything that is not settled, in order, and of each whether it may be in the stream.
    pub fn drain(&mut self) -> impl Iterator<Item = (T, bool)> {
        let (first, doubted) = (self.first, self.doubt.take().map_or(0, |doubt| doubt.below));
        self.first = self.end();
        self.cursor = self.first;
        self.in_flight = 0;
        // What it waited for is not here any more.
        if self.phase == Phase::Settling {
            self.phase = Phase::Probing;
        }
        (first..).zip(std::mem::take(&mut self.entries)).filter_map(move |(number, entry)| match entry {
            Entry::Waiting(item) => Some((item, number < doubted)),
            Entry::Sent(item, _) => Some((item, true)),
            Entry::Done => None,
        })
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn oldest_sent(&self) -> Option<Tick> {
        self.entries.iter().filter_map(Entry::sent_at).min()
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry<T>> {
        let index = self.index(number)?;
        self.entries.get_mut(index)
    }

    fn leave_flight(&mut self, was_sent: bool, now: Tick) {
        if was_sent {
            self.in_flight -= 1;
            self.progress = now;
        }
    }

    fn begin_pause(&mut self, now: Tick) {
        if self.phase != Phase::Settling {
            self.refusals = self.refusals.saturating_add(1);
            self.phase = Phase::Settling;
        }
        if self.in_flight == 0 {
            self.phase = Phase::Paused(self.pause_end(now));
        }
    }

    fn pause_end(&self, now: Tick) -> Tick {
        let doublings = self.refusals.saturating_sub(1).min(16);
        let pause = self.bounds.first_pause_ms.saturating_mul(1 << doublings);
        now.saturating_add(pause.min(self.bounds.longest_pause_ms))
    }
}

impl<T> Entry<T> {
    fn item(&self) -> Option<&T> {
        match self {
            Self::Waiting(item) | Self::Sent(item, _) => Some(item),
            Self::Done => None,
        }
    }

    fn item_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Waiting(item) | Self::Sent(item, _) => Some(item),
            Self::Done => None,
        }
    }

    fn sent_at(&self) -> Option<Tick> {
        match self {
            Self::Sent(_, at) => Some(*at),
            Self::Waiting(_) | Self::Done => None,
        }
    }

    fn mark_sent(&mut self, now: Tick) {
        *self = match std::mem::replace(self, Self::Done) {
            Self::Waiting(item) | Self::Sent(item, _) => Self::Sent(item, now),
            Self::Done => Self::Done,
        };
    }

    fn mark_waiting(&mut self) {
        *self = match std::mem::replace(self, Self::Done) {
            Self::Waiting(item) | Self::Sent(item, _) => Self::Waiting(item),
            Self::Done => Self::Done,
        };
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
