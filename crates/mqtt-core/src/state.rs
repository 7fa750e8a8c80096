//! What outlives a connection: the session state of MQTT 5.0 section 4.1.

use landfall_event::Memo;
use serde::{Deserialize, Serialize};

use crate::mark::{Mark, Marker};
use crate::{DeliveryToken, Message, QoS, Subscription, Token};

/// A session without a connection: what `session_state` gives and `accept` takes. Serialise it to keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Packet ids of QoS 2 messages that were stored and not yet released by a PUBREL.
    #[serde(default)]
    pub(crate) received: Vec<ReceivedId>,
    /// The same of messages that an earlier connection has given to the shell, which has not settled them: known in this
    /// process only.
    #[serde(skip)]
    pub(crate) unsettled: Vec<Unsettled>,
    /// Their tokens, also for the next process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) open: Vec<u64>,
    /// The first token that no connection of the session has given away.
    #[serde(default)]
    pub(crate) next_token: u64,
    /// What the session's marks are made with.
    #[serde(default)]
    pub(crate) key: [u64; 2],
    /// Messages to the client that it has not finished with, in the order of sending.
    #[serde(default)]
    pub(crate) in_flight: Vec<InFlight>,
    #[serde(default)]
    pub(crate) last_packet_id: u16,
    #[serde(default)]
    pub(crate) last_token: u64,
}

impl SessionState {
    /// The QoS that a message of this topic would be sent with at most; `None` if no subscription matches. Tells whether a
    /// message is worth queueing while the client is away.
    pub fn granted(&self, topic: &str) -> Option<QoS> {
        self.subscriptions.iter().filter(|s| s.filter.matches(topic)).map(|s| s.qos).max()
    }

    /// The messages under way whose receipt the client has not confirmed.
    pub fn in_flight(&self) -> impl Iterator<Item = (DeliveryToken, &Message)> {
        self.in_flight.iter().filter_map(|f| f.message.as_ref().map(|m| (f.token, &**m)))
    }

    /// Says how much is left at `now`, in Unix milliseconds, of the time of each message under way [MQTT-3.3.2-6]. One that
    /// has none left is not sent again: at QoS 1 it is over; at QoS 2 the client may have it and hold its packet id, so a
    /// resumed session releases that [MQTT-4.3.3-13].
    pub fn lapse(&mut self, now: u64) {
        self.in_flight.retain_mut(|message| message.lapse(now) != Lapse::Over);
    }

    /// The message is stored, or (`false`) never will be, while no connection has the session. True when that changed what is
    /// worth keeping.
    pub fn settle(&mut self, token: Token, stored: bool) -> bool {
        let Some(at) = self.unsettled.iter().position(|u| u.token == token) else { return false };
        let Unsettled { id, mark, .. } = self.unsettled.swap_remove(at);
        self.open.retain(|open| *open != token.0);
        if stored {
            self.receive(id, mark);
        }
        stored
    }

    fn receive(&mut self, id: u16, mark: Mark) {
        self.received.retain(|r| r.id != id);
        self.received.push(ReceivedId { id, mark });
    }

    /// The number by which a [`Memo`] names the session. `None` before it has a key: nothing was noted of it.
    pub fn number(&self) -> Option<u64> {
        (self.key != [0; 2]).then(|| Marker::new(self.key).session())
    }

    /// Of a state that was read from a store: these messages are stored, in the order of their numbers. Those that the state has seen
    /// settled are known, or were released: a memo of them is old. True when something was added.
    pub fn recall(&mut self, memos: &[Memo]) -> bool {
        let (open, next) = (std::mem::take(&mut self.open), self.next_token);
        let number = self.number();
        let mut recalled = false;
        for memo in memos.iter().filter(|memo| Some(memo.session) == number) {
            if memo.number >= next || open.contains(&memo.number) {
                self.receive(memo.packet_id, Mark(memo.mark));
                self.next_token = self.next_token.max(memo.number.saturating_add(1));
                recalled = true;
            }
        }
        recalled
    }

    /// The state as it is read from a store, where messages that are not settled have not come.
    #[must_use]
    pub fn at_rest(self) -> Self {
        Self { unsettled: Vec::new(), ..self }
    }

    /// The messages that the shell has not settled yet: [`Self::settle`] them, or let the next connection do that.
    pub fn unsettled(&self) -> impl Iterator<Item = Token> {
        self.unsettled.iter().map(|u| u.token)
    }
}

/// A QoS 2 packet id that was not released yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredId")]
pub(crate) struct ReceivedId {
    pub(crate) id: u16,
    pub(crate) mark: Mark,
}

/// Both of the forms that were ever written.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredId {
    Bare(u16),
    Marked { id: u16, mark: Mark },
}

impl From<StoredId> for ReceivedId {
    fn from(stored: StoredId) -> Self {
        match stored {
            StoredId::Bare(id) => Self { id, mark: Mark::UNKNOWN },
            StoredId::Marked { id, mark } => Self { id, mark },
        }
    }
}

/// A QoS 2 message that is with the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) id: u16,
    pub(crate) mark: Mark,
    pub(crate) token: Token,
}

/// What time makes of a message that is to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// It has time left, or is beyond the point where that matters.
    Goes,
    /// It is not sent again, but the client is told to release its packet id.
    Released,
    /// Nothing is left of it.
    Over,
}

/// How far a message to the client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// PUBLISH is due: a resumed session, and the window is full.
    Due,
    /// PUBLISH was sent: waiting for PUBACK or PUBREC.
    Published,
    /// PUBREC came and PUBREL was sent: waiting for PUBCOMP. The message itself is gone.
    Released,
}

/// One QoS 1 or 2 message to the client that it has not finished with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InFlight {
    pub(crate) token: DeliveryToken,
    pub(crate) packet_id: u16,
    pub(crate) qos: QoS,
    pub(crate) stage: Stage,
    /// It holds a share of the client's Receive Maximum on this connection.
    #[serde(skip)]
    pub(crate) counted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Box<Message>>,
}

impl InFlight {
    /// Looks at the time of a message that is not on its way on this connection.
    pub(crate) fn lapse(&mut self, now: u64) -> Lapse {
        let Some(message) = &mut self.message else { return Lapse::Goes };
        let Some(expires_at) = message.expires_at else { return Lapse::Goes };
        let left_ms = expires_at.saturating_sub(now);
        if left_ms > 0 {
            message.message_expiry = Some(u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX));
            return Lapse::Goes;
        }
        self.message = None;
        self.stage = Stage::Released;
        if self.qos == QoS::ExactlyOnce { Lapse::Released } else { Lapse::Over }
    }
}
