//! A TCP proxy that misbehaves as told: before the gateway it is a bad radio, before NATS a bad network.
//!
//! Owns: the path between two sockets. Does not own: either end. Its randomness is seeded, so that a fault comes again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy does to the bytes of every connection, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Holds them: both sides stay connected and hear nothing.
    Stall,
    /// Passes them on after a delay drawn anew for each piece, at most this long; order is kept.
    Delay(Duration),
    /// Passes one byte at a time, this far apart.
    Drip(Duration),
    /// Breaks every connection and takes no new one for longer than a moment.
    Cut,
}

/// A running proxy. Dropping it breaks every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts the cuts: a mode that is changed back at once could be missed, a count cannot.
    cuts: watch::Sender<u64>,
    target: watch::Sender<SocketAddr>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Starts one on a port of its own before `target`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound listener");
        let (mode, watch_mode) = watch::channel(Mode::Pass);
        let (cuts, watch_cuts) = watch::channel(0);
        let (target, watch_target) = watch::channel(target);
        let mut task = JoinSet::new();
        let orders = Orders { mode: watch_mode, cuts: watch_cuts, target: watch_target };
        task.spawn(accept(listener, orders, Seed(seed)));
        Self { address, mode, cuts, target, _task: task }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does; the connections that it has obey at once.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Cut {
            self.cut();
        }
    }

    /// Breaks every connection once; new ones are served.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Leads later connections elsewhere.
    pub fn retarget(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

/// A small generator with a seed (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64);

impl Seed {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }
}

/// What every connection listens to.
#[derive(Clone, Debug)]
struct Orders {
    mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
    target: watch::Receiver<SocketAddr>,
}

async fn accept(listener: TcpListener, orders: Orders, mut seed: Seed) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let seeds = (Seed(seed.draw()), Seed(seed.draw()));
        connections.spawn(serve(near, orders.clone(), seeds));
    }
}

async fn serve(near: TcpStream, mut orders: Orders, seeds: (Seed, Seed)) {
    orders.cuts.mark_unchanged();
    if *orders.mode.borrow() == Mode::Cut {
        return;
    }
    let target = *orders.target.borrow();
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let there = pass(near_in, far_out, orders.mode.clone(), seeds.0);
    let back = pass(far_in, near_out, orders.mode.clone(), seeds.1);
    let both = async { tokio::join!(there, back) };
    tokio::select! { _ = both => {}, _ = orders.cuts.changed() => {} }
}

/// Passes bytes one way until that way ends; an end is passed on as an end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    mut seed: Seed,
) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let Ok(n) = from.read(&mut chunk).await else { return };
        if n == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        let now = *mode.borrow();
        let written = match now {
            Mode::Drip(gap) => drip(&mut to, &chunk[..n], gap).await,
            Mode::Delay(most) => {
                let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
                tokio::time::sleep(Duration::from_micros(seed.below(most))).await;
                to.write_all(&chunk[..n]).await
            }
            Mode::Pass | Mode::Stall | Mode::Cut => to.write_all(&chunk[..n]).await,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn drip(to: &mut OwnedWriteHalf, bytes: &[u8], gap: Duration) -> std::io::Result<()> {
    for byte in bytes {
        to.write_all(&[*byte]).await?;
        tokio::time::sleep(gap).await;
    }
    Ok(())
}
