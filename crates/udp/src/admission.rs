//! What a device shows.
//!
//! Owns: the question to the authenticator. Does not own: the answer, the mark that spares asking again (`landfall-hub`).

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use landfall_event::Transport;
use landfall_hub::{Credentials, Secret, Signature};

use crate::line::Line;

/// What a line shows that came by `transport`.
pub(crate) fn credentials(
    line: &Line<'_>,
    (transport, remote_address): (Transport, SocketAddr),
) -> Credentials {
    let signature = line.signed.as_ref().map(|signed| {
        let [before, behind] = signed.covered();
        let mut message = BytesMut::with_capacity(before.len() + behind.len());
        message.extend_from_slice(before);
        message.extend_from_slice(behind);
        Signature { message: message.freeze(), mac: signed.mac }
    });
    Credentials {
        password: line.key.as_ref().map(|key| Secret::new(Bytes::copy_from_slice(key.expose()))),
        signature,
        ..Credentials::named(transport, remote_address, &line.device, line.tenant.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_holds_what_the_line_shows() {
        let from = (Transport::Dtls, ([127, 0, 0, 1], 4000).into());
        let datagram = format!("LF1 a%20b@t seq=3 sig={}\npay", "ab".repeat(32));
        let shown = credentials(&Line::parse(datagram.as_bytes()).unwrap(), from);
        assert_eq!((&*shown.client_id, shown.username.as_deref()), ("a b", Some("a b@t")));
        let signature = shown.signature.unwrap();
        assert_eq!(&signature.message[..], b"LF1 a%20b@t seq=3\npay");
        assert_eq!(signature.mac, [0xab; 32]);
        assert_eq!((shown.transport, shown.remote_address), from);
        let shown = credentials(&Line::parse(b"LF1 a key=%00").unwrap(), from);
        assert_eq!((shown.username.as_deref(), shown.password.unwrap().expose()), (Some("a"), &b"\0"[..]));
    }
}
