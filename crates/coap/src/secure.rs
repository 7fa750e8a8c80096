//! What the secure channels of a socket bring: who is there from the handshake on, and which session is whose.
//!
//! Owns: presence on channels, which channel a session is on, when a channel is closed. Does not own: DTLS
//! (`landfall-channel`), what a request leads to (`resources.rs`).
//!
//! A channel that has proven whose it is has one session at a time, and that session this channel only: it is bound to it. A
//! newer handshake of the device takes over, an older channel takes nothing back. On any other channel devices name
//! themselves as over plain UDP, and their sessions move from one to another.

use std::sync::Arc;
use std::task::Context;

use landfall_channel::{Channel, Via, Word, Words};
use landfall_coap_core::{Code, Response};
use landfall_event::{Family, Reason, RefusedCause, Transport};
use landfall_hub::{PeerHandle, Principal, claimed_name};
use landfall_net::Path;

use crate::admission::{Beginning, Memo, Over, Unbegun};
use crate::asked::{Asked, Resource};
use crate::door::Door;
use crate::metrics::Dropped;

/// What is kept with a channel.
#[derive(Debug, Default)]
pub(crate) struct Bond {
    /// The session that is bound to it.
    peer: Option<PeerHandle>,
    /// What the device called itself in the handshake.
    remote_id: Arc<str>,
    /// A device was let in on it that the handshake had not proven.
    is_vouched_for: bool,
    /// It has had a session. One that could not begin with the handshake takes over all the same, with its first word.
    has_begun: bool,
}

/// A channel is one peer of the machine, whichever of our addresses the device speaks to (RFC 7252, section 9.1).
fn home(via: Via) -> Via {
    Via { path: Path { local: None, ..via.path }, ..via }
}

impl Door {
    /// A datagram has come to a socket with channels.
    pub(crate) fn on_record(&mut self, path: Path, bytes: &[u8]) {
        if let Some(channels) = &mut self.secure {
            channels.receive(&self.socket, path, bytes);
        }
        self.on_words();
    }

    /// Handshakes go on when the authenticator has answered, and when time has passed. Says whether something was done.
    pub(crate) fn poll_channels(&mut self, cx: &mut Context<'_>) -> bool {
        let mut done = false;
        while self.secure.as_mut().is_some_and(|channels| channels.poll(cx, &self.socket).is_ready()) {
            self.on_words();
            done = true;
        }
        done
    }

    fn on_words(&mut self) {
        let Some(channels) = &mut self.secure else { return };
        let mut words = channels.take();
        while let Some(word) = words.next() {
            self.guarded(|door| door.on_word(word, &words));
        }
        if let Some(channels) = &mut self.secure {
            channels.give_back(words);
        }
    }

    fn on_word(&mut self, word: Word, words: &Words) {
        match word {
            Word::Opened { via, principal, remote_id } => {
                self.on_opened(home(via), principal.is_some(), remote_id);
            }
            // What stands behind the end of its channel in one datagram would be nobody's.
            Word::Data { via, bytes } if self.is_there(via) => {
                self.on_message(&home(via), words.bytes(bytes));
            }
            Word::Data { .. } => {}
            Word::Closed { via, by_device } => self.on_closed(home(via), by_device),
        }
    }

    /// The handshake is a device's first word.
    fn on_opened(&mut self, via: Via, is_proven: bool, remote_id: Arc<str>) {
        let Some(bond) = self.bond(via) else { return };
        bond.remote_id = remote_id;
        if is_proven && let Err(why) = self.begin_bound(via, None, true) {
            self.nobody_began(why);
        }
    }

    /// A channel is over. Only the device can say that it leaves: where it has not, its session is left to its silence. One that
    /// is on another channel by now goes on.
    fn on_closed(&mut self, via: Via, by_device: bool) {
        let peer = self.unbind(via).or_else(|| self.paths.get(&via).cloned());
        if let Some(peer) = peer.filter(|_| by_device) {
            peer.close(Reason::SecureChannelClosed);
        }
        self.endpoint.forget(&via);
    }

