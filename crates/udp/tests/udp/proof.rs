//! Who a device is: keys, signatures, replays.

use std::sync::atomic::Ordering;

use crate::world::{KEY, signed, world, world_with};

#[tokio::test]
async fn a_key_is_asked_about_once_per_session() {
    let world = world().await;
    let device = world.device().await;
    for n in 1..=5 {
        device.ask(format!("LF1 a key={KEY} seq={n} ack\n{n}")).await;
    }
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 1);
    device.send("LF1 a key=wrong ack\nx").await;
    device.send("LF1 a ack\nx").await;
    device.send(format!("LF1 a key={KEY}x ack\nx")).await;
    device.fence().await;
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 5, "one, three wrong ones, and the fence");
    // The right one is still known.
    device.ask(format!("LF1 a key={KEY} ack\n6")).await;
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 5);
    world.until("the refusals are told", |world| world.refused("bad-credentials") == 3).await;
    assert_eq!(world.payloads(), ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_wrong_key_is_no_sign_of_life() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} hb=1 ack")).await;
    // It says so all the time, and the session ends all the same.
    let lying = async {
        loop {
            device.send("LF1 a key=wrong").await;
            device.send("LF1 a").await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = lying => {}
        () = world.until("the end", |world| world.events("disconnected").len() == 1) => {}
    }
}

#[tokio::test]
async fn a_signed_number_counts_once() {
    let world = world().await;
    let device = world.device().await;
    let first = signed(KEY, "LF1 a seq=5 ack", "one");
    assert_eq!(device.ask(&first).await, "LF1 ack seq=5");
    // Its ack was lost: the same again gets the ack again, and is no event.
    assert_eq!(device.ask(&first).await, "LF1 ack seq=5");
    assert_eq!(world.metric("landfall_udp_retransmitted_total"), 1);
    assert_eq!(device.ask(signed(KEY, "LF1 a seq=6 ack", "two")).await, "LF1 ack seq=6");
    // An old one, the newest number with other bytes, a wrong key, a changed payload.
    device.send(&first).await;
    device.send(signed(KEY, "LF1 a seq=6 ack", "other")).await;
    device.send(signed("wrong", "LF1 a seq=7 ack", "three")).await;
    let mut changed = signed(KEY, "LF1 a seq=8 ack", "four");
    *changed.last_mut().unwrap() = b'!';
    device.send(changed).await;
    device.fence().await;
    world.until("the refusals are told", |world| world.refused("bad-credentials") == 4).await;
    assert_eq!(world.payloads(), ["one", "two"]);
    // What was wrong has taken no number.
    assert_eq!(device.ask(signed(KEY, "LF1 a seq=7 ack", "three")).await, "LF1 ack seq=7");
    assert_eq!(world.metric("landfall_udp_signed_devices"), 1);
}

