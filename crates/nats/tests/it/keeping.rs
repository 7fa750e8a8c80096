//! NATS away: what happens is kept on disk, and told when it is back, also by the next process.

use std::time::Duration;

use landfall_event::{Incarnation, Memo, Reason, Stream, subject};
use landfall_hub::{Bus as _, SessionHandle};
use landfall_nats::Standing;
use landfall_testkit::ledger::{self, Open};
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, everything, stored, stored_when};
use landfall_testkit::wait::{PATIENCE, eventually};
use landfall_testkit::{Mode, NatsServer, Proxy};
use tempfile::TempDir;

use crate::node::{self, Node, ends, hear, presence, send};
use crate::support::make_streams_with;

/// A message that nobody waits for.
fn tell(session: &SessionHandle, n: u64) {
    let permit = session.try_admit(8).expect("room");
    session.upstream(node::uplink(n), None, permit).expect("an open session");
}

async fn until_keeping(node: &Node) {
    eventually(PATIENCE, "keeping", async || node.bus.is_keeping().then_some(())).await;
}

/// Waits until so many events are on disk.
async fn until_kept(node: &Node, count: u64) {
    eventually(PATIENCE, "events on disk", async || (node.bus.stats().kept >= count).then_some(())).await;
}

/// The payloads of a device's stored messages, in order.
fn payloads(events: &[Seen], device: &str) -> Vec<u64> {
    let its = events.iter().filter(|event| event.kind() == "upstream" && event.is_about(device));
    its.map(|event| event.number("payload")).collect()
}

#[tokio::test]
async fn devices_come_speak_and_leave_while_nats_is_away() {
    let (mut nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let node = Node::keeping(&nats.url(), "a1", disk.path()).await;
    let there = node.open("there").await;
    tell(&there, 1);
    send(&there, 2);
    hear(&there, &[2]).await;
    nats.kill();
    until_keeping(&node).await;
    let window = node.hub.window_fill().0;
    for n in 3..=50 {
        tell(&there, n);
    }
    // One that is waited for stands in its place among them.
    send(&there, 51);
    tell(&there, 52);
    let came = node.open("came").await;
    tell(&came, 1);
    came.close(Reason::ClientClosed);
    let stays = node.open("stays").await;
    until_kept(&node, 50 + 3 + 1).await;
    assert_eq!(node.hub.window_fill().0, window, "what is on disk takes no room in memory");
    let told =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis();
    nats.restart().await;
    hear(&there, &[51]).await;
    let messages = stored_when(&nats, MESSAGES, "all messages", |events| events.len() >= 53).await;
    assert_eq!(payloads(&messages, "there"), (1..=52).collect::<Vec<_>>());
    assert_eq!(payloads(&messages, "came"), [1]);
    let late = messages.iter().filter(|event| event.is_about("came"));
    late.for_each(|event| assert!(u128::from(event.number("timestamp")) <= told, "when it happened"));
    there.close(Reason::ClientClosed);
    stays.close(Reason::ClientClosed);
    node.leave().await;
    assert_eq!(ends(&presence(&nats).await, "client-closed"), 3);
    ledger::assert_kept(&nats, Open::None).await;
    assert_eq!(std::fs::read_dir(disk.path()).expect("a directory").count(), 0, "nothing is left on disk");
}

#[tokio::test]
async fn what_is_on_disk_outlives_the_process() {
    let (mut nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let node = Node::keeping(&nats.url(), "a1", disk.path()).await;
    let (left, stays) = (node.open("left").await, node.open("stays").await);
    nats.kill();
    until_keeping(&node).await;
    tell(&left, 1);
    left.close(Reason::ClientClosed);
    let late = node.open("late").await;
    for n in 1..=20 {
        tell(&late, n);
    }
    until_kept(&node, 23).await;
    node.die().await;
    drop((stays, late));
    nats.restart().await;
    let next = Node::keeping(&nats.url(), "a1", disk.path()).await;
    let events = presence(&nats).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (1, 2));
    let messages = stored(&nats, MESSAGES).await;
    assert_eq!(payloads(&messages, "left"), [1]);
    assert_eq!(payloads(&messages, "late"), (1..=20).collect::<Vec<_>>());
    next.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
    assert_eq!(std::fs::read_dir(disk.path()).expect("a directory").count(), 0, "nothing is left on disk");
}

/// What is kept beside a message is told by whoever gets it stored, and by nobody before.
#[tokio::test]
async fn what_is_kept_beside_a_message_comes_with_it() {
    let (mut nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let node = Node::keeping(&nats.url(), "a1", disk.path()).await;
    let session = node.open("pump").await;
    nats.kill();
    until_keeping(&node).await;
    let memo = |number| Memo { session: u64::MAX, number, packet_id: 7, mark: 9 };
    for n in 1..=3 {
        let permit = session.try_admit(8).expect("room");
        let noted = (n != 2).then(|| memo(n));
        session.upstream_noted(node::uplink(n), Some((n, noted)), permit).expect("an open session");
    }
    until_kept(&node, 3).await;
    node.die().await;
    drop(session);
    nats.restart().await;
    let next = Node::keeping(&nats.url(), "a1", disk.path()).await;
    assert_eq!(next.memos, [memo(1), memo(3)]);
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "pump"), [1, 2, 3]);
    next.leave().await;
    let last = Node::keeping(&nats.url(), "a1", disk.path()).await;
    assert_eq!(last.memos, []);
    last.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_spool_that_was_half_published_is_not_published_twice() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 3).await;
    let node = Node::keeping(&format!("nats://{}", proxy.address()), "a1", disk.path()).await;
    let session = node.open("pump").await;
    proxy.set(Mode::Cut);
    until_keeping(&node).await;
    for n in 1..=5_000 {
        tell(&session, n);
    }
    until_kept(&node, 5_000).await;
    proxy.set(Mode::Pass);
    stored_when(&nats, MESSAGES, "some of them", |events| events.len() >= 200).await;
    node.die().await;
    drop(session);
    let next = Node::keeping(&nats.url(), "a1", disk.path()).await;
    let messages = stored(&nats, MESSAGES).await;
    assert_eq!(payloads(&messages, "pump"), (1..=5_000).collect::<Vec<_>>());
    next.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

