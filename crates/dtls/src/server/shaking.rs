//! A handshake under way (RFC 6347, section 4.2; RFC 5246, section 7.3).
//!
//! Owns: which message may come when, and what follows from it. Does not own: their bytes (`handshake`), putting them together
//! (`fragments`), sending again (`flight`).

mod client;
mod hello;

use std::sync::Arc;

use landfall_session::Tick;
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use subtle::ConstantTimeEq;

use super::channel::{Channel, FINISHED};
use super::config::ServerConfig;
use super::flight::Flight;
use super::negotiation::Exchange;
use super::transcript::Transcript;
use crate::alert::Alert;
use crate::engine::{Answer, BadRecord, EngineEvent, Failure, Identity, Outlet};
use crate::fragments::{Fate, Fragments, TooLarge};
use crate::handshake::{FragmentHeader, HEADER, MessageType};
use crate::keys::{Master, Premaster, Randoms, Side, VERIFY_DATA, psk_premaster};
use crate::record::{ContentType, RecordHeader};
use crate::suite::Suite;

/// The most bytes of a protected record that is kept until there are keys: a Finished has 61.
const MAX_KEPT: usize = 128;

/// What the client's next word must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing has come.
    New,
    /// Its ClientHello, of which the first piece has come.
    Hello,
    /// Its certificate, or that it has none.
    Certificate,
    KeyExchange,
    /// The proof that it has the key of its certificate.
    CertificateVerify,
    /// None: the answer to `WhoIs` is.
    Asked,
    Finished,
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The client has said Finished, and rightly: [`Shaking::into_channel`].
    Established,
}

/// Why it came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fatal {
    /// What the client is told.
    pub(super) alert: Option<Alert>,
    pub(super) failure: Failure,
}

impl Fatal {
    const fn new(alert: Alert, failure: Failure) -> Self {
        Self { alert: Some(alert), failure }
    }

    const fn malformed() -> Self {
        Self::new(Alert::DECODE_ERROR, Failure::Malformed)
    }

    const fn out_of_place() -> Self {
        Self::new(Alert::UNEXPECTED_MESSAGE, Failure::Malformed)
    }

    const fn internal() -> Self {
        Self::new(Alert::INTERNAL_ERROR, Failure::Unavailable)
    }
}

/// One handshake.
pub(super) struct Shaking {
    config: Arc<ServerConfig>,
    step: Step,
    fragments: Fragments,
    flight: Flight,
    transcript: Transcript,
    /// The number of the server's next message.
    next_message: u16,
    suite: Suite,
    extended_master_secret: bool,
    randoms: Randoms,
    exchange: Option<Exchange>,
    /// What the client has shown, its chain verified.
    certificate: Option<CertificateDer<'static>>,
    /// What was asked for.
    identity: Option<Identity>,
    secrets: Option<(Master, Channel)>,
    /// A protected record that came before there were keys: the client's Finished, if it is no lie.
    kept: Option<(RecordHeader, Vec<u8>)>,
    /// The client has said ChangeCipherSpec.
    has_changed: bool,
}

impl Shaking {
    pub(super) fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            step: Step::New,
            fragments: Fragments::new(0),
            flight: Flight::new(0, 0),
            transcript: Transcript::new(false),
            next_message: 0,
            suite: Suite::PskCcm8,
            extended_master_secret: false,
            randoms: [[0; 32]; 2],
            exchange: None,
            certificate: None,
            identity: None,
            secrets: None,
            kept: None,
            has_changed: false,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Tick> {
        self.flight.due()
    }

    pub(super) fn handle_timeout(&mut self, now: Tick, outlet: &mut impl Outlet) {
        if self.flight.handle_timeout(now, outlet) {
            outlet.event(EngineEvent::Retransmitted);
        }
    }

    /// Tells the client why it is over, in the epoch that both sides have.
    pub(super) fn tell(&mut self, alert: Option<Alert>, outlet: &mut impl Outlet) {
        if let Some(alert) = alert {
            outlet.transmit(&alert.to_record(self.flight.take_number()));
        }
    }

    /// What comes of it, and who is at the other end.
    pub(super) fn into_channel(self) -> Option<(Channel, Option<Identity>)> {
        let (_, channel) = self.secrets?;
        Some((channel, self.identity))
    }

