//! Upstream messages: what is stored, what the device is told, and when.

use std::time::Duration;

use landfall_testkit::coap::{Message, code, kind, method, option};
use landfall_testkit::wait::{PATIENCE, eventually};

use crate::world::{TestAuth, World, post, quick};

#[tokio::test]
async fn a_post_is_a_session_and_a_message() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let request = Message::request(method::POST)
        .path("telemetry/room 1")
        .query("ep=pump 17")
        .number(option::CONTENT_FORMAT, 50)
        .payload(r#"{"c":20}"#);
    let answer = device.request(request).await;
    assert_eq!((answer.code, answer.kind), (code(2, 4), kind::ACK), "{answer:?}");

    let connected = world.told("connected pump 17").await;
    assert_eq!((&connected["transport"], &connected["protocol"]), (&"coap".into(), &"CoAP".into()));
    assert_eq!((&connected["inferred"], &connected["seq"]), (&true.into(), &1.into()));
    assert_eq!(connected["identifiedBy"], "anonymous");
    assert_eq!((&connected["keepAliveMs"], &connected["remoteId"]), (&300_000.into(), &"pump 17".into()));
    assert_eq!(connected["remoteAddress"], device.local_addr().to_string());
    let upstream = world.told("upstream pump 17 telemetry/room 1").await;
    assert_eq!(upstream["sessionId"], connected["sessionId"]);
    assert_eq!(upstream["contentType"], "application/json");
    assert_eq!(upstream["payload"]["c"], 20);
    assert!(upstream.get("qos").is_none(), "{upstream}");
    assert_eq!(world.story(), ["connected pump 17", "upstream pump 17 telemetry/room 1"]);
    world.close().await;
}

/// The protocol forgets a request after EXCHANGE_LIFETIME, here 1.1 s.
#[tokio::test]
async fn a_request_is_answered_before_it_is_forgotten() {
    let mut world = World::with(TestAuth::open(), |config, _| {
        config.limits = std::sync::Arc::new(landfall_coap_core::Limits { max_latency_ms: 0, ..quick() });
        config.request_timeout = Duration::from_secs(3_600);
    })
    .await;
    let mut device = world.client().await;
    world.bus.set_slow(true);
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(5, 3));
    world.bus.set_slow(false);
    world.close().await;
}

#[tokio::test]
async fn put_any_path_and_non_confirmable_are_messages_too() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.put("a//b", &["ep=d"], "x").await.code, code(2, 4));
    let answer = device.request(Message::request(method::POST).path("n").query("ep=d").non()).await;
    assert_eq!((answer.code, answer.kind), (code(2, 4), kind::NON));
    assert_eq!(world.story(), ["connected d", "upstream d a//b", "upstream d n"]);
    world.close().await;
}

#[tokio::test]
async fn it_is_changed_only_when_it_is_stored() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    world.bus.set_slow(true);
    let request = post(&mut device, "t", &["ep=d"]);
    device.send(&request).await;
    let promise = device.receive().await;
    assert_eq!((promise.kind, promise.code, promise.id), (kind::ACK, 0, request.id));
    assert_eq!(world.bus.waiting(), 2, "it is on its way");
    // A duplicate is acknowledged again, and no more.
    device.send(&request).await;
    assert_eq!(device.receive().await, promise);
    world.bus.set_slow(false);
    let answer = device.receive().await;
    assert_eq!((answer.kind, answer.code, &answer.token), (kind::CON, code(2, 4), &request.token));
    device.send(&Message::empty(kind::ACK, answer.id)).await;
    assert_eq!(world.story(), ["connected d", "upstream d t"]);
    world.close().await;
}

