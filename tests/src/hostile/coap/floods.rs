//! Attacks by number: what strangers, or one device, send very often costs a bounded share, and others are served.

use landfall_testkit::coap::{Block, CoapClient, Message, code, kind, method, option};
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{PATIENCE, World};

use super::{BOUND, Witness, request, world};
use crate::coap::Wire;

/// The value of one of the listener's gauges or counters.
async fn metric(world: &World, name: &str) -> u64 {
    let samples = world.gateway.metrics(name).await;
    samples.iter().map(|(_, value)| *value as u64).sum()
}

/// Sends a request again and again with new message ids, a few at a time, and returns how often it drew which code. The gateway
/// knows these ids of this address for minutes, so `wire` stays open for as long as others come from ports that are free.
async fn pour(wire: &Wire, request: &Message, count: u16) -> std::collections::BTreeMap<String, usize> {
    const AT_ONCE: u16 = 64;
    let mut codes = std::collections::BTreeMap::new();
    for first in (0..count).step_by(usize::from(AT_ONCE)) {
        let few = first..count.min(first + AT_ONCE);
        for id in few.clone() {
            wire.send(&Message { id, token: id.to_be_bytes().to_vec(), ..request.clone() }.encode()).await;
        }
        for _ in few {
            *codes.entry(Message::decode(&wire.receive().await).unwrap().code_text()).or_default() += 1;
        }
    }
    codes
}

#[tokio::test]
async fn strangers_leave_no_trace_in_what_is_remembered() {
    let small = |settings: landfall_testkit::GatewayBuilder| {
        settings.set("coap.max_remembered", 256).set("coap.max_peers", 64)
    };
    let world = world(small).await;
    let mut witness = Witness::meet(&world).await;
    // Each address with a few message ids, ten times as many as are remembered.
    for stranger in 0..250_u64 {
        let mut client = CoapClient::new(world.gateway.coap(), stranger).await;
        for _ in 0..10 {
            let answer = client.request(request(method::POST)).await;
            assert_eq!(answer.code, code(4, 1), "{stranger}: {answer:?}");
        }
        if stranger % 25 == 0 {
            witness.speak().await;
        }
    }
    witness.speak().await;
    assert!(metric(&world, "landfall_coap_peers").await <= 64);
    super::assert_harmless(world, witness, u64::MAX).await;
}

#[tokio::test]
async fn message_ids_of_one_device_are_its_own_trouble() {
    let world = world(|settings| settings).await;
    let mut witness = Witness::meet(&world).await;
    let before = world.gateway.resident_bytes();
    let get = Message::request(method::GET).path("command").queries(&["ep=victim", "key=of-victim"]);
    let wire = Wire::to(world.gateway.coap()).await;
    let codes = pour(&wire, &get, 20_000).await;
    assert_eq!(codes.keys().map(String::as_str).collect::<Vec<_>>(), ["2.05", "5.03"], "{codes:?}");
    assert!(codes["2.05"] <= 16_384, "{codes:?}");
    witness.speak().await;
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
    assert_eq!(world.recorder.of("connected", "victim").len(), 1);
    world.close().await;
}

#[tokio::test]
async fn pings_by_the_ten_thousand_are_answered_and_forgotten() {
    let world = world(|settings| settings).await;
    let mut witness = Witness::meet(&world).await;
    let peers = metric(&world, "landfall_coap_peers").await;
    let codes = pour_pings(&world, 20_000).await;
    assert_eq!(codes, 20_000);
    assert_eq!(metric(&world, "landfall_coap_peers").await, peers, "a ping leaves no state");
    witness.speak().await;
    world.close().await;
}

async fn pour_pings(world: &World, count: u16) -> usize {
    let wire = Wire::to(world.gateway.coap()).await;
    let mut pongs = 0;
    for first in (0..count).step_by(50) {
        for id in first..first + 50 {
            wire.send(&Message::empty(kind::CON, id).encode()).await;
        }
        for id in first..first + 50 {
            assert_eq!(wire.receive().await, Message::empty(kind::RST, id).encode());
            pongs += 1;
        }
    }
    pongs
}

