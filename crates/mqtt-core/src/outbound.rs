//! Messages to the client: packet ids, the window, PUBLISH to PUBACK or PUBCOMP, and sending again after a resume.
//!
//! Owns: what is in flight. Does not own: what waits behind it (the shell's queue).

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::encode::Sending;
use crate::fault::Broken;
use crate::packet::AckKind;
use crate::state::{InFlight, Lapse, Stage};
use crate::subscribe::Subscriptions;
use crate::{Ack, Delivery, DeliveryToken, Message, QoS, SessionState, Version, encode};

/// PUBREL's "Packet Identifier not found".
const PACKET_ID_NOT_FOUND: u8 = 0x92;

/// What holds for every packet to this client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) version: Version,
    /// The client's Maximum Packet Size.
    pub(crate) limit: u32,
    pub(crate) subscriptions: &'a Subscriptions,
}

impl Link<'_> {
    fn publish(&self, message: &Message, qos: QoS, packet_id: u16, dup: bool, out: &mut BytesMut) -> bool {
        let how = Sending { version: self.version, qos, packet_id, dup, limit: self.limit };
        // Every matching subscription's identifier [MQTT-3.3.4-4].
        let ids = || self.subscriptions.matching(&message.topic).filter_map(|s| s.id);
        encode::publish(message, how, ids, out)
    }
}

/// The sending half of a session.
#[derive(Debug)]
pub(crate) struct Sender {
    /// In the order of sending.
    in_flight: VecDeque<InFlight>,
    last_packet_id: u16,
    last_token: u64,
    /// PUBLISHes that may be unfinished on this connection: the client's Receive Maximum or ours.
    window: u16,
    /// Messages that may be in flight, those of the resumed state included.
    capacity: u16,
    used: u16,
    /// `deliver` was told to wait.
    starved: bool,
    /// There is room again, and the shell does not know yet.
    opened: bool,
    /// Messages that ended without a packet of the client.
    dropped: VecDeque<(DeliveryToken, Ack)>,
    /// What was sent again on this connection, and the shell does not know yet.
    resent: Vec<DeliveryToken>,
}

impl Sender {
    /// `state` is a resumed session's.
    pub(crate) fn new(state: &mut SessionState, receive_maximum: u16, capacity: u16) -> Self {
        let capacity = capacity.max(1);
        let mut in_flight: VecDeque<InFlight> = std::mem::take(&mut state.in_flight).into();
        in_flight.retain(|f| f.packet_id != 0 && (f.stage == Stage::Released || f.message.is_some()));
        for entry in &mut in_flight {
            entry.counted = false;
            if entry.stage == Stage::Published {
                entry.stage = Stage::Due;
            }
        }
        Self {
            in_flight,
            last_packet_id: state.last_packet_id,
            last_token: state.last_token,
            window: receive_maximum.min(capacity).max(1),
            capacity,
            used: 0,
            starved: false,
            opened: false,
            dropped: VecDeque::new(),
            resent: Vec::new(),
        }
    }

    pub(crate) fn in_flight(&self) -> impl ExactSizeIterator<Item = &InFlight> {
        self.in_flight.iter()
    }

    pub(crate) fn save(&self, state: &mut SessionState) {
        state.in_flight = self.in_flight.iter().map(|f| InFlight { counted: false, ..f.clone() }).collect();
        state.last_packet_id = self.last_packet_id;
        state.last_token = self.last_token;
    }

    /// A message that ended without a packet of the client.
    pub(crate) fn take_dropped(&mut self) -> Option<(DeliveryToken, Ack)> {
        self.dropped.pop_front()
    }

    /// The messages that were sent again since the last time.
    pub(crate) fn take_resent(&mut self) -> Vec<DeliveryToken> {
        std::mem::take(&mut self.resent)
    }

    /// Drops, of the messages that are due, those whose time is over at `now`. True when there were any.
    pub(crate) fn lapse(&mut self, now: u64, out: &mut BytesMut) -> bool {
        let before = self.dropped.len();
        let dropped = &mut self.dropped;
        self.in_flight.retain_mut(|entry| {
            if entry.stage != Stage::Due {
                return true;
            }
            let lapse = entry.lapse(now);
            if lapse != Lapse::Goes {
                dropped.push_back((entry.token, Ack::Lapsed));
            }
            if lapse == Lapse::Released {
                encode::ack(AckKind::Rel, entry.packet_id, 0, out);
            }
            lapse != Lapse::Over
        });
        self.look_for_room();
        self.dropped.len() > before
    }

    /// True once after there is room again.
    pub(crate) fn take_opened(&mut self) -> bool {
        std::mem::take(&mut self.opened)
    }

