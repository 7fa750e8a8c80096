//! What a publisher does while nothing breaks but a message.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use landfall_event::Stream;
use landfall_event::subject::{stream_name, stream_subjects};
use landfall_hub::{Bus, Publication, Receipt, StoreError};
use landfall_nats::window::Bounds;
use landfall_testkit::NatsServer;
use landfall_testkit::wait::{PATIENCE, within};
use tokio::time::timeout;

use crate::support::{A_WHILE, Fleet, News, all_stored, assert_whole, make_streams};

async fn hear(news: News) -> Result<(), StoreError> {
    within(PATIENCE, "a receipt", news).await.expect("every receipt is told")
}

#[tokio::test]
async fn what_is_submitted_is_stored_once_and_in_order() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let news = fleet.publish(4, 2_500, 100).await;
    all_stored(news).await;
    assert_whole(&server.url(), 4, 2_500).await;
    let stats = fleet.publisher.stats();
    assert_eq!((stats.submitted, stats.stored, stats.refused), (10_000, 10_000, 0));
    assert_eq!((stats.in_flight, stats.queued, stats.reconnects, stats.retried), (0, 0, 0, 0));
    assert!(fleet.publisher.is_ready());
}

#[tokio::test]
async fn one_that_is_too_large_is_refused_and_the_connection_stays() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Fleet::start(&server.url()).await;
    let before = fleet.submit(0, 1, Bytes::from_static(b"1"));
    let large = fleet.submit(1, 1, Bytes::from(vec![0; (1 << 20) + 1]));
    // The headers count too: this body alone would fit.
    let barely = fleet.submit(1, 2, Bytes::from(vec![0; 1 << 20]));
    let after = fleet.submit(0, 2, Bytes::from_static(b"2"));
    assert_eq!(hear(before).await, Ok(()));
    for refused in [large, barely] {
        let refused = hear(refused).await;
        assert!(
            matches!(refused, Err(StoreError::TooLarge { size, limit: 1_048_576 }) if size > 1 << 20),
            "{refused:?}"
        );
    }
    assert_eq!(hear(after).await, Ok(()));
    let stats = fleet.publisher.stats();
    assert_eq!((stats.stored, stats.refused, stats.reconnects), (2, 2, 0));
}

#[tokio::test]
async fn one_that_its_stream_refuses_for_good_is_not_tried_again() {
    let server = NatsServer::start().await;
    let context = jetstream::new(server.client().await);
    let config = stream::Config {
        name: stream_name(Stream::Messages).to_owned(),
        subjects: vec![stream_subjects(Stream::Messages)[0].to_owned()],
        max_message_size: 1_000,
        ..Default::default()
    };
    context.create_stream(config).await.expect("a stream");
    let fleet = Fleet::start(&server.url()).await;
    let small = fleet.submit(0, 1, Bytes::from_static(b"1"));
    let large = fleet.submit(1, 1, Bytes::from(vec![0; 2_000]));
    let last = fleet.submit(0, 2, Bytes::from_static(b"2"));
    assert_eq!(hear(small).await, Ok(()));
    assert!(matches!(hear(large).await, Err(StoreError::Refused(why)) if why.contains("message size")));
    assert_eq!(hear(last).await, Ok(()));
    assert_eq!(fleet.publisher.stats().retried, 0);
}

#[tokio::test]
async fn a_line_break_in_a_header_is_refused() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Fleet::start(&server.url()).await;
    let (receipt, news) = Receipt::once();
    fleet.publisher.submit(Publication {
        headers: vec![("Landfall-Topic", "a\r\nNats-Rollup: all".to_owned())],
        ..fleet.publication(0, 1, Bytes::new(), receipt)
    });
    assert!(matches!(hear(news).await, Err(StoreError::Refused(why)) if why.contains("Landfall-Topic")));
    assert_eq!(hear(fleet.submit(0, 2, Bytes::new())).await, Ok(()));
}

