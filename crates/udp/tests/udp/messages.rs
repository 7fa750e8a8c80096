//! Sessions, messages, acks, heartbeats, sleep, goodbyes.

use crate::world::{Device, KEY, world, world_with};

#[tokio::test]
async fn the_first_datagram_begins_a_session_and_its_payload_is_a_message() {
    let world = world().await;
    let device = world.device().await;
    let answer = device.ask(format!("LF1 pump-17 key={KEY} seq=7 hb=30 ack\n21.5")).await;
    assert_eq!(answer, "LF1 ack seq=7");
    assert_eq!(world.story(), ["connected null", "upstream 21.5"]);
    let connected = &world.events("connected")[0];
    for (name, value) in [
        ("endpointId", "pump-17"),
        ("transport", "udp"),
        ("remoteId", "pump-17"),
        ("identifiedBy", "password"),
    ] {
        assert_eq!(connected[name], value, "{connected}");
    }
    assert_eq!(connected["remoteAddress"], device.0.local_addr().unwrap().to_string());
    assert_eq!((&connected["inferred"], &connected["keepAliveMs"]), (&true.into(), &45_000.into()));
    assert_eq!(device.ask(format!("LF1 pump-17 key={KEY} ack\nmore")).await, "LF1 ack");
    assert_eq!(world.story(), ["connected null", "upstream 21.5", "upstream more"]);
}

#[tokio::test]
async fn without_a_heartbeat_the_operators_silence_holds() {
    let world = world().await;
    world.device().await.ask(format!("LF1 a key={KEY} ack")).await;
    assert_eq!(world.events("connected")[0]["keepAliveMs"], 77_000);
}

#[tokio::test]
async fn an_ack_leaves_after_the_store() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack\n1")).await;
    world.bus.set_away(true);
    device.send(format!("LF1 a key={KEY} seq=2 ack\n2")).await;
    world.until("it waits for the store", |world| world.metric("landfall_udp_unstored") == 1).await;
    // A heartbeat of a known device counts, but nothing is acknowledged.
    // Two clocks make the time, so that it may jitter by one.
    world.until("a silence", |world| landfall_hub::unix_now() > world.last_seen("a") + 10).await;
    let before = world.last_seen("a");
    device.send(format!("LF1 a key={KEY} seq=3 ack")).await;
    world.until("it was heard", |world| world.last_seen("a") > before + 1).await;
    // Nothing new begins.
    device.send(format!("LF1 b key={KEY} seq=4 ack\nx")).await;
    world
        .until("it was dropped", |world| world.metric("landfall_udp_dropped_total{reason=\"away\"}") == 1)
        .await;
    world.bus.set_away(false);
    assert_eq!(device.receive().await, "LF1 ack seq=2");
    device.fence().await;
    assert_eq!(world.payloads(), ["1", "2"]);
    assert_eq!(world.metric("landfall_udp_unstored"), 0);
}

#[tokio::test]
async fn what_the_store_refuses_is_not_acknowledged() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack")).await;
    world.bus.refuse_next();
    device.send(format!("LF1 a key={KEY} ack\nlost")).await;
    device.fence().await;
    assert!(world.payloads().is_empty());
    assert_eq!(world.metric("landfall_udp_dropped_total{reason=\"not-stored\"}"), 1);
}

#[tokio::test]
async fn silence_ends_a_session_and_a_heartbeat_changes_what_silence_is() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} hb=3600 ack")).await;
    device.ask(format!("LF1 a key={KEY} hb=1 ack")).await;
    world.until("the end", |world| !world.events("disconnected").is_empty()).await;
    let ended = &world.events("disconnected")[0];
    assert_eq!((&ended["reason"], &ended["inferred"]), (&"idle-timeout".into(), &true.into()), "{ended}");
    assert!(ended["durationMs"].as_u64().unwrap() >= 1_500, "{ended}");
}

