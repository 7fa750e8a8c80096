//! Refusals: a stream of their own, without a fence, which holds up no other.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use bytes::Bytes;
use landfall_event::subject::{self, stream_name, stream_subjects};
use landfall_event::{EventId, Stream};
use landfall_hub::{Bus, Publication, Receipt, unix_now};
use landfall_nats::streams::{Keep, StreamSettings, ensure};
use landfall_testkit::NatsServer;
use landfall_testkit::recorder::Seen;
use landfall_testkit::streams::everything;
use landfall_testkit::wait::{PATIENCE, eventually, within};
use serde_json::json;

use crate::support::{Fleet, all_stored, assert_whole, make_streams, session_id};

/// The refusals.
const ACCESS: &str = stream_name(Stream::Access);
/// Who is present.
const LEDGER: &str = stream_name(Stream::Connectivity);

async fn context(server: &NatsServer) -> Context {
    jetstream::new(server.client().await)
}

/// A size that every disk has, in bytes.
const SMALL: i64 = 64 << 20;

/// A ledger of that size.
fn small() -> StreamSettings {
    let usual = StreamSettings::default();
    let max_bytes = SMALL.unsigned_abs();
    StreamSettings { connectivity: Keep { max_bytes, ..usual.connectivity }, ..usual }
}

/// Where they are published.
fn refused() -> String {
    stream_subjects(Stream::Access)[0].replace('*', "test").replace('>', "refused")
}

/// The refusal with this number.
fn refusal(number: u64) -> Publication {
    Publication {
        stream: Stream::Access,
        subject: refused().into(),
        id: EventId::Gateway(session_id(1).to_string().parse().expect("an id"), number),
        headers: Vec::new(),
        body: Bytes::from_static(b"{}"),
        receipt: Receipt::unheard(None),
    }
}

/// Waits until a stream holds so many messages.
async fn holds(context: &Context, name: &str, count: u64) {
    eventually(PATIENCE, "refusals in their stream", async || {
        let stream = context.get_stream(name).await.ok()?;
        (stream.cached_info().state.messages == count).then_some(())
    })
    .await;
}

async fn subjects(context: &Context, name: &str) -> Option<Vec<String>> {
    Some(context.get_stream(name).await.ok()?.cached_info().config.subjects.clone())
}

#[tokio::test]
async fn a_stream_of_refusals_that_is_missing_full_or_silent_holds_up_no_other() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let access = Keep { max_age: Duration::from_hours(24), max_bytes: 64 << 20 };
    ensure(&context, &StreamSettings { access, ..StreamSettings::default() }).await.expect("streams");
    let whole = context.get_stream(ACCESS).await.expect("made").cached_info().config.clone();
    assert_eq!((whole.max_age, whole.max_bytes), (Duration::from_hours(24), 64 << 20));
    let full = stream::Config { max_messages: 1, discard: stream::DiscardPolicy::New, ..whole.clone() };
    let silent = stream::Config { no_ack: true, ..whole.clone() };
    for broken in [None, Some(full), Some(silent)] {
        context.delete_stream(ACCESS).await.expect("it was there");
        if let Some(config) = &broken {
            context.create_stream(config).await.expect("a stream");
        }
        make_again(&context, stream_name(Stream::Messages)).await;
        let fleet = Arc::new(Fleet::start(&server.url()).await);
        (1..=20).for_each(|number| fleet.publisher.submit(refusal(number)));
        all_stored(fleet.publish(4, 100, 20).await).await;
        assert_whole(&server.url(), 4, 100).await;
        assert_eq!(fleet.publisher.trouble(), None, "{broken:?}");
        assert!(fleet.publisher.stats().beside > 0, "{broken:?}");
        assert!(fleet.publisher.is_ready());
        if broken.is_some() {
            context.update_stream(&whole).await.expect("a stream that works");
        } else {
            context.create_stream(&whole).await.expect("a stream that works");
        }
        eventually(PATIENCE, "every refusal settled", async || {
            let stats = fleet.publisher.stats();
            (stats.beside == 0 && stats.stored == 420).then_some(())
        })
        .await;
        holds(&context, ACCESS, 20).await;
        assert!(fleet.publisher.close(PATIENCE).await);
    }
}

/// With nothing in it.
async fn make_again(context: &Context, name: &str) {
    let config = context.get_stream(name).await.expect("the stream").cached_info().config.clone();
    context.delete_stream(name).await.expect("it was there");
    context.create_stream(config).await.expect("it again");
}

