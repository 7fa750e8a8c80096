//! Who asks: from what a request says of itself to the session of its device.
//!
//! Owns: the ways to be admitted, asking the authenticator without making anybody else wait, beginning a session. Does not
//! own: who is who (the authenticator), sessions (`landfall-hub`).
//!
//! Nothing of a request has an effect before its device is admitted: a wrong key touches nobody's presence.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use landfall_coap_core::{Code, Response};
use landfall_event::{DeviceId, Family, IdentifiedBy, Reason, RefusedCause, TenantId, Transport};
use landfall_hub::{
    AuthError, BoxFuture, Credentials, Hello, Marker, OpenError, PeerHandle, Principal, Protocol, Secret,
};
use landfall_net::Path;
use landfall_session::Terms;

use crate::asked::{Asked, Resource, Says};
use crate::door::{Authenticated, Door};
use crate::metrics::Dropped;

/// The lifetime of a registration that names none, in seconds (RFC 9176, section 5).
const REGISTRATION_S: u32 = 90_000;

/// The listener's part of a session, in its sixteen bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memo {
    /// The mark of what the device was admitted by.
    pub(crate) mark: u64,
    /// The lifetime in force, in seconds; 0 when the device has announced none.
    pub(crate) lifetime_s: u32,
    /// It has a registration.
    pub(crate) is_registered: bool,
}

impl From<[u64; 2]> for Memo {
    fn from([mark, rest]: [u64; 2]) -> Self {
        let lifetime_s = u32::try_from(rest & u64::from(u32::MAX)).unwrap_or(0);
        Self { mark, lifetime_s, is_registered: rest >> 32 & 1 == 1 }
    }
}

impl From<Memo> for [u64; 2] {
    fn from(memo: Memo) -> Self {
        [memo.mark, u64::from(memo.lifetime_s) | u64::from(memo.is_registered) << 32]
    }
}

fn credentials(says: &Says, device: &DeviceId, path: Path) -> Credentials {
    let named = Credentials::named(Transport::Coap, path.remote, device, says.tenant.as_ref());
    Credentials { password: says.key.clone(), ..named }
}

impl Asked {
    /// The lifetime that the request announces, in seconds.
    fn lifetime_s(&self) -> Option<u32> {
        let default = (self.resource == Resource::Register).then_some(REGISTRATION_S);
        self.says.lifetime_s.or(default)
    }
}

impl Door {
    /// Finds the session of a request, or begins it, and serves the request.
    pub(crate) fn admit(&mut self, mut asked: Box<Asked>) {
        if let Resource::Refresh(name) | Resource::Deregister(name) = &asked.resource {
            return match self.server.registrations.get(name) {
                Some(peer) => {
                    if let Err(asked) = self.visit(asked, &peer, false) {
                        self.respond(asked.exchange, Response::new(Code::NOT_FOUND));
                    }
                }
                None => self.respond(asked.exchange, Response::new(Code::NOT_FOUND)),
            };
        }
        if let Some(peer) = self.known(&asked) {
            match self.visit(asked, &peer, false) {
                Ok(()) => return,
                Err(back) => asked = back,
            }
        }
        self.authenticate(asked);
    }

    /// The open session that was admitted by the very same as this request shows.
    fn known(&self, asked: &Asked) -> Option<PeerHandle> {
        let Some(device) = &asked.says.device else { return self.of_path(asked) };
        let tenant = asked.says.tenant.as_ref().unwrap_or(&self.server.tenant);
        let peer = self.server.hub.peer(tenant, device, Family::Coap)?;
        (peer.transport() == Transport::Coap && self.has_mark_of(&peer, asked)).then_some(peer)
    }

    /// The session that a request without a name belongs to: from its very address, and with the key that admitted it
    /// unless nobody needs one.
    fn of_path(&self, asked: &Asked) -> Option<PeerHandle> {
        let peer = self.paths.get(&asked.path)?;
        let is_open = peer.identified_by() == IdentifiedBy::Anonymous;
        (is_open || self.has_mark_of(peer, asked)).then(|| peer.clone())
    }

