//! Datagram sockets: many datagrams per system call, each with the path it came by, answers sent back along that path.
//!
//! Owns: binding (several sockets on one port), receive buffers, the source address of an answer. Does not own: what is in
//! a datagram, DTLS (a `dtls://` address is bound as a `udp://` one), or when something is sent again: UDP loses datagrams,
//! here as on the way.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_v6only, set_socket_recv_buffer_size,
    set_socket_reuseport, socket_recv_buffer_size,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::io::Interest;
use tokio::net::{UdpSocket, lookup_host};

use crate::{BindError, DatagramEndpoint};

/// How sockets are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramSettings {
    /// Sockets on the one port, at least 1. The system gives every datagram of one peer to the same socket, as long as the
    /// peer's address stays.
    pub sockets: usize,
    /// Bytes that the system is asked to keep per socket for datagrams that wait to be received. It may give less
    /// (`net.core.rmem_max`), see [`DatagramSocket::receive_buffer`].
    pub receive_buffer: usize,
}

impl Default for DatagramSettings {
    fn default() -> Self {
        Self { sockets: 1, receive_buffer: 4 * 1024 * 1024 }
    }
}

/// The way between a peer and one of our addresses: who sent a datagram, and whom it was sent to.
///
/// An IPv4 address of an IPv6 socket is told as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The peer.
    pub remote: SocketAddr,
    /// Our address that the peer knows. `None` where the system did not say; an answer then leaves from the address that
    /// the system chooses.
    pub local: Option<IpAddr>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.remote.fmt(f)
    }
}

/// Binds datagram sockets.
#[derive(Debug)]
pub struct Datagrams;

impl Datagrams {
    /// Binds `settings.sockets` sockets to one address. Of a name with several addresses the first that can be bound is
    /// taken; port 0 means one free port for all of them. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`BindError`]; also when another process has the port, even where that one would share it.
    pub async fn bind(
        endpoint: &DatagramEndpoint,
        settings: DatagramSettings,
    ) -> Result<Vec<DatagramSocket>, BindError> {
        let named = || endpoint.to_string();
        let addresses = lookup_host((endpoint.host(), endpoint.port()))
            .await
            .map_err(|source| BindError::Lookup { endpoint: named(), source })?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match bind_all(endpoint, address, settings) {
                Ok(sockets) => return Ok(sockets),
                Err(source) => last = source,
            }
        }
        Err(BindError::Bind { endpoint: named(), source: last })
    }
}

fn bind_all(
    endpoint: &DatagramEndpoint,
    address: SocketAddr,
    settings: DatagramSettings,
) -> io::Result<Vec<DatagramSocket>> {
    let shared = settings.sockets > 1;
    // The first is bound alone and shares the port only then: with a sharing first one, a second gateway that is started
    // by mistake would take half of the devices instead of failing.
    let first = open(address)?;
    rustix::net::bind(&first, &address)?;
    if shared {
        set_socket_reuseport(&first, true)?;
    }
    let first = DatagramSocket::new(first, endpoint, settings)?;
    let address = first.local;
    let mut sockets = vec![first];
    for _ in 1..settings.sockets {
        let socket = open(address)?;
        set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        sockets.push(DatagramSocket::new(socket, endpoint, settings)?);
    }
    Ok(sockets)
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    if matches!(address, SocketAddr::V6(v6) if v6.ip().is_unspecified()) {
        // As TCP listeners do: `[::]` is every address of both families, whatever the system's default is.
        set_ipv6_v6only(&socket, false)?;
    }
    Ok(socket)
}

/// A bound socket.
pub struct DatagramSocket {
    io: UdpSocket,
    state: UdpSocketState,
    endpoint: DatagramEndpoint,
    local: SocketAddr,
}

impl DatagramSocket {
    fn new(socket: OwnedFd, endpoint: &DatagramEndpoint, settings: DatagramSettings) -> io::Result<Self> {
        let io = UdpSocket::from_std(socket.into())?;
        let local = io.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        // What is larger than a link may be cut into fragments (IPv4), and no forged ICMP message makes it smaller. Below
        // QUIC, which `quinn-udp` is made for, both are otherwise. Where a system cannot, it stays so.
        let _ = set_ip_mtu_discover(&io, Ipv4PathMtuDiscovery::OMIT);
        // The system gives what it can: a smaller buffer is no reason not to listen.
        let _ = set_socket_recv_buffer_size(&io, settings.receive_buffer);
        Ok(Self { io, state, endpoint: endpoint.bound_to(local), local })
    }

    /// Where it listens, with the port that it got.
    pub fn endpoint(&self) -> &DatagramEndpoint {
        &self.endpoint
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Bytes that the system keeps for datagrams that wait, its own bookkeeping included.
    ///
    /// # Errors
    /// The system's.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(socket_recv_buffer_size(&self.io)?)
    }

