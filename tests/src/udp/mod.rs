//! UDP devices and the real gateway: a whole presence inferred from datagrams, acks that mean stored, proof, commands, and
//! what an operator sees.

mod commands;
mod life;
mod operators;
mod proof;
mod store;
mod timing;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use landfall_testkit::recorder::Seen;
use landfall_testkit::udp::UdpDevice;
use landfall_testkit::{PATIENCE, World, eventually};
use serde_json::Value;

/// Devices that prove who they are.
const DEVICES: &str = r##"
[[device]]
id = "pump"
password = "plain:of-pump"
[[device]]
id = "valve"
password = "plain:of-valve"
[[device]]
id = "pump"
tenant = "acme"
password = "plain:of-acme"
"##;

/// A world whose devices must prove who they are, and where refusals are told soon.
async fn proven() -> World {
    World::with(|settings| settings.devices(DEVICES).set("events.refusal_interval", "200ms")).await
}

/// Waits until `count` refusals with this cause have been told, and holds that there are no more.
async fn assert_refused(world: &World, cause: &str, count: u64) {
    let told = || {
        let events = world.recorder.all();
        let of_cause =
            events.iter().filter(|event| event.kind() == "refused" && event.text("cause") == cause);
        of_cause.map(|event| event.number("count")).sum::<u64>()
    };
    world.recorder.find(PATIENCE, &format!("{count} x {cause}"), |_| told() >= count).await;
    assert_eq!(told(), count, "{cause}: {}", world.recorder.story());
    assert_eq!(metric(world, &format!("landfall_refused_total{{cause=\"{cause}\"}}")).await, count as f64);
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

/// The sessions as the admin interface lists them.
async fn sessions(world: &World) -> Vec<Value> {
    let body = world.gateway.get("/v1/sessions").await.body;
    let all: Value = serde_json::from_str(&body).unwrap();
    all["sessions"].as_array().cloned().unwrap_or_default()
}

/// Waits until everything has been seen that the gateway had published before.
async fn fence(world: &World) {
    let reply = world.command("nobody", "fence", &[]).await;
    let is_it = |event: &Seen| event.json["commandId"] == reply["commandId"];
    world.recorder.find(PATIENCE, "the fence", |event| event.kind() == "downstream" && is_it(event)).await;
}

/// The kinds of the connectivity events about a device up to now, in the order of their coming.
async fn story(world: &World, device: &str) -> Vec<String> {
    fence(world).await;
    let events = world.recorder.all();
    let about =
        events.iter().filter(|event| event.is_about(device) && event.subject.contains(".connectivity."));
    about.map(|event| event.kind().to_owned()).collect()
}

/// The ids of the sessions that events belong to.
fn session_ids<'a>(events: impl IntoIterator<Item = &'a Seen>) -> BTreeSet<String> {
    events.into_iter().map(|event| event.text("sessionId").to_owned()).collect()
}

/// Delivers one message, and finds it acknowledged.
async fn delivered(device: &mut UdpDevice, words: &str, payload: &str) {
    assert!(device.deliver(words, payload).await, "no ack for {words:?} {payload:?}");
}

/// The same port on another address of this machine.
fn on(host: [u8; 4], address: SocketAddr) -> SocketAddr {
    (host, address.port()).into()
}