    /// Sends a message with at most the QoS that its subscriptions grant.
    pub(crate) fn deliver(
        &mut self,
        message: Message,
        granted: QoS,
        link: Link<'_>,
        out: &mut BytesMut,
    ) -> Delivery {
        let qos = message.qos.min(granted);
        if qos == QoS::AtMostOnce {
            return match link.publish(&message, qos, 0, false, out) {
                true => Delivery::Sent { qos, token: None },
                false => Delivery::TooLarge,
            };
        }
        if !self.has_room() {
            self.starved = true;
            return Delivery::Full(message);
        }
        let packet_id = self.next_packet_id();
        if !link.publish(&message, qos, packet_id, false, out) {
            return Delivery::TooLarge;
        }
        self.last_packet_id = packet_id;
        self.last_token += 1;
        let token = DeliveryToken(self.last_token);
        self.used += 1;
        self.in_flight.push_back(InFlight {
            token,
            packet_id,
            qos,
            stage: Stage::Published,
            counted: true,
            message: Some(Box::new(message)),
        });
        Delivery::Sent { qos, token: Some(token) }
    }

    fn has_room(&self) -> bool {
        self.used < self.window
            && self.in_flight.len() < usize::from(self.capacity)
            && !self.in_flight.iter().any(|f| f.stage == Stage::Due)
    }

    /// The next packet id that no message in flight has [MQTT-2.2.1-4]; there is one, since fewer are in flight.
    fn next_packet_id(&self) -> u16 {
        let mut id = self.last_packet_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !self.in_flight.iter().any(|f| f.packet_id == id) {
                return id;
            }
        }
    }

    /// After CONNACK of a resumed session: PUBREL and PUBLISH with DUP, in the old order [MQTT-4.4.0-1] [MQTT-4.6.0-1].
    pub(crate) fn resume(&mut self, link: Link<'_>, out: &mut BytesMut) {
        for entry in self.in_flight.iter().filter(|f| f.stage == Stage::Released) {
            encode::ack(AckKind::Rel, entry.packet_id, 0, out);
        }
        self.send_due(link, out);
    }

    /// Sends what waits for the window, as far as the window allows.
    fn send_due(&mut self, link: Link<'_>, out: &mut BytesMut) {
        let mut too_large = false;
        for entry in self.in_flight.iter_mut().filter(|f| f.stage == Stage::Due) {
            if self.used >= self.window {
                break;
            }
            let Some(message) = &entry.message else { continue };
            if link.publish(message, entry.qos, entry.packet_id, true, out) {
                entry.stage = Stage::Published;
                entry.counted = true;
                self.used += 1;
                self.resent.push(entry.token);
            } else {
                self.dropped.push_back((entry.token, Ack::TooLarge));
                entry.message = None;
                too_large = true;
            }
        }
        if too_large {
            self.in_flight.retain(|f| f.stage != Stage::Due || f.message.is_some());
        }
        self.look_for_room();
    }

    fn look_for_room(&mut self) {
        if self.starved && self.has_room() {
            self.starved = false;
            self.opened = true;
        }
    }

    fn find(&self, id: u16) -> Option<usize> {
        self.in_flight.iter().position(|f| f.packet_id == id)
    }

    fn finish(&mut self, at: usize, link: Link<'_>, out: &mut BytesMut) -> Option<DeliveryToken> {
        let entry = self.in_flight.remove(at)?;
        if entry.counted {
            self.used = self.used.saturating_sub(1);
        }
        self.send_due(link, out);
        Some(entry.token)
    }

    /// Takes PUBACK, PUBREC or PUBCOMP. `Some` when a message has reached its end.
    pub(crate) fn acknowledge(
        &mut self,
        kind: AckKind,
        id: u16,
        code: u8,
        link: Link<'_>,
        out: &mut BytesMut,
    ) -> Result<Option<(DeliveryToken, Ack)>, Broken> {
        let Some((at, entry)) = self.find(id).and_then(|at| Some((at, self.in_flight.get_mut(at)?))) else {
            // A code of 0x80 or above has ended it [MQTT-4.3.3-4].
            if kind == AckKind::Rec && code < 0x80 {
                let code = if link.version.is_5() { PACKET_ID_NOT_FOUND } else { 0 };
                encode::ack(AckKind::Rel, id, code, out);
            }
            return Ok(None);
        };
        let ack = if code >= 0x80 { Ack::Refused(code) } else { Ack::Done };
        match (kind, entry.qos, entry.stage) {
            (AckKind::Ack, QoS::AtLeastOnce, Stage::Published | Stage::Due)
            | (AckKind::Comp, QoS::ExactlyOnce, Stage::Released) => {
                // PUBCOMP's one error code says that the client no longer knows the id: it has had the message.
                let ack = if kind == AckKind::Comp { Ack::Done } else { ack };
                Ok(self.finish(at, link, out).map(|token| (token, ack)))
            }
            // Also behind a PUBREC that took it: the client's last word counts, and there is no PUBREL after it.
            (AckKind::Rec, QoS::ExactlyOnce, _) if ack != Ack::Done => {
                Ok(self.finish(at, link, out).map(|token| (token, ack)))
            }
            (AckKind::Rec, QoS::ExactlyOnce, _) => {
                entry.stage = Stage::Released;
                entry.message = None;
                encode::ack(AckKind::Rel, id, 0, out);
                Ok(None)
            }
            _ => Err(Broken::protocol("an acknowledgement that its message does not wait for")),
        }
    }
}
