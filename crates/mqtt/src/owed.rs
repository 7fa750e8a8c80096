//! What an MQTT session's connections had on their way to the store when they ended.
//!
//! Owns: how long that is kept. Does not own: what follows from the news (`landfall-mqtt-core`), who hears them: the next
//! connection, or the session where it lies (`sessions.rs`).

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake};

use landfall_hub::Remains;
use landfall_mqtt_core::{SessionState, Token};

use crate::sessions::{DeviceKey, Sessions};

/// One connection's.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) remains: Remains,
    /// The tokens that it gave away.
    pub(crate) tokens: Range<Token>,
}

/// Keeps those that the state waits for: no more than it has messages that are not settled.
pub(crate) fn keep_wanted(owed: &mut Vec<Owed>, state: &SessionState) {
    owed.retain(|owed| state.unsettled().any(|token| owed.tokens.contains(&token)));
}

/// Takes the news that have come; whoever `cx` wakes is woken by the next. True when that changed what is worth keeping.
pub(crate) fn settle(owed: &mut Vec<Owed>, state: &mut SessionState, cx: &mut Context<'_>) -> bool {
    let mut changed = false;
    for one in &*owed {
        while let Poll::Ready(news) = one.remains.poll_settled(cx) {
            for (token, result) in news {
                changed |= state.settle(Token(token), result.is_ok());
            }
        }
    }
    keep_wanted(owed, state);
    changed
}

/// Woken when something is settled that the session at a place waits for.
pub(crate) struct Knock {
    key: DeviceKey,
    sessions: Weak<Sessions>,
}

impl Knock {
    pub(crate) fn new(key: &DeviceKey, sessions: Weak<Sessions>) -> Self {
        Self { key: key.clone(), sessions }
    }
}

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        if let Some(sessions) = self.sessions.upgrade() {
            sessions.knock(&self.key);
        }
    }
}
