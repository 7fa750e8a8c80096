//! The gateway killed, and ended in order, while devices send.

use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{Doors, Fleet, NatsServer, Plan, eventually};
use tempfile::TempDir;

use super::{all_is_well, close, judge, on};

#[tokio::test]
async fn kill_9_of_the_gateway_in_a_loop() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let mut gateway = on(&nats).start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 11, ..Plan::default() }, folder.path());
    for _ in 0..6 {
        fleet.progresses(120).await;
        gateway.kill();
        // Ready only when what the one before left open is closed.
        gateway = gateway.restart().await;
        let open = landfall_testkit::verify::verify(&nats.url(), &[]).await;
        assert!(open.is_well, "right after the restart: {}", open.json);
        fleet.go_to(Doors::of(&gateway));
    }
    fleet.progresses(120).await;
    let report = all_is_well(&nats, fleet, gateway).await;
    assert!(report.count("gatewayLost") > 0, "sessions were cut off: {}", report.json);
}

#[tokio::test]
async fn sigterm_in_a_loop() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let mut gateway = on(&nats).start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 12, ..Plan::default() }, folder.path());
    for _ in 0..4 {
        fleet.progresses(100).await;
        close(&gateway).await;
        gateway = gateway.restart().await;
        fleet.go_to(Doors::of(&gateway));
    }
    let report = all_is_well(&nats, fleet, gateway).await;
    assert_eq!(report.count("gatewayLost"), 0, "each told its ends itself");
}

/// Gone while NATS is away, in order or not: the next start tells what was kept on disk.
async fn gone_while_nats_is_away(kill: bool) {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let mut gateway = on(&nats).set("drain_timeout", "3s").start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 13, ..Plan::default() }, folder.path());
    fleet.progresses(100).await;
    let before = stored(&nats, MESSAGES).await.len();
    nats.kill();
    eventually(landfall_testkit::PATIENCE, "events on disk", async || {
        let kept = gateway.metrics("landfall_spool_events").await;
        kept.first().is_some_and(|(_, count)| *count > 300.0).then_some(())
    })
    .await;
    if kill {
        gateway.kill();
    } else {
        close(&gateway).await;
    }
    nats.restart().await;
    gateway = gateway.restart().await;
    let told = stored(&nats, MESSAGES).await.len() - before;
    assert!(told > 150, "what was kept is told: {told}");
    fleet.go_to(Doors::of(&gateway));
    fleet.progresses(50).await;
    let journal = fleet.stop().await;
    close(&gateway).await;
    judge(&nats, &[&journal]).await;
}

#[tokio::test]
async fn kill_9_while_nats_is_away() {
    gone_while_nats_is_away(true).await;
}

#[tokio::test]
async fn sigterm_while_nats_is_away() {
    gone_while_nats_is_away(false).await;
}
