//! Streams of the smallest size that the settings allow, one device at full rate, and another one at rest.

use std::time::{Duration, Instant};

use landfall_testkit::packet::{Connect, Publish};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, stored};
use landfall_testkit::{Gateway, NatsServer, RawClient, Version};

use super::{close, judge_replicas, on};

const SMALLEST: u64 = 64 << 20;

async fn smallest(nats: &NatsServer) -> Gateway {
    let settings =
        on(nats).set("nats.messages_max_bytes", "64MiB").set("nats.connectivity_max_bytes", "64MiB");
    settings.start().await
}

async fn newest(nats: &NatsServer, stream: &str) -> (u64, u64) {
    let context = async_nats::jetstream::new(nats.client().await);
    let state = context.get_stream(stream).await.expect("a stream").cached_info().state.clone();
    assert!(state.bytes <= SMALLEST, "{stream} is bounded");
    (state.first_sequence, state.last_sequence)
}

/// Until the stream holds nothing that it held at the beginning, so many times; and at least for so long.
async fn until_turned_over(
    nats: &NatsServer,
    stream: &str,
    times: u32,
    at_least: Duration,
    mut work: impl AsyncFnMut(),
) {
    let since = Instant::now();
    let mut turned = 0;
    while turned < times || since.elapsed() < at_least {
        let (_, last) = newest(nats, stream).await;
        while newest(nats, stream).await.0 <= last {
            work().await;
        }
        turned += 1;
    }
}

async fn nobody_was_lost(nats: &NatsServer, gateway: Gateway, mut rest: RawClient) {
    rest.ping().await;
    let restored = gateway.metrics("landfall_fences_restored").await;
    assert!(restored.iter().all(|(_, count)| *count == 0.0), "no fence was ever discarded: {restored:?}");
    let told = stored(nats, CONNECTIVITY).await;
    let about: Vec<_> =
        told.iter().filter(|event| event.kind() == "disconnected" && event.is_about("rest")).collect();
    assert!(about.is_empty(), "{about:?}");
    drop(rest);
    close(&gateway).await;
    let report = judge_replicas(nats, &[]).await;
    assert_eq!(report.count("gatewayLost"), 0);
}

async fn large_messages(times: u32, at_least: Duration) {
    let nats = NatsServer::start().await;
    let gateway = smallest(&nats).await;
    let rest =
        RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "rest").keep_alive(600)).await;
    let mut loud = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "loud")).await;
    let message = Publish::new(Version::V5, "t", "x".repeat(250_000), 0, 0).encode();
    until_turned_over(&nats, MESSAGES, times, at_least, async || {
        for _ in 0..16 {
            loud.send(&message).await;
        }
        loud.ping().await;
    })
    .await;
    drop(loud);
    nobody_was_lost(&nats, gateway, rest).await;
}

#[tokio::test]
async fn one_device_at_full_rate_ends_no_session_of_another() {
    large_messages(3, Duration::ZERO).await;
}

#[tokio::test]
#[ignore = "a minute at full rate: make figures"]
async fn one_device_at_full_rate_for_a_minute() {
    large_messages(3, Duration::from_secs(60)).await;
}

#[tokio::test]
#[ignore = "a minute at full rate: make figures"]
async fn one_device_that_reconnects_for_a_minute() {
    let nats = NatsServer::start().await;
    let mut gateway = smallest(&nats).await;
    let rest =
        RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "rest").keep_alive(600)).await;
    until_turned_over(&nats, CONNECTIVITY, 1, Duration::from_secs(60), async || {
        let lanes = (0..8).map(|lane| {
            let connect = Connect::new(Version::V5, format!("flaps-{lane}"));
            let address = gateway.mqtt("tcp");
            async move {
                for _ in 0..200 {
                    drop(RawClient::accepted(address, &connect).await);
                }
            }
        });
        futures_util::future::join_all(lanes).await;
    })
    .await;
    gateway.kill();
    drop(rest);
    let gateway = gateway.restart().await;
    let told = stored(&nats, CONNECTIVITY).await;
    let about = told
        .iter()
        .filter(|event| event.kind() == "disconnected" && event.json.to_string().contains("\"rest\""));
    assert_eq!(about.count(), 1, "who is at rest is closed when its gateway is killed");
    close(&gateway).await;
    judge_replicas(&nats, &[]).await;
}
