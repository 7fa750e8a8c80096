//! What a device shows, and how a session remembers what it was admitted by.
//!
//! Owns: the question to the authenticator, the mark that spares asking it again. Does not own: the answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hmac::{Hmac, Mac as _};
use landfall_event::{TenantId, Transport};
use landfall_hub::{Credentials, Secret, Signature};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::line::Line;

/// What a line shows.
pub(crate) fn credentials(line: &Line<'_>, remote_address: SocketAddr) -> Credentials {
    let device = line.device.as_str();
    let client_id: Arc<str> = device.into();
    let username = match &line.tenant {
        Some(tenant) => format!("{device}@{tenant}").into(),
        None => Arc::clone(&client_id),
    };
    let signature = line.signed.as_ref().map(|signed| {
        let [before, behind] = signed.covered();
        let mut message = BytesMut::with_capacity(before.len() + behind.len());
        message.extend_from_slice(before);
        message.extend_from_slice(behind);
        Signature { message: message.freeze(), mac: signed.mac }
    });
    Credentials {
        transport: Transport::Udp,
        remote_address,
        client_id,
        username: Some(username),
        password: line.key.as_ref().map(|key| Secret::new(Bytes::copy_from_slice(key.expose()))),
        signature,
        certificate: None,
    }
}

/// Makes marks of what unsigned lines show: a digest under a key of this process, so that a session remembers in eight
/// bytes what it was admitted by, and neither the memory nor the time of comparing tells a key.
pub(crate) struct Marker(Hmac<Sha256>);

impl std::fmt::Debug for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Marker(..)")
    }
}

impl Marker {
    pub(crate) fn random() -> Self {
        let key: [u8; 32] = rand::random();
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of every length"))
    }

    /// The mark of what `line` shows: the tenant it names, the key, and the address it comes from, which an authenticator may
    /// look at too. Never 0.
    pub(crate) fn of(&self, line: &Line<'_>, remote: IpAddr) -> u64 {
        let mut mac = self.0.clone();
        let ip = match remote {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        mac.update(&ip.octets());
        let tenant = line.tenant.as_ref().map_or("", TenantId::as_str);
        // A tenant has no control characters, so the zero byte ends it.
        mac.update(tenant.as_bytes());
        mac.update(&[0]);
        if let Some(key) = &line.key {
            mac.update(&[1]);
            mac.update(key.expose());
        }
        let mut mark = [0; 8];
        mark.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(byte, of_mac)| *byte = of_mac);
        u64::from_le_bytes(mark) | 1
    }

    /// Was a session with the mark `known` admitted by what `shown` is made of? In constant time.
    pub(crate) fn is_same(known: u64, shown: u64) -> bool {
        bool::from(known.ct_eq(&shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(marker: &Marker, line: &str, host: u8) -> u64 {
        marker.of(&Line::parse(line.as_bytes()).unwrap(), IpAddr::from([127, 0, 0, host]))
    }

    #[test]
    fn a_mark_is_made_of_tenant_key_and_address() {
        let marker = Marker::random();
        let one = mark(&marker, "LF1 a key=k seq=1 ack", 1);
        assert_eq!(one, mark(&marker, "LF1 a key=%6b hb=3\npayload", 1));
        let others = ["LF1 a", "LF1 a key=l", "LF1 a@t key=k", "LF1 a@t", "LF1 a key=%01k"];
        for (at, other) in others.iter().enumerate() {
            assert!(!Marker::is_same(one, mark(&marker, other, 1)), "{other}");
            for another in others.iter().skip(at + 1) {
                assert_ne!(mark(&marker, other, 1), mark(&marker, another, 1), "{other} {another}");
            }
        }
        assert_ne!(one, mark(&marker, "LF1 a key=k", 2));
        assert_ne!(one, mark(&Marker::random(), "LF1 a key=k", 1));
    }

    #[test]
    fn the_question_names_whose_credential_it_is() {
        let remote = ([127, 0, 0, 1], 4000).into();
        let datagram = format!("LF1 a%20b@t seq=3 sig={}\npay", "ab".repeat(32));
        let shown = credentials(&Line::parse(datagram.as_bytes()).unwrap(), remote);
        assert_eq!((&*shown.client_id, shown.username.as_deref()), ("a b", Some("a b@t")));
        let signature = shown.signature.unwrap();
        assert_eq!(&signature.message[..], b"LF1 a%20b@t seq=3\npay");
        assert_eq!(signature.mac, [0xab; 32]);
        let shown = credentials(&Line::parse(b"LF1 a key=%00").unwrap(), remote);
        assert_eq!((shown.username.as_deref(), shown.password.unwrap().expose()), (Some("a"), &b"\0"[..]));
    }
}
