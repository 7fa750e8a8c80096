//! Attacks by number: what one client sends very often costs one connection's bounded share.

use landfall_testkit::packet::{self, Connect, Publish, field, frame, kind};
use landfall_testkit::{PATIENCE, RawClient, Version};

/// Memory that one test's floods may leave in use.
const BOUND: u64 = 48 << 20;

#[tokio::test]
async fn a_flood_of_subscriptions_is_told_its_bound() {
    let world = super::world().await;
    let mut witness = super::Witness::connect(&world).await;
    let before = world.gateway.resident_bytes();
    for version in [Version::V4, Version::V5] {
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, "collector")).await;
        // 2,000 filters a packet (B5).
        let (mut granted, mut refused) = (0, 0);
        for packet in 0..20_u16 {
            let filters: Vec<String> = (0..2_000).map(|n| format!("f/{packet}/{n}")).collect();
            let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
            client.send(&packet::subscribe(version, packet + 1, &filters)).await;
            let Some(ack) = client.next().await else { break };
            if ack.kind() != kind::SUBACK {
                break;
            }
            for code in ack.codes(version) {
                if code < 0x80 { granted += 1 } else { refused += 1 }
            }
        }
        assert!(granted <= 64, "{granted} subscriptions were granted");
        assert!(refused > 0 || granted == 0, "the others are told: a code, or the end");
        witness.speak().await;
        drop(client);
        world.recorder.expect("disconnected", "collector").await;
    }
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
    world.close().await;
}

#[tokio::test]
async fn qos_2_messages_that_are_never_released_are_bounded() {
    let world = super::world().await;
    let mut witness = super::Witness::connect(&world).await;
    for version in [Version::V4, Version::V5] {
        let name = format!("hoarder-{}", version.level());
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
        // Every packet id there is, and none is ever released (A9).
        let flood = async {
            for id in 1..=65_535 {
                if client.try_send(&Publish::new(version, "t", "x", 2, id).encode()).await.is_err() {
                    return;
                }
            }
        };
        // Version 3.1.1 knows no bound to tell; back-pressure or an end will do.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(3), flood).await;
        witness.speak().await;
        drop(client);
        world.recorder.expect("disconnected", &name).await;
    }
    assert!(world.gateway.resident_bytes() < 256 << 20);
    world.close().await;
}

#[tokio::test]
async fn the_same_message_again_and_again_without_an_ear_for_the_answer() {
    let world = super::world().await;
    let mut witness = super::Witness::connect(&world).await;
    // QoS 2, one packet id, PUBREC never read (A9, CVE-2023-28366's shape).
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "parrot")).await;
    let publish = Publish::new(Version::V5, "t", "x", 2, 1);
    client.send(&publish.encode()).await;
    let again = Publish { dup: true, ..publish }.encode().repeat(1_000);
    let before = world.gateway.resident_bytes();
    let flood = async { while client.try_send(&again).await.is_ok() {} };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), flood).await;
    witness.speak().await;
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
    drop(client);
    world.recorder.expect("disconnected", "parrot").await;
    assert_eq!(world.recorder.of("upstream", "parrot").len(), 1);
    world.close().await;
}

#[tokio::test]
async fn malformed_packets_by_the_thousand_do_not_fill_the_log() {
    let world = super::world().await;
    let mut witness = super::Witness::connect(&world).await;
    // B8: each a connection of its own, each refused.
    for _ in 0..40 {
        let attempts = (0..50).map(|_| async {
            let mut client = RawClient::open(world.mqtt()).await;
            let _ = client.try_send(b"\xff\xff\xff\xff\xff\xff").await;
            client.until_closed().await
        });
        futures_util::future::join_all(attempts).await;
        witness.speak().await;
    }
    super::assert_log_is_clean(&world);
    world.recorder.find(PATIENCE, "every one of them counted", |_| super::refusals(&world) >= 2_000).await;
    let events = world.recorder.all().iter().filter(|event| event.kind() == "refused").count();
    assert!(events < 500, "{events} events for 2,000 refusals");
    world.close().await;
}

#[tokio::test]
async fn empty_packets_cost_no_more_than_their_bytes() {
    let world = super::world().await;
    let mut witness = super::Witness::connect(&world).await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "pinger")).await;
    // 100,000 PINGREQ whose answers nobody reads for now, then all of them.
    let pings = packet::ping().repeat(100_000);
    let before = world.gateway.resident_bytes();
    let (sent, ()) = tokio::join!(client.try_send(&pings), witness.speak());
    sent.unwrap();
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
    for _ in 0..100_000 {
        client.expect(kind::PINGRESP).await;
    }
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_packet_of_the_most_bytes_passes_and_one_more_does_not() {
    let world = super::world().await;
    let most = 256 * 1024;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "edge")).await;
    // First byte, three bytes of length, topic, packet id, payload: 262,144 bytes in all.
    let payload = vec![b'x'; most - 4 - 3 - 2];
    let packet = frame(0x32, &[field("t").as_slice(), &[0, 1], &payload].concat());
    assert_eq!(packet.len(), most);
    client.send(&packet).await;
    assert_eq!(client.expect(kind::PUBACK).await.id(), 1);
    let more = frame(0x32, &[field("t").as_slice(), &[0, 2], &payload, b"x"].concat());
    let _ = client.try_send(&more).await;
    assert!(client.until_closed().await.is_empty());
    assert_eq!(world.recorder.expect("disconnected", "edge").await.text("reason"), "protocol-error");
    assert_eq!(world.recorder.of("upstream", "edge").len(), 1);
    world.close().await;
}
