//! nats-server killed and frozen, alone and together with the gateway; the way to it cut and slow.

use std::net::SocketAddr;
use std::time::Duration;

use landfall_testkit::{Doors, Fleet, Gateway, Mode, NatsServer, PATIENCE, Plan, Proxy, eventually};
use tempfile::TempDir;

use super::{all_is_well, on};

/// Waits until the gateway keeps at least so many events on disk.
async fn until_kept(gateway: &Gateway, events: f64) {
    eventually(PATIENCE, "events on disk", async || {
        let kept = gateway.metrics("landfall_spool_events").await;
        kept.first().is_some_and(|(_, count)| *count >= events).then_some(())
    })
    .await;
}

#[tokio::test]
async fn kill_9_of_nats_server() {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 21, ..Plan::default() }, folder.path());
    for round in 0..4 {
        fleet.progresses(100).await;
        nats.kill();
        if round % 2 == 1 {
            // Long enough for the disk.
            until_kept(&gateway, 100.0).await;
        }
        nats.restart().await;
    }
    fleet.progresses(100).await;
    let report = all_is_well(&nats, fleet, gateway).await;
    assert_eq!(report.count("gatewayLost"), 0, "the gateway was there all the while");
}

#[tokio::test]
async fn a_frozen_nats_server() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 22, ..Plan::default() }, folder.path());
    for _ in 0..2 {
        fleet.progresses(100).await;
        nats.freeze();
        until_kept(&gateway, 100.0).await;
        nats.thaw();
    }
    fleet.progresses(100).await;
    let report = all_is_well(&nats, fleet, gateway).await;
    assert_eq!(report.count("gatewayLost"), 0, "the gateway was there all the while");
}

#[tokio::test]
async fn both_killed() {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let mut gateway = on(&nats).start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 23, ..Plan::default() }, folder.path());
    for round in 0..4 {
        fleet.progresses(100).await;
        if round % 2 == 0 {
            nats.kill();
            gateway.kill();
        } else {
            gateway.kill();
            nats.kill();
        }
        nats.restart().await;
        gateway = gateway.restart().await;
        fleet.go_to(Doors::of(&gateway));
    }
    fleet.progresses(100).await;
    all_is_well(&nats, fleet, gateway).await;
}

#[tokio::test]
async fn a_bad_way_to_nats() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], nats.port())), 24).await;
    let gateway = on(&nats).set("nats.url", format!("nats://{}", proxy.address())).start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 24, ..Plan::default() }, folder.path());
    let faults = [Mode::Delay(Duration::from_millis(30)), Mode::Cut, Mode::Stall, Mode::Cut];
    for fault in faults {
        fleet.progresses(80).await;
        proxy.set(fault);
        if matches!(fault, Mode::Cut | Mode::Stall) {
            until_kept(&gateway, 50.0).await;
            proxy.set(Mode::Pass);
        }
    }
    fleet.progresses(80).await;
    all_is_well(&nats, fleet, gateway).await;
}

/// Devices that connect, speak and leave all the while: what they saw acknowledged is there, and each one's order holds.
#[tokio::test]
async fn an_outage_with_many_that_come_and_go() {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).start().await;
    let plan = Plan { mqtt: 120, coap: 40, udp: 40, leaves: 20, pause: Duration::from_millis(200), seed: 25 };
    let fleet = Fleet::start(Doors::of(&gateway), plan, folder.path());
    fleet.progresses(1_000).await;
    nats.kill();
    until_kept(&gateway, 3_000.0).await;
    // Keep-alives are answered all the while.
    let mut there = landfall_testkit::RawClient::accepted(
        gateway.mqtt("tcp"),
        &landfall_testkit::packet::Connect::new(landfall_testkit::Version::V5, "there"),
    )
    .await;
    there.ping().await;
    nats.restart().await;
    fleet.progresses(1_000).await;
    there.ping().await;
    drop(there);
    let report = all_is_well(&nats, fleet, gateway).await;
    assert_eq!(report.count("gatewayLost"), 0, "the gateway was there all the while");
    assert_eq!(report.count("droppedMessages") + report.count("droppedSessions"), 0);
}

/// The way from the devices stalls, and goes on.
#[tokio::test]
async fn clients_that_stall() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).start().await;
    let proxy = Proxy::start(gateway.mqtt("tcp"), 26).await;
    let doors = Doors { mqtt: proxy.address(), ..Doors::of(&gateway) };
    let fleet = Fleet::start(doors, Plan { seed: 26, ..Plan::default() }, folder.path());
    for _ in 0..3 {
        fleet.progresses(80).await;
        proxy.set(Mode::Stall);
        // The others go on.
        fleet.progresses(20).await;
        proxy.set(Mode::Cut);
        proxy.set(Mode::Pass);
    }
    all_is_well(&nats, fleet, gateway).await;
}
