//! Commands: by Observe, within `ttd`, asked for; and their answers.

use landfall_coap_core::Limits;
use landfall_hub::CommandRequest;
use landfall_testkit::coap::{Block, CoapClient, Message, code, kind, method, option};
use landfall_testkit::wait::{PATIENCE, eventually};

use crate::world::{TestAuth, World, post, quick, request};

/// A command as it comes to a device.
fn assert_command(message: &Message, id: &str, expected: u8) {
    assert_eq!(message.code, expected, "{message:?}");
    assert_eq!(message.joined(option::LOCATION_PATH, "/"), format!("command/res/{id}"));
    assert_eq!(message.joined(option::LOCATION_QUERY, "&"), "name=reboot");
    assert_eq!(message.uint(option::CONTENT_FORMAT), Some(50));
    assert_eq!(message.text(), r#"{"now":1}"#);
}

#[tokio::test]
async fn an_observer_gets_each_command_after_it_has_acknowledged_the_one_before() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, first) = device.observe("command", &["ep=d"]).await;
    assert_eq!((first.code, first.payload.len()), (code(2, 5), 0));
    device.acknowledge(false);
    world.command("d", "c1", "acknowledged");
    world.command("d", "c2", "acknowledged");
    let note = device.notification(&observation).await;
    assert_command(&note, "c1", code(2, 5));
    assert_eq!(note.kind, kind::CON);
    assert!(note.uint(option::OBSERVE) > first.uint(option::OBSERVE), "the numbers rise");
    assert!(device.held().is_empty());
    device.acknowledge(true);
    device.send(&Message::empty(kind::ACK, note.id)).await;
    assert_command(&device.notification(&observation).await, "c2", code(2, 5));
    for id in ["c1", "c2"] {
        let outcome = eventually(PATIENCE, id, async || {
            world.events().into_iter().find(|event| event.get("commandId").is_some_and(|have| have == id))
        })
        .await;
        assert_eq!((&outcome["outcome"], &outcome["attempts"]), (&"acknowledged".into(), &1.into()));
    }
    // No longer.
    assert_eq!(device.cancel(&observation).await.code, code(2, 5));
    world.hub.command(CommandRequest { ttl: Some("100".into()), ..request("d", "c3", "delivered") });
    world.told("downstream d expired").await;
    world.close().await;
}

#[tokio::test]
async fn commands_that_waited_go_out_when_somebody_observes() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.command("d", "c1", "delivered");
    world.command("d", "c2", "delivered");
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    assert_command(&device.notification(&observation).await, "c1", code(2, 5));
    assert_command(&device.notification(&observation).await, "c2", code(2, 5));
    eventually(PATIENCE, "outcomes", async || (world.count("downstream d delivered") == 2).then_some(()))
        .await;
    world.close().await;
}

#[tokio::test]
async fn an_answer_is_the_outcome() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    world.command("d", "c1", "answered");
    let note = device.notification(&observation).await;
    let to = note.joined(option::LOCATION_PATH, "/");
    assert_eq!(device.post("command/res/other", &["ep=d"], "").await.code, code(4, 4));
    world.bus.set_away(true);
    assert_eq!(device.post(&to, &["ep=d", "status=201"], "done").await.code, code(5, 3));
    world.bus.set_away(false);
    assert_eq!(device.post(&to, &["ep=d", "status=201"], "done").await.code, code(2, 4));
    let outcome = world.told("downstream d answered").await;
    assert_eq!((&outcome["status"], &outcome["response"]), (&"201".into(), &"done".into()));
    assert_eq!(device.post(&to, &["ep=d"], "again").await.code, code(4, 4), "it has its outcome");
    world.close().await;
}

#[tokio::test]
async fn another_device_cannot_answer() {
    let mut world = World::open().await;
    let (mut device, mut other) = (world.client().await, world.client().await);
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    world.command("d", "c1", "answered");
    device.notification(&observation).await;
    assert_eq!(other.post("command/res/c1", &["ep=e"], "").await.code, code(4, 4));
    assert_eq!(device.post("command/res/c1", &["ep=d"], "").await.code, code(2, 4));
    assert!(world.told("downstream d answered").await.get("status").is_none(), "it names none");
    world.close().await;
}

