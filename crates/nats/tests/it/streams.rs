//! Streams are made when missing and never altered; what the gateway reads back from them.

use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use bytes::Bytes;
use landfall_event::subject::{QUEUE_STREAM, Subjects, stream_name, stream_subjects};
use landfall_event::{
    Connected, Epoch, Event, IdentifiedBy, Identity, InstanceName, SessionInfo, Stream, Transport,
};
use landfall_nats::Health;
use landfall_nats::streams::{Keep, StreamError, StreamSettings, ensure, establish};
use landfall_testkit::NatsServer;
use landfall_testkit::wait::{PATIENCE, eventually, within};

use crate::support::{session_id, target};

async fn context(server: &NatsServer) -> Context {
    jetstream::new(server.client().await)
}

async fn config(context: &Context, name: &str) -> stream::Config {
    context.get_stream(name).await.expect("the stream").cached_info().config.clone()
}

#[tokio::test]
async fn missing_streams_are_made_as_set() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let settings = StreamSettings {
        connectivity: Keep { max_age: Duration::from_hours(48), max_bytes: 128 << 20 },
        // As by default, but for what a disk may have no room for.
        messages: Keep { max_bytes: 256 << 20, ..StreamSettings::default().messages },
        ..StreamSettings::default()
    };
    ensure(&context, &settings).await.expect("streams");
    let connectivity = config(&context, stream_name(Stream::Connectivity)).await;
    assert_eq!(connectivity.subjects, stream_subjects(Stream::Connectivity));
    assert_eq!((connectivity.max_age, connectivity.max_bytes), (Duration::from_hours(48), 128 << 20));
    assert_eq!(connectivity.duplicate_window, Duration::from_secs(30));
    assert!(connectivity.allow_direct);
    let messages = config(&context, stream_name(Stream::Messages)).await;
    assert_eq!((messages.max_age, messages.max_bytes), (Duration::from_hours(7 * 24), 256 << 20));
    config(&context, QUEUE_STREAM).await;
    context.get_key_value("LANDFALL_SESSIONS").await.expect("a bucket for key-value tools");
}

/// What is set for the messages.
async fn keep_messages(context: &Context, max_age: Duration, max_bytes: u64) -> (Duration, i64) {
    let messages = Keep { max_age, max_bytes };
    let settings = StreamSettings { messages, ..StreamSettings::default() };
    ensure(context, &settings).await.expect("streams");
    let now = config(context, stream_name(Stream::Messages)).await;
    (now.max_age, now.max_bytes)
}

#[tokio::test]
async fn limits_follow_the_settings_where_nothing_that_is_stored_goes_by_it() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let (day, hour) = (Duration::from_hours(24), Duration::from_hours(1));
    assert_eq!(keep_messages(&context, day, 1 << 30).await, (day, 1 << 30));
    assert_eq!(keep_messages(&context, hour, 1 << 20).await, (hour, 1 << 20), "lower: it is empty");
    let subject = stream_subjects(Stream::Messages)[0].replace('*', "test").replace('>', "upstream");
    for _ in 0..3 {
        let stored = context.publish(subject.clone(), vec![b'x'; 100_000].into()).await.expect("sent");
        stored.await.expect("stored");
    }
    assert_eq!(keep_messages(&context, day, 1 << 30).await, (day, 1 << 30), "higher");
    assert_eq!(keep_messages(&context, day, 512 << 10).await, (day, 512 << 10), "what is there fits");
    assert_eq!(
        keep_messages(&context, day, 128 << 10).await,
        (day, 512 << 10),
        "it would discard: as it was"
    );
    let old = Duration::from_millis(1);
    assert_eq!(keep_messages(&context, old, 512 << 10).await, (day, 512 << 10), "so would an age");
    let state =
        context.get_stream(stream_name(Stream::Messages)).await.expect("it").cached_info().state.clone();
    assert_eq!(state.messages, 3);
    assert_eq!(keep_messages(&context, Duration::ZERO, 0).await, (Duration::ZERO, -1), "without bound");
}

#[tokio::test]
async fn a_limit_that_the_disk_has_no_room_for_is_made_smaller() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let messages = Keep { max_age: Duration::ZERO, max_bytes: 1 << 50 };
    let settings = StreamSettings { messages, ..StreamSettings::default() };
    ensure(&context, &settings).await.expect("streams");
    let made = config(&context, stream_name(Stream::Messages)).await.max_bytes;
    assert!((64 << 20..1 << 50).contains(&made), "{made}");
}

