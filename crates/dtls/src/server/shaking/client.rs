//! The client's second flight: who it is, and its half of the keys.
//!
//! Owns: what follows from these messages. Does not own: their order (`shaking`), reading them (`client_messages`).

use super::{Fatal, Shaking, Step};
use crate::alert::Alert;
use crate::certificate;
use crate::engine::{Failure, Identity, Outlet};
use crate::handshake::{FragmentHeader, client_messages};

/// The longest PSK identity that anybody is asked about, in bytes.
const MAX_IDENTITY: usize = 128;

impl Shaking {
    /// The client's chain; none at all unless one is required.
    pub(super) fn certificate(&mut self, header: &FragmentHeader, body: &[u8]) -> Result<(), Fatal> {
        let chain = client_messages::certificates(body).ok_or(Fatal::malformed())?;
        match (chain.first(), &self.config.client_ca) {
            (Some(own), Some(roots)) => {
                let verified = certificate::verify_chain(roots, &chain);
                verified.map_err(|alert| Fatal::new(alert, failure_of(alert)))?;
                self.certificate = Some(own.clone().into_owned());
            }
            _ if self.config.require_client_certificate => {
                return Err(Fatal::new(Alert::HANDSHAKE_FAILURE, Failure::NoCertificate));
            }
            _ => self.transcript.forget_bytes(),
        }
        self.transcript.push(header, body);
        self.step = Step::KeyExchange;
        Ok(())
    }

    pub(super) fn key_exchange(
        &mut self,
        header: &FragmentHeader,
        body: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<(), Fatal> {
        self.transcript.push(header, body);
        if self.suite.is_psk() {
            let identity = client_messages::psk_identity(body).ok_or(Fatal::malformed())?;
            if identity.len() <= MAX_IDENTITY {
                self.ask(Identity::Psk(identity.into()), outlet);
                return Ok(());
            }
            // Nobody is called that, and it should not be told from a name that is merely not known.
            self.derive_nobodys()?;
            self.step = Step::Finished;
            return Ok(());
        }
        let point = client_messages::ecdhe_point(body).ok_or(Fatal::malformed())?;
        let agreed = self.exchange.take().and_then(|exchange| exchange.agree(point));
        let premaster = agreed.ok_or(Fatal::new(Alert::ILLEGAL_PARAMETER, Failure::Malformed))?;
        self.derive(&premaster);
        self.step = if self.certificate.is_some() { Step::CertificateVerify } else { Step::Finished };
        Ok(())
    }

    /// The client has the key of its certificate, or not.
    pub(super) fn certificate_verify(
        &mut self,
        header: &FragmentHeader,
        body: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<(), Fatal> {
        let (scheme, signature) = client_messages::signature(body).ok_or(Fatal::malformed())?;
        let certificate = self.certificate.take().ok_or(Fatal::out_of_place())?;
        if !certificate::is_signed(&certificate, scheme, self.transcript.bytes(), signature) {
            return Err(Fatal::new(Alert::DECRYPT_ERROR, Failure::Certificate));
        }
        self.transcript.forget_bytes();
        self.transcript.push(header, body);
        self.ask(Identity::Certificate(certificate), outlet);
        Ok(())
    }
}

/// What is wrong with a chain that the client is told this of.
fn failure_of(alert: Alert) -> Failure {
    match alert {
        Alert::UNKNOWN_CA => Failure::UnknownAuthority,
        Alert::CERTIFICATE_EXPIRED => Failure::CertificateExpired,
        _ => Failure::Certificate,
    }
}
