//! The UDP server: what all its sockets share.
//!
//! Owns: settings, and one of each thing that all sockets look at. Does not own: one socket's loop (`door.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use landfall_channel::{ChannelConfig, ChannelMetrics, Channels};
use landfall_event::{TenantId, Transport};
use landfall_hub::{Authenticator, Hub, Marker};
use landfall_net::{DatagramKind, DatagramSocket, Scope};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::UdpConfig;
use crate::door::Door;
use crate::guard::{Guard, Taken};
use crate::memo::Locals;
use crate::metrics::Metrics;
use crate::secure::{Bond, Secure};
use crate::unstored::UnstoredTable;

/// Serves the `LF1` line on whatever sockets it is given.
#[derive(Debug)]
pub struct UdpServer {
    pub(crate) config: UdpConfig,
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<dyn Authenticator>,
    pub(crate) metrics: Metrics,
    pub(crate) guard: Guard,
    pub(crate) marker: Marker,
    /// Tells a datagram from another one with the same ack.
    pub(crate) prints: ahash::RandomState,
    pub(crate) locals: Locals,
    pub(crate) unstored: UnstoredTable,
    start: Instant,
    channels: Option<(Arc<ChannelConfig>, ChannelMetrics)>,
    /// Sockets with channels, so far.
    secured: AtomicUsize,
    /// The tenant of a line that names none.
    pub(crate) tenant: TenantId,
    /// A datagram has no topic.
    pub(crate) no_topic: Arc<str>,
}

impl UdpServer {
    /// A server on this hub; registers its metrics, but for those of the channels: they are shared. `channels` is what
    /// `dtls://` sockets need.
    pub fn new(
        config: UdpConfig,
        hub: Arc<Hub>,
        auth: Arc<dyn Authenticator>,
        channels: Option<(Arc<ChannelConfig>, ChannelMetrics)>,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::default();
        metrics.register(registry);
        hub.set_authenticator(Arc::clone(&auth));
        Arc::new(Self {
            guard: Guard::new(config.max_signed_devices, config.retry_within),
            start: Instant::now(),
            channels,
            secured: AtomicUsize::new(0),
            marker: Marker::random(),
            prints: ahash::RandomState::new(),
            locals: Locals::default(),
            unstored: UnstoredTable::new(config.max_unstored),
            tenant: TenantId::default(),
            no_topic: "".into(),
            config,
            hub,
            auth,
            metrics,
        })
    }

    /// Serves a socket in `scope`, with one task, until the scope is cancelled. Returns false when it has been, and for a
    /// `dtls://` socket where there is nothing to serve it with: no channels, or 65,535 such sockets already.
    pub fn serve(self: &Arc<Self>, socket: DatagramSocket, scope: &Scope) -> bool {
        let secure = match socket.endpoint().kind() {
            DatagramKind::Udp => None,
            DatagramKind::Dtls => match self.secure() {
                Some(secure) => Some(secure),
                None => return false,
            },
        };
        let stop = scope.token();
        scope.spawn(Door::new(Arc::clone(self), Arc::new(socket), secure).run(stop.cancelled_owned()))
    }

    /// The channels of one more socket.
    fn secure(&self) -> Option<Secure> {
        let (config, metrics) = self.channels.as_ref()?;
        let number = u16::try_from(self.secured.fetch_add(1, Ordering::Relaxed)).ok()?;
        let (hub, auth) = (Arc::clone(&self.hub), Arc::clone(&self.auth));
        let channels: Channels<Bond> =
            Channels::new(Arc::clone(config), (hub, auth), Transport::Dtls, metrics.clone());
        Some(Secure { number, channels })
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
