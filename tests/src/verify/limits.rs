//! What is not known is no fault: reading that begins later, streams with limits, gateways without leases.

use std::time::Duration;

use async_nats::jetstream::stream;
use landfall_event::ServiceKind;
use landfall_event::subject::{LEASES_BUCKET, all_leases, lease_subject};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES};
use landfall_testkit::{PATIENCE, eventually};
use serde_json::json;

use super::{Forger, now};

#[tokio::test]
async fn what_began_before_is_no_fault() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    let older = gateway.session("older", 1);
    gateway.begins(&older).await;
    gateway.message(&older, 1).await;
    let ahead = gateway.session("older", 2);
    tick().await;
    let between = now();
    tick().await;
    gateway.message(&older, 2).await;
    gateway.message(&older, 3).await;
    gateway.ends(&older, 2).await;
    gateway.begins(&ahead).await;
    gateway.message(&ahead, 1).await;
    let at = time(between);
    // The third event of the connectivity stream is the older session's end.
    for begin in [["--since", at.as_str()], ["--from-seq", "3"]] {
        let (status, json) = forger.judge(&["--instance", "i", begin[0], begin[1]]).await;
        assert_eq!(status, 0, "{begin:?} {json}");
        for (count, expected) in [("partial", 1), ("connected", 1), ("disconnected", 1), ("open", 1)] {
            assert_eq!(json[count], expected, "{begin:?} {count} {json}");
        }
    }
    // A gap behind the beginning is one all the same.
    gateway.message(&ahead, 3).await;
    for begin in [["--since", at.as_str()], ["--from-seq", "3"], ["--since", "1h"]] {
        assert_eq!(forger.kinds("i", &begin).await, ["seq-gap"], "{begin:?}");
    }
    for begin in [["--since", "1ms"], ["--from-seq", "1000"]] {
        assert_eq!(forger.kinds("i", &begin).await, Vec::<String>::new(), "{begin:?}: nothing is in there");
    }
    for wrong in [["--since", "soon"], ["--from-seq", "first"]] {
        assert_eq!(forger.verify(&wrong).await.status.code(), Some(64), "{wrong:?}");
    }
}

/// RFC 3339, as `--since` takes it.
fn time(ms: u64) -> String {
    let at = async_nats::datetime::from_nanos(i128::from(ms) * 1_000_000).unwrap();
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond(),
    )
}

/// Waits until the clock shows another millisecond.
async fn tick() {
    let from = now();
    while now() < from + 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_limit_took_is_not_missing() {
    let forger = Forger::keeping(|config| config.max_messages = 4).await;
    let gateway = forger.instance("i").await;
    let (busy, late) = (gateway.session("busy", 1), gateway.session("late", 1));
    gateway.begins(&busy).await;
    for seq in 1..=6 {
        gateway.message(&busy, seq).await;
    }
    assert_eq!(forger.kinds("i", &[]).await, Vec::<String>::new(), "two messages are gone");
    gateway.begins(&late).await;
    gateway.message(&late, 2).await;
    assert_eq!(forger.kinds("i", &[]).await, ["seq-gap"], "number 1 was never there");
}

#[tokio::test]
async fn what_grew_too_old_is_not_missing() {
    let age = Duration::from_millis(500);
    let forger = Forger::keeping(|config| (config.max_age, config.duplicate_window) = (age, age)).await;
    let gateway = forger.instance("i").await;
    let old = gateway.session("old", 1);
    gateway.begins(&old).await;
    gateway.message(&old, 1).await;
    eventually(PATIENCE, "the end of a message", async || {
        let stream = forger.context.get_stream(MESSAGES).await.unwrap();
        (stream.cached_info().state.messages == 0).then_some(())
    })
    .await;
    assert_eq!(forger.kinds("i", &[]).await, Vec::<String>::new());
    gateway.message(&old, 2).await;
    assert_eq!(forger.kinds("i", &[]).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_connectivity_stream_may_be_cut_too() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    let old = gateway.session("old", 1);
    gateway.begins(&old).await;
    gateway.message(&old, 1).await;
    let mut stream = forger.context.get_stream(CONNECTIVITY).await.unwrap();
    let config = stream::Config { max_messages: 2, ..stream.info().await.unwrap().config.clone() };
    let new = gateway.session("new", 1);
    gateway.begins(&new).await;
    gateway.ends(&old, 2).await;
    forger.context.update_stream(config).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.first_sequence, 3);
    let (status, json) = forger.judge(&["--instance", "i"]).await;
    assert_eq!((status, &json["partial"], &json["connected"]), (0, &1.into(), &1.into()), "{json}");
    assert_eq!(json["messages"], 1, "{MESSAGES} is whole");
}

#[tokio::test]
async fn without_leases_a_keep_alive_counts() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    gateway.begins(&gateway.session("d", 1)).await;
    assert_eq!(forger.kinds("i", &[]).await, Vec::<String>::new(), "it has just joined");
    gateway.says(2, ServiceKind::KeepAlive).await;
    gateway.says(3, ServiceKind::Leave).await;
    assert_eq!(forger.kinds("i", &[]).await, ["never-closed"]);
}

#[tokio::test]
async fn with_leases_only_these_count() {
    let forger = Forger::start().await;
    let config = stream::Config {
        name: format!("KV_{LEASES_BUCKET}"),
        subjects: vec![all_leases()],
        max_messages_per_subject: 1,
        ..stream::Config::default()
    };
    forger.context.create_stream(config).await.unwrap();
    let gateway = forger.instance("i").await;
    gateway.begins(&gateway.session("d", 1)).await;
    assert_eq!(forger.kinds("i", &[]).await, ["never-closed"], "nobody holds a lease");
    let lease =
        |ttl: u64| json!({ "incarnation": gateway.origin.incarnation, "startedAt": now(), "ttlMs": ttl });
    let write = async |ttl| {
        let subject = lease_subject(&gateway.origin.instance, &gateway.origin.replica);
        forger.context.publish(subject, lease(ttl).to_string().into()).await.unwrap().await.unwrap();
    };
    write(60_000).await;
    assert_eq!(forger.kinds("i", &[]).await, Vec::<String>::new());
    assert_eq!(forger.judge(&["--all-instances"]).await.0, 0);
    write(0).await;
    let (status, json) = forger.judge(&["--instance", "i"]).await;
    assert_eq!((status, super::kinds(&json)), (1, vec!["never-closed".to_owned()]), "it has run out: {json}");
}
