//! Wills of gateways that are gone: each is published once, by whoever comes next, or taken back.

use std::time::Duration;

use landfall_event::Reason;
use landfall_hub::{Hello, SessionHandle, Will};
use landfall_testkit::ledger::{self, Open};
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, everything, stored, stored_when};
use landfall_testkit::wait::{PATIENCE, eventually, within};
use landfall_testkit::{Mode, NatsServer, Proxy};

use crate::node::{Node, ends, hear, hello, presence, send, uplink};

/// Longer than any of these tests.
const LONG: u64 = 3_600_000;

fn with_will(device: &str, delay_ms: u64) -> Hello {
    Hello { will: Some(Will { uplink: uplink(99), delay_ms }), clean_start: Some(false), ..hello(device) }
}

async fn open(node: &Node, hello: Hello) -> SessionHandle {
    within(PATIENCE, "a session", node.hub.open(hello)).await.expect("it begins")
}

fn is_will(event: &Seen) -> bool {
    event.kind() == "upstream" && event.json["will"] == true
}

/// The wills that are published: device, number.
async fn wills(nats: &NatsServer) -> Vec<(String, u64)> {
    let all = stored(nats, MESSAGES).await;
    let wills = all.iter().filter(|event| is_will(event));
    wills.map(|event| (event.text("endpointId").to_owned(), event.number("seq"))).collect()
}

/// What is kept of wills.
async fn kept(nats: &NatsServer) -> usize {
    let all = everything(&nats.url(), CONNECTIVITY).await;
    all.iter().filter(|message| message.subject.starts_with("landfall.will.")).count()
}

fn waiting(node: &Node) -> usize {
    node.hub.wills_fill().0
}

