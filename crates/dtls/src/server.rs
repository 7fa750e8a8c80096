//! A server's association: handshake and records of DTLS 1.2 (RFC 6347).
//!
//! Owns: the state of one association. Does not own: cookies, addresses, timers ([`crate::Listener`]), cryptography (`ring`,
//! `aes`, `ccm`), certificate chains (`webpki`).

mod channel;
mod config;
mod flight;
mod negotiation;
mod shaking;
mod transcript;

use std::sync::Arc;

use landfall_session::Tick;

use self::channel::Channel;
pub use self::config::ServerConfig;
use self::shaking::{Fatal, Progress, Shaking};
use crate::engine::{Answer, BadRecord, Engine, EngineEvent, Outlet, SendError, Stage};
use crate::record::Records;

/// One association of a server.
///
/// While it shakes hands it holds at most some 30 KB: what came of the client's next messages (8 KiB), the flight that may have
/// to be sent again, and where client certificates are asked for, all messages so far. Once established it is what its size
/// says, and behind it, until data has come, its last flight.
///
/// What fails to authenticate in an established association is dropped, up to [`ServerConfig::max_forged`] times: whoever has
/// 2^23 guesses at the eight-byte tag of CCM_8 has a chance of one in 2^41.
pub struct Server {
    state: State,
}

enum State {
    Shaking(Box<Shaking>),
    Established(Channel),
    Over,
}

impl Server {
    /// Goes on after what a record or an answer brought the handshake.
    fn proceed(&mut self, progress: Result<Progress, Fatal>, outlet: &mut impl Outlet) {
        match progress {
            Ok(Progress::More) => {}
            Ok(Progress::Established) => self.establish(outlet),
            Err(fatal) => {
                if let State::Shaking(mut shaking) = std::mem::replace(&mut self.state, State::Over) {
                    shaking.tell(fatal.alert, outlet);
                    outlet.event(EngineEvent::Failed(fatal.failure));
                }
            }
        }
    }

    fn establish(&mut self, outlet: &mut impl Outlet) {
        let State::Shaking(shaking) = std::mem::replace(&mut self.state, State::Over) else { return };
        let Some((mut channel, identity)) = shaking.into_channel() else { return };
        channel.send_last_flight(outlet);
        let suite = channel.suite().name();
        self.state = State::Established(channel);
        outlet.event(EngineEvent::Established { identity, suite });
    }
}

impl Engine for Server {
    type Config = ServerConfig;

    fn accept(config: &Arc<ServerConfig>, _now: Tick) -> Self {
        Self { state: State::Shaking(Box::new(Shaking::new(Arc::clone(config)))) }
    }

    fn stage(&self) -> Stage {
        match self.state {
            State::Shaking(_) => Stage::Shaking,
            State::Established(_) => Stage::Established,
            State::Over => Stage::Over,
        }
    }

    fn receive(&mut self, now: Tick, datagram: &mut [u8], outlet: &mut impl Outlet) {
        let mut records = Records::new(datagram);
        for (header, body) in records.by_ref() {
            match &mut self.state {
                State::Shaking(shaking) => {
                    let progress = shaking.receive(now, header, body, outlet);
                    self.proceed(progress, outlet);
                }
                State::Established(channel) => {
                    if let Some(why) = channel.receive(header, body, outlet) {
                        self.state = State::Over;
                        outlet.event(EngineEvent::Closed(why));
                    }
                }
                State::Over => return,
            }
        }
        if records.is_broken() && self.stage() != Stage::Over {
            outlet.event(EngineEvent::Dropped(BadRecord::Malformed));
        }
    }

    fn answer(&mut self, now: Tick, answer: Answer<'_>, outlet: &mut impl Outlet) {
        if let State::Shaking(shaking) = &mut self.state {
            let progress = shaking.answer(now, answer, outlet);
            self.proceed(progress, outlet);
        }
    }

    /// Numbers that are used up leave room for one close_notify: [`Engine::close`] still tells the peer.
    fn send(&mut self, data: &[u8], datagram: &mut Vec<u8>) -> Result<(), SendError> {
        match &mut self.state {
            State::Established(channel) => channel.send(data, datagram),
            State::Shaking(_) | State::Over => Err(SendError::NotEstablished),
        }
    }

    fn close(&mut self, outlet: &mut impl Outlet) {
        if let State::Established(mut channel) = std::mem::replace(&mut self.state, State::Over) {
            channel.close(outlet);
        }
    }

    fn next_timeout(&self) -> Option<Tick> {
        match &self.state {
            State::Shaking(shaking) => shaking.next_timeout(),
            State::Established(_) | State::Over => None,
        }
    }

    fn handle_timeout(&mut self, now: Tick, outlet: &mut impl Outlet) {
        if let State::Shaking(shaking) = &mut self.state {
            shaking.handle_timeout(now, outlet);
        }
    }
}

#[cfg(test)]
mod tests;
