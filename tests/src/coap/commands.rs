//! Commands to devices that have no connection: to who observes, to who waits, to who speaks again.

use landfall_testkit::coap::{Block, Message, Timing, code, kind, method, option};
use landfall_testkit::{CoapClient, Faults, PATIENCE, UdpProxy, World, within};
use serde_json::{Value, json};

use super::{A_WHILE, body, client};

const ACKNOWLEDGED: (&str, &str) = ("Command-Wait", "acknowledged");
const ANSWERED: (&str, &str) = ("Command-Wait", "answered");

/// The path and the name that a command came with.
fn place(command: &Message) -> (String, String) {
    (command.joined(option::LOCATION_PATH, "/"), command.joined(option::LOCATION_QUERY, "&"))
}

fn outcome(reply: &Value) -> &str {
    reply["outcome"].as_str().unwrap()
}

#[tokio::test]
async fn an_observer_gets_each_command_and_answers_it() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let (observation, first) = device.observe("command", &["ep=valve"]).await;
    assert_eq!((first.code, first.payload.len()), (code(2, 5), 0));
    let headers =
        [ANSWERED, ("Command-Id", "c 1"), ("Command-Name", "turn"), ("Content-Type", "application/json")];
    let request = world.command("valve", r#"{"to":"open"}"#, &headers);
    let answer = async {
        let command = device.notification(&observation).await;
        assert_eq!((command.kind, command.code), (kind::CON, code(2, 5)));
        assert_eq!(place(&command), ("command/res/c 1".into(), "name=turn".into()));
        assert_eq!(
            (command.text().as_str(), command.uint(option::CONTENT_FORMAT)),
            (r#"{"to":"open"}"#, Some(50))
        );
        let queries = ["ep=valve", "status=all well"];
        let taken = device.post("command/res/c 1", &queries, r#"{"is":"open"}"#).await;
        assert_eq!(taken.code, code(2, 4));
        command.uint(option::OBSERVE).unwrap()
    };
    let (reply, before) = tokio::join!(request, answer);
    assert_eq!((outcome(&reply), reply["status"].as_str()), ("answered", Some("all well")));
    assert_eq!(reply["response"], json!({"is": "open"}));
    let event = world.recorder.expect("downstream", "valve").await;
    assert_eq!((event.text("commandId"), event.text("transport")), ("c 1", "coap"));
    // Each further one in order, with a number that grows, and acknowledged by its own acknowledgement.
    let mut last = before;
    for n in 0..5 {
        let payload = n.to_string();
        let request = world.command("valve", &payload, &[ACKNOWLEDGED]);
        let (reply, command) = tokio::join!(request, device.notification(&observation));
        assert_eq!((outcome(&reply), command.text()), ("acknowledged", payload));
        let number = command.uint(option::OBSERVE).unwrap();
        assert!(number > last, "{number} after {last}");
        last = number;
    }
    // Nobody waits for these, and nothing is made of them.
    for id in ["none", "c 1"] {
        let path = format!("command/res/{id}");
        assert_eq!(device.post(&path, &["ep=valve"], "x").await.code, code(4, 4), "{id}");
    }
    assert!(world.recorder.of("upstream", "valve").is_empty());
    assert_eq!(device.cancel(&observation).await.code, code(2, 5));
    let reply = world.command("valve", "x", &[("Command-Ttl", "300")]).await;
    assert_eq!(outcome(&reply), "expired", "nobody observes");
    world.close().await;
}

#[tokio::test]
async fn a_request_with_ttd_brings_the_command_back() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    // A command that is there already, with the very answer.
    assert_eq!(device.post("t", &["ep=probe"], "0").await.code, code(2, 4));
    let waiting = world.command("probe", "early", &[("Command-Id", "c1")]);
    let speak = async {
        // The command reaches the gateway while nobody can take it, and then somebody can.
        let answer = device.post("t", &["ep=probe", "ttd=10"], "1").await;
        assert_eq!((answer.code, answer.text().as_str()), (code(2, 4), "early"));
        assert_eq!(place(&answer), ("command/res/c1".into(), "name=command".into()));
    };
    let (reply, ()) = tokio::join!(waiting, speak);
    assert_eq!(outcome(&reply), "delivered");
    // None is there, and none comes: the answer says so when the time is over.
    let began = std::time::Instant::now();
    let answer = device.get("command", &["ep=probe", "ttd=1"]).await;
    assert_eq!((answer.code, answer.payload.len()), (code(2, 5), 0));
    assert!(began.elapsed().as_millis() >= 990, "{:?}", began.elapsed());
    // A poll without a window is told at once what there is.
    assert_eq!(device.get("command", &["ep=probe"]).await.payload.len(), 0);
    // It answers in the next request, and a second window is open at the same time.
    let request = world.command("probe", "late", &[ANSWERED, ("Command-Id", "c2")]);
    let answer = async {
        let command = device.get("command", &["ep=probe", "ttd=10"]).await;
        assert_eq!((place(&command).0.as_str(), command.text().as_str()), ("command/res/c2", "late"));
        assert_eq!(device.post("command/res/c2", &["ep=probe", "ttd=1"], "done").await.code, code(2, 4));
    };
    let (reply, ()) = tokio::join!(request, answer);
    assert_eq!((outcome(&reply), &reply["response"]), ("answered", &json!("done")));
    assert!(world.recorder.of("dormant", "probe").is_empty(), "a window is no sleep");
    world.close().await;
}

#[tokio::test]
async fn a_command_for_a_silent_device_waits_for_its_next_word() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    assert_eq!(device.post("t", &["ep=far", "lt=1"], "0").await.code, code(2, 4));
    world.recorder.expect("disconnected", "far").await;
    let headers = [ANSWERED, ("Command-Id", "c1"), ("Command-Ttl", "60000")];
    let request = world.command("far", "at last", &headers);
    let speak = async {
        let command = device.get("command", &["ep=far", "ttd=10"]).await;
        assert_eq!((place(&command).0.as_str(), command.text().as_str()), ("command/res/c1", "at last"));
        device.post("command/res/c1", &["ep=far"], "here").await
    };
    let (reply, _) = tokio::join!(request, speak);
    assert_eq!((outcome(&reply), &reply["response"]), ("answered", &json!("here")));
    // One that nobody fetches expires, and one for a device that never was is told so.
    assert_eq!(outcome(&world.command("far", "x", &[("Command-Ttl", "200")]).await), "expired");
    assert_eq!(outcome(&world.command("nobody", "x", &[]).await), "not-connected");
    world.close().await;
}

