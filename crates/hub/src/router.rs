//! Commands: checked, routed to the device's session or to what waits for it, and settled exactly once.
//!
//! Owns: the one outcome of every command, its event and its reply. Does not own: how a command is written to a device
//! (the listeners) or the offline queue (whoever implements [`Offline`]).
//!
//! A command under way stands in its session's lane; taking it out of there is the one act that entitles to settle it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use landfall_event::{
    CommandId, CommandName, DeviceId, Downstream, Event, EventId, Format, Memo, Occasion, Outcome, Reason,
    SessionRef, Stream, TenantId, UnixMs, encode,
};
use landfall_session::Slot;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::bus::Listener;
use crate::command::CheckedCommand;
use crate::quiet::{Quiet, Waits};
use crate::session::{Flag, Flight, Lane, Session};
use crate::{Bus, Command, CommandRequest, Hub, LeftCommand, Receipt, StoreError, Wait};

/// Who hears by which token of a stored answer, and with which memo it is kept; and the answer's share of the publish window.
pub(crate) type Told = (Option<(Arc<dyn Listener>, u64, Option<Memo>)>, Option<OwnedSemaphorePermit>);

/// Takes commands for devices that are away but have a persistent session.
pub trait Offline: Send + Sync + std::fmt::Debug {
    /// Keeps the command for the device's return and settles it one day ([`Hub::settle_offline`]), or says why not.
    fn offer(&self, command: &Arc<Command>) -> Result<(), NotKept>;

    /// The connection of a device that has a persistent session is gone without a word; `left` has no outcome yet. Keeps it
    /// for the device's return, and settles it one day ([`Hub::settle_left`]).
    fn outlived(&self, left: Vec<LeftCommand>);
}

/// What became of a command that waited for its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is under way: send it.
    UnderWay,
    /// One of the same id is under way.
    Duplicate,
    /// The session has ended: let the command wait on.
    Ended,
}

/// Why a command was not kept for an absent device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// Nothing of the device waits here.
    Absent,
    /// Its queue is full.
    Full,
    /// Its persistent session has no subscription for it.
    NotSubscribed,
    /// One of the same id waits for it already.
    Duplicate,
}

/// Commands under way, by when they expire.
#[derive(Debug, Default)]
pub(crate) struct Router {
    expiries: Mutex<Expiries>,
    /// Outcomes of commands that belong to no session, on their way to the store.
    alone: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Expiries {
    by_time: BTreeMap<(UnixMs, u64), (Weak<Session>, CommandId)>,
    made: u64,
}

/// What a command came to, for its event.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) response: Option<Bytes>,
    pub(crate) status: Option<Arc<str>>,
}

impl Verdict {
    pub(crate) fn plain(outcome: Outcome) -> Self {
        Self { outcome, response: None, status: None }
    }

    pub(crate) fn because(outcome: Outcome, status: &str) -> Self {
        Self { outcome, response: None, status: Some(status.into()) }
    }
}

/// Tells the requester, and the connection whose answer it was, once the outcome's event is stored.
#[derive(Debug)]
struct Outcomes {
    _waiting: Option<Waiting>,
    bus: Arc<dyn Bus>,
    reply: Option<(Arc<str>, Bytes)>,
    answerer: Option<Arc<dyn Listener>>,
}

