//! A look at a ClientHello before the handshake begins.
//!
//! Owns: which application protocol the client would have. Does not own: the handshake, which reads the same bytes again.

use std::io;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};

use super::stream::MAX_INCOMING;
use crate::Stream;

/// Reads into `incoming` until the ClientHello is there. False: it names application protocols and none that `config` has, which
/// rustls would end the handshake for. What cannot be read is left to the handshake, which says what is wrong with it.
pub(super) async fn names_a_protocol_of<S: Stream>(
    config: &ServerConfig,
    stream: &mut S,
    incoming: &mut BytesMut,
) -> io::Result<bool> {
    let mut acceptor = Acceptor::default();
    loop {
        let before = incoming.len();
        if crate::receive(stream, incoming).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut unread = incoming.get(before..).unwrap_or_default();
        while !unread.is_empty() {
            if !matches!(acceptor.read_tls(&mut unread), Ok(1..)) {
                return Ok(true);
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(fits(config, &accepted.client_hello())),
                Err(_) => return Ok(true),
            }
        }
        if incoming.len() > MAX_INCOMING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake message is too long"));
        }
    }
}

fn fits(config: &ServerConfig, hello: &ClientHello<'_>) -> bool {
    let Some(mut offered) = hello.alpn() else { return true };
    offered.any(|offer| config.alpn_protocols.iter().any(|own| own == offer))
}
