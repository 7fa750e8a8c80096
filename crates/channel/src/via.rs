//! Which way a peer is reached.

use landfall_dtls::Key;
use landfall_event::Reason;
use landfall_net::Path;

/// One secure channel of one socket, for as long as it lives; never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channel(pub(crate) Key);

impl Channel {
    /// As a number that is never 0, for keeping it where a number fits.
    pub fn number(self) -> u64 {
        self.0.number()
    }

    /// The channel of a number; `None` for 0.
    pub fn from_number(number: u64) -> Option<Self> {
        Key::from_number(number).map(Self)
    }

    /// Does a session that ended so take its channel with it? Its device would go on as if nothing had been.
    pub fn ends_with(reason: Reason) -> bool {
        matches!(
            reason,
            Reason::Kicked | Reason::CredentialsRevoked | Reason::CredentialsExpired | Reason::TakenOver
        )
    }
}

/// The way to a peer: its path, and the secure channel on it where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Via {
    /// The path.
    pub path: Path,
    /// The channel; `None` over plain UDP.
    pub channel: Option<Channel>,
}

impl From<Path> for Via {
    fn from(path: Path) -> Self {
        Self { path, channel: None }
    }
}
