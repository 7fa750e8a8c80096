//! The wall clock stepped both ways under a running gateway.

use landfall_testkit::packet::Connect;
use landfall_testkit::streams::{CONNECTIVITY, stored};
use landfall_testkit::{Doors, Fleet, NatsServer, Plan, RawClient, Version};
use tempfile::TempDir;

use super::{all_is_well, on};

#[tokio::test]
async fn the_wall_clock_steps_both_ways() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let Some((settings, clock)) = on(&nats).with_a_clock_of_its_own() else { return };
    let gateway = settings.start().await;
    let mut quiet =
        RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "quiet").keep_alive(600)).await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 51, ..Plan::default() }, folder.path());
    for hours in [1, 0, -1, 2, -2, 0] {
        fleet.progresses(100).await;
        clock.set_offset(hours * 3_600);
    }
    fleet.progresses(100).await;
    // No silence was made of it.
    quiet.ping().await;
    let events = stored(&nats, CONNECTIVITY).await;
    assert!(!events.iter().any(|event| event.text("reason") == "keep-alive-timeout"));
    drop(quiet);
    let report = all_is_well(&nats, fleet, gateway).await;
    assert_eq!(report.count("gatewayLost"), 0, "and nobody counted as lost");
}
