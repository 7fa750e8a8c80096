//! The seam between the listener core and what speaks the protocol: one association, without I/O.
//!
//! Owns: the trait and its vocabulary. Does not own: an implementation ([`crate::Server`]), addresses, timers and limits
//! ([`crate::Listener`]).

use std::fmt;
use std::sync::Arc;

use landfall_session::Tick;
use rustls_pki_types::CertificateDer;

/// Who the other side says it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// A PSK identity (RFC 4279), at most 128 bytes, not looked at any further.
    Psk(Box<[u8]>),
    /// The certificate that the client has shown, its chain verified against the client CA.
    Certificate(CertificateDer<'static>),
}

/// An identity is a device's own text: escaped.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Psk(identity) => write!(f, "Psk(\"{}\")", identity.escape_ascii()),
            Self::Certificate(der) => write!(f, "Certificate({} bytes)", der.len()),
        }
    }
}

/// What became of the question who somebody is.
#[derive(Clone, Copy)]
pub enum Answer<'a> {
    /// The key of a PSK identity.
    Psk(&'a [u8]),
    /// The holder of this certificate may come in.
    Admitted,
    /// Nobody who may come in. A PSK handshake goes on with a key that nobody has, so that it tells no more than a wrong key.
    Refused,
    /// It could not be found out: the handshake ends, the client may come back.
    Unavailable,
}

/// Why an association that was established is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The peer said close_notify.
    CloseNotify,
    /// The peer sent a fatal alert, authenticated.
    Alert(u8),
    /// A new handshake from the same address has succeeded.
    Replaced,
    /// Nothing was heard for `session_timeout`.
    Expired,
    /// The record numbers of an epoch are used up.
    Exhausted,
    /// So many records were forged in its name that a further guess might be right.
    Forged,
    /// Room was made for another.
    Evicted,
}

/// Why a handshake came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client offers no version that is spoken here.
    Version,
    /// There is no cipher suite, group or signature scheme that both sides have.
    NoCommonSuite,
    /// A message that cannot be read, or in the wrong place.
    Malformed,
    /// Its messages are larger than what is held for a handshake.
    TooLarge,
    /// The client does not have the key of its identity, or the identity is nobody's.
    WrongKey,
    /// The client shows no certificate where one is required.
    NoCertificate,
    /// The client's certificate leads to no authority that is known here.
    UnknownAuthority,
    /// The client's certificate, or one of its chain, is over.
    CertificateExpired,
    /// The client's certificate, its chain or its signature does not hold for another reason.
    Certificate,
    /// Whoever the certificate is of may not come in.
    Refused,
    /// Who it is could not be found out.
    Unavailable,
    /// It took longer than `handshake_timeout`.
    TimedOut,
    /// The client gave up: the code of its alert.
    Alert(u8),
    /// Another handshake took its place: the same address began anew, or all places were taken and this one was the longest
    /// without a word.
    Displaced,
    /// A limit keeps it out.
    Limit,
}

/// A record that was dropped without a trace in its association (RFC 6347, section 4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// It is no record, or is cut short.
    Malformed,
    /// Its authentication tag is wrong.
    Forged,
    /// It was there before, or is older than the window.
    Replayed,
    /// Its epoch or type has no place now.
    Unexpected,
}

/// What an engine tells besides datagrams and data.
#[derive(Debug)]
pub enum EngineEvent {
    /// Who is this? The handshake waits for [`Engine::answer`]; what comes meanwhile is kept within its bound or dropped.
    WhoIs(Identity),
    /// The handshake has succeeded. `None` for a client that has proven nothing, which only happens in a certificate suite.
    Established {
        /// Who it is: what [`EngineEvent::WhoIs`] asked for.
        identity: Option<Identity>,
        /// The suite's registered name.
        suite: &'static str,
    },
    /// The established association is over.
    Closed(Closing),
    /// The handshake is over.
    Failed(Failure),
    /// A record was dropped.
    Dropped(BadRecord),
    /// A flight was sent again.
    Retransmitted,
}

/// Where an engine puts what comes of what it is told.
pub trait Outlet {
    /// A datagram for the peer.
    fn transmit(&mut self, datagram: &[u8]);
    /// Application data of the peer, one call for each record.
    fn data(&mut self, bytes: &[u8]);
    /// Anything else.
    fn event(&mut self, event: EngineEvent);
}

/// Where an association stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The handshake is under way.
    Shaking,
    /// Data may flow.
    Established,
    /// Nothing more comes of it.
    Over,
}

/// Why data was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The association is not established, or over.
    #[error("there is no such secure channel")]
    NotEstablished,
    /// More than a record holds: 16,384 bytes (RFC 6347, section 4.1).
    #[error("larger than a record can be")]
    TooLarge,
    /// The record numbers of the epoch are used up; the association is over.
    #[error("the record numbers are used up")]
    Exhausted,
}

/// One association of a server. It begins with a ClientHello whose cookie was already verified.
pub trait Engine: Sized {
    /// What all associations of a listener share.
    type Config;

    /// A new one. It takes the numbers of its first messages from the ClientHello that [`Engine::receive`] is given first
    /// (RFC 6347, section 4.2.1: whoever answers a cookie has kept no count).
    fn accept(config: &Arc<Self::Config>, now: Tick) -> Self;

    /// Where it stands.
    fn stage(&self) -> Stage;

    /// A datagram has come. It is deciphered in place.
    fn receive(&mut self, now: Tick, datagram: &mut [u8], outlet: &mut impl Outlet);

    /// The answer to [`EngineEvent::WhoIs`]; without effect when nothing was asked.
    fn answer(&mut self, now: Tick, answer: Answer<'_>, outlet: &mut impl Outlet);

    /// Appends `data` as one record to `datagram`.
    ///
    /// # Errors
    /// [`SendError`]; `datagram` is then as it was.
    fn send(&mut self, data: &[u8], datagram: &mut Vec<u8>) -> Result<(), SendError>;

    /// Ends the association: tells an established peer close_notify. Tells the outlet no event.
    fn close(&mut self, outlet: &mut impl Outlet);

    /// When [`Engine::handle_timeout`] wants to be called.
    fn next_timeout(&self) -> Option<Tick>;

    /// Time has passed: a flight may be due to be sent again.
    fn handle_timeout(&mut self, now: Tick, outlet: &mut impl Outlet);
}
