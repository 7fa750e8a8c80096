//! Who asks: from what a request says of itself to the session of its device.
//!
//! Owns: the ways to be admitted, asking the authenticator without making anybody else wait, beginning a session. Does not
//! own: who is who (the authenticator), sessions (`landfall-hub`).
//!
//! Nothing of a request has an effect before its device is admitted: a wrong key touches nobody's presence.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use landfall_channel::Via;
use landfall_coap_core::{Code, ExchangeId, Request, Response};
use landfall_event::{DeviceId, Family, IdentifiedBy, Reason, RefusedCause, Transport};
use landfall_hub::{
    Attempt, AuthError, BoxFuture, Credentials, Hello, Marker, OpenError, PeerHandle, Principal, Protocol,
    Secret, claimed_name,
};
use landfall_session::Terms;

use crate::asked::{Asked, Resource, Says};
use crate::door::{Authenticated, Door};
use crate::metrics::Dropped;

/// The lifetime of a registration that names none, in seconds (RFC 9176, section 5).
const REGISTRATION_S: u32 = 90_000;

/// The listener's part of a session, in its sixteen bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memo {
    /// The mark of what the device was admitted by; of a bound session, the number of its channel.
    pub(crate) mark: u64,
    /// The lifetime in force, in seconds; 0 when the device has announced none.
    pub(crate) lifetime_s: u32,
    /// It has a registration.
    pub(crate) is_registered: bool,
    /// It was begun on a secure channel that has proven whose it is, and is of no other.
    pub(crate) is_bound: bool,
    /// The number of the socket of that channel.
    pub(crate) socket: u16,
}

impl Memo {
    pub(crate) fn of(peer: &PeerHandle) -> Self {
        peer.memo(|memo| Self::from(*memo))
    }
}

impl From<[u64; 2]> for Memo {
    fn from([mark, rest]: [u64; 2]) -> Self {
        let lifetime_s = u32::try_from(rest & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            mark,
            lifetime_s,
            is_registered: rest >> 32 & 1 == 1,
            is_bound: rest >> 33 & 1 == 1,
            socket: u16::try_from(rest >> 48).unwrap_or(0),
        }
    }
}

impl From<Memo> for [u64; 2] {
    fn from(memo: Memo) -> Self {
        let flags = u64::from(memo.is_registered) << 32 | u64::from(memo.is_bound) << 33;
        [memo.mark, u64::from(memo.lifetime_s) | flags | u64::from(memo.socket) << 48]
    }
}

/// How a session is to begin.
pub(crate) struct Beginning<'a> {
    pub(crate) via: Via,
    pub(crate) principal: &'a Principal,
    pub(crate) remote_id: Arc<str>,
    pub(crate) memo: Memo,
    /// No handshake has said that the device is there.
    pub(crate) inferred: bool,
}

/// Why one did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbegun {
    /// What the device has proven counts no longer.
    Withdrawn,
    /// There is no room.
    Full,
    Draining,
    /// NATS is away.
    Away,
    /// The device has a session on another channel, or on none, since.
    Elsewhere,
}

impl Unbegun {
    /// What is counted of one that nobody is told of.
    pub(crate) fn dropped(self) -> Option<Dropped> {
        match self {
            Self::Withdrawn | Self::Full => None,
            Self::Draining => Some(Dropped::Draining),
            Self::Away => Some(Dropped::Away),
            Self::Elsewhere => Some(Dropped::Ended),
        }
    }
}

/// A request whose session has ended before anything of it was published.
pub(crate) struct Over {
    pub(crate) asked: Box<Asked>,
    /// Why the session has.
    pub(crate) reason: Reason,
}

fn credentials(says: &Says, device: &DeviceId, (transport, via): (Transport, Via)) -> Credentials {
    let named = Credentials::named(transport, via.path.remote, device, says.tenant.as_ref());
    Credentials { password: says.key.clone(), ..named }
}

impl Asked {
    /// The lifetime that the request announces, in seconds.
    pub(crate) fn lifetime_s(&self) -> Option<u32> {
        let default = (self.resource == Resource::Register).then_some(REGISTRATION_S);
        self.says.lifetime_s.or(default)
    }
}

impl Door {
    /// Finds the session of a request, or begins it, and serves the request.
    pub(crate) fn admit(&mut self, mut asked: Box<Asked>) {
        if self.is_proven(asked.via) {
            return self.admit_bound(asked);
        }
        if let Resource::Refresh(name) | Resource::Deregister(name) = &asked.resource {
            let registered = self.server.registrations.get(name).filter(|peer| self.may_go_on(peer));
            return match registered {
                Some(peer) => {
                    if let Err(Over { asked, .. }) = self.visit(asked, &peer, false) {
                        self.respond(asked.exchange, Response::new(Code::NOT_FOUND));
                    }
                }
                None => self.respond(asked.exchange, Response::new(Code::NOT_FOUND)),
            };
        }
        if let Some(peer) = self.known(&asked.says, asked.via) {
            match self.visit(asked, &peer, false) {
                Ok(()) => return,
                Err(over) => asked = over.asked,
            }
        }
        self.authenticate(asked);
    }

