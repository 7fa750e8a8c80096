//! Presence: lifetimes, silence, addresses that change, sleep, signs of life.

use std::time::Duration;

use landfall_testkit::coap::{Message, code, kind};
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
