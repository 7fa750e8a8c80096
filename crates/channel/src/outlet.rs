//! Where the listener core puts what comes of a datagram: on the socket, into the words, among the refusals.
//!
//! Owns: what each of its events means. Does not own: the answer to the question who somebody is (`channels.rs`).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use landfall_dtls::{Closing, Event, Failure, Identity, Key, Sink};
use landfall_event::{RefusedCause, RefusedDetail, Transport};
use landfall_hub::{Attempt, Hub};
use landfall_net::{DatagramSocket, Path};

use crate::kept::{Kept, Opening, Standing};
use crate::lookup;
use crate::metrics::ChannelMetrics;
use crate::{Channel, Via, Words};

/// Everything but the listener core itself, which is at work while this is written to.
pub(crate) struct State<T> {
    pub(crate) hub: Arc<Hub>,
    pub(crate) transport: Transport,
    pub(crate) metrics: ChannelMetrics,
    pub(crate) kept: Kept<T>,
    pub(crate) words: Words,
    /// Questions that the core has asked since it was given something.
    pub(crate) questions: VecDeque<(Key, Path, Identity)>,
    /// A channel whose place another takes. It is told when that one is there.
    pub(crate) replaced: Option<Via>,
    /// Channels of devices that have a newer one: to be closed; and whether they were ever told of.
    pub(crate) superseded: Vec<(Key, bool)>,
}

pub(crate) struct Outlet<'a, T> {
    pub(crate) state: &'a mut State<T>,
    pub(crate) socket: &'a DatagramSocket,
    /// What the socket said to the last datagram.
    pub(crate) sent: io::Result<()>,
}

fn via(key: Key, path: Path) -> Via {
    Via { path, channel: Some(Channel(key)) }
}

/// What the event of a failure says; `None`: nothing, for nobody was turned away.
fn cause(why: Failure, standing: Option<&Standing>) -> Option<RefusedCause> {
    let of_lookup = match standing {
        Some(Standing::Refused(cause)) => Some(*cause),
        // Nobody was asked: no device has a name so long.
        None => Some(RefusedCause::UnknownDevice),
        Some(_) => None,
    };
    match why {
        Failure::Version => Some(RefusedCause::UnsupportedVersion),
        Failure::WrongKey | Failure::Refused => Some(of_lookup.unwrap_or(RefusedCause::BadCredentials)),
        Failure::Limit => Some(RefusedCause::LimitReached),
        Failure::Displaced | Failure::Alert(CLOSE_NOTIFY) => None,
        Failure::NoCommonSuite
        | Failure::Malformed
        | Failure::TooLarge
        | Failure::NoCertificate
        | Failure::UnknownAuthority
        | Failure::CertificateExpired
        | Failure::Certificate
        | Failure::Unavailable
        | Failure::TimedOut
        | Failure::Alert(_) => Some(RefusedCause::TlsFailed),
    }
}

/// What was wrong; `None` where the cause says it.
fn detail(why: Failure) -> Option<RefusedDetail> {
    Some(match why {
        Failure::Version => RefusedDetail::ProtocolVersion,
        Failure::NoCommonSuite => RefusedDetail::NoCommonSuite,
        Failure::Malformed => RefusedDetail::HandshakeMalformed,
        Failure::TooLarge => RefusedDetail::HandshakeTooLarge,
        Failure::NoCertificate => RefusedDetail::NoCertificate,
        Failure::UnknownAuthority => RefusedDetail::UnknownAuthority,
        Failure::CertificateExpired => RefusedDetail::CertificateExpired,
        Failure::Certificate => RefusedDetail::CertificateInvalid,
        Failure::Unavailable => RefusedDetail::LookupFailed,
        Failure::TimedOut => RefusedDetail::TimedOut,
        Failure::Alert(code) => RefusedDetail::of_alert(code),
        Failure::WrongKey | Failure::Refused | Failure::Displaced | Failure::Limit => return None,
    })
}

/// RFC 5246, section 7.2.
const CLOSE_NOTIFY: u8 = 0;

impl<T: Default> Outlet<'_, T> {
    fn established(&mut self, via: Via, key: Key, identity: Option<&Identity>, suite: &'static str) {
        self.state.metrics.established(suite);
        let (principal, older) = match self.state.kept.opened(key) {
            Opening::Of(principal, older) => (Some(principal), older),
            Opening::Nobodys => (None, None),
            // A newer session is not ended by what comes late.
            Opening::Late => return self.state.superseded.push((key, false)),
        };
        self.state.words.opened(via, principal, lookup::remote_id(identity));
        self.state.superseded.extend(older.map(|older| (older, true)));
        self.state.replaced.take().into_iter().for_each(|replaced| self.state.words.closed(replaced, false));
    }

    fn closed(&mut self, via: Via, why: Closing) {
        tracing::debug!(remote = %via.path, ?why, "a secure channel is over");
        match why {
            Closing::Replaced => self.state.replaced = Some(via),
            Closing::CloseNotify | Closing::Alert(_) => self.state.words.closed(via, true),
            Closing::Expired | Closing::Exhausted | Closing::Forged | Closing::Evicted => {
                self.state.words.closed(via, false);
            }
        }
    }

    fn failed(&mut self, key: Option<Key>, path: Path, identity: Option<&Identity>, why: Failure) {
        tracing::debug!(remote = %path, ?identity, ?why, "a DTLS handshake failed");
        self.state.metrics.failed(why);
        let standing = key.and_then(|key| self.state.kept.remove(key));
        if let Some(cause) = cause(why, standing.as_ref()) {
            // An identity is sent in the clear, so it is no secret.
            let claimed = identity.map(|identity| lookup::remote_id(Some(identity)));
            let attempt = Attempt::new(cause, self.state.transport, path.remote).claiming(claimed.as_deref());
            self.state.hub.refused(&match detail(why) {
                Some(detail) => attempt.with_detail(detail.as_str()),
                None => attempt,
            });
        }
    }
}

impl<T: Default> Sink<Path> for Outlet<'_, T> {
    /// What the socket does not take is lost: whoever misses it sends again.
    fn transmit(&mut self, path: &Path, datagram: &[u8]) {
        self.sent = self.socket.try_send(path, datagram);
        if let Err(error) = &self.sent {
            self.state.metrics.send_errors.inc();
            tracing::debug!(remote = %path, %error, "a DTLS datagram could not be sent");
        }
    }

    fn data(&mut self, key: Key, path: &Path, bytes: &[u8]) {
        self.state.words.data(via(key, *path), bytes);
    }

    fn event(&mut self, event: Event<Path>) {
        match event {
            Event::WhoIs { key, path, identity } => self.state.questions.push_back((key, path, identity)),
            Event::Established { key, path, identity, suite } => {
                self.established(via(key, path), key, identity.as_ref(), suite);
            }
            Event::Closed { key, path, why } => self.closed(via(key, path), why),
            Event::Failed { key, path, identity, why } => self.failed(key, path, identity.as_ref(), why),
        }
    }
}
