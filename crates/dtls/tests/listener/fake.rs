//! An engine that does what datagrams say.
//!
//! Owns: the script's words. Does not own: how they get to the engine.

use std::sync::Arc;

use landfall_dtls::{
    Answer, BadRecord, Closing, Engine, EngineEvent, Failure, Identity, Outlet, SendError, Stage, Tick,
};

/// Bytes before the payload of a record.
pub(crate) const HEADER: usize = 13;

/// What every record but a ClientHello's brings: that it is no ClientHello, the tag that stands for its keys, and a word.
pub(crate) fn script(tag: u8, word: u8, rest: &[u8]) -> Vec<u8> {
    [&[16, tag, word], rest].concat()
}

/// What is sent to whom is established when it is over.
pub(crate) const CLOSE_NOTIFY: &[u8] = b"close_notify";

pub(crate) struct Fake {
    stage: Stage,
    /// The first byte of the client's random; records of another one are forged.
    tag: Option<u8>,
    identity: Option<Identity>,
    /// It is established when it is answered.
    hurries: bool,
    deadline: Option<Tick>,
    /// Its deadline never passes.
    is_stuck: bool,
}

impl Fake {
    fn establish(&mut self, outlet: &mut impl Outlet) {
        let identity = self.identity.clone().or_else(|| Some(Identity::Psk(b"somebody".as_slice().into())));
        self.establish_as(identity, outlet);
    }

    fn establish_as(&mut self, identity: Option<Identity>, outlet: &mut impl Outlet) {
        self.stage = Stage::Established;
        outlet.transmit(b"finished");
        outlet.event(EngineEvent::Established { identity, suite: "FAKE" });
    }

    fn fail(&mut self, why: Failure, outlet: &mut impl Outlet) {
        self.stage = Stage::Over;
        outlet.event(EngineEvent::Failed(why));
    }

    fn hello(&mut self, tag: u8, outlet: &mut impl Outlet) {
        if self.tag.replace(tag).is_some() {
            outlet.event(EngineEvent::Retransmitted);
        }
        outlet.transmit(b"flight");
    }

    fn obey(&mut self, now: Tick, word: u8, rest: &[u8], outlet: &mut impl Outlet) {
        match (word, self.stage) {
            (b'w' | b'W', Stage::Shaking) => {
                let identity = Identity::Psk(rest.into());
                self.identity = Some(identity.clone());
                self.hurries = word == b'W';
                outlet.event(EngineEvent::WhoIs(identity));
            }
            (b'e', Stage::Shaking) => {
                self.establish(outlet);
                if !rest.is_empty() {
                    outlet.data(rest);
                }
            }
            (b'E', Stage::Shaking) => self.establish_as(None, outlet),
            (b'd', Stage::Established) => outlet.data(rest),
            (b'c', Stage::Established) => {
                self.stage = Stage::Over;
                outlet.event(EngineEvent::Closed(Closing::CloseNotify));
            }
            (b'f', Stage::Shaking) => self.fail(Failure::Alert(40), outlet),
            (b's', _) => self.stage = Stage::Over,
            (b't', _) => self.deadline = Some(now + 1_000),
            (b'T', _) => (self.deadline, self.is_stuck) = (Some(now), true),
            (b'n', _) => {}
            (b'p', _) => outlet.event(EngineEvent::Dropped(BadRecord::Replayed)),
            (b'm', _) => outlet.event(EngineEvent::Dropped(BadRecord::Malformed)),
            // What has no place, said nevertheless.
            (b'!', _) => {
                outlet.data(b"too early");
                outlet.event(EngineEvent::Closed(Closing::CloseNotify));
                outlet.event(EngineEvent::WhoIs(Identity::Psk(b"late".as_slice().into())));
            }
            _ => outlet.event(EngineEvent::Dropped(BadRecord::Unexpected)),
        }
    }
}

impl Engine for Fake {
    type Config = ();

    fn accept(_: &Arc<()>, _: Tick) -> Self {
        Self {
            stage: Stage::Shaking,
            tag: None,
            identity: None,
            hurries: false,
            deadline: None,
            is_stuck: false,
        }
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn receive(&mut self, now: Tick, datagram: &mut [u8], outlet: &mut impl Outlet) {
        let (content, payload) = (datagram[0], &datagram[HEADER..]);
        match payload {
            // Behind the header of the message and its version.
            [1, ..] if content == 22 => self.hello(payload[14], outlet),
            [16, tag, word, rest @ ..] if Some(*tag) == self.tag => self.obey(now, *word, rest, outlet),
            _ => outlet.event(EngineEvent::Dropped(BadRecord::Forged)),
        }
    }

    fn answer(&mut self, _: Tick, answer: Answer<'_>, outlet: &mut impl Outlet) {
        if self.stage != Stage::Shaking || self.identity.is_none() {
            return;
        }
        match answer {
            Answer::Psk(_) | Answer::Admitted if self.hurries => self.establish(outlet),
            Answer::Psk(_) | Answer::Admitted => outlet.transmit(b"answered"),
            Answer::Refused => self.fail(Failure::WrongKey, outlet),
            Answer::Unavailable => self.fail(Failure::Unavailable, outlet),
        }
    }

    fn send(&mut self, data: &[u8], datagram: &mut Vec<u8>) -> Result<(), SendError> {
        match data {
            _ if self.stage != Stage::Established => return Err(SendError::NotEstablished),
            b"exhausted" => {
                self.stage = Stage::Over;
                return Err(SendError::Exhausted);
            }
            _ if data.len() > 16_384 => return Err(SendError::TooLarge),
            _ => datagram.extend_from_slice(data),
        }
        Ok(())
    }

    fn close(&mut self, outlet: &mut impl Outlet) {
        if self.stage == Stage::Established {
            outlet.transmit(CLOSE_NOTIFY);
        }
        self.stage = Stage::Over;
        outlet.event(EngineEvent::Closed(Closing::CloseNotify));
    }

    fn next_timeout(&self) -> Option<Tick> {
        self.deadline
    }

    fn handle_timeout(&mut self, now: Tick, outlet: &mut impl Outlet) {
        if self.deadline.take_if(|deadline| *deadline <= now).is_some() {
            outlet.event(EngineEvent::Retransmitted);
            outlet.transmit(b"again");
            self.deadline = self.is_stuck.then_some(now);
        }
    }
}