#[tokio::test]
async fn present_streams_are_left_as_they_are() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let name = stream_name(Stream::Messages);
    let own = stream::Config {
        name: name.to_owned(),
        subjects: vec!["kaa.>".to_owned(), "own.>".to_owned()],
        max_messages: 12_345,
        description: Some("the operator's own".to_owned()),
        ..Default::default()
    };
    context.create_stream(own).await.expect("a stream");
    let before = config(&context, name).await;
    // It takes everything, so the connectivity stream cannot be made beside it.
    let error = ensure(&context, &StreamSettings::default()).await.expect_err("subjects overlap");
    assert!(
        matches!(&error, StreamError::Refused { stream, .. } if stream == stream_name(Stream::Connectivity)),
        "{error}"
    );
    assert!(!error.is_passing());
    assert_eq!(config(&context, name).await, before);
}

#[tokio::test]
async fn a_present_stream_that_lacks_a_subject_is_named_and_left_alone() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    let name = stream_name(Stream::Messages);
    let own =
        stream::Config { name: name.to_owned(), subjects: vec!["own.>".to_owned()], ..Default::default() };
    context.create_stream(own).await.expect("a stream");
    let before = config(&context, name).await;
    let error = ensure(&context, &StreamSettings::default()).await.expect_err("it lacks the subject");
    let text = error.to_string();
    assert!(text.contains(name) && text.contains(stream_subjects(Stream::Messages)[0]), "{text}");
    assert_eq!(config(&context, name).await, before);
}

#[tokio::test]
async fn two_replicas_that_start_at_once_both_find_their_streams() {
    let server = NatsServer::start().await;
    let (one, other) = (context(&server).await, context(&server).await);
    let longer = StreamSettings {
        messages: Keep { max_age: Duration::from_hours(24), max_bytes: 0 },
        ..StreamSettings::default()
    };
    let settings = StreamSettings::default();
    let (one, other) = tokio::join!(ensure(&one, &settings), ensure(&other, &longer));
    one.expect("streams");
    other.expect("streams");
}

#[tokio::test]
async fn establishing_waits_for_the_server() {
    let mut server = NatsServer::start().await;
    server.kill();
    let mut context = jetstream::new(target(&server.url()).client().await.expect("a client"));
    context.set_timeout(Duration::from_millis(100));
    let settings = StreamSettings::default();
    let establishing = establish(&context, &settings);
    tokio::pin!(establishing);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut establishing).await.is_err());
    server.restart().await;
    within(PATIENCE, "streams", establishing).await.expect("streams");
}

#[tokio::test]
async fn the_last_epoch_is_found_in_the_body_or_in_the_header() {
    let server = NatsServer::start().await;
    let context = context(&server).await;
    ensure(&context, &StreamSettings::default()).await.expect("streams");
    let health = Health::new(target(&server.url()).client().await.expect("a client"));
    assert_eq!(health.last_epoch().await.expect("an answer"), None);
    publish_connected(&context, "one", "{\"type\":\"connected\",\"epoch\":41}", None).await;
    publish_connected(&context, "another", "{\"type\":\"connected\",\"epoch\":42,\"seq\":1}", None).await;
    assert_eq!(health.last_epoch().await.expect("an answer"), Some(Epoch(42)));
    publish_connected(&context, "one", "\u{2}avro", Some("43")).await;
    assert_eq!(health.last_epoch().await.expect("an answer"), Some(Epoch(43)));
}

async fn publish_connected(context: &Context, instance: &str, body: &str, epoch: Option<&str>) {
    let instance: InstanceName = instance.parse().expect("a name");
    let session = SessionInfo {
        tenant: "default".parse().expect("a tenant"),
        device: "pump".parse().expect("a device"),
        app_version: "".into(),
        identity: Identity::new(session_id(1), Epoch(1)),
        transport: Transport::Mqtt,
    };
    let event = Event::Connected(Connected {
        session: session.into(),
        protocol: "MQTT/5.0",
        remote_id: "pump".into(),
        remote_address: ([127, 0, 0, 1], 1).into(),
        identified_by: IdentifiedBy::Anonymous,
        keep_alive_ms: None,
        inferred: false,
        clean_start: None,
    });
    let subject = Subjects::new(&instance).of(&event).to_string();
    let mut headers = async_nats::HeaderMap::new();
    if let Some(epoch) = epoch {
        headers.insert("Landfall-Epoch", epoch);
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    context.publish_with_headers(subject, headers, body).await.expect("sent").await.expect("stored");
}

#[tokio::test]
async fn health_follows_the_connection() {
    let mut server = NatsServer::start().await;
    let health = Health::new(target(&server.url()).client().await.expect("a client"));
    for connected in [true, false, true] {
        eventually(PATIENCE, "the connection's state", async || {
            (health.is_connected() == connected).then_some(())
        })
        .await;
        if connected { server.kill() } else { server.restart().await }
    }
}