#[tokio::test]
async fn a_request_that_waits_is_answered_with_a_command() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    // One that is there already.
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.command("d", "c1", "delivered");
    assert_command(&device.post("a", &["ep=d", "ttd=30"], "").await, "c1", code(2, 4));
    world.told("downstream d delivered").await;
    // One that comes while it waits.
    let (hub, mut events) = (std::sync::Arc::clone(&world.hub), world.count("upstream d a"));
    let asking = device.put("a", &["ep=d", "ttd=30"], "");
    let sending = async {
        eventually(PATIENCE, "it is stored before", async || {
            (world.count("upstream d a") > events).then_some(())
        })
        .await;
        hub.command(request("d", "c2", "acknowledged"));
    };
    let (answer, ()) = tokio::join!(asking, sending);
    assert_command(&answer, "c2", code(2, 4));
    events += 1;
    assert_eq!(world.count("upstream d a"), events);
    // Nobody acknowledges an answer to us, so that it went out is the best there is.
    eventually(PATIENCE, "outcomes", async || (world.count("downstream d delivered") == 2).then_some(()))
        .await;
    world.close().await;
}

#[tokio::test]
async fn a_wait_without_a_command_ends_and_then_the_device_sleeps() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let answer = device.post("a", &["ep=d", "ttd=1", "sleep=60"], "").await;
    assert_eq!((answer.code, answer.payload.len()), (code(2, 4), 0));
    let dormant = world.told("dormant d").await;
    let upstream = world.told("upstream d a").await;
    let waited = dormant["timestamp"].as_u64().unwrap() - upstream["timestamp"].as_u64().unwrap();
    assert!((900..5_000).contains(&waited), "{waited} ms");
    world.close().await;
}

#[tokio::test]
async fn a_wait_has_a_bound() {
    let mut world = World::with(TestAuth::open(), |config, _| {
        config.max_ttd = std::time::Duration::from_millis(50);
    })
    .await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d", "ttd=4000000000"], "").await.code, code(2, 4));
    world.close().await;
}

#[tokio::test]
async fn a_wait_ends_before_its_request_is_forgotten() {
    let mut world = World::with(TestAuth::open(), |config, _| {
        config.limits = std::sync::Arc::new(landfall_coap_core::Limits { max_latency_ms: 0, ..quick() });
    })
    .await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d", "ttd=50"], "").await.code, code(2, 4));
    world.command("d", "c1", "delivered");
    assert_command(&device.get("command", &["ep=d"]).await, "c1", code(2, 5));
    world.close().await;
}

#[tokio::test]
async fn an_answer_that_is_not_wanted_takes_no_command() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let quiet = |message: Message| message.number(option::NO_RESPONSE, 2);
    let post = post(&mut device, "a", &["ep=d", "ttd=30"]);
    device.send(&quiet(post)).await;
    // It waits for nothing but the store.
    assert_eq!(device.receive().await.code, 0);
    world.command("d", "c1", "delivered");
    let get = Message::request(method::GET).path("command").queries(&["ep=d", "ttd=30"]);
    for message in [get.clone().non(), get] {
        let (id, token) = (device.id(), device.token());
        device.send(&quiet(Message { id, token, ..message })).await;
    }
    assert_eq!(device.receive().await.code, 0);
    assert_eq!(world.metric("landfall_coap_waiting"), 0.0);
    assert_command(&device.post("b", &["ep=d", "ttd=30"], "").await, "c1", code(2, 4));
    let outcome = world.told("downstream d delivered").await;
    assert_eq!(outcome["attempts"], 1);
    world.close().await;
}

/// Without a key, and where loopback is not trusted, as from anywhere.
async fn wary() -> World {
    World::with(TestAuth::open(), |config, _| config.trust_loopback = false).await
}

