//! NATS away: channels stand, handshakes go on, nothing is acknowledged that is not stored.

use std::time::Duration;

use landfall_testkit::coap::code;
use landfall_testkit::dtls::DtlsClient;
use landfall_testkit::{CoapClient, PATIENCE, Pki, UdpDevice, World, eventually};

use super::{coap, delivered, metric, posted, pump, udp, valve, world};

async fn until_ready(world: &World, status: u16) {
    eventually(PATIENCE * 2, "a gateway that knows it", async || {
        (world.gateway.get("/readyz?store").await.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn channels_outlive_an_outage_of_the_store() {
    let pki = Pki::new();
    let mut world = world(&pki).await;
    let mut known = coap(world.gateway.coaps(), &pump()).await;
    posted(&mut known, "1").await;
    let known_udp = udp(world.gateway.udps(), &pump(), "pump").await;
    let mut known_udp = known_udp.timing(Duration::from_millis(200), 2);
    delivered(&mut known_udp, "hb=600", "1").await;
    world.nats.kill();
    until_ready(&world, 503).await;
    assert_eq!(known.post("t", &[], "lost").await.code, code(5, 3));
    assert!(!known_udp.deliver("hb=600", "kept until it is stored").await, "not stored, not acknowledged");
    // Who comes meanwhile shakes hands all the same.
    let mut new = CoapClient::secure(DtlsClient::connect(world.gateway.coaps(), &valve()).await, 1);
    assert_eq!(new.post("t", &[], "lost").await.code, code(5, 3));
    let new_udp = UdpDevice::secure(DtlsClient::connect(world.gateway.udps(), &valve()).await, "valve");
    let mut new_udp = new_udp.timing(Duration::from_millis(200), 2);
    assert!(!new_udp.deliver("hb=600", "kept or lost").await);
    world.nats.restart().await;
    until_ready(&world, 200).await;
    posted(&mut known, "2").await;
    posted(&mut new, "2").await;
    let mut known_udp = known_udp.timing(Duration::from_secs(1), 10);
    delivered(&mut known_udp, "hb=600", "2").await;
    let mut new_udp = new_udp.timing(Duration::from_secs(1), 10);
    delivered(&mut new_udp, "hb=600", "2").await;
    assert_eq!(
        metric(&world, "landfall_dtls_handshakes_established_total").await,
        4.0,
        "nobody had to come back"
    );
    assert_eq!(metric(&world, "landfall_dtls_sessions ").await, 4.0);
    world.close().await;
}
