//! Devices that speak the `LF1` line, many from one socket.
//!
//! Owns: their names and lines, what is under way, sending again what was lost. Does not own: what they say when.
//!
//! The loop is closed by acks: a socket's datagrams are read in the order in which they were sent, so the ack of one tells
//! that all before it were taken or lost. No more are under way than the listener's socket buffer holds.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::line::acked;
use crate::progress::Counters;

/// A datagram without an ack for so long is sent again.
const AGAIN: Duration = Duration::from_millis(250);
/// No ack at all for so long: nobody is there.
const DEAF: Duration = Duration::from_secs(15);
/// While the devices are held back.
const REST: Duration = Duration::from_millis(2);
/// In a storm of heartbeats, every so many datagrams one asks for an ack.
const MARK: usize = 32;
/// Numbers of one round; a late ack of the round before is told apart by them.
const ROUND: u64 = 10_000_000;
const NAME: &str = "meter-";

/// Devices 0..n and the sockets that they speak from.
#[derive(Debug)]
pub(crate) struct Flock {
    sockets: Vec<Arc<UdpSocket>>,
    devices: u32,
    /// Datagrams under way, per socket.
    window: usize,
    pause: Arc<AtomicBool>,
    /// Acks that came.
    acks: Arc<Counters>,
}

/// What a delivery took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Datagrams that were sent again.
    pub(crate) again: u64,
}

/// Devices that said their last word at about the same time.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) devices: Range<u32>,
    /// The seconds of their `hb`.
    pub(crate) heartbeat: u32,
    /// Unix ms, from the first datagram to the last ack.
    pub(crate) heard: RangeInclusive<u64>,
    pub(crate) again: u64,
}

impl Burst {
    /// The silence that ends these devices' sessions, in ms.
    pub(crate) fn silence_ms(&self) -> u64 {
        u64::from(self.heartbeat) * 1_500
    }
}

/// The number of the device of this name.
pub(crate) fn device(name: &str) -> Option<u32> {
    name.strip_prefix(NAME)?.parse().ok()
}

/// Writes a heartbeat; with a number it asks for an ack.
fn put_heartbeat(out: &mut Vec<u8>, device: u32, heartbeat: u32, seq: Option<u64>) -> io::Result<()> {
    out.clear();
    write!(out, "LF1 {NAME}{device:07} hb={heartbeat}")?;
    if let Some(seq) = seq {
        write!(out, " seq={seq} ack")?;
    }
    Ok(())
}

