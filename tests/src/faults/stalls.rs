//! Devices that stall, while others go on.

use async_nats::{HeaderMap, Request};
use futures_util::future::join_all;
use landfall_testkit::packet::Connect;
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{Doors, Fleet, Mode, NatsServer, Plan, Proxy, RawClient, Version};
use serde_json::Value;
use tempfile::TempDir;

use super::{all_is_well, all_is_well_and_there, on};

/// Commands for the one that does not read: more than any socket's buffers take.
const COMMANDS: usize = 240;

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

async fn command(client: &async_nats::Client, payload: String, name: &str) -> Value {
    let mut headers = HeaderMap::new();
    headers.insert("Command-Name", name);
    headers.insert("Command-Ttl", "1000");
    let request = Request::new().payload(payload.into()).headers(headers).timeout(Some(super::END));
    let subject = "kaa.v1.service.landfall.command.default.deaf";
    let reply = client.send_request(subject, request).await.expect("a gateway that answers commands");
    serde_json::from_slice(&reply.payload).expect("a reply in JSON")
}

/// One that subscribes and then reads nothing: its commands have an outcome each, and nobody else waits.
#[tokio::test]
async fn a_client_that_does_not_read() {
    let (nats, folder) = (NatsServer::start().await, TempDir::new().expect("a folder"));
    let gateway = on(&nats).start().await;
    let client = nats.client().await;
    let fleet = Fleet::start(Doors::of(&gateway), Plan { seed: 27, ..Plan::default() }, folder.path());
    let mut deaf = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "deaf")).await;
    assert_eq!(deaf.subscribe("command///req/#", 1).await, 1);
    let mut replies = Vec::new();
    for round in 0..COMMANDS / 20 {
        let payload = "x".repeat(100_000);
        let each =
            (0..20).map(|n| command(&client, payload.clone(), if n % 2 == 0 { "even" } else { "odd" }));
        let (all, ()) = tokio::join!(join_all(each), fleet.progresses(40));
        assert_eq!(all.len(), 20, "round {round}");
        replies.extend(all);
    }
    // Its outcomes, as told to whoever asked and as stored.
    let asked: Vec<&str> = replies.iter().filter_map(|reply| reply["commandId"].as_str()).collect();
    assert_eq!(asked.len(), COMMANDS);
    drop(deaf);
    fleet.progresses(40).await;
    all_is_well_and_there(&nats, fleet, gateway).await;
    let outcomes: Vec<Seen> = stored(&nats, MESSAGES).await;
    for id in asked {
        let its =
            outcomes.iter().filter(|event| event.kind() == "downstream" && event.text("commandId") == id);
        assert_eq!(its.count(), 1, "one outcome of {id}");
    }
    let delivered = replies.iter().filter(|reply| reply["outcome"] == "delivered").count();
    assert!(delivered < COMMANDS, "what it cannot take is not called delivered for ever");
    assert!(replies.iter().all(|reply| reply["latencyMs"].as_u64().is_none_or(|ms| ms < 10_000)), "in time");
}
