//! NATS slow or away while CoAP devices send: 2.04 means stored, and what cannot be stored is told so.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use landfall_testkit::coap::{Message, code, kind, method, option};
use landfall_testkit::ledger::{self, Open};
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{CoapClient, Gateway, Mode, NatsServer, PATIENCE, Proxy, World, eventually};

use super::{A_WHILE, Wire};

/// The payloads of a device's stored messages, in the stream's order.
async fn payloads(nats: &NatsServer, device: &str) -> Vec<u64> {
    let events = stored(nats, MESSAGES).await;
    events.iter().filter(|event| event.is_about(device)).map(|event| event.number("payload")).collect()
}

fn post(device: &str, id: u16, payload: &str) -> Message {
    let mut message =
        Message::request(method::POST).path("t").query(&format!("ep={device}")).payload(payload);
    (message.id, message.token) = (id, id.to_le_bytes().to_vec());
    message
}

#[tokio::test]
async fn the_answer_waits_for_the_store_and_comes_by_itself() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], nats.port())), 1).await;
    let gateway = Gateway::builder().set("nats.url", format!("nats://{}", proxy.address())).start().await;
    let wire = Wire::to(gateway.coap()).await;
    wire.send(&post("pump", 1, "1").encode()).await;
    assert_eq!(Message::decode(&wire.receive().await).unwrap().code, code(2, 4));
    proxy.set(Mode::Stall);
    let waiting = post("pump", 2, "2");
    wire.send(&waiting.encode()).await;
    // The acknowledgement alone, before the device would send again; and nothing more.
    let promise = Message::empty(kind::ACK, 2).encode();
    assert_eq!(wire.receive().await, promise);
    assert!(wire.all_for(A_WHILE).await.is_empty(), "an answer while nothing is stored");
    wire.send(&waiting.encode()).await;
    assert_eq!(wire.receive().await, promise, "to the same message the same promise");
    assert_eq!(payloads(&nats, "pump").await, [1]);
    proxy.set(Mode::Pass);
    let answer = Message::decode(&wire.receive().await).unwrap();
    assert_eq!((answer.kind, answer.code, answer.token), (kind::CON, code(2, 4), waiting.token.clone()));
    assert_eq!(payloads(&nats, "pump").await, [1, 2], "by now it is");
    // Not acknowledged, it comes again; acknowledged, it does not.
    let again = Message::decode(&wire.receive().await).unwrap();
    assert_eq!((again.id, again.kind, again.code), (answer.id, kind::CON, code(2, 4)));
    wire.send(&Message::empty(kind::ACK, answer.id).encode()).await;
    wire.send(&waiting.encode()).await;
    assert_eq!(wire.receive().await, promise);
    assert_eq!(payloads(&nats, "pump").await, [1, 2]);
    gateway.terminate();
    gateway.exited(PATIENCE).await;
    gateway.assert_sound();
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn what_is_not_stored_in_time_is_told_so() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], nats.port())), 1).await;
    let settings = Gateway::builder().set("nats.url", format!("nats://{}", proxy.address()));
    let gateway = settings.set("coap.request_timeout", "2s").start().await;
    let mut device = CoapClient::new(gateway.coap(), 1).await;
    assert_eq!(device.post("t", &["ep=pump"], "1").await.code, code(2, 4));
    proxy.set(Mode::Stall);
    let began = Instant::now();
    let answer = device.post("t", &["ep=pump"], "2").await;
    let waited = began.elapsed();
    assert_eq!((answer.kind, answer.code), (kind::CON, code(5, 3)), "{answer:?}");
    assert!(answer.uint(option::MAX_AGE).is_some_and(|seconds| seconds > 0), "{answer:?}");
    assert!((Duration::from_millis(1_990)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    proxy.set(Mode::Pass);
    assert_eq!(device.post("t", &["ep=pump"], "3").await.code, code(2, 4));
    // It was on its way: told or not, it is stored once, and in its place.
    assert_eq!(payloads(&nats, "pump").await, [1, 2, 3]);
    gateway.terminate();
    gateway.exited(PATIENCE).await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn while_nats_is_away_a_device_is_told_to_come_back_and_nobody_arrives() {
    let mut world = World::with(|settings| settings.set("nats.when_away", "refuse")).await;
    let mut known = CoapClient::new(world.gateway.coap(), 1).await;
    let mut newcomer = CoapClient::new(world.gateway.coap(), 2).await;
    assert_eq!(known.post("t", &["ep=known"], "1").await.code, code(2, 4));
    world.nats.kill();
    eventually(PATIENCE, "a gateway that knows it", async || {
        (world.gateway.get("/readyz?store").await.status == 503).then_some(())
    })
    .await;
    for n in 0..3 {
        for (client, query) in [(&mut known, "ep=known"), (&mut newcomer, "ep=newcomer")] {
            let answer = client.post("t", &[query], n.to_string()).await;
            assert_eq!(answer.code, code(5, 3), "{query}: {answer:?}");
            assert!(answer.uint(option::MAX_AGE).is_some_and(|seconds| seconds > 0), "{answer:?}");
        }
    }
    assert_eq!(newcomer.post("rd", &["ep=newcomer"], "").await.code, code(5, 3), "no registration either");
    assert!(known.ping().await, "a heartbeat needs no store");
    let sessions = world.gateway.get("/v1/sessions").await.body;
    assert!(sessions.contains("known") && !sessions.contains("newcomer"), "{sessions}");
    world.nats.restart().await;
    eventually(PATIENCE, "a gateway that is ready", async || {
        (world.gateway.get("/readyz?store").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(known.post("t", &["ep=known"], "2").await.code, code(2, 4));
    assert_eq!(newcomer.post("t", &["ep=newcomer"], "3").await.code, code(2, 4));
    assert_eq!(payloads(&world.nats, "known").await, [1, 2], "5.03 means not stored");
    assert_eq!(payloads(&world.nats, "newcomer").await, [3]);
    assert_eq!(world.recorder.of("disconnected", "known").len(), 0, "an outage is no silence");
    world.close().await;
}

#[tokio::test]
async fn a_nats_server_killed_again_and_again_stores_each_answered_message_once() {
    let mut world = World::start().await;
    let address = world.gateway.coap();
    let devices = futures_util::future::join_all((0..6).map(|n| async move {
        let mut client = CoapClient::new(address, n).await;
        let (name, mut answered) = (format!("steady-{n}"), Vec::new());
        for value in 0..60_u64 {
            // 5.03 says that it is not stored: it is sent again, as another message.
            for _ in 0..200 {
                let post = Message::request(method::POST).path("t").query(&format!("ep={name}"));
                let answer = client.request(post.payload(value.to_string())).await;
                if answer.code == code(2, 4) {
                    answered.push(value);
                    break;
                }
                assert_eq!(answer.code, code(5, 3), "{answer:?}");
                tokio::time::sleep(A_WHILE / 10).await;
            }
        }
        (name, answered)
    }));
    let nats = &mut world.nats;
    let killing = async {
        for round in 1..=2 {
            landfall_testkit::streams::stored_when(nats, MESSAGES, "progress", |all| {
                all.len() >= round * 100
            })
            .await;
            nats.kill();
            nats.restart().await;
        }
    };
    let (devices, ()) = tokio::join!(devices, killing);
    for (name, answered) in devices {
        assert_eq!(answered, (0..60).collect::<Vec<_>>(), "{name} came through");
        assert_eq!(payloads(&world.nats, &name).await, answered, "{name}: each once, in order");
    }
    world.close().await;
}

/// With `admit` a newcomer is present from then on. What asks for no acknowledgement is kept, as much of it as comes; what does
/// is told to come back.
#[tokio::test]
async fn while_nats_is_away_what_needs_no_acknowledgement_is_kept() {
    let mut world = World::start().await;
    let mut newcomer = CoapClient::new(world.gateway.coap(), 3).await;
    let wire = Wire::to(world.gateway.coap()).await;
    world.nats.kill();
    eventually(PATIENCE, "a gateway that knows it", async || {
        (world.gateway.get("/readyz?store").await.status == 503).then_some(())
    })
    .await;
    // At once, and more than answers may be due to one device.
    for n in 1..=200 {
        wire.send(&post("pump", n, &n.to_string()).non().encode()).await;
    }
    let answer = newcomer.post("rd", &["ep=newcomer"], "").await;
    assert_eq!(answer.code, code(5, 3), "a registration is told when it is stored: {answer:?}");
    assert!(answer.uint(option::MAX_AGE).is_some_and(|seconds| seconds > 0), "{answer:?}");
    assert_eq!(newcomer.post("t", &["ep=newcomer"], "1").await.code, code(5, 3));
    eventually(PATIENCE, "all of it on disk", async || {
        let kept = world.gateway.metrics("landfall_spool_events").await;
        kept.first().is_some_and(|(_, count)| *count >= 202.0).then_some(())
    })
    .await;
    assert!(wire.all_for(A_WHILE).await.is_empty(), "no answer to what is not stored");
    world.nats.restart().await;
    eventually(PATIENCE, "a gateway that is ready", async || {
        (world.gateway.get("/readyz?store").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(newcomer.post("rd", &["ep=newcomer"], "").await.code, code(2, 1));
    eventually(PATIENCE, "all of it in the stream", async || {
        (payloads(&world.nats, "pump").await.len() >= 200).then_some(())
    })
    .await;
    assert_eq!(payloads(&world.nats, "pump").await, (1..=200).collect::<Vec<_>>());
    assert_eq!(world.recorder.of("connected", "newcomer").len(), 1, "it came once");
    world.close().await;
}
