//! Who a request is from, and what that rests on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_testkit::coap::{code, kind, option};
use tokio::sync::Notify;

use crate::world::{TestAuth, World, post};

#[tokio::test]
async fn who_says_no_name_is_known_by_the_address_or_not_at_all() {
    let mut world = World::open().await;
    let (mut device, mut stranger) = (world.client().await, world.client().await);
    assert_eq!(device.post("a", &[], "").await.code, code(4, 1));
    world.told("refused bad-credentials").await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(device.post("b", &[], "").await.code, code(2, 4), "its address is known");
    assert_eq!(stranger.post("c", &[], "").await.code, code(4, 1));
    device.rebind().await;
    assert_eq!(device.post("d", &[], "").await.code, code(4, 1));
    assert_eq!(world.story(), ["refused bad-credentials", "connected d", "upstream d a", "upstream d b"]);
    world.close().await;
}

#[tokio::test]
async fn a_tenant_is_named_by_t() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d", "t=acme"], "").await.code, code(2, 4));
    assert_eq!(device.post("b", &["ep=d", "t=acme"], "").await.code, code(2, 4));
    assert_eq!(device.post("c", &["ep=d"], "").await.code, code(2, 4));
    let tenants: Vec<_> = world.events().iter().map(|event| event["tenant"].clone()).collect();
    assert_eq!(tenants, ["acme", "acme", "acme", "default", "default"]);
    world.close().await;
}

#[tokio::test]
async fn a_key_is_verified_once_and_shown_each_time() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret"), ("e", "other")]), |_, _| {}).await;
    let mut device = world.client().await;
    for _ in 0..5 {
        assert_eq!(device.post("a", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    }
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 1, "the session remembers");
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(4, 1), "an address alone proves nothing");
    assert_eq!(device.post("a", &[], "").await.code, code(4, 1));
    assert_eq!(
        device.post("a", &["key=secret"], "").await.code,
        code(2, 4),
        "whose key it is, is known there"
    );
    assert_eq!(device.post("a", &["ep=e", "key=secret"], "").await.code, code(4, 1), "it is nobody else's");
    assert_eq!(device.post("a", &["ep=x", "key=secret"], "").await.code, code(4, 1));
    world.told("refused unknown-device").await;
    assert_eq!(world.count("connected d"), 1);
    assert_eq!(world.count("upstream d a"), 6);
    assert_eq!(world.told("connected d").await["identifiedBy"], "password");
    world.close().await;
}

#[tokio::test]
async fn a_wrong_key_touches_nobody() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret")]), |_, _| {}).await;
    let (mut device, mut attacker) = (world.client().await, world.client().await);
    assert_eq!(device.post("a", &["ep=d", "key=secret", "sleep=60"], "").await.code, code(2, 4));
    world.told("dormant d").await;
    for queries in [&["ep=d", "key=wrong", "lt=1"][..], &["ep=d", "lt=1"], &["ep=d", "key="]] {
        assert_eq!(attacker.post("a", queries, "").await.code, code(4, 1));
    }
    world.told("refused bad-credentials").await;
    assert_eq!(world.story(), ["connected d", "upstream d a", "dormant d", "refused bad-credentials"]);
    let peer = world.peer("d").unwrap();
    assert!(peer.is_asleep());
    assert_eq!(peer.remote_address(), device.local_addr());
    world.close().await;
}

#[tokio::test]
async fn one_devices_verification_makes_nobody_wait() {
    let go = Arc::new(Notify::new());
    let auth = TestAuth::knowing(&[("slow", "s"), ("quick", "q")]).slow("slow", &go);
    let mut world = World::with(auth, |config, _| config.max_authenticating = 1).await;
    let (mut slow, mut quick) = (world.client().await, world.client().await);
    let request = post(&mut slow, "a", &["ep=slow", "key=s"]);
    slow.send(&request).await;
    // Acknowledged, since it takes longer.
    assert_eq!(slow.receive().await.code, 0);
    assert_eq!(quick.post("b", &["ep=quick", "key=q"], "").await.code, code(2, 4));
    let another = world.client().await.post("a", &["ep=slow", "key=s"], "").await;
    assert_eq!((another.code, another.uint(option::MAX_AGE)), (code(5, 3), Some(5)), "the bound");
    go.notify_one();
    let answer = slow.receive().await;
    assert_eq!((answer.kind, answer.code, answer.token), (kind::CON, code(2, 4), request.token));
    assert_eq!(world.story(), ["connected quick", "upstream quick b", "connected slow", "upstream slow a"]);
    world.close().await;
}

#[tokio::test]
async fn a_verification_that_takes_too_long_is_told() {
    let go = Arc::new(Notify::new());
    let auth = TestAuth::knowing(&[("slow", "s")]).slow("slow", &go);
    let short = std::time::Duration::from_millis(20);
    let mut world = World::with(auth, |config, _| config.auth_timeout = short).await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=slow", "key=s"], "").await.code, code(5, 3));
    assert!(world.story().is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_session_that_was_ended_begins_anew_with_the_next_word() {
    let mut world = World::with(TestAuth::knowing(&[("d", "k")]), |_, _| {}).await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d", "key=k"], "").await.code, code(2, 4));
    assert_eq!(world.hub.kick(&"default".parse().unwrap(), &"d".parse().unwrap()), 1);
    assert_eq!(device.post("b", &["ep=d", "key=k"], "").await.code, code(2, 4));
    assert_eq!(
        world.story(),
        ["connected d", "upstream d a", "disconnected d kicked", "connected d", "upstream d b"]
    );
    world.close().await;
}

#[tokio::test]
async fn no_room_for_a_session_is_told() {
    let mut world = World::with(TestAuth::open(), |_, hub| hub.max_sessions = 1).await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(device.post("a", &["ep=e"], "").await.code, code(5, 3));
    world.told("refused e limit-reached").await;
    world.close().await;
}
