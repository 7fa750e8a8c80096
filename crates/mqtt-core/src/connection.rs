//! The server's side of one network connection, from its first byte to its last.
//!
//! Owns: the order of things: CONNECT first, then packets, then nothing. Does not own: sockets, clocks, storage.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use landfall_event::{CommandId, CommandName, Memo};

use crate::commands::{self, RequestForm};
use crate::connect::{self, Offer};
use crate::fault::{Broken, Fault, Violation};
use crate::guard::{self, kind};
use crate::session::Session;
use crate::{
    Accept, Action, Delivery, DeliveryToken, DisconnectWhy, Limits, Message, PublishFailure, QoS, Refusal,
    SessionState, SubscribeRequest, Subscription, Token, Verdict, Version, codec, encode,
};

/// The first byte of a PUBLISH.
const PUBLISH: u8 = kind::PUBLISH << 4;

/// One connection. See the crate's page for how a shell drives it.
#[derive(Debug)]
pub struct Connection {
    limits: Arc<Limits>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Nothing but CONNECT may come.
    Fresh,
    /// CONNECT came; the shell decides.
    Offered(Box<Offer>),
    /// The client is let in.
    Open(Box<Session>),
    /// The connection is over; its session may outlive it.
    Over(Option<Box<Session>>),
}

