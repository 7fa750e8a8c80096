//! Topics: one rule for every protocol, and those that begin with `$` are the device's own where they are named.

use landfall_testkit::coap::{CoapClient, Message, code, method, option};
use landfall_testkit::interop::{mosquitto_bridge, mosquitto_pub_local};
use landfall_testkit::packet::{Connect, Publish, Will, kind};
use landfall_testkit::process::Signal;
use landfall_testkit::{PATIENCE, RawClient, Seen, Version, World};
use serde_json::json;

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// Topics of clouds whose firmware is there, and what has to be named for them.
const CLOUDS: [(&str, &str); 3] = [
    ("$aws/things/pump/shadow/update", "$aws/#"),
    ("$iothub/twin/GET/?$rid=1", "$iothub/#"),
    ("$SYS/broker/connection/pump/state", "$SYS/broker/connection/#"),
];

async fn open(topics: &[&str]) -> World {
    let topics = topics.to_vec();
    World::with(|settings| settings.set("auth.open_topics", topics).set("events.refusal_interval", "100ms"))
        .await
}

/// The refusal is told, and of whom.
async fn assert_refused(world: &World, device: &str) {
    let is_it = |event: &Seen| {
        event.kind() == "refused"
            && event.text("cause") == "not-authorized"
            && event.text("endpointId") == device
    };
    world.recorder.find(PATIENCE, device, is_it).await;
}

#[tokio::test]
async fn a_topic_with_a_dollar_is_refused_where_nobody_named_it() {
    let world = World::with(|settings| settings.set("events.refusal_interval", "100ms")).await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "five")).await;
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    for (id, (topic, _)) in (1..).zip(CLOUDS) {
        assert_eq!(client.publish_acked(topic, "1", id).await, 0x87, "{topic}");
        let name = format!("old-{id}");
        let mut old = RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, &name)).await;
        old.send(&Publish::new(Version::V4, topic, "1", 1, 1).encode()).await;
        assert!(old.until_closed().await.is_empty(), "{topic}: no acknowledgement that is not true");
        assert_eq!(world.recorder.expect("disconnected", &name).await.text("reason"), "not-authorized");
        assert_refused(&world, &name).await;
        let name = format!("will-{id}");
        let will = Will { topic: topic.to_owned(), ..Will::default() };
        for version in BOTH {
            let connect = Connect::new(version, &name).will(will.clone());
            let (mut client, connack) = RawClient::connect(world.mqtt(), &connect).await;
            assert_eq!(connack.connack_code(), if version == Version::V5 { 0x87 } else { 5 }, "{topic}");
            client.until_closed().await;
        }
        assert_refused(&world, &name).await;
        let answer = device.post(topic, &["ep=coap"], "1").await;
        assert_eq!(answer.code, code(4, 3), "{topic}");
    }
    assert_refused(&world, "five").await;
    assert_refused(&world, "coap").await;
    assert!(world.recorder.all().iter().all(|event| event.kind() != "upstream"));
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_topic_with_a_dollar_is_as_any_other_where_it_is_named() {
    let named: Vec<_> = [("", "#")].into_iter().chain(CLOUDS).map(|(_, filter)| filter).collect();
    let world = open(&named).await;
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    let topics: Vec<_> = CLOUDS.iter().map(|(topic, _)| *topic).chain(["plain"]).collect();
    let said = async |name: &str, count| {
        let events = world.recorder.expect_count("upstream", name, count).await;
        events.iter().map(|event| event.text("topic").to_owned()).collect::<Vec<_>>()
    };
    for version in BOTH {
        let name = format!("v{}", version.level());
        let will = Will { topic: topics[2].to_owned(), ..Will::default() };
        let connect = Connect::new(version, &name).will(will);
        let mut client = RawClient::accepted(world.mqtt(), &connect).await;
        for (id, topic) in (1..).zip(&topics) {
            assert_eq!(client.publish_acked(topic, "1", id).await, 0, "{topic}");
        }
        assert_eq!(client.subscribe("$aws/things/pump/#", 1).await, 1);
        drop(client);
        assert_eq!(said(&name, 5).await, [&topics[..], &topics[2..3]].concat(), "the will is the last");
    }
    for topic in &topics {
        assert_eq!(device.post(topic, &["ep=coap"], "1").await.code, code(2, 4), "{topic}");
    }
    assert_eq!(said("coap", 4).await, topics);
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "v5")).await;
    assert_eq!(client.publish_acked("$SYS/broker/uptime", "1", 1).await, 0x87, "beside what is named");
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn an_entry_names_the_topics_with_a_dollar_of_its_device() {
    let entry =
        "[[device]]\nid = \"pump\"\npassword = \"plain:p\"\npublish = [\"#\", \"$aws/things/%d/#\"]\n";
    let world = World::with(|settings| settings.devices(entry)).await;
    let connect = Connect::new(Version::V5, "c").login("pump", "p");
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.publish_acked("$aws/things/pump/shadow/update", "1", 1).await, 0);
    assert_eq!(client.publish_acked("$aws/things/other/shadow/update", "2", 2).await, 0x87);
    assert_eq!(client.publish_acked("$SYS/broker/uptime", "3", 3).await, 0x87);
    assert_eq!(client.publish_acked("plain", "4", 4).await, 0);
    let events = world.recorder.expect_count("upstream", "pump", 2).await;
    assert_eq!(events[0].text("topic"), "$aws/things/pump/shadow/update");
    drop(client);
    world.close().await;
}

