//! Upstream over CoAP: what a request says is what the event says, and 2.04 means stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_testkit::coap::{Message, code, kind, method, option};
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{PATIENCE, World};
use serde_json::json;

use super::{DEVICES, Wire, body, client};

const JSON: u32 = 50;
const OCTETS: u32 = 42;

#[tokio::test]
async fn post_and_put_to_any_path_are_stored_when_they_are_answered() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let post = Message::request(method::POST).path("site/7/flow").query("ep=pump");
    let answer = device.request(post.number(option::CONTENT_FORMAT, JSON).payload(r#"{"l": 4.50}"#)).await;
    assert_eq!((answer.code, answer.kind, answer.payload.len()), (code(2, 4), kind::ACK, 0));
    let at_once = stored(&world.nats, MESSAGES).await;
    assert_eq!(at_once.len(), 1, "2.04 means stored");
    assert_eq!(device.put("mode", &["ep=pump"], "auto").await.code, code(2, 4));
    assert_eq!(stored(&world.nats, MESSAGES).await.len(), 2);
    let connected = world.recorder.expect("connected", "pump").await;
    assert_eq!(connected.subject, "kaa.v1.events.landfall.endpoint.connectivity.connected");
    assert_eq!((connected.text("transport"), connected.text("protocol")), ("coap", "CoAP"));
    assert_eq!((connected.text("remoteId"), connected.text("identifiedBy")), ("pump", "anonymous"));
    assert_eq!(connected.text("remoteAddress"), device.local_addr().to_string());
    assert_eq!((&connected.json["inferred"], connected.number("keepAliveMs")), (&json!(true), 300_000));
    let events = world.recorder.expect_count("upstream", "pump", 2).await;
    for (n, event) in (1..).zip(&events) {
        assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.message.upstream");
        assert_eq!((event.number("seq"), event.text("transport")), (n, "coap"));
        assert_eq!(event.json["sessionId"], connected.json["sessionId"]);
    }
    assert_eq!(events[0].text("topic"), "site/7/flow");
    assert_eq!(
        (events[0].text("contentType"), &events[0].json["payload"]),
        ("application/json", &json!({"l": 4.5}))
    );
    assert!(std::str::from_utf8(&events[0].body).unwrap().contains(r#"{"l": 4.50}"#), "as it came");
    assert_eq!((events[1].text("topic"), &events[1].json["payload"]), ("mode", &json!("auto")));
    world.close().await;
}

#[tokio::test]
async fn a_message_that_wants_no_acknowledgement_is_stored_all_the_same() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let non = || Message::request(method::POST).path("t").query("ep=pump").non();
    let answer = device.request(non().payload("1")).await;
    assert_eq!((answer.kind, answer.code), (kind::NON, code(2, 4)));
    // Nor an answer (RFC 7967): the next one is told, this one is not.
    let mut quiet = non().payload("2").number(option::NO_RESPONSE, 26);
    (quiet.id, quiet.token) = (device.id(), device.token());
    device.send(&quiet).await;
    assert_eq!(device.post("t", &["ep=pump"], "3").await.code, code(2, 4));
    let events = world.recorder.expect_count("upstream", "pump", 3).await;
    let payloads: Vec<u64> = events.iter().map(|event| event.number("payload")).collect();
    assert_eq!(payloads, [1, 2, 3]);
    assert!(device.held().is_empty() && device.strays().is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_confirmable_message_sent_again_is_one_event_and_the_same_answer() {
    let world = World::start().await;
    for (seed, is_known) in [(1, false), (2, true)] {
        let wire = Wire::to(world.gateway.coap()).await;
        let device = format!("pump-{seed}");
        let mut post =
            Message::request(method::POST).path("t").query(&format!("ep={device}")).payload("21.5");
        (post.id, post.token) = (0x7000, b"tok".to_vec());
        if is_known {
            let hello = Message { id: 0x6fff, ..post.clone() };
            wire.send(&hello.encode()).await;
            wire.receive().await;
        }
        // Three times before an answer can have come, and three times after.
        let bytes = post.encode();
        for _ in 0..3 {
            wire.send(&bytes).await;
        }
        let answer = wire.receive().await;
        let read = Message::decode(&answer).unwrap();
        assert_eq!(
            (read.kind, read.code, read.id, read.token),
            (kind::ACK, code(2, 4), 0x7000, post.token.clone())
        );
        // What the first three still draw comes before the answer to a ping.
        wire.send(&Message::empty(kind::CON, 0x7001).encode()).await;
        let pong = Message::empty(kind::RST, 0x7001).encode();
        let mut further = 0;
        loop {
            match wire.receive().await {
                other if other == pong => break,
                other => assert_eq!(other, answer),
            }
            further += 1;
        }
        assert!(further <= 2, "{further} answers to two duplicates");
        for _ in 0..3 {
            wire.send(&bytes).await;
            assert_eq!(wire.receive().await, answer, "the same bytes");
        }
        // Another message id is another message.
        wire.send(&Message { id: 0x7002, ..post }.encode()).await;
        assert_eq!(Message::decode(&wire.receive().await).unwrap().id, 0x7002);
        let expected = 2 + usize::from(is_known);
        let events = stored(&world.nats, MESSAGES).await;
        let count = events.iter().filter(|event| event.is_about(&device)).count();
        assert_eq!(count, expected, "each message id once");
    }
    world.close().await;
}

#[tokio::test]
async fn a_body_of_64_kib_in_blocks_is_one_event_with_the_same_bytes() {
    let world = World::start().await;
    let mut device = client(&world, 1).await;
    let body = body(65_536);
    for exponent in [6, 4] {
        let topic = format!("image/{exponent}");
        let post = Message::request(method::POST).path(&topic).query("ep=cam");
        let answer = device.upload(&post.number(option::CONTENT_FORMAT, OCTETS), &body, exponent).await;
        assert_eq!(answer.code, code(2, 4), "{answer:?}");
        assert!(answer.block(option::BLOCK1).is_some_and(|block| !block.more));
        let event =
            world.recorder.expect_that("upstream", "cam", &topic, |event| event.text("topic") == topic).await;
        assert_eq!(event.text("payloadEncoding"), "base64");
        assert!(STANDARD.decode(event.text("payload")).unwrap() == body, "byte for byte");
    }
    assert_eq!(stored(&world.nats, MESSAGES).await.len(), 2, "two bodies, two events");
    world.close().await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_told_how_large_it_may_be() {
    let world = World::with(|settings| settings.set("coap.max_body", "4KiB")).await;
    let mut device = client(&world, 1).await;
    let post = Message::request(method::POST).path("t").query("ep=cam");
    let fits = device.upload(&post, &body(4096), 5).await;
    assert_eq!(fits.code, code(2, 4), "{fits:?}");
    let more = device.upload(&post, &body(4097), 5).await;
    assert_eq!((more.code, more.uint(option::SIZE1)), (code(4, 13), Some(4096)), "{more:?}");
    assert_eq!(stored(&world.nats, MESSAGES).await.len(), 1);
    world.close().await;
}

#[tokio::test]
async fn a_key_says_who_a_device_is_and_the_acl_what_it_may() {
    let world =
        World::with(|settings| settings.devices(DEVICES).set("events.refusal_interval", "200ms")).await;
    let mut device = client(&world, 1).await;
    for queries in [
        &["ep=pump"][..],
        &["ep=pump", "key=P-KEY"],
        &["ep=nobody", "key=p-key"],
        &["ep=pump", "t=acme", "key=p-key"],
        &["ep=valve", "key=v-key"],
        &["key=p-key"],
        &[],
    ] {
        let answer = device.post("t", queries, "x").await;
        assert_eq!((answer.code, answer.payload.len()), (code(4, 1), 0), "{queries:?}");
    }
    assert!(world.recorder.all().iter().all(|event| event.kind() != "connected"));
    assert_eq!(device.post("t", &["ep=pump", "key=p-key"], "x").await.code, code(2, 4));
    assert_eq!(world.recorder.expect("connected", "pump").await.text("identifiedBy"), "password");
    assert_eq!(device.post("t", &["ep=valve", "t=acme", "key=v-key"], "x").await.code, code(2, 4));
    assert_eq!(world.recorder.expect("connected", "valve").await.text("tenant"), "acme");
    // An open session is no key: neither from its own address nor with another one.
    for queries in [&["ep=pump"][..], &["ep=pump", "key=wrong"], &["ep=meter", "key=p-key"], &[]] {
        assert_eq!(device.post("t", queries, "forged").await.code, code(4, 1), "{queries:?}");
    }
    let meter = ["ep=meter", "key=m-key"];
    assert_eq!(device.post("meter/a", &meter, "x").await.code, code(2, 4));
    assert_eq!(device.post("pump/a", &meter, "forged").await.code, code(4, 3), "not below its own name");
    let count = |cause: &str| -> u64 {
        let all = world.recorder.all();
        let refused = all.iter().filter(|event| event.kind() == "refused" && event.text("cause") == cause);
        refused.map(|event| event.number("count")).sum()
    };
    world
        .recorder
        .find(PATIENCE, "the refusals", |_| {
            count("bad-credentials") + count("unknown-device") == 11 && count("not-authorized") == 1
        })
        .await;
    let events = stored(&world.nats, MESSAGES).await;
    assert!(events.iter().all(|event| event.text("payload") == "x"), "nothing that was refused is stored");
    assert_eq!(events.len(), 3);
    world.close().await;
}

#[tokio::test]
async fn what_there_is_can_be_asked_without_a_name() {
    let world = World::start().await;
    let mut anybody = client(&world, 1).await;
    let core = anybody.download(&Message::request(method::GET).path(".well-known/core")).await;
    assert_eq!((core.code, core.uint(option::CONTENT_FORMAT)), (code(2, 5), Some(40)));
    assert_eq!(core.text(), r#"</rd>;rt="core.rd",</command>;rt="landfall.command";obs"#);
    let one =
        anybody.download(&Message::request(method::GET).path(".well-known/core").query("rt=core.rd")).await;
    assert_eq!(one.text(), r#"</rd>;rt="core.rd""#);
    assert!(anybody.ping().await);
    for (method, path, expected) in [
        (method::GET, "telemetry", code(4, 5)),
        (method::DELETE, "telemetry", code(4, 5)),
        (method::PUT, "rd", code(4, 5)),
        (5, "telemetry", code(4, 5)),
        (method::POST, "rd/none", code(4, 4)),
        (method::DELETE, "rd/none", code(4, 4)),
    ] {
        let answer = anybody.request(Message::request(method).path(path).query("ep=x")).await;
        assert_eq!(answer.code, expected, "{method} {path}");
    }
    let critical = Message::request(method::POST).path("t").query("ep=x");
    assert_eq!(anybody.request(critical.clone().option(9, "x")).await.code, code(4, 2), "a critical option");
    assert_eq!(anybody.request(critical.option(option::PROXY_URI, "coap://x/")).await.code, code(5, 5));
    assert!(world.recorder.all().iter().all(|event| event.kind() != "connected"), "nobody came");
    // An elective one that nobody knows is as none (RFC 7252, section 5.4.1).
    let elective = Message::request(method::POST).path("t").query("ep=x").option(10, "x");
    assert_eq!(anybody.request(elective).await.code, code(2, 4));
    world.close().await;
}
