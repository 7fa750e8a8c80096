//! The operator's interface: HTTP on `admin.listen`, and the same answers over NATS.
//!
//! Owns: what an operator is told and how much of it. Does not own: what is true ([`Overview`] asks whoever knows), sockets
//! (`landfall-net`), subjects (`landfall-event`).

mod exposition;
mod http;
mod places;
mod process;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use landfall_event::subject::AdminCall;
use landfall_event::{DeviceId, ReplicaId, TenantId};
use landfall_hub::SessionView;
use landfall_nats::Cause;
use serde::{Deserialize, Serialize};

use crate::reloads::Broken;

pub use http::AdminServer;
pub use process::register_process;

/// The most sessions in one answer over HTTP.
pub const MOST_SESSIONS: usize = 10_000;
/// The sessions in one answer when nobody asks for more or less.
pub const DEFAULT_SESSIONS: usize = 1_000;
/// The most bytes of sessions in one answer over NATS, whose messages end at 1 MiB by default.
const MOST_REPLY: usize = 900_000;

/// What keeps a gateway from being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// Not everything that is needed has been started.
    Starting,
    /// Events cannot be stored, for this cause.
    Store(Cause),
    /// A file that was to be read again cannot be used.
    Config,
    /// The gateway is on its way out.
    Draining,
}

impl NotReady {
    /// Its word in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Store(cause) => cause.as_str(),
            Self::Config => "config-broken",
            Self::Draining => "draining",
        }
    }
}

/// What keeps events from being stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreTrouble {
    /// The kind.
    #[serde(serialize_with = "cause_word")]
    pub cause: Cause,
    /// The last error, as it was said; absent where there was none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Since when nothing could be stored, Unix ms; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

fn cause_word<S: serde::Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(cause.as_str())
}

/// Which sessions an operator wants to see. Over NATS it is the request's body; without one, all are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionQuery {
    /// Of this tenant only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of this device only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// At most so many.
    #[serde(skip)]
    pub limit: usize,
}

impl SessionQuery {
    /// Does it want every session?
    pub fn wants_all(&self) -> bool {
        self.tenant.is_none() && self.device.is_none()
    }

    /// Is the session one of those that are wanted?
    pub fn wants(&self, session: &SessionView) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == session.tenant)
            && self.device.as_ref().is_none_or(|device| *device == session.endpoint_id)
    }
}

/// Whoever knows what an operator asks.
pub trait Overview: Send + Sync + 'static {
    /// Is it starting, or on its way out?
    fn phase(&self) -> Option<NotReady>;

    /// May devices come in, as far as the store goes?
    fn admits(&self) -> bool;

    /// What keeps events from being stored; nothing when they are.
    fn store(&self) -> Option<StoreTrouble>;

    /// Files that were to be read again and cannot be used.
    fn broken(&self) -> Vec<Broken>;

    /// The open sessions that the query wants, however many it lists.
    fn session_count(&self, query: &SessionQuery) -> u64;

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
    /// Sessions open there that are wanted; there may be more than are listed.
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
pub fn answer(
    (call, body): (&AdminCall, &[u8]),
    replica: &ReplicaId,
    overview: &Arc<impl Overview + ?Sized>,
) -> Bytes {
    let body = match call {
        AdminCall::Kick { tenant, device } => {
            let kicked = u64::try_from(overview.kick(tenant, device)).unwrap_or(u64::MAX);
            serde_json::to_vec(&KickReply { kicked })
        }
        AdminCall::Sessions => {
            // Whoever asks for nothing that can be read is shown everything.
            let query: SessionQuery = serde_json::from_slice(body).unwrap_or_default();
            let query = SessionQuery { limit: DEFAULT_SESSIONS, ..query };
            let mut reply = SessionsReply {
                replica: replica.to_string(),
                total: overview.session_count(&query),
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
