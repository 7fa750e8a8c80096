//! The TLS engine of one connection, with no buffer of its own.
//!
//! Owns: stepping rustls's unbuffered connection: what came in, what is to go out. Does not own: the socket (`stream`).
//!
//! rustls's buffered connection keeps 4 KiB for reading as long as it lives. Here the bytes are decrypted where they were
//! read, and only what is left over, an unfinished record, is kept by the caller.

use std::sync::Arc;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use tokio::io::ReadBuf;

use super::PeerCertificate;

/// The most plaintext of one record (RFC 8446 section 5.1).
pub(super) const MAX_PLAINTEXT: usize = 16 * 1024;

/// Room for what sealing adds to that: head, nonce, padding and tag, and a key update that goes before it.
pub(super) const MAX_SEALED: usize = MAX_PLAINTEXT + 1024;

/// Steps after which a call must have come to an end: each one takes a record, a message, or something to send.
const MAX_STEPS: usize = 100_000;

/// What to seal when the engine allows it.
pub(super) enum Seal<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

/// Where decrypted bytes go: into the reader's buffer as far as there is one, then into `rest`.
pub(super) struct Plain<'a, 'b> {
    pub(super) reader: Option<&'a mut ReadBuf<'b>>,
    pub(super) rest: &'a mut BytesMut,
}

impl Plain<'_, '_> {
    fn put(&mut self, payload: &[u8]) {
        let room = self.reader.as_ref().map_or(0, |reader| reader.remaining());
        let (now, later) = payload.split_at_checked(room).unwrap_or((payload, &[]));
        if let Some(reader) = &mut self.reader {
            reader.put_slice(now);
            self.rest.extend_from_slice(later);
        } else {
            self.rest.extend_from_slice(payload);
        }
    }
}

/// A TLS connection, server side.
pub(super) struct Engine {
    connection: UnbufferedServerConnection,
    /// The client has said that it sends no more.
    peer_closed: bool,
    /// What went wrong; nothing is processed any more.
    failed: Option<rustls::Error>,
}

impl Engine {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { connection, peer_closed: false, failed: None })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    pub(super) fn failure(&self) -> Option<&rustls::Error> {
        self.failed.as_ref()
    }

    pub(super) fn peer_certificate(&self) -> Option<PeerCertificate> {
        self.connection.peer_certificates()?.first().map(PeerCertificate::read)
    }

    /// Processes what came, until more is needed. Returns how much of `incoming` is done with; what is left must stand at
    /// the front of the next call's. What is to be sent, an alert after a failure too, is appended to `outgoing`.
    pub(super) fn receive(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Plain<'_, '_>,
        outgoing: &mut BytesMut,
    ) -> Result<usize, rustls::Error> {
        let mut done = 0;
        self.step(incoming, plain, outgoing, &mut done, None)?;
        Ok(done)
    }

    /// Seals into `sealed` and says how long that is; `incoming` is what the last [`Engine::receive`] left. None when the
    /// connection does not allow to send.
    pub(super) fn seal(
        &mut self,
        what: &Seal<'_>,
        sealed: &mut [u8],
        incoming: &mut [u8],
        outgoing: &mut BytesMut,
    ) -> Result<Option<usize>, rustls::Error> {
        // What was left is less than a record, so nothing can come of it here.
        let mut plain = Plain { reader: None, rest: &mut BytesMut::new() };
        self.step(incoming, &mut plain, outgoing, &mut 0, Some((what, sealed)))
    }

    fn step(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Plain<'_, '_>,
        outgoing: &mut BytesMut,
        done: &mut usize,
        mut seal: Option<(&Seal<'_>, &mut [u8])>,
    ) -> Result<Option<usize>, rustls::Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        for _ in 0..MAX_STEPS {
            let left = incoming.get_mut(*done..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(left);
            let mut ended = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.put(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing)?,
                // The stream sends `outgoing` in order and whole, so it is as good as transmitted.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    ended = Some(match seal.take() {
                        None => None,
                        Some((Seal::Data(data), sealed)) => Some(traffic.encrypt(data, sealed)),
                        Some((Seal::CloseNotify, sealed)) => Some(traffic.queue_close_notify(sealed)),
                    });
                }
                // Needs more, is over, or (early data) is nothing that this configuration takes.
                Ok(_) => ended = Some(None),
                Err(error) => {
                    self.fail(error.clone(), outgoing);
                    return Err(error);
                }
            }
            *done += discard;
            if let Some(sealed) = ended {
                return sealed.transpose().map_err(|error| match error {
                    EncryptError::EncryptExhausted => rustls::Error::EncryptError,
                    EncryptError::InsufficientSize(_) => rustls::Error::General("no room to seal".to_owned()),
                });
            }
        }
        Err(rustls::Error::General("too many steps".to_owned()))
    }

    /// Remembers the failure and collects the alert that tells it to the client.
    fn fail(&mut self, error: rustls::Error, outgoing: &mut BytesMut) {
        self.failed = Some(error);
        // Only as long as there is something to send: beyond that rustls would look at the input again, which it holds
        // positions in, and panic when it is not there.
        while self.connection.wants_write()
            && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(data)), .. } =
                self.connection.process_tls_records(&mut [])
            && encode(data, outgoing).is_ok()
        {}
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("peer_closed", &self.peer_closed).finish_non_exhaustive()
    }
}

fn encode<T>(mut data: EncodeTlsData<'_, T>, outgoing: &mut BytesMut) -> Result<(), rustls::Error> {
    let at = outgoing.len();
    let needed = match data.encode(&mut []) {
        Ok(_) => 0,
        Err(EncodeError::InsufficientSize(needs)) => needs.required_size,
        Err(EncodeError::AlreadyEncoded) => return Ok(()),
    };
    if needed > 0 {
        outgoing.resize(at + needed, 0);
        let room = outgoing.get_mut(at..).unwrap_or_default();
        let written = data.encode(room).map_err(|error| rustls::Error::General(error.to_string()))?;
        outgoing.truncate(at + written);
    }
    Ok(())
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
