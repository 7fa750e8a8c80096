//! What the shell answers or notifies with.
//!
//! Owns: the code, the options that are the resource's, the whole body. Does not own: message type and id, token, Observe,
//! blocks; the endpoint adds these.

use bytes::Bytes;

use crate::message::Code;
use crate::options::{Options, number};

/// An answer, or the state that a notification tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Class 2, 4 or 5.
    pub code: Code,
    /// Options of the resource; what the endpoint sets itself (Observe, Block1, Block2, ETag of a cut body) is replaced.
    pub options: Options,
    /// The whole body; it is cut into blocks where it is longer than one.
    pub payload: Bytes,
}

impl Response {
    /// Without options and body.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, options: Options::new(), payload: Bytes::new() }
    }

    /// With this body.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// With the body's Content-Format (section 5.10.3).
    #[must_use]
    pub fn content_format(mut self, format: u16) -> Self {
        self.options.set_uint(number::CONTENT_FORMAT, u32::from(format));
        self
    }

    /// Fresh for so many seconds (section 5.10.5); with 5.03, when to try again (section 5.9.3.4).
    #[must_use]
    pub fn max_age(mut self, seconds: u32) -> Self {
        self.options.set_uint(number::MAX_AGE, seconds);
        self
    }

    /// With one more segment of the Location-Path (section 5.10.7), at most 255 bytes; a longer one makes the client reject it.
    #[must_use]
    pub fn location(mut self, segment: impl Into<Bytes>) -> Self {
        self.options.push(number::LOCATION_PATH, segment);
        self
    }

    /// With one more argument of the Location-Query (section 5.10.7), at most 255 bytes.
    #[must_use]
    pub fn location_query(mut self, argument: impl Into<Bytes>) -> Self {
        self.options.push(number::LOCATION_QUERY, argument);
        self
    }
}