impl Connection {
    /// A connection that nothing has come from.
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { limits, phase: Phase::Fresh }
    }

    /// Takes packets from `input` until one means something to the shell; replies go to `out`.
    ///
    /// `None`: more bytes are needed, or the machine waits (for `accept` or `refuse`; for `stored` when [`Self::blocked`]),
    /// or the connection is over. A call that made `input` shorter has taken a packet, whatever it returned. Call until
    /// `None`: some actions come without bytes.
    pub fn poll(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Option<Action> {
        match &mut self.phase {
            Phase::Fresh => self.first(input, out),
            Phase::Offered(_) | Phase::Over(_) => None,
            Phase::Open(session) => match next(session, &self.limits, input, out) {
                Ok(action) => {
                    if matches!(action, Some(Action::Disconnect(_))) {
                        self.end();
                    }
                    action
                }
                Err(broken) => Some(self.fail(broken, out)),
            },
        }
    }

    fn first(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Option<Action> {
        match connect::read(input, &self.limits) {
            Ok(None) => None,
            Ok(Some((offer, request))) => {
                self.phase = Phase::Offered(Box::new(offer));
                Some(Action::Connect(request))
            }
            Err(rejected) => {
                rejected.answer(out);
                self.end();
                Some(Action::Fault(rejected.broken.into()))
            }
        }
    }

    /// Ends an accepted connection for a broken rule: DISCONNECT on 5.0 [MQTT-4.13.1-1], nothing on 3.1.1.
    fn fail(&mut self, broken: Broken, out: &mut BytesMut) -> Action {
        if let Phase::Open(session) = &self.phase
            && session.terms.version == Version::V5
        {
            let detail = if session.terms.problem_information { broken.detail } else { "" };
            encode::disconnect(broken.violation.code(), detail, session.terms.maximum_packet_size, out);
        }
        self.end();
        Action::Fault(Fault::from(broken))
    }

    fn end(&mut self) {
        let session = match std::mem::replace(&mut self.phase, Phase::Over(None)) {
            Phase::Open(session) | Phase::Over(Some(session)) => Some(session),
            _ => None,
        };
        self.phase = Phase::Over(session);
    }

    /// Answers the CONNECT with yes. `state` is what a kept session had; it is left unused when the client asked for a
    /// clean start. Session Present says whether it was used, and what it still had in flight is sent again.
    /// Without a CONNECT to answer this does nothing.
    pub fn accept(&mut self, accept: &Accept, state: Option<SessionState>, out: &mut BytesMut) {
        if let Phase::Offered(offer) = &self.phase {
            let session = offer.accept(accept, state, &self.limits, out);
            self.phase = Phase::Open(Box::new(session));
        }
    }

    /// Answers the CONNECT with no, in the version's own code. Send `out`, then close [MQTT-3.2.2-7].
    pub fn refuse(&mut self, refusal: Refusal, out: &mut BytesMut) {
        if let Phase::Offered(offer) = &self.phase {
            offer.refuse(refusal, out);
            self.end();
        }
    }

    /// The message is stored: PUBACK or PUBREC, as soon as those of all earlier messages have left; nothing for QoS 0.
    ///
    /// Call it after the connection's end too: [`Self::session_state`] then knows the message.
    pub fn stored(&mut self, token: Token, out: &mut BytesMut) {
        self.settle(token, None, out);
    }

    fn settle(&mut self, token: Token, failure: Option<u8>, out: &mut BytesMut) {
        let mut nowhere = BytesMut::new();
        let (session, out) = match &mut self.phase {
            Phase::Open(session) => (session, out),
            Phase::Over(Some(session)) => (session, &mut nowhere),
            _ => return,
        };
        if session.receiver.settle(token, failure, out) {
            session.changed();
        }
    }

    /// The message will never be stored. Call it after the connection's end too: nobody waits for it then.
    ///
    /// 5.0 with QoS 1 or 2: PUBACK or PUBREC with the code, in its turn, and `None`. What has no such answer ends the
    /// connection: QoS 1 and 2 on 3.1.1 [MQTT-3.3.5-2], and a QoS 0 message that the ACL forbids. Another QoS 0 message is
    /// dropped: `None`.
    pub fn publish_failed(
        &mut self,
        token: Token,
        failure: PublishFailure,
        out: &mut BytesMut,
    ) -> Option<Action> {
        let Phase::Open(session) = &self.phase else {
            self.settle(token, Some(failure.code()), out);
            return None;
        };
        let acknowledged = session.receiver.is_waiting(token);
        let is_told = acknowledged && session.terms.version == Version::V5;
        if is_told || (!acknowledged && session.receiver.is_earlier(token)) {
            self.settle(token, Some(failure.code()), out);
            return None;
        }
        let words = match (failure, acknowledged || token == Token::NONE) {
            (PublishFailure::NotAuthorized, true) => "a message to a topic that its ACL forbids",
            (_, true) if acknowledged => "a message that cannot be stored",
            _ => return None,
        };
        let violation = match failure {
            PublishFailure::NotAuthorized => Violation::NotAuthorized,
            _ => Violation::NotStored,
        };
        let end = self.fail(Broken::new(violation, words).of(PUBLISH), out);
        self.settle(token, Some(failure.code()), out);
        Some(end)
    }

    /// The connection is over, and nothing is said: its transport is gone, or everything was said.
    pub fn close(&mut self) {
        self.end();
    }

    /// Answers a SUBSCRIBE: SUBACK. One verdict for each of the request's filters, in order; a missing one is
    /// [`Verdict::Failed`].
    pub fn subscribed(&mut self, request: SubscribeRequest, verdicts: &[Verdict], out: &mut BytesMut) {
        if let Phase::Open(session) = &mut self.phase {
            session.subscribed(request, verdicts, &self.limits, out);
        }
    }

    /// Sends a message to the client, once, if a subscription matches.
    pub fn deliver(&mut self, message: Message, out: &mut BytesMut) -> Delivery {
        match &mut self.phase {
            Phase::Open(session) => session.deliver(message, out),
            _ => Delivery::Closed(message),
        }
    }

    /// Looks at what is to be sent again and has not found room yet: what is void at `now`, in Unix milliseconds, is not sent,
    /// and told as [`Ack::Lapsed`](crate::Ack::Lapsed). What is void before the session is resumed is taken out by
    /// [`SessionState::lapse`].
    pub fn lapse(&mut self, now: u64, out: &mut BytesMut) {
        if let Phase::Open(session) = &mut self.phase {
            session.lapse(now, out);
        }
    }

    /// The messages that were put into `out` again since the last call, after a resume.
    pub fn take_resent(&mut self) -> Vec<DeliveryToken> {
        match &mut self.phase {
            Phase::Open(session) => session.take_resent(),
            _ => Vec::new(),
        }
    }

    /// Ends the connection from our side: DISCONNECT on 5.0, nothing on 3.1.1. Send `out`, then close. A CONNECT that
    /// was not answered yet is refused.
    pub fn disconnect(&mut self, why: DisconnectWhy, out: &mut BytesMut) {
        match &self.phase {
            Phase::Offered(_) => self.refuse(Refusal::ServerUnavailable, out),
            Phase::Open(session) if session.terms.version == Version::V5 => {
                encode::disconnect(why.code(), "", session.terms.maximum_packet_size, out);
            }
            _ => {}
        }
        self.end();
    }

    fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Open(session) | Phase::Over(Some(session)) => Some(session),
            _ => None,
        }
    }

    /// What outlives the connection, at any time after `accept`; empty before.
    pub fn session_state(&self) -> SessionState {
        self.session().map(Session::state).unwrap_or_default()
    }

    /// Does a QoS 2 message of an earlier connection of the session wait for the shell's word? [`Self::session_state`] knows
    /// those that are neither stored nor failed yet, so that a client which resumes the session and sends one again is
    /// answered when it is settled: tell the connection that has the session then.
    pub fn waits_for_earlier(&self) -> bool {
        self.session().is_some_and(|s| s.receiver.waits_for_earlier())
    }

    /// The tokens of the QoS 1 and 2 messages that came on this connection.
    pub fn tokens(&self) -> Range<Token> {
        self.session().map_or(Token::NONE..Token::NONE, |s| s.receiver.tokens())
    }

    /// What is to be kept beside a QoS 2 message until it is stored, so that the session's state can [`SessionState::recall`] it if
    /// it was read from a store since. `None` for a message of another QoS, and where the session ends with its connection.
    pub fn memo(&self, token: Token) -> Option<Memo> {
        self.session().filter(|s| s.terms.session_expiry > 0).and_then(|s| s.receiver.memo(token))
    }

    /// Changes whenever [`Self::session_state`] does: the sign to keep it anew. Exactly once holds over a crash of the
    /// gateway too if the state is kept before `out` is written.
    pub fn state_revision(&self) -> u32 {
        self.session().map_or(0, |s| s.revision)
    }

    /// The version, once a valid CONNECT has come.
    pub fn version(&self) -> Option<Version> {
        match &self.phase {
            Phase::Offered(offer) => Some(offer.version()),
            _ => self.session().map(|s| s.terms.version),
        }
    }

    /// Seconds of the keep-alive in force; silence of one and a half times that ends the session [MQTT-3.1.2-22]. `None`:
    /// none, or not accepted yet.
    pub fn keep_alive(&self) -> Option<u16> {
        self.session().map(|s| s.terms.keep_alive).filter(|seconds| *seconds > 0)
    }

    /// Seconds that the session outlives the connection, `u32::MAX` for ever; 0 before `accept`.
    pub fn session_expiry(&self) -> u32 {
        self.session().map_or(0, |s| s.terms.session_expiry)
    }

    /// What CONNACK said: an earlier session goes on.
    pub fn session_present(&self) -> bool {
        self.session().is_some_and(|s| s.terms.session_present)
    }

    /// Accepted, and not over.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Over: nothing more is read or sent.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// A client that knows no Receive Maximum has sent as many messages as may wait for the store: reading pauses until
    /// `stored`.
    pub fn blocked(&self) -> bool {
        match &self.phase {
            Phase::Open(session) => is_blocked(session, &self.limits),
            _ => false,
        }
    }

    /// The QoS that a message of this topic would be sent with at most; `None` if no subscription matches.
    pub fn granted(&self, topic: &str) -> Option<QoS> {
        self.session().and_then(|s| s.granted(topic))
    }

    /// The form of request topic that the client subscribed to for this command.
    pub fn request_form(&self, id: &CommandId, name: &CommandName) -> Option<RequestForm> {
        commands::request_form(id, name, |topic| self.granted(topic).is_some())
    }

    /// The session's subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        self.session().map(|s| s.subscriptions.as_slice()).unwrap_or_default()
    }

    /// How many QoS 1 and 2 messages the client has not finished with.
    pub fn in_flight(&self) -> usize {
        self.session().map_or(0, Session::in_flight)
    }
}