#[tokio::test]
async fn a_copy_keeps_nobody_alive_and_brings_nobody_back() {
    let world = world().await;
    let device = world.device().await;
    let word = signed(KEY, "LF1 a seq=1 hb=1 ack", "one");
    device.ask(&word).await;
    let mut copies = 0;
    while world.events("disconnected").is_empty() {
        assert_eq!(device.ask(&word).await, "LF1 ack seq=1");
        copies += 1;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(copies > 10, "{copies}");
    // The newest again, after the end: acknowledged, since it is stored, and nothing more.
    assert_eq!(device.ask(&word).await, "LF1 ack seq=1");
    device.send(signed(KEY, "LF1 a seq=1 bye ack", "")).await;
    device.fence().await;
    assert_eq!(world.story().iter().filter(|word| *word == "connected null").count(), 2, "a and the fence");
    assert_eq!(world.payloads(), ["one"]);
    assert_eq!(device.ask(signed(KEY, "LF1 a seq=2 ack", "two")).await, "LF1 ack seq=2");
    assert_eq!(world.events("connected").len(), 3);
}

#[tokio::test]
async fn what_was_not_stored_may_be_said_again() {
    let world = world().await;
    let device = world.device().await;
    device.ask(signed(KEY, "LF1 a seq=1 ack", "one")).await;
    world.bus.refuse_next();
    let word = signed(KEY, "LF1 a seq=2 ack", "two");
    device.send(&word).await;
    device.fence().await;
    assert_eq!(device.ask(&word).await, "LF1 ack seq=2");
    // A copy of a datagram that is on its way is not acknowledged before it is stored, nor stored twice.
    world.bus.set_away(true);
    let word = signed(KEY, "LF1 a seq=3 ack", "three");
    device.send(&word).await;
    device.send(&word).await;
    world.until("it came again", |world| world.metric("landfall_udp_retransmitted_total") == 1).await;
    world.bus.set_away(false);
    assert_eq!(device.receive().await, "LF1 ack seq=3");
    device.fence().await;
    assert_eq!(world.payloads(), ["one", "two", "three"]);
}

#[tokio::test]
async fn what_could_not_be_taken_begins_no_session_later() {
    for (within, is_taken) in [(300, true), (0, false)] {
        let within = std::time::Duration::from_secs(within);
        let world = world_with(|_| {}, |udp| udp.retry_within = within).await;
        let device = world.device().await;
        world.bus.set_away(true);
        let word = signed(KEY, "LF1 a seq=5 ack", "five");
        device.send(&word).await;
        let away = "landfall_udp_dropped_total{reason=\"away\"}";
        world.until("it was dropped", |world| world.metric(away) == 1).await;
        world.bus.set_away(false);
        device.send(&word).await;
        if is_taken {
            assert_eq!(device.receive().await, "LF1 ack seq=5");
            continue;
        }
        device.fence().await;
        world.until("the refusal is told", |world| world.refused("bad-credentials") == 1).await;
        assert_eq!((world.events("connected").len(), world.payloads().len()), (1, 0), "the fence's");
        // The device itself says it with its next number.
        assert_eq!(device.ask(signed(KEY, "LF1 a seq=6 ack", "five")).await, "LF1 ack seq=6");
    }
}

#[tokio::test]
async fn signed_devices_are_bounded() {
    let world = world_with(|_| {}, |udp| udp.max_signed_devices = 1).await;
    let device = world.device().await;
    device.ask(signed(KEY, "LF1 a seq=1 ack", "one")).await;
    device.send(signed(KEY, "LF1 b seq=1 ack", "one")).await;
    device.fence().await;
    world.until("the refusal is told", |world| world.refused("limit-reached") == 1).await;
    assert_eq!(world.events("connected").len(), 2, "a and the fence");
}

#[tokio::test]
async fn who_cannot_be_authenticated_at_once_waits_and_others_do_not() {
    let world = world_with(|_| {}, |udp| udp.max_authenticating = 2).await;
    let (slow, device) = (world.device().await, world.device().await);
    device.ask(signed(KEY, "LF1 z seq=1 ack", "0")).await;
    world.auth.answers.send_replace(false);
    for name in ["a", "b", "c"] {
        slow.send(format!("LF1 {name} key={KEY} ack\n{name}")).await;
    }
    world.until("two wait", |world| world.metric("landfall_udp_authenticating") == 2).await;
    world
        .until("one is dropped", |world| {
            world.metric("landfall_udp_dropped_total{reason=\"authenticating-full\"}") == 1
        })
        .await;
    assert_eq!(device.ask(signed(KEY, "LF1 z seq=2 ack", "1")).await, "LF1 ack seq=2");
    world.auth.answers.send_replace(true);
    assert_eq!((slow.receive().await, slow.receive().await), ("LF1 ack".to_owned(), "LF1 ack".to_owned()));
    assert_eq!((world.metric("landfall_udp_authenticating"), world.payloads().len()), (0, 4));
}

#[tokio::test]
async fn an_authenticator_that_does_not_answer_is_given_up_on() {
    let world = world_with(|_| {}, |udp| udp.auth_timeout = std::time::Duration::from_millis(20)).await;
    world.auth.answers.send_replace(false);
    world.device().await.send(format!("LF1 a key={KEY} ack\nx")).await;
    world
        .until("it is dropped", |world| {
            world.metric("landfall_udp_dropped_total{reason=\"unauthenticated\"}") == 1
        })
        .await;
    assert!(world.story().is_empty());
}

#[tokio::test]
async fn credentials_that_are_withdrawn_on_the_way_begin_nothing() {
    let world = world().await;
    world.auth.holds.store(false, Ordering::SeqCst);
    let device = world.device().await;
    device.send(format!("LF1 a key={KEY} ack\nx")).await;
    world.until("the refusal", |world| world.events("refused").len() == 1).await;
    assert_eq!(world.events("refused")[0]["cause"], "bad-credentials");
    assert!(world.events("connected").is_empty() && world.payloads().is_empty());
    assert_eq!(world.hub.session_count(), 0);
}
