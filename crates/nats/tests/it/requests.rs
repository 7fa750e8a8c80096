//! Commands and operators' calls arrive as they were sent, also after a reconnect; what cannot be read is told so.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use landfall_event::InstanceName;
use landfall_event::subject::{AdminCall, admin_subject, admin_wildcard, command_subject, command_wildcard};
use landfall_hub::CommandRequest;
use landfall_nats::{AdminRequest, RequestStats, Requests};
use landfall_net::Scope;
use landfall_testkit::NatsServer;
use landfall_testkit::wait::{PATIENCE, eventually, within};
use tokio::sync::mpsc;

use crate::support::target;

struct Gateway {
    instance: InstanceName,
    requests: Requests,
    commands: mpsc::Receiver<CommandRequest>,
    calls: mpsc::Receiver<AdminRequest>,
    scope: Scope,
}

/// Requests are served, and the server knows it.
async fn serve(server: &NatsServer) -> Gateway {
    let instance: InstanceName = "test".parse().expect("a name");
    let (scope, client) = (Scope::new(), target(&server.url()).client().await.expect("a client"));
    let (to_commands, commands) = mpsc::channel(100);
    let (to_calls, calls) = mpsc::channel(100);
    let take_command = Arc::new(move |request| to_commands.try_send(request).expect("room"));
    let take_call = Arc::new(move |request| to_calls.try_send(request).expect("room"));
    let requests =
        Requests::serve(&scope, &client, &instance, take_command, take_call).await.expect("subscriptions");
    client.request("nobody", Bytes::new()).await.expect_err("nobody listens");
    Gateway { instance, requests, commands, calls, scope }
}

fn command_to(gateway: &Gateway, tenant: &str, device: &str) -> String {
    command_subject(&gateway.instance, &tenant.parse().expect("a tenant"), &device.parse().expect("a device"))
}

async fn next<T>(queue: &mut mpsc::Receiver<T>) -> T {
    within(PATIENCE, "a request", queue.recv()).await.expect("an open queue")
}

async fn ask(client: &Client, subject: String) -> Bytes {
    within(PATIENCE, "an answer", client.request(subject, Bytes::new())).await.expect("an answer").payload
}

#[tokio::test]
async fn a_command_arrives_with_its_texts_unchecked() {
    let server = NatsServer::start().await;
    let mut gateway = serve(&server).await;
    let client = server.client().await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Command-Id", "a/b"),
        ("Command-Name", "open valve"),
        ("Command-Ttl", "soon"),
        ("Command-Wait", "answered"),
        ("Topic", "valves/#"),
        ("Content-Type", "text/plain"),
    ] {
        headers.insert(name, value);
    }
    let subject = command_to(&gateway, "te.nant", "pump 17*");
    client
        .publish_with_reply_and_headers(subject, "inbox.1", headers, Bytes::from_static(b"\xff\x00"))
        .await
        .expect("sent");
    let command = next(&mut gateway.commands).await;
    assert_eq!((command.tenant.as_str(), command.device.as_str()), ("te.nant", "pump 17*"));
    assert_eq!((command.id.as_deref(), command.name.as_deref()), (Some("a/b"), Some("open valve")));
    assert_eq!((command.ttl.as_deref(), command.wait.as_deref()), (Some("soon"), Some("answered")));
    assert_eq!(
        (command.topic.as_deref(), command.content_type.as_deref()),
        (Some("valves/#"), Some("text/plain"))
    );
    assert_eq!((&command.payload[..], command.reply.as_deref()), (&b"\xff\x00"[..], Some("inbox.1")));

    client.publish(command_to(&gateway, "t", "d"), Bytes::new()).await.expect("sent");
    let bare = next(&mut gateway.commands).await;
    assert!(bare.id.is_none() && bare.name.is_none() && bare.ttl.is_none() && bare.wait.is_none());
    assert!(bare.topic.is_none() && bare.content_type.is_none() && bare.reply.is_none());
    assert_eq!(gateway.requests.stats(), RequestStats { commands: 2, calls: 0, bad_subjects: 0 });
}

#[tokio::test]
async fn a_subject_that_names_no_device_is_rejected() {
    let server = NatsServer::start().await;
    let gateway = serve(&server).await;
    let client = server.client().await;
    let subjects = command_wildcard(&gateway.instance);
    let prefix = subjects.strip_suffix("*.*").expect("two tokens");
    for tokens in ["t.%zz", "t.%41", "%.d", "t.a$b"] {
        let answer = ask(&client, format!("{prefix}{tokens}")).await;
        assert_eq!(&answer[..], br#"{"outcome":"rejected","status":"bad-subject"}"#, "{tokens}");
    }
    let calls = admin_wildcard(&gateway.instance);
    let prefix = calls.strip_suffix('>').expect("any tokens");
    for tokens in ["reboot", "kick.d", "sessions.x"] {
        ask(&client, format!("{prefix}{tokens}")).await;
    }
    assert_eq!(gateway.requests.stats(), RequestStats { commands: 0, calls: 0, bad_subjects: 7 });
}

#[tokio::test]
async fn an_operators_call_is_answered() {
    let server = NatsServer::start().await;
    let mut gateway = serve(&server).await;
    let client = server.client().await;
    let kick =
        AdminCall::Kick { tenant: "t".parse().expect("a tenant"), device: "d.1".parse().expect("a device") };
    let asking = ask(&client, admin_subject(&gateway.instance, &kick));
    let answering = async {
        let request = next(&mut gateway.calls).await;
        assert_eq!(request.call, kick);
        request.answer.expect("somebody waits").send(Bytes::from_static(b"{}")).await;
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(&answer[..], b"{}");
    client.publish(admin_subject(&gateway.instance, &AdminCall::Sessions), Bytes::new()).await.expect("sent");
    let request = next(&mut gateway.calls).await;
    assert!(request.call == AdminCall::Sessions && request.answer.is_none());
}

#[tokio::test]
async fn requests_arrive_again_after_a_reconnect() {
    let mut server = NatsServer::start().await;
    let mut gateway = serve(&server).await;
    let mut commands = std::mem::replace(&mut gateway.commands, mpsc::channel(1).1);
    server.kill();
    server.restart().await;
    let client = server.client().await;
    let sending = async {
        loop {
            client.publish(command_to(&gateway, "t", "d"), Bytes::new()).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = sending => {}
        _ = next(&mut commands) => {}
    }
}

#[tokio::test]
async fn after_the_drain_nobody_listens() {
    let server = NatsServer::start().await;
    let gateway = serve(&server).await;
    assert!(gateway.scope.drain(PATIENCE).await.is_clean());
    let client = server.client().await;
    let subject = command_to(&gateway, "t", "d");
    eventually(PATIENCE, "nobody", async || client.request(subject.clone(), Bytes::new()).await.err()).await;
}