fn is_blocked(session: &Session, limits: &Limits) -> bool {
    !session.terms.told_receive_maximum
        && session.receiver.waiting() >= usize::from(limits.unacknowledged_v311.max(1))
}

/// Packets of an accepted connection, until one means something.
fn next(
    session: &mut Session,
    limits: &Limits,
    input: &mut BytesMut,
    out: &mut BytesMut,
) -> Result<Option<Action>, Broken> {
    loop {
        if let Some(action) = session.news() {
            return Ok(Some(action));
        }
        let Some(&first) = input.first() else { return Ok(None) };
        let before = input.len();
        let action = packet(first, session, limits, input, out).map_err(|broken| broken.of(first))?;
        if action.is_some() || input.len() == before {
            return Ok(action);
        }
    }
}

/// One packet; `None` without having taken it when more bytes, or room, are needed.
fn packet(
    first: u8,
    session: &mut Session,
    limits: &Limits,
    input: &mut BytesMut,
    out: &mut BytesMut,
) -> Result<Option<Action>, Broken> {
    let version = session.terms.version;
    guard::first_byte(first, version)?;
    let Some(header) = guard::header(input)? else { return Ok(None) };
    guard::length(header, version, limits)?;
    let Some(packet) = input.get(..header.total()) else { return Ok(None) };
    let waits = header.kind() == kind::PUBLISH && header.qos() != Some(QoS::AtMostOnce);
    if waits && is_blocked(session, limits) {
        return Ok(None);
    }
    let notes = guard::packet(packet, header, version, limits)?;
    let packet = codec::decode(input, version, notes, session.receiver.recent())?;
    session.handle(packet, limits, out)
}
