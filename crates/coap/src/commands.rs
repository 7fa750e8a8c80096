//! Commands to devices: as notifications to who observes `/command`, and as the answers of requests that wait for one.
//!
//! Owns: who waits for commands, when one is sent, what became of it on the way. Does not own: the queue and the outcomes
//! (`landfall-hub`), retransmission (`landfall-coap-core`).
//!
//! A session has at most one notification under way: the next command leaves when it is acknowledged (RFC 7252, section
//! 4.7). While a device sleeps nothing is sent to it; its next word lets everything go out that waits.

use std::collections::VecDeque;
use std::sync::Arc;

use landfall_channel::Via;
use landfall_coap_core::{
    Answered, Code, Ending, NoteFailure, NoteId, ObservationId, Observe, Response, content,
};
use landfall_event::Outcome;
use landfall_hub::{Command, PeerHandle, may_receive_command, unix_now};

use crate::Tick;
use crate::admission::Memo;
use crate::asked::Asked;
use crate::door::Door;
use crate::resources::After;

/// Where a session's commands can go, on this socket.
#[derive(Debug)]
pub(crate) struct Station {
    peer: PeerHandle,
    observer: Option<Observer>,
    /// Requests that wait, oldest first: their places among all that wait.
    waiting: VecDeque<(Tick, u64)>,
}

/// Who observes for a session.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) id: ObservationId,
    /// Of two observers of one session, on two sockets, the one with the higher number came later.
    serial: u64,
    via: Via,
    /// The notification that is under way.
    pub(crate) note: Option<NoteId>,
    /// The last one that was sent to where the device was not heard last.
    pub(crate) doubted: Option<NoteId>,
}

/// A command under way as a notification, or as an answer of several blocks.
#[derive(Debug)]
pub(crate) struct Flight {
    peer: PeerHandle,
    command: Arc<Command>,
    /// Of a notification.
    observation: Option<ObservationId>,
}

impl Door {
    /// `GET /command`.
    pub(crate) fn command(&mut self, asked: &Asked, peer: &PeerHandle) {
        let mut after = self.after(asked, peer);
        match asked.request.observe {
            Some(Observe::Register) => {
                self.observe(&after);
                self.send_commands(peer);
            }
            // A command in the last answer would reach somebody who has said that nothing more is wanted.
            Some(Observe::Deregister) => {
                after.until = None;
                self.finish_empty(&after);
            }
            None if asked.request.wants_success() => {
                // Without `ttd` it is told what there is now.
                after.until.get_or_insert(0);
                self.finish(after);
            }
            None => self.finish_empty(&after),
        }
    }

    fn observe(&mut self, after: &After) {
        let now = self.now();
        self.make_room_to_observe();
        let observed = self.endpoint.observe(now, after.exchange, Response::new(Code::CONTENT));
        if let Some(id) = observed {
            // Two sockets that take one at the same moment have to know of each other.
            self.station(&after.peer);
            let serial = self.server.strays.take_observer(&after.peer, self.number);
            self.enter_observer(after, id, serial);
            self.give_up_if_over(&after.peer);
        }
        self.let_sleep(&after.peer, after.sleep_s);
    }

    fn enter_observer(&mut self, after: &After, id: ObservationId, serial: u64) {
        let session = after.peer.id();
        // One that was refreshed keeps its id, and what is under way for it.
        if self.observed.get(&id) == Some(&session) {
            if let Some(observer) = self.observer(&after.peer, id) {
                observer.serial = serial;
            }
            return;
        }
        // A session that has just ended had it.
        let former = self.observed.insert(id, session).and_then(|former| self.stations.get_mut(&former));
        if let Some(station) = former {
            station.observer = None;
        }
        self.on_retained_ended(id, &after.via);
        let observer = Observer { id, serial, via: after.via, note: None, doubted: None };
        if let Some(before) = self.station(&after.peer).observer.replace(observer) {
            self.observed.remove(&before.id);
            self.endpoint.unobserve(before.id);
        }
    }

    /// Gives the session an observer of before; false when it observes anew already.
    pub(crate) fn take_in(&mut self, peer: &PeerHandle, observer: Observer) -> bool {
        let station = self.station(peer);
        let is_free = station.observer.is_none();
        if is_free {
            station.observer = Some(observer);
        }
        is_free
    }

