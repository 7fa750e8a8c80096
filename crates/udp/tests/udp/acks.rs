//! An ack means stored: of beginnings, messages and ends, each for itself.

use crate::world::{Device, KEY, World, signed, world, world_with};

/// The ack's number, and no other, comes once what was held back is stored.
async fn comes_when_stored(world: &World, device: &Device, held: usize, seq: u64) {
    world.until("it is on its way", |world| world.bus.held() == held).await;
    // Another device's word is answered meanwhile, so everything before it was looked at, and not answered.
    device.fence().await;
    world.bus.release(true);
    assert_eq!(device.receive().await, format!("LF1 ack seq={seq}"));
    assert_eq!(world.metric("landfall_udp_unstored"), 0);
}

#[tokio::test]
async fn the_first_words_are_acknowledged_when_the_beginning_is_stored() {
    let world = world().await;
    let device = world.device().await;
    device.fence().await;
    for (name, word) in [
        ("a", format!("LF1 a key={KEY} seq=1 ack").into_bytes()),
        ("b", format!("LF1 b key={KEY} seq=1 ack\nx").into_bytes()),
        ("c", signed(KEY, "LF1 c seq=1 ack", "")),
        ("d", signed(KEY, "LF1 d seq=1 ack", "x")),
    ] {
        world.bus.hold_connectivity();
        device.send(&word).await;
        comes_when_stored(&world, &device, 1, 1).await;
        // From now on a heartbeat has nothing to wait for.
        world.bus.hold_connectivity();
        assert_eq!(device.ask(format!("LF1 {name} key={KEY} seq=2 ack")).await, "LF1 ack seq=2");
        assert_eq!(device.ask(format!("LF1 {name} key={KEY} seq=3 ack")).await, "LF1 ack seq=3");
        world.bus.release(true);
    }
    assert_eq!(world.payloads(), ["x", "x"]);
}

#[tokio::test]
async fn a_second_heartbeat_waits_for_the_beginning_too() {
    let world = world().await;
    let device = world.device().await;
    device.fence().await;
    world.bus.hold_connectivity();
    device.send(format!("LF1 a key={KEY}")).await;
    device.send(format!("LF1 a key={KEY} seq=2 ack")).await;
    world.until("it waits", |world| world.metric("landfall_udp_unstored") == 1).await;
    comes_when_stored(&world, &device, 1, 2).await;
}

#[tokio::test]
async fn a_beginning_that_is_never_stored_is_not_acknowledged() {
    let world = world().await;
    let device = world.device().await;
    device.fence().await;
    world.bus.hold_connectivity();
    let word = signed(KEY, "LF1 a seq=1 ack", "");
    device.send(&word).await;
    world.until("it waits", |world| world.metric("landfall_udp_unstored") == 1).await;
    world.bus.release(false);
    let lost = "landfall_udp_dropped_total{reason=\"not-stored\"}";
    world.until("it is lost", |world| world.metric(lost) == 1).await;
    device.fence().await;
}

#[tokio::test]
async fn a_goodbye_is_acknowledged_when_the_end_is_stored() {
    let world = world().await;
    let device = world.device().await;
    device.fence().await;
    for (name, payload) in [("a", ""), ("b", "last words")] {
        for (seq, is_signed) in [(2, false), (4, true)] {
            device.ask(signed(KEY, &format!("LF1 {name} seq={} ack", seq - 1), "hello")).await;
            world.bus.hold_connectivity();
            let word = if is_signed {
                signed(KEY, &format!("LF1 {name} seq={seq} bye ack"), payload)
            } else {
                format!("LF1 {name} key={KEY} seq={seq} bye ack\n{payload}").into_bytes()
            };
            device.send(&word).await;
            if is_signed || payload.is_empty() {
                // Said again it is not acknowledged ahead of its time either.
                device.send(&word).await;
            }
            comes_when_stored(&world, &device, 1, seq).await;
        }
        let ends = world.events("disconnected");
        let ends = ends.iter().filter(|end| end["endpointId"] == name && end["reason"] == "client-closed");
        assert_eq!(ends.count(), 2, "{:?}", world.story());
    }
    // One who is not here any more.
    assert_eq!(device.ask(format!("LF1 a key={KEY} seq=9 bye ack")).await, "LF1 ack seq=9");
}

#[tokio::test]
async fn a_goodbye_without_an_ack_is_waited_for_by_the_next() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack\n1")).await;
    device.fence().await;
    world.bus.hold_connectivity();
    device.send(format!("LF1 a key={KEY} bye\n2")).await;
    device.send(format!("LF1 a key={KEY} bye ack")).await;
    device.send(signed(KEY, "LF1 a seq=1 bye ack", "")).await;
    device.fence().await;
    world.bus.release(true);
    world.until("the end is stored", |world| world.metric("landfall_udp_unstored") == 0).await;
    device.fence().await;
    // And then there is nothing left to wait for.
    assert_eq!(device.ask(format!("LF1 a key={KEY} seq=7 bye ack")).await, "LF1 ack seq=7");
    assert_eq!(device.ask(signed(KEY, "LF1 a seq=1 bye ack", "")).await, "LF1 ack seq=1");
    assert_eq!((world.payloads(), world.events("disconnected").len()), (vec!["1".into(), "2".into()], 1));
}

