//! What is published without a fence: refusals, beside the window.
//!
//! Owns: what waits and what is under way of them, the bound on both, the pause when their stream does not take them. Does not own:
//! sockets and the clock; `now` is an argument.
//!
//! Nobody's presence follows from a refusal, so none of them takes a place in the window, in the queue or on the disk, and nothing else
//! waits for one: a stream of theirs that is full, missing or silent costs the oldest of them and no other event. They are sent in the
//! order in which they were submitted, and again under the same id when they were not answered, so a stream stores each once as far as
//! its duplicate window reaches. One that waits while its gateway is killed is gone.

use std::collections::VecDeque;

use landfall_hub::Publication;

use crate::window::Tick;

/// The most that wait and are under way: five times what a gateway tells of refusals in ten seconds.
const MOST: usize = 1_024;
/// The most that are under way.
const UNDER_WAY: usize = 64;
/// Numbers from here on are of what is here, and others of the window.
const FIRST: u64 = 1 << 63;

/// Whether an acknowledgement of this number is of what is here.
pub(crate) const fn is_beside(number: u64) -> bool {
    number >= FIRST
}

/// What has not been answered.
#[derive(Debug)]
struct Sent {
    number: u64,
    at: Tick,
    publication: Publication,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    waiting: VecDeque<Publication>,
    sent: VecDeque<Sent>,
    /// How many were sent, ever.
    count: u64,
    /// The stream has refused one or has not answered: nothing is sent before, and then one alone.
    paused_until: Option<Tick>,
}

impl Beside {
    /// Takes one more; gives back the oldest where there is no room.
    pub(crate) fn put(&mut self, publication: Publication) -> Option<Publication> {
        let is_full = self.waiting.len() + self.sent.len() >= MOST;
        let oldest = if is_full { self.waiting.pop_front() } else { None };
        self.waiting.push_back(publication);
        oldest
    }

    /// The next one to send, under which number.
    pub(crate) fn next(&mut self, now: Tick) -> Option<(u64, &Publication)> {
        let most = match self.paused_until {
            Some(until) if now < until => 0,
            Some(_) => 1,
            None => UNDER_WAY,
        };
        if self.sent.len() >= most {
            return None;
        }
        let publication = self.waiting.pop_front()?;
        let number = FIRST.saturating_add(self.count);
        self.count = self.count.saturating_add(1);
        self.sent.push_back(Sent { number, at: now, publication });
        self.sent.back().map(|sent| (sent.number, &sent.publication))
    }

    /// It is stored, or never will be.
    pub(crate) fn take(&mut self, number: u64) -> Option<Publication> {
        let at = self.sent.iter().position(|sent| sent.number == number)?;
        self.sent.remove(at).map(|sent| sent.publication)
    }

    /// The stream takes them.
    pub(crate) fn goes_on(&mut self) {
        self.paused_until = None;
    }

    /// The stream does not take them for now: whatever is under way is sent again then. True when that is new.
    pub(crate) fn pause(&mut self, until: Tick) -> bool {
        self.reset();
        self.paused_until.replace(until).is_none()
    }

    /// Whether the oldest that is under way was sent so long ago.
    pub(crate) fn is_unanswered(&self, now: Tick, patience: Tick) -> bool {
        self.sent.front().is_some_and(|sent| now.saturating_sub(sent.at) >= patience)
    }

    /// Whatever is under way is sent again.
    pub(crate) fn reset(&mut self) {
        while let Some(sent) = self.sent.pop_back() {
            self.waiting.push_front(sent.publication);
        }
    }

    /// Nothing is here that an end waits for: all of it is settled, or the stream does not take it.
    pub(crate) fn is_done(&self) -> bool {
        self.paused_until.is_some() || (self.waiting.is_empty() && self.sent.is_empty())
    }

    /// The most that are here.
    pub(crate) fn limit() -> u64 {
        u64::try_from(MOST).unwrap_or(u64::MAX)
    }

    /// How many are here.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.waiting.len() + self.sent.len()).unwrap_or(u64::MAX)
    }

    /// Empties it.
    pub(crate) fn drain(&mut self) -> VecDeque<Publication> {
        self.reset();
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use landfall_event::{EventId, Incarnation, Stream};
    use landfall_hub::Receipt;

    use super::*;

    fn refusal(number: u64) -> Publication {
        Publication {
            stream: Stream::Access,
            subject: Arc::from("refused"),
            id: EventId::Gateway(Incarnation::new(1, [0; 10]), number),
            headers: Vec::new(),
            body: Bytes::new(),
            receipt: Receipt::unheard(None),
        }
    }

    fn number(publication: &Publication) -> u64 {
        match publication.id {
            EventId::Gateway(_, number) => number,
            EventId::Session(..) | EventId::Will(..) => unreachable!("of a gateway"),
        }
    }

    fn all(beside: &mut Beside, now: Tick) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| beside.next(now).map(|(sent, publication)| (sent, number(publication))))
            .collect()
    }

    #[test]
    fn the_oldest_goes_where_there_is_no_room() {
        let mut beside = Beside::default();
        for each in 0..MOST as u64 {
            assert!(beside.put(refusal(each)).is_none());
        }
        assert_eq!(all(&mut beside, 0).len(), UNDER_WAY);
        assert_eq!(
            beside.put(refusal(9_999)).map(|gone| number(&gone)),
            Some(UNDER_WAY as u64),
            "what is sent stays"
        );
        assert_eq!(beside.len(), MOST as u64);
        assert_eq!(beside.drain().len(), MOST);
    }

    #[test]
    fn what_is_not_taken_is_sent_again_in_order_one_alone_first() {
        let mut beside = Beside::default();
        (1..=3).for_each(|each| drop(beside.put(refusal(each))));
        let sent = all(&mut beside, 0);
        assert_eq!(sent.iter().map(|(_, each)| *each).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(sent.iter().all(|(sent, _)| is_beside(*sent)));
        assert!(!beside.is_done() && beside.is_unanswered(5, 5) && !beside.is_unanswered(4, 5));
        assert!(beside.pause(10) && !beside.pause(10), "said once");
        assert!(beside.is_done(), "no end waits for it");
        assert!(all(&mut beside, 9).is_empty());
        let probe = all(&mut beside, 10);
        assert_eq!(probe.iter().map(|(_, each)| *each).collect::<Vec<_>>(), [1]);
        assert!(beside.take(sent[0].0).is_none(), "an answer to an earlier sending is none to this one");
        assert_eq!(beside.take(probe[0].0).map(|stored| number(&stored)), Some(1));
        beside.goes_on();
        assert_eq!(all(&mut beside, 11).iter().map(|(_, each)| *each).collect::<Vec<_>>(), [2, 3]);
    }
}