#[tokio::test]
async fn the_will_of_a_session_that_was_open_is_its_last_message_and_comes_once() {
    let nats = NatsServer::start().await;
    let node = Node::start(&nats.url(), "a1").await;
    let quiet = open(&node, with_will("quiet", 0)).await;
    let busy = open(&node, with_will("busy", 0)).await;
    let polite = open(&node, with_will("polite", 0)).await;
    for n in 1..=3 {
        send(&busy, n);
    }
    hear(&busy, &[1, 2, 3]).await;
    polite.discard_will();
    polite.close(Reason::ClientClosed);
    stored_when(&nats, CONNECTIVITY, "its end", |events| ends(events, "client-closed") == 1).await;
    node.die().await;
    drop((quiet, busy, polite));
    for _ in 0..2 {
        let again = Node::start(&nats.url(), "a1").await;
        let mut said = wills(&nats).await;
        said.sort();
        assert_eq!(said, [("busy".to_owned(), 4), ("quiet".to_owned(), 1)]);
        again.die().await;
    }
    assert_eq!(kept(&nats).await, 0, "nothing is left behind");
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn survivors_that_race_publish_each_will_once() {
    let nats = NatsServer::start().await;
    let dead = Node::start(&nats.url(), "a1").await;
    let (b, c) = (Node::start(&nats.url(), "b1").await, Node::start(&nats.url(), "c1").await);
    let names: Vec<String> = (0..60).map(|n| format!("d{n}")).collect();
    let opened = names.iter().map(|name| open(&dead, with_will(name, 0)));
    let sessions = futures_util::future::join_all(opened).await;
    dead.die().await;
    drop(sessions);
    let again = Node::start(&nats.url(), "a1").await;
    stored_when(&nats, CONNECTIVITY, "their ends", |events| ends(events, "gateway-lost") >= 60).await;
    for node in [b, c, again] {
        node.leave().await;
    }
    let mut said = wills(&nats).await;
    said.sort();
    assert_eq!(said.len(), 60);
    said.dedup();
    assert_eq!(said.len(), 60, "each once");
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_will_that_waits_goes_from_gateway_to_gateway_until_it_is_due() {
    let nats = NatsServer::start().await;
    let node = Node::start(&nats.url(), "a1").await;
    let session = open(&node, with_will("d", 4_000)).await;
    session.close(Reason::ConnectionLost);
    stored_when(&nats, CONNECTIVITY, "its end", |events| ends(events, "connection-lost") == 1).await;
    node.die().await;
    let second = Node::start(&nats.url(), "a1").await;
    assert_eq!((waiting(&second), wills(&nats).await), (1, vec![]));
    second.die().await;
    let third = Node::start(&nats.url(), "b1").await;
    let hub = std::sync::Arc::clone(&third.hub);
    hub.start(&third.scope);
    stored_when(&nats, MESSAGES, "the will", |events| events.iter().any(is_will)).await;
    third.leave().await;
    assert_eq!(wills(&nats).await, [("d".to_owned(), 1)]);
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_device_that_resumes_takes_back_what_an_earlier_gateway_owed() {
    let nats = NatsServer::start().await;
    let node = Node::start(&nats.url(), "a1").await;
    let (left, held) =
        (open(&node, with_will("left", LONG)).await, open(&node, with_will("held", LONG)).await);
    left.close(Reason::ConnectionLost);
    node.die().await;
    drop((left, held));
    let second = Node::start(&nats.url(), "a1").await;
    assert_eq!(waiting(&second), 2, "of the one that had left, and of the one that was there");
    let back = open(&second, Hello { will: None, ..with_will("left", 0) }).await;
    let clean = open(&second, Hello { will: None, clean_start: Some(true), ..with_will("held", 0) }).await;
    assert_eq!(waiting(&second), 0);
    second.die().await;
    drop((back, clean));
    let third = Node::start(&nats.url(), "a1").await;
    assert_eq!(waiting(&third), 0);
    assert_eq!(wills(&nats).await, [("held".to_owned(), 1)], "its session ended with the clean start");
    third.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_checkpoint_knows_the_wills_that_the_ledger_has_let_go() {
    let nats = NatsServer::start().await;
    let node = Node::start(&nats.url(), "a1").await;
    let stays = open(&node, with_will("stays", 0)).await;
    send(&stays, 1);
    hear(&stays, &[1]).await;
    let left = open(&node, with_will("left", LONG)).await;
    left.close(Reason::ConnectionLost);
    eventually(PATIENCE, "a checkpoint", async || {
        let passing = node.open_many(40).await;
        drop(passing);
        (kept(&nats).await == 0).then_some(())
    })
    .await;
    send(&stays, 2);
    hear(&stays, &[2]).await;
    node.die().await;
    drop((stays, left));
    let second = Node::start(&nats.url(), "a1").await;
    assert_eq!(waiting(&second), 1);
    assert_eq!(wills(&nats).await, [("stays".to_owned(), 3)]);
    second.die().await;
}

#[tokio::test]
async fn what_was_admitted_while_nats_was_away_has_its_will_on_disk() {
    let (mut nats, folder) = (NatsServer::start().await, tempfile::TempDir::new().expect("a folder"));
    let node = Node::keeping(&nats.url(), "a1", folder.path()).await;
    nats.kill();
    eventually(PATIENCE, "the disk", async || node.hub.takes_sessions().then_some(())).await;
    let session = open(&node, with_will("d", 0)).await;
    let later = open(&node, with_will("later", LONG)).await;
    later.close(Reason::ConnectionLost);
    eventually(PATIENCE, "it is kept", async || (node.bus.stats().kept >= 5).then_some(())).await;
    node.die().await;
    drop((session, later));
    nats.restart().await;
    let again = Node::keeping(&nats.url(), "a1", folder.path()).await;
    assert_eq!((waiting(&again), wills(&nats).await), (1, vec![("d".to_owned(), 1)]));
    again.die().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_gateway_that_counted_as_lost_owes_the_wills_of_who_is_still_there() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 17).await;
    let cut_off = Node::start(&format!("nats://{}", proxy.address()), "a1").await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let waits = open(&cut_off, with_will("waits", LONG)).await;
    waits.close(Reason::ConnectionLost);
    let here = open(&cut_off, with_will("here", LONG)).await;
    let before = here.id();
    stored_when(&nats, CONNECTIVITY, "its end", |events| ends(events, "connection-lost") == 1).await;
    proxy.set(Mode::Stall);
    stored_when(&nats, CONNECTIVITY, "it counts as lost", |events| ends(events, "gateway-lost") == 1).await;
    eventually(PATIENCE, "the survivor owes both", async || (waiting(&survivor) == 2).then_some(())).await;
    proxy.set(Mode::Pass);
    send(&here, 1);
    hear(&here, &[1]).await;
    assert_ne!(here.id(), before, "it began anew");
    assert_eq!(waiting(&cut_off), 0, "somebody else owes it");
    here.close(Reason::ConnectionLost);
    assert_eq!(waiting(&cut_off), 1);
    cut_off.die().await;
    survivor.die().await;
    let last = Node::start(&nats.url(), "a1").await;
    // That of the session which counted as lost was taken back by the one that it goes on as.
    eventually(PATIENCE + Duration::from_secs(5), "two wills", async || (waiting(&last) == 2).then_some(()))
        .await;
    assert_eq!(wills(&nats).await, vec![]);
    last.die().await;
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 1);
}
