//! Connections that prove who they are, both to the client for requests and to the publishing one.

use std::path::Path;

use bytes::Bytes;
use landfall_nats::window::Bounds;
use landfall_nats::{ConnectError, ConnectSettings, Publisher, PublisherSettings, Target, streams};
use landfall_net::Scope;
use landfall_testkit::wait::{PATIENCE, within};
use landfall_testkit::{NatsServer, Pki};

use crate::support::Fleet;

/// Streams can be made and an event is stored.
async fn assert_serves(settings: ConnectSettings) {
    let target = Target::new(settings).expect("a target");
    let client = target.client().await.expect("a client");
    let context = async_nats::jetstream::new(client.clone());
    let defaults = streams::StreamSettings::default();
    within(PATIENCE, "the streams", streams::establish(&context, &defaults)).await.expect("streams");
    let scope = Scope::new();
    let settings = PublisherSettings { bounds: Bounds::default(), fenced: false, kept: None };
    let fleet = Fleet::of(Publisher::start(&scope, target, client, settings), scope);
    let news = fleet.submit(0, 1, Bytes::from_static(b"x"));
    assert_eq!(within(PATIENCE, "a receipt", news).await.expect("told"), Ok(()));
    fleet.publisher.close(PATIENCE).await;
}

fn settings(url: String) -> ConnectSettings {
    ConnectSettings { urls: vec![url], name: "test".to_owned(), ..ConnectSettings::default() }
}

#[tokio::test]
async fn by_user_and_password() {
    let server = NatsServer::start_with(&["--user", "app", "--pass", "p@ss:word"]).await;
    assert_serves(settings(format!("nats://app:p%40ss:word@127.0.0.1:{}", server.port()))).await;
}

#[tokio::test]
async fn by_token() {
    let server = NatsServer::start_with(&["--auth", "s3cr3t-token"]).await;
    assert_serves(settings(format!("nats://s3cr3t-token@127.0.0.1:{}", server.port()))).await;
}

#[tokio::test]
async fn over_tls_with_certificates_on_both_sides() {
    let pki = Pki::new();
    let own = pki.client("gateway");
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let (certificate, key) = (path(&pki.server().certificate), path(&pki.server().key));
    let arguments =
        ["--tlsverify", "--tlscacert", &path(pki.authority()), "--tlscert", &certificate, "--tlskey", &key];
    let server = NatsServer::start_with(&arguments).await;
    let mut settings = settings(format!("tls://localhost:{}", server.port()));
    settings.ca = Some(pki.authority().to_path_buf());
    settings.certificate = Some((own.certificate.clone(), own.key.clone()));
    assert_serves(settings).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_at_once() {
    let mut settings = settings("tls://127.0.0.1:1".to_owned());
    settings.ca = Some("/nowhere/ca.pem".into());
    let error = Target::new(settings).expect("a target").client().await.expect_err("no such file");
    assert!(matches!(&error, ConnectError::File { path, .. } if path.ends_with("ca.pem")), "{error}");
}
