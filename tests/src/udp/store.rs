//! An ack means stored: with NATS slow or gone, and over a link that loses, doubles, delays and corrupts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::udp::UdpDevice;
use landfall_testkit::wiretap::Wiretap;
use landfall_testkit::{
    Faults, Gateway, Mode, NatsServer, PATIENCE, Proxy, Recorder, UdpProxy, World, eventually,
};

use super::{DEVICES, delivered, metric, story, until_metric};

/// Long enough to see that something does not happen, where nothing can say that it will not.
const A_WHILE: Duration = Duration::from_millis(500);

/// The payloads of a device's stored messages, in the stream's order.
async fn payloads(nats: &NatsServer, device: &str) -> Vec<u64> {
    let events = stored(nats, MESSAGES).await;
    let of_device = events.iter().filter(|event| event.kind() == "upstream" && event.is_about(device));
    of_device.map(|event| event.number("payload")).collect()
}

/// A world whose gateway reaches NATS through a proxy.
async fn far_from_nats() -> (World, Proxy) {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], nats.port())), 11).await;
    let recorder = Recorder::start(&nats).await;
    let wiretap = Wiretap::start(&nats).await;
    let client = nats.client().await;
    let settings = Gateway::builder().devices(DEVICES).set("nats.url", format!("nats://{}", proxy.address()));
    let gateway = settings.start().await;
    (World { gateway, recorder, wiretap, client, nats }, proxy)
}

#[tokio::test]
async fn no_ack_leaves_before_the_store_has_it() {
    let (world, proxy) = far_from_nats().await;
    let mut pump = UdpDevice::new(world.gateway.udp(), "pump").await.signing("of-pump");
    let mut valve = UdpDevice::new(world.gateway.udp(), "valve").await.key("of-valve");
    delivered(&mut pump, "hb=60", "1").await;
    delivered(&mut valve, "hb=60", "1").await;
    proxy.set(Mode::Stall);
    pump.send("ack", "2").await;
    valve.send("ack", "2").await;
    until_metric(&world, "landfall_udp_unstored", 2.0).await;
    // The signed one is sent again meanwhile, and is neither stored nor acknowledged for that.
    for _ in 0..3 {
        pump.repeat().await;
    }
    until_metric(&world, "landfall_udp_retransmitted_total", 3.0).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(pump.waiting().is_empty() && valve.waiting().is_empty(), "told before it was true");
    assert_eq!(payloads(&world.nats, "pump").await, [1]);
    proxy.set(Mode::Pass);
    for device in [&mut pump, &mut valve] {
        assert_eq!(device.receive_raw().await, b"LF1 ack seq=2");
    }
    // Its ack may have been lost: the same bytes are acknowledged again, from memory.
    pump.repeat().await;
    assert_eq!(pump.receive_raw().await, b"LF1 ack seq=2");
    assert_eq!(payloads(&world.nats, "pump").await, [1, 2]);
    assert_eq!(payloads(&world.nats, "valve").await, [1, 2]);
    until_metric(&world, "landfall_udp_unstored", 0.0).await;
    world.close().await;
}

#[tokio::test]
async fn while_nats_is_gone_nothing_is_acknowledged_and_nobody_new_is_admitted() {
    let mut world = World::with(|settings| settings.devices(DEVICES).set("nats.when_away", "refuse")).await;
    let at = world.gateway.udp();
    let mut known = UdpDevice::new(at, "pump").await.signing("of-pump");
    let mut new = UdpDevice::new(at, "valve").await.signing("of-valve");
    let (again, patiently) = (Duration::from_millis(100), 150);
    delivered(&mut known, "hb=60", "1").await;
    world.nats.kill();
    eventually(PATIENCE, "not ready", async || {
        (world.gateway.get("/readyz?store").await.status == 503).then_some(())
    })
    .await;
    known.send("ack", "").await;
    new.send("ack", "1").await;
    until_metric(&world, "landfall_udp_dropped_total{reason=\"away\"}", 1.0).await;
    until_metric(&world, "landfall_udp_datagrams_total", 3.0).await;
    assert!(known.waiting().is_empty() && new.waiting().is_empty());
    let mut known = known.timing(again, patiently);
    let mut new = new.timing(again, patiently);
    let sending = async {
        for n in 2..=4 {
            delivered(&mut known, "", &n.to_string()).await;
        }
    };
    let beginning = delivered(&mut new, "", "2");
    let restarting = async {
        // Something has come by then that must wait.
        until_metric_of(&world.gateway, "landfall_udp_unstored", 1.0).await;
        world.nats.restart().await;
    };
    tokio::join!(sending, beginning, restarting);
    assert_eq!(payloads(&world.nats, "pump").await, [1, 2, 3, 4], "each once, in order");
    assert_eq!(payloads(&world.nats, "valve").await, [2], "what had no ack and was given up is not there");
    assert!(world.recorder.of("disconnected", "pump").is_empty());
    world.close().await;
}

