//! The ClientHello and the flight that answers it.
//!
//! Owns: what the server says first. Does not own: what is chosen (`negotiation`).

use landfall_session::Tick;

use super::super::negotiation::{self, Choice, Exchange};
use super::super::transcript::Transcript;
use super::{Fatal, Shaking, Step, random};
use crate::alert::Alert;
use crate::certificate;
use crate::engine::{Failure, Outlet};
use crate::handshake::FragmentHeader;
use crate::handshake::client_hello::ClientHello;
use crate::handshake::server_messages::{Messages, ServerHello, ecdhe_parameters};

impl Shaking {
    pub(super) fn client_hello(
        &mut self,
        now: Tick,
        header: &FragmentHeader,
        body: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<(), Fatal> {
        let hello = ClientHello::read(body).ok_or(Fatal::malformed())?;
        if !hello.speaks_1_2() {
            return Err(Fatal::new(Alert::PROTOCOL_VERSION, Failure::Version));
        }
        let none = Fatal::new(Alert::HANDSHAKE_FAILURE, Failure::NoCommonSuite);
        if !hello.takes_uncompressed() {
            return Err(none);
        }
        let config = std::sync::Arc::clone(&self.config);
        let choice = negotiation::choose(&config, &hello).ok_or(none)?;
        self.suite = choice.suite();
        self.extended_master_secret = hello.extended_master_secret;
        self.randoms = [hello.random, random()?];
        let asks = !self.suite.is_psk() && config.client_ca.is_some();
        self.step = if asks { Step::Certificate } else { Step::KeyExchange };
        let messages = self.first_flight(&hello, choice, asks)?;
        self.transcript = Transcript::new(asks);
        self.transcript.push(header, body);
        self.transcript.extend(&messages.bytes);
        self.next_message = messages.next;
        self.flight.begin(now, messages.bytes, outlet);
        Ok(())
    }

    fn first_flight(
        &mut self,
        hello: &ClientHello<'_>,
        choice: Choice<'_>,
        asks: bool,
    ) -> Result<Messages, Fatal> {
        let [client_random, server_random] = &self.randoms;
        let mut messages = Messages { bytes: Vec::with_capacity(128), next: self.next_message };
        messages.server_hello(&ServerHello {
            random: server_random,
            suite: self.suite.code(),
            extended_master_secret: hello.extended_master_secret,
            secure_renegotiation: hello.secure_renegotiation,
            point_formats: hello.point_formats && !self.suite.is_psk(),
        });
        if let Choice::Ecdsa { group, signer, certified, .. } = choice {
            messages.certificate(&certified.cert);
            let exchange = Exchange::generate(group).ok_or(Fatal::internal())?;
            let point = exchange.point().ok_or(Fatal::internal())?;
            let parameters = ecdhe_parameters(group.code(), &point);
            let signed = [&client_random[..], server_random, &parameters].concat();
            let signature = signer.sign(&signed).map_err(|_| Fatal::internal())?;
            messages.server_key_exchange(&parameters, signer.scheme().into(), &signature);
            self.exchange = Some(exchange);
        }
        if asks {
            messages.certificate_request(&certificate::SCHEMES.map(u16::from));
        }
        messages.server_hello_done();
        Ok(messages)
    }
}
