//! Where a peer is, in as few bytes as tell it from others.
//!
//! Owns: which addresses are the same, and which of them are one host. Does not own: how a peer is answered.

use std::net::{IpAddr, SocketAddr};

/// Address and port. IPv4 stands as IPv6 says it, whichever way the socket did; an IPv6 flow label is nobody's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    ip: [u8; 16],
    scope: u32,
    port: u16,
}

impl Address {
    /// Different for different addresses.
    pub(crate) fn to_bytes(self) -> [u8; 22] {
        let mut bytes = [0; 22];
        let parts = self.ip.into_iter().chain(self.scope.to_be_bytes()).chain(self.port.to_be_bytes());
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        bytes
    }

    /// The IPv4 address, or the /64 of an IPv6 address: what one customer of a network has of it. Below 2^32 for IPv4, where no
    /// /64 is that anybody is in.
    pub(crate) fn host(self) -> u64 {
        let [h0, h1, h2, h3, h4, h5, h6, h7, .., l0, l1, l2, l3] = self.ip;
        match self.ip {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, ..] => u64::from(u32::from_be_bytes([l0, l1, l2, l3])),
            _ => u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        Self { ip: ip.octets(), scope, port: address.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<std::net::SocketAddr>().unwrap())
    }

    #[test]
    fn ipv4_is_the_same_however_it_is_said() {
        assert_eq!(address("192.0.2.1:7"), address("[::ffff:192.0.2.1]:7"));
        assert_ne!(address("192.0.2.1:7"), address("192.0.2.1:8"));
        assert_ne!(address("[fe80::1%1]:7"), address("[fe80::1%2]:7"));
    }

    #[test]
    fn a_host_is_an_ipv4_address_or_a_64() {
        let host = |text: &str| address(text).host();
        assert_eq!(host("192.0.2.1:7"), host("192.0.2.1:9"));
        assert_ne!(host("192.0.2.1:7"), host("192.0.2.2:7"));
        assert_eq!(host("[2001:db8:1:2::1]:7"), host("[2001:db8:1:2:ffff::2]:7"));
        assert_ne!(host("[2001:db8:1:2::1]:7"), host("[2001:db8:1:3::1]:7"));
    }
}
