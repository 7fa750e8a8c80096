//! Ten thousand sessions that end at once: dropped, drained, and left behind by a killed gateway.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use landfall_testkit::packet::Connect;
use landfall_testkit::streams::{CONNECTIVITY, stored, stored_when};
use landfall_testkit::{Gateway, GatewayBuilder, NatsServer, RawClient, Version};

use super::replicas::ends;
use super::{close, judge, on};

pub(super) const CROWD: usize = 10_000;
/// In a debug build, beside other tests; a release build is measured by `scripts/figures.sh`.
const DROPPED_WITHIN: Duration = Duration::from_secs(15);

pub(super) fn roomy(nats: &NatsServer) -> GatewayBuilder {
    on(nats)
        .set("mqtt.max_connections", 20_000)
        .set("mqtt.max_connections_per_address", 20_000)
        .set("drain_timeout", "20s")
}

pub(super) async fn crowd(gateway: &Gateway) -> Vec<RawClient> {
    let address = gateway.mqtt("tcp");
    let connect = |n: usize| async move {
        RawClient::accepted(address, &Connect::new(Version::V4, format!("c{n}")).keep_alive(600)).await
    };
    stream::iter(0..CROWD).map(connect).buffer_unordered(100).collect().await
}

#[tokio::test]
async fn ten_thousand_dropped_at_once() {
    let nats = NatsServer::start().await;
    let gateway = roomy(&nats).start().await;
    let clients = crowd(&gateway).await;
    let at = Instant::now();
    drop(clients);
    let all = |events: &[_]| ends(events, "connection-lost") >= CROWD;
    stored_when(&nats, CONNECTIVITY, "ten thousand ends", all).await;
    assert!(at.elapsed() < DROPPED_WITHIN, "{:?}", at.elapsed());
    close(&gateway).await;
    judge(&nats, &[]).await;
}

#[tokio::test]
async fn ten_thousand_drained() {
    let nats = NatsServer::start().await;
    let gateway = roomy(&nats).start().await;
    let clients = crowd(&gateway).await;
    let at = Instant::now();
    close(&gateway).await;
    assert!(at.elapsed() < Duration::from_secs(20), "within drain_timeout: {:?}", at.elapsed());
    let events = stored(&nats, CONNECTIVITY).await;
    assert_eq!(ends(&events, "gateway-draining"), CROWD);
    let told = events.iter().filter(|event| event.kind() == "disconnected").count();
    assert!(told < CROWD / 50, "many in one event: {told}");
    drop(clients);
    judge(&nats, &[]).await;
}

#[tokio::test]
async fn ten_thousand_of_a_killed_gateway_are_closed_before_it_is_ready_again() {
    let nats = NatsServer::start().await;
    let mut gateway = roomy(&nats).start().await;
    let clients = crowd(&gateway).await;
    gateway.kill();
    let gateway = gateway.restart().await;
    // It is ready, so there is nothing to wait for.
    assert_eq!(ends(&stored(&nats, CONNECTIVITY).await, "gateway-lost"), CROWD);
    drop(clients);
    close(&gateway).await;
    judge(&nats, &[]).await;
}

#[tokio::test]
async fn ten_thousand_of_a_killed_replica_are_closed_by_the_other() {
    let nats = NatsServer::start().await;
    let mut gateway = roomy(&nats).set("instance.replica", "a1").start().await;
    let other = roomy(&nats).set("instance.replica", "b1").start().await;
    let clients = crowd(&gateway).await;
    gateway.kill();
    let at = Instant::now();
    let all = |events: &[_]| ends(events, "gateway-lost") >= CROWD;
    stored_when(&nats, CONNECTIVITY, "ten thousand ends", all).await;
    assert!(at.elapsed() < Duration::from_secs(1 + 5), "the lease and five seconds: {:?}", at.elapsed());
    drop(clients);
    close(&other).await;
    judge(&nats, &[]).await;
}