/// Publishing a large spool takes longer than a lease: the others see that somebody is at it.
#[tokio::test]
async fn a_spool_that_takes_long_is_not_cut_off_by_a_survivor() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 8).await;
    let by_proxy = format!("nats://{}", proxy.address());
    let node = Node::keeping(&by_proxy, "a1", disk.path()).await;
    let (stays, left) = (node.open("stays").await, node.open("left").await);
    proxy.set(Mode::Cut);
    until_keeping(&node).await;
    for n in 1..=5_000 {
        tell(&stays, n);
    }
    left.close(Reason::ClientClosed);
    until_kept(&node, 5_001).await;
    node.die().await;
    drop(stays);
    let survivor = Node::start(&nats.url(), "b1").await;
    proxy.set(Mode::Delay(Duration::from_millis(60)));
    let (bus, guardian) = (by_proxy, nats.url());
    let next = Node::keeping_by((&bus, &guardian), "a1", disk.path()).await;
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "stays"), (1..=5_000).collect::<Vec<_>>());
    let events = presence(&nats).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (1, 1));
    next.leave().await;
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
    assert_eq!(std::fs::read_dir(disk.path()).expect("a directory").count(), 0, "nothing is left on disk");
}

#[tokio::test]
async fn a_spool_whose_sessions_a_survivor_has_closed() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 4).await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let node = Node::keeping(&format!("nats://{}", proxy.address()), "a1", disk.path()).await;
    let known = node.open("known").await;
    let known_id = known.id();
    proxy.set(Mode::Cut);
    until_keeping(&node).await;
    tell(&known, 1);
    known.close(Reason::ClientClosed);
    let late = node.open("late").await;
    tell(&late, 1);
    late.close(Reason::ClientClosed);
    let stays = node.open("stays").await;
    tell(&stays, 1);
    until_kept(&node, 7).await;
    stored_when(&nats, CONNECTIVITY, "its end", |events| ends(events, "gateway-lost") == 1).await;
    node.die().await;
    drop(stays);
    let next = Node::keeping(&nats.url(), "a1", disk.path()).await;
    // What a session that is closed in the ledger had still to say is named; what began on disk is told.
    let lost = serde_json::json!([{ "sessionId": known_id.to_string(), "from": 1, "to": 1 }]);
    let dropped = |events: &[Seen]| {
        events.iter().any(|event| {
            event.kind() == "events-dropped" && event.number("messages") == 1 && event.json["gaps"] == lost
        })
    };
    let events = stored_when(&nats, CONNECTIVITY, "the count", dropped).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (1, 2));
    let messages = stored(&nats, MESSAGES).await;
    assert_eq!((payloads(&messages, "late"), payloads(&messages, "stays")), (vec![1], vec![1]));
    next.leave().await;
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_gateway_cut_off_for_longer_than_its_lease_tells_what_it_kept_under_new_sessions() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 5).await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let node = Node::keeping(&format!("nats://{}", proxy.address()), "a1", disk.path()).await;
    let session = node.open("pump").await;
    let before = session.id();
    proxy.set(Mode::Cut);
    until_keeping(&node).await;
    for n in 1..=30 {
        tell(&session, n);
    }
    send(&session, 31);
    let (came, left) = (node.open("came").await, node.open("left").await);
    tell(&came, 1);
    left.close(Reason::ClientClosed);
    until_kept(&node, 31 + 2 + 2).await;
    stored_when(&nats, CONNECTIVITY, "its end", |events| ends(events, "gateway-lost") == 1).await;
    proxy.set(Mode::Pass);
    hear(&session, &[31]).await;
    assert_ne!(session.id(), before);
    tell(&session, 32);
    session.close(Reason::ClientClosed);
    came.close(Reason::ClientClosed);
    node.leave().await;
    survivor.leave().await;
    let messages = stored(&nats, MESSAGES).await;
    assert_eq!(payloads(&messages, "pump"), (1..=32).collect::<Vec<_>>());
    assert_eq!(payloads(&messages, "came"), [1]);
    let events = presence(&nats).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (3, 1));
    ledger::assert_kept(&nats, Open::None).await;
}

