//! What can be wrong with a history.

use landfall_event::subject::stream_name;
use landfall_event::{SessionId, Stream};
use serde::{Serialize, Serializer};

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A session is open whose gateway is gone.
    NeverClosed,
    /// A session ends twice.
    ClosedTwice,
    /// A session ends that never began.
    DisconnectedWithoutConnected,
    /// A session begins twice.
    ConnectedTwice,
    /// A session says something after its end.
    AfterEnd,
    /// A session that never began says something.
    WithoutConnected,
    /// A number is missing, and nobody has told that it was dropped.
    SeqGap,
    /// A lower number comes after a higher one.
    SeqOrder,
    /// An event is stored twice.
    Duplicate,
    /// A session begins while another one of the device and family is open on the same gateway.
    Overlap,
    /// A session of a device that was refused: the gateway took its admission back.
    NeverLetIn,
    /// A later session has no higher epoch.
    EpochNotRising,
    /// A client saw a message acknowledged that is not stored.
    LostAcknowledged,
}

impl Kind {
    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverClosed => "never-closed",
            Self::ClosedTwice => "closed-twice",
            Self::DisconnectedWithoutConnected => "disconnected-without-connected",
            Self::ConnectedTwice => "connected-twice",
            Self::AfterEnd => "after-end",
            Self::WithoutConnected => "without-connected",
            Self::SeqGap => "seq-gap",
            Self::SeqOrder => "seq-order",
            Self::Duplicate => "duplicate",
            Self::Overlap => "overlap",
            Self::NeverLetIn => "never-let-in",
            Self::EpochNotRising => "epoch-not-rising",
            Self::LostAcknowledged => "lost-acknowledged",
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// Which.
    pub kind: Kind,
    /// The session that it is about.
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The device: `id@tenant`; "" when it is about none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// The stream in which it shows.
    #[serde(serialize_with = "named")]
    pub stream: Stream,
    /// The place of the event that shows it; 0 when it is an event that is not there.
    #[serde(rename = "streamSeq")]
    pub place: u64,
    /// In words.
    pub detail: String,
}

fn named<S: Serializer>(stream: &Stream, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stream_name(*stream))
}