#[tokio::test]
async fn observations_by_the_thousand_are_one() {
    let world = world(|settings| settings).await;
    let mut witness = Witness::meet(&world).await;
    let before = world.gateway.resident_bytes();
    let get = Message::request(method::GET).path("command").queries(&["ep=victim", "key=of-victim"]);
    let observe = get.number(option::OBSERVE, 0);
    // Ten thousand tokens from one address, then a registration from each of three hundred.
    let wire = Wire::to(world.gateway.coap()).await;
    let codes = pour(&wire, &observe, 10_000).await;
    assert_eq!(codes.get("2.05"), Some(&10_000), "{codes:?}");
    for n in 0..300 {
        let mut client = CoapClient::new(world.gateway.coap(), n).await;
        assert_eq!(client.request(observe.clone()).await.code, code(2, 5));
    }
    let kept = metric(&world, "landfall_coap_observations").await;
    assert!(kept <= 2, "{kept} observations of one device");
    let grown = world.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
    // A stranger's reset or acknowledgement ends none: message ids cannot be foreseen, and addresses are not theirs.
    let mut device = CoapClient::new(world.gateway.coap(), 9_999).await;
    let (observation, _) = device.observe("command", &["ep=victim", "key=of-victim"]).await;
    let stranger = Wire::to(world.gateway.coap()).await;
    for id in 0..2_000 {
        stranger
            .send(&Message::empty(if id % 2 == 0 { kind::RST } else { kind::ACK }, id * 32).encode())
            .await;
    }
    let headers = [("Command-Wait", "acknowledged")];
    let (reply, command) =
        tokio::join!(world.command("victim", "x", &headers), device.notification(&observation));
    assert_eq!((&reply["outcome"], command.text().as_str()), (&"acknowledged".into(), "x"));
    witness.speak().await;
    drop(wire);
    world.close().await;
}

#[tokio::test]
async fn observers_beyond_the_bound_are_told_what_is_and_no_more() {
    let world = World::with(|settings| settings.set("coap.max_observations", 64)).await;
    let mut observing = 0;
    for n in 0..200 {
        let mut client = CoapClient::new(world.gateway.coap(), n).await;
        let get = Message::request(method::GET).path("command").query(&format!("ep=crowd-{n}"));
        let answer = client.request(get.number(option::OBSERVE, 0)).await;
        assert_eq!(answer.code, code(2, 5));
        observing += usize::from(answer.value(option::OBSERVE).is_some());
    }
    assert!((32..=64).contains(&observing), "{observing}");
    assert!(metric(&world, "landfall_coap_observations").await <= 64);
    world.close().await;
}

/// Room for few bodies.
fn small(settings: landfall_testkit::GatewayBuilder) -> landfall_testkit::GatewayBuilder {
    settings
        .set("coap.max_uploads", 64)
        .set("coap.upload_memory", "1MiB")
        .set("events.refusal_interval", "200ms")
}

/// The first block of a body of which nothing more comes.
fn first_block() -> Message {
    let block = Block { number: 0, more: true, exponent: 6 }.value();
    request(method::PUT).number(option::BLOCK1, block).payload([7; 1024])
}

#[tokio::test]
async fn a_body_of_a_stranger_takes_no_room() {
    let world = world(small).await;
    let mut witness = Witness::meet(&world).await;
    let before = world.gateway.resident_bytes();
    for n in 0..300 {
        let mut client = CoapClient::new(world.gateway.coap(), n).await;
        assert_eq!(client.request(first_block()).await.code, code(4, 1), "its key is asked for at once");
    }
    assert_eq!(metric(&world, "landfall_coap_uploads").await, 0);
    let body = vec![9; 60_000];
    let put = Message::request(method::PUT).path("calm").queries(&["ep=witness", "key=of-witness"]);
    let answer = witness.client.upload(&put, &body, 6).await;
    assert_eq!(answer.code, code(2, 4), "{answer:?}");
    witness.spoken += 1;
    super::assert_harmless(world, witness, before).await;
}

