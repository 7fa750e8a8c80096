//! Cloud to device: every outcome, every QoS, each exactly once and told to the requester as it is published.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use landfall_testkit::packet::{self, Connect, kind, property};
use landfall_testkit::raw::Delivered;
use landfall_testkit::{Device, RawClient, Version, World};
use serde_json::{Value, json};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// A connected device that is subscribed to its commands at this QoS.
async fn listener(world: &World, version: Version, name: &str, qos: u8) -> RawClient {
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, name)).await;
    assert_eq!(client.subscribe("command///req/#", qos).await, qos);
    client
}

async fn next_command(client: &mut RawClient) -> Delivered {
    let version = client.version();
    client.expect(kind::PUBLISH).await.delivered(version)
}

/// The one event about a command equals its reply.
async fn assert_published(world: &World, device: &str, reply: &Value) {
    let id = reply["commandId"].as_str().unwrap();
    let event =
        world.recorder.expect_that("downstream", device, id, |event| event.text("commandId") == id).await;
    assert_eq!(&event.json, reply, "the reply is the event");
    let all = world.recorder.of("downstream", device);
    assert_eq!(all.iter().filter(|event| event.text("commandId") == id).count(), 1, "one outcome");
}

#[tokio::test]
async fn delivered_at_each_qos() {
    let world = World::start().await;
    for version in BOTH {
        for qos in 0..=2 {
            let name = format!("d{}-{qos}", version.level());
            let mut client = listener(&world, version, &name, qos).await;
            let reply = world.command(&name, "go", &[]).await;
            assert_eq!(reply["outcome"], "delivered", "written is delivered; nothing was acknowledged yet");
            assert_eq!(reply["name"], "command", "the default name");
            let id = reply["commandId"].as_str().unwrap();
            let command = next_command(&mut client).await;
            assert_eq!(command.topic, format!("command///req/{id}/command"));
            assert_eq!((command.qos, command.payload.as_slice()), (qos, b"go".as_slice()));
            assert_published(&world, &name, &reply).await;
        }
    }
    world.close().await;
}

#[tokio::test]
async fn acknowledged_at_qos_1_and_2() {
    let world = World::start().await;
    for version in BOTH {
        for qos in [1, 2] {
            let name = format!("a{}-{qos}", version.level());
            let mut client = listener(&world, version, &name, qos).await;
            let request =
                world.command(&name, "go", &[("Command-Wait", "acknowledged"), ("Command-Ttl", "60000")]);
            let acknowledge = async {
                let command = next_command(&mut client).await;
                let id = command.id.unwrap();
                if qos == 1 {
                    client.send(&packet::acknowledgement(kind::PUBACK, id)).await;
                } else {
                    client.send(&packet::acknowledgement(kind::PUBREC, id)).await;
                    assert_eq!(client.expect(kind::PUBREL).await.id(), id);
                    client.send(&packet::acknowledgement(kind::PUBCOMP, id)).await;
                }
            };
            let (reply, ()) = tokio::join!(request, acknowledge);
            assert_eq!(reply["outcome"], "acknowledged");
            assert_published(&world, &name, &reply).await;
        }
    }
    world.close().await;
}

#[tokio::test]
async fn answered_in_both_forms() {
    let world = World::start().await;
    for version in BOTH {
        for (filter, request, response) in
            [("command///req/#", "command///req", "command///res"), ("c///q/#", "c///q", "c///s")]
        {
            let name = format!("{}-{}", response.len(), version.level());
            let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
            assert_eq!(client.subscribe(filter, 0).await, 0);
            let headers =
                [("Command-Wait", "answered"), ("Command-Name", "read"), ("Command-Id", name.as_str())];
            let asked = world.command(&name, "", &headers);
            let answer = async {
                assert_eq!(next_command(&mut client).await.topic, format!("{request}/{name}/read"));
                assert_eq!(client.publish_acked(&format!("{response}/{name}/418"), "not json", 4).await, 0);
            };
            let (reply, ()) = tokio::join!(asked, answer);
            assert_eq!(reply["outcome"], "answered");
            assert_eq!((&reply["status"], &reply["response"]), (&json!("418"), &json!("not json")));
            assert_eq!(reply["responseEncoding"], "utf8");
            assert_published(&world, &name, &reply).await;
            client.ping().await;
            assert!(world.recorder.of("upstream", &name).is_empty(), "an answer is no message of its own");
        }
    }
    world.close().await;
}

