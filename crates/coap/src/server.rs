//! The CoAP server: what all its sockets share.
//!
//! Owns: settings, registrations, the way of news between sockets. Does not own: one socket's loop (`door.rs`).

use std::sync::Arc;

use landfall_channel::{ChannelConfig, ChannelMetrics, Channels};
use landfall_event::{TenantId, Transport};
use landfall_hub::{Authenticator, Hub, Marker};
use landfall_net::{DatagramKind, DatagramSocket, Scope};
use prometheus_client::registry::Registry;

use crate::CoapConfig;
use crate::door::Door;
use crate::metrics::Metrics;
use crate::registrations::Registrations;
use crate::stray::Strays;

/// Serves CoAP on whatever sockets it is given.
#[derive(Debug)]
pub struct CoapServer {
    pub(crate) config: CoapConfig,
    pub(crate) hub: Arc<Hub>,
    pub(crate) auth: Arc<dyn Authenticator>,
    pub(crate) metrics: Metrics,
    pub(crate) marker: Marker,
    pub(crate) registrations: Registrations,
    pub(crate) strays: Strays,
    /// What the sockets with secure channels share; without it there are none.
    channels: Option<(Arc<ChannelConfig>, ChannelMetrics)>,
    /// The tenant of a request that names none.
    pub(crate) tenant: TenantId,
}

impl CoapServer {
    /// A server on this hub; registers its metrics, but for those of the channels: they are shared. `channels` is what
    /// `dtls://` sockets need.
    pub fn new(
        config: CoapConfig,
        hub: Arc<Hub>,
        auth: Arc<dyn Authenticator>,
        channels: Option<(Arc<ChannelConfig>, ChannelMetrics)>,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::default();
        metrics.register(registry);
        hub.set_authenticator(Arc::clone(&auth));
        Arc::new(Self {
            marker: Marker::random(),
            registrations: Registrations::new(config.max_registrations, metrics.registrations.clone()),
            strays: Strays::default(),
            tenant: TenantId::default(),
            config,
            hub,
            auth,
            metrics,
            channels,
        })
    }

    /// Serves a socket in `scope`, with one task, until the scope is cancelled. Returns false when it has been, when the
    /// server has 65,535 sockets already, and for a `dtls://` socket where there are no channels to serve it with.
    pub fn serve(self: &Arc<Self>, socket: DatagramSocket, scope: &Scope) -> bool {
        let secure = match (socket.endpoint().kind(), &self.channels) {
            (DatagramKind::Udp, _) => None,
            (DatagramKind::Dtls, None) => return false,
            (DatagramKind::Dtls, Some((config, metrics))) => {
                let who = (Arc::clone(&self.hub), Arc::clone(&self.auth));
                Some(Channels::new(Arc::clone(config), who, Transport::Coaps, metrics.clone()))
            }
        };
        let Some(place) = self.strays.enter() else { return false };
        let stop = scope.token();
        let door = Door::new(Arc::clone(self), socket, secure, place);
        scope.spawn(async move { door.run(stop.cancelled()).await })
    }
}