/// Waits until the incarnation has a fence in the messages' stream, or none.
async fn until_fenced(nats: &NatsServer, incarnation: Incarnation, is: bool) {
    let subject = subject::fence(Stream::Messages, &"landfall".parse().expect("a name"), &incarnation);
    eventually(PATIENCE, "the fence", async || {
        let all = everything(&nats.url(), MESSAGES).await;
        (all.iter().any(|message| message.subject == subject) == is).then_some(())
    })
    .await;
}

/// What is on the disk may be stored all the same: the server had it, and only its word was lost. A gateway that counts as
/// lost, and hears of that before it has looked at its disk, does not take such a session for one that nobody knows.
#[tokio::test]
async fn a_session_that_is_stored_and_on_disk_is_not_closed_a_second_time() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let server = ([127, 0, 0, 1], nats.port()).into();
    let (way, guardians) = (Proxy::start(server, 6).await, Proxy::start(server, 7).await);
    let survivor = Node::start(&nats.url(), "b1").await;
    let urls = [&way, &guardians].map(|proxy| format!("nats://{}", proxy.address()));
    let node = Node::keeping_by((&urls[0], &urls[1]), "a1", disk.path()).await;
    let incarnation = node.hub.origin().incarnation;
    let stays = node.open("stays").await;
    tell(&stays, 1);
    nats.freeze();
    // Sent to a server that has it and says nothing.
    let left = node.open("left").await;
    for n in 2..=5 {
        tell(&stays, n);
    }
    until_keeping(&node).await;
    left.close(Reason::ClientClosed);
    tell(&stays, 6);
    until_kept(&node, 2 + 5).await;
    way.set(Mode::Cut);
    guardians.set(Mode::Cut);
    nats.thaw();
    stored_when(&nats, CONNECTIVITY, "both ends", |events| ends(events, "gateway-lost") == 2).await;
    until_fenced(&nats, incarnation, false).await;
    guardians.set(Mode::Pass);
    until_fenced(&nats, incarnation, true).await;
    way.set(Mode::Pass);
    eventually(PATIENCE, "an empty disk", async || (node.bus.stats().kept == 0).then_some(())).await;
    tell(&stays, 7);
    stays.close(Reason::ClientClosed);
    node.leave().await;
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "stays"), (1..=7).collect::<Vec<_>>());
    let events = presence(&nats).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (1, 2));
}

