//! A UDP proxy that is a bad link between real sockets: loss, duplication, corruption, delay, disorder, a NAT that forgets,
//! and a way that cuts the handshakes of DTLS to pieces.
//!
//! Owns: the sockets on both sides and a clock; the faults are [`Link`]'s, the pieces [`Recut`]'s. Does not own: either end.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::dtls::recut::{Cut, Recut};
use crate::link::{Counts, Faults, Link};

/// The most clients at one time: each has a socket of its own.
const MAX_CLIENTS: usize = 4096;

/// Datagrams from the target that wait for the proxy; more are lost, as a full router loses them.
const WAITING: usize = 65_536;

/// No datagram is larger.
const LARGEST: usize = 65_536;

/// A running proxy. Dropping it closes its sockets.
///
/// The target sees each client at an address of its own on this machine.
#[derive(Debug)]
pub struct UdpProxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// To the target; the end is the client that sent.
    there: Link<SocketAddr>,
    /// From the target; the end is the client that it is for.
    back: Link<SocketAddr>,
    clients: HashMap<SocketAddr, Client>,
    /// Addresses that clients had before the last rebind: kept, so that none comes again at once, and not read.
    forgotten: Vec<Arc<UdpSocket>>,
    cut: Option<Cut>,
    seed: u64,
    pieces: u64,
    refused: u64,
    strays: u64,
}

/// The address that the target sees a client at; its reader ends with it.
#[derive(Debug)]
struct Client {
    socket: Arc<UdpSocket>,
    recut: Option<Recut>,
    _reader: JoinSet<()>,
}

impl UdpProxy {
    /// Starts one on a port of its own before `target`, with the same faults both ways.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn start(target: SocketAddr, seed: u64, faults: Faults) -> Self {
        let socket = UdpSocket::bind(beside(target)).await.expect("a port");
        let address = socket.local_addr().expect("a bound socket");
        let shared = Arc::new(Mutex::new(Shared {
            target,
            there: Link::new(seed, faults),
            back: Link::new(!seed, faults),
            clients: HashMap::new(),
            forgotten: Vec::new(),
            cut: None,
            seed,
            pieces: 0,
            refused: 0,
            strays: 0,
        }));
        let mut task = JoinSet::new();
        task.spawn(run(socket, Arc::clone(&shared)));
        Self { address, shared, _task: task }
    }

    /// Where to send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats datagrams otherwise from now on, both ways. What is on its way stays so.
    pub fn set(&self, faults: Faults) {
        self.set_each(faults, faults);
    }

    /// The same, otherwise to the target than back.
    pub fn set_each(&self, there: Faults, back: Faults) {
        let mut shared = self.shared();
        shared.there.set(there);
        shared.back.set(back);
    }

    /// Cuts the handshakes of clients that come from now on, on their way to the target.
    pub fn cut(&self, cut: Cut) {
        self.shared().cut = Some(cut);
    }

    /// How many pieces of handshakes were made so far.
    pub fn pieces(&self) -> u64 {
        self.shared().pieces
    }

    /// Leads later datagrams elsewhere.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared().target = target;
    }

    /// Forgets every client, as a NAT does: the target sees the next datagram of each come from another address, and what
    /// it sends to the old one is lost.
    pub fn rebind(&self) {
        let mut shared = self.shared();
        let clients = std::mem::take(&mut shared.clients);
        shared.forgotten = clients.into_values().map(|client| client.socket).collect();
    }

    /// Where the target sees a client; `None` before its first datagram, also the first after a rebind.
    pub fn seen_as(&self, client: SocketAddr) -> Option<SocketAddr> {
        self.shared().clients.get(&client)?.socket.local_addr().ok()
    }

    /// What became of datagrams to the target, and back.
    pub fn counts(&self) -> (Counts, Counts) {
        let shared = self.shared();
        (shared.there.counts(), shared.back.counts())
    }

    /// Datagrams of clients beyond the most there may be.
    pub fn refused(&self) -> u64 {
        self.shared().refused
    }

    /// Datagrams that came to a client's address from anywhere but the target; they are not passed on.
    pub fn strays(&self) -> u64 {
        self.shared().strays
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("nobody panics with it")
}

/// Any port of the loopback address of the same family.
fn beside(target: SocketAddr) -> SocketAddr {
    match target {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
    }
}

