//! Sessions and queues outlive the server's process, and leave nothing behind when they go.

use async_nats::jetstream;
use bytes::Bytes;
use landfall_event::subject::QUEUE_STREAM;
use landfall_event::{DeviceId, TenantId};
use landfall_hub::{SessionStore, StoreError, StoredQueue, StoredSession};
use landfall_nats::JetStreamStore;
use landfall_testkit::NatsServer;
use landfall_testkit::wait::{PATIENCE, within};

use crate::support::{A_WHILE, make_streams, target};

async fn store(server: &NatsServer) -> JetStreamStore {
    store_of(server, "landfall").await
}

async fn store_of(server: &NatsServer, instance: &str) -> JetStreamStore {
    let client = target(&server.url()).client().await.expect("a client");
    JetStreamStore::new(client, instance.parse().expect("an instance"))
}

fn ids(tenant: &str, device: &str) -> (TenantId, DeviceId) {
    (tenant.parse().expect("a tenant"), device.parse().expect("a device"))
}

fn session(tenant: &str, device: &str, state: &str) -> StoredSession {
    let (tenant, device) = ids(tenant, device);
    StoredSession { tenant, device, state: Bytes::copy_from_slice(state.as_bytes()) }
}

/// Names that a subject or a key would not take as they are.
const HARD: [&str; 6] = ["a.b", "*.>", "%41~=7E", "grün 漢字", "=", "$KV.x"];

#[tokio::test]
async fn sessions_come_back_after_a_restart() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let store = store(&server).await;
    assert_eq!(store.sessions().await, Ok(vec![]));
    let mut expected = Vec::new();
    for (number, name) in HARD.iter().enumerate() {
        store.save(session(name, "d", "old")).await.expect("saved");
        store.save(session("t", name, "")).await.expect("saved");
        expected.push(session("t", name, ""));
        store.save(session(name, "d", &number.to_string())).await.expect("saved");
        expected.push(session(name, "d", &number.to_string()));
    }
    server.kill();
    server.restart().await;
    assert_eq!(store.sessions().await, Ok(expected));
}

#[tokio::test]
async fn a_forgotten_session_leaves_nothing() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let store = store(&server).await;
    let (tenant, device) = ids("*", ">");
    store.save(session("*", ">", "gone")).await.expect("saved");
    store.save(session("t", "d", "stays")).await.expect("saved");
    store.forget(&tenant, &device).await.expect("forgotten");
    store.forget(&tenant, &device).await.expect("no error when there is none");
    assert_eq!(store.sessions().await, Ok(vec![session("t", "d", "stays")]));
    let context = jetstream::new(server.client().await);
    let bucket = context.get_stream("KV_LANDFALL_SESSIONS").await.expect("the bucket");
    assert_eq!(bucket.cached_info().state.messages, 1);
}

#[tokio::test]
async fn a_deletion_by_another_program_is_no_session() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let store = store(&server).await;
    store.save(session("t", "d", "gone")).await.expect("saved");
    let context = jetstream::new(server.client().await);
    let bucket = context.get_key_value("LANDFALL_SESSIONS").await.expect("the bucket");
    assert_eq!(bucket.get("landfall.t.d").await.expect("an answer").as_deref(), Some(&b"gone"[..]));
    bucket.delete("landfall.t.d").await.expect("deleted");
    bucket.put("only-one-token", "x".into()).await.expect("put");
    assert_eq!(store.sessions().await, Ok(vec![]));
}

#[tokio::test]
async fn queues_keep_their_order_and_give_back_what_was_taken() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let store = store(&server).await;
    let mut expected = Vec::new();
    for round in 0..100 {
        for name in HARD {
            let (tenant, device) = ids("t", name);
            let entry = Bytes::from(round.to_string());
            let number = store.enqueue(&tenant, &device, entry.clone()).await.expect("queued");
            expected.push(StoredQueue { tenant, device, number, entry });
        }
    }
    assert!(expected.is_sorted_by_key(|entry| entry.number));
    // Every third is taken; one of them twice.
    for entry in expected.iter().step_by(3) {
        store.dequeue(entry.number).await.expect("taken");
    }
    store.dequeue(expected[0].number).await.expect("no error when it is gone");
    store.dequeue(1_000_000).await.expect("no error when it never was");
    let left: Vec<_> =
        expected.into_iter().enumerate().filter(|(at, _)| at % 3 != 0).map(|(_, entry)| entry).collect();
    assert_eq!(store.queued().await.as_ref(), Ok(&left));
    server.kill();
    server.restart().await;
    assert_eq!(store.queued().await, Ok(left));
}

