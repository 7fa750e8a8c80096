//! One accepted connection: its terms, its two halves and its subscriptions, and what each packet does to them.
//!
//! Owns: dispatch of a packet after CONNECT. Does not own: reading it, or ending the connection ([`crate::Connection`]).

use bytes::BytesMut;
use landfall_event::TopicFilter;

use crate::action::{Action, Delivery, Goodbye};
use crate::fault::{Broken, Violation};
use crate::inbound::Receiver;
use crate::mark::Marker;
use crate::outbound::{Link, Sender};
use crate::packet::{AckKind, Disconnect, Packet, Subscribe, Unsubscribe};
use crate::subscribe::{SubscribeRequest, Subscription, Subscriptions, code};
use crate::{DeliveryToken, Limits, Message, QoS, SessionState, Verdict, Version, encode};

/// What client and gateway agreed on in CONNECT and CONNACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    /// Reason strings are welcome.
    pub(crate) problem_information: bool,
    pub(crate) session_present: bool,
    /// Seconds; 0 for none.
    pub(crate) keep_alive: u16,
    /// Seconds, in force.
    pub(crate) session_expiry: u32,
    /// CONNECT asked for a session that ends with the connection: DISCONNECT cannot change that.
    pub(crate) asked_no_expiry: bool,
    /// The client's.
    pub(crate) receive_maximum: u16,
    /// The client knows our own and is held to it. A 3.1.1 client cannot know, and one of 5.0 does not where CONNACK had no
    /// room for it: reading from them pauses instead.
    pub(crate) told_receive_maximum: bool,
    /// The client's.
    pub(crate) maximum_packet_size: u32,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) terms: Terms,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) receiver: Receiver,
    sender: Sender,
    pub(crate) revision: u32,
}

/// The share of `session` that sending needs, beside its `sender`.
macro_rules! link {
    ($session:expr) => {
        Link {
            version: $session.terms.version,
            limit: $session.terms.maximum_packet_size,
            subscriptions: &$session.subscriptions,
        }
    };
}

impl Session {
    /// `key` is that of a new session's marks.
    pub(crate) fn new(terms: Terms, mut state: SessionState, key: [u64; 2], limits: &Limits) -> Self {
        let marker = Marker::new(if state.key == [0; 2] { key } else { state.key });
        Self {
            terms,
            subscriptions: Subscriptions::new(std::mem::take(&mut state.subscriptions)),
            receiver: Receiver::new(&mut state, marker, terms.told_receive_maximum),
            sender: Sender::new(&mut state, terms.receive_maximum, limits.outbound_in_flight),
            revision: 0,
        }
    }

    pub(crate) fn resume(&mut self, out: &mut BytesMut) {
        self.sender.resume(link!(self), out);
    }

    pub(crate) fn state(&self) -> SessionState {
        let mut state =
            SessionState { subscriptions: self.subscriptions.as_slice().to_vec(), ..SessionState::default() };
        self.receiver.save(&mut state);
        self.sender.save(&mut state);
        state
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.sender.in_flight().len()
    }

    pub(crate) fn take_resent(&mut self) -> Vec<DeliveryToken> {
        self.sender.take_resent()
    }

    pub(crate) fn lapse(&mut self, now: u64, out: &mut BytesMut) {
        if self.sender.lapse(now, out) {
            self.changed();
        }
    }

    pub(crate) fn changed(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    /// Something to tell that no packet brought.
    pub(crate) fn news(&mut self) -> Option<Action> {
        if let Some((token, why)) = self.sender.take_dropped() {
            self.changed();
            return Some(Action::Acknowledged(token, why));
        }
        self.sender.take_opened().then_some(Action::WindowOpened)
    }

    /// Does one packet. `None`: there is nothing to tell.
    pub(crate) fn handle(
        &mut self,
        packet: Packet,
        limits: &Limits,
        out: &mut BytesMut,
    ) -> Result<Option<Action>, Broken> {
        match packet {
            Packet::Publish(publish) => {
                let taken = self.receiver.publish(publish, self.terms.version, limits, out)?;
                Ok(taken.map(Action::Publish))
            }
            Packet::Ack(AckKind::Rel, id, _) => {
                if self.receiver.release(id, self.terms.version, out)? {
                    self.changed();
                }
                Ok(None)
            }
            Packet::Ack(kind, id, code) => {
                let ended = self.sender.acknowledge(kind, id, code, link!(self), out)?;
                self.changed();
                Ok(ended.map(|(token, ack)| Action::Acknowledged(token, ack)))
            }
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, limits, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, out),
            Packet::PingRequest => {
                encode::pingresp(out);
                Ok(None)
            }
            Packet::Disconnect(disconnect) => self.goodbye(&disconnect, limits).map(Some),
        }
    }