    /// A record has come. A ChangeCipherSpec has no number among the messages, and may come late or too early: only that it
    /// came is noted, and a Finished waits for it (RFC 5246, section 7.4.9).
    pub(super) fn receive(
        &mut self,
        now: Tick,
        header: RecordHeader,
        body: &mut [u8],
        outlet: &mut impl Outlet,
    ) -> Result<Progress, Fatal> {
        match (header.epoch, header.content) {
            (0, ContentType::HANDSHAKE) => self.handshake(now, header, body, outlet),
            (0, ContentType::CHANGE_CIPHER_SPEC) if *body == [1] && self.has_answered() => {
                self.has_changed = true;
                self.finish()
            }
            (0, ContentType::ALERT) if self.step != Step::New => Self::alert(body, outlet),
            (1, ContentType::HANDSHAKE) if self.step != Step::New && body.len() <= MAX_KEPT => {
                self.kept = Some((header, body.to_vec()));
                self.finish()
            }
            _ => {
                outlet.event(EngineEvent::Dropped(BadRecord::Unexpected));
                Ok(Progress::More)
            }
        }
    }

    /// The client's hello is whole and was answered: what follows it has a place.
    fn has_answered(&self) -> bool {
        !matches!(self.step, Step::New | Step::Hello)
    }

    fn alert(body: &[u8], outlet: &mut impl Outlet) -> Result<Progress, Fatal> {
        match Alert::read(body) {
            Some((is_fatal, alert)) if is_fatal || alert == Alert::CLOSE_NOTIFY => {
                Err(Fatal { alert: None, failure: Failure::Alert(alert.0) })
            }
            Some(_) => Ok(Progress::More),
            None => {
                outlet.event(EngineEvent::Dropped(BadRecord::Malformed));
                Ok(Progress::More)
            }
        }
    }

