//! The whole life of a device: connected, heard, asleep, elsewhere, gone; and what a datagram may be.

use landfall_testkit::World;
use landfall_testkit::udp::UdpDevice;
use serde_json::json;

use super::{assert_refused, delivered, metric, on, proven, session_ids, sessions, story};

#[tokio::test]
async fn a_session_is_inferred_from_the_first_datagram_and_ends_with_a_goodbye() {
    let world = proven().await;
    let mut pump = UdpDevice::new(world.gateway.udp(), "pump").await.key("of-pump");
    delivered(&mut pump, "hb=2", r#"{"bar":2.5}"#).await;
    let connected = world.recorder.expect("connected", "pump").await;
    for (field, value) in [
        ("transport", json!("udp")),
        ("protocol", json!("UDP")),
        ("inferred", json!(true)),
        ("identifiedBy", json!("password")),
        ("remoteId", json!("pump")),
        ("tenant", json!("default")),
        ("remoteAddress", json!(pump.local_addr().to_string())),
        ("keepAliveMs", json!(3_000)),
    ] {
        assert_eq!(connected.json[field], value, "{field} in {}", connected.json);
    }
    let upstream = world.recorder.expect("upstream", "pump").await;
    assert_eq!((&upstream.json["payload"], upstream.number("seq")), (&json!({"bar": 2.5}), 1));
    assert_eq!(upstream.text("sessionId"), connected.text("sessionId"));
    assert!(upstream.json.get("topic").is_none(), "a datagram has no topic");
    // Heard, and nothing more: a heartbeat is no message.
    delivered(&mut pump, "", "").await;
    delivered(&mut pump, "bye", "last words").await;
    let ended = world.recorder.expect_end("pump", "udp").await;
    assert_eq!((ended.text("reason"), ended.text("initiator")), ("client-closed", "device"));
    assert_eq!(ended.json["inferred"], false, "it said so itself");
    assert_eq!((ended.number("messagesIn"), ended.number("bytesIn"), ended.number("seq")), (2, 21, 2));
    assert!(ended.number("lastSeenAt") <= ended.number("timestamp"));
    assert_eq!(world.recorder.expect_count("upstream", "pump", 2).await.len(), 2);
    assert!(sessions(&world).await.is_empty());
    // A goodbye of one who is not there begins nothing; the next word does, and is later than the first session.
    delivered(&mut pump, "bye", "").await;
    delivered(&mut pump, "", "again").await;
    let both = world.recorder.expect_count("connected", "pump", 2).await;
    assert!(both[1].number("epoch") > both[0].number("epoch"));
    assert_eq!(both[1].number("keepAliveMs"), 300_000, "what was announced is forgotten with the session");
    world.close().await;
}

#[tokio::test]
async fn tenants_keep_devices_of_one_name_apart() {
    let world = proven().await;
    let mut one = UdpDevice::new(world.gateway.udp(), "pump").await.key("of-pump");
    let mut other = UdpDevice::new(world.gateway.udp(), "pump").await.tenant("acme").key("of-acme");
    delivered(&mut one, "", "1").await;
    delivered(&mut other, "", "2").await;
    let connected = world.recorder.expect_count("connected", "pump", 2).await;
    assert_eq!((connected[0].text("tenant"), connected[1].text("tenant")), ("default", "acme"));
    delivered(&mut one, "bye", "").await;
    world.recorder.expect_end("pump", "udp").await;
    delivered(&mut other, "", "3").await;
    let upstream = world.recorder.expect_count("upstream", "pump", 3).await;
    assert_eq!((upstream[2].text("tenant"), upstream[2].number("seq")), ("acme", 2));
    world.close().await;
}

#[tokio::test]
async fn a_device_that_moves_stays_the_same() {
    let world = proven().await;
    let mut pump = UdpDevice::new(world.gateway.udp(), "pump").await.key("of-pump");
    let mut valve = UdpDevice::new(world.gateway.udp(), "valve").await.signing("of-valve");
    for (device, name) in [(&mut pump, "pump"), (&mut valve, "valve")] {
        let mut at = vec![device.local_addr().to_string()];
        delivered(device, "hb=60", "0").await;
        for n in 1..=2 {
            device.rebind().await;
            at.push(device.local_addr().to_string());
            delivered(device, "", &n.to_string()).await;
        }
        let moved = world.recorder.expect_count("moved", name, 2).await;
        for (n, event) in moved.iter().enumerate() {
            let (from, to) = (event.text("previousAddress"), event.text("remoteAddress"));
            assert_eq!((from, to, event.number("seq")), (at[n].as_str(), at[n + 1].as_str(), n as u64 + 2));
        }
        let upstream = world.recorder.expect_count("upstream", name, 3).await;
        let connected = world.recorder.of("connected", name);
        assert_eq!(connected.len(), 1);
        let all = upstream.iter().chain(&moved).chain(&connected).map(|event| &**event);
        assert_eq!(session_ids(all).len(), 1, "one session all along");
        let listed = sessions(&world).await;
        let listed = listed.iter().find(|one| one["endpointId"] == name).unwrap();
        assert_eq!(listed["remoteAddress"], at[2].as_str());
        // Where it went to is where its commands go.
        let reply = world.command(name, "go", &[]).await;
        assert_eq!(reply["outcome"], "delivered", "{reply}");
        assert_eq!(device.command().await.2, b"go");
        assert_eq!(story(&world, name).await, ["connected", "moved", "moved"]);
    }
    world.close().await;
}

#[tokio::test]
async fn each_answer_leaves_from_where_it_was_asked() {
    let world = World::with(|settings| {
        settings.devices(DEVICES_OF_PORTS).udp(&["udp://127.0.0.1:0", "udp://127.0.0.1:0", "udp://0.0.0.0:0"])
    })
    .await;
    let listening: Vec<_> = world.gateway.listening("udp", "udp").collect();
    let [first, second, any] = listening[..] else { panic!("{listening:?}") };
    assert!(first.port() != second.port() && any.ip().is_unspecified());
    // A device of this test kit takes nothing from another address than the one it speaks to.
    let mut device = UdpDevice::new(first, "d").await.key("k");
    let asked = [first, second, on([127, 0, 0, 2], any), on([127, 0, 0, 1], any), first];
    for (n, address) in asked.into_iter().enumerate() {
        device.redirect(address).await;
        delivered(&mut device, "", &n.to_string()).await;
        let reply = world.command("d", &n.to_string(), &[]).await;
        assert_eq!(reply["outcome"], "delivered", "{reply}");
        assert_eq!(device.command().await.2, n.to_string().into_bytes(), "from {address}");
    }
    // Two at a time, each at its own.
    let mut others = Vec::new();
    for (n, address) in asked.into_iter().enumerate() {
        others.push(UdpDevice::new(address, &format!("d{n}")).await.key("k"));
    }
    let all = others.iter_mut().map(async |other| other.deliver("", "x").await);
    assert!(futures_util::future::join_all(all).await.into_iter().all(|acked| acked));
    assert_eq!(
        story(&world, "d").await,
        ["connected"],
        "the device did not move: the gateway has many addresses"
    );
    assert_eq!(world.recorder.of("upstream", "d").len(), asked.len(), "each once");
    world.close().await;
}

const DEVICES_OF_PORTS: &str = r##"
[[device]]
id = "d"
password = "plain:k"
[[device]]
id = "d0"
password = "plain:k"
[[device]]
id = "d1"
password = "plain:k"
[[device]]
id = "d2"
password = "plain:k"
[[device]]
id = "d3"
password = "plain:k"
[[device]]
id = "d4"
password = "plain:k"
"##;

#[tokio::test]
async fn a_large_datagram_is_taken_whole_or_refused() {
    let world = World::with(|settings| {
        settings.set("udp.max_datagram", "9000B").set("events.refusal_interval", "200ms")
    })
    .await;
    let mut device = UdpDevice::new(world.gateway.udp(), "large").await;
    let largest = "x".repeat(9_000);
    delivered(&mut device, "", &largest).await;
    // Nothing of these is acknowledged, and the device is not heard by them.
    for size in [9_001, 12_000, 65_000] {
        device.send("ack", "y".repeat(size)).await;
    }
    let mut stranger = UdpDevice::new(world.gateway.udp(), "stranger").await;
    stranger.send("ack", "y".repeat(9_001)).await;
    assert_refused(&world, "limit-reached", 4).await;
    delivered(&mut device, "", "small").await;
    assert!(device.waiting().is_empty() && stranger.waiting().is_empty(), "a refusal has no answer");
    let payloads: Vec<_> = world.recorder.expect_count("upstream", "large", 2).await;
    let payloads: Vec<_> = payloads.iter().map(|event| event.text("payload")).collect();
    assert_eq!(payloads, [largest.as_str(), "small"], "never cut");
    assert!(world.recorder.of("connected", "stranger").is_empty());
    assert_eq!(metric(&world, "landfall_udp_dropped_total").await, 0.0, "refused is not dropped");
    world.close().await;
}

#[tokio::test]
async fn names_and_payloads_are_what_the_device_says_and_choose_nothing() {
    let world = World::start().await;
    let names = ["a.b", "kaa.v1.>", "* >", "größe", "a/b#+", "100%", "x@y", "\u{202e}evil", "'; --"];
    for (n, name) in names.into_iter().enumerate() {
        let mut device = UdpDevice::new(world.gateway.udp(), name).await;
        delivered(&mut device, "", &n.to_string()).await;
        assert_eq!(world.recorder.expect("connected", name).await.text("remoteId"), name);
        let upstream = world.recorder.expect("upstream", name).await;
        assert_eq!(upstream.json["payload"], n, "{name}");
    }
    let payloads: [(&[u8], &str); 5] = [
        (b"\xff\xfe\0", "base64"),
        (b"LF1 other bye", "utf8"),
        (b"\n\n", "utf8"),
        (b"{\"a\":", "utf8"),
        (b"[1]", "json"),
    ];
    let mut device = UdpDevice::new(world.gateway.udp(), "payloads").await;
    for (payload, _) in payloads {
        assert!(device.deliver("", payload).await);
    }
    let upstream = world.recorder.expect_count("upstream", "payloads", payloads.len()).await;
    for (event, (payload, encoding)) in upstream.iter().zip(payloads) {
        assert_eq!(event.text("payloadEncoding"), encoding, "{payload:?}");
    }
    assert!(world.recorder.of("connected", "other").is_empty());
    assert_eq!(sessions(&world).await.len(), names.len() + 1);
    world.close().await;
}
