//! What the endpoint wants done, and what it tells.
//!
//! Owns: the types. Does not own: when each is made (`endpoint`).

use bytes::Bytes;

use crate::codec::Malformed;
use crate::request::Request;

/// A request that waits for its answer. Never used twice by one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub(crate) u64);

/// Somebody observes something. Never used twice by one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObservationId(pub(crate) u64);

/// A notification on its way. Never used twice by one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoteId(pub(crate) u64);

/// One thing that [`Endpoint::poll`](crate::Endpoint::poll) returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<P> {
    /// Send these bytes to this peer, in one datagram. Losing them is harmless.
    Transmit {
        /// To whom.
        peer: P,
        /// The datagram.
        bytes: Bytes,
    },
    /// A request wants its answer.
    Request {
        /// What to answer.
        exchange: ExchangeId,
        /// Who asks.
        peer: P,
        /// What is asked.
        request: Request,
    },
    /// A further block of an answer was asked for, and has been given (RFC 7959, section 2.4). The request is the one that was answered, and
    /// shows what that showed.
    Fetched {
        /// Who asked.
        peer: P,
        /// The request; it wants no answer.
        request: Request,
    },
    /// An empty confirmable message came and has been answered (RFC 7252, section 4.3): a sign of life.
    Ping {
        /// Who lives.
        peer: P,
    },
    /// A request came with the message id of one that came before, and got what that got. No sign of life: nothing else of
    /// it is looked at, so anybody who sends from this address may have sent it.
    Repeated {
        /// Who is said to repeat himself.
        peer: P,
    },
    /// An acknowledgement or reset came that matches a message of ours: a sign of life from the peer's own address.
    Heard {
        /// Who lives.
        peer: P,
    },
    /// The peer has proven its address: what was held back from it may be sent now.
    Proven {
        /// Whose address it is.
        peer: P,
    },
    /// An observation is over, without a call of the shell's.
    ObservationEnded {
        /// Which.
        observation: ObservationId,
        /// Whose.
        peer: P,
        /// Why.
        why: Ending,
    },
    /// The peer has acknowledged a notification and, where it has several blocks, asked for the last of them. Also of an
    /// answer: [`Endpoint::respond_in_full`](crate::Endpoint::respond_in_full).
    Delivered {
        /// Which.
        note: NoteId,
        /// Who.
        peer: P,
    },
    /// The peer has acknowledged a notification and fetched no block of it for long: the next one leaves.
    /// [`Output::Delivered`] may follow yet, as long as the blocks are kept.
    Unfetched {
        /// Which.
        note: NoteId,
        /// Who.
        peer: P,
    },
    /// A notification will never be acknowledged.
    Failed {
        /// Which.
        note: NoteId,
        /// Who.
        peer: P,
        /// Why.
        why: NoteFailure,
    },
    /// A datagram had no effect, but for a reset or an error that may have been sent back. To be counted.
    Rejected {
        /// Who sent it.
        peer: P,
        /// Why.
        why: Rejected,
    },
}

/// What became of an answer whose arrival matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answered {
    /// It is not on its way.
    No,
    /// It is on its way, in one message.
    Whole,
    /// Its first block is: [`Output::Delivered`] tells of this name when the last one has been fetched.
    Begun(NoteId),
}

/// Why an observation is over (RFC 7641, sections 3.6 and 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// GET with Observe 1.
    Cancelled,
    /// The peer has reset a notification.
    Reset,
    /// A notification was retransmitted to the end, and never acknowledged.
    Silent,
    /// The same peer has registered with the same token, or for the same resource, again.
    Replaced,
    /// The peer is gone ([`crate::Endpoint::forget`]).
    Gone,
}

/// Why a notification failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoteFailure {
    /// It was retransmitted to the end. The peer may have got it nonetheless.
    Silent,
    /// The peer has reset it.
    Reset,
    /// Its observation ended, by the shell or the peer, before it was acknowledged.
    Ended,
}

/// Why a datagram had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// It is no CoAP message.
    Malformed(Malformed),
    /// A critical option that is not served, repeated or of a wrong length (RFC 7252, section 5.4).
    BadOption,
    /// An option or a payload that contradicts itself.
    BadRequest,
    /// A method that is not served.
    Method,
    /// A request to be forwarded (section 5.7).
    Proxy,
    /// A limit is reached: answered 5.03.
    Busy,
    /// A body larger than the limit: answered 4.13.
    TooLarge,
    /// Blocks without their beginning: answered 4.08.
    Incomplete,
    /// A response, acknowledgement or reset to nothing that is under way.
    Unmatched,
    /// The answer would be more than three times what came, from an address that is not proven.
    Unproven,
}