#[tokio::test]
async fn where_nobody_has_a_key_bodies_that_never_end_leave_room_for_those_that_do() {
    let world = World::with(small).await;
    let mut witness = Witness::meet(&world).await;
    let (mut begun, mut challenged) = (0, Vec::new());
    for n in 0..300 {
        let mut client = CoapClient::new(world.gateway.coap(), n).await;
        let answer = client.request(first_block()).await;
        match answer.value(option::ECHO) {
            Some(echo) => {
                assert_eq!(answer.code, code(4, 1), "{answer:?}");
                challenged.push((client, echo.to_vec()));
            }
            None => {
                assert_eq!(answer.code, code(2, 31), "{answer:?}");
                begun += 1;
            }
        }
    }
    assert!((16..=64).contains(&begun) && challenged.len() > 200, "{begun} begun");
    assert!(metric(&world, "landfall_coap_uploads").await <= 64);
    // Who has proven its address is let in.
    witness.speak().await;
    let [(other, _), .., (client, echo)] = challenged.as_mut_slice() else { panic!("many") };
    assert_eq!(client.request(first_block().option(option::ECHO, &*echo)).await.code, code(2, 31));
    let another = other.request(first_block().option(option::ECHO, &*echo)).await;
    assert_eq!(another.code, code(4, 1), "a proof of somebody else's address is none");
    witness.speak().await;
    super::super::assert_log_is_clean(&world);
    world.close().await;
}

#[tokio::test]
async fn one_device_has_few_bodies_under_way() {
    let world = world(|settings| settings).await;
    let mut witness = Witness::meet(&world).await;
    let mut client = CoapClient::new(world.gateway.coap(), 7).await;
    let block = Block { number: 0, more: true, exponent: 6 }.value();
    let mut codes = std::collections::BTreeMap::new();
    for n in 0..200 {
        let put =
            Message::request(method::PUT).path(&format!("t/{n}")).queries(&["ep=victim", "key=of-victim"]);
        let answer = client.request(put.number(option::BLOCK1, block).payload([7; 1024])).await;
        *codes.entry(answer.code_text()).or_insert(0) += 1;
    }
    assert_eq!(codes, [("2.31".to_owned(), 4), ("5.03".to_owned(), 196)].into());
    witness.speak().await;
    world.close().await;
}

#[tokio::test]
async fn a_storm_of_names_begins_no_more_sessions_than_there_may_be() {
    let world = World::with(|settings| {
        settings.set("presence.max_sessions", 100).set("events.refusal_interval", "200ms")
    })
    .await;
    let mut witness = CoapClient::new(world.gateway.coap(), 1).await;
    assert_eq!(witness.post("calm", &["ep=witness"], "1").await.code, code(2, 4));
    // Unconfirmed, each of a device of its own, from few addresses: nobody waits for an answer.
    for n in 0..5 {
        let wire = Wire::to(world.gateway.coap()).await;
        for id in 0..100_u16 {
            let post = Message::request(method::POST).path("t").query(&format!("ep=ghost-{n}-{id}")).non();
            let post = Message { id, token: id.to_be_bytes().to_vec(), ..post.payload("x") };
            wire.send(&post.encode()).await;
            let answer = Message::decode(&wire.receive().await).unwrap();
            assert!([code(2, 4), code(5, 3)].contains(&answer.code), "{answer:?}");
        }
    }
    assert_eq!(witness.post("calm", &["ep=witness"], "2").await.code, code(2, 4));
    let sessions = world.recorder.all().iter().filter(|event| event.kind() == "connected").count();
    assert_eq!(sessions, 100);
    assert_eq!(stored(&world.nats, MESSAGES).await.len(), 99 + 2, "who was refused has sent nothing");
    let told = |_: &landfall_testkit::Seen| super::refusals(&world) >= 401;
    world.recorder.find(PATIENCE, "the refusals", told).await;
    world.close().await;
}
