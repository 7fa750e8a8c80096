//! What a gateway says of itself, as a reader sees it.

use serde::Deserialize;

use crate::{ServiceKind, SessionId, UnixMs};

/// `join`, `keep-alive`, `leave`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Which of them.
    pub kind: ServiceKind,
    /// What it says.
    pub details: ServiceDetails,
}

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetails {
    /// The gateway's version.
    pub version: String,
    /// Sessions open at that time.
    pub sessions: u64,
    /// When this incarnation started.
    pub started_at: UnixMs,
}

/// `events-dropped`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Dropped {
    /// Sessions of which nothing is told.
    pub sessions: u64,
    /// Messages of other sessions.
    pub messages: u64,
    /// Which those were.
    pub gaps: Vec<Gap>,
}

/// Messages that were dropped, by their numbers in their session, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The session.
    pub session_id: SessionId,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}
