//! The message ids that were seen, and what was answered (RFC 7252, section 4.5).
//!
//! Owns: one small entry per request, for EXCHANGE_LIFETIME or NON_LIFETIME; the bounds on entries and bytes. Does not own:
//! what a duplicate is answered with (`endpoint`).
//!
//! A duplicate has the same bytes. Other bytes with the id of a message that is remembered are another request: of a device that
//! has begun anew, or of another one that a translator has given the port to. It takes the entry over.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;
use bytes::Bytes;

use crate::Tick;
use crate::limits::Limits;

/// What a duplicate gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: the answer is awaited, suppressed, or a non-confirmable one.
    Nothing,
    /// The empty acknowledgement: the answer comes, or came, on its own.
    Acknowledged,
    /// The acknowledgement with the answer, which in most cases is a few bytes.
    Short([u8; Self::SHORT], u8),
    /// The same, longer.
    Long(Box<[u8]>),
}

impl Answer {
    /// Bytes that an entry has room for.
    const SHORT: usize = 22;

    fn of(datagram: &Bytes) -> Self {
        let mut short = [0; Self::SHORT];
        match (short.get_mut(..datagram.len()), u8::try_from(datagram.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(datagram);
                Self::Short(short, length)
            }
            _ => Self::Long(datagram.to_vec().into_boxed_slice()),
        }
    }

    /// The datagram of an answer that is kept.
    pub(crate) fn datagram(&self) -> Option<&[u8]> {
        match self {
            Self::Nothing | Self::Acknowledged => None,
            Self::Short(bytes, length) => bytes.get(..usize::from(*length)),
            Self::Long(bytes) => Some(bytes),
        }
    }

    pub(crate) fn is_acknowledged(&self) -> bool {
        *self == Self::Acknowledged
    }

    fn heap(&self) -> usize {
        if let Self::Long(bytes) = self { bytes.len() } else { 0 }
    }
}

/// A message that came: its peer's serial number, its id, and a keyed hash of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) serial: u32,
    pub(crate) id: u16,
    pub(crate) mark: u64,
}

/// A peer's serial number and the message id.
type Place = (u32, u16);

impl Key {
    fn place(self) -> Place {
        (self.serial, self.id)
    }
}

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// Its id was not seen within its lifetime.
    Nothing,
    /// It came before, and this was answered.
    Again(&'a Answer),
    /// Another one had its id.
    Reused,
}

#[derive(Debug)]
struct Entry {
    mark: u64,
    expires: Tick,
    answer: Answer,
}

/// An entry in the order of expiry.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Tick,
    place: Place,
    slot: u32,
}

/// Everything remembered, of all peers.
#[derive(Debug)]
pub(crate) struct Remembered {
    entries: HashMap<Place, Entry, RandomState>,
    confirmable: VecDeque<Due>,
    others: VecDeque<Due>,
    /// Bytes of long answers.
    bytes: usize,
}

/// Whether one more can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room.
    Free,
    /// There is, since this one is gone.
    Made(Gone),
    /// There is none.
    None,
}

