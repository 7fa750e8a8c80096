//! A disk that has no room for what cannot be published.

use landfall_testkit::packet::Connect;
use landfall_testkit::{Doors, Fleet, NatsServer, PATIENCE, Plan, RawClient, Version, eventually};
use tempfile::TempDir;

use super::{all_is_well, on};

#[tokio::test]
async fn the_disk_of_the_spool_is_full() {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let Some(settings) = on(&nats).set("nats.spool_limit", "64MiB").on_small_disk("spool", 512 << 10) else {
        return;
    };
    let gateway = settings.start().await;
    let plan = Plan { mqtt: 30, coap: 10, udp: 10, seed: 41, ..Plan::default() };
    let fleet = Fleet::start(Doors::of(&gateway), plan, folder.path());
    let mut there = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "there")).await;
    fleet.progresses(200).await;
    nats.kill();
    let full = "the spool takes no more";
    gateway.process().logged(full, PATIENCE * 3).await;
    // It lives, and keep-alives are answered.
    there.ping().await;
    nats.restart().await;
    fleet.progresses(300).await;
    there.ping().await;
    drop(there);
    eventually(PATIENCE, "an empty spool", async || {
        let kept = gateway.metrics("landfall_spool_events").await;
        kept.first().is_some_and(|(_, count)| *count == 0.0).then_some(())
    })
    .await;
    all_is_well(&nats, fleet, gateway).await;
}
