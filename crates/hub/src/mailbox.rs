//! What the gateway has to tell one session's connection: stored messages, commands, the session's end.
//!
//! Owns: the box and its single waker. Does not own: the bound on commands (the router checks it before it puts one in);
//! the settled tokens are bounded by the publish window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use landfall_event::Reason;
use parking_lot::Mutex;

use crate::{Command, StoreError};

/// Tokens of messages that are stored now, or never will be, in the order of the news.
pub type Settled = Vec<(u64, Result<(), StoreError>)>;

/// What a connection finds in its box.
#[derive(Debug, Default)]
pub struct Mail {
    /// Messages that are settled.
    pub settled: Settled,
    /// The next command to send.
    pub command: Option<Arc<Command>>,
    /// The gateway has ended the session.
    pub ended: Option<Reason>,
    /// A command has come to its outcome, in a session whose commands outlive it: what is kept of them is old.
    pub has_landed: bool,
}

#[derive(Debug, Default)]
struct Inside {
    settled: Settled,
    commands: VecDeque<Arc<Command>>,
    ended: Option<Reason>,
    has_landed: bool,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<Inside>);

impl Mailbox {
    fn put(&self, change: impl FnOnce(&mut Inside)) {
        let waker = {
            let mut inside = self.0.lock();
            change(&mut inside);
            inside.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Puts a command in, unless `limit` wait already.
    pub(crate) fn command(&self, command: Arc<Command>, limit: usize) -> bool {
        let mut taken = false;
        self.put(|inside| {
            taken = inside.commands.len() < limit;
            if taken {
                inside.commands.push_back(command);
            }
        });
        taken
    }

    /// Takes a command back out that has found its outcome elsewhere.
    pub(crate) fn withdraw(&self, command: &Command) {
        self.0.lock().commands.retain(|waiting| waiting.id != command.id);
    }

    /// Says that the session has ended.
    pub(crate) fn end(&self, reason: Reason) {
        self.put(|inside| {
            inside.ended.get_or_insert(reason);
            inside.commands.clear();
        });
    }

    /// Waits until the box holds something. Commands stay in it unless `take_commands`.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, take_commands: bool) -> Poll<Mail> {
        let mut inside = self.0.lock();
        let mail = Mail {
            settled: std::mem::take(&mut inside.settled),
            command: if take_commands { inside.commands.pop_front() } else { None },
            ended: inside.ended,
            has_landed: std::mem::take(&mut inside.has_landed),
        };
        if mail.settled.is_empty() && mail.command.is_none() && mail.ended.is_none() && !mail.has_landed {
            if !inside.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inside.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(mail)
    }

    /// Says that a command has come to its outcome.
    pub(crate) fn settled_one(&self) {
        self.put(|inside| inside.has_landed = true);
    }

    /// Waits until a message is stored, or never will be.
    pub(crate) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<Settled> {
        let mut inside = self.0.lock();
        if inside.settled.is_empty() {
            inside.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut inside.settled))
    }

    /// A message is stored, or never will be.
    pub(crate) fn settled(&self, token: u64, result: Result<(), StoreError>) {
        self.put(|inside| inside.settled.push((token, result)));
    }
}
