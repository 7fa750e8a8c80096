//! The figures of docs/performance.md on crowds and outages: `make figures` runs these with a release build of the
//! gateway.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use landfall_testkit::packet::Connect;
use landfall_testkit::streams::{CONNECTIVITY, Timed, stored, timed};
use landfall_testkit::{Doors, Fleet, Gateway, NatsServer, Plan, RawClient, Version, eventually};
use tempfile::TempDir;

use super::crowds::{CROWD, crowd, roomy};
use super::replicas::ends;
use super::{all_is_well, close, judge, on};

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock behind 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 500,000,000")
}

#[expect(clippy::print_stdout, reason = "a figure is read there")]
fn row(what: &str, value: impl std::fmt::Display, mark: &str) {
    // The runner has begun a line of its own.
    println!("\n| {what} | {value} | {mark} |");
}

/// Waits until so many ends for the reason are stored, without reading the stream again and again while that is measured.
async fn until_ended(nats: &NatsServer, reason: &str) -> Vec<Timed> {
    let all = landfall_testkit::within(Duration::from_secs(60), "all ends", async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let all = timed(nats, CONNECTIVITY).await;
            let events: Vec<_> = all.iter().map(|timed| timed.event.clone()).collect();
            if ends(&events, reason) >= CROWD {
                return all;
            }
        }
    });
    all.await
}

fn last_end(all: &[Timed]) -> u64 {
    let ends = all.iter().filter(|timed| timed.event.kind() == "disconnected");
    ends.map(|timed| timed.stored_at).max().expect("an end")
}

#[tokio::test]
#[ignore = "a measurement: make figures"]
async fn ten_thousand_dropped() {
    let nats = NatsServer::start().await;
    let gateway = roomy(&nats).start().await;
    let clients = crowd(&gateway).await;
    let at = now();
    drop(clients);
    let closed = now();
    let all = until_ended(&nats, "connection-lost").await;
    let (last, told) =
        (last_end(&all), all.iter().filter(|timed| timed.event.kind() == "disconnected").count());
    row(
        "10,000 connections dropped at once: last `disconnected` stored, ms after the first was closed",
        last - at,
        "2,000",
    );
    row("the same, ms after the last was closed", last.saturating_sub(closed), "");
    row("events for it", told, "");
    close(&gateway).await;
    judge(&nats, &[]).await;
    assert!(last - at <= 2_000, "{} ms", last - at);
}

#[tokio::test]
#[ignore = "a measurement: make figures"]
async fn ten_thousand_drained() {
    let nats = NatsServer::start().await;
    let gateway = roomy(&nats).set("drain_timeout", "10s").start().await;
    let clients = crowd(&gateway).await;
    let at = Instant::now();
    close(&gateway).await;
    row("SIGTERM with 10,000 sessions: the process has ended, ms after", at.elapsed().as_millis(), "10,000");
    let events = stored(&nats, CONNECTIVITY).await;
    assert_eq!(ends(&events, "gateway-draining"), CROWD);
    drop(clients);
    judge(&nats, &[]).await;
}

#[tokio::test]
#[ignore = "a measurement: make figures"]
async fn ten_thousand_of_a_killed_gateway() {
    let nats = NatsServer::start().await;
    let mut gateway = roomy(&nats).start().await;
    let clients = crowd(&gateway).await;
    gateway.kill();
    let at = Instant::now();
    let gateway = gateway.restart().await;
    row(
        "`kill -9` with 10,000 sessions: restarted, all closed and ready, ms after",
        at.elapsed().as_millis(),
        "before it is ready: all",
    );
    assert_eq!(ends(&stored(&nats, CONNECTIVITY).await, "gateway-lost"), CROWD);
    drop(clients);
    close(&gateway).await;
    judge(&nats, &[]).await;
}

#[tokio::test]
#[ignore = "a measurement: make figures"]
async fn ten_thousand_of_a_killed_replica() {
    let nats = NatsServer::start().await;
    let with_default_lease =
        |name: &str| roomy(&nats).unset("nats", "lease_ttl").set("instance.replica", name);
    let mut gateway = with_default_lease("a1").start().await;
    let other = with_default_lease("b1").start().await;
    let clients = crowd(&gateway).await;
    gateway.kill();
    let at = now();
    let last = last_end(&until_ended(&nats, "gateway-lost").await) - at;
    row(
        "`kill -9` of one of two replicas, lease 10 s: the other has closed 10,000 sessions, ms after",
        last,
        "15,000",
    );
    assert!(last <= 15_000, "{last} ms");
    drop(clients);
    close(&other).await;
    judge(&nats, &[]).await;
}

async fn metric(gateway: &Gateway, name: &str) -> f64 {
    gateway.metrics(name).await.first().map_or(0.0, |(_, value)| *value)
}

#[tokio::test]
#[ignore = "a measurement: make figures"]
async fn an_outage_of_a_minute_with_a_thousand_devices() {
    let (mut nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).set("nats.lease_ttl", "10s").start().await;
    let pause = Duration::from_millis(2_000);
    let plan = Plan { mqtt: 600, coap: 200, udp: 200, leaves: 10, pause, seed: 61, ..Plan::default() };
    let fleet = Fleet::start(Doors::of(&gateway), plan, folder.path());
    fleet.progresses(2_000).await;
    let before = fleet.acknowledged();
    nats.kill();
    tokio::time::sleep(Duration::from_secs(55)).await;
    // Who comes now is let in.
    let mut late = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "late")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    late.ping().await;
    let during = fleet.acknowledged() - before;
    let (kept, bytes) =
        (metric(&gateway, "landfall_spool_events").await, metric(&gateway, "landfall_spool_bytes").await);
    nats.restart().await;
    let back = Instant::now();
    eventually(Duration::from_secs(60), "an empty spool", async || {
        (metric(&gateway, "landfall_spool_events").await == 0.0).then_some(())
    })
    .await;
    let emptied = back.elapsed();
    fleet.progresses(2_000).await;
    drop(late);
    let acknowledged = fleet.acknowledged();
    let report = all_is_well(&nats, fleet, gateway).await;
    row(
        "NATS away for 60 s, 1,000 devices that connect, publish and leave: acknowledged meanwhile",
        during,
        "0",
    );
    row("events on disk at its end", kept, "");
    row("bytes of them", bytes, "");
    row("published, ms after NATS was back", emptied.as_millis(), "");
    row("acknowledged in all, each found in the stream", acknowledged, "all");
    row("sessions", report.count("connected"), "each closed once");
    assert_eq!(report.count("gatewayLost"), 0);
}
