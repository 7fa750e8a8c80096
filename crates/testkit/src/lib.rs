//! Landfall's test kit: the real gateway and a real nats-server as processes, devices that speak MQTT well and badly, and
//! recorders that hold what they saw against the contract.
//!
//! Owns: starting, breaking and ending what a test needs, and the wire's contract as an outsider reads it.
//! Does not own: any part of the gateway. Nothing here uses the gateway's own code to judge it; what an event must look
//! like is written down a second time in [`contract`] on purpose.
//!
//! Everything waits for an event under a deadline. Where there is no event to wait for (a file that appears, an HTTP
//! answer that changes), it asks again at a short interval, never by a fixed sleep.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test kit fails a test by panicking and says so on stderr"
)]

pub mod carrier;
pub mod coap;
pub mod contract;
pub mod device;
pub mod dtls;
pub mod fleet;
pub mod forged;
pub mod gateway;
pub mod http;
pub mod interop;
pub mod ledger;
pub mod link;
pub mod nats;
pub mod packet;
pub mod paths;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod recorder;
pub mod streams;
pub mod udp;
pub mod udp_proxy;
pub mod verify;
pub mod wait;
pub mod websocket;
pub mod wiretap;
pub mod world;

pub use coap::CoapClient;
pub use device::{Device, Version};
pub use dtls::{DtlsClient, Secret};
pub use fleet::{Doors, Fleet, Plan};
pub use gateway::{Gateway, GatewayBuilder};
pub use link::{Faults, Link};
pub use nats::NatsServer;
pub use pki::Pki;
pub use proxy::{Mode, Proxy};
pub use raw::RawClient;
pub use recorder::{Recorder, Seen};
pub use udp::UdpDevice;
pub use udp_proxy::UdpProxy;
pub use wait::{PATIENCE, eventually, within};
pub use world::World;
