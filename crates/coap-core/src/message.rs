//! A message as the machine sees it (RFC 7252, section 3).
//!
//! Owns: its four small types. Does not own: bytes on the wire (`codec`), what options mean (`options`).

use std::fmt;

use bytes::Bytes;

use crate::options::Options;

/// The type of a message (section 4.2 and 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Wants an acknowledgement.
    Con,
    /// Wants none.
    Non,
    /// Acknowledges a confirmable message.
    Ack,
    /// Says that a message could not be processed.
    Rst,
}

/// A code, `class.detail` (section 3 and 12.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

#[expect(missing_docs, reason = "the names of the registry, RFC 7252 section 12.1.2, RFC 7959 and RFC 8516")]
impl Code {
    pub const EMPTY: Self = Self::new(0, 0);
    pub const GET: Self = Self::new(0, 1);
    pub const POST: Self = Self::new(0, 2);
    pub const PUT: Self = Self::new(0, 3);
    pub const DELETE: Self = Self::new(0, 4);
    pub const CREATED: Self = Self::new(2, 1);
    pub const DELETED: Self = Self::new(2, 2);
    pub const VALID: Self = Self::new(2, 3);
    pub const CHANGED: Self = Self::new(2, 4);
    pub const CONTENT: Self = Self::new(2, 5);
    pub const CONTINUE: Self = Self::new(2, 31);
    pub const BAD_REQUEST: Self = Self::new(4, 0);
    pub const UNAUTHORIZED: Self = Self::new(4, 1);
    pub const BAD_OPTION: Self = Self::new(4, 2);
    pub const FORBIDDEN: Self = Self::new(4, 3);
    pub const NOT_FOUND: Self = Self::new(4, 4);
    pub const METHOD_NOT_ALLOWED: Self = Self::new(4, 5);
    pub const NOT_ACCEPTABLE: Self = Self::new(4, 6);
    pub const REQUEST_ENTITY_INCOMPLETE: Self = Self::new(4, 8);
    pub const CONFLICT: Self = Self::new(4, 9);
    pub const PRECONDITION_FAILED: Self = Self::new(4, 12);
    pub const REQUEST_ENTITY_TOO_LARGE: Self = Self::new(4, 13);
    pub const UNSUPPORTED_CONTENT_FORMAT: Self = Self::new(4, 15);
    pub const TOO_MANY_REQUESTS: Self = Self::new(4, 29);
    pub const INTERNAL_SERVER_ERROR: Self = Self::new(5, 0);
    pub const NOT_IMPLEMENTED: Self = Self::new(5, 1);
    pub const BAD_GATEWAY: Self = Self::new(5, 2);
    pub const SERVICE_UNAVAILABLE: Self = Self::new(5, 3);
    pub const GATEWAY_TIMEOUT: Self = Self::new(5, 4);
    pub const PROXYING_NOT_SUPPORTED: Self = Self::new(5, 5);
}

impl Code {
    /// The code `class.detail`; `class` is 0 to 7, `detail` 0 to 31.
    #[must_use]
    pub const fn new(class: u8, detail: u8) -> Self {
        Self(class << 5 | detail & 0x1F)
    }

    /// 0 to 7.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// 0 to 31.
    #[must_use]
    pub const fn detail(self) -> u8 {
        self.0 & 0x1F
    }

    /// Whether this is a request's: class 0, but not Empty.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether this is a response that says yes: class 2.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.detail())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What matches a response with its request: 0 to 8 bytes of the client's choice (section 5.3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Token {
    // Bytes behind the length are 0, so that derived equality is that of the token.
    bytes: [u8; 8],
    length: u8,
}

impl Token {
    /// The most bytes of a token.
    pub const MAX: usize = 8;

    /// `None` for more than eight bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut token = Self { bytes: [0; Self::MAX], length: u8::try_from(bytes.len()).ok()? };
        token.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(token)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One CoAP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: Kind,
    /// What matches it with its acknowledgement, and with its duplicates.
    pub id: u16,
    /// What matches a response with its request.
    pub token: Token,
    /// Request, response or empty.
    pub code: Code,
    /// The options, by number.
    pub options: Options,
    /// The body, or one block of it.
    pub payload: Bytes,
}

impl Message {
    /// An empty message: an acknowledgement, a reset or a ping (section 4.1).
    #[must_use]
    pub fn empty(kind: Kind, id: u16) -> Self {
        Self::new(kind, Code::EMPTY, id, Token::default())
    }

    /// A message without options and payload.
    #[must_use]
    pub fn new(kind: Kind, code: Code, id: u16, token: Token) -> Self {
        Self { kind, id, token, code, options: Options::default(), payload: Bytes::new() }
    }
}
