//! What must happen in time: never early, and at most so late. These have the machine to themselves.

use std::time::{Duration, Instant};

use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{self, Connect, kind};
use landfall_testkit::{RawClient, Version, World};

/// How late silence may be noticed, by the contract.
const LATE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn silence_ends_a_session_at_one_and_a_half_keep_alives() {
    let world = World::start().await;
    // Started together: none waits for another.
    let mut clients = Vec::new();
    for (version, seconds) in [(Version::V4, 1), (Version::V5, 1), (Version::V4, 2), (Version::V5, 3)] {
        let name = format!("silent-{}-{seconds}", version.level());
        let mut client =
            RawClient::accepted(world.mqtt(), &Connect::new(version, &name).keep_alive(seconds)).await;
        client.send(&packet::ping()).await;
        let heard = Instant::now();
        client.expect(kind::PINGRESP).await;
        clients.push((name, version, seconds, heard, client));
    }
    for (name, version, seconds, heard, mut client) in clients {
        let event = world.recorder.expect("disconnected", &name).await;
        assert_eq!((event.text("reason"), event.text("initiator")), ("keep-alive-timeout", "gateway"));
        let due = Duration::from_millis(u64::from(seconds) * 1500);
        let silent = Duration::from_millis(event.number("timestamp") - event.number("lastSeenAt"));
        assert!((due..=due + LATE).contains(&silent), "{name}: {silent:?} by the gateway's own clock");
        // By the client's: from before the last byte to after the event.
        let waited = event.at - heard;
        assert!(waited >= due, "{name}: {waited:?} is early");
        assert!(waited <= due + LATE + Duration::from_millis(100), "{name}: {waited:?} is late");
        let said = client.until_closed().await;
        match version {
            Version::V4 => assert!(said.is_empty()),
            Version::V5 => {
                assert_eq!(said.last().map(landfall_testkit::raw::Packet::disconnect_code), Some(0x8d));
            }
        }
    }
    world.close().await;
}

#[tokio::test]
async fn any_packet_keeps_a_session_alive_and_none_is_needed_at_zero() {
    let world = World::start().await;
    let mut talker =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "talker").keep_alive(1)).await;
    let mut zero = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "zero").keep_alive(0)).await;
    let mut silent =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "silent").keep_alive(2)).await;
    // One message a second, until the silent one has gone twice its time ago.
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for n in 0..5_u16 {
        ticks.tick().await;
        assert_eq!(talker.publish_acked("t", "x", n + 1).await, 0);
    }
    world.recorder.expect("disconnected", "silent").await;
    assert!(silent.until_closed().await.is_empty());
    talker.ping().await;
    zero.ping().await;
    assert!(world.recorder.of("disconnected", "talker").is_empty());
    assert!(world.recorder.of("disconnected", "zero").is_empty());
    drop((talker, zero));
    world.close().await;
}

#[tokio::test]
async fn a_keep_alive_is_held_to_the_longest_that_is_allowed() {
    let world = World::with(|settings| settings.set("mqtt.max_keep_alive", "2s")).await;
    // 65,535 s and "for ever" are no way to stay unseen (CVE-2020-13849's shape).
    let (_long, connack) =
        RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "long").keep_alive(65_535)).await;
    assert_eq!(connack.connack_property(0x13), Some(vec![0, 2]), "server keep alive");
    let (_never, connack) =
        RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "never").keep_alive(0)).await;
    assert_eq!(connack.connack_property(0x13), Some(vec![0, 2]));
    let _old = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "old").keep_alive(0)).await;
    for name in ["long", "never", "old"] {
        let event = world.recorder.expect("disconnected", name).await;
        assert_eq!(event.text("reason"), "keep-alive-timeout");
        assert!((3_000..=3_250).contains(&event.number("durationMs")), "{}", event.json);
        assert_eq!(world.recorder.expect("connected", name).await.number("keepAliveMs"), 3000);
    }
    world.close().await;
}

const TWO_DEVICES: &str = r##"
[[device]]
id = "stays"
password = "plain:one"
publish = ["#"]
[[device]]
id = "goes"
password = "plain:two"
publish = ["#"]
"##;

#[tokio::test]
async fn a_revoked_device_is_gone_within_a_second() {
    let world = World::with(|settings| settings.devices(TWO_DEVICES)).await;
    let goes = Connect::new(Version::V5, "g").login("goes", "two");
    let mut client = RawClient::accepted(world.mqtt(), &goes).await;
    let mut stays =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "s").login("stays", "one")).await;
    let without = TWO_DEVICES.split("[[device]]").take(2).collect::<Vec<_>>().join("[[device]]");
    let edited = Instant::now();
    world.gateway.edit_devices(&without);
    let event = world.recorder.expect("disconnected", "goes").await;
    let waited = event.at - edited;
    assert!(waited <= Duration::from_secs(1), "{waited:?}");
    assert_eq!((event.text("reason"), event.text("initiator")), ("credentials-revoked", "operator"));
    let last = client.until_closed().await.pop().expect("a DISCONNECT");
    assert_eq!((last.kind(), last.disconnect_code()), (kind::DISCONNECT, 0x87), "not authorized");
    stays.ping().await;
    let (_, connack) = RawClient::connect(world.mqtt(), &goes).await;
    assert_ne!(connack.connack_code(), 0, "it does not come back");
    // A changed password ends the sessions that the old one opened.
    world.gateway.edit_devices(&without.replace("plain:one", "plain:new"));
    let event = world.recorder.expect("disconnected", "stays").await;
    assert_eq!(event.text("reason"), "credentials-revoked");
    world.assert_sound(Open::None).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_costs_a_bounded_time() {
    let world = World::with(|settings| settings.set("mqtt.connect_timeout", "1s")).await;
    let opened = Instant::now();
    let mut silent = RawClient::open(world.mqtt()).await;
    let mut half = RawClient::open(world.mqtt()).await;
    let connect = Connect::new(Version::V5, "half").encode();
    half.send(&connect[..connect.len() - 1]).await;
    assert!(silent.until_closed().await.is_empty());
    half.until_closed().await;
    let waited = opened.elapsed();
    assert!((Duration::from_millis(950)..Duration::from_millis(1_700)).contains(&waited), "{waited:?}");
    assert!(world.recorder.of("connected", "half").is_empty());
    world.close().await;
}
