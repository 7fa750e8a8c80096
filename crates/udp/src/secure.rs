//! What the secure channels of a socket bring: who is there from the handshake on, and which session is whose.
//!
//! Owns: presence on channels, which channel a session is on, when a channel is closed. Does not own: DTLS
//! (`landfall-channel`), what a datagram leads to (`arrival.rs`).
//!
//! A channel that has proven whose it is has one session at a time, and that session this channel only: a newer handshake of
//! the device takes over, an older channel takes nothing back. On any other channel devices name themselves as over plain
//! UDP, and their sessions move from one to another.

use std::sync::Arc;
use std::task::Context;

use landfall_channel::{Channel, Channels, Via, Word, Words};
use landfall_event::{Family, Reason, RefusedCause, Transport};
use landfall_hub::{Marker, PeerHandle, Principal};
use landfall_net::Path;

use crate::arrival::{Arrival, attempt};
use crate::door::Door;
use crate::line::Line;
use crate::memo::Memo;
use crate::metrics::Dropped;

/// The channels of a socket.
pub(crate) struct Secure {
    /// The socket's number among those with channels.
    pub(crate) number: u16,
    pub(crate) channels: Channels<Bond>,
}

/// What is kept with a channel.
#[derive(Debug, Default)]
pub(crate) struct Bond {
    /// The session of whoever spoke last, until it is known to be over.
    peer: Option<PeerHandle>,
    /// What the device called itself in the handshake.
    remote_id: Arc<str>,
    /// A device was let in on it that the handshake had not proven.
    is_vouched_for: bool,
    /// It has had a session. One that could not begin with the handshake takes over all the same, with its first word.
    has_begun: bool,
    /// The mark of what the last line showed, where the channel itself proves nothing; 0 when that was a signature.
    shown: u64,
}

impl Door {
    /// A datagram has come to a socket with channels.
    pub(crate) fn on_record(&mut self, path: Path, bytes: &[u8]) {
        self.guarded(|door| {
            if let Some(secure) = &mut door.secure {
                secure.channels.receive(&door.socket, path, bytes);
            }
        });
        self.on_words();
    }

    /// Handshakes go on when the authenticator has answered, and when time has passed.
    pub(crate) fn poll_channels(&mut self, cx: &mut Context<'_>) {
        while self.secure.as_mut().is_some_and(|secure| secure.channels.poll(cx, &self.socket).is_ready()) {
            self.on_words();
        }
    }

    /// Tells every device that is still there that the gateway goes.
    pub(crate) fn close_channels(&mut self) {
        self.guarded(|door| {
            if let Some(secure) = &mut door.secure {
                secure.channels.close_all(&door.socket);
            }
        });
    }

    fn on_words(&mut self) {
        let Some(secure) = &mut self.secure else { return };
        let mut words = secure.channels.take();
        while let Some(word) = words.next() {
            self.guarded(|door| door.on_word(word, &words));
        }
        if let Some(secure) = &mut self.secure {
            secure.channels.give_back(words);
        }
    }

    fn on_word(&mut self, word: Word, words: &Words) {
        match word {
            Word::Opened { via, principal, remote_id } => {
                self.on_opened(via, principal.as_deref(), remote_id);
            }
            Word::Data { via, bytes } => self.on_data(via, words.bytes(bytes)),
            Word::Closed { via, by_device } => self.on_closed(via, by_device),
        }
    }

    /// The handshake is a device's first word, and one without content.
    fn on_opened(&mut self, via: Via, principal: Option<&Principal>, remote_id: Arc<str>) {
        let Some(bond) = via.channel.and_then(|channel| self.bond(channel)) else { return };
        bond.remote_id = remote_id;
        if let Some(principal) = principal {
            let line = Line::without(principal.device.clone(), principal.tenant.clone(), &[]);
            self.on_bound(Arrival::proven(via, line, 0), true);
        }
    }

    fn on_data(&mut self, via: Via, bytes: &[u8]) {
        if !via.channel.is_some_and(|channel| self.is_open(channel)) {
            // A word of before has just ended it.
            return self.server.metrics.dropped(Dropped::ChannelClosed);
        }
        let Some(secure) = &self.secure else { return };
        let Some(principal) = via.channel.and_then(|channel| secure.channels.principal(channel)) else {
            return self.on_datagram(via, bytes);
        };
        if let Some(line) = self.read_proven(via, principal, bytes) {
            let print = self.print(&line, bytes);
            self.on_bound(Arrival::proven(via, line, print), false);
        }
    }