    /// A request on a channel that has proven whose it is.
    pub(crate) fn admit_bound(&mut self, mut asked: Box<Asked>) {
        let via = asked.via;
        if !self.names_its_own(&asked) {
            return;
        }
        // Twice, since a session may end at any moment.
        for _ in 0..2 {
            if let Resource::Refresh(name) | Resource::Deregister(name) = &asked.resource
                && !self.is_registered_as(via, name)
            {
                self.spoke(via);
                return self.respond(asked.exchange, Response::new(Code::NOT_FOUND));
            }
            let (peer, is_new) = match self.bound(via) {
                Some(peer) => (peer, false),
                None => match self.begin_bound(via, asked.lifetime_s(), false) {
                    Ok(peer) => (peer, true),
                    Err(why) => return self.not_begun(asked.exchange, why),
                },
            };
            match self.visit(asked, &peer, is_new) {
                Ok(()) => return,
                Err(over) => asked = self.part_from(over),
            }
        }
        self.unavailable(asked.exchange, Dropped::Ended);
    }

    /// Whoever it names, if it names somebody, must be who the channel has proven. Another one it is told.
    fn names_its_own(&mut self, asked: &Asked) -> bool {
        let Some(Principal { tenant, device, .. }) = self.principal(asked.via) else { return false };
        let says = &asked.says;
        let is_its_own = says.device.as_ref().is_none_or(|named| named == device)
            && says.tenant.as_ref().is_none_or(|named| named == tenant);
        if !is_its_own {
            let other = self.attempt(RefusedCause::NotAuthorized, asked.via).of(tenant, device);
            self.refuse(&other.claiming(says.claims()));
            self.respond(asked.exchange, Response::new(Code::FORBIDDEN));
        }
        is_its_own
    }

    /// Is this the name of the registration of the channel's session?
    fn is_registered_as(&self, via: Via, name: &str) -> bool {
        let registered = self.server.registrations.get(name);
        registered.zip(self.bound(via)).is_some_and(|(registered, bound)| registered.id() == bound.id())
    }

    /// Something came that asks for nothing of a session. False where the channel has not proven whose it is.
    pub(crate) fn spoke(&mut self, via: Via) -> bool {
        if !self.is_proven(via) {
            return false;
        }
        // Twice, since a session may end at any moment.
        for _ in 0..2 {
            let Some(peer) = self.bound(via) else {
                match self.begin_bound(via, None, false) {
                    Ok(peer) => self.send_commands(&peer),
                    Err(why) => self.nobody_began(why),
                }
                return true;
            };
            match peer.heard_from(via.path.remote, &self.post) {
                Ok(heard) => {
                    if heard.commands {
                        self.send_commands(&peer);
                    }
                    return true;
                }
                Err(reason) if self.ends(via, reason) => return true,
                Err(_) => {}
            }
        }
        true
    }

    /// Begins presence, with the handshake or with the first word after a silence.
    fn begin_bound(
        &mut self,
        via: Via,
        lifetime_s: Option<u32>,
        is_handshake: bool,
    ) -> Result<PeerHandle, Unbegun> {
        let begun = self.try_begin_bound(via, lifetime_s, is_handshake);
        match &begun {
            Ok(peer) => {
                if let Some(bond) = self.bond(via) {
                    bond.peer = Some(peer.clone());
                    bond.has_begun = true;
                }
            }
            Err(Unbegun::Withdrawn | Unbegun::Elsewhere) => self.parting.push(via),
            Err(_) => {}
        }
        begun
    }

    fn try_begin_bound(
        &mut self,
        via: Via,
        lifetime_s: Option<u32>,
        is_handshake: bool,
    ) -> Result<PeerHandle, Unbegun> {
        let (Some(channel), Some(principal)) = (via.channel, self.principal(via).cloned()) else {
            return Err(Unbegun::Elsewhere);
        };
        // It may have been found out long ago.
        if !self.server.auth.still_holds(&principal.tenant, &principal.device, &principal.acl) {
            let withdrawn = self.attempt(RefusedCause::BadCredentials, via);
            self.refuse(&withdrawn.claiming(claimed_name(&principal.device, Some(&principal.tenant), None)));
            return Err(Unbegun::Withdrawn);
        }
        let open = self.server.hub.peer(&principal.tenant, &principal.device, Family::Coap);
        let has_begun = self.bond(via).is_some_and(|bond| bond.has_begun);
        if has_begun && open.is_some_and(|peer| Memo::of(&peer).is_bound) {
            // The device has shaken hands anew since: what comes here is late.
            return Err(Unbegun::Elsewhere);
        }
        let remote_id = self.bond(via).map(|bond| Arc::clone(&bond.remote_id)).unwrap_or_default();
        let memo = Memo { mark: channel.number(), is_bound: true, socket: self.number, ..Memo::default() };
        let inferred = !is_handshake;
        self.begin(Beginning { via, principal: &principal, remote_id, memo, inferred }, lifetime_s)
    }

