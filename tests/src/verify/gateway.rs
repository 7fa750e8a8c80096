//! What a real gateway has told, in every format, is found well.

use std::path::Path;

use landfall_event::Format;
use landfall_testkit::packet::{self, Connect};
use landfall_testkit::verify::assert_verified;
use landfall_testkit::{Gateway, NatsServer, PATIENCE, RawClient, Version};
use tempfile::TempDir;

use super::text;

/// Devices come, speak and go; an operator verifies meanwhile.
async fn is_well(gateway: &Gateway, journal: &Path) {
    let mut pump = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "pump")).await;
    let _valve = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V4, "valve")).await;
    for id in 1..4 {
        assert_eq!(pump.publish_acked("t", format!(" {{\"n\":{id}}}"), id).await, 0);
    }
    let line = |n: u16| format!("{{\"device\":\"pump\",\"payload\":\" {{\\\"n\\\":{n}}}\"}}\n");
    std::fs::write(journal, (1..5).map(line).collect::<String>()).unwrap();
    let path = journal.to_str().unwrap();
    // The settings say where NATS is, and which instance.
    let output = gateway.cli(&["verify", "--journal", path, "--json"]).await;
    let said = text(&output.stdout);
    assert!(output.status.code() == Some(1) && said.matches("lost-acknowledged").count() == 1, "{said}");
    std::fs::write(journal, (1..4).map(line).collect::<String>()).unwrap();
    let output = gateway.cli(&["verify", "--journal", path]).await;
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2  open now") && said.contains("nothing is wrong"), "{said}");
    pump.send(&packet::disconnect(Version::V5, 0, &[])).await;
    pump.until_closed().await;
}

#[tokio::test]
async fn what_a_gateway_tells_is_well() {
    for (format, upstream) in [(Format::Json, "event"), (Format::Kaa2017, "raw"), (Format::KaaElce, "event")]
    {
        let (nats, folder) = (NatsServer::start().await, TempDir::new().unwrap());
        let settings = Gateway::builder().nats(&nats).set("events.format", format.as_str());
        let gateway = settings.set("events.upstream_body", upstream).start().await;
        let journal = folder.path().join("seen.jsonl");
        is_well(&gateway, &journal).await;
        gateway.terminate();
        assert!(gateway.exited(PATIENCE).await.success(), "{}", gateway.log());
        let report = assert_verified(&nats.url(), &[&journal]).await;
        for (count, expected) in
            [("connected", 2), ("disconnected", 2), ("open", 0), ("messages", 3), ("foreign", 0)]
        {
            assert_eq!(report.count(count), expected, "{count}: {}", report.json);
        }
    }
}
