//! What a client's packets and a session's mail make a connection do.
//!
//! Owns: the ACL's word on each packet, the publish window. Does not own: waiting and buffers (`conn.rs`), commands
//! (`outbound.rs`).

use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{PublishProperties, Reason, RefusedCause};
use landfall_hub::{Attempt, Mail, Permit, Settled, StoreError, Uplink, unix_now};
use landfall_mqtt_core::commands::parse_response;
use landfall_mqtt_core::{Action, Inbound, PublishFailure, QoS, SubscribeRequest, Token, Verdict};
use landfall_net::Stream;

use crate::conn::{Conn, End, WRITE_HIGH};

/// What a message costs of the publish window: everything of it that a device may make large.
fn weight(inbound: &Inbound) -> usize {
    let texts = inbound.topic.len() + inbound.content_type.as_ref().map_or(0, |text| text.len());
    let topic = inbound.response_topic.as_ref().map_or(0, |topic| topic.len());
    let data = inbound.correlation_data.as_ref().map_or(0, |data| data.len() / 3 * 4);
    let properties = inbound.user_properties.iter().map(|(name, value)| name.len() + value.len() + 32);
    // Written as Base64, a payload grows by a third.
    texts + topic + data + properties.sum::<usize>() + inbound.payload.len() / 3 * 4
}

