//! The promises under faults: real processes killed, frozen, cut off, short of disk, with their clock stepped. Each test ends
//! with `landfall verify`, and with the journal of devices that saw acknowledgements.

mod clock;
mod crowds;
mod disk;
mod figures;
mod gateway;
mod nats;
mod replicas;

use std::path::Path;
use std::time::Duration;

use landfall_testkit::fleet::disorder;
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::verify::{Report, assert_verified};
use landfall_testkit::{Fleet, Gateway, GatewayBuilder, NatsServer};

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

async fn close(gateway: &Gateway) {
    gateway.terminate();
    let status = gateway.exited(END).await;
    assert!(status.success(), "the gateway ends with {status}; its log:\n{}", gateway.log());
}

async fn judge(nats: &NatsServer, journals: &[&Path]) -> Report {
    let report = assert_verified(&nats.url(), journals).await;
    assert_eq!(report.count("open"), 0, "nobody is present");
    let found = disorder(&stored(nats, MESSAGES).await);
    assert!(found.is_empty(), "out of order:\n  {}", found.join("\n  "));
    report
}