#[tokio::test]
async fn calls_wait_for_a_server_that_is_away() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let store = store(&server).await;
    store.sessions().await.expect("connected");
    server.kill();
    let (tenant, device) = ids("t", "d");
    let queueing = store.enqueue(&tenant, &device, Bytes::from_static(b"once"));
    tokio::pin!(queueing);
    assert!(tokio::time::timeout(A_WHILE, &mut queueing).await.is_err());
    server.restart().await;
    let number = within(PATIENCE, "the entry", queueing).await.expect("queued");
    let queued = store.queued().await.expect("the queue");
    assert_eq!(
        queued.iter().map(|entry| (entry.number, &entry.entry[..])).collect::<Vec<_>>(),
        [(number, &b"once"[..])]
    );
    let context = jetstream::new(server.client().await);
    let stream = context.get_stream(QUEUE_STREAM).await.expect("the stream");
    assert_eq!(stream.cached_info().state.messages, 1, "tries count once");
}

#[tokio::test]
async fn a_state_that_is_too_large_is_refused() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let store = store(&server).await;
    store.sessions().await.expect("connected");
    let large = StoredSession { state: Bytes::from(vec![0; 1 << 20]), ..session("t", "d", "") };
    assert!(matches!(store.save(large).await, Err(StoreError::TooLarge { limit: 1_048_576, .. })));
    assert_eq!(store.sessions().await, Ok(vec![]));
}

#[tokio::test]
async fn two_instances_keep_sessions_and_queues_apart() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let (one, other) = (store_of(&server, "one").await, store_of(&server, "other").await);
    let (tenant, device) = ids("t", "d");
    one.save(session("t", "d", "of one")).await.expect("saved");
    other.save(session("t", "d", "of other")).await.expect("saved");
    let number = one.enqueue(&tenant, &device, Bytes::from_static(b"for one")).await.expect("queued");
    assert_eq!(one.sessions().await, Ok(vec![session("t", "d", "of one")]));
    assert_eq!(other.sessions().await, Ok(vec![session("t", "d", "of other")]));
    assert_eq!(other.queued().await, Ok(vec![]));
    let entry =
        StoredQueue { tenant: tenant.clone(), device: device.clone(), number, entry: "for one".into() };
    assert_eq!(one.queued().await, Ok(vec![entry]));
    other.forget(&tenant, &device).await.expect("forgotten");
    assert_eq!(one.sessions().await, Ok(vec![session("t", "d", "of one")]));
}

/// What an earlier build left, whose keys and subjects named no instance.
async fn leave_nobodys(server: &NatsServer) {
    let context = jetstream::new(server.client().await);
    let mut queue = context.get_stream(QUEUE_STREAM).await.expect("the stream").cached_info().config.clone();
    queue.subjects.push(landfall_event::subject::QUEUE_NOBODYS.to_owned());
    context.update_stream(queue).await.expect("altered");
    let bucket = context.get_key_value("LANDFALL_SESSIONS").await.expect("the bucket");
    bucket.put("t.a=2Eb", "old".into()).await.expect("put");
    for entry in ["first", "second"] {
        let stored = context.publish("landfall.queue.t.a%2Eb", entry.into()).await.expect("sent");
        stored.await.expect("stored");
    }
}

async fn joins(server: &NatsServer, instance: &str) {
    let context = jetstream::new(server.client().await);
    let subject = landfall_event::subject::JOIN_ALL.replace('*', instance);
    context.publish(subject, "{}".into()).await.expect("sent").await.expect("stored");
}

fn texts(queued: Vec<StoredQueue>) -> Vec<Bytes> {
    queued.into_iter().map(|queued| queued.entry).collect()
}

#[tokio::test]
async fn what_names_no_instance_is_moved_once_to_the_only_one() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    leave_nobodys(&server).await;
    joins(&server, "one").await;
    let store = store_of(&server, "one").await;
    for _ in 0..2 {
        assert_eq!(store.sessions().await, Ok(vec![session("t", "a.b", "old")]));
        assert_eq!(texts(store.queued().await.expect("the queue")), ["first", "second"]);
    }
    // A second instance that comes later finds nothing of it.
    let late = store_of(&server, "late").await;
    assert_eq!((late.sessions().await, late.queued().await), (Ok(vec![]), Ok(vec![])));
    let context = jetstream::new(server.client().await);
    let stream = context.get_stream(QUEUE_STREAM).await.expect("the stream");
    assert_eq!(stream.cached_info().state.messages, 2, "moved, not copied");
}

#[tokio::test]
async fn what_names_no_instance_is_left_alone_where_there_are_several() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    leave_nobodys(&server).await;
    joins(&server, "one").await;
    joins(&server, "other").await;
    for instance in ["one", "other"] {
        let store = store_of(&server, instance).await;
        assert_eq!((store.sessions().await, store.queued().await), (Ok(vec![]), Ok(vec![])), "{instance}");
    }
    let context = jetstream::new(server.client().await);
    let bucket = context.get_key_value("LANDFALL_SESSIONS").await.expect("the bucket");
    assert_eq!(bucket.get("t.a=2Eb").await.expect("an answer").as_deref(), Some(&b"old"[..]));
}
