//! What carries a device's datagrams: a socket, or a secure channel over one.
//!
//! Owns: sending and receiving whole datagrams either way. Does not own: what is in them, or the channel's handshake.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::sync::Mutex;

use crate::dtls::DtlsClient;

/// No datagram is larger.
const LARGEST: usize = 65_536;

/// Carries datagrams between a device and one address of the gateway. One from any other address fails the test.
#[derive(Debug)]
pub struct Carrier {
    way: Way,
    server: SocketAddr,
}

#[derive(Debug)]
enum Way {
    Plain(UdpSocket),
    Secure(Box<Mutex<DtlsClient>>),
}

impl Carrier {
    /// Plain UDP from an address of its own.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn plain(server: SocketAddr) -> Self {
        Self { way: Way::Plain(bind(server).await), server }
    }

    /// A channel whose handshake has succeeded.
    pub fn secure(channel: DtlsClient) -> Self {
        Self { server: channel.server(), way: Way::Secure(Box::new(Mutex::new(channel))) }
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound, and nobody sends or receives meanwhile.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.way {
            Way::Plain(socket) => socket.local_addr().expect("a bound socket"),
            Way::Secure(channel) => channel.try_lock().expect("nobody holds it").local_addr(),
        }
    }

    /// Takes another address. The old one stays bound until the new one is, so they differ.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn rebind(&mut self) {
        match &mut self.way {
            Way::Plain(socket) => *socket = bind(self.server).await,
            Way::Secure(channel) => channel.get_mut().rebind().await,
        }
    }

    /// Talks to another address from now on; over a secure channel, to another one of the same server.
    ///
    /// # Panics
    /// When it is no address of this machine.
    pub async fn redirect(&mut self, server: SocketAddr) {
        if let Way::Secure(channel) = &mut self.way {
            channel.get_mut().redirect(server).await;
        }
        self.server = server;
    }

    /// Sends one datagram.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn send(&self, bytes: &[u8]) {
        match &self.way {
            Way::Plain(socket) => {
                socket.send_to(bytes, self.server).await.expect("loopback takes it");
            }
            Way::Secure(channel) => channel.lock().await.send(bytes).await,
        }
    }

    /// The next datagram; none is lost when this is dropped while it waits.
    ///
    /// # Panics
    /// When it comes from another address than the one that is talked to, or the channel is over.
    pub async fn receive(&self) -> Vec<u8> {
        match &self.way {
            Way::Plain(socket) => receive(socket, self.server).await,
            Way::Secure(channel) => {
                let mut channel = channel.lock().await;
                let data = channel.next().await;
                data.unwrap_or_else(|| panic!("the channel is over: {:?}", channel.end()))
            }
        }
    }

    /// A datagram that has come, without waiting.
    pub fn try_receive(&mut self) -> Option<Vec<u8>> {
        match &mut self.way {
            Way::Plain(socket) => {
                let mut datagram = vec![0; LARGEST];
                let (len, _) = socket.try_recv_from(&mut datagram).ok()?;
                datagram.truncate(len);
                Some(datagram)
            }
            Way::Secure(channel) => channel.get_mut().try_next(),
        }
    }

    /// The channel, where there is one.
    ///
    /// # Panics
    /// When there is none.
    pub fn channel(&mut self) -> &mut DtlsClient {
        match &mut self.way {
            Way::Plain(_) => panic!("plain UDP has no channel"),
            Way::Secure(channel) => channel.get_mut(),
        }
    }
}

async fn receive(socket: &UdpSocket, server: SocketAddr) -> Vec<u8> {
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error is the news of a gateway that is gone; it may come back.
        let Ok((len, from)) = socket.recv_from(&mut datagram).await else { continue };
        assert_eq!(from, server, "a datagram from an address that was not told anything");
        datagram.truncate(len);
        return datagram;
    }
}

pub(crate) async fn bind(server: SocketAddr) -> UdpSocket {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    };
    UdpSocket::bind(any).await.expect("a port")
}
