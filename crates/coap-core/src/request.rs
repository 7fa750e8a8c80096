//! A request as the shell gets it: complete, checked, once.
//!
//! Owns: its fields. Does not own: how it is read from messages (the endpoint).

use bytes::Bytes;

use crate::message::{Code, Token};

/// What a request asks for (RFC 7252, section 5.8); any other method is answered 4.05 by the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// 0.01
    Get,
    /// 0.02
    Post,
    /// 0.03
    Put,
    /// 0.04
    Delete,
}

impl Method {
    /// The method of a code, if it is one that is served.
    #[must_use]
    pub fn of(code: Code) -> Option<Self> {
        match code {
            Code::GET => Some(Self::Get),
            Code::POST => Some(Self::Post),
            Code::PUT => Some(Self::Put),
            Code::DELETE => Some(Self::Delete),
            _ => None,
        }
    }
}

/// What the Observe option of a GET says (RFC 7641, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observe {
    /// 0: tell me what is, and what comes. Answered with [`Endpoint::observe`](crate::Endpoint::observe), or, to decline, with
    /// `respond`.
    Register,
    /// 1: tell me what is; the endpoint has ended the observation already. Answered with `respond`.
    Deregister,
}

/// A request. The same message sent again is not a second one (section 4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// The segments of Uri-Path: UTF-8, neither `.` nor `..`, any other text.
    pub path: Vec<String>,
    /// The arguments of Uri-Query: UTF-8.
    pub queries: Vec<String>,
    /// The body's Content-Format.
    pub content_format: Option<u16>,
    /// The Content-Format that the client wants; where it is not served the answer is 4.06 (section 5.10.4).
    pub accept: Option<u16>,
    /// On GET only.
    pub observe: Option<Observe>,
    /// The whole body, assembled where it came in blocks.
    pub payload: Bytes,
    /// Whether the last message of it was confirmable.
    pub confirmable: bool,
    /// The client's token.
    pub token: Token,
    /// Bytes of the last datagram of it.
    pub bytes: usize,
    /// The classes of answers that it does not want, as No-Response says them (RFC 7967, section 2.1): bit `n - 1` stands for
    /// class `n`. [`Endpoint::respond`](crate::Endpoint::respond) sends none of these.
    pub no_response: u8,
}

impl Request {
    /// Whether an answer of class 2 reaches the client; one to a registration always does.
    #[must_use]
    pub fn wants_success(&self) -> bool {
        self.observe == Some(Observe::Register) || self.no_response & 0b10 == 0
    }

    /// The value of the query `name=value`; an empty one for the query `name`.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries.iter().find_map(|query| match query.strip_prefix(name)? {
            "" => Some(""),
            rest => rest.strip_prefix('='),
        })
    }
}
