//! What the fuzz target runs, and the tests replay: bytes that drive a listener, and what must hold whatever they are.
//!
//! Owns: the entry. Does not own: the moves (`play`), the clients (`client`), where the bytes come from.

mod client;
mod play;
mod source;

/// Target `dtls_listener`: the bytes choose, step by step, what four clients, those who stand in their way, an authenticator and
/// the clock do to a listener in front of real associations; one session stands, and one handshake is half open.
///
/// Nothing panics; every association has one beginning and one end; data is what its own client has sealed, and comes once;
/// nobody is established whose client did not finish; whoever has not shown a cookie gets no more bytes than it sent; at the end
/// nothing is left.
pub fn listener(data: &[u8]) {
    play::Play::new(data).run();
}

#[cfg(test)]
mod tests;