    /// May whoever has proven nothing by its channel go on with this session, once it has shown what is asked for?
    fn may_go_on(&self, peer: &PeerHandle) -> bool {
        peer.transport() == self.transport() && (self.secure.is_none() || !Memo::of(peer).is_bound)
    }

    /// The open session that was admitted by the very same as this request shows.
    fn known(&self, says: &Says, via: Via) -> Option<PeerHandle> {
        let Some(device) = &says.device else { return self.of_path(says, via) };
        let tenant = says.tenant.as_ref().unwrap_or(&self.server.tenant);
        let peer = self.server.hub.peer(tenant, device, Family::Coap)?;
        (self.may_go_on(&peer) && self.has_mark_of(&peer, says, via)).then_some(peer)
    }

    /// The session that a request without a name belongs to: from its very address, and with the key that admitted it
    /// unless nobody needs one.
    fn of_path(&self, says: &Says, via: Via) -> Option<PeerHandle> {
        let peer = self.paths.get(&via)?;
        let is_open = peer.identified_by() == IdentifiedBy::Anonymous;
        (is_open || self.has_mark_of(peer, says, via)).then(|| peer.clone())
    }

    /// The mark of what a request shows.
    fn mark(&self, says: &Says, via: Via) -> u64 {
        let Says { tenant, key, .. } = says;
        self.server.marker.of(tenant.as_ref(), key.as_ref().map(Secret::expose), via.path.remote.ip())
    }

    fn has_mark_of(&self, peer: &PeerHandle, says: &Says, via: Via) -> bool {
        let mark = self.mark(says, via);
        peer.memo(|memo| Marker::is_same(Memo::from(*memo).mark, mark))
    }

    /// A further block of an answer was fetched, by whoever was let in with the first: a sign of life. It begins nothing where a session
    /// has ended meanwhile.
    pub(crate) fn on_fetched(&mut self, via: Via, request: &Request) {
        if self.spoke(via) {
            return;
        }
        let peer = Says::read(&request.queries).ok().and_then(|says| self.known(&says, via));
        let Some(peer) = peer else { return };
        if self.hear(&peer, via, true) == Ok(true) {
            self.send_commands(&peer);
        }
    }

    /// The session's device was heard; says whether commands wait. One `block` of many is no word of its own: it says that the
    /// device lives, and nothing of how often it speaks.
    fn hear(&mut self, peer: &PeerHandle, via: Via, block: bool) -> Result<bool, Reason> {
        let is_here = !peer.is_asleep() && !peer.is_over() && peer.remote_address() == via.path.remote;
        if block && is_here {
            peer.touched();
            return Ok(false);
        }
        let heard = peer.heard_from(via.path.remote, &self.post)?;
        self.doubt(peer);
        Ok(heard.commands)
    }

