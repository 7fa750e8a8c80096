//! The commands of `landfall`: what a person at a terminal sees.

use landfall_testkit::packet::{self, Connect, kind};
use landfall_testkit::{Gateway, NatsServer, PATIENCE, RawClient, Version, World};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn watch_shows_one_line_per_event() {
    let world = World::with(|settings| settings.set("events.keep_alive", "1s")).await;
    let people = world.gateway.cli_process(&["watch"]);
    let machines = world.gateway.cli_process(&["watch", "--json"]);
    // Both are subscribed when they show what happens by itself.
    people.logged("watching", PATIENCE).await;
    machines.logged("keep-alive", PATIENCE).await;
    let mut odd = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "odd\u{202e}")).await;
    assert_eq!(odd.publish_acked("t", "\u{1b}[2J\u{7}", 1).await, 0);
    drop(odd);
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "seen")).await;
    assert_eq!(client.publish_acked("site/7", r#"{"t":21}"#, 1).await, 0);
    client.send(&packet::disconnect(Version::V5, 0, &[])).await;
    client.until_closed().await;
    let line = people.logged("client-closed", PATIENCE).await;
    assert!(line.contains("seen"), "{line}");
    let upstream = people.logged("site/7", PATIENCE).await;
    assert!(upstream.contains("upstream") && upstream.contains("21"), "{upstream}");
    let obeyed = |c: char| c == '\u{7}' || c == '\u{1b}' || c == '\u{202e}';
    assert!(!people.log().contains(obeyed), "nothing that a terminal obeys: {:?}", people.log());
    machines.logged("client-closed", PATIENCE).await;
    for line in machines.output().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["type"].is_string() || event["event"]["type"].is_string(), "{line}");
    }
    world.close().await;
}

#[tokio::test]
async fn sessions_and_send_speak_to_the_gateway() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "pump-17")).await;
    assert_eq!(client.subscribe("command///req/#", 0).await, 0);
    let sessions = world.gateway.cli(&["sessions"]).await;
    assert!(sessions.status.success(), "{}", text(&sessions.stderr));
    assert!(text(&sessions.stdout).contains("pump-17"), "{}", text(&sessions.stdout));
    for (device, listed) in [("pump-17", true), ("pump-18", false)] {
        let sessions = world.gateway.cli(&["sessions", "--device", device]).await;
        assert!(sessions.status.success(), "{}", text(&sessions.stderr));
        assert_eq!(text(&sessions.stdout).contains("pump-17"), listed, "{}", text(&sessions.stdout));
    }
    let sending = world.gateway.cli(&["send", "pump-17", "open", r#"{"valve":3}"#]);
    let taking = async {
        let command = client.expect(kind::PUBLISH).await.delivered(Version::V5);
        assert!(command.topic.ends_with("/open"), "{}", command.topic);
        assert_eq!(command.payload, br#"{"valve":3}"#);
    };
    let (sent, ()) = tokio::join!(sending, taking);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert!(text(&sent.stdout).contains("delivered"), "{}", text(&sent.stdout));
    let nobody = world.gateway.cli(&["send", "nobody", "open", "x"]).await;
    assert!(!nobody.status.success(), "the exit status tells a script");
    assert!((text(&nobody.stdout) + &text(&nobody.stderr)).contains("not-connected"));
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_client_command_without_a_gateway_says_so() {
    let nats = NatsServer::start().await;
    let builder = Gateway::builder().nats(&nats);
    let config = builder.write();
    let output = builder.output(&["sessions", "--config", config.to_str().unwrap()]).await;
    assert!(!output.status.success());
    assert!(!text(&output.stderr).trim().is_empty(), "one sentence says why");
    // And none that could be found: the embedded server of a gateway that does not run.
    let builder = Gateway::builder();
    let config = builder.write();
    let output = builder.output(&["sessions", "--config", config.to_str().unwrap()]).await;
    assert!(!output.status.success());
    assert!(!text(&output.stderr).trim().is_empty());
}

#[tokio::test]
async fn config_print_is_a_file_that_config_check_takes() {
    let builder = Gateway::builder();
    let config = builder.write();
    let config = config.to_str().unwrap();
    let printed = builder.output(&["config", "print", "--config", config]).await;
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let again = builder.folder().join("printed.toml");
    std::fs::write(&again, &printed.stdout).unwrap();
    let checked = builder.output(&["config", "check", "--config", again.to_str().unwrap()]).await;
    assert!(checked.status.success(), "{}\n{}", text(&checked.stderr), text(&printed.stdout));
    for section in ["[instance]", "[nats]", "[events]", "[mqtt]", "[auth]", "[presence]", "[admin]"] {
        assert!(text(&printed.stdout).contains(section), "{section}");
    }
}

#[tokio::test]
async fn a_wrong_setting_names_the_key_the_value_and_what_is_allowed() {
    for (key, value, must) in [
        ("mqtt.lisen", toml::Value::from("x"), ["mqtt.lisen", ""]),
        ("events.format", "xml".into(), ["events.format", "kaa-elce"]),
        ("events.format", "xml".into(), ["events.format", "xml"]),
        ("presence.idle_timeout", "soon".into(), ["presence.idle_timeout", "soon"]),
        ("mqtt.receive_maximum", 0.into(), ["mqtt.receive_maximum", "1"]),
        ("instance.name", "a.b".into(), ["instance.name", "a.b"]),
        ("auth.mode", "closed".into(), ["auth.mode", "devices"]),
    ] {
        let builder = Gateway::builder().set(key, value.clone());
        let config = builder.write();
        let output = builder.output(&["config", "check", "--config", config.to_str().unwrap()]).await;
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(!output.status.success(), "{key} = {value}");
        assert!(must.iter().all(|word| said.contains(word)), "{key} = {value}: {said}");
    }
}

#[tokio::test]
async fn every_key_is_also_a_variable() {
    let nats = NatsServer::start().await;
    let gateway = Gateway::builder()
        .set("nats.url", "nats://127.0.0.1:1")
        .env("LANDFALL_NATS__URL", &nats.url())
        .env("LANDFALL_INSTANCE__NAME", "by-variable")
        .env("LANDFALL_MQTT__RECEIVE_MAXIMUM", "7")
        .start()
        .await;
    assert_eq!(gateway.run_file().instance, "by-variable");
    let (_client, connack) = RawClient::connect(gateway.mqtt("tcp"), &Connect::new(Version::V5, "d")).await;
    assert_eq!(connack.connack_property(0x21), Some(vec![0, 7]));
    let (status, log) = Gateway::builder().nats(&nats).env("LANDFALL_MQTT__LISEN", "x").refuses().await;
    assert!(!status.success());
    assert!(log.contains("LANDFALL_MQTT__LISEN"), "{log}");
}

#[tokio::test]
async fn open_mode_stays_on_loopback() {
    let nats = NatsServer::start().await;
    let (status, log) = Gateway::builder().nats(&nats).listen(&["tcp://0.0.0.0:0"]).refuses().await;
    assert!(!status.success());
    assert!(log.contains("auth.mode") || log.contains("open"), "{log}");
    assert!(log.contains("0.0.0.0"), "{log}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let nats = NatsServer::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (status, log) = Gateway::builder().nats(&nats).listen(&[&format!("tcp://{address}")]).refuses().await;
    assert!(!status.success());
    assert!(log.contains(&address.to_string()), "{log}");
}