    /// The mark of what the request shows.
    fn mark(&self, asked: &Asked) -> u64 {
        let Says { tenant, key, .. } = &asked.says;
        self.server.marker.of(tenant.as_ref(), key.as_ref().map(Secret::expose), asked.path.remote.ip())
    }

    fn has_mark_of(&self, peer: &PeerHandle, asked: &Asked) -> bool {
        let mark = self.mark(asked);
        peer.memo(|memo| Marker::is_same(Memo::from(*memo).mark, mark))
    }

    fn authenticate(&mut self, asked: Box<Asked>) {
        let Some(device) = &asked.says.device else {
            self.refuse(RefusedCause::BadCredentials, asked.path, None);
            return self.respond(asked.exchange, Response::new(Code::UNAUTHORIZED));
        };
        let shown = credentials(&asked.says, device, asked.path);
        let auth = Arc::clone(&self.server.auth);
        let mut asking: BoxFuture<'static, Result<Principal, AuthError>> =
            Box::pin(async move { auth.authenticate(&shown).await });
        // Nearly always the answer is there at once. Where it is not, the future gets a waker when it is polled again.
        match asking.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => self.on_verdict(asked, verdict),
            Poll::Pending => self.let_wait(asked, asking),
        }
    }

    fn let_wait(&mut self, asked: Box<Asked>, asking: BoxFuture<'static, Result<Principal, AuthError>>) {
        if self.authenticating.len() >= self.server.config.max_authenticating {
            return self.unavailable(asked.exchange, Dropped::AuthenticatingFull);
        }
        let within = self.server.config.auth_timeout;
        self.authenticating.push(Box::pin(async move {
            let verdict = tokio::time::timeout(within, asking).await;
            Authenticated { asked, verdict: verdict.unwrap_or(Err(AuthError::Unavailable)) }
        }));
    }

    pub(crate) fn on_verdict(&mut self, asked: Box<Asked>, verdict: Result<Principal, AuthError>) {
        match verdict {
            Ok(principal) => self.enter(asked, &principal),
            Err(AuthError::Refused(cause)) => {
                self.refuse(cause, asked.path, None);
                let code = match cause {
                    RefusedCause::Malformed => Code::BAD_REQUEST,
                    RefusedCause::NotAuthorized => Code::FORBIDDEN,
                    _ => Code::UNAUTHORIZED,
                };
                self.respond(asked.exchange, Response::new(code));
            }
            Err(AuthError::Unavailable) => self.unavailable(asked.exchange, Dropped::Unauthenticated),
        }
    }

    fn enter(&mut self, mut asked: Box<Asked>, principal: &Principal) {
        // Twice, since a session may end at any moment. The second time it is begun without a look: one that is open is found
        // by that too, but for one whose beginning was refused.
        for is_second in [false, true] {
            let open = self.server.hub.peer(&principal.tenant, &principal.device, Family::Coap);
            let open = open.filter(|_| !is_second);
            let (peer, is_new) = match open.filter(|peer| peer.transport() == Transport::Coap) {
                Some(peer) => (peer, false),
                None => match self.begin(&asked, principal) {
                    Some(peer) => (peer, true),
                    None => return,
                },
            };
            let mark = self.mark(&asked);
            peer.memo(|memo| *memo = Memo { mark, ..Memo::from(*memo) }.into());
            match self.visit(asked, &peer, is_new) {
                Ok(()) => return,
                Err(back) => asked = back,
            }
        }
        self.unavailable(asked.exchange, Dropped::Ended);
    }

    /// Begins the device's session; `None` when it did not begin, which the device has been told.
    fn begin(&mut self, asked: &Asked, principal: &Principal) -> Option<PeerHandle> {
        let lifetime_s = asked.lifetime_s();
        let of_operator =
            || principal.keep_alive.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let hello = Hello {
            principal: principal.clone(),
            transport: Transport::Coap,
            protocol: Protocol::Coap,
            remote_id: asked.says.device.as_ref().map_or("", DeviceId::as_str).into(),
            remote_address: asked.path.remote,
            keep_alive_ms: lifetime_s.map(|seconds| u64::from(seconds) * 1_000).or_else(of_operator),
            on_silence: if lifetime_s.is_some() { Reason::LifetimeExpired } else { Reason::IdleTimeout },
            clean_start: None,
            will: None,
        };
        let memo = Memo { lifetime_s: lifetime_s.unwrap_or(0), ..Memo::default() };
        match self.server.hub.begin_inferred(hello, memo.into(), &self.post, true) {
            Ok(peer) if self.server.auth.still_holds(peer.tenant(), peer.device(), peer.acl()) => {
                return Some(peer);
            }
            Ok(peer) => {
                peer.close(Reason::CredentialsRevoked);
                self.refuse(RefusedCause::BadCredentials, asked.path, None);
                self.respond(asked.exchange, Response::new(Code::UNAUTHORIZED));
            }
            Err(OpenError::Full) => {
                let device = Some((principal.tenant.clone(), principal.device.clone()));
                self.refuse(RefusedCause::LimitReached, asked.path, device);
                self.respond_later(asked.exchange);
            }
            Err(OpenError::Draining) => self.unavailable(asked.exchange, Dropped::Draining),
            Err(_) => self.unavailable(asked.exchange, Dropped::Away),
        }
        None
    }

    /// The request's effects on an open session.
    ///
    /// # Errors
    /// Gives the request back when the session has ended before anything of it was published.
    fn visit(&mut self, asked: Box<Asked>, peer: &PeerHandle, is_new: bool) -> Result<(), Box<Asked>> {
        let mut commands = is_new;
        if !is_new {
            match peer.heard_from(asked.path.remote, &self.post) {
                Ok(heard) => commands = heard.commands,
                Err(_) => return Err(asked),
            }
            self.doubt(peer);
        }
        self.agree(&asked, peer);
        self.paths.note(&asked.path, peer);
        // It has shown a secret; or it is on this very machine, where nobody else can pretend to be.
        let is_near = || self.server.config.trust_loopback && asked.path.remote.ip().is_loopback();
        if peer.identified_by() != IdentifiedBy::Anonymous || is_near() {
            self.endpoint.prove(&asked.path);
        }
        if commands {
            self.send_commands(peer);
        }
        self.serve(asked, peer)
    }

    /// Puts a lifetime in force that differs from the one before.
    fn agree(&self, asked: &Asked, peer: &PeerHandle) {
        let Some(lifetime_s) = asked.lifetime_s() else { return };
        let old = peer.memo(|memo| {
            let old = Memo::from(*memo);
            *memo = Memo { lifetime_s, ..old }.into();
            old.lifetime_s
        });
        if old != lifetime_s {
            peer.agree(Terms::after(u64::from(lifetime_s) * 1_000, Reason::LifetimeExpired));
        }
    }

    pub(crate) fn refuse(&self, cause: RefusedCause, path: Path, device: Option<(TenantId, DeviceId)>) {
        self.server.hub.refused(cause, Transport::Coap, path.remote, device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_read_back() {
        for memo in [
            Memo { mark: u64::MAX, lifetime_s: u32::MAX, is_registered: true },
            Memo { mark: 1, lifetime_s: 0, is_registered: false },
        ] {
            assert_eq!(Memo::from(<[u64; 2]>::from(memo)), memo);
        }
        assert_eq!(Memo::from([0; 2]), Memo::default());
    }

    #[test]
    fn the_question_names_whose_credential_it_is() {
        let path = Path { remote: ([127, 0, 0, 1], 4000).into(), local: None };
        let device = "a b".parse().unwrap();
        let says = Says { tenant: Some("t".parse().unwrap()), ..Says::default() };
        let shown = credentials(&says, &device, path);
        assert_eq!((&*shown.client_id, shown.username.as_deref()), ("a b", Some("a b@t")));
        assert_eq!(credentials(&Says::default(), &device, path).username.as_deref(), Some("a b"));
    }
}
