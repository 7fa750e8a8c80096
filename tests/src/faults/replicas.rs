//! Two replicas on one NATS: one killed, one frozen and thawed after its lease has ended.

use std::time::{Duration, Instant};

use landfall_testkit::packet::{Connect, Publish, kind};
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{CONNECTIVITY, stored, stored_when};
use landfall_testkit::{Doors, Fleet, NatsServer, Plan, RawClient, Version};
use tempfile::TempDir;

use super::{close, judge, judge_replicas, on};

/// The ends for this reason, each alone.
pub(super) fn ends(events: &[Seen], reason: &str) -> usize {
    let each = |event: &Seen| match event.json["sessions"].as_array() {
        Some(many) => many.iter().filter(|one| one["reason"] == reason).count(),
        None => usize::from(event.json["reason"] == reason),
    };
    events.iter().filter(|event| event.kind() == "disconnected").map(each).sum()
}

#[tokio::test]
async fn one_killed_the_other_closes_its_sessions() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let mut first = on(&nats).set("instance.replica", "a1").start().await;
    let second = on(&nats).set("instance.replica", "b1").start().await;
    let here = Fleet::start(Doors::of(&first), Plan { seed: 31, ..Plan::default() }, folder.path());
    let mut there = Vec::new();
    for n in 0..50 {
        there.push(RawClient::accepted(first.mqtt("tcp"), &Connect::new(Version::V4, format!("s{n}"))).await);
    }
    here.progresses(200).await;
    first.kill();
    let at = Instant::now();
    stored_when(&nats, CONNECTIVITY, "its sessions closed", |events| ends(events, "gateway-lost") >= 50)
        .await;
    assert!(at.elapsed() < Duration::from_secs(1 + 5), "the lease and five seconds: {:?}", at.elapsed());
    // Its devices go to the other one.
    here.go_to(Doors::of(&second));
    here.progresses(200).await;
    let journal = here.stop().await;
    close(&second).await;
    judge_replicas(&nats, &[&journal]).await;
}

#[tokio::test]
async fn one_frozen_and_thawed_after_its_lease() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let first = on(&nats).set("instance.replica", "a1").start().await;
    let second = on(&nats).set("instance.replica", "b1").start().await;
    let fleet = Fleet::start(Doors::of(&first), Plan { seed: 32, ..Plan::default() }, folder.path());
    let mut stays = RawClient::accepted(first.mqtt("tcp"), &Connect::new(Version::V5, "stays")).await;
    for round in 1..=2 {
        fleet.progresses(150).await;
        let began = stored(&nats, CONNECTIVITY).await;
        let lost = ends(&began, "gateway-lost");
        first.freeze();
        // Sent to a process that cannot answer: it is there when that goes on.
        let bytes = Publish::new(Version::V5, "t", format!("frozen {round}"), 1, round).encode();
        stays.send(&bytes).await;
        stored_when(&nats, CONNECTIVITY, "its sessions closed", |events| ends(events, "gateway-lost") > lost)
            .await;
        first.thaw();
        // On the same connection, in a session that is announced anew.
        assert_eq!(stays.expect(kind::PUBACK).await.id(), round);
        stays.ping().await;
        let sessions = |events: &[Seen]| -> Vec<(String, u64)> {
            let its = events.iter().filter(|event| event.kind() == "connected" && event.is_about("stays"));
            its.map(|event| (event.text("sessionId").to_owned(), event.number("epoch"))).collect()
        };
        let told = sessions(&stored(&nats, CONNECTIVITY).await);
        assert_eq!(told.len(), usize::from(round) + 1);
        assert!(told.windows(2).all(|pair| pair[0].0 != pair[1].0 && pair[0].1 < pair[1].1), "{told:?}");
    }
    fleet.progresses(150).await;
    drop(stays);
    let journal = fleet.stop().await;
    close(&first).await;
    close(&second).await;
    judge(&nats, &[&journal]).await;
}

#[tokio::test]
async fn a_second_process_of_one_name_ends_the_first() {
    let nats = NatsServer::start().await;
    let first = on(&nats).set("instance.replica", "a1").start().await;
    let mut device = RawClient::accepted(first.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    let second = on(&nats).set("instance.replica", "a1").start().await;
    let status = first.exited(super::END).await;
    assert!(!status.success());
    first.process().logged("another gateway of this name", landfall_testkit::PATIENCE).await;
    device.until_closed().await;
    close(&second).await;
    judge(&nats, &[]).await;
}