    /// What was kept for a session that has just ended might never be told of its end: another socket tells only those that
    /// kept something before it looked.
    pub(crate) fn give_up_if_over(&mut self, peer: &PeerHandle) {
        if peer.is_over() {
            self.on_ended(peer);
        }
    }

    fn station(&mut self, peer: &PeerHandle) -> &mut Station {
        let session = peer.id();
        self.stations.entry(session).or_insert_with(|| {
            self.server.strays.keep(session, self.number);
            Station { peer: peer.clone(), observer: None, waiting: VecDeque::new() }
        })
    }

    /// Gives the session's place up if nothing of it is left.
    pub(crate) fn tidy(&mut self, peer: &PeerHandle) {
        let session = peer.id();
        let is_empty = |station: &Station| station.observer.is_none() && station.waiting.is_empty();
        if self.stations.get(&session).is_some_and(is_empty) {
            self.stations.remove(&session);
            self.server.strays.let_go(session, self.number);
        }
    }

    /// Answers a request that was taken: with a command, if it waits for one.
    pub(crate) fn finish(&mut self, after: After) {
        let Some(until) = after.until.filter(|_| self.now() < after.answerable) else {
            return self.finish_empty(&after);
        };
        if let Some(command) = self.take_command(&after.peer, &after.via) {
            return self.finish_with(&after, command);
        }
        let full = self.waits.len() >= self.server.config.max_waiting;
        if full || self.is_closing || until <= self.now() {
            return self.finish_empty(&after);
        }
        self.waits_made += 1;
        let place = (until, self.waits_made);
        let peer = after.peer.clone();
        self.station(&peer).waiting.push_back(place);
        self.waits.insert(place, after);
        self.give_up_if_over(&peer);
    }

    fn finish_empty(&mut self, after: &After) {
        let response = Response::new(after.code);
        let response = match &after.registration {
            Some(name) => response.location("rd").location(name.clone()),
            None => response,
        };
        self.respond(after.exchange, response);
        self.let_sleep(&after.peer, after.sleep_s);
    }

    /// The answer is lost with its datagram, or comes again with it: the device's protocol acknowledges no answer to us. But of
    /// one in several blocks it asks for the others.
    fn finish_with(&mut self, after: &After, command: Arc<Command>) {
        let now = self.now();
        match self.endpoint.respond_in_full(now, after.exchange, response(after.code, &command)) {
            Answered::Whole => after.peer.sent(&command.id, command.payload.len(), false),
            Answered::Begun(note) => {
                after.peer.attempted(&command.id, command.payload.len());
                self.let_fetch(note, &command);
                self.notes.insert(note, Flight { peer: after.peer.clone(), command, observation: None });
            }
            Answered::No => after.peer.put_back(command),
        }
        self.let_sleep(&after.peer, after.sleep_s);
    }

    /// The next command that the device may have, to be sent by a way. Towards an address that is not proven it might
    /// not go out, and would be lost; so that is asked for proof first.
    fn take_command(&mut self, peer: &PeerHandle, via: &Via) -> Option<Arc<Command>> {
        if !self.endpoint.is_proven(via) {
            let now = self.now();
            self.endpoint.probe(now, via);
            return None;
        }
        let (now, largest) = (unix_now(), self.endpoint.limits().max_body);
        loop {
            let command = peer.next_command()?;
            if !may_receive_command(peer.acl(), &command) {
                peer.settled(&command.id, Outcome::Rejected, "not-authorized");
            } else if command.payload.len() > largest {
                peer.settled(&command.id, Outcome::Rejected, "too-large");
            } else if command.expires_at > now {
                return Some(command);
            }
            // The outcome of one that has expired is told at the next tick, and then it must not have been sent.
        }
    }

    /// Sends what can be sent now of what waits for the device, through whatever socket can.
    pub(crate) fn send_commands(&mut self, peer: &PeerHandle) {
        self.send_commands_here(peer);
        self.server.strays.pass_commands(peer, self.number);
    }

    /// The same through this socket.
    pub(crate) fn send_commands_here(&mut self, peer: &PeerHandle) {
        if peer.is_asleep() || !self.stations.contains_key(&peer.id()) {
            return;
        }
        while self.send_command(peer) {}
        self.tidy(peer);
    }