#[tokio::test]
async fn a_command_larger_than_a_block_is_fetched_in_blocks() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let text: String = body(5_000).iter().map(|byte| char::from(b' ' + byte % 90)).collect();
    let poll = Message::request(method::GET).path("command").queries(&["ep=big", "ttd=10"]);
    assert_eq!(device.post("t", &["ep=big"], "0").await.code, code(2, 4));
    let (reply, answer) = tokio::join!(world.command("big", &text, &[]), device.download(&poll));
    assert_eq!(outcome(&reply), "delivered");
    assert_eq!(answer.code, code(2, 5));
    assert!(answer.text() == text, "{} bytes", answer.payload.len());
    // The same as a notification: its first block comes by itself, the rest is asked for (RFC 7959, section 2.6).
    let (observation, _) = device.observe("command", &["ep=big"]).await;
    let request = world.command("big", &text, &[ACKNOWLEDGED]);
    let fetch = async {
        let mut part = device.notification(&observation).await;
        let etag = part.value(option::ETAG).unwrap().to_vec();
        let mut whole = part.payload.clone();
        while let Some(block) = part.block(option::BLOCK2).filter(|block| block.more) {
            let next = Block { number: block.number + 1, more: false, exponent: block.exponent };
            let get = Message::request(method::GET).path("command").query("ep=big");
            part = device.request(get.number(option::BLOCK2, next.value())).await;
            assert_eq!((part.code, part.value(option::ETAG)), (code(2, 5), Some(etag.as_slice())));
            whole.extend(&part.payload);
        }
        whole
    };
    let (reply, whole) = tokio::join!(request, fetch);
    assert_eq!(outcome(&reply), "acknowledged");
    assert!(whole == text.as_bytes(), "{} bytes", whole.len());
    world.close().await;
}

