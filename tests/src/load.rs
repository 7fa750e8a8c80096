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