    /// What the device has open under DTLS gives way to a session that cannot go on with it: it would be gone on with
    /// otherwise. One over plain UDP gives way by itself.
    pub(crate) fn take_over(&self, principal: &Principal, is_bound: bool) {
        if self.secure.is_none() {
            return;
        }
        let open = self.server.hub.peer(&principal.tenant, &principal.device, Family::Coap);
        let open = open.filter(|peer| peer.transport() == Transport::Coaps);
        if let Some(peer) = open.filter(|peer| is_bound || Memo::of(peer).is_bound) {
            peer.close(Reason::TakenOver);
        }
    }

    fn nobody_began(&self, why: Unbegun) {
        if let Some(dropped) = why.dropped() {
            self.server.metrics.dropped(dropped);
        }
    }

    /// A session has ended, if it is one that was begun on a channel.
    pub(crate) fn on_bound_ended(&mut self, peer: &PeerHandle, reason: Reason) {
        let memo = Memo::of(peer);
        if !memo.is_bound {
            return;
        }
        let path = Path { remote: peer.remote_address(), local: None };
        let via = Via { path, channel: Channel::from_number(memo.mark) };
        if self.bound(via).is_some_and(|bound| bound.id() == peer.id()) {
            self.ends(via, reason);
        }
    }

    /// The channel's session has ended. Says whether the channel ends with it.
    fn ends(&mut self, via: Via, reason: Reason) -> bool {
        self.unbind(via);
        let ends = Channel::ends_with(reason);
        if ends {
            self.parting.push(via);
        }
        ends
    }

    /// The same with a request that came too late for it, which may be the first of the next one.
    fn part_from(&mut self, Over { asked, reason }: Over) -> Box<Asked> {
        self.ends(asked.via, reason);
        asked
    }

    /// Closes the channels that are to be closed: their devices are told close_notify.
    pub(crate) fn part(&mut self) {
        while let Some(via) = self.parting.pop() {
            if let (Some(channels), Some(channel)) = (&mut self.secure, via.channel) {
                channels.close(&self.socket, channel);
            }
            self.endpoint.forget(&via);
            self.drain();
        }
    }

    /// Closes all of them: the gateway goes.
    pub(crate) fn close_channels(&mut self) {
        if let Some(channels) = &mut self.secure {
            channels.close_all(&self.socket);
        }
    }

    /// The device of a session was let in on a channel that has not proven whose it is.
    pub(crate) fn vouch(&mut self, via: Via, peer: &PeerHandle) {
        let (Some(channel), Some(channels)) = (via.channel, &mut self.secure) else { return };
        if channels.get_mut(channel).is_none_or(|bond| bond.is_vouched_for) {
            return;
        }
        let is_vouched_for = channels.vouch(&self.socket, channel, (peer.tenant(), peer.device()));
        self.bond(via).into_iter().for_each(|bond| bond.is_vouched_for = is_vouched_for);
    }

    /// True over plain UDP, and for a channel that is not over.
    pub(crate) fn is_there(&mut self, via: Via) -> bool {
        via.channel.is_none() || self.bond(via).is_some()
    }

    /// Has the channel proven whose it is?
    pub(crate) fn is_proven(&self, via: Via) -> bool {
        self.principal(via).is_some()
    }

    fn principal(&self, via: Via) -> Option<&Principal> {
        self.secure.as_ref()?.principal(via.channel?)
    }

    fn bond(&mut self, via: Via) -> Option<&mut Bond> {
        self.secure.as_mut()?.get_mut(via.channel?)
    }

    /// The session that is bound to the channel; it may be over.
    pub(crate) fn bound(&self, via: Via) -> Option<PeerHandle> {
        self.secure.as_ref()?.get(via.channel?)?.peer.clone()
    }

    fn unbind(&mut self, via: Via) -> Option<PeerHandle> {
        self.bond(via)?.peer.take()
    }

    /// Is the session bound to this channel?
    pub(crate) fn is_on(&self, peer: &PeerHandle, via: Via) -> bool {
        let memo = Memo::of(peer);
        let is_here = memo.is_bound && memo.socket == self.number && peer.transport() == Transport::Coaps;
        is_here && Some(memo.mark) == via.channel.map(Channel::number)
    }
}