#[tokio::test]
async fn an_observer_proves_its_address_before_it_gets_a_command() {
    let mut world = wary().await;
    let mut device = world.client().await;
    device.acknowledge(false);
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    let long = "x".repeat(900).into();
    world.hub.command(CommandRequest { payload: long, ..request("d", "c1", "acknowledged") });
    let ping = device.stray().await;
    assert_eq!((ping.kind, ping.code), (kind::CON, 0));
    // Further words without the proof draw pings, and no command, all within three times their bytes.
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(world.metric("landfall_coap_notifications_total"), 0.0);
    let (sent, received) =
        (world.metric("landfall_coap_sent_bytes_total"), world.metric("landfall_coap_received_bytes_total"));
    assert!(sent <= 3.0 * received, "{sent} for {received}");

    device.acknowledge(true);
    device.send(&Message::empty(kind::RST, ping.id)).await;
    let note = device.notification(&observation).await;
    assert_eq!((note.code, note.payload.len()), (code(2, 5), 900));
    world.told("downstream d acknowledged").await;
    world.close().await;
}

#[tokio::test]
async fn who_waits_for_a_command_proves_its_address_meanwhile() {
    let mut world = wary().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.command("d", "c1", "delivered");
    // The client resets the ping, as every CoAP endpoint does.
    assert_command(&device.post("a", &["ep=d", "ttd=30"], "").await, "c1", code(2, 4));
    world.told("downstream d delivered").await;
    world.close().await;
}

#[tokio::test]
async fn a_device_can_ask_for_its_next_command() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let answer = device.get("command", &["ep=d"]).await;
    assert_eq!((answer.code, answer.payload.len()), (code(2, 5), 0), "there is none");
    world.command("d", "c1", "delivered");
    world.command("d", "c2", "delivered");
    assert_command(&device.get("command", &["ep=d"]).await, "c1", code(2, 5));
    assert_command(&device.get("command", &["ep=d", "ttd=30"]).await, "c2", code(2, 5));
    assert_eq!(device.get("command", &["ep=d"]).await.payload.len(), 0);
    world.close().await;
}

