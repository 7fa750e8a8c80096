//! The sockets that devices come to.
//!
//! Owns: binding all of them before anything else starts, so that a port that is taken is found out at once; setting them
//! going before anything asks NATS, so that every device is answered at once. Does not own: what is spoken there.

use std::collections::BTreeMap;
use std::sync::Arc;

use landfall_coap::CoapServer;
use landfall_mqtt::MqttServer;
use landfall_net::{
    AcceptSettings, BindError, DatagramEndpoint, DatagramSettings, DatagramSocket, Datagrams, Gate, Listener,
    Network, Scope, Tls,
};
use landfall_udp::UdpServer;

use super::parts;
use crate::settings::Settings;

/// What serves them.
pub(super) struct Servers {
    pub(super) mqtt: Arc<MqttServer>,
    pub(super) coap: Arc<CoapServer>,
    pub(super) udp: Arc<UdpServer>,
}

/// Bound, and not served yet.
pub(super) struct Doors {
    mqtt: Vec<Listener>,
    coap: Vec<DatagramSocket>,
    udp: Vec<DatagramSocket>,
}

impl Doors {
    pub(super) async fn bind(settings: &Settings, tls: Option<&Arc<Tls>>) -> Result<Self, BindError> {
        let mut mqtt = Vec::new();
        let balancers: Arc<[Network]> = settings.mqtt.proxy_networks.as_slice().into();
        let origins = parts::origins(settings);
        for endpoint in &settings.mqtt.listen {
            let listener = Listener::bind(endpoint, tls.cloned()).await?.admitting(Arc::clone(&origins));
            let is_behind = settings.mqtt.proxy_protocol.contains(endpoint);
            mqtt.push(if is_behind { listener.behind(Arc::clone(&balancers)) } else { listener });
        }
        let coap = datagrams(&settings.coap.listen, settings.coap.datagrams()).await?;
        let udp = datagrams(&settings.udp.listen, settings.udp.datagrams()).await?;
        Ok(Self { mqtt, coap, udp })
    }

    /// Answers devices from now on, who are let in when the hub lets them; returns the addresses by protocol.
    pub(super) fn open(
        self,
        servers: &Servers,
        scope: &Scope,
        gate: &Arc<Gate>,
        settings: &Settings,
    ) -> BTreeMap<String, Vec<String>> {
        let accept = AcceptSettings { handshake_timeout: settings.tls.handshake_timeout };
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut tell = |protocol: &str, address: String| {
            let addresses = told.entry(protocol.to_owned()).or_default();
            // Sockets of one address share it.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        };
        for listener in self.mqtt {
            tell("mqtt", listener.endpoint().to_string());
            listener.run(scope, Arc::clone(&servers.mqtt), Arc::clone(gate), accept);
        }
        for socket in self.coap {
            tell("coap", socket.endpoint().to_string());
            servers.coap.serve(socket, scope);
        }
        for socket in self.udp {
            tell("udp", socket.endpoint().to_string());
            servers.udp.serve(socket, scope);
        }
        told
    }
}

async fn datagrams(
    endpoints: &[DatagramEndpoint],
    settings: DatagramSettings,
) -> Result<Vec<DatagramSocket>, BindError> {
    let mut sockets = Vec::new();
    for endpoint in endpoints {
        sockets.extend(Datagrams::bind(endpoint, settings).await?);
    }
    Ok(sockets)
}