/// Counts for as long as it lives.
#[derive(Debug)]
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn count(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener for Outcomes {
    fn settled(&self, token: u64, result: Result<(), StoreError>) {
        if let (Ok(()), Some((to, body))) = (&result, &self.reply) {
            self.bus.reply(to, body.clone());
        }
        if let Some(answerer) = &self.answerer {
            answerer.settled(token, result);
        }
    }
}

impl Hub {
    /// Takes a command. Its outcome is published, and told to its requester, exactly once.
    pub fn command(self: &Arc<Self>, request: CommandRequest) {
        let CheckedCommand { command, fault } = request.check(self.clock.unix(), self.config.max_command_ttl);
        if let Some(fault) = fault {
            return self.settle_alone(&command, Verdict::because(Outcome::Rejected, fault));
        }
        if self.is_draining() {
            return self.settle_alone(&command, Verdict::because(Outcome::NotConnected, "draining"));
        }
        if self.metrics.commands_under_way.get()
            >= i64::try_from(self.config.max_commands).unwrap_or(i64::MAX)
        {
            return self.settle_alone(&command, Verdict::because(Outcome::Busy, "gateway"));
        }
        let command = Arc::new(command);
        // Twice: a session that ends at this moment may have a successor, or a device that just fell silent.
        for _ in 0..2 {
            let Some((session, slot)) = self.find(&command.tenant, &command.device) else { break };
            if self.send_to(&session, slot, &command) {
                return;
            }
        }
        self.offer_offline(&command);
    }

    /// False when the session has ended.
    fn send_to(self: &Arc<Self>, session: &Arc<Session>, slot: Slot, command: &Arc<Command>) -> bool {
        let mut lane = session.lane.lock();
        if lane.ended.is_some() {
            return false;
        }
        if lane.is_under_way(&command.id) {
            drop(lane);
            self.settle_alone(command, Verdict::because(Outcome::Rejected, "duplicate-id"));
            return true;
        }
        self.take_off(session, &mut lane, command);
        let limit = self.config.commands_per_session;
        let taken = match &session.mailbox {
            Some(mailbox) => mailbox.command(Arc::clone(command), limit),
            None if lane.unsent() >= limit => false,
            None => {
                lane.let_wait(Arc::clone(command), false);
                self.hint(session, slot, &mut lane);
                true
            }
        };
        if !taken && let Some(flight) = lane.land(&command.id) {
            self.settle_in(
                session,
                &mut lane,
                &flight,
                Verdict::because(Outcome::Busy, "device"),
                (None, None),
            );
        }
        true
    }

    fn offer_offline(&self, command: &Arc<Command>) {
        let offered = self.offline().map_or(Err(NotKept::Absent), |offline| offline.offer(command));
        let kept =
            offered.or_else(|why| if why == NotKept::Absent { self.keep_quiet(command) } else { Err(why) });
        let verdict = match kept {
            Ok(()) => return,
            Err(NotKept::Duplicate) => Verdict::because(Outcome::Rejected, "duplicate-id"),
            Err(NotKept::Absent) => Verdict::plain(Outcome::NotConnected),
            Err(NotKept::Full) => Verdict::because(Outcome::Busy, "queue"),
            Err(NotKept::NotSubscribed) => Verdict::because(Outcome::Rejected, "not-subscribed"),
        };
        self.settle_alone(command, verdict);
    }

    /// Puts a command under way that waited for the session's device, without a place in the mailbox.
    pub(crate) fn adopt(&self, session: &Arc<Session>, command: &Arc<Command>, attempts: u32) -> Adopted {
        let mut lane = session.lane.lock();
        if lane.ended.is_some() {
            return Adopted::Ended;
        }
        if lane.is_under_way(&command.id) {
            return Adopted::Duplicate;
        }
        self.take_off(session, &mut lane, command);
        if let Some(flight) = lane.flight(&command.id) {
            flight.attempts = attempts;
        }
        Adopted::UnderWay
    }

    /// A command of a device whose silence ended its session waits for its next word.
    fn keep_quiet(&self, command: &Arc<Command>) -> Result<(), NotKept> {
        self.quiet(|quiet| quiet.keep(Waits::unsent(Arc::clone(command))))?;
        self.metrics.commands_under_way.inc();
        Ok(())
    }

    fn quiet<R>(&self, act: impl FnOnce(&mut Quiet) -> R) -> R {
        let mut quiet = self.quiet.lock();
        let result = act(&mut quiet);
        self.metrics.quiet_commands.set(i64::try_from(quiet.waiting()).unwrap_or(i64::MAX));
        self.metrics.quiet_devices.set(i64::try_from(quiet.devices()).unwrap_or(i64::MAX));
        result
    }

    /// Silence has ended the session; its commands wait for the device's next word.
    pub(crate) fn fell_silent(&self, session: &Arc<Session>, waiting: Vec<Waits>) {
        self.quiet(|quiet| quiet.note(session.tenant(), session.device()));
        for waits in waiting {
            if self.quiet(|quiet| quiet.keep(waits.clone())).is_ok() {
                self.metrics.commands_under_way.inc();
            } else if waits.attempts == 0 {
                self.settle_alone(&waits.command, Verdict::because(Outcome::Busy, "queue"));
            } else {
                let verdict = Verdict::because(Outcome::Failed, Reason::IdleTimeout.as_str());
                self.settle_apart(&waits.command, waits.attempts, verdict, (None, None));
            }
        }
    }

    /// A device begins a session, by its own word: what waited for it is under way again.
    pub(crate) fn speaks_again(&self, session: &Arc<Session>, device: &(TenantId, DeviceId)) {
        let waited = self.quiet(|quiet| quiet.take(device));
        if waited.is_empty() {
            return;
        }
        let mut lane = session.lane.lock();
        for Waits { command, attempts, is_out } in waited {
            self.metrics.commands_under_way.dec();
            self.take_off(session, &mut lane, &command);
            if let Some(flight) = lane.flight(&command.id) {
                flight.attempts = attempts;
            }
            if !is_out {
                lane.let_wait(command, false);
            }
        }
    }

    /// The commands that waited for silent devices until the gateway drained.
    pub(crate) fn end_quiet(&self) {
        let waited = self.quiet(Quiet::flush);
        for Waits { command, attempts, .. } in waited {
            self.metrics.commands_under_way.dec();
            let verdict = match attempts {
                0 => Verdict::because(Outcome::NotConnected, "draining"),
                // The device may have got it.
                _ => Verdict::because(Outcome::Failed, Reason::GatewayDraining.as_str()),
            };
            self.settle_apart(&command, attempts, verdict, (None, None));
        }
    }

    fn expire_quiet(&self, now: UnixMs) {
        let due = self.quiet(|quiet| quiet.due(now));
        for Waits { command, attempts, .. } in due {
            self.metrics.commands_under_way.dec();
            self.settle_apart(&command, attempts, Verdict::plain(Outcome::Expired), (None, None));
        }
    }

    /// A command that stops being under way without an outcome.
    pub(crate) fn forget_flight(&self, flight: &Flight) {
        self.metrics.commands_under_way.dec();
        self.router.expiries.lock().by_time.remove(&(flight.command.expires_at, flight.expiry));
    }

    fn take_off(&self, session: &Arc<Session>, lane: &mut Lane, command: &Arc<Command>) {
        let expiry = {
            let mut expiries = self.router.expiries.lock();
            expiries.made += 1;
            let number = expiries.made;
            expiries
                .by_time
                .insert((command.expires_at, number), (Arc::downgrade(session), command.id.clone()));
            number
        };
        lane.take_off(Arc::clone(command), expiry);
        self.metrics.commands_under_way.inc();
    }

    /// Is the command still without an outcome? One that has expired meanwhile is not to be sent.
    pub(crate) fn is_under_way(&self, session: &Arc<Session>, id: &CommandId) -> bool {
        session.lane.lock().is_under_way(id)
    }

    pub(crate) fn expire_commands(&self) {
        let now = self.clock.unix();
        self.expire_quiet(now);
        let due = {
            let mut expiries = self.router.expiries.lock();
            let later = expiries.by_time.split_off(&(now.saturating_add(1), 0));
            std::mem::replace(&mut expiries.by_time, later)
        };
        for ((_, number), (session, id)) in due {
            let Some(session) = session.upgrade() else { continue };
            let mut lane = session.lane.lock();
            // It may be settled at this moment, and a later command may have taken its id.
            if lane.flight(&id).is_some_and(|flight| flight.expiry == number)
                && let Some(flight) = lane.land(&id)
            {
                if let Some(mailbox) = &session.mailbox {
                    mailbox.withdraw(&flight.command);
                }
                self.settle_in(&session, &mut lane, &flight, Verdict::plain(Outcome::Expired), (None, None));
            }
        }
    }

    /// A command was written to its device's transport, and whether that delivers it is known later.
    pub(crate) fn attempted(&self, session: &Arc<Session>, id: &CommandId) {
        let mut lane = session.lane.lock();
        self.attempt(&mut lane, id);
        if let Some(flight) = lane.flight(id) {
            flight.is_unsure = true;
        }
    }

    fn attempt(&self, lane: &mut Lane, id: &CommandId) -> Option<Wait> {
        let flight = lane.flight(id)?;
        flight.attempts += 1;
        let bytes = flight.command.payload.len();
        self.metrics.messages_out.inc();
        self.metrics.payload_bytes_out.inc_by(u64::try_from(bytes).unwrap_or(0));
        Some(flight.command.wait)
    }

    /// A command that was written to its device's transport.
    pub(crate) fn sent(&self, session: &Arc<Session>, id: &CommandId, can_acknowledge: bool) {
        let mut lane = session.lane.lock();
        let Some(wait) = self.attempt(&mut lane, id) else { return };
        let last_word = wait == Wait::Delivered || (wait == Wait::Acknowledged && !can_acknowledge);
        if last_word && let Some(flight) = lane.land(id) {
            self.settle_in(session, &mut lane, &flight, Verdict::plain(Outcome::Delivered), (None, None));
        }
    }

    /// Settles a command of the session, if it still is under way.
    pub(crate) fn settle(&self, session: &Arc<Session>, id: &CommandId, verdict: Verdict) {
        let mut lane = session.lane.lock();
        if let Some(flight) = lane.land(id) {
            self.settle_in(session, &mut lane, &flight, verdict, (None, None));
        }
    }

    /// The device's protocol acknowledged it, or refused it.
    pub(crate) fn acknowledged(&self, session: &Arc<Session>, id: &CommandId) {
        let mut lane = session.lane.lock();
        let Some(flight) = lane.flight(id) else { return };
        flight.is_unsure = false;
        let outcome = match flight.command.wait {
            Wait::Acknowledged => Outcome::Acknowledged,
            // Where the transport says nothing earlier.
            Wait::Delivered => Outcome::Delivered,
            Wait::Answered => return,
        };
        if let Some(flight) = lane.land(id) {
            self.settle_in(session, &mut lane, &flight, Verdict::plain(outcome), (None, None));
        }
    }

    /// The device answered: settles the command, and tells `token` when that is stored. Gives the permit back when no
    /// command of that id is under way.
    pub(crate) fn answered(
        &self,
        session: &Arc<Session>,
        id: &CommandId,
        (status, response): (Arc<str>, Bytes),
        told: Told,
    ) -> Result<(), Option<OwnedSemaphorePermit>> {
        let mut lane = session.lane.lock();
        let Some(flight) = lane.land(id) else { return Err(told.1) };
        let verdict = Verdict {
            outcome: Outcome::Answered,
            response: Some(response),
            status: Some(status).filter(|s| !s.is_empty()),
        };
        self.settle_in(session, &mut lane, &flight, verdict, told);
        Ok(())
    }

    /// Settles a command that was taken out of its session's lane.
    pub(crate) fn settle_in(
        &self,
        session: &Arc<Session>,
        lane: &mut Lane,
        flight: &Flight,
        verdict: Verdict,
        told: Told,
    ) {
        self.forget_flight(flight);
        if lane.is(Flag::Outlived)
            && let Some(mailbox) = &session.mailbox
        {
            mailbox.settled_one();
        }
        // Nothing of the session follows its end.
        if lane.ended.is_some() {
            return self.settle_apart(&flight.command, flight.attempts, verdict, told);
        }
        let seq = lane.next_message();
        let id = EventId::Session(session.info.session(), Stream::Messages, seq);
        let place = Some((Arc::clone(session).into(), seq));
        let (event, at) = self.outcome_event(&flight.command, flight.attempts, place, verdict);
        self.publish_outcome((id, at), &flight.command, &event, told);
    }

    fn settle_alone(&self, command: &Command, verdict: Verdict) {
        self.settle_apart(command, 0, verdict, (None, None));
    }

    /// Settles a command that belongs to no session, or no longer to one. When too many such outcomes wait for the store
    /// already, the requester alone is told: memory is bounded, and it may ask again.
    pub(crate) fn settle_apart(&self, command: &Command, attempts: u32, verdict: Verdict, told: Told) {
        let (event, at) = self.outcome_event(command, attempts, None, verdict);
        let id = self.gateway_event_id();
        let is_crowded = self.router.alone.load(Ordering::Relaxed) >= self.config.max_commands;
        // A device whose answer it is waits for the store.
        if is_crowded && told.0.is_none() {
            if let Some(to) = &command.reply {
                let origin = self.origin();
                let occasion = Occasion { origin: &origin, id, at };
                self.bus.reply(to, encode(Format::Json, &occasion, &event).body);
            }
            return;
        }
        self.publish_outcome((id, at), command, &event, told);
    }

    /// Settles a command that an [`Offline`] kept.
    pub fn settle_offline(&self, command: &Command, outcome: Outcome, status: Option<&str>) {
        let verdict = Verdict { outcome, response: None, status: status.map(Into::into) };
        self.settle_alone(command, verdict);
    }

    fn outcome_event(
        &self,
        command: &Command,
        attempts: u32,
        session: Option<(SessionRef, u64)>,
        verdict: Verdict,
    ) -> (Event, UnixMs) {
        self.metrics.settled(verdict.outcome);
        let now = self.clock.unix();
        let event = Event::Downstream(Downstream {
            tenant: command.tenant.clone(),
            device: command.device.clone(),
            session,
            command: command.id.clone(),
            name: command.name.clone(),
            outcome: verdict.outcome,
            latency_ms: now.saturating_sub(command.received_at),
            attempts,
            response: verdict.response,
            status: verdict.status,
        });
        (event, now)
    }

    /// The requester's reply is the event's JSON, and leaves when the event is stored.
    fn publish_outcome(
        &self,
        (id, at): (EventId, UnixMs),
        command: &Command,
        event: &Event,
        (answerer, permit): Told,
    ) {
        let origin = self.origin();
        let occasion = Occasion { origin: &origin, id, at };
        let reply = command.reply.as_ref();
        let reply = reply.map(|to| (Arc::clone(to), encode(Format::Json, &occasion, event).body));
        let (answerer, token, memo) =
            answerer.map_or((None, 0, None), |(answerer, token, memo)| (Some(answerer), token, memo));
        let waiting = matches!(id, EventId::Gateway(..)).then(|| Waiting::count(&self.router.alone));
        let outcomes = Outcomes { _waiting: waiting, bus: Arc::clone(&self.bus), reply, answerer };
        let receipt = Receipt::token(Arc::new(outcomes), token, permit).with_memo(memo);
        self.submit(id, at, event, receipt);
    }
}

/// The id of a command that came without one.
pub(crate) fn made_id() -> CommandId {
    let random: u128 = rand::random();
    #[expect(clippy::expect_used, reason = "hexadecimal digits are a valid id")]
    format!("{random:032x}").parse().expect("hexadecimal digits are a valid id")
}

/// The name of a command that came without one.
pub(crate) fn default_name() -> CommandName {
    #[expect(clippy::expect_used, reason = "a constant")]
    "command".parse().expect("a valid name")
}
