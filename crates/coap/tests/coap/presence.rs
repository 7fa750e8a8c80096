//! Presence: lifetimes, silence, addresses that change, sleep, signs of life.

use std::time::Duration;

use landfall_testkit::coap::{Block, Message, code, kind, method, option};
use landfall_testkit::wait::{PATIENCE, eventually};

use crate::world::{TestAuth, World, post};

/// When the device was last heard, in Unix ms.
fn last_seen(world: &World, device: &str) -> u64 {
    world.hub.sessions(1, |session| session.endpoint_id == device)[0].last_seen_at
}

/// Waits until the device has been silent for a while, so that its next sign of life can be seen. Returns when it was heard.
async fn silence(world: &World, device: &str) -> u64 {
    let silent = async || (world.peer(device).unwrap().silent_ms() >= 200).then_some(());
    eventually(PATIENCE, "silence", silent).await;
    last_seen(world, device)
}

/// Waits until the device has been heard since then.
async fn heard(world: &World, device: &str, before: u64) {
    // Two clocks make the time, so that it may jitter.
    let heard = async || (last_seen(world, device) >= before + 100).then_some(());
    eventually(PATIENCE, "a sign of life", heard).await;
}

#[tokio::test]
async fn a_lifetime_is_announced_and_expires() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d", "lt=1"], "").await.code, code(2, 4));
    assert_eq!(world.told("connected d").await["keepAliveMs"], 1_000);
    let ended = world.told("disconnected d lifetime-expired").await;
    assert_eq!((&ended["inferred"], &ended["initiator"]), (&true.into(), &"gateway".into()));
    let silent = ended["timestamp"].as_u64().unwrap() - ended["lastSeenAt"].as_u64().unwrap();
    assert!((1_000..1_500).contains(&silent), "{silent} ms");
    world.close().await;
}

#[tokio::test]
async fn a_lifetime_can_change() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(device.post("a", &["ep=d", "lt=1"], "").await.code, code(2, 4));
    world.told("disconnected d lifetime-expired").await;
    assert_eq!(world.count("connected d"), 1);
    world.close().await;
}

#[tokio::test]
async fn silence_ends_who_has_announced_nothing() {
    let idle = Duration::from_millis(300);
    let mut world = World::with(TestAuth::open(), |_, hub| hub.idle_timeout = idle).await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    let ended = world.told("disconnected d idle-timeout").await;
    assert_eq!(ended["inferred"], true);
    world.close().await;
}

#[tokio::test]
async fn another_address_is_the_same_session() {
    let mut world = World::with(TestAuth::knowing(&[("d", "k")]), |_, _| {}).await;
    let mut device = world.client().await;
    let before = device.local_addr();
    assert_eq!(device.post("a", &["ep=d", "key=k"], "").await.code, code(2, 4));
    device.rebind().await;
    assert_eq!(device.post("b", &["ep=d", "key=k"], "").await.code, code(2, 4));
    let moved = world.told("moved d").await;
    assert_eq!(moved["remoteAddress"], device.local_addr().to_string());
    assert_eq!(moved["previousAddress"], before.to_string());
    assert_eq!(world.story(), ["connected d", "upstream d a", "moved d", "upstream d b"]);
    world.close().await;
}

#[tokio::test]
async fn sleep_begins_with_the_answer_and_ends_with_the_next_word() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d", "sleep=3600"], "").await.code, code(2, 4));
    let dormant = world.told("dormant d").await;
    assert_eq!(dormant["sleepMs"], 3_600_000);
    assert_eq!(device.post("b", &["ep=d"], "").await.code, code(2, 4));
    world.told("awake d").await;
    assert_eq!(world.story(), ["connected d", "upstream d a", "dormant d", "awake d", "upstream d b"]);
    world.close().await;
}

#[tokio::test]
async fn what_a_device_says_again_or_acknowledges_does_not_wake_it() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    world.bus.set_slow(true);
    let request = post(&mut device, "a", &["ep=d", "sleep=3600"]);
    device.send(&request).await;
    assert_eq!(device.receive().await.code, 0);
    world.bus.set_slow(false);
    let answer = device.receive().await;
    assert_eq!(answer.kind, kind::CON);
    world.told("dormant d").await;
    device.send(&Message::empty(kind::ACK, answer.id)).await;
    device.send(&request).await;
    assert_eq!(device.receive().await.kind, kind::ACK, "of the duplicate");
    assert!(world.peer("d").unwrap().is_asleep());
    assert!(device.ping().await);
    world.told("awake d").await;
    world.close().await;
}

#[tokio::test]
async fn a_ping_is_a_heartbeat_of_who_is_known() {
    let mut world = World::open().await;
    let (mut device, mut stranger) = (world.client().await, world.client().await);
    assert!(stranger.ping().await, "anybody is answered");
    assert!(world.story().is_empty());
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    let before = silence(&world, "d").await;
    assert!(stranger.ping().await);
    assert!(last_seen(&world, "d") < before + 100);
    assert!(device.ping().await);
    heard(&world, "d", before).await;
    assert_eq!(world.story().len(), 2);
    world.close().await;
}

/// A message id can be guessed and an address forged: a request that was refused, sent twice, must touch nobody.
#[tokio::test]
async fn what_comes_again_is_no_sign_of_life() {
    let mut world = World::with(TestAuth::knowing(&[("d", "k")]), |_, _| {}).await;
    let mut device = world.client().await;
    let request = post(&mut device, "a", &["ep=d", "key=k"]);
    device.send(&request).await;
    let answer = device.receive().await;
    let before = silence(&world, "d").await;
    device.send(&request).await;
    assert_eq!(device.receive().await, answer);
    let wrong = post(&mut device, "a", &["ep=d", "key=wrong"]);
    for _ in 0..2 {
        device.send(&wrong).await;
        assert_eq!(device.receive().await.code, code(4, 1));
    }
    assert!(last_seen(&world, "d") < before + 100);
    assert_eq!(world.metric("landfall_coap_duplicates_total"), 2.0);
    world.close().await;
}