/// The same for who publishes the disk of a gateway that is gone.
#[tokio::test]
async fn a_spool_does_not_close_what_is_stored_and_closed_a_second_time() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 9).await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let node = Node::keeping(&format!("nats://{}", proxy.address()), "a1", disk.path()).await;
    let stays = node.open("stays").await;
    nats.freeze();
    // Sent to a server that has it and says nothing.
    let left = node.open("left").await;
    tell(&left, 1);
    until_keeping(&node).await;
    left.close(Reason::ClientClosed);
    let late = node.open("late").await;
    tell(&late, 1);
    until_kept(&node, 3 + 2).await;
    proxy.set(Mode::Cut);
    node.die().await;
    drop((stays, late));
    nats.thaw();
    stored_when(&nats, CONNECTIVITY, "both ends", |events| ends(events, "gateway-lost") == 2).await;
    let next = Node::keeping(&nats.url(), "a1", disk.path()).await;
    let events = presence(&nats).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (0, 3));
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "late"), [1]);
    next.leave().await;
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
    assert_eq!(std::fs::read_dir(disk.path()).expect("a directory").count(), 0, "nothing is left on disk");
}

/// The stream may have the beginning of a session: the end is told, whatever the disk lacks room for.
#[tokio::test]
async fn what_was_sent_before_the_disk_filled_up_is_closed_all_the_same() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let node = Node::keeping_at_most(&nats.url(), "a1", disk.path(), 1 << 20).await;
    let stays = node.open("stays").await;
    nats.freeze();
    // Sent to a server that has it and says nothing.
    let left = node.open("left").await;
    tell(&left, 1);
    until_keeping(&node).await;
    left.close(Reason::ClientClosed);
    let dropped = async || (node.bus.stats().dropped > 0).then_some(());
    let mut n = 0;
    while dropped().await.is_none() {
        assert!(n < 20_000, "the disk never fills up");
        node.open(&format!("passing-{n}")).await.close(Reason::ClientClosed);
        n += 1;
    }
    nats.thaw();
    eventually(PATIENCE, "an empty disk", async || (node.bus.stats().kept == 0).then_some(())).await;
    stays.close(Reason::ClientClosed);
    node.leave().await;
    let told = presence(&nats).await;
    assert_eq!(told.iter().filter(|event| event.is_about("left")).count(), 2, "its beginning and its end");
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "left"), [1]);
    ledger::assert_kept(&nats, Open::None).await;
}

/// What finds no room on the disk waits in memory. The server may have it, and forgets the ids of what it has.
#[tokio::test]
async fn what_was_sent_and_found_no_room_on_disk_is_stored_once() {
    let (nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let window = Duration::from_millis(100);
    make_streams_with(&nats.url(), window).await;
    let node = Node::keeping_at_most(&nats.url(), "a1", disk.path(), 1 << 20).await;
    let filler = node.open("filler").await;
    let stays = node.open("stays").await;
    nats.freeze();
    for n in 1..=3_000 {
        send(&stays, n);
    }
    until_kept(&node, 1).await;
    // More than fits, and somebody waits for each.
    eventually(PATIENCE, "a full disk", async || (!node.bus.can_keep()).then_some(())).await;
    send(&filler, 1);
    // Longer than the stream knows what it has.
    tokio::time::sleep(window * 3).await;
    nats.thaw();
    hear(&stays, &(1..=3_000).collect::<Vec<_>>()).await;
    hear(&filler, &[1]).await;
    stays.close(Reason::ClientClosed);
    filler.close(Reason::ClientClosed);
    node.leave().await;
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "stays"), (1..=3_000).collect::<Vec<_>>());
    ledger::assert_kept(&nats, Open::None).await;
}