fn bind(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(beside(target))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn run(near: UdpSocket, shared: Arc<Mutex<Shared>>) {
    let began = Instant::now();
    let now = move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (come, mut coming) = mpsc::channel(WAITING);
    let mut datagram = vec![0; LARGEST];
    loop {
        let due = {
            let shared = lock(&shared);
            [shared.there.next_due(), shared.back.next_due()].into_iter().flatten().min()
        };
        let wake = async {
            match due {
                Some(due) => sleep_until(began + Duration::from_millis(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = near.recv_from(&mut datagram) => {
                // An error is the news of a client that is gone.
                let Ok((len, client)) = received else { continue };
                let mut shared = lock(&shared);
                if shared.know(client, &come) {
                    shared.pass(now(), client, &datagram[..len]);
                }
            }
            back = coming.recv() => {
                let Some((client, from, bytes)) = back else { return };
                let mut shared = lock(&shared);
                if from == shared.target {
                    shared.back.send(now(), client, &bytes);
                } else {
                    shared.strays += 1;
                }
            }
            () = wake => {}
        }
        pass_on(&near, &shared, now()).await;
    }
}

/// A datagram for a client, and who it is from.
type Back = (SocketAddr, SocketAddr, Vec<u8>);

impl Shared {
    /// True when the client has an address, perhaps a new one.
    fn know(&mut self, client: SocketAddr, come: &mpsc::Sender<Back>) -> bool {
        if self.clients.contains_key(&client) {
            return true;
        }
        let socket = if self.clients.len() < MAX_CLIENTS { bind(self.target).ok() } else { None };
        let Some(socket) = socket.map(Arc::new) else {
            self.refused += 1;
            return false;
        };
        let mut reader = JoinSet::new();
        reader.spawn(read(Arc::clone(&socket), client, come.clone()));
        let recut = self.cut.map(|cut| Recut::new(self.seed.wrapping_add(self.clients.len() as u64), cut));
        self.clients.insert(client, Client { socket, recut, _reader: reader });
        true
    }

    /// Gives a client's datagram to the link, whole or in pieces.
    fn pass(&mut self, now: u64, client: SocketAddr, datagram: &[u8]) {
        let recut = self.clients.get_mut(&client).and_then(|client| client.recut.as_mut());
        let Some(recut) = recut else {
            self.there.send(now, client, datagram);
            return;
        };
        let before = recut.pieces();
        let pieces = recut.datagram(datagram);
        self.pieces += recut.pieces() - before;
        for piece in pieces {
            self.there.send(now, client, &piece);
        }
    }
}

async fn read(socket: Arc<UdpSocket>, client: SocketAddr, come: mpsc::Sender<Back>) {
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error is the news of a target that is gone; it may come back.
        let Ok((len, from)) = socket.recv_from(&mut datagram).await else { continue };
        let _ = come.try_send((client, from, datagram[..len].to_vec()));
    }
}

/// Sends what is due, both ways.
async fn pass_on(near: &UdpSocket, shared: &Mutex<Shared>, now: u64) {
    let (there, back) = {
        let mut shared = lock(shared);
        let there = shared.there.deliver(now);
        let there: Vec<_> = there
            .into_iter()
            .filter_map(|(client, bytes)| Some((Arc::clone(&shared.clients.get(&client)?.socket), bytes)))
            .collect();
        ((shared.target, there), shared.back.deliver(now))
    };
    let (target, there) = there;
    // What cannot be sent is lost, as on any link.
    for (socket, bytes) in there {
        let _ = socket.send_to(&bytes, target).await;
    }
    for (client, bytes) in back {
        let _ = near.send_to(&bytes, client).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{PATIENCE, eventually, within};

    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut datagram = [0; 100];
            while let Ok((len, from)) = socket.recv_from(&mut datagram).await {
                let _ = socket.send_to(&datagram[..len], from).await;
            }
        });
        (at, task)
    }

    async fn receive(socket: &UdpSocket) -> Vec<u8> {
        let mut datagram = [0; 100];
        let (len, _) = within(PATIENCE, "a datagram", socket.recv_from(&mut datagram)).await.unwrap();
        datagram[..len].to_vec()
    }

    #[tokio::test]
    async fn it_passes_both_ways_and_keeps_clients_apart() {
        let (target, _echo) = echo().await;
        let proxy = UdpProxy::start(target, 1, Faults { delay: (0, 20), ..Faults::NONE }).await;
        let clients =
            [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        for (client, text) in clients.iter().zip([b"one", b"two"]) {
            client.send_to(text, proxy.address()).await.unwrap();
        }
        assert_eq!(receive(&clients[1]).await, b"two");
        assert_eq!(receive(&clients[0]).await, b"one");
        let seen = clients.each_ref().map(|client| proxy.seen_as(client.local_addr().unwrap()).unwrap());
        assert_ne!(seen[0], seen[1]);
    }

    #[tokio::test]
    async fn every_copy_of_what_is_not_lost_comes_back() {
        let (target, _echo) = echo().await;
        let there = Faults { loss: 0.5, duplicate: 0.5, delay: (0, 50), ..Faults::NONE };
        let proxy = UdpProxy::start(target, 5, Faults::NONE).await;
        proxy.set_each(there, Faults::NONE);
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for i in 0..100_u8 {
            client.send_to(&[i], proxy.address()).await.unwrap();
        }
        let (there, _) = eventually(PATIENCE, "all to be sent", async || {
            Some(proxy.counts()).filter(|(there, _)| there.sent == 100)
        })
        .await;
        assert!(there.lost > 20 && there.duplicated > 5, "{there:?}");
        for _ in 0..there.sent - there.lost + there.duplicated {
            receive(&client).await;
        }
        proxy.set(Faults::NONE);
        client.send_to(b"last", proxy.address()).await.unwrap();
        assert_eq!(receive(&client).await, b"last");
    }

    #[tokio::test]
    async fn a_rebound_client_comes_from_elsewhere() {
        let (target, _echo) = echo().await;
        let proxy = UdpProxy::start(target, 1, Faults::NONE).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            client.send_to(b"x", proxy.address()).await.unwrap();
            receive(&client).await;
            seen.push(proxy.seen_as(client.local_addr().unwrap()).unwrap());
            proxy.rebind();
        }
        seen.dedup();
        assert_eq!(seen.len(), 3);
    }

    #[tokio::test]
    async fn only_the_target_is_passed_on() {
        let (target, _echo) = echo().await;
        let proxy = UdpProxy::start(target, 1, Faults::NONE).await;
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"x", proxy.address()).await.unwrap();
        receive(&client).await;
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let seen = proxy.seen_as(client.local_addr().unwrap()).unwrap();
        stranger.send_to(b"forged", seen).await.unwrap();
        client.send_to(b"y", proxy.address()).await.unwrap();
        assert_eq!((receive(&client).await, proxy.strays()), (b"y".to_vec(), 1));
    }
}