#[tokio::test]
async fn without_a_stream_everything_waits_and_then_comes_in_order() {
    let server = NatsServer::start().await;
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let news = fleet.publish(4, 500, 100).await;
    fleet.becomes(false).await;
    assert_eq!(fleet.publisher.stats().stored, 0);
    make_streams(&server.url()).await;
    all_stored(news).await;
    assert_whole(&server.url(), 4, 500).await;
    let stats = fleet.publisher.stats();
    assert_eq!(stats.reconnects, 0);
    assert!(stats.retried < 100, "one probe after another, not everything again: {stats:?}");
    fleet.becomes(true).await;
}

#[tokio::test]
async fn closing_stores_what_was_submitted_and_takes_nothing_more() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let news = fleet.publish(4, 1_000, 100).await;
    fleet.publisher.close(PATIENCE).await;
    assert_eq!(fleet.publisher.stats().stored, 4_000);
    all_stored(news).await;
    assert_eq!(hear(fleet.submit(0, 1_001, Bytes::new())).await, Err(StoreError::Closed));
    assert!(!fleet.publisher.is_ready());
    fleet.publisher.close(PATIENCE).await;
}

#[tokio::test]
async fn closing_without_a_server_gives_up_at_the_deadline() {
    let mut server = NatsServer::start().await;
    server.kill();
    let fleet = Fleet::start(&server.url()).await;
    let news = fleet.submit(0, 1, Bytes::new());
    assert!(
        timeout(A_WHILE, fleet.publisher.close(Duration::from_secs(60))).await.is_err(),
        "it waits for the server"
    );
    // The earlier deadline counts.
    within(PATIENCE, "the end", fleet.publisher.close(Duration::ZERO)).await;
    assert_eq!(hear(news).await, Err(StoreError::Closed));
    assert_eq!(fleet.publisher.stats().refused, 1);
}

#[tokio::test]
async fn an_aborted_publisher_leaves_nobody_waiting() {
    let mut server = NatsServer::start().await;
    server.kill();
    let fleet = Fleet::start(&server.url()).await;
    let news = fleet.submit(0, 1, Bytes::new());
    fleet.scope.drain(Duration::ZERO).await;
    assert_eq!(hear(news).await, Err(StoreError::Closed));
    assert_eq!(hear(fleet.submit(0, 2, Bytes::new())).await, Err(StoreError::Closed));
    within(PATIENCE, "the end", fleet.publisher.close(PATIENCE)).await;
}

#[tokio::test]
async fn a_small_window_bounds_what_is_in_flight() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let bounds = Bounds { in_flight: 3, ..Bounds::default() };
    let fleet = Arc::new(Fleet::start_with(&server.url(), bounds).await);
    let news = fleet.publish(2, 200, 10).await;
    all_stored(news).await;
    assert_whole(&server.url(), 2, 200).await;
}

#[tokio::test]
async fn replies_are_sent() {
    use futures_util::StreamExt;
    let server = NatsServer::start().await;
    let fleet = Fleet::start(&server.url()).await;
    let client = server.client().await;
    let mut inbox = client.subscribe("answers").await.expect("a subscription");
    // Once the server has answered on this connection, it knows of the subscription.
    client.request("nobody", Bytes::new()).await.expect_err("nobody listens");
    fleet.publisher.reply("answers", Bytes::from_static(b"yes"));
    let message = within(PATIENCE, "the reply", inbox.next()).await.expect("a message");
    assert_eq!(&message.payload[..], b"yes");
    // What is said last is sent before the end.
    fleet.publisher.reply("answers", Bytes::from_static(b"bye"));
    within(PATIENCE, "the end", fleet.publisher.close(PATIENCE)).await;
    let message = within(PATIENCE, "the last reply", inbox.next()).await.expect("a message");
    assert_eq!(&message.payload[..], b"bye");
    fleet.publisher.reply("answers", Bytes::from_static(b"too late"));
    assert_eq!(fleet.publisher.stats().replies_dropped, 1);
    assert!(fleet.scope.drain(PATIENCE).await.is_clean());
}