#[tokio::test]
async fn an_answer_to_nothing_is_a_plain_message() {
    let world = World::start().await;
    let mut client = listener(&world, Version::V5, "d", 0).await;
    assert_eq!(client.publish_acked("command///res/unknown/200", "late", 1).await, 0);
    let event = world.recorder.expect("upstream", "d").await;
    assert_eq!(event.text("topic"), "command///res/unknown/200");
    world.close().await;
}

#[tokio::test]
async fn expired_when_nothing_comes_in_time() {
    let world = World::start().await;
    let mut client = listener(&world, Version::V5, "mute", 1).await;
    for wait in ["acknowledged", "answered"] {
        let asked = Instant::now();
        let reply = world.command("mute", "x", &[("Command-Wait", wait), ("Command-Ttl", "400")]).await;
        assert_eq!(reply["outcome"], "expired");
        assert!(asked.elapsed() >= Duration::from_millis(400), "not before its time");
        assert!(reply["latencyMs"].as_u64().unwrap() >= 400);
        assert_published(&world, "mute", &reply).await;
        let command = next_command(&mut client).await;
        let left = command.property(0x02).expect("the message expires as the command does");
        assert_eq!(u32::from_be_bytes(left.try_into().unwrap()), 1, "whole seconds, rounded up");
    }
    world.close().await;
}

#[tokio::test]
async fn not_connected_when_nobody_is_there() {
    let world = World::start().await;
    let reply = world.command("nobody", "x", &[]).await;
    assert_eq!((&reply["outcome"], &reply["endpointId"]), (&json!("not-connected"), &json!("nobody")));
    assert!(reply.get("sessionId").is_none(), "there is no session");
    assert_published(&world, "nobody", &reply).await;
    // Nor when it was there.
    let device = Device::connect(Version::V4, "gone", world.mqtt()).await;
    device.disconnect().await;
    world.recorder.expect("disconnected", "gone").await;
    let reply = world.command("gone", "x", &[]).await;
    assert_eq!(reply["outcome"], "not-connected");
    world.close().await;
}

#[tokio::test]
async fn rejected_when_it_cannot_be() {
    let world = World::start().await;
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "picky")).await;
    let not_subscribed = world.command("picky", "x", &[]).await;
    assert_eq!(not_subscribed["outcome"], "rejected", "{not_subscribed}");
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    for headers in [
        [("Command-Wait", "forever")],
        [("Command-Ttl", "-1")],
        [("Command-Ttl", "soon")],
        [("Command-Name", "a/b")],
        [("Command-Name", "#")],
        [("Command-Id", "a+b")],
        [("Topic", "a/#")],
        [("Topic", "not/subscribed")],
    ] {
        let reply = world.command("picky", "x", &headers).await;
        assert_eq!(reply["outcome"], "rejected", "{headers:?}: {reply}");
        assert_published(&world, "picky", &reply).await;
    }
    client.ping().await;
    // A device may say no: MQTT 5 has a word for it.
    let request = world.command("picky", "x", &[("Command-Wait", "acknowledged")]);
    let refuse = async {
        let id = next_command(&mut client).await.id.unwrap().to_be_bytes();
        client.send(&packet::frame(kind::PUBACK << 4, &[id[0], id[1], 0x83, 0])).await;
    };
    let (reply, ()) = tokio::join!(request, refuse);
    assert_eq!(reply["outcome"], "rejected", "{reply}");
    world.close().await;
}

#[tokio::test]
async fn rejected_when_larger_than_the_device_takes() {
    let world = World::start().await;
    let connect = Connect::new(Version::V5, "tiny").property(&property::maximum_packet_size(300));
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.subscribe("command///req/#", 0).await, 0);
    let reply = world.command("tiny", &"x".repeat(400), &[]).await;
    assert_eq!(reply["outcome"], "rejected", "{reply}");
    client.ping().await;
    let reply = world.command("tiny", "x", &[("Command-Id", "1")]).await;
    assert_eq!(reply["outcome"], "delivered", "{reply}");
    world.close().await;
}

#[tokio::test]
async fn failed_when_its_session_dies() {
    let world = World::start().await;
    let mut client = listener(&world, Version::V5, "dying", 1).await;
    let request = world.command("dying", "x", &[("Command-Wait", "answered"), ("Command-Ttl", "60000")]);
    let die = async {
        next_command(&mut client).await;
        drop(client);
    };
    let (reply, ()) = tokio::join!(request, die);
    assert_eq!(reply["outcome"], "failed", "{reply}");
    assert_published(&world, "dying", &reply).await;
    world.close().await;
}

