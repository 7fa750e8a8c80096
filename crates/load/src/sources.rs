//! Where the clients come from: addresses of 127.0.0.0/8, so that one machine can hold more connections than an address
//! has ports.
//!
//! Owns: which client has which address, and its socket. Does not own: what is said on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// 127.0.1.1.
const FIRST: u32 = 0x7f00_0101;
/// Connections that one address is given, of the 28,000 ports that Linux has for them.
const EACH: u32 = 20_000;
/// A port that waits for its last connection's end to be forgotten is not there yet.
const TRIES: u32 = 8;

/// The clients' addresses towards one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    server: SocketAddr,
    count: u32,
}

impl Sources {
    /// `count` addresses, in turn; towards an address that is not of the loopback interface or not IPv4 it is the system's.
    pub(crate) fn new(server: SocketAddr, count: u32) -> Self {
        let is_spread = server.is_ipv4() && server.ip().is_loopback();
        Self { server, count: if is_spread { count.max(1) } else { 1 } }
    }

    /// As many addresses as so many sockets need, unless the user says how many.
    pub(crate) fn for_sockets(server: SocketAddr, asked: Option<u32>, sockets: u32) -> Self {
        Self::new(server, asked.unwrap_or_else(|| sockets.div_ceil(EACH)))
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The address of client `n`; unspecified where there is only one, which leaves the choice to the system.
    fn of(&self, n: u32) -> IpAddr {
        match self.server.ip() {
            IpAddr::V4(_) if self.count > 1 => IpAddr::V4(Ipv4Addr::from(FIRST + n % self.count)),
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Client `n` connects.
    pub(crate) async fn tcp(&self, n: u32) -> io::Result<TcpStream> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_tcp(n).await {
                Err(error)
                    if tries < TRIES
                        && matches!(
                            error.kind(),
                            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                        ) => {}
                done => return done,
            }
        }
    }

    async fn try_tcp(&self, n: u32) -> io::Result<TcpStream> {
        let socket = if self.server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.count > 1 {
            // Ports whose last connection has ended count as free.
            socket.set_reuseaddr(true)?;
            socket.bind((self.of(n), 0).into())?;
        }
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A socket of client `n` that speaks with the server only.
    pub(crate) async fn udp(&self, n: u32) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((self.of(n), 0)).await?;
        socket.connect(self.server).await?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_are_enough() {
        let server = "127.0.0.1:1".parse().unwrap();
        let sources = Sources::for_sockets(server, None, 50_000);
        assert_eq!(sources.count(), 3);
        assert_eq!(sources.of(0), IpAddr::from([127, 0, 1, 1]));
        assert_eq!(sources.of(5), IpAddr::from([127, 0, 1, 3]));
        assert_eq!(Sources::new(server, 400).of(300), IpAddr::from([127, 0, 2, 45]));
        assert!(Sources::for_sockets(server, None, 100).of(7).is_unspecified());
        assert_eq!(Sources::for_sockets("10.1.1.1:1".parse().unwrap(), Some(9), 1).count(), 1);
    }

    #[tokio::test]
    async fn sockets_come_from_their_addresses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sources = Sources::new(listener.local_addr().unwrap(), 4);
        let (client, accepted) = tokio::join!(sources.tcp(2), listener.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        assert_eq!(sources.udp(3).await.unwrap().local_addr().unwrap().ip(), IpAddr::from([127, 0, 1, 4]));
    }
}