#[tokio::test]
async fn a_device_that_was_silent_observes_as_before() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let (observation, _) = device.observe("command", &["ep=quiet", "lt=1"]).await;
    for n in 1..=2 {
        world.recorder.expect_count("disconnected", "quiet", n).await;
        // It says nothing of commands: it was not told that it observes no more.
        assert_eq!(device.post("t", &["ep=quiet", "lt=1"], "0").await.code, code(2, 4));
        let text = n.to_string();
        let request = world.command("quiet", &text, &[ACKNOWLEDGED]);
        let (reply, command) = tokio::join!(request, device.notification(&observation));
        assert_eq!((outcome(&reply), command.text()), ("acknowledged", text));
    }
    world.close().await;
}

#[tokio::test]
async fn a_command_whose_first_block_alone_is_fetched_expires() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let (observation, _) = device.observe("command", &["ep=small"]).await;
    let text = "x".repeat(3_000);
    let headers = [ACKNOWLEDGED, ("Command-Ttl", "1000")];
    let (reply, first) =
        tokio::join!(world.command("small", &text, &headers), device.notification(&observation));
    assert_eq!((outcome(&reply), first.payload.len()), ("expired", 1_024), "{reply}");
    world.close().await;
}

#[tokio::test]
async fn a_reset_refuses_the_command_and_ends_the_observation() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let (observation, _) = device.observe("command", &["ep=moody"]).await;
    device.forget(&observation);
    let (reply, stray) = tokio::join!(world.command("moody", "x", &[ACKNOWLEDGED]), device.stray());
    assert_eq!((outcome(&reply), stray.text().as_str()), ("failed", "x"));
    // The session goes on, and another observation begins.
    let (observation, _) = device.observe("command", &["ep=moody"]).await;
    let (reply, command) =
        tokio::join!(world.command("moody", "y", &[ACKNOWLEDGED]), device.notification(&observation));
    assert_eq!((outcome(&reply), command.text().as_str()), ("acknowledged", "y"));
    assert_eq!(world.recorder.of("connected", "moody").len(), 1);
    world.close().await;
}

#[tokio::test]
async fn a_notification_that_is_lost_is_sent_again_until_it_is_acknowledged() {
    let world = World::start().await;
    let patient = Timing { patience: PATIENCE, ..Timing::default() };
    let mut device = client(&world, 1).await.timing(patient);
    let (observation, _) = device.observe("command", &["ep=deaf"]).await;
    device.acknowledge(false);
    let request = world.command("deaf", "x", &[ACKNOWLEDGED]);
    let listen = async {
        let first = device.notification(&observation).await;
        device.acknowledge(true);
        // The same message again, after ACK_TIMEOUT and its jitter.
        let again = within(PATIENCE, "a retransmission", async {
            loop {
                let message = device.receive().await;
                if message.id == first.id {
                    return message;
                }
            }
        })
        .await;
        assert_eq!((again.kind, again.token, again.payload), (kind::CON, first.token, first.payload));
        device.send(&Message::empty(kind::ACK, first.id)).await;
    };
    let (reply, ()) = tokio::join!(request, listen);
    assert_eq!((outcome(&reply), reply["attempts"].as_u64()), ("acknowledged", Some(1)));
    world.close().await;
}

#[tokio::test]
async fn two_windows_of_one_device_get_one_command_each() {
    let world = World::start().await;
    let (mut one, mut other) = (client(&world, 1).await, client(&world, 2).await);
    assert_eq!(one.post("t", &["ep=twin"], "0").await.code, code(2, 4));
    let poll = async |client: &mut CoapClient| client.get("command", &["ep=twin", "ttd=10"]).await.text();
    let commands = async { tokio::join!(world.command("twin", "a", &[]), world.command("twin", "b", &[])) };
    let (first, second, (a, b)) = tokio::join!(poll(&mut one), poll(&mut other), commands);
    let mut got = [first, second];
    got.sort();
    assert_eq!((got, outcome(&a), outcome(&b)), (["a".to_owned(), "b".to_owned()], "delivered", "delivered"));
    world.close().await;
}

