//! What a listener without connections does with every datagram: recognise whoever was admitted before, and see what may go
//! back.
//!
//! Owns: the mark of what a device showed, whose credential its name is, whether a command may go to it. Does not own: who
//! is who (the authenticator), where a session keeps its mark (the listener's memo).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use landfall_event::{DeviceId, TenantId, Transport};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{Acl, Command, Credentials};

/// Makes marks of what devices show: a digest under a key of this process, so that a session remembers in eight bytes what
/// it was admitted by, and neither the memory nor the time of comparing tells a key.
pub struct Marker(Hmac<Sha256>);

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Marker(..)")
    }
}

impl Marker {
    /// One whose marks no other compares equal to.
    pub fn random() -> Self {
        let key: [u8; 32] = rand::random();
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of every length"))
    }

    /// The mark of what a device shows: the tenant it names, its key, and the address it comes from, which an authenticator
    /// may look at too. Never 0, which so can stand for no mark.
    pub fn of(&self, tenant: Option<&TenantId>, key: Option<&[u8]>, remote: IpAddr) -> u64 {
        let mut mac = self.0.clone();
        let ip = match remote {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        mac.update(&ip.octets());
        mac.update(tenant.map_or("", TenantId::as_str).as_bytes());
        // A tenant has no control characters, so the zero byte ends it.
        mac.update(&[0]);
        if let Some(key) = key {
            mac.update(&[1]);
            mac.update(key);
        }
        let mut mark = [0; 8];
        mark.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(byte, of_mac)| *byte = of_mac);
        u64::from_le_bytes(mark) | 1
    }

    /// Was a session with the mark `known` admitted by what `shown` is made of? In constant time.
    pub fn is_same(known: u64, shown: u64) -> bool {
        bool::from(known.ct_eq(&shown))
    }
}

impl Credentials {
    /// Those of a device that calls itself `device`, of `tenant` if it names one; without a proof yet.
    pub fn named(
        transport: Transport,
        remote_address: SocketAddr,
        device: &DeviceId,
        tenant: Option<&TenantId>,
    ) -> Self {
        let client_id: Arc<str> = device.as_str().into();
        let username = match tenant {
            Some(tenant) => format!("{device}@{tenant}").into(),
            None => Arc::clone(&client_id),
        };
        Self {
            transport,
            remote_address,
            client_id,
            username: Some(username),
            password: None,
            signature: None,
            certificate: None,
        }
    }
}

/// May the command go to a device of `acl`? The same filters as over MQTT decide, in either of the two forms that a
/// command's topic has there.
pub fn may_receive_command(acl: &Acl, command: &Command) -> bool {
    ["command///req", "c///q"]
        .iter()
        .any(|form| acl.may_receive(&format!("{form}/{}/{}", command.id, command.name)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Wait;

    #[test]
    fn a_mark_is_made_of_tenant_key_and_address() {
        let marker = Marker::random();
        let (t, u): (TenantId, TenantId) = ("t".parse().unwrap(), "u".parse().unwrap());
        let at = |host: u8| IpAddr::from([127, 0, 0, host]);
        let shown = [
            (None, Some(&b"k"[..]), 1),
            (None, Some(b"l"), 1),
            (None, Some(b""), 1),
            (None, Some(b"\x01k"), 1),
            (None, None, 1),
            (Some(&t), Some(b"k"), 1),
            (Some(&t), None, 1),
            (Some(&u), Some(b"k"), 1),
            (None, Some(b"k"), 2),
        ];
        let marks = shown.map(|(tenant, key, host)| marker.of(tenant, key, at(host)));
        for (one, mark) in marks.iter().enumerate() {
            assert!(!Marker::is_same(0, *mark), "no mark is nobody's");
            for (other, another) in marks.iter().enumerate() {
                assert_eq!(Marker::is_same(*mark, *another), one == other, "{one} {other}");
            }
        }
        let again = marker.of(None, Some(b"k"), "::ffff:127.0.0.1".parse().unwrap());
        assert_eq!(marks[0], again, "an address is one in either of its forms");
        assert_ne!(marks[0], Marker::random().of(None, Some(b"k"), at(1)));
        assert_eq!(format!("{marker:?}"), "Marker(..)");
    }

    #[test]
    fn the_name_says_whose_credential_it_is() {
        let remote = ([127, 0, 0, 1], 4000).into();
        let (device, tenant) = ("a b".parse().unwrap(), "t".parse().unwrap());
        let shown = Credentials::named(Transport::Coap, remote, &device, Some(&tenant));
        assert_eq!((&*shown.client_id, shown.username.as_deref()), ("a b", Some("a b@t")));
        let shown = Credentials::named(Transport::Udp, remote, &device, None);
        assert_eq!((&*shown.client_id, shown.username.as_deref()), ("a b", Some("a b")));
        assert!(shown.password.is_none() && shown.signature.is_none() && shown.certificate.is_none());
    }

    #[test]
    fn a_command_goes_where_one_of_its_topics_may() {
        let command = Command {
            tenant: "t".parse().unwrap(),
            device: "d".parse().unwrap(),
            id: "17".parse().unwrap(),
            name: "open".parse().unwrap(),
            wait: Wait::Delivered,
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::new(),
            reply: None,
            received_at: 0,
            expires_at: 1,
        };
        let may = |filters: &[&str]| {
            let subscribe = filters.iter().map(|filter| filter.parse().unwrap()).collect();
            may_receive_command(&Acl { subscribe, ..Acl::default() }, &command)
        };
        assert!(may(&["command///req/+/open"]));
        assert!(may(&["a", "c///q/#"]));
        assert!(!may(&["command///req/18/open", "c///q/+/close"]));
        assert!(!may(&[]));
    }
}