#[tokio::test]
async fn a_goodbye_ends_the_session_after_its_last_words() {
    let world = world().await;
    let device = world.device().await;
    assert_eq!(device.ask(format!("LF1 a key={KEY} bye ack")).await, "LF1 ack");
    assert!(world.story().is_empty(), "whoever is not here cannot leave");
    device.ask(format!("LF1 a key={KEY} ack\n1")).await;
    assert_eq!(device.ask(format!("LF1 a key={KEY} seq=2 bye ack\n2")).await, "LF1 ack seq=2");
    device.fence().await;
    let end = ["upstream 1", "upstream 2", "disconnected client-closed"];
    assert_eq!(world.story()[1..4], end);
    // One who comes only to say one thing.
    device.ask(format!("LF1 b key={KEY} bye ack\n3")).await;
    device.fence().await;
    assert_eq!(world.events("connected").len(), 3, "a, fence, b");
    assert_eq!(world.events("disconnected").len(), 2);
    assert_eq!(world.payloads(), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_device_that_announces_sleep_is_dormant_until_its_next_word() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} hb=1 sleep=3600 ack\ngood night")).await;
    world.until("it sleeps", |world| world.events("dormant").len() == 1).await;
    assert_eq!(world.events("dormant")[0]["sleepMs"], 3_600_000);
    device.ask(format!("LF1 a key={KEY} ack\ngood morning")).await;
    assert_eq!(world.events("awake").len(), 1);
    assert_eq!(world.events("connected").len(), 1);
}

#[tokio::test]
async fn an_identified_device_moves_within_its_session() {
    let world = world().await;
    let (here, there) = (world.device().await, world.device().await);
    here.ask(format!("LF1 a key={KEY} ack")).await;
    there.ask(format!("LF1 a key={KEY} ack\nfrom there")).await;
    let moved = &world.events("moved")[0];
    assert_eq!(moved["remoteAddress"], there.0.local_addr().unwrap().to_string());
    assert_eq!(moved["previousAddress"], here.0.local_addr().unwrap().to_string());
    // A stranger who knows the name moves nobody.
    here.send("LF1 a ack\nfrom a stranger").await;
    here.send("LF1 a key=guess ack\nfrom a stranger").await;
    here.fence().await;
    assert_eq!((world.events("moved").len(), world.payloads()), (1, vec!["from there".to_owned()]));
}

#[tokio::test]
async fn an_answer_leaves_from_the_port_that_was_asked() {
    let world = world().await;
    let other = world.listen("udp://127.0.0.1:0").await;
    let (one, two) = (world.device().await, Device::of(other).await);
    // Both sockets take from their own gateway's port only.
    for round in 0..20 {
        let (a, b) = (
            format!("LF1 a key={KEY} seq={} ack\n{round}", round + 1),
            format!("LF1 b key={KEY} seq={} ack\n{round}", round + 1),
        );
        let (a, b) = tokio::join!(one.ask(a), two.ask(b));
        assert_eq!((a, b), (format!("LF1 ack seq={}", round + 1), format!("LF1 ack seq={}", round + 1)));
    }
    // The same device by turns at both.
    assert_eq!(two.ask(format!("LF1 a key={KEY} seq=98 ack\nx")).await, "LF1 ack seq=98");
    assert_eq!(one.ask(format!("LF1 a key={KEY} seq=99 ack\nx")).await, "LF1 ack seq=99");
    assert_eq!(world.events("connected").len(), 2);
}

#[tokio::test]
async fn tenants_and_names_are_told_apart() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a%20b key={KEY} ack\n1")).await;
    device.ask(format!("LF1 a%20b@acme key={KEY} ack\n2")).await;
    let sessions = world.hub.sessions(9, |view| view.endpoint_id == "a b");
    let mut tenants: Vec<String> = sessions.into_iter().map(|view| view.tenant).collect();
    tenants.sort();
    assert_eq!(tenants, ["acme", "default"]);
}

#[tokio::test]
async fn a_device_without_the_right_to_publish_is_present_and_not_heard() {
    let world = world().await;
    world.auth.publish.lock().clear();
    let device = world.device().await;
    assert_eq!(device.ask(format!("LF1 a key={KEY} seq=1 ack")).await, "LF1 ack seq=1");
    device.send(format!("LF1 a key={KEY} seq=2 ack\nno")).await;
    device.fence().await;
    world.until("the refusal is told", |world| world.refused("not-authorized") == 1).await;
    assert!(world.payloads().is_empty());
    assert_eq!(world.events("refused")[0]["endpointId"], "a");
}

#[tokio::test]
async fn the_end_of_the_scope_ends_the_socket() {
    let world = world_with(|_| {}, |_| {}).await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack\n1")).await;
    assert!(world.scope.drain(std::time::Duration::from_secs(10)).await.is_clean());
    // The port is free again.
    let again = std::net::UdpSocket::bind(world.address);
    assert!(again.is_ok(), "{again:?}");
}