    fn authenticate(&mut self, asked: Box<Asked>) {
        let Some(device) = &asked.says.device else {
            self.refuse(&self.attempt(RefusedCause::BadCredentials, asked.via));
            return self.respond(asked.exchange, Response::new(Code::UNAUTHORIZED));
        };
        let shown = credentials(&asked.says, device, (self.transport(), asked.via));
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
                self.refuse(&self.attempt(cause, asked.via).claiming(asked.says.claims()));
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
            let mark = self.mark(&asked.says, asked.via);
            let (peer, is_new) = match open.filter(|peer| self.may_go_on(peer)) {
                Some(peer) => (peer, false),
                None => {
                    let remote_id = asked.says.device.as_ref().map_or("", DeviceId::as_str).into();
                    let memo = Memo { mark, ..Memo::default() };
                    let beginning = Beginning { via: asked.via, principal, remote_id, memo, inferred: true };
                    match self.begin(beginning, asked.lifetime_s()) {
                        Ok(peer) => (peer, true),
                        Err(why) => return self.not_begun(asked.exchange, why),
                    }
                }
            };
            peer.memo(|memo| *memo = Memo { mark, ..Memo::from(*memo) }.into());
            match self.visit(asked, &peer, is_new) {
                Ok(()) => return,
                Err(over) => asked = over.asked,
            }
        }
        self.unavailable(asked.exchange, Dropped::Ended);
    }

    /// Begins a session. Who is not let in is refused by that.
    pub(crate) fn begin(
        &mut self,
        beginning: Beginning<'_>,
        lifetime_s: Option<u32>,
    ) -> Result<PeerHandle, Unbegun> {
        let Beginning { via, principal, remote_id, memo, inferred } = beginning;
        // Before anything gives way to it.
        if !self.server.hub.takes_sessions() {
            return Err(Unbegun::Away);
        }
        self.take_over(principal, memo.is_bound);
        let of_operator =
            || principal.keep_alive.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let hello = Hello {
            principal: principal.clone(),
            transport: self.transport(),
            protocol: Protocol::Coap,
            remote_id,
            remote_address: via.path.remote,
            keep_alive_ms: lifetime_s.map(|seconds| u64::from(seconds) * 1_000).or_else(of_operator),
            on_silence: if lifetime_s.is_some() { Reason::LifetimeExpired } else { Reason::IdleTimeout },
            inferred,
            clean_start: None,
            will: None,
        };
        let memo = Memo { lifetime_s: lifetime_s.unwrap_or(0), ..memo };
        match self.server.hub.begin_inferred(hello, memo.into(), &self.post, true) {
            Ok(peer) if memo.is_bound && !self.is_on(&peer, via) => Err(Unbegun::Elsewhere),
            Ok(peer) if !memo.is_bound && Memo::of(&peer).is_bound => Err(Unbegun::Elsewhere),
            Ok(peer) => Ok(peer),
            Err(OpenError::Withdrawn) => {
                let withdrawn = self.attempt(RefusedCause::BadCredentials, via);
                self.refuse(&withdrawn.claiming(claimed_name(
                    &principal.device,
                    Some(&principal.tenant),
                    None,
                )));
                Err(Unbegun::Withdrawn)
            }
            Err(OpenError::Full) => {
                let full = self.attempt(RefusedCause::LimitReached, via);
                self.refuse(&full.of(&principal.tenant, &principal.device));
                Err(Unbegun::Full)
            }
            Err(OpenError::Draining) => Err(Unbegun::Draining),
            Err(_) => Err(Unbegun::Away),
        }
    }

    /// Tells the device that its session did not begin.
    pub(crate) fn not_begun(&mut self, exchange: ExchangeId, why: Unbegun) {
        match (why, why.dropped()) {
            (Unbegun::Withdrawn, _) => self.respond(exchange, Response::new(Code::UNAUTHORIZED)),
            (_, Some(dropped)) => self.unavailable(exchange, dropped),
            (_, None) => self.respond_later(exchange),
        }
    }

    /// The request's effects on an open session.
    ///
    /// # Errors
    /// Gives the request back when the session has ended before anything of it was published.
    pub(crate) fn visit(&mut self, asked: Box<Asked>, peer: &PeerHandle, is_new: bool) -> Result<(), Over> {
        let mut commands = is_new;
        if !is_new {
            match self.hear(peer, asked.via, asked.request.is_partial) {
                Ok(wait) => commands = wait,
                Err(reason) => return Err(Over { asked, reason }),
            }
        } else {
            self.regain(peer);
        }
        self.agree(&asked, peer);
        if !self.is_proven(asked.via) {
            self.paths.note(&asked.via, peer);
            self.vouch(asked.via, peer);
        }
        // It has shown a secret; or it is on this very machine, where nobody else can pretend to be.
        let is_near = || self.server.config.trust_loopback && asked.via.path.remote.ip().is_loopback();
        if peer.identified_by() != IdentifiedBy::Anonymous || is_near() {
            self.endpoint.prove(&asked.via);
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

    /// Something that came this way is turned away.
    pub(crate) fn attempt(&self, cause: RefusedCause, via: Via) -> Attempt<'static> {
        Attempt::new(cause, self.transport(), via.path.remote)
    }

    pub(crate) fn refuse(&self, attempt: &Attempt<'_>) {
        self.server.hub.refused(attempt);
    }
}

#[cfg(test)]
mod tests {
    use landfall_net::Path;

    use super::*;

    #[test]
    fn a_memo_is_read_back() {
        for memo in [
            Memo {
                mark: u64::MAX,
                lifetime_s: u32::MAX,
                is_registered: true,
                is_bound: false,
                socket: u16::MAX,
            },
            Memo { mark: 1, lifetime_s: 0, is_registered: false, is_bound: true, socket: 0 },
        ] {
            assert_eq!(Memo::from(<[u64; 2]>::from(memo)), memo);
        }
        assert_eq!(Memo::from([0; 2]), Memo::default());
    }

    #[test]
    fn the_question_names_whose_credential_it_is() {
        let path = Path { remote: ([127, 0, 0, 1], 4000).into(), local: None };
        let from = (Transport::Coaps, path.into());
        let device = "a b".parse().unwrap();
        let says = Says { tenant: Some("t".parse().unwrap()), ..Says::default() };
        let shown = credentials(&says, &device, from);
        assert_eq!((&*shown.client_id, shown.username.as_deref()), ("a b", Some("a b@t")));
        assert_eq!(credentials(&Says::default(), &device, from).username.as_deref(), Some("a b"));
    }
}