    /// What has come on a channel of `principal`: a line, or a payload as a whole.
    fn read_proven<'a>(&self, via: Via, principal: &Principal, bytes: &'a [u8]) -> Option<Line<'a>> {
        let line = if bytes.starts_with(b"LF1 ") {
            self.parse(via, bytes)?
        } else {
            Line::without(principal.device.clone(), principal.tenant.clone(), bytes)
        };
        let is_its = line.device == principal.device
            && line.tenant.as_ref().is_none_or(|tenant| *tenant == principal.tenant);
        if !is_its {
            let other = attempt(RefusedCause::NotAuthorized, via).claiming(line.claims());
            self.refuse(&other.of(&principal.tenant, &principal.device));
            return None;
        }
        self.fits(via, &line).then_some(line)
    }

    /// A word on a channel that has proven whose it is.
    fn on_bound(&mut self, mut arrival: Arrival<'_>, is_handshake: bool) {
        let Some(channel) = arrival.via.channel else { return };
        // Twice, since a session may end at any moment.
        for _ in 0..2 {
            let open = self.bond(channel).and_then(|bond| bond.peer.clone());
            let (peer, is_new) = match open {
                Some(peer) => (peer, false),
                None if arrival.line.bye && arrival.is_empty() => {
                    return self.nobody_leaves_on(channel, &arrival);
                }
                None => match self.begin_on(channel, &arrival, is_handshake) {
                    Some(peer) => (peer, true),
                    None => return,
                },
            };
            match self.visit(&mut arrival, &peer, is_new) {
                Ok(()) => return,
                Err(reason) if Channel::ends_with(reason) => {
                    self.server.metrics.dropped(Dropped::ChannelClosed);
                    return self.close_channel(channel);
                }
                Err(_) => {
                    self.part(channel, &peer);
                }
            }
        }
        self.server.metrics.dropped(Dropped::Ended);
    }

    fn nobody_leaves_on(&mut self, channel: Channel, arrival: &Arrival<'_>) {
        if let Some(Principal { tenant, device, .. }) = self.principal(channel) {
            self.nobody_leaves(arrival, &tenant, &device);
        }
    }

    /// Begins presence, with the handshake or with the first word after a silence.
    fn begin_on(
        &mut self,
        channel: Channel,
        arrival: &Arrival<'_>,
        is_handshake: bool,
    ) -> Option<PeerHandle> {
        let principal = self.principal(channel)?;
        // It may have been found out long ago.
        if !self.server.auth.still_holds(&principal.tenant, &principal.device, &principal.acl) {
            let withdrawn = attempt(RefusedCause::BadCredentials, arrival.via);
            self.refuse(&withdrawn.claiming(arrival.line.claims()));
            self.close_channel(channel);
            return None;
        }
        let open = self.server.hub.peer(&principal.tenant, &principal.device, Family::Udp);
        let has_begun = self.bond(channel).is_some_and(|bond| bond.has_begun);
        if has_begun && open.is_some_and(|peer| is_bound(&peer)) {
            // The device has shaken hands anew since: what comes here is late.
            self.server.metrics.dropped(Dropped::ChannelClosed);
            self.close_channel(channel);
            return None;
        }
        self.begin(arrival, &principal, !is_handshake)
    }

    /// A channel is over. Only the device can say that it leaves: where it has not, its session is left to its silence. One that
    /// is on another channel by now goes on.
    fn on_closed(&mut self, via: Via, by_device: bool) {
        let Some(channel) = via.channel else { return };
        let peer = self.bond(channel).and_then(|bond| bond.peer.take());
        if let Some(peer) = peer.filter(|peer| by_device && self.is_on(peer, channel)) {
            peer.close(Reason::SecureChannelClosed);
        }
    }

    /// A session that was begun on a channel has ended.
    pub(crate) fn on_ended(&mut self, peer: &PeerHandle, reason: Reason) {
        let memo = peer.memo(|memo| Memo::from(*memo));
        let Some(channel) = Channel::from_number(memo.mark).filter(|channel| self.is_on(peer, *channel))
        else {
            return;
        };
        // Others may speak on one that is nobody's.
        if self.part(channel, peer) && memo.is_bound && Channel::ends_with(reason) {
            self.close_channel(channel);
        }
    }

    fn bond(&mut self, channel: Channel) -> Option<&mut Bond> {
        self.secure.as_mut()?.channels.get_mut(channel)
    }

    fn principal(&self, channel: Channel) -> Option<Principal> {
        self.secure.as_ref()?.channels.principal(channel).cloned()
    }

    /// What the device called itself in its handshake.
    pub(crate) fn remote_id(&mut self, channel: Channel) -> Option<Arc<str>> {
        self.bond(channel).map(|bond| Arc::clone(&bond.remote_id))
    }

    /// Is the channel still there?
    pub(crate) fn is_open(&mut self, channel: Channel) -> bool {
        self.bond(channel).is_some()
    }

    pub(crate) fn close_channel(&mut self, channel: Channel) {
        if let Some(secure) = &mut self.secure {
            secure.channels.close(&self.socket, channel);
        }
    }

    /// From now on this session is the channel's.
    pub(crate) fn join(&mut self, arrival: &Arrival<'_>, peer: &PeerHandle) {
        let (Some(channel), Some(secure)) = (arrival.via.channel, &mut self.secure) else { return };
        let Some(bond) = secure.channels.get_mut(channel) else { return };
        bond.peer = Some(peer.clone());
        bond.has_begun = true;
        bond.shown = arrival.mark.unwrap_or(0);
        if !arrival.is_proven && !bond.is_vouched_for {
            let is_vouched_for = secure.channels.vouch(&self.socket, channel, (peer.tenant(), peer.device()));
            self.bond(channel).into_iter().for_each(|bond| bond.is_vouched_for = is_vouched_for);
        }
    }

    /// The session is not the channel's any more. False if it was not.
    fn part(&mut self, channel: Channel, peer: &PeerHandle) -> bool {
        let bond =
            self.bond(channel).filter(|bond| bond.peer.as_ref().is_some_and(|its| its.id() == peer.id()));
        bond.and_then(|bond| bond.peer.take()).is_some()
    }

    /// The session that the last line on the channel was of, if this one shows the same.
    pub(crate) fn known_on(&mut self, channel: Channel, arrival: &Arrival<'_>) -> Option<PeerHandle> {
        let mark = arrival.mark?;
        let server = Arc::clone(&self.server);
        let tenant = arrival.line.tenant.as_ref().unwrap_or(&server.tenant);
        let bond = self.bond(channel)?;
        let peer = bond.peer.as_ref().filter(|_| Marker::is_same(bond.shown, mark))?;
        (*peer.device() == arrival.line.device && peer.tenant() == tenant).then(|| peer.clone())
    }

    /// Was the session last heard on this channel of this socket?
    pub(crate) fn is_on(&self, peer: &PeerHandle, channel: Channel) -> bool {
        let memo = peer.memo(|memo| Memo::from(*memo));
        let is_here = self.secure.as_ref().is_some_and(|secure| secure.number == memo.local);
        is_here && peer.transport() == Transport::Dtls && memo.mark == channel.number()
    }

    /// The way to the device of a session. `None`: it is on a channel of another socket.
    pub(crate) fn way_to(&self, peer: &PeerHandle) -> Option<Via> {
        let memo = peer.memo(|memo| Memo::from(*memo));
        let remote = peer.remote_address();
        if peer.transport() == Transport::Udp {
            return Some(Path { remote, local: self.server.locals.address(memo.local) }.into());
        }
        let channel = Channel::from_number(memo.mark).filter(|channel| self.is_on(peer, *channel))?;
        Some(Via { path: Path { remote, local: None }, channel: Some(channel) })
    }

    /// Where the device of an arrival is heard, as a memo says it: mark and local. No mark: the known one stays.
    pub(crate) fn place(&self, arrival: &Arrival<'_>) -> (Option<u64>, u16) {
        match (arrival.via.channel, &self.secure) {
            (Some(channel), Some(secure)) => (Some(channel.number()), secure.number),
            _ => (arrival.mark, self.server.locals.number(arrival.via.path.local)),
        }
    }
}

/// Is the session that of one channel, which has proven whose it is?
pub(crate) fn is_bound(peer: &PeerHandle) -> bool {
    peer.transport() == Transport::Dtls && peer.memo(|memo| Memo::from(*memo).is_bound)
}