async fn until_metric_of(gateway: &Gateway, name: &str, value: f64) {
    eventually(PATIENCE, name, async || {
        gateway.metrics(name).await.iter().any(|(_, now)| *now == value).then_some(())
    })
    .await;
}

/// Sends 1 to `count` one after the other, each until it is acknowledged, and says goodbye.
async fn say_all(device: &mut UdpDevice, count: u64) {
    for n in 1..=count {
        delivered(device, "hb=60", &n.to_string()).await;
    }
    delivered(device, "bye", "").await;
}

#[tokio::test]
async fn over_a_bad_link_what_is_signed_is_stored_once_and_what_is_acknowledged_is_stored() {
    const COUNT: u64 = 20;
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    // A way back that corrupts would tell a device what nobody said: nothing signs acks.
    let back = Faults { loss: 0.2, duplicate: 0.2, corrupt: 0.0, delay: (0, 120) };
    let rough = UdpProxy::start(world.gateway.udp(), 3, back).await;
    rough.set_each(Faults { corrupt: 0.15, ..back }, back);
    let lossy = UdpProxy::start(world.gateway.udp(), 4, back).await;
    let device = async |at: &UdpProxy, name| {
        UdpDevice::new(at.address(), name).await.timing(Duration::from_millis(60), 250)
    };
    let mut pump = device(&rough, "pump").await.signing("of-pump");
    let mut valve = device(&rough, "valve").await.signing("of-valve");
    let mut acme = device(&lossy, "pump").await.tenant("acme").key("of-acme");
    let rebinding = async {
        // In the middle, a NAT forgets everybody.
        world.recorder.expect_count("upstream", "valve", 8).await;
        rough.rebind();
    };
    tokio::join!(say_all(&mut pump, COUNT), say_all(&mut valve, COUNT), say_all(&mut acme, COUNT), rebinding);
    let events = stored(&world.nats, MESSAGES).await;
    let of = |device: &str, tenant: &str| -> Vec<u64> {
        let found = events.iter().filter(|event| event.is_about(device) && event.text("tenant") == tenant);
        found.map(|event| event.number("payload")).collect()
    };
    let all: Vec<u64> = (1..=COUNT).collect();
    assert_eq!(of("pump", "default"), all, "signed: each once, in order");
    assert_eq!(of("valve", "default"), all);
    let unsigned = of("pump", "acme");
    assert_eq!(
        unsigned.iter().copied().collect::<BTreeSet<_>>(),
        all.iter().copied().collect(),
        "none is missing"
    );
    assert!(unsigned.len() > all.len(), "the link doubled some, and nothing tells these from new ones");
    // One session each, wherever the datagrams seemed to come from; an old copy after the goodbye began none.
    let valve_story = story(&world, "valve").await;
    assert_eq!(
        valve_story.iter().filter(|kind| *kind != "moved").collect::<Vec<_>>(),
        ["connected", "disconnected"]
    );
    assert!(valve_story.iter().any(|kind| kind == "moved"), "{valve_story:?}");
    assert_eq!(world.recorder.ends("valve", "udp")[0].text("reason"), "client-closed");
    let (there, returning) = rough.counts();
    assert!(
        there.lost > 0 && there.duplicated > 0 && there.corrupted > 0 && there.overtaken > 0,
        "{there:?}"
    );
    assert!(returning.lost > 0, "{returning:?}");
    assert!(metric(&world, "landfall_refused_total").await > 0.0, "what was corrupted was refused");
    world.close().await;
}