#[tokio::test]
async fn busy_when_too_many_wait() {
    let world = World::with(|settings| settings.set("commands.max_per_device", 3)).await;
    let connect = Connect::new(Version::V5, "d").property(&property::receive_maximum(1));
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "1500")];
    let requests = (0..12).map(|_| world.command("d", "x", &headers));
    let replies = futures_util::future::join_all(requests).await;
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for reply in &replies {
        *outcomes.entry(reply["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        assert_published(&world, "d", reply).await;
    }
    assert!(outcomes.get("busy").is_some_and(|count| *count >= 1), "{outcomes:?}");
    assert!(outcomes.get("expired").is_some_and(|count| *count >= 1), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    // It never had more in its hands than it said it takes.
    next_command(&mut client).await;
    client.ping().await;
    world.close().await;
}

#[tokio::test]
async fn a_topic_header_reaches_what_the_device_subscribed_to() {
    let world = World::start().await;
    for version in BOTH {
        let name = format!("topic-{}", version.level());
        let mut client = RawClient::accepted(world.mqtt(), &Connect::new(version, &name)).await;
        assert_eq!(client.subscribe("config/+/desired", 1).await, 1);
        let reply = world.command(&name, "v2", &[("Topic", "config/fan/desired")]).await;
        assert_eq!(reply["outcome"], "delivered");
        let message = next_command(&mut client).await;
        assert_eq!(
            (message.topic.as_str(), message.payload.as_slice()),
            ("config/fan/desired", b"v2".as_slice())
        );
        client.send(&packet::acknowledgement(kind::PUBACK, message.id.unwrap())).await;
        // Unsubscribed, it reaches nothing.
        client.send(&packet::unsubscribe(version, 9, &["config/+/desired"])).await;
        client.expect(kind::UNSUBACK).await;
        let reply = world.command(&name, "v3", &[("Topic", "config/fan/desired")]).await;
        assert_eq!(reply["outcome"], "rejected");
    }
    world.close().await;
}

#[tokio::test]
async fn commands_of_one_device_stay_in_order() {
    let world = World::start().await;
    let device = Device::connect(Version::V5, "d", world.mqtt()).await;
    assert!(device.subscribe("command///req/#", 1).await);
    let headers = [("Command-Wait", "acknowledged")];
    for n in 0..100 {
        let reply = world.command("d", &n.to_string(), &headers).await;
        assert_eq!(reply["outcome"], "acknowledged");
    }
    for n in 0..100 {
        assert_eq!(device.message(n).await.1, n.to_string().into_bytes());
    }
    device.disconnect().await;
    world.close().await;
}

#[tokio::test]
async fn a_window_of_one_lets_one_through_at_a_time() {
    let world = World::start().await;
    let connect = Connect::new(Version::V5, "d").property(&property::receive_maximum(1));
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.subscribe("command///req/#", 1).await, 1);
    let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "60000")];
    let requests = futures_util::future::join_all((0..5).map(|_| world.command("d", "x", &headers)));
    let take = async {
        for _ in 0..5 {
            let id = next_command(&mut client).await.id.unwrap();
            // Nothing else comes until this one is acknowledged: the PINGRESP is the next packet.
            client.ping().await;
            client.send(&packet::acknowledgement(kind::PUBACK, id)).await;
        }
    };
    let (replies, ()) = tokio::join!(requests, take);
    assert!(replies.iter().all(|reply| reply["outcome"] == "acknowledged"), "{replies:?}");
    world.close().await;
}

#[tokio::test]
async fn a_device_id_is_one_token_of_the_subject() {
    let world = World::start().await;
    for (device, token) in
        [("a.b", "a%2Eb"), ("a b>*", "a%20b%3E%2A"), ("größe", "gr%C3%B6%C3%9Fe"), ("100%", "100%25")]
    {
        let mut client = listener(&world, Version::V5, device, 0).await;
        let subject = format!("kaa.v1.service.landfall.command.default.{token}");
        let reply = world.command_on(subject, "x", &[]).await;
        assert_eq!((&reply["outcome"], &reply["endpointId"]), (&json!("delivered"), &json!(device)));
        next_command(&mut client).await;
    }
    // Another escape of the same bytes is no way in.
    for token in ["a%2eb", "%61%2Eb", "a%2Eb%"] {
        let subject = format!("kaa.v1.service.landfall.command.default.{token}");
        let request = async_nats::Request::new().payload("x".into()).timeout(Some(Duration::from_secs(2)));
        let reply = world.client.send_request(subject, request).await;
        let outcome = reply.ok().and_then(|reply| serde_json::from_slice::<Value>(&reply.payload).ok());
        assert!(outcome.is_none_or(|reply| reply["outcome"] != "delivered"), "{token}");
    }
    world.close().await;
}
