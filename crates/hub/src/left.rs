//! Commands that outlive the session in which they were under way: those of an MQTT session that goes on without its
//! connection.
//!
//! Owns: that such a command counts as under way until somebody has settled it or put it under way again. Does not own: where
//! it waits meanwhile (whoever implements [`Offline`](crate::Offline)).

use std::sync::Arc;

use landfall_event::Outcome;
use prometheus_client::metrics::gauge::Gauge;

use crate::router::{Adopted, Verdict};
use crate::session::{Flag, Session};
use crate::{Command, Hub, SessionHandle};

/// A command that has no outcome yet, and no session.
#[derive(Debug)]
pub struct LeftCommand {
    /// The command.
    pub command: Arc<Command>,
    /// How often it was sent.
    pub attempts: u32,
    _counted: Counted,
}

/// Counts as under way for as long as it lives.
#[derive(Debug)]
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Hub {
    /// A command that an earlier session left, as somebody else has kept it.
    pub fn left_command(&self, command: Arc<Command>, attempts: u32) -> LeftCommand {
        self.metrics.commands_under_way.inc();
        let counted = Counted(self.metrics.commands_under_way.clone());
        LeftCommand { command, attempts, _counted: counted }
    }

    /// Settles a command that was left.
    pub fn settle_left(&self, left: &LeftCommand, outcome: Outcome, status: Option<&str>) {
        let verdict = Verdict { outcome, response: None, status: status.map(Into::into) };
        self.settle_apart(&left.command, left.attempts, verdict, (None, None));
    }

    /// Takes what is under way out of a session that has ended and whose commands outlive it, in the order in which it came.
    fn leave_behind(&self, session: &Session) -> Vec<LeftCommand> {
        let flights = {
            let mut lane = session.lane.lock();
            if lane.ended.is_none() {
                return Vec::new();
            }
            lane.land_all()
        };
        let left = flights.into_iter().map(|(flight, _)| {
            let left = self.left_command(Arc::clone(&flight.command), flight.attempts);
            self.forget_flight(&flight);
            left
        });
        left.collect()
    }

    /// What is left by a connection that is gone without a word.
    pub(crate) fn leave_to_offline(&self, session: &Session) {
        let left = self.leave_behind(session);
        match self.offline() {
            _ if left.is_empty() => {}
            Some(offline) => offline.outlived(left),
            None => left.iter().for_each(|left| self.settle_left(left, Outcome::Failed, None)),
        }
    }
}

impl SessionHandle {
    /// Says whether something of the device outlives the session, and so its commands do: they do not fail with its end, and
    /// whoever holds the handle takes them out ([`SessionHandle::leave_behind`]). With an end by
    /// [`CredentialsRevoked`](landfall_event::Reason::CredentialsRevoked) they fail all the same.
    pub fn outlive(&self, outlives: bool) {
        self.session().lane.lock().set(Flag::Outlived, outlives);
    }

    /// What is under way, in no order, with how often it was sent.
    pub fn under_way(&self) -> Vec<(Arc<Command>, u32)> {
        self.session().lane.lock().under_way()
    }

    /// After the session's end: the commands that outlive it, in the order in which they came. They are no longer under way.
    pub fn leave_behind(&self) -> Vec<LeftCommand> {
        self.hub().leave_behind(self.session())
    }

    /// Puts a command under way again that an earlier session left. It waits for no place in the mailbox.
    ///
    /// # Errors
    /// Gives it back, with why it is not under way.
    pub fn take_up(&self, left: LeftCommand) -> Result<(), (LeftCommand, Adopted)> {
        match self.hub().adopt(self.session(), &left.command, left.attempts) {
            Adopted::UnderWay => Ok(()),
            why => Err((left, why)),
        }
    }
}
