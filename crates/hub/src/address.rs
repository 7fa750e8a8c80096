//! A socket address in 22 bytes instead of 32: there may be a million of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where a device was last heard from. IPv4 stands as an IPv4-mapped IPv6 address, which no listener tells otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    ip: [u8; 16],
    port: u16,
    /// In bytes, so that nothing is aligned for it.
    scope: [u8; 4],
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { ip: ip.octets(), port: address.port(), scope: scope.to_ne_bytes() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        match Ipv6Addr::from(address.ip).to_canonical() {
            IpAddr::V4(v4) => (v4, address.port).into(),
            IpAddr::V6(v6) => {
                SocketAddrV6::new(v6, address.port, 0, u32::from_ne_bytes(address.scope)).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        assert_eq!(size_of::<Address>(), 22);
        for text in ["192.0.2.7:4000", "[2001:db8::7]:0", "[::1]:65535", "[::]:1", "0.0.0.0:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Address::from(address)), address);
        }
        let link_local = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 3));
        assert_eq!(SocketAddr::from(Address::from(link_local)), link_local);
    }
}
