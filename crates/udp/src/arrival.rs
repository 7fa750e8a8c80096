//! What one datagram leads to: from its bytes to its session, and to the store.
//!
//! Owns: the order of the checks, what is refused and what is dropped. Does not own: sessions (`landfall-hub`), the loop
//! (`door.rs`).
//!
//! Nothing of a datagram has an effect before its sender is admitted; a retransmission and a replay never are a sign of
//! life.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use landfall_channel::Via;
use landfall_event::{DeviceId, Family, Reason, RefusedCause, TenantId, Transport};
use landfall_hub::{
    Attempt, AuthError, BoxFuture, Hello, Marker, OpenError, PeerHandle, Permit, Principal, Protocol, Uplink,
};
use landfall_session::Terms;

use crate::admission::credentials;
use crate::door::{Authenticated, Door};
use crate::guard::{Checked, Taken};
use crate::line::{Answer, Key, Line, LineError};
use crate::memo::Memo;
use crate::metrics::{Dropped, level};
use crate::secure::is_bound;
use crate::unstored::{Fate, Unstored};

/// A datagram that could be read.
pub(crate) struct Arrival<'a> {
    pub(crate) via: Via,
    pub(crate) line: Line<'a>,
    /// Of what an unsigned line shows.
    pub(crate) mark: Option<u64>,
    /// The number of a signed one.
    taken: Option<Taken>,
    /// A keyed hash of all its bytes, where it wants an ack.
    print: u64,
    /// Its channel has proven whose it is.
    pub(crate) is_proven: bool,
}

impl<'a> Arrival<'a> {
    /// One on a channel that has proven whose it is: a key in the line is not looked at, nor a signature, since every record
    /// is new.
    pub(crate) fn proven(via: Via, line: Line<'a>, print: u64) -> Self {
        Self { via, line, mark: None, taken: None, print, is_proven: true }
    }
}

impl Arrival<'_> {
    /// It is turned away, and has proven nothing.
    fn attempt(&self, cause: RefusedCause) -> Attempt<'_> {
        attempt(cause, self.via).claiming(self.line.claims())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.payload.is_empty() && self.line.answer.is_none()
    }

    /// The silence that the line announces, with half of it as grace.
    fn silence_ms(&self) -> Option<u64> {
        self.line.heartbeat.map(|seconds| u64::from(seconds) * 1_500)
    }
}

/// What a message costs of the publish window: written as Base64, a payload grows by a third.
fn weight(payload: &[u8]) -> usize {
    payload.len() / 3 * 4 + 4
}

fn transport(via: Via) -> Transport {
    if via.channel.is_some() { Transport::Dtls } else { Transport::Udp }
}

/// Something that came this way is turned away.
pub(crate) fn attempt(cause: RefusedCause, via: Via) -> Attempt<'static> {
    Attempt::new(cause, transport(via), via.path.remote)
}

impl Door {
    /// A datagram that says itself whose it is.
    pub(crate) fn on_datagram(&mut self, via: Via, bytes: &[u8]) {
        let Some(mut arrival) = self.read(via, bytes) else { return };
        if let Some(peer) = self.known(&arrival)
            && self.visit(&mut arrival, &peer, false).is_ok()
        {
            return;
        }
        self.authenticate(arrival, bytes);
    }

