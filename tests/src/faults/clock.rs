//! The wall clock stepped both ways under a running gateway.

use std::time::{Duration, Instant};

use landfall_testkit::packet::Connect;
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{CONNECTIVITY, stored, stored_when};
use landfall_testkit::{Doors, Fleet, NatsServer, Plan, RawClient, UdpDevice, Version};
use tempfile::TempDir;

use super::{all_is_well_and_there, on};

const HOUR: i64 = 3_600;

fn is_end_of(event: &Seen, device: &str) -> bool {
    event.kind() == "disconnected" && event.is_about(device)
}

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
        clock.set_offset(hours * HOUR);
    }
    fleet.progresses(100).await;
    // No silence was made of it.
    quiet.ping().await;
    let events = stored(&nats, CONNECTIVITY).await;
    assert!(!events.iter().any(|event| event.text("reason").ends_with("-timeout")));
    drop(quiet);
    all_is_well_and_there(&nats, fleet, gateway).await;
}

/// Who falls silent is found out by the time that has passed, whatever the wall clock says.
#[tokio::test]
async fn a_silence_is_measured_by_the_time_that_passes() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let Some((settings, clock)) = on(&nats).with_a_clock_of_its_own() else { return };
    let gateway = settings.start().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 52, ..Plan::default() }, folder.path());
    for (n, hours) in [1, -1].into_iter().enumerate() {
        fleet.progresses(50).await;
        let name = format!("silent-{n}");
        let mut device = UdpDevice::new(gateway.udp(), &name).await;
        let before = Instant::now();
        device.send("hb=2", "").await;
        stored_when(&nats, CONNECTIVITY, "its beginning", |events| {
            events.iter().any(|event| event.kind() == "connected" && event.is_about(&name))
        })
        .await;
        let heard = Instant::now();
        clock.set_offset(hours * HOUR);
        let events = stored_when(&nats, CONNECTIVITY, "its end", |events| {
            events.iter().any(|event| is_end_of(event, &name))
        })
        .await;
        // Three seconds of silence for a heartbeat every two; the rest is a busy machine.
        assert!(before.elapsed() >= Duration::from_secs(3), "too early: {:?}", before.elapsed());
        assert!(heard.elapsed() < Duration::from_secs(3 + 5), "too late: {:?}", heard.elapsed());
        let end = events.iter().find(|event| is_end_of(event, &name)).expect("it was there just now");
        assert_eq!(end.text("reason"), "idle-timeout");
    }
    fleet.progresses(50).await;
    all_is_well_and_there(&nats, fleet, gateway).await;
}
