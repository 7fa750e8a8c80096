//! What keeps events from being stored is named, each kind by a real server that does it.

use std::path::PathBuf;

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use landfall_event::Stream;
use landfall_event::subject::{stream_name, stream_subjects};
use landfall_nats::{Cause, Trouble};
use landfall_testkit::NatsServer;
use landfall_testkit::nats;
use landfall_testkit::wait::{PATIENCE, eventually};
use tempfile::TempDir;

use crate::support::{Fleet, make_streams};

/// A server with this configuration beside what it has on its command line.
async fn configured(text: &str) -> (NatsServer, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("nats.conf");
    std::fs::write(&path, text).expect("a file");
    (NatsServer::start_with(&["-c", path.to_str().expect("a path in UTF-8")]).await, folder)
}

/// The server's address with a user and a password.
fn at(server: &NatsServer, user: &str) -> String {
    server.url().replacen("nats://", &format!("nats://{user}@"), 1)
}

/// Publishes a message at `url`, which comes to nothing, and waits for this cause.
async fn expect(fleet: &Fleet, cause: Cause) -> Trouble {
    let _news = fleet.submit(0, 1, Bytes::from(vec![b'x'; 1_000]));
    eventually(PATIENCE * 2, &format!("the cause {cause}"), async || {
        fleet.publisher.trouble().filter(|trouble| trouble.cause == cause)
    })
    .await
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Fleet::start(&server.url()).await;
    assert_eq!(fleet.publisher.trouble(), None);
    server.kill();
    let trouble = expect(&fleet, Cause::ServerNotReached).await;
    assert!(!trouble.error.is_empty() && trouble.times > 0, "{trouble:?}");
    server.restart().await;
    fleet.reaches(1).await;
    assert_eq!(fleet.publisher.trouble(), None, "it is over when something is stored");
}

#[tokio::test]
async fn a_password_that_is_wrong() {
    let server = NatsServer::start_with(&["--user", "a", "--pass", "right"]).await;
    let fleet = Fleet::start(&at(&server, "a:wr0ng")).await;
    let trouble = expect(&fleet, Cause::LoginRefused).await;
    assert!(!trouble.error.contains("wr0ng"), "{trouble:?}");
}

#[tokio::test]
async fn a_permission_that_is_missing() {
    let text = "authorization { users: [ { user: a, password: a }\n\
                { user: b, password: b, permissions: { publish: { deny: \"kaa.>\" } } } ] }\n";
    let (server, _folder) = configured(text).await;
    make_streams(&at(&server, "a:a")).await;
    let fleet = Fleet::start(&at(&server, "b:b")).await;
    expect(&fleet, Cause::PermissionMissing).await;
    let text = "authorization { users: [ { user: c, password: c, permissions: { publish: { deny: \"$JS.>\" } } } ] }\n";
    let (server, _folder) = configured(text).await;
    let fleet = Fleet::start(&at(&server, "c:c")).await;
    expect(&fleet, Cause::PermissionMissing).await;
}

#[tokio::test]
async fn an_account_without_jetstream() {
    let text = "accounts { A: { jetstream: enabled, users: [ { user: a, password: a } ] }\n\
                B: { users: [ { user: b, password: b } ] } }\n";
    let (server, _folder) = configured(text).await;
    let fleet = Fleet::start(&at(&server, "b:b")).await;
    expect(&fleet, Cause::NoJetStream).await;
}

#[tokio::test]
async fn a_store_that_is_full() {
    let (server, _folder) = configured("jetstream { max_file_store: 100KB }\n").await;
    // One that has no bound reserves nothing of the store.
    let subjects = stream_subjects(Stream::Messages).iter().map(|subject| (*subject).to_owned()).collect();
    let name = stream_name(Stream::Messages).to_owned();
    let context = jetstream::new(nats::client(&server.url()).await);
    let config = stream::Config { name, subjects, ..stream::Config::default() };
    context.create_stream(config).await.expect("a stream");
    let fleet = Fleet::start(&server.url()).await;
    for seq in 1..=20 {
        drop(fleet.submit(1, seq, Bytes::from(vec![b'x'; 10_000])));
    }
    expect(&fleet, Cause::StoreFull).await;
}

#[tokio::test]
async fn a_stream_that_is_full_or_missing() {
    let server = NatsServer::start().await;
    let fleet = Fleet::start(&server.url()).await;
    expect(&fleet, Cause::StreamMissing).await;
    make_streams(&server.url()).await;
    fleet.reaches(1).await;
    let context = jetstream::new(nats::client(&server.url()).await);
    let messages = context.get_stream(stream_name(Stream::Messages)).await.expect("the stream");
    let mut config = messages.cached_info().config.clone();
    (config.max_messages, config.discard) = (1, stream::DiscardPolicy::New);
    context.update_stream(&config).await.expect("a limit");
    let _news = fleet.submit(2, 1, Bytes::from_static(b"x"));
    expect(&fleet, Cause::StreamFull).await;
    config.max_messages = -1;
    context.update_stream(&config).await.expect("no limit");
    fleet.reaches(3).await;
    assert_eq!(fleet.publisher.trouble(), None);
}