    /// Waits for datagrams and puts them into `batch`, in place of what was there. Returns how many came, at least 1.
    /// Cancelling loses nothing. One task at a time may wait.
    ///
    /// # Errors
    /// What the system says of the socket itself, such as being out of memory; what it says of a peer (unreachable, port
    /// closed) is passed over. An error ends nothing: after a pause the socket can be asked again.
    pub async fn recv(&self, batch: &mut Batch) -> io::Result<usize> {
        poll_fn(|cx| self.poll_recv(cx, batch)).await
    }

    /// [`Self::recv`] as a poll.
    ///
    /// # Errors
    /// As of `recv`.
    pub fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || {
                batch.fill(|buffers, meta| self.state.recv(UdpSockRef::from(&self.io), buffers, meta))
            });
            match received {
                // All of them may have been for a group.
                Ok(()) if batch.is_empty() => {}
                Ok(()) => return Poll::Ready(Ok(batch.len())),
                // Not ready after all: the next turn waits.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Each is taken from the socket by being told, so this ends.
                Err(error) if is_of_a_peer(&error) => tracing::trace!(%error, "a peer cannot be reached"),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends one datagram along `path`: to the peer, from the address that the peer knows and this socket's port. Never
    /// waits.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the system has no room for it now, [`io::ErrorKind::InvalidInput`] for a peer at
    /// port 0, else what the system says (larger than a datagram can be, no route). The datagram is lost, the socket is
    /// not.
    pub fn try_send(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if path.remote.port() == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let transmit = Transmit {
            destination: self.of_our_family(path.remote),
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: path.local.map(|local| self.ip_of_our_family(local)),
        };
        // Not through the runtime's readiness: the socket does not block, and nobody waits for room.
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }

    fn of_our_family(&self, remote: SocketAddr) -> SocketAddr {
        match remote {
            SocketAddr::V4(v4) if self.local.is_ipv6() => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => remote,
        }
    }

    fn ip_of_our_family(&self, local: IpAddr) -> IpAddr {
        match local {
            IpAddr::V4(v4) if self.local.is_ipv6() => v4.to_ipv6_mapped().into(),
            _ => local,
        }
    }
}

impl fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSocket").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An ICMP answer to something that was sent earlier.
fn is_of_a_peer(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNREFUSED
                | Errno::CONNRESET
                | Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::MSGSIZE
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::ACCESS
        )
    )
}

/// No datagram is larger, and no row of datagrams that the system hands over as one.
const LARGEST: usize = 64 * 1024;

/// Room for the datagrams of one [`DatagramSocket::recv`], to be used again for the next.
///
/// Every buffer holds the largest datagram there is, so nothing is ever cut. That is 2 MiB of addresses, of which memory
/// is taken only as far as datagrams have been long.
pub struct Batch {
    bytes: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
    /// Buffers in use.
    filled: usize,
    /// Datagrams in them that are for us.
    datagrams: usize,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_SIZE * LARGEST],
            meta: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            datagrams: 0,
        }
    }

    /// How many datagrams it holds.
    pub fn len(&self) -> usize {
        self.datagrams
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.datagrams == 0
    }

    /// Each datagram with its path, in the order of their coming. An empty datagram is one too.
    pub fn iter(&self) -> impl Iterator<Item = (Path, &[u8])> {
        let received = self.bytes.chunks_exact(LARGEST).zip(&self.meta).take(self.filled);
        received
            .filter_map(|(buffer, meta)| Some((path(meta)?, buffer.get(..meta.len)?, meta.stride)))
            .flat_map(|(path, row, stride)| {
                Row { rest: Some(row), stride }.map(move |datagram| (path, datagram))
            })
    }

    fn fill(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.filled = 0;
        self.datagrams = 0;
        let mut chunks = self.bytes.chunks_exact_mut(LARGEST);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.filled = receive(&mut buffers, &mut self.meta)?;
        self.datagrams = self.iter().count();
        Ok(())
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("datagrams", &self.datagrams).finish_non_exhaustive()
    }
}

/// Datagrams that came in one buffer: equally long, only the last may be shorter.
struct Row<'a> {
    rest: Option<&'a [u8]>,
    stride: usize,
}

impl<'a> Iterator for Row<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        match rest.split_at_checked(self.stride) {
            // A stride of 0 is that of one empty datagram.
            Some((datagram, more)) if self.stride > 0 && !more.is_empty() => {
                self.rest = Some(more);
                Some(datagram)
            }
            _ => Some(rest),
        }
    }
}

/// The path of what was sent to us alone. What was sent to a group (multicast, broadcast) has none: no address of ours
/// could answer it, and a forged sender would have a whole network answer (RFC 7252 section 11.3).
fn path(meta: &RecvMeta) -> Option<Path> {
    let local = meta.dst_ip.map(|ip| ip.to_canonical());
    if local.is_some_and(|ip| ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())) {
        return None;
    }
    let remote = match meta.addr {
        // The flow is no part of who somebody is; the interface of a link-local address is.
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::new(v4.into(), v6.port()),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        },
        v4 @ SocketAddr::V4(_) => v4,
    };
    Some(Path { remote, local })
}
