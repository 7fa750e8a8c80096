//! MQTT over WebSocket (RFC 6455, MQTT 5.0 and 3.1.1 section 6) as a byte stream.
//!
//! Owns: the upgrade, the frames, and their life as `AsyncRead` and `AsyncWrite`. Does not own: where MQTT packets begin
//! and end; they may span frames [MQTT-6.0.0-2].

mod frame;
mod origin;
mod stream;
mod upgrade;

pub use frame::{Decoder, Ending, Fault};
pub use origin::{Origin, OriginError, Origins};
pub use stream::WsStream;
pub(crate) use upgrade::detail_of;
pub use upgrade::upgrade;

/// The longest frame that is taken, bytes of payload. A frame is never held as a whole, so this bounds no memory; it
/// catches a peer that has lost its place.
pub const MAX_FRAME: u64 = 16 * 1024 * 1024;

/// The longest upgrade request, bytes of its head.
pub const MAX_REQUEST: usize = 8 * 1024;