    fn handshake(
        &mut self,
        now: Tick,
        record: RecordHeader,
        body: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<Progress, Fatal> {
        let mut rest = body;
        loop {
            let Some((header, piece, after)) = FragmentHeader::read(rest) else {
                outlet.event(EngineEvent::Dropped(BadRecord::Malformed));
                break;
            };
            if !self.fragment(now, record, &header, piece, outlet)? {
                outlet.event(EngineEvent::Dropped(BadRecord::Unexpected));
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        self.advance(now, outlet)
    }

    /// Whether the fragment has a place.
    fn fragment(
        &mut self,
        now: Tick,
        record: RecordHeader,
        header: &FragmentHeader,
        piece: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<bool, Fatal> {
        if self.step == Step::New {
            if header.kind != MessageType::CLIENT_HELLO {
                return Ok(false);
            }
            self.step = Step::Hello;
            self.fragments = Fragments::new(header.message_seq);
            self.next_message = header.message_seq;
            self.flight = Flight::new(record.sequence, self.config.mtu);
        }
        match self.fragments.insert(header, piece) {
            Ok(Fate::Held) => Ok(true),
            Ok(Fate::Old) => {
                let is_end = header.offset + header.fragment == header.length;
                // Once the client has gone on, its hello is an old copy.
                let waits = matches!(self.step, Step::Certificate | Step::KeyExchange);
                if header.kind == MessageType::CLIENT_HELLO
                    && is_end
                    && waits
                    && self.flight.repeat(now, outlet)
                {
                    outlet.event(EngineEvent::Retransmitted);
                }
                Ok(true)
            }
            Ok(Fate::Dropped) => Ok(false),
            Err(TooLarge) => Err(Fatal::new(Alert::ILLEGAL_PARAMETER, Failure::TooLarge)),
        }
    }

    /// Takes all messages that may be taken now.
    fn advance(&mut self, now: Tick, outlet: &mut impl Outlet) -> Result<Progress, Fatal> {
        while self.step != Step::Asked {
            let Some((header, body)) = self.fragments.take() else { break };
            match (self.step, header.kind) {
                (Step::Hello, MessageType::CLIENT_HELLO) => self.client_hello(now, &header, &body, outlet)?,
                (Step::Certificate, MessageType::CERTIFICATE) => self.certificate(&header, &body)?,
                (Step::KeyExchange, MessageType::CLIENT_KEY_EXCHANGE) => {
                    self.key_exchange(&header, &body, outlet)?;
                }
                (Step::CertificateVerify, MessageType::CERTIFICATE_VERIFY) => {
                    self.certificate_verify(&header, &body, outlet)?;
                }
                _ => return Err(Fatal::out_of_place()),
            }
        }
        self.finish()
    }

    /// Waits for the answer who this is.
    fn ask(&mut self, identity: Identity, outlet: &mut impl Outlet) {
        self.step = Step::Asked;
        self.flight.pause();
        self.identity = Some(identity.clone());
        outlet.event(EngineEvent::WhoIs(identity));
    }

    /// The answer. Without effect when nothing was asked.
    pub(super) fn answer(
        &mut self,
        now: Tick,
        answer: Answer<'_>,
        outlet: &mut impl Outlet,
    ) -> Result<Progress, Fatal> {
        if self.step != Step::Asked {
            return Ok(Progress::More);
        }
        match (&self.identity, answer) {
            (_, Answer::Unavailable) => return Err(Fatal::internal()),
            // A key that has no bytes would let anybody in.
            (Some(Identity::Psk(_)), Answer::Psk(key)) if !key.is_empty() => self.derive(&psk_premaster(key)),
            (Some(Identity::Psk(_)), _) => self.derive_nobodys()?,
            (_, Answer::Admitted) => {}
            _ => return Err(Fatal::new(Alert::ACCESS_DENIED, Failure::Refused)),
        }
        self.step = Step::Finished;
        self.flight.resume(now);
        self.advance(now, outlet)
    }

    /// Keys that nobody else has.
    fn derive_nobodys(&mut self) -> Result<(), Fatal> {
        let premaster = psk_premaster(&random::<16>()?);
        self.derive(&premaster);
        Ok(())
    }

    fn derive(&mut self, premaster: &Premaster) {
        let master = if self.extended_master_secret {
            Master::extended(premaster, &self.transcript.hash())
        } else {
            Master::classic(premaster, &self.randoms)
        };
        let keys = master.traffic_keys(&self.randoms, self.suite.key_length());
        let channel = Channel::new(self.suite, keys, self.config.max_forged);
        self.secrets = Some((master, channel));
    }

    /// Looks at the client's Finished, when it is there and its turn has come.
    fn finish(&mut self) -> Result<Progress, Fatal> {
        match self.step {
            Step::Finished if self.has_changed => {}
            Step::CertificateVerify => return self.look_ahead(),
            _ => return Ok(Progress::More),
        }
        let (Some((master, channel)), Some((header, mut body))) = (&mut self.secrets, self.kept.take())
        else {
            return Ok(Progress::More);
        };
        let failure = if self.suite.is_psk() { Failure::WrongKey } else { Failure::Malformed };
        let wrong = Fatal::new(Alert::DECRYPT_ERROR, failure);
        let text = channel.open(header, &mut body).map_err(|_| wrong)?;
        let (header, said) = finished(text).ok_or(Fatal::malformed())?;
        if header.message_seq != self.fragments.next() || header.kind != MessageType::FINISHED {
            return Err(Fatal::out_of_place());
        }
        let expected = master.verify_data(Side::Client, &self.transcript.hash());
        if !bool::from(expected.ct_eq(said)) {
            return Err(wrong);
        }
        self.transcript.push(&header, said);
        let verify_data = master.verify_data(Side::Server, &self.transcript.hash());
        channel.set_last_flight(self.flight.take_number(), self.next_message, verify_data);
        Ok(Progress::Established)
    }

    /// A Finished in the place of the proof that a client has the key of the certificate which it has shown.
    fn look_ahead(&mut self) -> Result<Progress, Fatal> {
        if let (Some((_, channel)), Some((header, body))) = (&self.secrets, &self.kept) {
            let mut copy = body.clone();
            let text = channel.decipher(*header, &mut copy);
            let is_next = |header: FragmentHeader| header.message_seq == self.fragments.next();
            if text.and_then(|text| finished(text)).is_some_and(|(header, _)| is_next(header)) {
                return Err(Fatal::new(Alert::UNEXPECTED_MESSAGE, Failure::Certificate));
            }
        }
        Ok(Progress::More)
    }
}

/// A message of the length that a Finished has, in one piece and alone.
fn finished(text: &[u8]) -> Option<(FragmentHeader, &[u8; VERIFY_DATA])> {
    let (header, body, _) = FragmentHeader::read(text).filter(|_| text.len() == FINISHED)?;
    let body = body.first_chunk().filter(|_| body.len() == FINISHED - HEADER)?;
    Some((header, body))
}

fn random<const N: usize>() -> Result<[u8; N], Fatal> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Fatal::internal())?;
    Ok(bytes)
}