#[tokio::test]
async fn beginning_message_and_end_of_one_datagram_are_acknowledged_together() {
    let world = world().await;
    let device = world.device().await;
    device.fence().await;
    world.bus.hold_connectivity();
    device.send(signed(KEY, "LF1 a seq=1 bye ack", "only this")).await;
    comes_when_stored(&world, &device, 2, 1).await;
    assert_eq!(world.story()[1..], ["upstream only this", "connected null", "disconnected client-closed"]);
}

#[tokio::test]
async fn without_room_a_goodbye_that_wants_an_ack_is_dropped_and_another_is_not() {
    let world = world_with(|_| {}, |udp| udp.max_unstored = 1).await;
    let device = world.device().await;
    for name in ["a", "b", "c"] {
        device.ask(format!("LF1 {name} key={KEY} ack\n1")).await;
    }
    world.bus.hold_connectivity();
    device.send(format!("LF1 a key={KEY} bye seq=1 ack")).await;
    device.send(format!("LF1 b key={KEY} bye seq=2 ack")).await;
    device.send(format!("LF1 c key={KEY} bye")).await;
    let full = "landfall_udp_dropped_total{reason=\"unstored-full\"}";
    world.until("one is dropped", |world| world.metric(full) == 1 && world.bus.held() == 2).await;
    world.bus.release(true);
    assert_eq!(device.receive().await, "LF1 ack seq=1");
    assert_eq!(device.ask(format!("LF1 b key={KEY} bye seq=2 ack")).await, "LF1 ack seq=2");
    assert_eq!(world.events("disconnected").len(), 3);
}

/// A device that has begun anew with its first number, or another one that a translator has given the port to.
#[tokio::test]
async fn an_ack_never_speaks_for_another_datagram_with_the_same_number() {
    let world = world().await;
    let device = world.device().await;
    device.fence().await;
    for name in ["a", "b"] {
        assert_eq!(device.ask(format!("LF1 {name} key={KEY} seq=100 ack")).await, "LF1 ack seq=100");
    }
    for (number, second) in [("seq=1 ", "a"), ("seq=1 ", "b"), ("", "a"), ("", "b")] {
        let ack = format!("LF1 ack {number}");
        let words =
            [format!("LF1 a key={KEY} {number}ack\none"), format!("LF1 {second} key={KEY} {number}ack\ntwo")];
        // The first is stored, the second not yet.
        world.bus.set_away(true);
        for (n, word) in (1..).zip(&words) {
            device.send(word).await;
            world.until("it waits", |world| world.metric("landfall_udp_unstored") == n).await;
        }
        assert!(world.bus.store_next());
        world.until("it is told", |world| world.metric("landfall_udp_unstored") == 1).await;
        let acks = world.metric("landfall_udp_acks_total");
        world.bus.set_away(false);
        for _ in 0..2 {
            assert_eq!(device.receive().await, ack.trim_end(), "both are stored");
        }
        assert_eq!(world.metric("landfall_udp_acks_total"), acks + 2, "nothing was said before");
        // The second will never be stored.
        world.bus.set_away(true);
        for (n, word) in (1..).zip(&words) {
            device.send(word).await;
            world.until("it waits", |world| world.metric("landfall_udp_unstored") == n).await;
        }
        assert!(world.bus.store_next());
        world.bus.refuse_next();
        world.bus.set_away(false);
        world.until("it is lost", |world| world.metric("landfall_udp_unstored") == 0).await;
        device.fence().await;
    }
}

/// Sent again while it waits, it is acknowledged as soon as the first is stored: the bytes are the same.
#[tokio::test]
async fn the_same_bytes_again_hold_no_ack_back() {
    let world = world().await;
    let device = world.device().await;
    assert_eq!(device.ask(format!("LF1 a key={KEY} seq=100 ack")).await, "LF1 ack seq=100");
    world.bus.set_away(true);
    for n in 1..3 {
        device.send(format!("LF1 a key={KEY} seq=1 ack\none")).await;
        world.until("it waits", |world| world.metric("landfall_udp_unstored") == n).await;
    }
    assert!(world.bus.store_next());
    assert_eq!(device.receive().await, "LF1 ack seq=1");
    world.bus.set_away(false);
    assert_eq!(device.receive().await, "LF1 ack seq=1");
}

/// A heartbeat's ack is as good as that of what waits, where both have the same number or none.
#[tokio::test]
async fn the_ack_of_a_heartbeat_does_not_speak_for_a_payload_that_waits() {
    let world = world().await;
    let device = world.device().await;
    assert_eq!(device.ask(format!("LF1 a key={KEY} ack")).await, "LF1 ack");
    world.bus.hold_messages();
    device.send(format!("LF1 a key={KEY} ack\none")).await;
    world.until("it waits", |world| world.metric("landfall_udp_unstored") == 1).await;
    let acks = world.metric("landfall_udp_acks_total");
    device.send(format!("LF1 a key={KEY} ack")).await;
    device.fence().await;
    assert_eq!(world.metric("landfall_udp_acks_total"), acks + 1, "but for the fence's");
    world.bus.release(true);
    assert_eq!(
        (device.receive().await, device.receive().await),
        ("LF1 ack".to_owned(), "LF1 ack".to_owned())
    );
}
