//! A request as the shell gets it: complete, checked, once.
//!
//! Owns: its fields. Does not own: how it is read from messages (the endpoint).

use std::fmt;

use bytes::Bytes;

use crate::message::{Code, Token};
use crate::uri;

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
#[derive(Clone, PartialEq, Eq)]
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
    /// The whole body, assembled where it came in blocks. Empty while more of it is to come.
    pub payload: Bytes,
    /// One block of the body has come, and more are to: the answer is 2.31, or why not, and then the body is dropped.
    pub is_partial: bool,
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

/// Of paths, queries and payload no more than may stand in a log: a query may be a key, a segment a name that nobody should
/// guess.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.queries.iter().map(|query| uri::pair(query).0).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("segments", &self.path.len())
            .field("queries", &names)
            .field("content_format", &self.content_format)
            .field("accept", &self.accept)
            .field("observe", &self.observe)
            .field("payload_bytes", &self.payload.len())
            .field("is_partial", &self.is_partial)
            .field("confirmable", &self.confirmable)
            .field("token", &self.token)
            .field("bytes", &self.bytes)
            .field("no_response", &self.no_response)
            .finish()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, number};

    #[test]
    fn what_is_printed_tells_no_secret() {
        let request = Request {
            method: Method::Post,
            path: vec!["rd".into(), "name-s3cret".into()],
            queries: vec!["ep=pump".into(), "key=s3cret".into(), "s3cret=".into(), "flag".into()],
            content_format: None,
            accept: None,
            observe: None,
            payload: Bytes::from_static(b"s3cret"),
            is_partial: false,
            confirmable: true,
            token: Token::default(),
            bytes: 0,
            no_response: 0,
        };
        let printed = format!("{request:?}");
        assert!(printed.contains(r#""ep", "key", "s3cret", "flag""#), "{printed}");
        assert_eq!(printed.matches("s3cret").count(), 1, "but for the name of a query: {printed}");
        let mut options = Options::new();
        options.push(number::URI_QUERY, "key=s3cret");
        assert_eq!(format!("{options:?}"), "[(15, 10)]");
    }
}