/// Its notification and its will go to a topic of a broker's own, and it says in its protocol level that it is a bridge.
#[tokio::test]
async fn a_mosquitto_with_its_defaults_is_a_bridge_to_the_gateway() {
    const STATE: &str = "$SYS/broker/connection/site-1/state";
    const OUT: &str = "remote_clientid site-1\ntopic # out 1\n";
    let world = open(&["#", "$SYS/broker/connection/#"]).await;
    let folder = tempfile::tempdir().unwrap();
    let Some(bridge) = mosquitto_bridge(folder.path(), world.mqtt(), OUT) else { return };
    let connected = world.recorder.expect("connected", "site-1").await;
    assert_eq!((connected.text("protocol"), connected.text("remoteId")), ("MQTT/3.1.1", "site-1"));
    let state = world.recorder.expect_that("upstream", "site-1", "up", |event| event.text("topic") == STATE);
    let state = state.await;
    assert_eq!(
        (&state.json["payload"], state.number("qos"), &state.json["retain"]),
        (&json!(1), 1, &json!(true))
    );
    for (n, retain) in [(0, false), (1, true), (2, false)] {
        let (topic, payload) = (format!("site/{n}"), format!(r#"{{"n": {n}}}"#));
        let mut arguments = vec!["-i", "sensor", "-q", "1", "-t", &topic, "-m", &payload];
        arguments.extend(retain.then_some("-r"));
        let Some(sensor) = mosquitto_pub_local(folder.path(), &arguments) else { return };
        assert!(sensor.exited(PATIENCE).await.success(), "{}", sensor.log());
        let sent =
            world.recorder.expect_that("upstream", "site-1", &topic, |event| event.text("topic") == topic);
        let sent = sent.await;
        assert_eq!((&sent.json["payload"], sent.number("qos")), (&json!({"n": n}), 1));
    }
    bridge.signal(Signal::KILL);
    let will = |event: &Seen| event.json["will"] == true;
    let will = world.recorder.expect_that("upstream", "site-1", "down", will).await;
    assert_eq!((will.text("topic"), &will.json["payload"]), (STATE, &json!(0)));
    let end = world.recorder.expect("disconnected", "site-1").await;
    assert_eq!(end.text("reason"), "connection-lost");
    assert!(world.recorder.all().iter().all(|event| event.kind() != "refused"), "{}", world.recorder.story());
    world.close().await;
}

#[tokio::test]
async fn a_bridge_whose_topic_is_not_named_is_refused_by_name() {
    let world = open(&["#"]).await;
    let folder = tempfile::tempdir().unwrap();
    let more = "remote_clientid site-2\ntopic # out 1\n";
    let Some(_bridge) = mosquitto_bridge(folder.path(), world.mqtt(), more) else { return };
    assert_refused(&world, "site-2").await;
    assert!(world.recorder.of("connected", "site-2").is_empty());
    // One that tells nobody of itself has nothing to be named.
    let folder = tempfile::tempdir().unwrap();
    let more = "remote_clientid site-3\ntopic # out 1\nnotifications_local_only true\n";
    let Some(_quiet) = mosquitto_bridge(folder.path(), world.mqtt(), more) else { return };
    world.recorder.expect("connected", "site-3").await;
    world.close().await;
}

#[tokio::test]
async fn a_bridge_is_a_device_of_the_file() {
    let entry = "[[device]]\nid = \"site\"\npassword = \"plain:p\"\n\
                 publish = [\"#\", \"$SYS/broker/connection/#\"]\n";
    let world = World::with(|settings| settings.devices(entry)).await;
    let folder = tempfile::tempdir().unwrap();
    let more = "remote_username site\nremote_password p\ntopic # out 1\n";
    let Some(_bridge) = mosquitto_bridge(folder.path(), world.mqtt(), more) else { return };
    let state = world.recorder.expect("upstream", "site").await;
    assert!(state.text("topic").starts_with("$SYS/broker/connection/"), "{}", state.json);
    world.close().await;
}

/// What is a topic over MQTT is one over CoAP, and the other way round.
#[tokio::test]
async fn one_rule_says_over_every_protocol_what_a_topic_is() {
    let world = World::start().await;
    let long = "x".repeat(204);
    let deep = |levels| vec!["l"; levels];
    let good = [vec!["a"], vec!["a", "", "b c", ""], vec!["ü", "%2F"], deep(128), vec![&long; 5]];
    let longer = long.clone() + "x";
    let [mut too_long, too_deep] = [vec![long.as_str(); 4], deep(129)];
    too_long.push(&longer);
    let bad = [
        (vec!["a\0"], 0x81),
        (vec!["a", "\r\n"], 0x90),
        (vec!["\u{1b}[2J"], 0x90),
        (vec!["\u{85}"], 0x90),
        (vec!["a", "+"], 0x90),
        (vec!["a#b"], 0x90),
        (too_long, 0x90),
        (too_deep, 0x90),
    ];
    let post = |levels: &[&str]| {
        let post = Message::request(method::POST).query("ep=coap").payload("1");
        levels.iter().fold(post, |post, level| post.option(option::URI_PATH, level))
    };
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    for (levels, reason) in bad {
        for version in BOTH {
            let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, "bad")).await;
            client.send(&Publish::new(version, levels.join("/"), "1", 1, 1).encode()).await;
            if version == Version::V5 {
                let told = client.expect(kind::DISCONNECT).await;
                assert_eq!(told.disconnect_code(), reason, "{levels:?}");
            }
            assert!(client.until_closed().await.is_empty(), "{levels:?}");
        }
        assert_eq!(device.request(post(&levels)).await.code, code(4, 0), "{levels:?}");
    }
    let slash = device.request(post(&["a", "b/c"])).await;
    assert_eq!(slash.code, code(4, 0), "one level that would be two");
    let mut clients = Vec::new();
    for version in BOTH {
        let name = format!("v{}", version.level());
        clients.push((RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await, name));
    }
    for (id, levels) in (1..).zip(&good) {
        for (client, _) in &mut clients {
            assert_eq!(client.publish_acked(&levels.join("/"), "1", id).await, 0, "{levels:?}");
        }
        assert_eq!(device.request(post(levels)).await.code, code(2, 4), "{levels:?}");
    }
    let topics: Vec<_> = good.iter().map(|levels| levels.join("/")).collect();
    for name in ["v4", "v5", "coap"] {
        let events = world.recorder.expect_count("upstream", name, good.len()).await;
        assert_eq!(events.iter().map(|event| event.text("topic")).collect::<Vec<_>>(), topics, "{name}");
    }
    drop(clients);
    world.close().await;
}
