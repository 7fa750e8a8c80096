//! nats-server killed and frozen, alone and together with the gateway; the way to it cut and slow.

use std::net::SocketAddr;
use std::time::Duration;

use landfall_testkit::packet::{self, Connect};
use landfall_testkit::streams::{CONNECTIVITY, stored};
use landfall_testkit::{Doors, Fleet, Mode, NatsServer, Plan, Proxy, RawClient, Version};
use tempfile::TempDir;

use super::{all_is_well, all_is_well_and_there, on, until_kept};

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
    all_is_well_and_there(&nats, fleet, gateway).await;
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
    all_is_well_and_there(&nats, fleet, gateway).await;
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
    all_is_well_and_there(&nats, fleet, gateway).await;
}

/// Devices that connect, speak and leave all the while: what they saw acknowledged is there, each one's order holds, and what
/// happened meanwhile is told with the time when it did.
#[tokio::test]
async fn an_outage_with_many_that_come_and_go() {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).start().await;
    let pause = Duration::from_millis(200);
    let plan = Plan { mqtt: 120, coap: 40, udp: 40, leaves: 20, pause, seed: 25, ..Plan::default() };
    let fleet = Fleet::start(Doors::of(&gateway), plan, folder.path());
    fleet.progresses(1_000).await;
    nats.kill();
    until_kept(&gateway, 1_000.0).await;
    let mut there = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "there")).await;
    let came = unix_ms();
    let mut brief = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "brief")).await;
    let in_between = unix_ms();
    brief.send(&packet::disconnect(Version::V5, 0, &[])).await;
    assert_eq!(brief.until_closed().await, []);
    until_kept(&gateway, 3_000.0).await;
    // Keep-alives are answered all the while.
    there.ping().await;
    let back = unix_ms();
    nats.restart().await;
    fleet.progresses(1_000).await;
    there.ping().await;
    drop(there);
    all_is_well_and_there(&nats, fleet, gateway).await;
    let events = stored(&nats, CONNECTIVITY).await;
    let when = |kind: &str| {
        let event = events.iter().find(|event| event.kind() == kind && event.is_about("brief"));
        event.unwrap_or_else(|| panic!("{kind} of the brief one")).number("timestamp")
    };
    assert!((came..=in_between).contains(&when("connected")));
    assert!((in_between..back).contains(&when("disconnected")), "when it left, not when that was stored");
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    u64::try_from(now.as_millis()).expect("this age")
}
