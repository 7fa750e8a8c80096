//! Commands as datagrams: at once to a device that was heard lately, with its next word to any other, also when silence has
//! ended its session meanwhile.

use std::time::{Duration, Instant};

use landfall_testkit::World;
use landfall_testkit::udp::UdpDevice;
use serde_json::{Value, json};

use super::{delivered, story, until_metric};

const WAITING: &str = "landfall_commands_under_way";

/// A present device of a gateway in open mode.
async fn device(world: &World, name: &str, words: &str) -> UdpDevice {
    let mut device = UdpDevice::new(world.gateway.udp(), name).await;
    delivered(&mut device, words, "").await;
    device
}

/// The one event about a command equals its reply.
async fn assert_published(world: &World, device: &str, reply: &Value) {
    let is_it = |event: &landfall_testkit::Seen| event.json["commandId"] == reply["commandId"];
    let event = world.recorder.expect_that("downstream", device, "with the reply's id", is_it).await;
    assert_eq!(&event.json, reply, "the reply is the event");
    let all = world.recorder.of("downstream", device);
    assert_eq!(all.iter().filter(|event| is_it(event)).count(), 1, "one outcome");
}

#[tokio::test]
async fn a_device_that_was_just_heard_gets_it_at_once() {
    let world = World::start().await;
    let mut d = device(&world, "d 1", "hb=60").await;
    let reply = world.command_on(subject("d%201"), "go", &[("Command-Name", "open all")]).await;
    assert_eq!((&reply["outcome"], &reply["attempts"]), (&json!("delivered"), &json!(1)), "{reply}");
    let (id, name, payload) = d.command().await;
    assert_eq!(
        (json!(id), name.as_str(), payload.as_slice()),
        (reply["commandId"].clone(), "open all", &b"go"[..])
    );
    assert_published(&world, "d 1", &reply).await;
    // Confirmed.
    let headers = [("Command-Wait", "acknowledged"), ("Command-Id", "a b%c")];
    let confirm = async {
        let (id, ..) = d.command().await;
        assert_eq!(id, "a b%c");
        d.got(&id).await;
    };
    let (reply, ()) = tokio::join!(world.command_on(subject("d%201"), "", &headers), confirm);
    assert_eq!(reply["outcome"], "acknowledged", "{reply}");
    assert_published(&world, "d 1", &reply).await;
    // Answered; the answer's ack leaves when the outcome is stored, and the answer is no message of its own.
    let answer = async {
        let (id, ..) = d.command().await;
        delivered(&mut d, &format!("res={id} status=not%20yet"), r#"{"in":5}"#).await;
        world.recorder.of("downstream", "d 1").len()
    };
    let (reply, _) =
        tokio::join!(world.command_on(subject("d%201"), "", &[("Command-Wait", "answered")]), answer);
    assert_eq!(reply["outcome"], "answered", "{reply}");
    assert_eq!((&reply["status"], &reply["response"]), (&json!("not yet"), &json!({"in": 5})));
    assert_published(&world, "d 1", &reply).await;
    assert!(world.recorder.of("upstream", "d 1").is_empty());
    assert!(d.waiting().is_empty(), "each was sent once");
    world.close().await;
}

/// The subject of a command for a device whose name is escaped already.
fn subject(device: &str) -> String {
    format!("kaa.v1.service.landfall.command.default.{device}")
}

#[tokio::test]
async fn an_outcome_that_does_not_come_expires_and_an_answer_to_nothing_is_a_message() {
    let world = World::start().await;
    let mut d = device(&world, "mute", "hb=60").await;
    for wait in ["acknowledged", "answered"] {
        let asked = Instant::now();
        let reply = world.command("mute", "x", &[("Command-Wait", wait), ("Command-Ttl", "400")]).await;
        assert_eq!(reply["outcome"], "expired", "{reply}");
        assert!(asked.elapsed() >= Duration::from_millis(400), "not before its time");
        assert_published(&world, "mute", &reply).await;
        // Too late: the outcome stands, and the answer is not lost.
        let (id, ..) = d.command().await;
        d.got(&id).await;
        delivered(&mut d, &format!("res={id} status=200"), "late").await;
        let late = world.recorder.expect_that("upstream", "mute", "late", |event| {
            event.text("topic") == format!("command/res/{id}")
        });
        assert_eq!(late.await.text("payload"), "late");
    }
    assert_eq!(world.recorder.of("downstream", "mute").len(), 2);
    world.close().await;
}

#[tokio::test]
async fn out_of_reach_commands_wait_for_the_next_word() {
    let world =
        World::with(|settings| settings.set("udp.reach", "0s").set("commands.max_per_device", 3)).await;
    let mut d = device(&world, "far", "hb=60").await;
    let ttl = [("Command-Ttl", "60000")];
    let word = async {
        until_metric(&world, WAITING, 3.0).await;
        // One more than may wait is told at once.
        let busy = world.command("far", "4", &ttl).await;
        assert_eq!(busy["outcome"], "busy", "{busy}");
        assert!(
            d.waiting().is_empty(),
            "nothing is sent to an address that may not be the device's any more"
        );
        delivered(&mut d, "", "").await;
        let mut payloads = Vec::new();
        for _ in 0..3 {
            payloads.extend(d.command().await.2);
        }
        payloads
    };
    let in_order = async {
        let later = async |n: u8| {
            until_metric(&world, WAITING, f64::from(n - 1)).await;
            world.command("far", &n.to_string(), &ttl).await
        };
        tokio::join!(later(1), later(2), later(3))
    };
    let (replies, payloads) = tokio::join!(in_order, word);
    assert_eq!(payloads, b"123");
    for reply in [replies.0, replies.1, replies.2] {
        assert_eq!(reply["outcome"], "delivered", "{reply}");
        assert_published(&world, "far", &reply).await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_sleeper_is_left_in_peace() {
    let world = World::start().await;
    let mut d = device(&world, "sleeper", "hb=60 sleep=3600").await;
    world.recorder.expect("dormant", "sleeper").await;
    let wake = async {
        until_metric(&world, WAITING, 1.0).await;
        assert!(d.waiting().is_empty());
        delivered(&mut d, "", "").await;
        d.command().await.2
    };
    let (reply, payload) = tokio::join!(world.command("sleeper", "later", &[("Command-Ttl", "60000")]), wake);
    assert_eq!(
        (reply["outcome"].as_str(), payload.as_slice()),
        (Some("delivered"), &b"later"[..]),
        "{reply}"
    );
    assert_published(&world, "sleeper", &reply).await;
    // What comes with the word that announces a sleep is sent before it.
    delivered(&mut d, "sleep=3600", "").await;
    let announce = async {
        until_metric(&world, WAITING, 1.0).await;
        delivered(&mut d, "sleep=3600", "").await;
        d.command().await.2
    };
    let (reply, payload) =
        tokio::join!(world.command("sleeper", "between", &[("Command-Ttl", "60000")]), announce);
    assert_eq!(
        (reply["outcome"].as_str(), payload.as_slice()),
        (Some("delivered"), &b"between"[..]),
        "{reply}"
    );
    world.recorder.expect_count("dormant", "sleeper", 3).await;
    assert_eq!(
        story(&world, "sleeper").await,
        ["connected", "dormant", "awake", "dormant", "awake", "dormant"],
    );
    world.close().await;
}

#[tokio::test]
async fn a_command_waits_over_the_end_of_a_session_by_silence() {
    let world = World::start().await;
    let mut d = device(&world, "lost", "hb=1").await;
    let ended = world.recorder.expect_end("lost", "udp").await;
    assert_eq!(ended.text("reason"), "idle-timeout");
    // One runs out while it waits, one does not.
    let short = async {
        let reply = world.command("lost", "short", &[("Command-Ttl", "300")]).await;
        assert_eq!(reply["outcome"], "expired", "{reply}");
        assert!(reply.get("sessionId").is_none(), "no session had it: {reply}");
        assert_published(&world, "lost", &reply).await;
    };
    let headers = [("Command-Ttl", "60000"), ("Command-Wait", "acknowledged")];
    let speak = async {
        short.await;
        until_metric(&world, "landfall_quiet_commands", 1.0).await;
        d.rebind().await;
        delivered(&mut d, "hb=60", "").await;
        let (id, _, payload) = d.command().await;
        assert_eq!(payload, b"long");
        d.got(&id).await;
    };
    let (reply, ()) = tokio::join!(world.command("lost", "long", &headers), speak);
    assert_eq!(reply["outcome"], "acknowledged", "{reply}");
    let connected = world.recorder.expect_count("connected", "lost", 2).await;
    assert_eq!(reply["sessionId"], connected[1].json["sessionId"], "it is the new session's");
    assert_published(&world, "lost", &reply).await;
    assert!(d.waiting().is_empty());
    // Who says goodbye is not waited for, and who was never there neither.
    delivered(&mut d, "bye", "").await;
    world.recorder.expect_ends("lost", "udp", 2).await;
    for name in ["lost", "never"] {
        let reply = world.command(name, "x", &[("Command-Ttl", "60000")]).await;
        assert_eq!(reply["outcome"], "not-connected", "{reply}");
    }
    world.close().await;
}

#[tokio::test]
async fn what_no_datagram_holds_and_what_a_device_may_not_get_is_rejected() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    let mut free = UdpDevice::new(world.gateway.udp(), "free").await.key("k");
    let mut deaf = UdpDevice::new(world.gateway.udp(), "deaf").await.key("k");
    delivered(&mut free, "", "").await;
    delivered(&mut deaf, "", "").await;
    let reply = world.command("free", &"x".repeat(65_507), &[]).await;
    assert_eq!((&reply["outcome"], &reply["status"]), (&json!("rejected"), &json!("too-large")), "{reply}");
    assert_published(&world, "free", &reply).await;
    let largest = "x".repeat(60_000);
    assert_eq!(world.command("free", &largest, &[]).await["outcome"], "delivered");
    assert_eq!(free.command().await.2, largest.into_bytes());
    let reply = world.command("deaf", "x", &[]).await;
    assert_eq!(
        (&reply["outcome"], &reply["status"]),
        (&json!("rejected"), &json!("not-authorized")),
        "{reply}"
    );
    delivered(&mut deaf, "", "").await;
    assert!(deaf.waiting().is_empty());
    world.close().await;
}

const DEVICES: &str = r##"
[[device]]
id = "free"
password = "plain:k"
[[device]]
id = "deaf"
password = "plain:k"
subscribe = []
"##;
