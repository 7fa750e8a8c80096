//! A spool that is too small for the outage: what is dropped, in which order, and that it is told.

use std::collections::BTreeSet;

use landfall_testkit::packet::{self, Connect, Publish, kind};
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, stored};
use landfall_testkit::{Gateway, NatsServer, PATIENCE, RawClient, Version, eventually};

use super::{close, judge, on, until_kept};

/// Sessions that begin and end while NATS is away.
const PASSING: u64 = 300;
/// Messages without acknowledgement, of more than a mebibyte on disk.
const BARE: u64 = 4_000;
/// Messages with acknowledgement among them.
const ACKED: u16 = 40;
const LIMIT: f64 = 1_048_576.0;

async fn pass_by(gateway: &Gateway) {
    for n in 0..PASSING {
        let connect = Connect::new(Version::V5, format!("passing-{n}"));
        let mut passing = RawClient::accepted(gateway.mqtt("tcp"), &connect).await;
        passing.send(&Publish::new(Version::V5, "t", format!("passing-{n}:1"), 0, 0).encode()).await;
        passing.send(&packet::disconnect(Version::V5, 0, &[])).await;
        assert_eq!(passing.until_closed().await, []);
    }
}

/// One device sends without acknowledgement, another one with it, side by side.
async fn speak(bare: &mut RawClient, acked: &mut RawClient) {
    for n in 1..=BARE {
        bare.send(&Publish::new(Version::V5, "t", format!("bare:{n}"), 0, 0).encode()).await;
        if n % (BARE / u64::from(ACKED)) == 0 {
            let id = u16::try_from(n / (BARE / u64::from(ACKED))).expect("few");
            acked.send(&Publish::new(Version::V4, "t", format!("acked:{id}"), 1, id).encode()).await;
            // Everything before is taken when this is answered.
            bare.ping().await;
            acked.ping().await;
        }
    }
}

fn numbers(messages: &[Seen], device: &str) -> Vec<u64> {
    let its = messages.iter().filter(|event| event.kind() == "upstream" && event.is_about(device));
    its.filter_map(|event| event.text("payload").split_once(':')?.1.parse().ok()).collect()
}

/// What was told to be dropped: sessions, messages, and how many messages the gaps name.
fn dropped(events: &[Seen]) -> (u64, u64, u64) {
    let told: Vec<&Seen> = events.iter().filter(|event| event.kind() == "events-dropped").collect();
    let sum = |field: &str| told.iter().map(|event| event.number(field)).sum::<u64>();
    let gaps = told.iter().flat_map(|event| event.json["gaps"].as_array().cloned().unwrap_or_default());
    let named = gaps.map(|gap| gap["to"].as_u64().unwrap_or(0) + 1 - gap["from"].as_u64().unwrap_or(0)).sum();
    (sum("sessions"), sum("messages"), named)
}

#[tokio::test]
async fn a_spool_that_overflows_tells_what_it_dropped() {
    let mut nats = NatsServer::start().await;
    let gateway = on(&nats).set("nats.spool_limit", "1MiB").start().await;
    let (v5, v4) = (Connect::new(Version::V5, "bare"), Connect::new(Version::V4, "acked"));
    let mut bare = RawClient::accepted(gateway.mqtt("tcp"), &v5).await;
    let mut acked = RawClient::accepted(gateway.mqtt("tcp"), &v4).await;
    nats.kill();
    pass_by(&gateway).await;
    until_kept(&gateway, 1.0).await;
    speak(&mut bare, &mut acked).await;
    let kept = gateway.metrics("landfall_spool_bytes").await;
    assert!(kept.first().is_some_and(|(_, bytes)| (1.0..=LIMIT).contains(bytes)), "{kept:?}");
    nats.restart().await;
    for id in 1..=ACKED {
        assert_eq!(acked.expect(kind::PUBACK).await.id(), id, "nothing that asked for it was dropped");
    }
    eventually(PATIENCE, "an empty spool", async || {
        let kept = gateway.metrics("landfall_spool_events").await;
        kept.first().is_some_and(|(_, count)| *count == 0.0).then_some(())
    })
    .await;
    drop((bare, acked));
    close(&gateway).await;
    let report = judge(&nats, &[]).await;
    let (events, messages) = (stored(&nats, CONNECTIVITY).await, stored(&nats, MESSAGES).await);
    let told = numbers(&messages, "bare");
    assert_eq!(told, (BARE + 1 - told.len() as u64..=BARE).collect::<Vec<_>>(), "the oldest are gone");
    assert_eq!(numbers(&messages, "acked"), (1..=u64::from(ACKED)).collect::<Vec<_>>());
    let (sessions, lost, named) = dropped(&events);
    // Sessions go first and whole, with the message that each sent.
    let passed: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.kind() == "connected")
        .map(|event| event.text("endpointId"))
        .filter(|device| device.starts_with("passing-"))
        .collect();
    assert_eq!(sessions, PASSING - passed.len() as u64);
    assert!(passed.is_empty() || told.len() as u64 == BARE, "all of them, before any message of the others");
    for device in passed {
        assert_eq!(numbers(&messages, device), [1], "{device} is told with what it said");
    }
    assert_eq!(lost, BARE - told.len() as u64, "each is stored or counted");
    assert_eq!(named, lost, "and named");
    assert_eq!((report.count("droppedSessions"), report.count("droppedMessages")), (sessions, lost));
}
