//! What stands between a device and the protocol: balancers, web pages, small records.

use landfall_testkit::packet::{Connect, kind};
use landfall_testkit::{PATIENCE, RawClient, Version, World};

#[tokio::test]
async fn behind_a_balancer_events_and_refusals_have_the_devices_address() {
    let world = World::with(|settings| {
        settings
            .set("mqtt.proxy_protocol", vec!["tcp://127.0.0.1:0"])
            .set("mqtt.proxy_networks", vec!["127.0.0.0/8"])
            .set("events.refusal_interval", "200ms")
    })
    .await;
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\r\n";
    let mut client = RawClient::open(world.mqtt()).await;
    client.send(&[&header[..], &Connect::new(Version::V5, "far").encode()].concat()).await;
    assert_eq!(client.expect(kind::CONNACK).await.connack_code(), 0);
    let connected = world.recorder.expect("connected", "far").await;
    assert_eq!(connected.text("remoteAddress"), "192.0.2.7:40000");
    // A device that breaks the protocol is refused by its own address, and a balancer without a header by its own.
    let mut client = RawClient::open(world.mqtt()).await;
    client.send(&[&header[..], &[0xC0, 0x00]].concat()).await;
    client.until_closed().await;
    let refused = |address: &'static str| {
        world.recorder.find(PATIENCE, address, move |event| {
            event.kind() == "refused" && event.text("remoteAddress").starts_with(address)
        })
    };
    assert_eq!(refused("192.0.2.7").await.text("cause"), "malformed");
    let mut client = RawClient::open(world.mqtt()).await;
    let _ = client.try_send(&Connect::new(Version::V5, "near").encode()).await;
    client.until_closed().await;
    assert_eq!(refused("127.0.0.1").await.text("cause"), "malformed");
    world.gateway.process().logged("a balancer sent no PROXY header", PATIENCE).await;
    assert!(world.recorder.of("connected", "near").is_empty());
    world.close().await;
}