/// Found out that it counts as lost, and NATS is away before it can begin anew.
#[tokio::test]
async fn who_is_fenced_out_and_cut_off_keeps_on_disk_too() {
    let (mut nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let server = ([127, 0, 0, 1], nats.port()).into();
    let (way, guardians) = (Proxy::start(server, 10).await, Proxy::start(server, 11).await);
    let survivor = Node::start(&nats.url(), "b1").await;
    let urls = [&way, &guardians].map(|proxy| format!("nats://{}", proxy.address()));
    let node = Node::keeping_by((&urls[0], &urls[1]), "a1", disk.path()).await;
    let stays = node.open("stays").await;
    tell(&stays, 1);
    stored_when(&nats, MESSAGES, "the first", |events| events.len() == 1).await;
    guardians.set(Mode::Cut);
    stored_when(&nats, CONNECTIVITY, "its end", |events| ends(events, "gateway-lost") == 1).await;
    tell(&stays, 2);
    let standing = async || (*node.bus.standing().borrow() == Standing::Fenced).then_some(());
    eventually(PATIENCE, "the refusal", standing).await;
    nats.kill();
    for n in 3..=20 {
        tell(&stays, n);
    }
    let left = node.open("left").await;
    left.close(Reason::ClientClosed);
    until_kept(&node, 19 + 2).await;
    nats.restart().await;
    guardians.set(Mode::Pass);
    eventually(PATIENCE, "an empty disk", async || (node.bus.stats().kept == 0).then_some(())).await;
    stays.close(Reason::ClientClosed);
    node.leave().await;
    survivor.leave().await;
    assert_eq!(payloads(&stored(&nats, MESSAGES).await, "stays"), (1..=20).collect::<Vec<_>>());
    let events = presence(&nats).await;
    assert_eq!((ends(&events, "client-closed"), ends(&events, "gateway-lost")), (2, 1));
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn a_full_disk_drops_whole_sessions_first_then_the_oldest_messages() {
    let (mut nats, disk) = (NatsServer::start().await, TempDir::new().expect("a directory"));
    let node = Node::keeping_at_most(&nats.url(), "a1", disk.path(), 1 << 20).await;
    let there = node.open("there").await;
    nats.kill();
    until_keeping(&node).await;
    // Half of the room for sessions that come and go, and more than all of it for messages.
    for n in 0..400 {
        let passing = node.open(&format!("passing-{n}")).await;
        passing.close(Reason::ClientClosed);
    }
    for n in 1..=4_000 {
        tell(&there, n);
        if n % 100 == 0 {
            until_kept(&node, 1).await;
        }
    }
    eventually(PATIENCE, "an empty queue", async || (node.bus.stats().queued == 0).then_some(())).await;
    assert!(node.bus.stats().kept_bytes <= 1 << 20);
    nats.restart().await;
    eventually(PATIENCE, "an empty disk", async || (node.bus.stats().kept == 0).then_some(())).await;
    let events = stored_when(&nats, CONNECTIVITY, "the count", |events| {
        events.iter().any(|event| event.kind() == "events-dropped")
    })
    .await;
    there.close(Reason::ClientClosed);
    node.leave().await;
    let dropped: Vec<&Seen> = events.iter().filter(|event| event.kind() == "events-dropped").collect();
    let sum = |field: &str| dropped.iter().map(|event| event.number(field)).sum::<u64>();
    let messages = stored(&nats, MESSAGES).await;
    let told = payloads(&messages, "there");
    assert_eq!(sum("messages"), 4_000 - told.len() as u64, "each is stored or counted");
    assert!(sum("messages") > 0);
    let passing = presence(&nats).await.iter().filter(|event| event.text("type") == "connected").count() - 1;
    assert_eq!(sum("sessions"), 400, "all of them, before any message: {passing} are told");
    assert_eq!(told, (4_001 - told.len() as u64..=4_000).collect::<Vec<_>>(), "the oldest are gone");
    let gaps = dropped.iter().flat_map(|event| event.json["gaps"].as_array().cloned().unwrap_or_default());
    let named: u64 = gaps.map(|gap| gap["to"].as_u64().unwrap() - gap["from"].as_u64().unwrap() + 1).sum();
    assert_eq!(named, sum("messages"), "and each is named");
}