    fn subscribe(
        &mut self,
        subscribe: Subscribe,
        limits: &Limits,
        out: &mut BytesMut,
    ) -> Result<Option<Action>, Broken> {
        self.fits_client(encode::suback_size(subscribe.filters.len(), self.terms.version))?;
        let entries = subscribe.filters.into_iter().map(|asked| {
            if asked.filter.starts_with("$share/") {
                return Err(code::SHARED_NOT_SUPPORTED);
            }
            if asked.filter.len() > limits.max_topic_length {
                return Err(code::FILTER_INVALID);
            }
            Ok(Subscription {
                filter: asked.filter.parse().map_err(|_| code::FILTER_INVALID)?,
                qos: asked.qos,
                no_local: asked.no_local,
                retain_as_published: asked.retain_as_published,
                id: subscribe.id,
            })
        });
        let request = SubscribeRequest { packet_id: subscribe.packet_id, entries: entries.collect() };
        if request.filters().next().is_some() {
            return Ok(Some(Action::Subscribe(request)));
        }
        self.subscribed(request, &[], limits, out);
        Ok(None)
    }

    /// Answers a SUBSCRIBE: one code per filter, in order [MQTT-3.8.4-5] [MQTT-3.9.3-1].
    pub(crate) fn subscribed(
        &mut self,
        request: SubscribeRequest,
        verdicts: &[Verdict],
        limits: &Limits,
        out: &mut BytesMut,
    ) {
        let version = self.terms.version;
        let mut verdicts = verdicts.iter().copied();
        let mut codes = Vec::with_capacity(request.entries.len());
        for entry in request.entries {
            let code = match entry {
                Ok(asked) => {
                    let verdict = verdicts.next().unwrap_or(Verdict::Failed);
                    self.subscriptions.decide(asked, verdict, limits.max_subscriptions)
                }
                Err(code) => code,
            };
            codes.push(if !version.is_5() && code >= 0x80 { code::UNSPECIFIED } else { code });
        }
        self.changed();
        encode::suback(request.packet_id, &codes, version, out);
    }

    fn unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe,
        out: &mut BytesMut,
    ) -> Result<Option<Action>, Broken> {
        let version = self.terms.version;
        self.fits_client(encode::suback_size(unsubscribe.filters.len(), version))?;
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            codes.push(match self.subscriptions.remove(filter) {
                true => code::SUCCESS,
                false if filter.parse::<TopicFilter>().is_err() => code::FILTER_INVALID,
                false => code::NO_SUBSCRIPTION_EXISTED,
            });
        }
        encode::unsuback(unsubscribe.packet_id, &codes, version, out);
        if !codes.contains(&code::SUCCESS) {
            return Ok(None);
        }
        self.changed();
        Ok(Some(Action::Unsubscribed))
    }

    /// An answer that is larger than the client takes cannot be sent, and leaving it out would be silence.
    fn fits_client(&self, size: usize) -> Result<(), Broken> {
        if usize::try_from(self.terms.maximum_packet_size).is_ok_and(|limit| size > limit) {
            return Err(Broken::new(
                Violation::PacketTooLarge,
                "a request whose answer is above the client's own maximum packet size",
            ));
        }
        Ok(())
    }

    fn goodbye(&mut self, disconnect: &Disconnect, limits: &Limits) -> Result<Action, Broken> {
        if let Some(expiry) = disconnect.session_expiry {
            if self.terms.asked_no_expiry && expiry != 0 {
                return Err(Broken::protocol("a session expiry for a session that ends with its connection"));
            }
            self.terms.session_expiry = expiry.min(limits.max_session_expiry);
        }
        Ok(Action::Disconnect(Goodbye {
            code: disconnect.code,
            with_will: disconnect.code != 0,
            session_expiry: self.terms.session_expiry,
        }))
    }

    pub(crate) fn deliver(&mut self, message: Message, out: &mut BytesMut) -> Delivery {
        if !message.is_sendable() {
            return Delivery::Invalid;
        }
        let Some(granted) = self.subscriptions.granted(&message.topic) else {
            return Delivery::NotSubscribed(message);
        };
        let delivery = self.sender.deliver(message, granted, link!(self), out);
        if matches!(delivery, Delivery::Sent { token: Some(_), .. }) {
            self.changed();
        }
        delivery
    }

    pub(crate) fn granted(&self, topic: &str) -> Option<QoS> {
        self.subscriptions.granted(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection holds, beside the texts of its subscriptions.
    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
    }
}
