//! Commands that are in a device's hands, or on their way there, while its session has no connection.
//!
//! Owns: how such a command is told from one that was never sent, and its stored form. Does not own: the message that may be
//! sent again (the session's state), where flights wait (`sessions.rs`), the outcomes (`landfall-hub`).
//!
//! What goes on with the session depends on how far the command had come: one whose PUBLISH is in the state is sent again
//! by it and acknowledged; one that the device has may still be answered; one that was never written waits in the queue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{CommandId, DeviceId, TenantId};
use landfall_hub::{Command, Hub, LeftCommand, Wait};
use landfall_mqtt_core::DeliveryToken;
use serde::{Deserialize, Serialize};

use crate::record::{QueuedCommand, RecordError};

/// A command that the device has or may get, without an outcome yet.
#[derive(Debug)]
pub(crate) struct Flying {
    pub(crate) left: LeftCommand,
    /// The state's name for its message; `None` where the device can only answer it any more.
    pub(crate) token: Option<DeliveryToken>,
}

impl Flying {
    /// Its payload is in the state, where it is still needed.
    fn new(hub: &Hub, left: &LeftCommand, token: Option<DeliveryToken>) -> Self {
        let command = Command { payload: Bytes::new(), ..Command::clone(&left.command) };
        Self { left: hub.left_command(Arc::new(command), left.attempts), token }
    }
}

/// What a connection knows of its commands, beside what the hub does.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    /// The messages of the state that are commands.
    pub(crate) tokens: HashMap<CommandId, DeliveryToken>,
    /// Those that may be on the wire, at QoS 0: nobody knows, and they are not sent again.
    pub(crate) unsure: HashSet<CommandId>,
}

/// The commands of a session that has lost its connection.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub(crate) flying: Vec<Flying>,
    /// Never sent: they wait in the queue.
    pub(crate) unsent: Vec<LeftCommand>,
    /// Nothing more can come of them.
    pub(crate) lost: Vec<LeftCommand>,
}

impl Whereabouts {
    /// Those of a session whose connection left no word, from what was last kept of it.
    pub(crate) fn of_record(flights: &[FlightRecord]) -> Self {
        let tokens = flights.iter().filter_map(|flight| Some((flight.id()?, flight.token?)));
        Self { tokens: tokens.collect(), unsure: HashSet::new() }
    }

    pub(crate) fn sort(&self, hub: &Hub, left: Vec<LeftCommand>) -> Sorted {
        let mut sorted = Sorted::default();
        for left in left {
            let token = self.tokens.get(&left.command.id).copied();
            let was_sent = left.attempts > 0 || self.unsure.contains(&left.command.id);
            let may_answer = left.command.wait == Wait::Answered;
            match token {
                Some(_) => sorted.flying.push(Flying::new(hub, &left, token)),
                None if !was_sent => sorted.unsent.push(left),
                None if may_answer => sorted.flying.push(Flying::new(hub, &left, None)),
                None => sorted.lost.push(left),
            }
        }
        sorted
    }

    /// The stored form of what is under way and not just waiting for its turn.
    pub(crate) fn records(&self, under_way: Vec<(Arc<Command>, u32)>) -> Vec<FlightRecord> {
        let mut records: Vec<_> = under_way
            .into_iter()
            .filter_map(|(command, attempts)| {
                let token = self.tokens.get(&command.id).copied();
                let is_out = token.is_some() || attempts > 0 || self.unsure.contains(&command.id);
                is_out.then(|| FlightRecord::new(&command, attempts, token))
            })
            .collect();
        records.sort_by(|a, b| a.place().cmp(&b.place()));
        records
    }
}

/// A flight, as it is kept beside the session's state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FlightRecord {
    #[serde(flatten)]
    command: QueuedCommand,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<DeliveryToken>,
}

impl FlightRecord {
    /// It is kept before it is written: that counts as an attempt.
    fn new(command: &Command, attempts: u32, token: Option<DeliveryToken>) -> Self {
        Self { command: QueuedCommand::without_payload(command), attempts: attempts.max(1), token }
    }

    pub(crate) fn of(flying: &Flying) -> Self {
        Self::new(&flying.left.command, flying.left.attempts, flying.token)
    }

    fn id(&self) -> Option<CommandId> {
        self.command.id.parse().ok()
    }

    /// Records of the same flights are to be the same bytes.
    fn place(&self) -> (u64, &str) {
        (self.command.received_at, &self.command.id)
    }

    pub(crate) fn flying(self, hub: &Hub, tenant: TenantId, device: DeviceId) -> Result<Flying, RecordError> {
        let command = self.command.command(tenant, device)?;
        Ok(Flying { left: hub.left_command(Arc::new(command), self.attempts), token: self.token })
    }
}
