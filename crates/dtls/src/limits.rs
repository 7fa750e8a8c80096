//! What a listener may hold.
//!
//! Owns: the bounds and what happens at each. Does not own: keeping them ([`crate::Listener`]).

/// Limits of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Established sessions. When all places are taken, the one that was longest without a word makes room, if it was silent
    /// for at least [`Limits::EVICT_AFTER_MS`]; else the new handshake is refused. Those that the caller vouches for make room
    /// before those that have proven themselves, and no such one makes room for them. One that takes the place of a session at
    /// its own address needs no other. Up to 2^24, together with `max_handshakes`.
    pub max_sessions: usize,
    /// Handshakes under way. When all places are taken, the host that has the most makes room, by the one that was longest
    /// without a word. 0: none begins. As many established associations may be of clients that have proven nothing; there too
    /// the host with the most makes room.
    pub max_handshakes: usize,
    /// Handshakes under way of one host. When it has so many, the one that was longest without a word makes room, if it was silent
    /// for at least [`Limits::DISPLACE_AFTER_MS`]; else the new one is refused. As many established associations of a host may be
    /// of clients that have proven nothing; the oldest makes room.
    pub max_handshakes_per_host: usize,
    /// Sessions and handshakes together of one host: an IPv4 address, or the /64 of an IPv6 address. One more is refused, but at an
    /// address that has one already.
    pub max_per_host: usize,
    /// From the ClientHello with the cookie to the end of the handshake, in ms. What a client has established that has proven
    /// nothing lasts as long, unless the caller vouches for it.
    pub handshake_timeout_ms: u64,
    /// Silence after which a session is dropped, in ms. Silence is broken by what authenticates.
    pub session_timeout_ms: u64,
    /// Data under keys that are not here any more: so many records of it are answered with an alert in any second, and one at any
    /// address in ten.
    pub alerts_per_second: u32,
}

impl Limits {
    /// A session that was heard within this time is not dropped to make room, in ms.
    pub const EVICT_AFTER_MS: u64 = 60_000;
    /// A handshake that was heard within this time is not dropped for another of its own host, in ms: more than the way there and
    /// back to the slowest devices takes.
    pub const DISPLACE_AFTER_MS: u64 = 10_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: 100_000,
            max_handshakes: 4_096,
            max_handshakes_per_host: 512,
            max_per_host: 16_384,
            handshake_timeout_ms: 30_000,
            session_timeout_ms: 172_800_000,
            alerts_per_second: 100,
        }
    }
}