#[tokio::test]
async fn the_same_token_at_two_addresses_is_two_observers() {
    let mut world = World::open().await;
    let mut devices: Vec<CoapClient> = Vec::new();
    for name in ["one", "two"] {
        let mut device = world.client().await;
        let observe = Message::request(method::GET).path("command").query(&format!("ep={name}"));
        let observe = observe.number(option::OBSERVE, 0);
        device.send(&Message { id: 7, token: vec![1, 2, 3], ..observe }).await;
        assert_eq!(device.receive().await.code, code(2, 5));
        devices.push(device);
    }
    for (device, name) in devices.iter_mut().zip(["one", "two"]) {
        let id = format!("for-{name}");
        world.command(name, &id, "acknowledged");
        let note = device.receive().await;
        assert_eq!(note.token, [1, 2, 3]);
        assert_command(&note, &id, code(2, 5));
        device.send(&Message::empty(kind::ACK, note.id)).await;
        world.told(&format!("downstream {name} acknowledged")).await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_command_for_a_silent_observer_waits_for_its_next_word() {
    for outcome in ["delivered", "acknowledged"] {
        waits_for_a_silent_observer(outcome).await;
    }
}

/// Whoever waits for `outcome`.
async fn waits_for_a_silent_observer(outcome: &str) {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    device.acknowledge(false);
    let patient = CommandRequest { ttl: Some("60000".into()), ..request("d", "c1", outcome) };
    world.hub.command(patient);
    device.notification(&observation).await;
    // It is retransmitted to the end; then nobody observes any more.
    eventually(PATIENCE, "the end", async || {
        (world.metric("landfall_coap_observations") == 0.0).then_some(())
    })
    .await;
    assert!(world.metric("landfall_coap_retransmissions_total") >= 2.0);
    assert_eq!(world.story(), ["connected d"], "it has reached nobody that we know of");
    device.acknowledge(true);
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    assert_command(&device.notification(&observation).await, "c1", code(2, 5));
    let outcome = world.told(&format!("downstream d {outcome}")).await;
    assert_eq!(outcome["attempts"], 2);
    world.close().await;
}

#[tokio::test]
async fn a_sleeping_device_is_left_alone() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    assert_eq!(device.post("a", &["ep=d", "sleep=60"], "").await.code, code(2, 4));
    world.told("dormant d").await;
    world.command("d", "c1", "acknowledged");
    assert_eq!(world.metric("landfall_coap_notifications_total"), 0.0);
    assert_eq!(device.post("b", &["ep=d"], "").await.code, code(2, 4));
    assert_command(&device.notification(&observation).await, "c1", code(2, 5));
    world.told("downstream d acknowledged").await;
    world.close().await;
}

#[tokio::test]
async fn a_command_that_the_device_may_not_have_is_rejected() {
    let mut world = World::with(TestAuth::open().subscribe("command///req/+/update"), |_, _| {}).await;
    let mut device = world.client().await;
    device.observe("command", &["ep=d"]).await;
    world.command("d", "c1", "delivered");
    assert_eq!(world.told("downstream d rejected").await["status"], "not-authorized");
    world.close().await;
}

#[tokio::test]
async fn an_observer_that_moved_observes_from_there() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    device.observe("command", &["ep=d"]).await;
    device.rebind().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    world.told("moved d").await;
    world.command("d", "c1", "acknowledged");
    assert_command(&device.notification(&observation).await, "c1", code(2, 5));
    eventually(PATIENCE, "one observer", async || {
        (world.metric("landfall_coap_observations") == 1.0).then_some(())
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn a_device_may_observe_at_one_socket_and_speak_at_another() {
    let mut world = World::open().await;
    let mut observer = world.client().await;
    let (observation, _) = observer.observe("command", &["ep=d"]).await;
    let mut speaker = CoapClient::new(world.listen("udp://127.0.0.1:0", 1).await, 77).await;
    assert_eq!(speaker.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.command("d", "c1", "acknowledged");
    assert_command(&observer.notification(&observation).await, "c1", code(2, 5));
    world.told("downstream d acknowledged").await;
    world.close().await;
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_observation() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    device.observe("command", &["ep=d"]).await;
    world.hub.kick(&"default".parse().unwrap(), &"d".parse().unwrap());
    world.told("disconnected d kicked").await;
    eventually(PATIENCE, "no observer", async || {
        (world.metric("landfall_coap_observations") == 0.0).then_some(())
    })
    .await;
    world.command("d", "c1", "delivered");
    world.told("downstream d not-connected").await;
    world.close().await;
}

/// Falls silent, and is heard again by a message that says nothing of commands.
async fn away_and_back(world: &World, device: &mut CoapClient) {
    world.told("disconnected d lifetime-expired").await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
}

#[tokio::test]
async fn an_observation_outlives_the_silence_of_its_device() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d", "lt=1"]).await;
    away_and_back(&world, &mut device).await;
    world.command("d", "c1", "acknowledged");
    assert_command(&device.notification(&observation).await, "c1", code(2, 5));
    world.told("downstream d acknowledged").await;
    assert_eq!(device.cancel(&observation).await.code, code(2, 5), "and ends as any other");
    world.close().await;
}

#[tokio::test]
async fn what_waited_for_a_silent_observer_goes_out_with_its_next_word() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d", "lt=1"]).await;
    world.told("disconnected d lifetime-expired").await;
    world.command("d", "c1", "answered");
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    assert_command(&device.notification(&observation).await, "c1", code(2, 5));
    assert_eq!(device.post("command/res/c1", &["ep=d"], "").await.code, code(2, 4));
    world.told("downstream d answered").await;
    world.close().await;
}

#[tokio::test]
async fn a_notification_that_was_under_way_at_the_silence_is_sent_again() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    device.acknowledge(false);
    let (observation, _) = device.observe("command", &["ep=d", "lt=1"]).await;
    world.command("d", "c1", "acknowledged");
    device.notification(&observation).await;
    world.told("disconnected d lifetime-expired").await;
    assert_eq!(world.count("downstream d failed"), 0, "the device can still get it");
    device.acknowledge(true);
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.told("downstream d acknowledged").await;
    world.close().await;
}

#[tokio::test]
async fn a_device_that_has_the_command_may_answer_after_its_silence() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d", "lt=1"]).await;
    world.command("d", "c1", "answered");
    device.notification(&observation).await;
    world.told("disconnected d lifetime-expired").await;
    assert_eq!(device.post("command/res/c1", &["ep=d", "status=7"], "").await.code, code(2, 4));
    let outcome = world.told("downstream d answered").await;
    assert_eq!((&outcome["status"], &outcome["attempts"]), (&"7".into(), &1.into()), "and got it once");
    world.close().await;
}

