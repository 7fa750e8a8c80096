//! The promises under faults: real processes killed, frozen, cut off, short of disk, with their clock stepped. Each test ends
//! with `landfall verify`, and with the journal of devices that saw acknowledgements.

mod clock;
mod crowds;
mod disk;
mod figures;
mod gateway;
mod nats;
mod overflow;
mod replicas;
mod stalls;
mod storm;
mod turnover;

use std::path::Path;
use std::time::Duration;

use landfall_testkit::fleet::order;
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::verify::{Report, assert_verified};
use landfall_testkit::{Fleet, Gateway, GatewayBuilder, NatsServer, PATIENCE, eventually};

/// Time enough for an orderly end under load.
const END: Duration = Duration::from_secs(25);

/// A gateway with impatient settings on this NATS.
fn on(nats: &NatsServer) -> GatewayBuilder {
    Gateway::builder().nats(nats).set("nats.lease_ttl", "1s").set("nats.ack_timeout", "1s")
}

/// Ends fleet and gateway in order; nothing is wrong then, nobody is present, and everything that a device saw acknowledged is
/// in the stream, in its order.
async fn all_is_well(nats: &NatsServer, fleet: Fleet, gateway: Gateway) -> Report {
    let journal = fleet.stop().await;
    close(&gateway).await;
    judge(nats, &[&journal]).await
}

/// The same where the gateway lived on and dropped nothing: what was sent without acknowledgement is there too.
async fn all_is_well_and_there(nats: &NatsServer, fleet: Fleet, gateway: Gateway) -> Report {
    for (name, count) in gateway.metrics("landfall_").await {
        if name.contains("dropped") && count > 0.0 {
            eprintln!("{name} {count}");
        }
    }
    let report = all_is_well(nats, fleet, gateway).await;
    assert_eq!(report.count("gatewayLost"), 0, "the gateway was there all the while");
    assert_eq!(report.count("droppedMessages") + report.count("droppedSessions"), 0);
    none(&order::lost(&stored(nats, MESSAGES).await), "lost");
    report
}

async fn close(gateway: &Gateway) {
    gateway.terminate();
    let status = gateway.exited(END).await;
    assert!(status.success(), "the gateway ends with {status}; its log:\n{}", gateway.log());
}

async fn judge(nats: &NatsServer, journals: &[&Path]) -> Report {
    let report = judge_replicas(nats, journals).await;
    none(&order::disorder(&stored(nats, MESSAGES).await), "out of order");
    report
}

/// The same where devices went from one replica to another.
async fn judge_replicas(nats: &NatsServer, journals: &[&Path]) -> Report {
    let report = assert_verified(&nats.url(), journals).await;
    assert_eq!(report.count("open"), 0, "nobody is present");
    let messages = stored(nats, MESSAGES).await;
    none(&order::disorder_of_acknowledged(&messages), "out of order");
    none(&order::doubled(&messages), "sent once and stored twice");
    none(&order::torn(&messages), "never sent as it is stored");
    report
}

fn none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Waits until the gateway keeps at least so many events on disk.
async fn until_kept(gateway: &Gateway, events: f64) {
    eventually(PATIENCE, "events on disk", async || {
        let kept = gateway.metrics("landfall_spool_events").await;
        kept.first().is_some_and(|(_, count)| *count >= events).then_some(())
    })
    .await;
}
