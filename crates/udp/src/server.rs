//! The UDP server: what all its sockets share.
//!
//! Owns: settings, who waits for the store, the newest signed numbers. Does not own: one socket's loop (`door.rs`).

use std::sync::Arc;

use landfall_event::TenantId;
use landfall_hub::{Authenticator, Hub, Marker};
use landfall_net::{DatagramSocket, Path, Scope};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use slab::Slab;
use tokio::time::Instant;

use crate::UdpConfig;
use crate::door::Door;
use crate::guard::{Guard, Taken};
use crate::memo::Locals;
use crate::metrics::{Metrics, level};

/// Serves the `LF1` line on whatever sockets it is given.
#[derive(Debug)]
pub struct UdpServer {
    pub(crate) config: UdpConfig,
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<dyn Authenticator>,
    pub(crate) metrics: Metrics,
    pub(crate) guard: Guard,
    pub(crate) marker: Marker,
    pub(crate) locals: Locals,
    pub(crate) unstored: UnstoredTable,
    start: Instant,
    /// The tenant of a line that names none.
    pub(crate) tenant: TenantId,
    /// A datagram has no topic.
    pub(crate) no_topic: Arc<str>,
}

impl UdpServer {
    /// A server on this hub; registers its metrics.
    pub fn new(
        config: UdpConfig,
        hub: Arc<Hub>,
        auth: Arc<dyn Authenticator>,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::default();
        metrics.register(registry);
        #[expect(clippy::expect_used, reason = "a constant")]
        let tenant = "default".parse().expect("a valid tenant");
        Arc::new(Self {
            guard: Guard::new(config.max_signed_devices, config.retry_within),
            start: Instant::now(),
            marker: Marker::random(),
            locals: Locals::default(),
            unstored: UnstoredTable::new(config.max_unstored),
            tenant,
            no_topic: "".into(),
            config,
            hub,
            auth,
            metrics,
        })
    }

    /// Serves a socket in `scope`, with one task, until the scope is cancelled. Returns false when it has been.
    pub fn serve(self: &Arc<Self>, socket: DatagramSocket, scope: &Scope) -> bool {
        let stop = scope.token();
        scope.spawn(Door::new(Arc::clone(self), Arc::new(socket)).run(stop.cancelled_owned()))
    }

    /// Since this server was made.
    pub(crate) fn seconds(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// A number of a device that signs was dealt with.
    pub(crate) fn settle(&self, taken: Option<&Taken>) {
        taken.into_iter().for_each(|taken| self.guard.settle(taken));
    }

    /// A number of a device that signs was not dealt with.
    pub(crate) fn give_back(&self, taken: Option<&Taken>) {
        taken.into_iter().for_each(|taken| self.guard.give_back(taken));
    }
}

/// A datagram that is on its way to the store.
#[derive(Debug)]
pub(crate) struct Unstored {
    /// Where it came in: its ack leaves from there.
    pub(crate) socket: Arc<DatagramSocket>,
    pub(crate) path: Path,
    pub(crate) ack: bool,
    pub(crate) seq: Option<u64>,
    pub(crate) taken: Option<Taken>,
}

/// The datagrams that wait for the store and whose fate matters here. Of all sockets together, since the hub may tell any
/// socket of a device that has just moved from another.
#[derive(Debug)]
pub(crate) struct UnstoredTable {
    waiting: Mutex<Slab<Unstored>>,
    limit: usize,
}

impl UnstoredTable {
    fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), limit }
    }

    /// Keeps a datagram and returns its token; when there is no room, gives its number back.
    pub(crate) fn insert(&self, unstored: Unstored, metrics: &Metrics) -> Result<u64, Option<Taken>> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.limit {
            return Err(unstored.taken);
        }
        let token = waiting.insert(unstored);
        metrics.unstored.set(level(waiting.len()));
        Ok(u64::try_from(token).unwrap_or(u64::MAX))
    }

    /// Takes a datagram out; `None` when there is none of this token.
    pub(crate) fn remove(&self, token: u64, metrics: &Metrics) -> Option<Unstored> {
        let mut waiting = self.waiting.lock();
        let unstored = waiting.try_remove(usize::try_from(token).ok()?);
        metrics.unstored.set(level(waiting.len()));
        unstored
    }

    /// Does anything wait that came in at `socket`?
    pub(crate) fn has_of(&self, socket: &Arc<DatagramSocket>) -> bool {
        self.waiting.lock().iter().any(|(_, unstored)| Arc::ptr_eq(&unstored.socket, socket))
    }
}
