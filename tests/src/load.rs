//! The load generator against the gateway: what `make figures` measures can be measured, and an idle connection stays
//! small.

use std::process::Stdio;

use landfall_testkit::{World, paths};
use serde_json::Value;
use tokio::process::Command;

async fn load(arguments: &[&str]) -> Value {
    let run = Command::new(paths::binary("landfall-load"))
        .arg("--json")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("landfall-load runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("one JSON object")
}

/// The mark is 2,048 bytes at 10,000 connections in a release build (docs/performance.md). What this holds is the same
/// code in a test build, with fewer connections to share the fixed costs: room for those, and none for a buffer.
#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let world = World::start().await;
    let (server, pid) = (world.mqtt().to_string(), world.gateway.pid().to_string());
    let report =
        load(&["idle", "--server", &server, "--pid", &pid, "--connections", "3000", "--hold", "1"]).await;
    let each = report["bytes_per_connection"].as_u64().expect("a number");
    assert!(each < 4096, "{report}");
    world.close().await;
}

#[tokio::test]
async fn published_messages_are_acknowledged_and_timed() {
    let world = World::start().await;
    let server = world.mqtt().to_string();
    let report =
        load(&["publish", "--server", &server, "--connections", "4", "--seconds", "1", "--warmup", "0"])
            .await;
    let number = |name: &str| report[name].as_u64().expect("a number");
    assert!(number("acknowledged") > 100, "{report}");
    assert!(number("latency_p50_us") > 0 && number("latency_p50_us") <= number("latency_p99_us"), "{report}");
    world.close().await;
}

/// The marks are for a million devices in a release build (docs/performance.md). What this holds is that the measurement
/// measures: everybody arrives, is heard, and is told of exactly once after the own deadline.
#[tokio::test]
async fn a_thousand_datagram_devices_come_speak_and_fall_silent_at_once() {
    let world = World::start().await;
    let run = world.gateway.run_file();
    let (server, admin) = (run.listeners["udp"][0].replace("udp://", ""), run.admin.to_string());
    let (nats, pid) = (world.nats.url(), world.gateway.pid().to_string());
    let place = ["--server", &server, "--admin", &admin, "--nats", &nats, "--pid", &pid];
    let size = ["--devices", "1000", "--hold", "0", "--seconds", "1", "--bursts", "2"];
    let report = load(&[&["udp"], &place[..], &size[..]].concat()).await;
    let number = |name: &str| report[name].as_i64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert_eq!(number("ended"), 1000, "{report}");
    assert!(number("end_events") < 200, "ends at once share events: {report}");
    assert!(number("touches") > 1000, "{report}");
    assert!((1..65_536).contains(&number("bytes_per_device")), "{report}");
    for (detected, published) in
        [("detected_p50_ms", "published_p50_ms"), ("detected_max_ms", "published_max_ms")]
    {
        assert!(number(detected) <= number(published) + 5 && number(published) < 10_000, "{report}");
    }
    world.close().await;
}
