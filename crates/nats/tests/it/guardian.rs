//! Gateways that come and go on one NATS: whoever is gone has its sessions closed, once, whoever closes them.

use std::sync::Arc;
use std::time::Duration;

use landfall_event::{Family, Reason, subject};
use landfall_nats::{Dismissed, Standing};
use landfall_net::Scope;
use landfall_testkit::ledger::{self, Open};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, everything, stored, stored_when};
use landfall_testkit::wait::{PATIENCE, eventually, within};
use landfall_testkit::{Mode, NatsServer, Proxy};

use crate::node::{Node, TTL, churn, ends, hear, hello, presence, send};

async fn until_closed(nats: &NatsServer, count: usize) {
    stored_when(nats, CONNECTIVITY, "lost sessions closed", |events| ends(events, "gateway-lost") >= count)
        .await;
}

#[tokio::test]
async fn a_restart_closes_what_the_one_before_left_open() {
    let nats = NatsServer::start().await;
    let first = Node::start(&nats.url(), "a1").await;
    let sessions = first.open_many(300).await;
    first.die().await;
    drop(sessions);
    let second = Node::start(&nats.url(), "a1").await;
    // Before it serves, so there is nothing to wait for.
    let events = presence(&nats).await;
    assert_eq!(ends(&events, "gateway-lost"), 300);
    let end = events.iter().find(|event| event.kind() == "disconnected").expect("an end");
    assert!(end.json["sessions"].as_array().is_some_and(|many| many.len() == 128), "batched");
    let one = &end.json["sessions"][0];
    assert_eq!((&one["inferred"], &one["initiator"]), (&true.into(), &"gateway".into()));
    assert!(one["lastSeenAt"].as_u64() >= one["connectedAt"].as_u64());
    second.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn survivors_that_race_close_each_session_once() {
    let nats = NatsServer::start().await;
    let dead = Node::start(&nats.url(), "a1").await;
    let b = Node::start(&nats.url(), "b1").await;
    let c = Node::start(&nats.url(), "c1").await;
    let sessions = dead.open_many(400).await;
    dead.die().await;
    drop(sessions);
    // And one that starts meanwhile, under the dead one's name.
    let again = Node::start(&nats.url(), "a1").await;
    until_closed(&nats, 400).await;
    for node in [b, c, again] {
        node.leave().await;
    }
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 400);
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_survivor_closes_them_within_the_lease_and_a_little() {
    let nats = NatsServer::start().await;
    let dead = Node::start(&nats.url(), "a1").await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let sessions = dead.open_many(50).await;
    let at = std::time::Instant::now();
    dead.die().await;
    drop(sessions);
    until_closed(&nats, 50).await;
    assert!(at.elapsed() < TTL + Duration::from_secs(5), "{:?}", at.elapsed());
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_repairer_that_dies_half_way_is_fenced_by_the_next() {
    let nats = NatsServer::start().await;
    let dead = Node::start(&nats.url(), "a1").await;
    let sessions = dead.open_many(2_000).await;
    dead.die().await;
    drop(sessions);
    let (half, mut guardian) = Node::appointed(&nats.url(), "a1").await;
    let repairing = Scope::new();
    repairing.spawn(async move { guardian.settle_the_past().await.unwrap_or_default() });
    stored_when(&nats, CONNECTIVITY, "some of them closed", |events| ends(events, "gateway-lost") >= 128)
        .await;
    repairing.drain(Duration::ZERO).await;
    half.die().await;
    let before = ends(&presence(&nats).await, "gateway-lost");
    let next = Node::start(&nats.url(), "a1").await;
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 2_000, "{before} were closed by the first");
    next.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_gateway_that_counted_as_lost_begins_its_sessions_anew() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 11).await;
    let cut_off = Node::start(&format!("nats://{}", proxy.address()), "a1").await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let session = cut_off.open("pump").await;
    let (before, epoch) = (session.id(), session.epoch());
    send(&session, 1);
    hear(&session, &[1]).await;
    proxy.set(Mode::Stall);
    // Written to a connection that delivers it much later, if ever: the zombie's late publish.
    send(&session, 2);
    send(&session, 3);
    until_closed(&nats, 1).await;
    proxy.set(Mode::Pass);
    hear(&session, &[2, 3]).await;
    assert_ne!(session.id(), before);
    assert!(session.epoch() > epoch);
    send(&session, 4);
    hear(&session, &[4]).await;
    let messages = stored(&nats, MESSAGES).await;
    let said: Vec<(String, u64, u64)> = messages
        .iter()
        .filter(|event| event.kind() == "upstream")
        .map(|event| (event.text("sessionId").to_owned(), event.number("seq"), event.number("payload")))
        .collect();
    let (old, new) = (before.to_string(), session.id().to_string());
    let expected = [(old, 1, 1), (new.clone(), 1, 2), (new.clone(), 2, 3), (new, 3, 4)];
    assert_eq!(said, expected, "each once, the late ones in the new session");
    session.close(Reason::ClientClosed);
    cut_off.leave().await;
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn what_began_and_ended_unstored_keeps_its_identity() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 12).await;
    let cut_off = Node::start(&format!("nats://{}", proxy.address()), "a1").await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let known = cut_off.open("known").await;
    let gone = cut_off.open("gone").await;
    proxy.set(Mode::Stall);
    // Its `connected` is submitted and not stored.
    let hub = Arc::clone(&cut_off.hub);
    let (tell, early) = tokio::sync::oneshot::channel();
    cut_off.scope.spawn(async move {
        let _ = tell.send(hub.open(hello("early")).await);
    });
    eventually(PATIENCE, "three sessions", async || (cut_off.hub.session_count() == 3).then_some(())).await;
    gone.close(Reason::ClientClosed);
    until_closed(&nats, 2).await;
    proxy.set(Mode::Pass);
    let early = within(PATIENCE, "the session", early).await.expect("no panic").expect("it begins");
    early.close(Reason::ClientClosed);
    known.close(Reason::ClientClosed);
    cut_off.leave().await;
    survivor.leave().await;
    let events = presence(&nats).await;
    assert_eq!(ends(&events, "gateway-lost"), 2);
    assert_eq!(ends(&events, "client-closed"), 2, "of those that are open in the ledger");
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn the_newer_process_of_a_name_dismisses_the_older() {
    let nats = NatsServer::start().await;
    let (older, mut guardian) = Node::appointed(&nats.url(), "a1").await;
    guardian.settle_the_past().await.expect("JetStream answers");
    let dismissed = older.keep_watch(guardian);
    let session = older.open("pump").await;
    let newer = Node::start(&nats.url(), "a1").await;
    assert_eq!(within(PATIENCE, "the end of its watch", dismissed).await, Ok(Dismissed::Replaced));
    // Whatever it says now is refused.
    session.close(Reason::ClientClosed);
    eventually(PATIENCE, "the refusal", async || {
        (*older.bus.standing().borrow() == Standing::Fenced).then_some(())
    })
    .await;
    newer.leave().await;
    older.die().await;
    assert_eq!(ends(&presence(&nats).await, "client-closed"), 0);
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn an_outage_for_all_makes_nobody_count_as_lost() {
    let mut nats = NatsServer::start().await;
    let nodes = [Node::start(&nats.url(), "a1").await, Node::start(&nats.url(), "b1").await];
    let sessions = [nodes[0].open("one").await, nodes[1].open("two").await];
    nats.kill();
    // Longer than the lease: nobody could write it, nobody could look.
    tokio::time::sleep(TTL * 2).await;
    nats.restart().await;
    for session in &sessions {
        send(session, 1);
        hear(session, &[1]).await;
        session.close(Reason::ClientClosed);
    }
    for node in nodes {
        node.leave().await;
    }
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 0);
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_goodbye_in_order_leaves_nothing_to_repair() {
    let nats = NatsServer::start().await;
    let (node, mut guardian) = Node::appointed(&nats.url(), "a1").await;
    guardian.settle_the_past().await.expect("JetStream answers");
    let session = node.open("pump").await;
    assert!(node.hub.peer(session.tenant(), session.device(), Family::Mqtt).is_some());
    drop(session);
    node.hub.drain().await.expect("everything is stored");
    assert!(node.bus.close(PATIENCE).await, "everything is stored");
    guardian.leave().await.expect("JetStream answers");
    for stream in [CONNECTIVITY, MESSAGES] {
        let left = everything(&nats.url(), stream).await;
        assert!(left.iter().all(|event| !event.subject.starts_with("landfall.fence")), "no fences are left");
    }
    let leases = stored(&nats, "KV_LANDFALL_LEASES").await;
    assert!(leases.is_empty(), "no lease is left");
    assert!(stored(&nats, "KV_LANDFALL_CHECKPOINTS").await.is_empty(), "no checkpoint is left");
    node.scope.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_checkpoint_is_enough_for_a_repair() {
    let nats = NatsServer::start().await;
    let node = Node::start(&nats.url(), "a1").await;
    let early = node.open_many(40).await;
    churn(&node, 200).await;
    // The first is written when the incarnation begins; this one lists what is open.
    let place = eventually(PATIENCE, "a checkpoint", async || {
        churn(&node, 10).await;
        let all = everything(&nats.url(), "KV_LANDFALL_CHECKPOINTS").await;
        let head = all.iter().find(|entry| entry.subject.ends_with(".head"))?;
        (head.number("round") > 0).then(|| head.number("behind"))
    })
    .await;
    let late = node.open("late").await;
    early[0].close(Reason::ClientClosed);
    let (receipt, gone) = (node.open("marker").await, Arc::clone(&node.hub));
    drop(receipt);
    gone.caught_up().await.expect("everything is stored");
    node.die().await;
    drop((early, late));
    // Whatever was before it is not there any more.
    let context = async_nats::jetstream::new(nats.client().await);
    let stream = context.get_stream(CONNECTIVITY).await.expect("a stream");
    let events = subject::presence_wildcard(&"landfall".parse().expect("a name"));
    stream.purge().filter(events).sequence(place).await.expect("a purge");
    let next = Node::start(&nats.url(), "a1").await;
    let events = presence(&nats).await;
    assert_eq!(ends(&events, "gateway-lost"), 39 + 1, "those of the checkpoint, and the later one");
    next.leave().await;
}
