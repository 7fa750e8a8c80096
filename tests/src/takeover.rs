//! A second connection of the same device: the first ends before the second begins, and never harms it afterwards.

use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{Connect, kind};
use landfall_testkit::streams::{CONNECTIVITY, stored};
use landfall_testkit::{Mode, Proxy, RawClient, Version, World};

#[tokio::test]
async fn the_first_ends_before_the_second_begins() {
    let world = World::start().await;
    for (first, second) in
        [(Version::V5, Version::V5), (Version::V4, Version::V5), (Version::V5, Version::V4)]
    {
        let name = format!("d{}{}", first.level(), second.level());
        let mut old = RawClient::accepted(world.mqtt(), &Connect::new(first, &name)).await;
        let mut new = RawClient::accepted(world.mqtt(), &Connect::new(second, &name)).await;
        let said = old.until_closed().await;
        if first == Version::V5 {
            assert_eq!(said.last().map(|p| (p.kind(), p.disconnect_code())), Some((kind::DISCONNECT, 0x8e)));
        } else {
            assert!(said.is_empty(), "version 3.1.1 has no word for it: {said:?}");
        }
        // The CONNACK has left, so both events are stored: in this order.
        let story: Vec<_> = stored(&world.nats, CONNECTIVITY).await;
        let story: Vec<_> = story.into_iter().filter(|event| event.is_about(&name)).collect();
        let kinds: Vec<&str> = story.iter().map(landfall_testkit::Seen::kind).collect();
        assert_eq!(kinds, ["connected", "disconnected", "connected"]);
        assert_eq!(story[1].text("reason"), "taken-over");
        assert_eq!(story[1].text("sessionId"), story[0].text("sessionId"));
        assert_ne!(story[2].text("sessionId"), story[0].text("sessionId"));
        assert!(story[2].number("epoch") > story[0].number("epoch"));
        new.ping().await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_late_close_of_the_first_leaves_the_second_alone() {
    let world = World::start().await;
    // The first hangs in a network that no longer carries anything.
    let proxy = Proxy::start(world.mqtt(), 1).await;
    let old = RawClient::accepted(proxy.address(), &Connect::new(Version::V4, "d")).await;
    proxy.set(Mode::Stall);
    let mut new = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "d")).await;
    assert_eq!(new.subscribe("command///req/#", 0).await, 0);
    drop(old);
    proxy.set(Mode::Cut);
    // The second lives, sends, and is sent to.
    assert_eq!(new.publish_acked("t", "1", 1).await, 0);
    assert_eq!(world.command("d", "x", &[]).await["outcome"], "delivered");
    new.expect(kind::PUBLISH).await;
    let ends = world.recorder.of("disconnected", "d");
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].text("reason"), "taken-over");
    world.assert_sound(Open::Some).await;
    drop(new);
    world.close().await;
}

#[tokio::test]
async fn a_storm_of_takeovers_stays_paired() {
    let world = World::start().await;
    // Four connections at a time fight for one name, fifty times each.
    let storms = (0..4).map(|_| async {
        for _ in 0..50 {
            let mut client = RawClient::open(world.mqtt()).await;
            let connect = Connect::new(Version::V5, "contested").encode();
            // Another may have taken over before the CONNACK: then the connection just ends.
            if client.try_send(&connect).await.is_ok() {
                client.next().await;
            }
        }
    });
    futures_util::future::join_all(storms).await;
    let mut last = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "contested")).await;
    last.ping().await;
    world.assert_sound(Open::Some).await;
    drop(last);
    world.close().await;
}

#[tokio::test]
async fn names_that_look_alike_are_two_devices() {
    let world = World::start().await;
    // Escaped, cut or folded carelessly these would meet in one subject token.
    let names = ["a.b", "a%2Eb", "A.b", "a_b", "a%2eb", "a b", "a\u{a0}b", "é", "e\u{301}"];
    let mut clients = Vec::new();
    for name in names {
        clients.push(RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, name)).await);
    }
    for client in &mut clients {
        client.ping().await;
    }
    for name in names {
        assert_eq!(world.recorder.expect("connected", name).await.text("endpointId"), name);
        assert!(world.recorder.of("disconnected", name).is_empty(), "{name} was taken for another");
    }
    drop(clients);
    world.close().await;
}