#[tokio::test]
async fn a_goodbye_ends_the_observation() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let name = device.post("rd", &["ep=d"], "").await.joined(option::LOCATION_PATH, "/");
    device.observe("command", &["ep=d"]).await;
    assert_eq!(device.delete(&name, &[]).await.code, code(2, 2));
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.hub.command(CommandRequest { ttl: Some("100".into()), ..request("d", "c1", "acknowledged") });
    world.told("downstream d expired").await;
    world.close().await;
}

#[tokio::test]
async fn who_is_silent_gives_way_to_who_observes() {
    let mut world = World::with(TestAuth::open(), |config, _| {
        config.limits = std::sync::Arc::new(Limits { max_observations: 1, ..quick() });
    })
    .await;
    let (mut device, mut other) = (world.client().await, world.client().await);
    device.observe("command", &["ep=d", "lt=1"]).await;
    let register = Message::request(method::GET).path("command").query("ep=e").number(option::OBSERVE, 0);
    let refused = other.request(register).await;
    assert!(refused.value(option::OBSERVE).is_none(), "there is no room while the device is here");
    world.told("disconnected d lifetime-expired").await;
    let (observation, taken) = other.observe("command", &["ep=e"]).await;
    assert!(taken.value(option::OBSERVE).is_some());
    world.command("e", "c1", "acknowledged");
    assert_command(&other.notification(&observation).await, "c1", code(2, 5));
    world.close().await;
}

/// A command of three blocks.
fn long(id: &str, wait: &str, ttl_ms: u64) -> CommandRequest {
    CommandRequest {
        ttl: Some(ttl_ms.to_string()),
        payload: vec![b'x'; 3_000].into(),
        ..request("d", id, wait)
    }
}

async fn fetch(device: &mut CoapClient, number: u32) -> Message {
    let block = Block { number, more: false, exponent: 6 };
    let message = Message::request(method::GET).path("command").queries(&["ep=d"]);
    device.request(message.number(option::BLOCK2, block.value())).await
}

#[tokio::test]
async fn a_command_of_several_blocks_is_acknowledged_with_the_last_one() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    world.hub.command(long("c1", "acknowledged", 60_000));
    assert_eq!(device.notification(&observation).await.payload.len(), 1_024);
    assert_eq!(fetch(&mut device, 1).await.payload.len(), 1_024);
    assert_eq!(world.count("downstream d acknowledged"), 0);
    assert_eq!(fetch(&mut device, 2).await.payload.len(), 952);
    world.told("downstream d acknowledged").await;
    // One that is not fetched is not acknowledged, and keeps no other back.
    world.hub.command(long("c2", "acknowledged", 400));
    device.notification(&observation).await;
    let outcome = world.told("downstream d expired").await;
    assert_eq!(outcome["commandId"], "c2");
    world.close().await;
}

#[tokio::test]
async fn an_answer_of_several_blocks_delivers_with_the_last_one() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    world.hub.command(long("c1", "delivered", 60_000));
    let first = device.get("command", &["ep=d"]).await;
    assert_eq!((first.payload.len(), world.count("downstream d delivered")), (1_024, 0));
    fetch(&mut device, 1).await;
    fetch(&mut device, 2).await;
    world.told("downstream d delivered").await;
    world.hub.command(long("c2", "delivered", 300));
    assert_eq!(device.get("command", &["ep=d"]).await.payload.len(), 1_024);
    assert_eq!(world.told("downstream d expired").await["commandId"], "c2");
    world.close().await;
}