    /// False when there is nobody to send to now, or nothing to send.
    fn send_command(&mut self, peer: &PeerHandle) -> bool {
        let Some(station) = self.stations.get(&peer.id()) else { return false };
        let waiting = station.waiting.front().and_then(|place| Some((*place, self.waits.get(place)?.via)));
        let idle = station.observer.as_ref().filter(|observer| observer.note.is_none());
        let idle = idle.map(|observer| (observer.id, observer.via));
        let via = waiting.map(|(_, via)| via).or(idle.map(|(_, via)| via));
        let Some(command) = via.and_then(|via| self.take_command(peer, &via)) else { return false };
        if let Some((place, _)) = waiting {
            if let Some(station) = self.stations.get_mut(&peer.id()) {
                station.waiting.pop_front();
            }
            if let Some(after) = self.waits.remove(&place) {
                self.finish_with(&after, command);
            }
            return true;
        }
        idle.is_some_and(|(observation, _)| self.notify(peer, observation, command))
    }

    fn notify(&mut self, peer: &PeerHandle, observation: ObservationId, command: Arc<Command>) -> bool {
        let now = self.now();
        let Some(note) = self.endpoint.notify(now, observation, response(Code::CONTENT, &command)) else {
            // No room for it, or nobody observes any more; the machine tells of the latter.
            peer.put_back(command);
            return false;
        };
        self.server.metrics.notifications.inc();
        // Its acknowledgement says that it is delivered; until then it may have reached nobody.
        peer.attempted(&command.id, command.payload.len());
        if let Some(observer) = self.observer(peer, observation) {
            observer.note = Some(note);
        }
        self.doubt(peer);
        self.notes.insert(note, Flight { peer: peer.clone(), command, observation: Some(observation) });
        true
    }

    fn observer(&mut self, peer: &PeerHandle, observation: ObservationId) -> Option<&mut Observer> {
        let observer = self.stations.get_mut(&peer.id())?.observer.as_mut()?;
        (observer.id == observation).then_some(observer)
    }

    /// Where the device was not heard last, a notification may reach nobody. It gets the time of one retransmission.
    pub(crate) fn doubt(&mut self, peer: &PeerHandle) {
        let limits = self.endpoint.limits();
        let limit = self.now() + limits.ack_timeout_ms * (100 + limits.ack_random_percent) / 100;
        let observer = self.stations.get_mut(&peer.id()).and_then(|station| station.observer.as_mut());
        if let Some(observer) = observer
            && observer.via.path.remote != peer.remote_address()
            && let Some(note) = observer.note.filter(|note| observer.doubted != Some(*note))
        {
            observer.doubted = Some(note);
            self.doubtful.push_back((limit, note));
        }
    }

    /// Gives up observers that have acknowledged nothing since their device was heard from elsewhere.
    pub(crate) fn end_doubtful(&mut self, now: Tick) {
        while let Some((_, note)) = self.doubtful.pop_front_if(|(limit, _)| *limit <= now) {
            let Some(flight) = self.notes.get(&note) else { continue };
            let (peer, Some(observation)) = (flight.peer.clone(), flight.observation) else { continue };
            let lost =
                self.observer(&peer, observation).is_some_and(|o| o.via.path.remote != peer.remote_address());
            if lost {
                self.end_observer(&peer);
            }
        }
    }

    /// The device observes through another socket.
    pub(crate) fn yield_observer(&mut self, peer: &PeerHandle, serial: u64) {
        let observer = self.stations.get(&peer.id()).and_then(|station| station.observer.as_ref());
        if observer.is_some_and(|observer| observer.serial < serial) {
            self.end_observer(peer);
        }
    }

    /// The session's observer here is one no more. A command that was on its way to it waits again.
    fn end_observer(&mut self, peer: &PeerHandle) {
        let observer = self.stations.get_mut(&peer.id()).and_then(|station| station.observer.take());
        if let Some(observer) = observer {
            self.observed.remove(&observer.id);
            self.endpoint.unobserve(observer.id);
            self.tidy(peer);
        }
    }

    /// The device has acknowledged a notification.
    pub(crate) fn on_delivered(&mut self, note: NoteId) {
        let Some(flight) = self.notes.remove(&note) else { return };
        flight.peer.touched();
        flight.peer.acknowledged(&flight.command.id);
        self.free(&flight, note);
        self.send_commands(&flight.peer);
    }

