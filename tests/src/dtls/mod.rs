//! CoAP and UDP under DTLS end to end: stacks that others wrote, who is let in, presence, handshakes by the thousand and on
//! bad ways.

mod churn;
mod commands;
mod identities;
mod outage;
mod pieces;
mod presence;
mod records;
mod refusals;
mod restart;
mod stacks;
mod state;

use std::net::SocketAddr;

use landfall_testkit::coap::code;
use landfall_testkit::dtls::{DtlsClient, Secret};
use landfall_testkit::interop::dtls::hex;
use landfall_testkit::{CoapClient, GatewayBuilder, PATIENCE, Pki, UdpDevice, World, eventually};
use serde_json::Value;

/// The key of `pump`, of `pump` of the tenant `acme`, and of `valve`. Text, because libcoap's programs take no other.
const PUMP: &[u8] = b"pump-key-16bytes";
const ACME: &[u8] = b"acme-key-16bytes";
const VALVE: &[u8] = b"valve-key-16byte";

/// Three devices with keys, one with a certificate's name, and one with a password, which is nothing to DTLS.
fn devices() -> String {
    let psk = |id: &str, more: &str, key: &[u8]| {
        format!("[[device]]\nid = \"{id}\"\n{more}\npsk = \"{}\"\n", hex(key))
    };
    [
        psk("pump", "", PUMP),
        psk("pump", "tenant = \"acme\"", ACME),
        psk("valve", "password = \"plain:v-key\"", VALVE),
        "[[device]]\nid = \"meter\"\ncertificate = \"meter's own\"\n".to_owned(),
        "[[device]]\nid = \"plain\"\npassword = \"plain:p-key\"\n".to_owned(),
    ]
    .concat()
}

fn pump() -> Secret {
    Secret::psk("pump", PUMP)
}

fn valve() -> Secret {
    Secret::psk("valve", VALVE)
}

/// Listeners of both kinds under DTLS, a certificate, devices that must prove who they are, refusals told soon.
fn settings(settings: GatewayBuilder, pki: &Pki) -> GatewayBuilder {
    let settings = settings.coap_dtls().udp_dtls().dtls(pki);
    settings.devices(&devices()).set("events.refusal_interval", "200ms")
}

async fn world(pki: &Pki) -> World {
    World::with(|builder| settings(builder, pki)).await
}

/// A UDP device on a channel of its own.
async fn udp(at: SocketAddr, secret: &Secret, name: &str) -> UdpDevice {
    UdpDevice::secure(DtlsClient::connect(at, secret).await, name)
}

/// A CoAP device on a channel of its own.
async fn coap(at: SocketAddr, secret: &Secret) -> CoapClient {
    CoapClient::secure(DtlsClient::connect(at, secret).await, 1)
}

/// Delivers one message of a UDP device, and finds it acknowledged.
async fn delivered(device: &mut UdpDevice, words: &str, payload: &str) {
    assert!(device.deliver(words, payload).await, "no ack for {words:?} {payload:?}");
}

/// Posts one message of a CoAP device that is named by its channel, and finds it stored.
async fn posted(device: &mut CoapClient, payload: &str) {
    assert_eq!(device.post("t", &[], payload).await.code, code(2, 4), "{payload}");
}

/// The sum of the samples whose name and labels begin so.
async fn metric(world: &World, prefix: &str) -> f64 {
    world.gateway.metrics(prefix).await.iter().map(|(_, value)| value).sum()
}

/// Waits until a metric has this value.
async fn until_metric(world: &World, name: &str, value: f64) {
    eventually(PATIENCE, &format!("{name} = {value}"), async || {
        (metric(world, name).await == value).then_some(())
    })
    .await;
}

/// How many refusals with this cause and transport have been told.
fn told(world: &World, cause: &str, transport: &str) -> u64 {
    let events = world.recorder.all();
    let of_cause = events.iter().filter(|event| {
        event.kind() == "refused" && event.text("cause") == cause && event.text("transport") == transport
    });
    of_cause.map(|event| event.number("count")).sum()
}

/// Waits until so many refusals with this cause have been told, and holds that there are no more.
async fn assert_refused(world: &World, cause: &str, transport: &str, count: u64) {
    let what = format!("{count} x {cause} over {transport}");
    world.recorder.find(PATIENCE, &what, |_| told(world, cause, transport) >= count).await;
    assert_eq!(told(world, cause, transport), count, "{cause}: {}", world.recorder.story());
}

/// The sessions as the admin interface lists them.
async fn sessions(world: &World) -> Vec<Value> {
    let body = world.gateway.get("/v1/sessions").await.body;
    let all: Value = serde_json::from_str(&body).unwrap();
    all["sessions"].as_array().cloned().unwrap_or_default()
}
