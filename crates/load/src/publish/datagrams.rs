//! Messages over CoAP and over UDP: one datagram each, sent again when nobody answers.
//!
//! Owns: which answer belongs to which message, and sending again. Does not own: when a message is sent
//! ([`super::drive`]).

use std::io;
use std::time::{Duration, Instant};

use landfall_coap_core::{Code, Kind};

use super::drive::{Message, Pipe, Taken};
use super::payload::Payload;
use crate::coap::{self, Mouth, Reply, Request};
use crate::line;
use crate::says::Says;

/// The largest answer that is read.
const DATAGRAM: usize = 2048;
/// Answers that are taken at a time, before more is sent.
const TURN: usize = 256;

/// How the datagrams are written.
pub(crate) enum Speech {
    Coap { request: Request, says: Says },
    Line { head: String, is_acked: bool },
}

/// A message under way.
#[derive(Default)]
struct Waiting {
    /// What its answer carries; 0 when the place is free.
    tag: u32,
    datagram: Vec<u8>,
    attempts: u32,
    again_at: Option<Instant>,
}

/// One device.
pub(crate) struct Datagrams {
    speech: Speech,
    mouth: Mouth,
    payload: Payload,
    waiting: Vec<Waiting>,
    under_way: usize,
    /// Places whose datagram is to be sent.
    to_send: Vec<u16>,
    /// Tells an answer from one that was given up.
    turn: u16,
    /// When to look next for what nobody answered.
    look_at: Instant,
    again: u64,
}

impl Speech {
    /// Writes a message, to be sent with this id if it is CoAP's, and recognised by `tag`.
    fn put(&mut self, out: &mut Vec<u8>, id: u16, tag: u32, payload: &[u8]) {
        match self {
            Self::Coap { request, says } => {
                if says.has_body() {
                    request.payload_mut(payload.len()).copy_from_slice(payload);
                }
                out.clear();
                out.extend_from_slice(request.stamped(id, tag));
            }
            Self::Line { head, is_acked } => line::put(out, head, tag.into(), *is_acked, payload),
        }
    }

    /// When to send it again, after so many attempts; `None` to give it up.
    fn patience(&self, attempts: u32) -> Option<Duration> {
        match self {
            Self::Coap { says, .. } if says.is_confirmable() => {
                (attempts <= coap::RETRANSMIT).then(|| coap::ACK_TIMEOUT * (1 << attempts))
            }
            Self::Coap { .. } => (attempts == 0).then_some(coap::ACK_TIMEOUT),
            Self::Line { .. } => (attempts < line::TIMES).then_some(line::AGAIN),
        }
    }

    /// The tag of the message that a datagram answers, whether it says yes, and the acknowledgement that it wants.
    fn read(&self, datagram: &[u8]) -> (Option<(u32, bool)>, Option<[u8; 4]>) {
        match self {
            Self::Coap { says, .. } => {
                let Some(reply) = Reply::read(datagram) else { return (None, None) };
                let wants = (reply.kind == Kind::Con).then(|| coap::acknowledgement(reply.id));
                let is_response = reply.code != Code::EMPTY;
                (reply.token.filter(|_| is_response).map(|tag| (tag, says.is_expected(reply.code))), wants)
            }
            Self::Line { .. } => {
                let tag = line::acked(datagram).and_then(|seq| u32::try_from(seq).ok());
                (tag.map(|tag| (tag, true)), None)
            }
        }
    }
}

impl Datagrams {
    pub(crate) fn new(speech: Speech, mouth: Mouth, payload: Payload, window: u16) -> Self {
        let waiting = std::iter::repeat_with(Waiting::default).take(usize::from(window.max(1)) + 1).collect();
        let look_at = Instant::now();
        Self {
            speech,
            mouth,
            payload,
            waiting,
            under_way: 0,
            to_send: Vec::new(),
            turn: 0,
            look_at,
            again: 0,
        }
    }

    /// The place whose message has this tag.
    fn answered(&mut self, tag: u32) -> Option<u16> {
        let place = u16::try_from(tag & 0xffff).ok()?;
        let waiting = self.waiting.get_mut(usize::from(place)).filter(|one| one.tag == tag && tag != 0)?;
        (waiting.tag, waiting.again_at) = (0, None);
        self.under_way -= 1;
        Some(place)
    }

    /// What nobody answered is to be sent again, or given up.
    fn look(&mut self, now: Instant, taken: &mut Taken) {
        for (place, waiting) in (0_u16..).zip(&mut self.waiting) {
            if waiting.again_at.is_none_or(|at| at > now) {
                continue;
            }
            waiting.attempts += 1;
            match self.speech.patience(waiting.attempts) {
                Some(patience) => {
                    waiting.again_at = Some(now + patience);
                    self.again += 1;
                    self.to_send.push(place);
                }
                None => {
                    (waiting.tag, waiting.again_at) = (0, None);
                    self.under_way -= 1;
                    taken.lost.push(place);
                }
            }
        }
        self.look_at = now + coap::ACK_TIMEOUT / 8;
    }

    fn receive(&mut self, taken: &mut Taken) -> io::Result<()> {
        let mut buffer = [0; DATAGRAM];
        for _ in 0..TURN {
            let length = match self.mouth.socket.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let (answer, wants) = self.speech.read(buffer.get(..length).unwrap_or_default());
            if let Some(acknowledgement) = wants {
                // If it is lost, the server says so again.
                let _ = self.mouth.socket.try_send(&acknowledgement);
            }
            let Some((tag, is_yes)) = answer else { continue };
            if let Some(place) = self.answered(tag) {
                if is_yes { taken.acked.push(place) } else { taken.refused.push(place) }
            }
        }
        Ok(())
    }
}

impl Pipe for Datagrams {
    fn is_acked(&self) -> bool {
        !matches!(self.speech, Speech::Line { is_acked: false, .. })
    }

    fn has_room(&self) -> bool {
        !self.mouth.is_worn() || self.under_way == 0
    }

    fn put(&mut self, place: u16, message: Message) {
        self.turn = self.turn.checked_add(1).unwrap_or(1);
        let (tag, id) = (u32::from(self.turn) << 16 | u32::from(place), self.mouth.next_id());
        let is_acked = self.is_acked();
        let Some(waiting) = self.waiting.get_mut(usize::from(place)) else { return };
        self.speech.put(&mut waiting.datagram, id, tag, self.payload.of(message));
        self.to_send.push(place);
        if is_acked {
            (waiting.tag, waiting.attempts) = (tag, 0);
            waiting.again_at = self.speech.patience(0).map(|patience| Instant::now() + patience);
            self.under_way += 1;
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        for place in self.to_send.drain(..) {
            if let Some(waiting) = self.waiting.get(usize::from(place)) {
                self.mouth.socket.send(&waiting.datagram).await?;
            }
        }
        if self.mouth.is_worn() && self.under_way == 0 {
            self.mouth.renew().await?;
        }
        Ok(())
    }

    async fn take(&mut self, taken: &mut Taken) -> io::Result<()> {
        let readable = self.mouth.socket.readable();
        if tokio::time::timeout_at(self.look_at.into(), readable).await.is_ok() {
            self.receive(taken)?;
        }
        let now = Instant::now();
        if now >= self.look_at {
            self.look(now, taken);
        }
        Ok(())
    }

    async fn finish(self) -> io::Result<u64> {
        Ok(self.again)
    }
}