impl<S: Stream> Conn<S> {
    /// Acts on every complete packet in `input`, until the publish window stops it.
    pub(crate) fn process(&mut self) -> Result<(), End> {
        if self.core.in_flight() > 0 {
            self.core.lapse(unix_now(), &mut self.out);
        }
        loop {
            self.note_resent();
            if self.is_blocked() || self.out.len() >= WRITE_HIGH {
                return Ok(());
            }
            let before = self.input.len();
            let action = self.core.poll(&mut self.input, &mut self.out);
            if self.input.len() < before
                && let Some(busy) = &mut self.busy
            {
                // A packet has come; the next one has all its time.
                busy.crawl = None;
            }
            match action {
                Some(action) => self.act(action)?,
                None => return Ok(()),
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), End> {
        match action {
            Action::Publish(inbound) => self.on_publish(inbound),
            Action::Subscribe(request) => {
                self.on_subscribe(request);
                Ok(())
            }
            // The state's revision has changed, which is looked at in any case.
            Action::Unsubscribed => Ok(()),
            Action::Acknowledged(token, ack) => {
                self.on_acknowledged(token, ack);
                Ok(())
            }
            Action::WindowOpened => {
                if let Some((command, queued)) = self.busy.as_mut().and_then(|busy| busy.stuck.take()) {
                    self.send(command, queued);
                }
                Ok(())
            }
            Action::Disconnect(goodbye) => Err(End::Goodbye(goodbye)),
            Action::Fault(fault) => Err(End::Fault(fault)),
            // The machine has been told of its CONNECT's fate and makes a fault of a second one.
            Action::Connect(_) => Err(End::Told(Reason::ProtocolError)),
        }
    }

    fn on_publish(&mut self, inbound: Inbound) -> Result<(), End> {
        if !self.handle.acl().may_publish(&inbound.topic) {
            self.deny(&inbound.topic);
            return self.fail(inbound.token, PublishFailure::NotAuthorized);
        }
        let bytes = weight(&inbound);
        let waits = self.busy.as_ref().is_some_and(|busy| !busy.parked.is_empty());
        match if waits { None } else { self.handle.try_admit(bytes) } {
            Some(permit) => self.submit(inbound, permit),
            None => {
                let admission = (!waits).then(|| self.handle.admit(bytes));
                let busy = self.busy();
                busy.admission = busy.admission.take().or(admission);
                busy.parked_bytes += bytes;
                // A slice would keep the whole read buffer alive.
                let payload = Bytes::copy_from_slice(&inbound.payload);
                let correlation_data = inbound.correlation_data.as_deref().map(Bytes::copy_from_slice);
                busy.parked.push_back(Inbound { payload, correlation_data, ..inbound });
                Ok(())
            }
        }
    }

    /// The device may not have what it wants with this topic or filter.
    fn deny(&self, topic: &str) {
        let (transport, remote) = (self.handle.transport(), self.handle.remote_address());
        let attempt = Attempt::new(RefusedCause::NotAuthorized, transport, remote);
        self.server.hub().refused(&attempt.of(self.handle.tenant(), self.handle.device()).about(topic));
    }

    /// Where the protocol has no word for a message that is not taken, the connection ends rather than that the client
    /// believes in something that did not happen.
    fn fail(&mut self, token: Token, failure: PublishFailure) -> Result<(), End> {
        self.core.publish_failed(token, failure, &mut self.out).map_or(Ok(()), |action| self.act(action))
    }

    fn submit(&mut self, inbound: Inbound, permit: Permit) -> Result<(), End> {
        let token =
            (inbound.qos != QoS::AtMostOnce).then(|| (inbound.token.0, self.core.memo(inbound.token)));
        let mut permit = permit;
        if let Some((command, status)) = parse_response(&inbound.topic) {
            let answer = (Arc::from(status), inbound.payload.clone());
            match self.handle.answered_noted(&command, answer, (token, permit)) {
                Ok(()) => return Ok(()),
                Err(back) => permit = back,
            }
        }
        let publish = PublishProperties {
            response_topic: inbound.response_topic,
            correlation_data: inbound.correlation_data,
            expiry_ms: inbound.message_expiry.map(|seconds| u64::from(seconds) * 1000),
            is_utf8: inbound.payload_is_utf8,
        };
        let uplink = Uplink {
            topic: inbound.topic,
            qos: Some(inbound.qos.level()),
            retain: inbound.retain,
            content_type: inbound.content_type,
            properties: inbound.user_properties,
            publish: publish.said(),
            payload: inbound.payload,
        };
        let taken = self.handle.upstream_noted(uplink, token, permit).map_err(End::Gateway);
        if let (Err(_), Some((token, _))) = (&taken, token) {
            // The session has ended, so the message is nobody's.
            self.busy().untaken.push(Token(token));
        }
        taken
    }

    pub(crate) fn on_admitted(&mut self, permit: Permit) -> Result<(), End> {
        let mut permit = Some(permit);
        while let Some(busy) = self.busy.as_mut() {
            let Some(bytes) = busy.parked.front().map(weight) else { break };
            match permit.take().or_else(|| self.handle.try_admit(bytes)) {
                Some(permit) => {
                    let busy = self.busy();
                    busy.parked_bytes = busy.parked_bytes.saturating_sub(bytes);
                    if let Some(inbound) = busy.parked.pop_front() {
                        self.submit(inbound, permit)?;
                    }
                }
                None => {
                    let admission = self.handle.admit(bytes);
                    self.busy().admission = Some(admission);
                    break;
                }
            }
        }
        Ok(())
    }

    /// At the connection's end: QoS 0 messages that came in time are published; the others were not acknowledged, so the
    /// client knows.
    pub(crate) fn submit_the_rest(&mut self) {
        let parked = self.busy.as_mut().map(|busy| std::mem::take(&mut busy.parked)).unwrap_or_default();
        let (parting, untaken): (Vec<_>, Vec<_>) =
            parked.into_iter().partition(|inbound| inbound.qos == QoS::AtMostOnce);
        for inbound in parting {
            if self.submit(inbound, Permit::at_the_end()).is_err() {
                break;
            }
        }
        if !untaken.is_empty() {
            self.busy().untaken.extend(untaken.into_iter().map(|inbound| inbound.token));
        }
    }

    fn on_subscribe(&mut self, request: SubscribeRequest) {
        let acl = self.handle.acl();
        let verdict =
            |allowed| if allowed { Verdict::Granted(QoS::ExactlyOnce) } else { Verdict::NotAuthorized };
        let verdicts: Vec<_> =
            request.filters().map(|(filter, _)| verdict(acl.may_subscribe(filter))).collect();
        // One packet is one attempt, of however many filters.
        let denied =
            request.filters().zip(&verdicts).find(|(_, verdict)| **verdict == Verdict::NotAuthorized);
        if let Some(((filter, _), _)) = denied {
            self.deny(filter.as_str());
        }
        self.core.subscribed(request, &verdicts, &mut self.out);
    }

    /// All of the news, also when one of them ends the connection: what is stored must be known to the session.
    pub(crate) fn on_settled(&mut self, news: Settled) -> Result<(), End> {
        let mut all = Ok(());
        for (token, result) in news {
            let one = match result {
                Ok(()) => {
                    self.core.stored(Token(token), &mut self.out);
                    Ok(())
                }
                Err(StoreError::TooLarge { .. }) => self.fail(Token(token), PublishFailure::QuotaExceeded),
                Err(StoreError::Refused(_) | StoreError::Unavailable(_) | StoreError::Closed) => {
                    self.fail(Token(token), PublishFailure::NotStored)
                }
            };
            all = all.and(one);
        }
        if let Some(busy) = &mut self.busy
            && !busy.owed.is_empty()
            && !self.core.waits_for_earlier()
        {
            busy.owed.clear();
        }
        all
    }

    pub(crate) fn on_mail(&mut self, mail: Mail) -> Result<(), End> {
        self.on_settled(mail.settled)?;
        if let Some(reason) = mail.ended {
            return Err(End::Gateway(reason));
        }
        if let Some(command) = mail.command {
            self.send(command, None);
        }
        if mail.has_landed {
            self.kept = None;
        }
        Ok(())
    }
}
