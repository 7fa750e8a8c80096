//! Commands over secure channels, to a device that is named by its channel.

use landfall_testkit::coap::{Block, Message, method, option};
use landfall_testkit::{Pki, World};
use serde_json::{Value, json};

use super::{coap, delivered, posted, pump, sessions, settings, udp, valve, world};

#[tokio::test]
async fn over_coaps_by_observation_and_with_an_answer() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = coap(world.gateway.coaps(), &pump()).await;
    let (observation, _) = device.observe("command", &[]).await;
    for n in 0..5 {
        let text = format!("command {n}");
        let headers = [("Command-Wait", "acknowledged")];
        let (reply, command) =
            tokio::join!(world.command("pump", &text, &headers), device.notification(&observation));
        assert_eq!((&reply["outcome"], command.text()), (&json!("acknowledged"), text), "{reply}");
    }
    let headers = [("Command-Wait", "answered"), ("Command-Id", "c1")];
    let answer = async {
        let command = device.notification(&observation).await;
        let place = command.joined(option::LOCATION_PATH, "/");
        let post = Message::request(method::POST).path(&place).query("status=202").payload("done");
        assert_eq!(device.request(post).await.code_text(), "2.04");
    };
    let (reply, ()) = tokio::join!(world.command("pump", "go", &headers), answer);
    assert_eq!(
        (&reply["outcome"], &reply["status"], &reply["response"]),
        (&json!("answered"), &json!("202"), &json!("done"))
    );
    // A large one, in blocks.
    let large = "z".repeat(5_000);
    let headers = [("Command-Wait", "acknowledged")];
    let fetch = async {
        let first = device.notification(&observation).await;
        let mut part = first.block(option::BLOCK2).unwrap();
        while part.more {
            let next = Block { number: part.number + 1, more: false, ..part };
            let get = Message::request(method::GET).path("command").number(option::BLOCK2, next.value());
            part = device.request(get).await.block(option::BLOCK2).unwrap();
        }
    };
    let (reply, ()) = tokio::join!(world.command("pump", &large, &headers), fetch);
    assert_eq!(reply["outcome"], "acknowledged", "{reply}");
    world.close().await;
}

#[tokio::test]
async fn an_observation_on_a_channel_outlives_the_silence_of_its_device() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = coap(world.gateway.coaps(), &pump()).await;
    let (observation, _) = device.observe("command", &["lt=1"]).await;
    world.recorder.expect("disconnected", "pump").await;
    assert_eq!(device.post("t", &[], "0").await.code_text(), "2.04");
    let request = world.command("pump", "still there?", &[("Command-Wait", "acknowledged")]);
    let (reply, command) = tokio::join!(request, device.notification(&observation));
    assert_eq!((&reply["outcome"], command.text().as_str()), (&json!("acknowledged"), "still there?"));
    world.close().await;
}

#[tokio::test]
async fn a_command_that_came_while_the_device_was_silent_goes_with_its_next_word() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("udp.reach", "0s")).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    let ask =
        world.command("pump", "when you can", &[("Command-Ttl", "20000"), ("Command-Wait", "acknowledged")]);
    let speak = async {
        super::until_metric(&world, "landfall_commands_under_way", 1.0).await;
        assert!(device.waiting().is_empty());
        delivered(&mut device, "", "2").await;
        let (id, _, payload) = device.command().await;
        assert_eq!(payload, b"when you can");
        device.got(&id).await;
    };
    let (reply, ()) = tokio::join!(ask, speak);
    assert_eq!(reply["outcome"], "acknowledged", "{reply}");
    world.close().await;
}

#[tokio::test]
async fn over_udp_at_once_and_with_an_answer() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    let headers = [("Command-Wait", "answered"), ("Command-Name", "turn")];
    let answer = async {
        let (id, name, payload) = device.command().await;
        assert_eq!((name.as_str(), payload.as_slice()), ("turn", &b"on"[..]));
        delivered(&mut device, &format!("res={id} status=200"), r#"{"is": "on"}"#).await;
    };
    let (reply, ()) = tokio::join!(world.command("pump", "on", &headers), answer);
    assert_eq!(
        (&reply["outcome"], &reply["response"]),
        (&json!("answered"), &json!({"is": "on"})),
        "{reply}"
    );
    world.close().await;
}

#[tokio::test]
async fn an_operator_sees_what_they_came_over() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    let mut other = coap(world.gateway.coaps(), &valve()).await;
    posted(&mut other, "1").await;
    let listed = sessions(&world).await;
    let of = |name: &str| -> &Value { listed.iter().find(|one| one["endpointId"] == name).unwrap() };
    for (name, transport, address) in
        [("pump", "dtls", device.local_addr()), ("valve", "coaps", other.local_addr())]
    {
        let one = of(name);
        assert_eq!((&one["transport"], &one["identifiedBy"]), (&json!(transport), &json!("psk")), "{one}");
        assert_eq!(one["remoteAddress"], address.to_string(), "{one}");
    }
    let output = world.gateway.cli(&["sessions"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("dtls") && text.contains("coaps"), "{text}");
    for name in [
        "sessions",
        "handshakes",
        "lookups",
        "cookies_total",
        "handshakes_begun_total",
        "handshakes_established_total",
        "retransmissions_total",
        "other_versions_total",
        "strays_total",
        "evicted_total",
        "displaced_total",
        "limited_total",
        "send_errors_total",
        "defects_total",
    ] {
        let found = world.gateway.metrics(&format!("landfall_dtls_{name}")).await;
        assert!(!found.is_empty(), "no metric of {name}");
    }
    assert_eq!(super::metric(&world, "landfall_dtls_defects_total").await, 0.0);
    world.close().await;
}
