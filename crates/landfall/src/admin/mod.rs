//! The operator's interface: HTTP on `admin.listen`, and the same answers over NATS.
//!
//! Owns: what an operator is told and how much of it. Does not own: what is true ([`Overview`] asks whoever knows), sockets
//! (`landfall-net`), subjects (`landfall-event`).

mod http;
mod process;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use landfall_event::subject::AdminCall;
use landfall_event::{DeviceId, ReplicaId, TenantId};
use landfall_hub::SessionView;
use serde::{Deserialize, Serialize};

pub use http::AdminServer;
pub use process::register_process;

/// The most sessions in one answer over HTTP.
pub const MOST_SESSIONS: usize = 10_000;
/// The sessions in one answer when nobody asks for more or less.
pub const DEFAULT_SESSIONS: usize = 1_000;
/// The most bytes of sessions in one answer over NATS, whose messages end at 1 MiB by default.
const MOST_REPLY: usize = 900_000;

/// What keeps a gateway from being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotReady {
    /// Not everything that is needed has been started.
    Starting,
    /// There is no connection to NATS, or its JetStream does not answer.
    NatsNotConnected,
    /// Not every address of `mqtt.listen` is bound.
    ListenerNotBound,
    /// The gateway is on its way out.
    Draining,
}

/// Which sessions an operator wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Of this tenant only.
    pub tenant: Option<String>,
    /// Of this device only.
    pub device: Option<String>,
    /// At most so many.
    pub limit: usize,
}

impl SessionQuery {
    /// Is the session one of those that are wanted?
    pub fn wants(&self, session: &SessionView) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == session.tenant)
            && self.device.as_ref().is_none_or(|device| *device == session.endpoint_id)
    }
}

/// Whoever knows what an operator asks.
pub trait Overview: Send + Sync + 'static {
    /// What keeps the gateway from being ready; nothing when it is.
    fn not_ready(&self) -> Vec<NotReady>;

    /// Sessions open now, in all.
    fn session_count(&self) -> u64;

    /// The open sessions that the query wants, at most as many as it says.
    fn sessions(&self, query: &SessionQuery) -> Vec<SessionView>;

    /// Ends every session of a device; returns how many there were.
    fn kick(&self, tenant: &TenantId, device: &DeviceId) -> usize;
}

/// The answer to [`AdminCall::Sessions`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionsReply {
    /// Who answers.
    pub replica: String,
    /// Sessions open there, in all; there may be more than are listed.
    pub total: u64,
    /// The sessions.
    pub sessions: Vec<SessionView>,
}

/// The answer to [`AdminCall::Kick`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KickReply {
    /// How many sessions were ended.
    pub kicked: u64,
}

/// Does what an operator asks over NATS, and forms the answer.
pub fn answer(call: &AdminCall, replica: &ReplicaId, overview: &Arc<impl Overview + ?Sized>) -> Bytes {
    let body = match call {
        AdminCall::Kick { tenant, device } => {
            let kicked = u64::try_from(overview.kick(tenant, device)).unwrap_or(u64::MAX);
            serde_json::to_vec(&KickReply { kicked })
        }
        AdminCall::Sessions => {
            let query = SessionQuery { limit: DEFAULT_SESSIONS, ..SessionQuery::default() };
            let mut reply = SessionsReply {
                replica: replica.to_string(),
                total: overview.session_count(),
                sessions: overview.sessions(&query),
            };
            let mut body = serde_json::to_vec(&reply);
            while body.as_ref().is_ok_and(|body| body.len() > MOST_REPLY) {
                reply.sessions.truncate(reply.sessions.len() / 2);
                body = serde_json::to_vec(&reply);
            }
            body
        }
    };
    // These types hold nothing that JSON cannot.
    body.map(Bytes::from).unwrap_or_default()
}
