//! What the task of one socket has to tell the task of another.
//!
//! Owns: the box and its waker, and which socket observes for which session. Does not own: what it means (`commands.rs`).
//!
//! A session's news goes to the socket that last heard its device. A device that speaks through two ports may be heard by
//! two sockets, and then the other one may hold what the news is about. At most as much is in a box as in the hub's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use landfall_event::{Reason, SessionId};
use landfall_hub::{News, PeerHandle, StoreError};
use parking_lot::Mutex;

/// News for a socket that did not get it.
#[derive(Debug)]
pub(crate) struct StrayBox {
    news: Mutex<Vec<News>>,
    waker: AtomicWaker,
}

impl StrayBox {
    fn new() -> Arc<Self> {
        Arc::new(Self { news: Mutex::default(), waker: AtomicWaker::new() })
    }

    fn put(&self, news: News) {
        self.news.lock().push(news);
        self.waker.wake();
    }

    pub(crate) fn poll(&self, cx: &Context<'_>, into: &mut Vec<News>) -> Poll<()> {
        self.waker.register(cx.waker());
        let mut news = self.news.lock();
        if news.is_empty() {
            return Poll::Pending;
        }
        into.append(&mut news);
        Poll::Ready(())
    }
}

/// All sockets of a server, by number; and which of them keeps something of which session.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    boxes: Mutex<Vec<Arc<StrayBox>>>,
    keepers: Mutex<HashMap<SessionId, u16>>,
}

/// The numbers of a socket's tokens begin here.
const TOKEN_BITS: u32 = 48;

impl Strays {
    /// A number and a box for one more socket; `None` beyond 65,535.
    pub(crate) fn enter(&self) -> Option<(u16, Arc<StrayBox>)> {
        let mut boxes = self.boxes.lock();
        let number = u16::try_from(boxes.len()).ok().filter(|number| *number < u16::MAX)?;
        let own = StrayBox::new();
        boxes.push(Arc::clone(&own));
        Some((number, own))
    }

    /// The socket keeps an observer or a waiting request of the session.
    pub(crate) fn keep(&self, session: SessionId, socket: u16) {
        self.keepers.lock().insert(session, socket);
    }

    /// It does not any more.
    pub(crate) fn let_go(&self, session: SessionId, socket: u16) {
        let mut keepers = self.keepers.lock();
        if keepers.get(&session) == Some(&socket) {
            keepers.remove(&session);
        }
    }

    fn give(&self, socket: u16, news: News) {
        let to = self.boxes.lock().get(usize::from(socket)).cloned();
        if let Some(to) = to {
            to.put(news);
        }
    }

    fn keeper(&self, session: SessionId, not: u16) -> Option<u16> {
        self.keepers.lock().get(&session).copied().filter(|keeper| *keeper != not)
    }

    /// Hands the news of a session's commands to the socket that can send them, if it is another one.
    pub(crate) fn pass_commands(&self, peer: &PeerHandle, from: u16) {
        if let Some(keeper) = self.keeper(peer.id(), from) {
            self.give(keeper, News::Commands(peer.clone()));
        }
    }

    /// Hands the news of a session's end on.
    pub(crate) fn pass_end(&self, peer: &PeerHandle, reason: Reason, from: u16) {
        if let Some(keeper) = self.keeper(peer.id(), from) {
            self.give(keeper, News::Ended(peer.clone(), reason));
        }
    }

    /// Hands the news of a stored message on to whose token it is.
    pub(crate) fn pass_settled(&self, token: u64, result: Result<(), StoreError>, from: u16) {
        let (socket, _) = split(token);
        if socket != from {
            self.give(socket, News::Settled { token, result });
        }
    }
}

/// The token of a socket's table entry.
pub(crate) fn token(socket: u16, entry: usize) -> Option<u64> {
    let entry = u64::try_from(entry).ok().filter(|entry| entry >> TOKEN_BITS == 0)?;
    Some(u64::from(socket) << TOKEN_BITS | entry)
}

/// The socket and its table entry.
pub(crate) fn split(token: u64) -> (u16, usize) {
    let entry = token & ((1 << TOKEN_BITS) - 1);
    (u16::try_from(token >> TOKEN_BITS).unwrap_or(u16::MAX), usize::try_from(entry).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_token_says_whose_it_is() {
        assert_eq!(token(7, 12).map(split), Some((7, 12)));
        assert_eq!(
            token(u16::MAX - 1, (1 << TOKEN_BITS) - 1).map(split),
            Some((u16::MAX - 1, (1 << TOKEN_BITS) - 1))
        );
        assert_eq!(token(0, 1 << TOKEN_BITS), None);
    }

    #[test]
    fn what_is_settled_reaches_whose_token_it_is() {
        let strays = Strays::default();
        let (first, own) = strays.enter().unwrap();
        let (second, other) = strays.enter().unwrap();
        let mine = token(first, 3).unwrap();
        let mut news = Vec::new();
        strays.pass_settled(mine, Ok(()), first);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(own.poll(cx, &mut news).is_pending(), "what is one's own is not passed on");
        strays.pass_settled(mine, Ok(()), second);
        assert!(other.poll(cx, &mut news).is_pending());
        assert!(own.poll(cx, &mut news).is_ready());
        assert!(matches!(news.as_slice(), [News::Settled { token, result: Ok(()) }] if *token == mine));
    }
}