#[tokio::test]
async fn an_end_waits_for_refusals_but_not_for_a_stream_that_is_not_there() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let context = context(&server).await;
    let fleet = Fleet::start(&server.url()).await;
    fleet.becomes(true).await;
    (1..=200).for_each(|number| fleet.publisher.submit(refusal(number)));
    assert!(fleet.publisher.close(PATIENCE).await);
    holds(&context, ACCESS, 200).await;
    context.delete_stream(ACCESS).await.expect("it was there");
    let fleet = Fleet::start(&server.url()).await;
    fleet.becomes(true).await;
    fleet.publisher.submit(refusal(1));
    assert!(within(PATIENCE, "the end", fleet.publisher.close(PATIENCE * 10)).await);
    assert_eq!(fleet.publisher.stats().refused, 1, "counted");
}

#[tokio::test]
async fn refusals_outlive_a_server_that_restarts_once_each_and_in_order() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Fleet::start(&server.url()).await;
    fleet.becomes(true).await;
    (1..=10).for_each(|number| fleet.publisher.submit(refusal(number)));
    server.kill();
    (11..=20).for_each(|number| fleet.publisher.submit(refusal(number)));
    server.restart().await;
    let context = context(&server).await;
    holds(&context, ACCESS, 20).await;
    let events = everything(&server.url(), ACCESS).await;
    let number = |event: &Seen| match event.headers.get("Nats-Msg-Id")?.as_str().parse().ok()? {
        EventId::Gateway(_, number) => Some(number),
        EventId::Session(..) | EventId::Will(..) => None,
    };
    let numbers: Vec<u64> = events.iter().filter_map(number).collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<u64>>());
}

/// The ledger's stream as an earlier build made it.
async fn make_old_ledger(context: &Context) -> Vec<String> {
    let mut old: Vec<String> =
        stream_subjects(Stream::Connectivity).iter().map(|one| (*one).to_owned()).collect();
    old.insert(4, stream_subjects(Stream::Access)[0].to_owned());
    old.push("own.>".to_owned());
    let config = stream::Config {
        name: LEDGER.to_owned(),
        subjects: old.clone(),
        max_bytes: SMALL,
        ..Default::default()
    };
    context.create_stream(config).await.expect("a stream");
    let refused = context.publish(refused(), "{}".into()).await;
    refused.expect("sent").await.expect("stored");
    old
}

#[tokio::test]
async fn a_ledger_that_still_takes_refusals_gives_them_away_and_keeps_what_it_has() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let old = make_old_ledger(&context).await;
    ensure(&context, &small()).await.expect("streams");
    let given = stream_subjects(Stream::Access)[0];
    let left: Vec<String> = old.into_iter().filter(|subject| subject != given).collect();
    assert_eq!(subjects(&context, LEDGER).await, Some(left));
    assert_eq!(subjects(&context, ACCESS).await, Some(vec![given.to_owned()]));
    holds(&context, LEDGER, 1).await;
    let fleet = Fleet::start(&server.url()).await;
    fleet.publisher.submit(refusal(1));
    holds(&context, ACCESS, 1).await;
    holds(&context, LEDGER, 1).await;
}

#[tokio::test]
async fn while_another_gateway_lives_refusals_stay_with_the_ledger() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let old = make_old_ledger(&context).await;
    let settings = small();
    let bucket = jetstream::kv::Config { bucket: subject::LEASES_BUCKET.to_owned(), ..Default::default() };
    context.create_key_value(bucket).await.expect("a bucket");
    let lease = subject::lease_subject(&"test".parse().expect("a name"), &"other".parse().expect("a name"));
    let claim = json!({ "incarnation": session_id(9), "startedAt": unix_now(), "ttlMs": 60_000 });
    context.publish(lease.clone(), claim.to_string().into()).await.expect("sent").await.expect("stored");
    ensure(&context, &settings).await.expect("it starts all the same");
    assert_eq!(subjects(&context, LEDGER).await, Some(old));
    assert_eq!(subjects(&context, ACCESS).await, None);
    let fleet = Fleet::start(&server.url()).await;
    fleet.publisher.submit(refusal(1));
    holds(&context, LEDGER, 2).await;
    // It is gone.
    let claim = json!({ "incarnation": session_id(9), "startedAt": unix_now(), "ttlMs": 0 });
    context.publish(lease, claim.to_string().into()).await.expect("sent").await.expect("stored");
    ensure(&context, &settings).await.expect("streams");
    fleet.publisher.submit(refusal(2));
    holds(&context, ACCESS, 1).await;
    holds(&context, LEDGER, 2).await;
}

#[tokio::test]
async fn a_subject_of_refusals_that_another_stream_has_keeps_nobody_from_starting() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let own = stream::Config {
        name: "OWN".to_owned(),
        subjects: vec![stream_subjects(Stream::Access)[0].replace('>', "refused")],
        ..Default::default()
    };
    context.create_stream(own).await.expect("a stream");
    ensure(&context, &StreamSettings::default()).await.expect("the other streams");
    let fleet = Fleet::start(&server.url()).await;
    fleet.publisher.submit(refusal(1));
    holds(&context, "OWN", 1).await;
    assert_eq!(subjects(&context, ACCESS).await, None);
}