/// An entry that is gone: of which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl Remembered {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher),
            confirmable: VecDeque::new(),
            others: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether this message came before, within its lifetime.
    pub(crate) fn find(&self, now: Tick, key: Key) -> Known<'_> {
        match self.entries.get(&key.place()).filter(|entry| now < entry.expires) {
            None => Known::Nothing,
            Some(entry) if entry.mark == key.mark => Known::Again(&entry.answer),
            Some(_) => Known::Reused,
        }
    }

    /// Remembers a message that was not found; another one with its id is remembered no more. `slot` comes back with what is
    /// gone.
    pub(crate) fn insert(&mut self, limits: &Limits, now: Tick, slot: u32, key: Key, confirmable: bool) {
        let lifetime = if confirmable { limits.exchange_lifetime_ms() } else { limits.non_lifetime_ms() };
        let at = now + lifetime;
        let entry = Entry { mark: key.mark, expires: at, answer: Answer::Nothing };
        if let Some(old) = self.entries.insert(key.place(), entry) {
            self.bytes -= old.answer.heap();
        }
        let queue = if confirmable { &mut self.confirmable } else { &mut self.others };
        queue.push_back(Due { at, place: key.place(), slot });
    }

    /// The separate response follows: a duplicate gets the empty acknowledgement.
    pub(crate) fn acknowledged(&mut self, key: Key) {
        self.set(key, Answer::Acknowledged);
    }

    /// Keeps the answer for duplicates; says whether there was room.
    #[must_use]
    pub(crate) fn answered(&mut self, limits: &Limits, key: Key, datagram: &Bytes) -> bool {
        let answer = Answer::of(datagram);
        let fits = self.bytes + answer.heap() <= limits.max_replay_bytes;
        if fits {
            self.set(key, answer);
        }
        fits
    }

    /// The request may be served again: it changes nothing (section 4.5, last paragraph).
    pub(crate) fn forgive(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key.place()).filter(|entry| entry.mark == key.mark) {
            entry.expires = 0;
        }
    }

    /// Another message has the id now: the one before is no duplicate any more when it comes again.
    pub(crate) fn supersede(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key.place()).filter(|entry| entry.mark != key.mark) {
            entry.expires = 0;
        }
    }

    fn set(&mut self, key: Key, answer: Answer) {
        if let Some(entry) = self.entries.get_mut(&key.place()).filter(|entry| entry.mark == key.mark) {
            self.bytes = self.bytes + answer.heap() - entry.answer.heap();
            entry.answer = answer;
        }
    }

    /// Whether one more fits; if not, the oldest yields, once its sender retransmits no longer (MAX_TRANSMIT_SPAN).
    pub(crate) fn make_room(&mut self, limits: &Limits, now: Tick) -> Room {
        if self.len() < limits.max_remembered {
            return Room::Free;
        }
        let span = limits.max_transmit_span_ms();
        let (others, confirmable) = (limits.non_lifetime_ms() - span, limits.exchange_lifetime_ms() - span);
        match self.take_due(now + others, now + confirmable) {
            Some(gone) => Room::Made(gone),
            None => Room::None,
        }
    }

    /// More than half of the room is taken.
    pub(crate) fn is_pressed(&self, limits: &Limits) -> bool {
        self.len() > limits.max_remembered / 2
    }

    /// Forgets the entry that came last of its kind, if it is this one; another stays until its time is over.
    pub(crate) fn take_back(&mut self, key: Key) -> Option<Gone> {
        let queue = [&mut self.confirmable, &mut self.others];
        let place = key.place();
        let due = queue.into_iter().find_map(|queue| queue.pop_back_if(|due| due.place == place))?;
        if let Some(entry) = self.entries.remove(&place) {
            self.bytes -= entry.answer.heap();
        }
        Some(Gone { slot: due.slot, serial: place.0 })
    }

    /// Forgets one entry whose time is over.
    pub(crate) fn expire_one(&mut self, now: Tick) -> Option<Gone> {
        self.take_due(now, now)
    }

    /// Forgets one entry that is due by these times.
    fn take_due(&mut self, others: Tick, confirmable: Tick) -> Option<Gone> {
        let due = self
            .others
            .pop_front_if(|due| due.at <= others)
            .or_else(|| self.confirmable.pop_front_if(|due| due.at <= confirmable))?;
        // An id that was forgiven or used anew has an entry, and a due, of its own.
        let is_its_own = |entry: &Entry| entry.expires == due.at || entry.expires == 0;
        if self.entries.get(&due.place).is_some_and(is_its_own)
            && let Some(entry) = self.entries.remove(&due.place)
        {
            self.bytes -= entry.answer.heap();
        }
        Some(Gone { slot: due.slot, serial: due.place.0 })
    }

    /// When the next entry is to be forgotten: on the whole second, since nothing waits for it.
    pub(crate) fn next_timeout(&self) -> Option<Tick> {
        let first =
            [&self.confirmable, &self.others].into_iter().filter_map(|queue| queue.front()).map(|due| due.at);
        first.min().map(|at| at.div_ceil(1_000) * 1_000)
    }

    pub(crate) fn len(&self) -> usize {
        self.confirmable.len() + self.others.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
