//! Commands on one connection: sent, acknowledged, kept with the session, packed up at the end.
//!
//! Owns: which command is which message of the state, and that one which waited in the store leaves it only when the session
//! with it is there. Does not own: the choice of topic (`commands.rs`), outcomes (`landfall-hub`), waiting (`conn.rs`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use landfall_event::{CommandId, Outcome};
use landfall_hub::{Adopted, Command, Wait, unix_now};
use landfall_mqtt_core::{Ack, Delivery, DeliveryToken};
use landfall_net::Stream;

use crate::commands::{command_message, command_topic};
use crate::conn::{Conn, WRITE_HIGH};
use crate::flights::{Flying, Sorted, Whereabouts};
use crate::sessions::Queued;

/// How long a persistent session's answers wait for the store.
const KEEP_PATIENCE: Duration = Duration::from_secs(1);

impl<S: Stream> Conn<S> {
    /// A command that an earlier connection of the session left: the state still has its message, or the device may answer.
    pub(crate) fn take_up(&mut self, flying: Flying) {
        let Flying { left, token } = flying;
        let hub = self.server.hub();
        if left.command.expires_at <= unix_now() {
            return hub.settle_left(&left, Outcome::Expired, Some("not-connected"));
        }
        let id = left.command.id.clone();
        match self.handle.take_up(left) {
            Ok(()) => {
                if let Some(token) = token {
                    self.busy().flights.insert(token, id);
                }
            }
            Err((left, Adopted::Ended)) => self.busy().strays.push(Flying { left, token }),
            Err((left, _)) => hub.settle_left(&left, Outcome::Failed, Some("duplicate-id")),
        }
    }

    /// What the machine has put into `out` again is on its way again.
    pub(crate) fn note_resent(&mut self) {
        let resent = self.core.take_resent();
        let Some(busy) = self.busy.as_mut() else { return };
        let (flights, unwritten) = (&busy.flights, &mut busy.unwritten);
        unwritten.extend(resent.iter().filter_map(|token| Some((flights.get(token)?.clone(), 0, true))));
    }

    /// Commands that waited for the device, in order, as far as there is room.
    pub(crate) fn send_queued(&mut self) {
        while !self.deaf
            && self.busy.as_ref().is_some_and(|busy| busy.stuck.is_none())
            && self.out.len() < WRITE_HIGH
        {
            let Some(queued) = self.busy.as_mut().and_then(|busy| busy.queue.pop_front()) else { break };
            let (sessions, hub) = (self.server.sessions(), self.server.hub());
            if queued.command.expires_at <= unix_now() {
                sessions.gone_out(&queued);
                hub.settle_offline(&queued.command, Outcome::Expired, Some("not-connected"));
                continue;
            }
            match self.handle.adopt(&queued.command) {
                Adopted::UnderWay => self.send(Arc::clone(&queued.command), Some(queued)),
                Adopted::Duplicate => {
                    sessions.gone_out(&queued);
                    hub.settle_offline(&queued.command, Outcome::Rejected, Some("duplicate-id"));
                }
                Adopted::Ended => {
                    self.busy().queue.push_front(queued);
                    break;
                }
            }
        }
    }

    /// Sends a command, which may have waited in the store.
    pub(crate) fn send(&mut self, command: Arc<Command>, queued: Option<Queued>) {
        if command.expires_at <= unix_now() || !self.handle.is_under_way(&command.id) {
            // Its outcome is told, or will be at the next tick: a command that is said to have expired is never sent.
            return self.gone_out(queued.as_ref());
        }
        let acl = self.handle.acl();
        let topic =
            command_topic(&command, |topic| self.core.granted(topic).is_some() && acl.may_receive(topic));
        let Some(topic) = topic else {
            self.handle.settled(&command.id, Outcome::Rejected, "not-subscribed");
            return self.gone_out(queued.as_ref());
        };
        let message = command_message(&command, topic, unix_now());
        let rejected = match self.core.deliver(message, &mut self.out) {
            Delivery::Sent { token, .. } => return self.sent(&command, token, queued),
            // The session is ending: its end settles what is under way, or lets it wait on.
            Delivery::Full(_) | Delivery::Closed(_) => {
                self.busy().stuck = Some((command, queued));
                return;
            }
            Delivery::TooLarge => "too-large",
            Delivery::Invalid => "unsendable",
            Delivery::NotSubscribed(_) => "not-subscribed",
        };
        self.handle.settled(&command.id, Outcome::Rejected, rejected);
        self.gone_out(queued.as_ref());
    }