#[tokio::test]
async fn what_comes_again_is_one_message_and_the_same_answer() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let request = post(&mut device, "t", &["ep=d"]);
    device.send(&request).await;
    let answer = device.receive().await;
    assert_eq!(answer.code, code(2, 4));
    for _ in 0..3 {
        device.send(&request).await;
        assert_eq!(device.receive().await, answer);
    }
    assert_eq!(world.story(), ["connected d", "upstream d t"]);
    eventually(PATIENCE, "duplicates are counted", async || {
        (world.metric("landfall_coap_duplicates_total") == 3.0).then_some(())
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn what_the_store_refuses_is_told() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("t", &["ep=d"], "").await.code, code(2, 4));
    world.bus.refuse_next();
    assert_eq!(device.post("t", &["ep=d"], "").await.code, code(5, 0));
    assert_eq!(device.post("t", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(world.count("upstream d t"), 2);
    world.close().await;
}

#[tokio::test]
async fn while_the_store_is_away_devices_are_told_to_come_again() {
    let mut world = World::open().await;
    let (mut known, mut new) = (world.client().await, world.client().await);
    assert_eq!(known.post("t", &["ep=known"], "").await.code, code(2, 4));
    world.bus.set_away(true);
    for (device, name) in [(&mut known, "ep=known"), (&mut new, "ep=new")] {
        let answer = device.post("t", &[name], "").await;
        assert_eq!((answer.code, answer.uint(option::MAX_AGE)), (code(5, 3), Some(5)), "{name}");
    }
    world.bus.set_away(false);
    assert_eq!(new.post("t", &["ep=new"], "").await.code, code(2, 4));
    assert_eq!(
        world.story(),
        ["connected known", "upstream known t", "connected new", "upstream new t"],
        "nothing was begun meanwhile"
    );
    world.close().await;
}

#[tokio::test]
async fn what_is_not_stored_in_time_is_told() {
    let limit = Duration::from_millis(100);
    let mut world = World::with(TestAuth::open(), |config, _| config.request_timeout = limit).await;
    let mut device = world.client().await;
    world.bus.set_slow(true);
    let answer = device.post("t", &["ep=d"], "").await;
    assert_eq!((answer.code, answer.uint(option::MAX_AGE)), (code(5, 3), Some(5)));
    world.bus.set_slow(false);
    assert_eq!(device.post("t", &["ep=d"], "").await.code, code(2, 4));
    world.close().await;
}

#[tokio::test]
async fn a_full_window_is_told() {
    let mut world = World::with(TestAuth::open(), |_, hub| hub.window_bytes = 2_000).await;
    let mut device = world.client().await;
    world.bus.set_slow(true);
    let first = post(&mut device, "t", &["ep=d"]).payload([0; 900]);
    device.send(&first).await;
    assert_eq!(device.receive().await.code, 0, "on its way");
    let answer = device.post("t", &["ep=d"], [0; 900]).await;
    assert_eq!((answer.code, answer.uint(option::MAX_AGE)), (code(5, 3), Some(5)));
    world.bus.set_slow(false);
    world.close().await;
}

#[tokio::test]
async fn a_device_sends_only_where_it_may() {
    let mut world = World::with(TestAuth::open().publish("telemetry/#"), |_, _| {}).await;
    let mut device = world.client().await;
    assert_eq!(device.post("telemetry/x", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(device.post("admin", &["ep=d"], "").await.code, code(4, 3));
    let refused = world.told("refused d not-authorized").await;
    assert_eq!((&refused["count"], &refused["transport"]), (&1.into(), &"coap".into()));
    world.close().await;
}

#[tokio::test]
async fn other_methods_and_bad_queries_do_nothing() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.get("t", &["ep=d"]).await.code, code(4, 5));
    assert_eq!(device.delete("t", &["ep=d"]).await.code, code(4, 5));
    // FETCH, PATCH and iPATCH (RFC 8132).
    for method in 5..=7 {
        assert_eq!(device.request(Message::request(method).path("t").query("ep=d")).await.code, code(4, 5));
    }
    assert!(world.story().is_empty(), "{:?}", world.story());
    for query in ["lt=0", "sleep=x", "ep=", "ttd="] {
        assert_eq!(device.post("t", &["ep=d", query], "").await.code, code(4, 0), "{query}");
    }
    let refused = world.told("refused malformed").await;
    assert_eq!(refused["count"], 1, "the rest is told together, later");
    assert_eq!(world.story(), ["refused malformed"]);
    world.close().await;
}

#[tokio::test]
async fn what_is_no_coap_is_counted_and_no_more() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    for bytes in
        [&b""[..], b"\x40", b"hello", b"\x80\x02\x00\x01", b"\x40\x02\x00\x01\xff", b"\x4f\x02\x00\x01"]
    {
        device.drawn_by(bytes).await;
    }
    world.told("refused malformed").await;
    assert_eq!(world.story(), ["refused malformed"]);
    assert_eq!(world.hub.session_count(), 0);
    world.close().await;
}

#[tokio::test]
async fn a_body_in_blocks_is_one_message() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let body: Vec<u8> = (0..65_536_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let request = Message::request(method::PUT).path("firmware").query("ep=d");
    assert_eq!(device.upload(&request, &body, 6).await.code, code(2, 4));
    let upstream = world.told("upstream d firmware").await;
    assert_eq!(upstream["payload"].as_str().unwrap().as_bytes(), body);
    assert_eq!(world.story().len(), 2);
    world.close().await;
}

#[tokio::test]
async fn two_ports_answer_each_from_its_own() {
    let mut world = World::open().await;
    let other = world.listen("udp://127.0.0.1:0", 2).await;
    let v6 = world.listen("udp://[::1]:0", 1).await;
    let mut device = world.client().await;
    // The client itself sees to it that answers come from where it asked.
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    device.redirect(other).await;
    assert_eq!(device.post("b", &["ep=d"], "").await.code, code(2, 4));
    let mut device = landfall_testkit::coap::CoapClient::new(v6, 99).await;
    assert_eq!(device.post("c", &["ep=six"], "").await.code, code(2, 4));
    assert_eq!(
        world.story(),
        ["connected d", "upstream d a", "upstream d b", "connected six", "upstream six c"],
        "the same session on both ports"
    );
    world.close().await;
}

#[tokio::test]
async fn at_the_end_what_is_stored_is_answered() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    world.bus.set_slow(true);
    let request = post(&mut device, "t", &["ep=d"]);
    device.send(&request).await;
    assert_eq!(device.receive().await.code, 0, "on its way");
    world.stop();
    world.bus.set_slow(false);
    assert_eq!(device.receive().await.code, code(2, 4));
    world.close().await;
}