    /// The device has got the first block of a command and does not ask for the others. The next command goes out; this one
    /// waits for them to be fetched until it has expired, and is not sent again.
    pub(crate) fn on_unfetched(&mut self, note: NoteId) {
        let Some(flight) = self.notes.remove(&note) else { return };
        self.free(&flight, note);
        self.let_fetch(note, &flight.command);
        let peer = flight.peer.clone();
        self.notes.insert(note, flight);
        self.send_commands(&peer);
    }

    fn let_fetch(&mut self, note: NoteId, command: &Command) {
        let limit = self.now().saturating_add(command.expires_at.saturating_sub(unix_now()));
        self.unfetched.insert((limit, note));
    }

    /// Gives up commands that have expired before all of their blocks were fetched.
    pub(crate) fn end_unfetched(&mut self, now: Tick) {
        while self.unfetched.first().is_some_and(|(limit, _)| *limit <= now) {
            if let Some((_, note)) = self.unfetched.pop_first() {
                self.notes.remove(&note);
            }
        }
    }

    /// A notification will never be acknowledged.
    pub(crate) fn on_failed(&mut self, note: NoteId, why: NoteFailure) {
        let Some(flight) = self.notes.remove(&note) else { return };
        self.free(&flight, note);
        let peer = flight.peer;
        match why {
            NoteFailure::Reset => {
                peer.touched();
                peer.settled(&flight.command.id, Outcome::Failed, "reset");
            }
            // The device may yet be heard before the command's time is over.
            NoteFailure::Silent => peer.put_back(flight.command),
            // Perhaps there is another observer already.
            NoteFailure::Ended => {
                peer.put_back(flight.command);
                self.send_commands(&peer);
            }
        }
    }

    fn free(&mut self, flight: &Flight, note: NoteId) {
        if let Some(observation) = flight.observation
            && let Some(observer) = self.observer(&flight.peer, observation)
            && observer.note == Some(note)
        {
            observer.note = None;
        }
    }

    /// Ends nothing else: presence is decided by silence alone, or by the end of a secure channel.
    pub(crate) fn on_observation_ended(&mut self, observation: ObservationId, via: &Via, why: Ending) {
        let Some(session) = self.observed.remove(&observation) else {
            return self.on_retained_ended(observation, via);
        };
        tracing::debug!(remote = %via.path, ?why, "an observation has ended");
        let Some(station) = self.stations.get_mut(&session) else { return };
        if station.observer.as_ref().is_some_and(|observer| observer.id == observation) {
            station.observer = None;
        }
        let peer = station.peer.clone();
        self.tidy(&peer);
    }

    /// Answers whoever has waited long enough, and all of them when nothing more will come.
    pub(crate) fn end_waits(&mut self, now: Tick) {
        while let Some(entry) = self.waits.first_entry()
            && (entry.key().0 <= now || self.is_closing)
        {
            let place = *entry.key();
            let after = entry.remove();
            if let Some(station) = self.stations.get_mut(&after.peer.id()) {
                station.waiting.retain(|other| *other != place);
            }
            let peer = after.peer.clone();
            self.finish_empty(&after);
            self.tidy(&peer);
        }
    }

    /// A session is over: nobody waits for its commands any more.
    pub(crate) fn on_ended(&mut self, peer: &PeerHandle) {
        let session = peer.id();
        self.paths.forget(peer);
        if peer.memo(|memo| Memo::from(*memo).is_registered) {
            self.server.registrations.forget(session);
        }
        let Some(station) = self.stations.remove(&session) else { return };
        self.server.strays.let_go(session, self.number);
        for place in station.waiting {
            if let Some(after) = self.waits.remove(&place) {
                self.respond(after.exchange, Response::new(after.code));
            }
        }
        if let Some(observer) = station.observer {
            self.part_with(peer, observer);
        }
    }
}

/// A command as an answer or a notification: what it is called stands where its answer is to go.
fn response(code: Code, command: &Command) -> Response {
    let format = command.content_type.as_deref().and_then(content::number);
    let response = Response::new(code)
        .location("command")
        .location("res")
        .location(command.id.as_str().to_owned())
        .location_query(format!("name={}", command.name))
        .with_payload(command.payload.clone());
    match format {
        Some(format) => response.content_format(format),
        None => response,
    }
}