    fn sent(&mut self, command: &Arc<Command>, token: Option<DeliveryToken>, queued: Option<Queued>) {
        let unwritten = (command.id.clone(), command.payload.len(), token.is_some());
        let busy = self.busy();
        busy.unwritten.push(unwritten);
        match token {
            Some(token) => {
                busy.flights.insert(token, command.id.clone());
                busy.leaving.extend(queued);
                if self.hold.is_none() {
                    self.release();
                }
            }
            None => {
                self.gone_out(queued.as_ref());
                if command.wait == Wait::Answered {
                    // No message of the state stands for it.
                    self.kept = None;
                }
            }
        }
    }

    fn gone_out(&self, queued: Option<&Queued>) {
        queued.into_iter().for_each(|queued| self.server.sessions().gone_out(queued));
    }

    /// The session that is in the store knows of everything that has gone out.
    pub(crate) fn release(&mut self) {
        let leaving = self.busy.as_mut().map(|busy| std::mem::take(&mut busy.leaving)).unwrap_or_default();
        leaving.iter().for_each(|queued| self.server.sessions().gone_out(queued));
    }

    pub(crate) fn on_acknowledged(&mut self, token: DeliveryToken, ack: Ack) {
        let Some(command) = self.busy.as_mut().and_then(|busy| busy.flights.remove(&token)) else { return };
        match ack {
            Ack::Done => self.handle.acknowledged(&command),
            Ack::Refused(code) => {
                self.handle.settled(&command, Outcome::Rejected, &format!("mqtt-reason-0x{code:02x}"));
            }
            Ack::TooLarge => self.handle.settled(&command, Outcome::Rejected, "too-large"),
            Ack::Lapsed => self.handle.settled(&command, Outcome::Expired, "not-connected"),
        }
    }

    fn whereabouts(&self) -> Whereabouts {
        let Some(busy) = &self.busy else { return Whereabouts::default() };
        let unsure = busy.unwritten.iter().filter(|(_, _, can_acknowledge)| !can_acknowledge);
        Whereabouts {
            tokens: busy.flights.iter().map(|(token, id)| (CommandId::clone(id), *token)).collect(),
            unsure: unsure.map(|(id, ..)| id.clone()).collect(),
        }
    }

    /// Keeps the session in the store; says whether it is there. While the store does not answer, the client is served all
    /// the same.
    pub(crate) async fn keep(&mut self) -> bool {
        let Some(hold) = &self.hold else { return true };
        let kept = (self.core.session_state(), self.core.session_expiry());
        let flights = self.whereabouts().records(self.handle.under_way());
        match self.server.sessions().keep(hold, kept, flights) {
            Some(kept) if self.server.hub().is_ready() => {
                matches!(tokio::time::timeout(KEEP_PATIENCE, kept).await, Ok(Ok(())))
            }
            _ => false,
        }
    }

    /// After the session's end: the commands that have not gone out, and what was under way.
    pub(crate) fn pack_up(&mut self) -> (VecDeque<Queued>, Sorted) {
        let mut sorted = self.whereabouts().sort(self.server.hub(), self.handle.leave_behind());
        // Its session is put down with what went out.
        self.release();
        let Some(busy) = self.busy.take() else { return (VecDeque::new(), sorted) };
        sorted.flying.extend(busy.strays);
        let mut queue = busy.queue;
        if let Some((command, Some(queued))) = busy.stuck {
            if sorted.unsent.iter().any(|left| left.command.id == command.id) {
                queue.push_front(queued);
            } else {
                self.gone_out(Some(&queued));
            }
        }
        (queue, sorted)
    }
}
