//! What the gateway has to tell a listener that serves many devices from one task: one box for all of its sessions.
//!
//! Owns: the box and its single waker. Does not own: a bound of its own, since all that can be in it is bounded elsewhere:
//! stored tokens by the publish window, hints of commands and ends by one each per session.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use landfall_event::Reason;
use parking_lot::Mutex;

use crate::bus::Listener;
use crate::{PeerHandle, StoreError};

/// What a listener finds in its box.
#[derive(Debug)]
pub enum News {
    /// The message of this token is stored now, or never will be.
    Settled {
        /// The listener's own token.
        token: u64,
        /// What became of it.
        result: Result<(), StoreError>,
    },
    /// The session has commands to send; told once until [`PeerHandle::next_command`] has answered `None`.
    Commands(PeerHandle),
    /// A watched session has ended.
    Ended(PeerHandle, Reason),
}

#[derive(Debug, Default)]
struct Inside {
    news: Vec<News>,
    waker: Option<Waker>,
}

/// The box of one listener task.
#[derive(Debug, Default)]
pub struct Post(Mutex<Inside>);

impl Post {
    /// An empty box.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn put(&self, news: News) {
        let waker = {
            let mut inside = self.0.lock();
            inside.news.push(news);
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the box holds something, and moves all of it to the end of `into`.
    pub fn poll(&self, cx: &mut Context<'_>, into: &mut Vec<News>) -> Poll<()> {
        let mut inside = self.0.lock();
        if inside.news.is_empty() {
            if !inside.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inside.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        into.append(&mut inside.news);
        Poll::Ready(())
    }
}

impl Listener for Post {
    fn settled(&self, token: u64, result: Result<(), StoreError>) {
        self.put(News::Settled { token, result });
    }
}