    fn read<'a>(&self, via: Via, bytes: &'a [u8]) -> Option<Arrival<'a>> {
        let line = self.parse(via, bytes)?;
        if !self.fits(via, &line) {
            return None;
        }
        let key = line.key.as_ref().map(Key::expose);
        let mark = || self.server.marker.of(line.tenant.as_ref(), key, via.path.remote.ip());
        let mark = line.signed.is_none().then(mark);
        let print = self.print(&line, bytes);
        Some(Arrival { via, line, mark, taken: None, print, is_proven: false })
    }

    /// What tells a datagram from another one with the same ack.
    pub(crate) fn print(&self, line: &Line<'_>, bytes: &[u8]) -> u64 {
        if line.ack { self.server.prints.hash_one(bytes) } else { 0 }
    }

    /// Reads a line; one that is none is refused.
    pub(crate) fn parse<'a>(&self, via: Via, bytes: &'a [u8]) -> Option<Line<'a>> {
        let error = match Line::parse(bytes) {
            Ok(line) => return Some(line),
            Err(error) => error,
        };
        let (problem, word) = error.detail();
        tracing::debug!(remote = %via.path, problem, word, "a datagram was refused");
        let is_version = error == LineError::Version;
        let cause = if is_version { RefusedCause::UnsupportedVersion } else { RefusedCause::Malformed };
        self.refuse(&attempt(cause, via).with_detail(problem));
        None
    }

    /// A larger payload is refused.
    pub(crate) fn fits(&self, via: Via, line: &Line<'_>) -> bool {
        let fits = line.payload.len() <= self.server.config.max_datagram;
        if !fits {
            self.refuse(&attempt(RefusedCause::LimitReached, via).claiming(line.claims()));
        }
        fits
    }

    /// The open session that was admitted by the very same as this line shows. A signed line is looked at each time.
    fn known(&mut self, arrival: &Arrival<'_>) -> Option<PeerHandle> {
        if let Some(channel) = arrival.via.channel {
            return self.known_on(channel, arrival);
        }
        let mark = arrival.mark?;
        let tenant = arrival.line.tenant.as_ref().unwrap_or(&self.server.tenant);
        let peer = self.server.hub.peer(tenant, &arrival.line.device, Family::Udp)?;
        let is_same = peer.memo(|memo| Marker::is_same(Memo::from(*memo).mark, mark));
        (is_same && peer.transport() == Transport::Udp).then_some(peer)
    }

    fn authenticate(&mut self, arrival: Arrival<'_>, bytes: &[u8]) {
        let shown = credentials(&arrival.line, (transport(arrival.via), arrival.via.path.remote));
        let auth = Arc::clone(&self.server.auth);
        let mut asking: BoxFuture<'static, Result<Principal, AuthError>> =
            Box::pin(async move { auth.authenticate(&shown).await });
        // Nearly always the answer is there at once. Where it is not, the future gets a waker when it is polled again.
        match asking.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => self.on_verdict(arrival, verdict),
            Poll::Pending => self.let_wait(arrival.via, bytes, asking),
        }
    }

    fn let_wait(&mut self, via: Via, bytes: &[u8], asking: BoxFuture<'static, Result<Principal, AuthError>>) {
        let server = &self.server;
        if self.authenticating.len() >= server.config.max_authenticating {
            return server.metrics.dropped(Dropped::AuthenticatingFull);
        }
        let (datagram, within) = (Bytes::copy_from_slice(bytes), server.config.auth_timeout);
        server.metrics.authenticating.inc();
        self.authenticating.push(Box::pin(async move {
            let asking = AssertUnwindSafe(tokio::time::timeout(within, asking)).catch_unwind();
            let verdict = asking.await.map(|verdict| verdict.unwrap_or(Err(AuthError::Unavailable)));
            Authenticated { via, datagram, verdict: verdict.ok() }
        }));
    }

    pub(crate) fn on_authenticated(&mut self, done: &Authenticated) {
        let Some(verdict) = &done.verdict else { return self.defect() };
        if done.via.channel.is_some_and(|channel| !self.is_open(channel)) {
            return self.server.metrics.dropped(Dropped::ChannelClosed);
        }
        if let Some(arrival) = self.read(done.via, &done.datagram) {
            self.on_verdict(arrival, verdict.clone());
        }
    }

    fn on_verdict(&mut self, mut arrival: Arrival<'_>, verdict: Result<Principal, AuthError>) {
        let principal = match verdict {
            Ok(principal) => principal,
            Err(AuthError::Refused(cause)) => return self.refuse(&arrival.attempt(cause)),
            Err(AuthError::Unavailable) => return self.server.metrics.dropped(Dropped::Unauthenticated),
        };
        if let (Some(signed), Some(seq)) = (&arrival.line.signed, arrival.line.seq) {
            let checked = self.server.guard.check(&principal, seq, &signed.mac, self.server.seconds());
            self.server.metrics.signed_devices.set(level(self.server.guard.devices()));
            match checked {
                Checked::Taken(taken) => arrival.taken = Some(taken),
                Checked::Again { is_settled } => return self.on_retransmission(&arrival, is_settled),
                Checked::Stale => return self.refuse(&arrival.attempt(RefusedCause::BadCredentials)),
                Checked::Full => {
                    let full = attempt(RefusedCause::LimitReached, arrival.via);
                    return self.refuse(&full.of(&principal.tenant, &principal.device));
                }
            }
        }
        self.enter(arrival, &principal);
    }

    /// The same signed datagram again: its ack may have been lost. No sign of life: anybody may have kept a copy.
    fn on_retransmission(&mut self, arrival: &Arrival<'_>, is_settled: bool) {
        self.server.metrics.retransmitted.inc();
        if is_settled {
            self.ack_at_once(arrival);
        }
    }

    fn enter(&mut self, mut arrival: Arrival<'_>, principal: &Principal) {
        // Twice, since a session may end at any moment.
        for _ in 0..2 {
            let open = self.server.hub.peer(&principal.tenant, &principal.device, Family::Udp);
            let may_go_on = |peer: &PeerHandle| peer.transport() == transport(arrival.via) && !is_bound(peer);
            let (peer, is_new) = match open.filter(may_go_on) {
                Some(peer) => (peer, false),
                None if arrival.line.bye && arrival.is_empty() => {
                    return self.nobody_leaves(&arrival, &principal.tenant, &principal.device);
                }
                None => match self.begin(&arrival, principal, true) {
                    Some(peer) => (peer, true),
                    None => return self.server.give_back(arrival.taken.as_ref()),
                },
            };
            self.join(&arrival, &peer);
            if self.visit(&mut arrival, &peer, is_new).is_ok() {
                return;
            }
        }
        self.drop_for(Dropped::Ended, &arrival);
    }

    /// Begins a session; `inferred` where no handshake has said that the device is there.
    pub(crate) fn begin(
        &mut self,
        arrival: &Arrival<'_>,
        principal: &Principal,
        inferred: bool,
    ) -> Option<PeerHandle> {
        let server = Arc::clone(&self.server);
        let channel = arrival.via.channel;
        // Before anything gives way to it.
        if !server.hub.takes_sessions() {
            server.metrics.dropped(Dropped::Away);
            return None;
        }
        if channel.is_some() {
            self.take_over(principal);
        }
        let remote_id = channel.filter(|_| arrival.is_proven).and_then(|channel| self.remote_id(channel));
        let of_operator =
            || principal.keep_alive.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let hello = Hello {
            principal: principal.clone(),
            transport: transport(arrival.via),
            protocol: Protocol::Udp,
            remote_id: remote_id.unwrap_or_else(|| arrival.line.device.as_str().into()),
            remote_address: arrival.via.path.remote,
            keep_alive_ms: arrival.silence_ms().or_else(of_operator),
            on_silence: Reason::IdleTimeout,
            inferred,
            clean_start: None,
            will: None,
        };
        let (mark, local) = self.place(arrival);
        let memo = Memo {
            mark: mark.unwrap_or(0),
            heartbeat: arrival.line.heartbeat.unwrap_or(0),
            local,
            is_begun: false,
            is_bound: arrival.is_proven,
        };
        match server.hub.begin_inferred(hello, memo.into(), &self.post, channel.is_some()) {
            Ok(peer) if channel.is_some_and(|channel| !self.is_on(&peer, channel)) => {
                // Another channel of the device was faster.
                server.metrics.dropped(Dropped::Ended);
            }
            Ok(peer) => {
                self.join(arrival, &peer);
                return Some(peer);
            }
            Err(OpenError::Withdrawn) => {
                self.refuse(&arrival.attempt(RefusedCause::BadCredentials));
                if let Some(channel) = channel {
                    self.close_channel(channel);
                }
            }
            Err(OpenError::Full) => {
                let full = attempt(RefusedCause::LimitReached, arrival.via);
                self.refuse(&full.of(&principal.tenant, &principal.device));
            }
            Err(OpenError::Draining) => server.metrics.dropped(Dropped::Draining),
            Err(_) => server.metrics.dropped(Dropped::Away),
        }
        None
    }

    /// What the device has open on another channel gives way: it would be gone on with otherwise.
    fn take_over(&self, principal: &Principal) {
        let open = self.server.hub.peer(&principal.tenant, &principal.device, Family::Udp);
        if let Some(peer) = open.filter(|peer| peer.transport() == Transport::Dtls) {
            peer.close(Reason::TakenOver);
        }
    }

    /// The datagram's effects on an open session.
    ///
    /// # Errors
    /// The reason of the session's end, when it has ended before anything of the datagram was published.
    pub(crate) fn visit(
        &mut self,
        arrival: &mut Arrival<'_>,
        peer: &PeerHandle,
        is_new: bool,
    ) -> Result<(), Reason> {
        // A datagram that could not be dealt with when it first came was a sign of life then.
        let is_sign = is_new || !arrival.taken.as_ref().is_some_and(|taken| taken.is_retry);
        let mut commands = is_new;
        if is_sign && !is_new {
            commands = peer.heard_from(arrival.via.path.remote, &self.post)?.commands;
            self.note(arrival, peer);
        }
        let token = self.content(arrival, peer)?;
        if arrival.line.bye {
            self.leave(arrival, peer, token);
        } else if is_sign {
            // Before it sleeps: now it listens.
            if commands {
                self.send_commands(peer);
            }
            if let Some(seconds) = arrival.line.sleep {
                peer.dormant(u64::from(seconds) * 1_000);
            }
        }
        Ok(())
    }

    fn note(&self, arrival: &Arrival<'_>, peer: &PeerHandle) {
        let (mark, local) = self.place(arrival);
        let heartbeat = arrival.line.heartbeat;
        let is_changed = peer.memo(|memo| {
            let old = Memo::from(*memo);
            let new = Memo {
                mark: mark.unwrap_or(old.mark),
                heartbeat: heartbeat.unwrap_or(old.heartbeat),
                local,
                ..old
            };
            *memo = new.into();
            new.heartbeat != old.heartbeat
        });
        if is_changed && let Some(silence_ms) = arrival.silence_ms() {
            peer.agree(Terms::after(silence_ms, Reason::IdleTimeout));
        }
    }

    /// What the datagram brings. Returns the token of a payload whose fate matters.
    fn content(&mut self, arrival: &mut Arrival<'_>, peer: &PeerHandle) -> Result<Option<u64>, Reason> {
        if let Some(command) = &arrival.line.got {
            peer.acknowledged(command);
        }
        if arrival.is_empty() {
            if !arrival.line.bye {
                self.heartbeat(arrival, peer);
            }
            return Ok(None);
        }
        let server = Arc::clone(&self.server);
        if arrival.line.answer.is_none() && !peer.acl().may_publish(&server.no_topic) {
            self.deny(arrival.via, peer, &server.no_topic);
            return Ok(None);
        }
        let Some(permit) = peer.try_admit(weight(arrival.line.payload)) else {
            self.drop_for(Dropped::WindowFull, arrival);
            return Ok(None);
        };
        let token = if arrival.line.ack || arrival.taken.is_some() {
            let leaving = arrival.line.bye.then_some(peer);
            let Some(token) = self.wait(arrival, true, leaving) else {
                self.drop_for(Dropped::UnstoredFull, arrival);
                return Ok(None);
            };
            Some(token)
        } else {
            None
        };
        let submitted = self.submit(&arrival.line, arrival.via, peer, token, permit);
        if matches!(submitted, Ok(true)) {
            return Ok(token);
        }
        // One whose session has just ended is looked at again.
        let fate = if submitted.is_ok() { Fate::Lost } else { Fate::Open };
        token.into_iter().for_each(|token| self.no_longer_wait(arrival, token, fate));
        submitted.map(|_| None)
    }

    /// Keeps what has to be known when the datagram is stored; `None` when there is no room. One that `is_told` of has an
    /// ack to get and a number to settle.
    fn wait(&self, arrival: &mut Arrival<'_>, is_told: bool, leaving: Option<&PeerHandle>) -> Option<u64> {
        let has_message = is_told && !arrival.is_empty();
        let unstored = Unstored {
            socket: Arc::clone(&self.socket),
            via: arrival.via,
            ack: is_told && arrival.line.ack,
            seq: arrival.line.seq,
            mark: arrival.print,
            taken: if is_told { arrival.taken.take() } else { None },
            leaving: leaving.map(|peer| (peer.tenant().clone(), peer.device().clone())),
            parts: if has_message && leaving.is_some() { 2 } else { 1 },
        };
        match self.server.unstored.insert(unstored, &self.server.metrics) {
            Ok(token) => Some(token),
            Err(taken) => {
                arrival.taken = arrival.taken.take().or(taken);
                None
            }
        }
    }

    fn no_longer_wait(&self, arrival: &mut Arrival<'_>, token: u64, fate: Fate) {
        let unstored = self.server.unstored.remove(token, fate, &self.server.metrics);
        if let Some(taken) = unstored.and_then(|unstored| unstored.taken) {
            arrival.taken = Some(taken);
        }
    }

    /// The ack of a session's first words says that its `connected` is stored; later there is nothing to wait for.
    fn heartbeat(&mut self, arrival: &mut Arrival<'_>, peer: &PeerHandle) {
        if !arrival.line.ack || peer.memo(|memo| Memo::from(*memo).is_begun) {
            return self.nothing_to_store(arrival);
        }
        let Some(token) = self.wait(arrival, true, None) else {
            return self.drop_for(Dropped::UnstoredFull, arrival);
        };
        if peer.begun(&self.post, token) {
            peer.memo(|memo| *memo = Memo { is_begun: true, ..Memo::from(*memo) }.into());
            self.no_longer_wait(arrival, token, Fate::Open);
            self.nothing_to_store(arrival);
        }
    }

    /// The device says goodbye: its ack says that the end is stored too. `token` is that of its last words.
    fn leave(&mut self, arrival: &mut Arrival<'_>, peer: &PeerHandle, token: Option<u64>) {
        let is_all = arrival.is_empty();
        let Some(waiting) = token.or_else(|| self.wait(arrival, is_all, Some(peer))) else {
            if is_all && arrival.line.ack {
                return self.drop_for(Dropped::UnstoredFull, arrival);
            }
            // Nobody asks what becomes of the end.
            if is_all {
                self.server.settle(arrival.taken.as_ref());
            }
            return peer.close(Reason::ClientClosed);
        };
        if peer.close_with(Reason::ClientClosed, waiting) {
            return;
        }
        // It has just ended in another way.
        if token.is_some() {
            return self.on_settled(waiting, true);
        }
        self.no_longer_wait(arrival, waiting, Fate::Open);
        if is_all {
            self.nobody_leaves(arrival, peer.tenant(), peer.device());
        }
    }

    /// Whoever is not here cannot leave. One whose goodbye is still on its way to the store is told when that is there.
    pub(crate) fn nobody_leaves(&mut self, arrival: &Arrival<'_>, tenant: &TenantId, device: &DeviceId) {
        if self.server.unstored.is_leaving(&(tenant.clone(), device.clone())) {
            return self.server.give_back(arrival.taken.as_ref());
        }
        self.nothing_to_store(arrival);
    }

    /// Hands the payload over. False when the device may not send it.
    fn submit(
        &self,
        line: &Line<'_>,
        via: Via,
        peer: &PeerHandle,
        token: Option<u64>,
        permit: Permit,
    ) -> Result<bool, Reason> {
        let payload = Bytes::copy_from_slice(line.payload);
        let message = |topic, properties, payload| Uplink {
            topic,
            qos: None,
            retain: false,
            content_type: None,
            properties,
            publish: None,
            payload,
        };
        let Some(Answer { command, status }) = &line.answer else {
            let uplink = message(Arc::clone(&self.server.no_topic), Vec::new(), payload);
            return peer.upstream(uplink, token, permit).map(|()| true);
        };
        let status = status.as_deref().unwrap_or_default();
        let Err(permit) = peer.answered(command, (status.into(), payload.clone()), (token, permit)) else {
            return Ok(true);
        };
        // No such command is under way: an ordinary message, told apart by its topic.
        let topic: Arc<str> = format!("command/res/{command}").into();
        if !peer.acl().may_publish(&topic) {
            self.deny(via, peer, &topic);
            return Ok(false);
        }
        let properties = if status.is_empty() { Vec::new() } else { vec![("status".into(), status.into())] };
        peer.upstream(message(topic, properties, payload), token, permit).map(|()| true)
    }

    /// A datagram without content is dealt with when its session knows of it.
    fn nothing_to_store(&mut self, arrival: &Arrival<'_>) {
        self.server.settle(arrival.taken.as_ref());
        self.ack_at_once(arrival);
    }

    /// While NATS is away nothing is acknowledged.
    fn ack_at_once(&mut self, arrival: &Arrival<'_>) {
        let may = || self.server.unstored.may_ack(arrival.via, arrival.line.seq, arrival.print);
        if arrival.line.ack && self.server.hub.is_ready() && may() {
            let socket = Arc::clone(&self.socket);
            self.ack(&socket, &arrival.via, arrival.line.seq);
        }
    }

    fn drop_for(&self, reason: Dropped, arrival: &Arrival<'_>) {
        self.server.metrics.dropped(reason);
        self.server.give_back(arrival.taken.as_ref());
    }

    /// The device may not send to this topic.
    fn deny(&self, via: Via, peer: &PeerHandle, topic: &str) {
        let denied = attempt(RefusedCause::NotAuthorized, via);
        self.refuse(&denied.of(peer.tenant(), peer.device()).about(topic));
    }

    pub(crate) fn refuse(&self, attempt: &Attempt<'_>) {
        self.server.hub.refused(attempt);
    }
}