#[tokio::test]
async fn an_observer_that_sleeps_is_told_when_it_wakes() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let (observation, _) = device.observe("command", &["ep=mole", "lt=60"]).await;
    assert_eq!(device.post("t", &["ep=mole", "sleep=60"], "1").await.code, code(2, 4));
    world.recorder.expect("dormant", "mole").await;
    let headers = [ACKNOWLEDGED, ("Command-Ttl", "60000")];
    let request = world.command("mole", "later", &headers);
    let wake = async {
        // What is sent to it would come before the answer to its own message.
        tokio::time::sleep(A_WHILE).await;
        assert!(device.held().is_empty() && device.counts().repeated == 0);
        assert_eq!(device.post("t", &["ep=mole"], "2").await.code, code(2, 4));
        let command = device.notification(&observation).await;
        assert_eq!(command.text(), "later");
    };
    let (reply, ()) = tokio::join!(request, wake);
    assert_eq!(outcome(&reply), "acknowledged");
    assert!(reply["latencyMs"].as_u64() >= Some(600), "not before it woke: {reply}");
    world.recorder.expect("awake", "mole").await;
    world.close().await;
}

#[tokio::test]
async fn a_command_that_went_to_where_an_observer_is_no_more_goes_out_again() {
    let world = World::start().await;
    let proxy = UdpProxy::start(world.gateway.coap(), 1, Faults::NONE).await;
    let mut device = CoapClient::new(proxy.address(), 1).await;
    device.observe("command", &["ep=rover"]).await;
    for (n, headers) in
        [(1, [ACKNOWLEDGED, ("Command-Ttl", "60000")]), (2, [ANSWERED, ("Command-Ttl", "60000")])]
    {
        // The way to the observer is gone, and the gateway learns of another one.
        proxy.rebind();
        assert_eq!(device.post("t", &["ep=rover"], "x").await.code, code(2, 4));
        world.recorder.expect_count("moved", "rover", n).await;
        let request = world.command("rover", "where are you", &headers);
        let found = async {
            // The command reaches the gateway before the device does.
            tokio::time::sleep(A_WHILE).await;
            let came = if n == 1 {
                let (observation, _) = device.observe("command", &["ep=rover"]).await;
                device.notification(&observation).await
            } else {
                device.get("command", &["ep=rover", "ttd=10"]).await
            };
            assert_eq!(came.text(), "where are you");
            if n == 2 {
                let answer = device.post(&place(&came).0, &["ep=rover"], "here").await;
                assert_eq!(answer.code, code(2, 4));
            }
        };
        let (reply, ()) = tokio::join!(request, found);
        assert_eq!(outcome(&reply), headers[0].1, "{reply}");
        assert_eq!(reply["attempts"], 2, "{reply}");
    }
    assert_eq!(world.recorder.of("connected", "rover").len(), 1);
    world.close().await;
}

#[tokio::test]
async fn an_observer_on_one_port_and_a_device_that_speaks_through_others() {
    let world = World::with(|settings| settings.set("coap.sockets", 4)).await;
    let mut observer = client(&world, 1).await;
    let (observation, _) = observer.observe("command", &["ep=split"]).await;
    // The system spreads ports over sockets: whichever hears the device last, its commands go to the observer.
    for n in 0..12_u64 {
        let mut mouth = client(&world, 10 + n).await;
        let window = if n % 3 == 0 { "ttd=1" } else { "x=1" };
        assert_eq!(mouth.post("t", &["ep=split", window], "x").await.code, code(2, 4));
        let text = n.to_string();
        let request = world.command("split", &text, &[ACKNOWLEDGED]);
        let (reply, command) = tokio::join!(request, observer.notification(&observation));
        assert_eq!((outcome(&reply), command.text()), ("acknowledged", text));
    }
    // Observers on several ports: the last one counts, and no other.
    let mut last = None;
    for n in 0..8 {
        let mut device = client(&world, 30 + n).await;
        let (observation, _) = device.observe("command", &["ep=split"]).await;
        last = Some((device, observation));
    }
    let (mut device, observation) = last.unwrap();
    for n in 0..8 {
        assert_eq!(client(&world, 50 + n).await.post("t", &["ep=split"], "x").await.code, code(2, 4));
        let request = world.command("split", "y", &[ACKNOWLEDGED]);
        let (reply, command) = tokio::join!(request, device.notification(&observation));
        assert_eq!((outcome(&reply), command.text().as_str()), ("acknowledged", "y"));
    }
    let kept = world.gateway.metrics("landfall_coap_observations").await;
    assert!(kept.iter().all(|(_, count)| *count <= 1.0), "{kept:?}");
    world.close().await;
}