/// Waits for acks up to `patience` and hands out their numbers; false when none came.
async fn take_acks(
    socket: &UdpSocket,
    patience: Duration,
    mut take: impl FnMut(u64),
) -> Result<bool, io::Error> {
    if tokio::time::timeout(patience, socket.readable()).await.is_err() {
        return Ok(false);
    }
    let (mut buffer, mut any) = ([0; 128], false);
    loop {
        match socket.try_recv(&mut buffer) {
            Ok(length) => {
                if let Some(seq) = acked(buffer.get(..length).unwrap_or_default()) {
                    any = true;
                    take(seq);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(error) => return Err(error),
        }
    }
}

impl Flock {
    pub(crate) async fn open(
        server: SocketAddr,
        devices: u32,
        sockets: u16,
        window: usize,
    ) -> Result<Self, String> {
        let any = match server.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut open = Vec::new();
        for _ in 0..sockets {
            let failed = |error: io::Error| format!("a socket towards {server}: {error}");
            let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
            socket.connect(server).await.map_err(failed)?;
            open.push(Arc::new(socket));
        }
        let window = (window / open.len()).max(1);
        Ok(Self { sockets: open, devices, window, pause: Arc::default(), acks: Counters::new()? })
    }

    /// While it is true, nobody whose datagram is not under way speaks.
    pub(crate) fn pause(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.pause)
    }

    /// Counts the acks, for the progress line.
    pub(crate) fn acks(&self) -> &Arc<Counters> {
        &self.acks
    }

    /// One heartbeat of each of `devices`, sent again until it is acked.
    pub(crate) async fn deliver(
        &self,
        devices: Range<u32>,
        heartbeat: u32,
        round: u64,
    ) -> Result<Delivered, String> {
        let each = u32::try_from(self.sockets.len()).unwrap_or(1);
        let mut running = JoinSet::new();
        for (n, socket) in (0..).zip(&self.sockets) {
            // Those that are n modulo the number of sockets.
            let first = devices.start + (n + each - devices.start % each) % each;
            let own = (first..devices.end).step_by(each as usize);
            let courier = Courier {
                socket: Arc::clone(socket),
                heartbeat,
                first_seq: round * ROUND + 1,
                waiting: HashMap::with_capacity(self.window),
                out: Vec::with_capacity(128),
                again: 0,
                acks: Arc::clone(&self.acks),
            };
            running.spawn(courier.run(own, self.window, self.pause()));
        }
        let mut delivered = Delivered::default();
        while let Some(done) = running.join_next().await {
            delivered.again += done.map_err(|error| error.to_string())??;
        }
        Ok(delivered)
    }

    /// Heartbeats of everybody in turn until `stop`. Returns how often a socket's marks were lost and it went on without.
    pub(crate) async fn storm(&self, heartbeat: u32, stop: Arc<AtomicBool>) -> Result<u64, String> {
        let each = self.sockets.len();
        let mut running = JoinSet::new();
        for (n, socket) in (0..).zip(&self.sockets) {
            let own = (n..self.devices).step_by(each);
            let marks = u64::try_from((self.window / MARK).max(1)).unwrap_or(1);
            running.spawn(storm(Arc::clone(socket), own, heartbeat, marks, Arc::clone(&stop)));
        }
        let mut stalls = 0;
        while let Some(done) = running.join_next().await {
            stalls += done.map_err(|error| error.to_string())??;
        }
        Ok(stalls)
    }
}

/// One socket's part of a delivery.
struct Courier {
    socket: Arc<UdpSocket>,
    heartbeat: u32,
    first_seq: u64,
    /// Devices whose heartbeat was sent and not acked, and when it was sent last.
    waiting: HashMap<u32, Instant>,
    out: Vec<u8>,
    again: u64,
    acks: Arc<Counters>,
}

impl Courier {
    async fn run(
        mut self,
        devices: impl Iterator<Item = u32>,
        window: usize,
        pause: Arc<AtomicBool>,
    ) -> Result<u64, String> {
        let mut devices = devices.peekable();
        let (mut heard, mut looked) = (Instant::now(), Instant::now());
        while devices.peek().is_some() || !self.waiting.is_empty() {
            let is_paused = pause.load(Ordering::Relaxed);
            while !is_paused
                && self.waiting.len() < window
                && let Some(device) = devices.next()
            {
                self.send(device).await?;
            }
            if self.waiting.is_empty() {
                tokio::time::sleep(REST).await;
                heard = Instant::now();
                continue;
            }
            let Self { socket, waiting, first_seq, acks, .. } = &mut self;
            let take = |seq: u64| {
                let device = seq.checked_sub(*first_seq).and_then(|n| u32::try_from(n).ok());
                if device.and_then(|device| waiting.remove(&device)).is_some() {
                    acks.add_done(1);
                }
            };
            if take_acks(socket, AGAIN / 4, take).await.map_err(|error| self.failed(&error))? {
                heard = Instant::now();
            } else if heard.elapsed() > DEAF {
                return Err(format!("no ack within {} s", DEAF.as_secs()));
            }
            if looked.elapsed() > AGAIN / 4 {
                looked = Instant::now();
                self.send_again().await?;
            }
        }
        Ok(self.again)
    }

    async fn send_again(&mut self) -> Result<(), String> {
        let old: Vec<u32> =
            self.waiting.iter().filter(|(_, at)| at.elapsed() > AGAIN).map(|(device, _)| *device).collect();
        for device in old {
            self.again += 1;
            self.send(device).await?;
        }
        Ok(())
    }

    async fn send(&mut self, device: u32) -> Result<(), String> {
        let seq = self.first_seq + u64::from(device);
        put_heartbeat(&mut self.out, device, self.heartbeat, Some(seq))
            .map_err(|error| self.failed(&error))?;
        self.socket.send(&self.out).await.map_err(|error| self.failed(&error))?;
        self.waiting.insert(device, Instant::now());
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> String {
        failed(&self.socket, error)
    }
}

fn failed(socket: &UdpSocket, error: &io::Error) -> String {
    let to = socket.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    format!("UDP to {to}: {error}")
}

async fn storm(
    socket: Arc<UdpSocket>,
    devices: impl Iterator<Item = u32> + Clone,
    heartbeat: u32,
    marks: u64,
    stop: Arc<AtomicBool>,
) -> Result<u64, String> {
    let mut out = Vec::with_capacity(128);
    let mut devices = devices.cycle();
    // Marks of this round that were sent, and the newest that was acked.
    let (mut sent, mut acked, mut stalls) = (0, 0, 0);
    let base = 2 * ROUND;
    let broken = |error: io::Error| failed(&socket, &error);
    while !stop.load(Ordering::Relaxed) {
        for n in 1..=MARK {
            let Some(device) = devices.next() else { return Ok(stalls) };
            let seq = (n == MARK).then(|| {
                sent += 1;
                base + sent
            });
            put_heartbeat(&mut out, device, heartbeat, seq).map_err(broken)?;
            socket.send(&out).await.map_err(broken)?;
        }
        while sent - acked >= marks {
            let take = |seq: u64| acked = acked.max(seq.saturating_sub(base).min(sent));
            if !take_acks(&socket, AGAIN, take).await.map_err(broken)? {
                stalls += 1;
                acked = sent;
            }
        }
    }
    Ok(stalls)
}

#[cfg(test)]
#[path = "flock_tests.rs"]
mod tests;
