//! From a request message to a [`Request`]: the checks that need no state.
//!
//! Owns: which options and methods are served, and what is said of those that are not (RFC 7252, sections 5.4, 5.7, 5.8).
//! Does not own: duplicates, blocks, limits.

use bytes::Bytes;

use crate::block::{BadBlock, BlockValue, Fingerprint};
use crate::message::{Code, Kind, Message};
use crate::options::{Options, number};
use crate::output::Rejected;
use crate::request::{Method, Observe, Request};
use crate::uri::{self, BadUri};

/// A request as one message says it; with Block1 its payload is one block.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) request: Request,
    pub(super) block1: Option<BlockValue>,
    pub(super) block2: Option<BlockValue>,
    /// How long the body says it will be.
    pub(super) size1: Option<u64>,
    /// Whether the length of the response's body is wanted (RFC 7959, section 4).
    pub(super) wants_size2: bool,
    pub(super) echo: Option<Bytes>,
    /// Which responses are blocks of one body, and which registrations are for one resource.
    pub(super) resource: Fingerprint,
}

/// A request that is refused by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) why: Rejected,
}

const BAD_OPTION: Refused = Refused { code: Code::BAD_OPTION, why: Rejected::BadOption };
const BAD_REQUEST: Refused = Refused { code: Code::BAD_REQUEST, why: Rejected::BadRequest };

/// Reads a request; `length` is that of its datagram.
pub(super) fn read(message: &Message, length: usize) -> Result<Draft, Refused> {
    let options = &message.options;
    if options.has(number::PROXY_URI) || options.has(number::PROXY_SCHEME) {
        return Err(Refused { code: Code::PROXYING_NOT_SUPPORTED, why: Rejected::Proxy });
    }
    options.check().map_err(|_| BAD_OPTION)?;
    let method =
        Method::of(message.code).ok_or(Refused { code: Code::METHOD_NOT_ALLOWED, why: Rejected::Method })?;
    let request = Request {
        method,
        path: uri::path(values(options, number::URI_PATH)).map_err(refuse_uri)?,
        queries: uri::queries(values(options, number::URI_QUERY)).map_err(refuse_uri)?,
        content_format: format(options.elective_uint(number::CONTENT_FORMAT, 2)),
        accept: format(options.uint(number::ACCEPT)),
        observe: observe(method, options),
        payload: message.payload.clone(),
        is_partial: false,
        confirmable: message.kind == Kind::Con,
        token: message.token,
        bytes: length,
        no_response: no_response(options),
    };
    Ok(Draft {
        request,
        block1: block(options, number::BLOCK1)?,
        block2: block(options, number::BLOCK2)?,
        size1: options.elective_uint(number::SIZE1, 4).map(u64::from),
        wants_size2: options.has(number::SIZE2),
        echo: options.first(number::ECHO).cloned(),
        resource: Fingerprint::of_download(message.code.0, pairs(options)),
    })
}

/// Which messages are blocks of one request body.
pub(super) fn upload(message: &Message) -> Fingerprint {
    Fingerprint::of_upload(message.code.0, pairs(&message.options))
}

/// Whether No-Response suppresses a response with this code (RFC 7967, section 2.1): bit `n - 1` stands for class `n`.
pub(super) fn is_suppressed(no_response: u8, code: Code) -> bool {
    matches!(code.class(), 2 | 4 | 5) && no_response >> (code.class() - 1) & 1 == 1
}

/// The value of No-Response; 0, everything is wanted, if there is none.
pub(super) fn no_response(options: &Options) -> u8 {
    options.elective_uint(number::NO_RESPONSE, 1).and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
}

fn refuse_uri(bad: BadUri) -> Refused {
    match bad {
        // A value of a wrong length or format is as one that is not recognised (section 5.4.3).
        BadUri::Length | BadUri::NotText => BAD_OPTION,
        BadUri::TooLong | BadUri::Dots => BAD_REQUEST,
    }
}

fn block(options: &Options, number: u16) -> Result<Option<BlockValue>, Refused> {
    options.first(number).map(|value| BlockValue::decode(value)).transpose().map_err(|bad| match bad {
        BadBlock::Length => BAD_OPTION,
        BadBlock::Reserved => BAD_REQUEST,
    })
}

/// A value of no meaning is as none (RFC 7641, section 2), and so is one of another method.
fn observe(method: Method, options: &Options) -> Option<Observe> {
    match options.elective_uint(number::OBSERVE, 3)? {
        0 if method == Method::Get => Some(Observe::Register),
        1 if method == Method::Get => Some(Observe::Deregister),
        _ => None,
    }
}

fn format(value: Option<u32>) -> Option<u16> {
    u16::try_from(value?).ok()
}

fn values(options: &Options, number: u16) -> impl Iterator<Item = &[u8]> {
    options.all(number).map(|value| &**value)
}

fn pairs(options: &Options) -> impl Iterator<Item = (u16, &[u8])> {
    options.iter().map(|(number, value)| (number, &**value))
}