#[tokio::test]
async fn a_reset_of_a_notification_is_a_sign_of_life() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    let before = silence(&world, "d").await;
    device.forget(&observation);
    world.command("d", "c1", "acknowledged");
    device.stray().await;
    heard(&world, "d", before).await;
    assert_eq!(world.told("downstream d failed").await["status"], "reset");
    assert!(world.peer("d").is_some(), "presence is decided by silence alone");
    world.close().await;
}

/// Block `number` of an upload, of 16 bytes.
fn block(
    client: &mut landfall_testkit::coap::CoapClient,
    number: u32,
    more: bool,
    queries: &[&str],
) -> Message {
    let block = Block { number, more, exponent: 0 };
    post(client, "t", queries).number(option::BLOCK1, block.value()).payload("0123456789abcdef")
}

#[tokio::test]
async fn a_device_is_there_with_the_first_block_that_is_let_in() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret")]).publish("t"), |_, _| {}).await;
    let mut device = world.client().await;
    let (right, wrong) = (["ep=d", "key=secret"], ["ep=d", "key=wrong"]);
    let request = block(&mut device, 0, true, &wrong);
    assert_eq!(device.request(request).await.code, code(4, 1), "not with the last block only");
    let request = block(&mut device, 1, false, &wrong);
    assert_eq!(device.request(request).await.code, code(4, 8), "nothing of it was kept");
    assert_eq!(world.count("connected d"), 0, "no event before it is known who it is");
    let request = block(&mut device, 0, true, &right);
    assert_eq!(device.request(request).await.code, code(2, 31));
    world.told("connected d").await;
    let request = block(&mut device, 1, false, &right);
    assert_eq!(device.request(request).await.code, code(2, 4));
    assert_eq!((world.count("upstream d t"), world.count("connected d")), (1, 1));
    // What may not be sent is not taken block by block.
    let request = block(&mut device, 0, true, &right);
    let path = Message { options: Vec::new(), ..request.clone() }.path("other").queries(&right);
    let block = Block { number: 0, more: true, exponent: 0 };
    let request = Message { id: device.id(), ..path.number(option::BLOCK1, block.value()) };
    assert_eq!(device.request(request).await.code, code(4, 3));
    world.close().await;
}

#[tokio::test]
async fn every_block_of_an_upload_is_a_sign_of_life() {
    for secure in [false, true] {
        let mut world = World::with(TestAuth::knowing(&[("d", "secret")]), |_, _| {}).await;
        let queries: &[&str] = if secure { &[] } else { &["ep=d", "key=secret"] };
        let mut device = if secure { world.on_channel("d", "secret").await } else { world.client().await };
        for number in 0..3 {
            if number > 0 {
                let before = silence(&world, "d").await;
                let request = block(&mut device, number, true, queries);
                assert_eq!(device.request(request).await.code, code(2, 31));
                heard(&world, "d", before).await;
            } else {
                let request = block(&mut device, 0, true, queries);
                assert_eq!(device.request(request).await.code, code(2, 31));
            }
        }
        world.close().await;
    }
}

#[tokio::test]
async fn every_block_of_a_command_that_is_fetched_is_a_sign_of_life() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret")]), |_, _| {}).await;
    let (mut device, mut other) = (world.client().await, world.client().await);
    let queries = ["ep=d", "key=secret"];
    assert_eq!(device.post("t", &queries, "").await.code, code(2, 4));
    let request = crate::world::request("d", "c1", "delivered");
    world.hub.command(landfall_hub::CommandRequest { payload: vec![b'x'; 3_000].into(), ..request });
    let whole = Message::request(method::GET).path("command").queries(&queries);
    assert_eq!(device.request(whole.clone()).await.payload.len(), 1_024);
    let further = |number| {
        let block = Block { number, more: false, exponent: 6 };
        whole.clone().number(option::BLOCK2, block.value())
    };
    for number in 1..3 {
        let before = silence(&world, "d").await;
        // From elsewhere, or with another key, it is no block of this answer, and nobody's word.
        assert_eq!(other.request(further(number)).await.code, code(4, 8));
        let wrong = Message::request(method::GET).path("command").queries(&["ep=d", "key=wrong"]);
        let block = Block { number, more: false, exponent: 6 };
        assert_eq!(device.request(wrong.number(option::BLOCK2, block.value())).await.code, code(4, 8));
        assert!(last_seen(&world, "d") < before + 100);
        assert_eq!(device.request(further(number)).await.code, code(2, 5));
        heard(&world, "d", before).await;
    }
    world.close().await;
}

/// Without a Connection ID nobody can tell a device that has another port now from anybody else: a ping says no name.
#[tokio::test]
async fn a_ping_from_another_port_is_reset_and_moves_no_truth() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret")]), |_, _| {}).await;
    let mut device = world.client().await;
    assert_eq!(device.post("t", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    let home = device.local_addr();
    let before = silence(&world, "d").await;
    device.rebind().await;
    assert!(device.ping().await, "it is answered with a reset");
    assert!(last_seen(&world, "d") < before + 100, "it keeps nobody present");
    assert_eq!(world.peer("d").unwrap().remote_address(), home, "and moves nobody");
    assert_eq!(world.story(), ["connected d", "upstream d t"]);
    // The next request says who it is, and from then on pings from there are its own.
    assert_eq!(device.post("t", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    world.told("moved d").await;
    let before = silence(&world, "d").await;
    assert!(device.ping().await);
    heard(&world, "d", before).await;
    world.close().await;
}
