//! Handshakes by the thousand: none is lost, and none lost on a bad way either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use landfall_testkit::coap::Timing;
use landfall_testkit::dtls::wire::{self, ClientHello, Record};
use landfall_testkit::dtls::{DtlsClient, Pace, Secret};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, stored};
use landfall_testkit::{CoapClient, Faults, PATIENCE, Pki, UdpDevice, UdpProxy, World, eventually};
use tokio::task::JoinSet;

use super::{metric, settings};

const KEY: &[u8] = b"one-key-for-them";

fn listed(count: usize) -> String {
    let key = landfall_testkit::interop::dtls::hex(KEY);
    (0..count).map(|n| format!("[[device]]\nid = \"d{n}\"\npsk = \"{key}\"\n")).collect()
}

/// Runs `each` with the numbers below `count`, so many at a time.
async fn at_a_time<F>(workers: usize, count: usize, each: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    let start = |all: &mut JoinSet<()>| {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n < count {
            all.spawn(each(n));
        }
    };
    (0..workers).for_each(|_| start(&mut all));
    while let Some(done) = all.join_next().await {
        done.unwrap();
        start(&mut all);
    }
}

/// How often each device has an event for which this holds.
async fn per_device(world: &World, stream: &str, kind: &str, reason: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in stored(&world.nats, stream).await {
        let of = |json: &serde_json::Value| json["endpointId"].as_str().unwrap_or_default().to_owned();
        if event.kind() != kind || (!reason.is_empty() && event.text("reason") != reason) {
            continue;
        }
        match event.json["sessions"].as_array() {
            Some(many) => many.iter().for_each(|one| *counts.entry(of(one)).or_default() += 1),
            None => *counts.entry(of(&event.json)).or_default() += 1,
        }
    }
    counts
}

fn assert_once_each(counts: &BTreeMap<String, usize>, count: usize, what: &str) {
    assert_eq!(counts.len(), count, "{what}: devices");
    assert!(counts.values().all(|n| *n == 1), "{what}: once each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_thousand_lose_none() {
    const COUNT: usize = 4_000;
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).devices(&listed(COUNT))).await;
    let at = world.gateway.udps();
    let mut memory = Vec::new();
    // What it needs once, it has had after the first thousand.
    for (from, to) in [(0, 1_000), (1_000, COUNT)] {
        at_a_time(16, to - from, |n| async move {
            let n = from + n;
            let mut client = DtlsClient::connect(at, &Secret::psk(&format!("d{n}"), KEY)).await;
            client.send(format!("{n}").as_bytes()).await;
            client.close().await;
        })
        .await;
        eventually(PATIENCE, "the last close", async || {
            (metric(&world, "landfall_dtls_sessions ").await == 0.0).then_some(())
        })
        .await;
        memory.push(world.gateway.resident_bytes());
    }
    let grown = memory[1].saturating_sub(memory[0]);
    assert!(grown < 16 << 20, "{grown} bytes for 3,000 sessions that are over");
    for (name, value) in [
        ("landfall_dtls_handshakes_begun_total", 4_000.0),
        ("landfall_dtls_handshakes_established_total", 4_000.0),
        ("landfall_dtls_handshakes_failed_total", 0.0),
        ("landfall_dtls_handshakes ", 0.0),
        ("landfall_dtls_strays_total", 0.0),
    ] {
        assert_eq!(metric(&world, name).await, value, "{name}");
    }
    world.gateway.terminate();
    world.gateway.exited(Duration::from_secs(20)).await;
    assert_once_each(&per_device(&world, CONNECTIVITY, "connected", "").await, COUNT, "connected");
    assert_once_each(&per_device(&world, MESSAGES, "upstream", "").await, COUNT, "upstream");
    let ends = per_device(&world, CONNECTIVITY, "disconnected", "secure-channel-closed").await;
    assert_once_each(&ends, COUNT, "secure-channel-closed");
    world.close().await;
}

/// A fifth of the datagrams is lost each way. Over CoAP each message is stored once; over UDP whatever is said again without an
/// ack is stored again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_lost_both_ways_loses_none() {
    const EACH: usize = 120;
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).devices(&listed(2 * EACH))).await;
    let faults = Faults { loss: 0.2, ..Faults::NONE };
    let udp = UdpProxy::start(world.gateway.udps(), 20, faults).await;
    let coap = UdpProxy::start(world.gateway.coaps(), 21, faults).await;
    let at = [udp.address(), coap.address()];
    at_a_time(2 * EACH, 2 * EACH, |n| async move {
        let (name, again) = (format!("d{n}"), Duration::from_millis(60));
        let pace = Pace { again, retransmits: 12, deadline: Duration::from_secs(40), ..Pace::default() };
        let mut client = DtlsClient::paced(at[n % 2], &Secret::psk(&name, KEY), pace).await;
        client.handshake().await.unwrap_or_else(|end| panic!("{name}: {end:?}"));
        if n % 2 == 0 {
            let mut device = UdpDevice::secure(client, &name).timing(again, 60);
            assert!(device.deliver("hb=600", n.to_string()).await, "{name}: no ack");
        } else {
            let timing = Timing { ack_timeout: again, retransmits: 9, ..Timing::default() };
            let mut device = CoapClient::secure(client, n as u64).timing(timing);
            let answer = device.post("t", &[], n.to_string()).await;
            assert_eq!(answer.code_text(), "2.04", "{name}");
        }
    })
    .await;
    for (there, back) in [udp.counts(), coap.counts()] {
        assert!(there.lost > 80 && back.lost > 80, "{there:?} {back:?}");
    }
    assert!(metric(&world, "landfall_dtls_retransmissions_total").await > 20.0);
    world.gateway.terminate();
    world.gateway.exited(Duration::from_secs(20)).await;
    assert_once_each(&per_device(&world, CONNECTIVITY, "connected", "").await, 2 * EACH, "connected");
    let upstream = per_device(&world, MESSAGES, "upstream", "").await;
    assert_eq!(upstream.len(), 2 * EACH);
    let over_coap = (0..EACH).map(|n| format!("d{}", 2 * n + 1));
    assert!(over_coap.into_iter().all(|name| upstream[&name] == 1), "{upstream:?}");
    world.close().await;
}

/// A device that waits for longer than the gateway does: the gateway's flight comes again by itself.
#[tokio::test]
async fn a_flight_that_was_lost_comes_again() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let wire = crate::coap::Wire::to(world.gateway.udps()).await;
    let hello = ClientHello::new(1, &[wire::PSK_GCM]);
    wire.send(&hello.datagram(0)).await;
    let cookie = wire::cookie(&wire.receive().await).unwrap();
    wire.send(&hello.cookie(&cookie).datagram(1)).await;
    let messages = |datagram: &[u8]| -> Vec<Vec<u8>> {
        Record::all(datagram).unwrap().into_iter().map(|record| record.body).collect()
    };
    let (first, began) = (messages(&wire.receive().await), Instant::now());
    for least in [700, 2_000] {
        assert_eq!(messages(&wire.receive().await), first, "the same again");
        assert!(began.elapsed() >= Duration::from_millis(least), "{:?}", began.elapsed());
    }
    assert_eq!(metric(&world, "landfall_dtls_retransmissions_total").await, 2.0);
    world.close().await;
}
