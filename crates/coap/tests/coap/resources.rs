//! The gateway's own resources: what there is, and registrations.

use std::time::Duration;

use landfall_testkit::coap::{CoapClient, Message, code, kind, method, option};

use crate::world::{TestAuth, World};

const LINKS: &str = r#"</rd>;rt="core.rd",</command>;rt="landfall.command";obs"#;

fn core(id: u16) -> Message {
    Message { id, ..Message::request(method::GET).path(".well-known/core") }
}

#[tokio::test]
async fn the_gateway_says_what_there_is() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let answer = device.download(&Message::request(method::GET).path(".well-known/core")).await;
    assert_eq!((answer.code, answer.uint(option::CONTENT_FORMAT)), (code(2, 5), Some(40)));
    assert_eq!(answer.text(), LINKS);
    let filtered = Message::request(method::GET).path(".well-known/core").query("rt=core.rd");
    assert_eq!(device.download(&filtered).await.text(), r#"</rd>;rt="core.rd""#);
    let json = Message::request(method::GET).path(".well-known/core").number(option::ACCEPT, 50);
    assert_eq!(device.request(json).await.code, code(4, 6));
    assert_eq!(device.post(".well-known/core", &[], "").await.code, code(4, 5));
    assert!(world.story().is_empty(), "nobody has to say a name, and nobody begins a session");
    world.close().await;
}

#[tokio::test]
async fn a_stranger_draws_no_more_than_three_times_its_bytes() {
    let mut world = World::open().await;
    let mut stranger = world.client().await;
    let request = core(stranger.id()).encode();
    let drawn = stranger.drawn_by(&request).await;
    assert_eq!(drawn.len(), 1);
    let bytes: usize = drawn.iter().map(Vec::len).sum();
    assert!(bytes <= 3 * request.len(), "{bytes} for {}", request.len());
    world.close().await;
}

/// Registers and returns the registration's path.
async fn register(device: &mut CoapClient, queries: &[&str]) -> String {
    let answer = device.post("rd", queries, r#"</sensors>;rt="x""#).await;
    assert_eq!(answer.code, code(2, 1), "{answer:?}");
    let path = answer.joined(option::LOCATION_PATH, "/");
    let id = path.strip_prefix("rd/").unwrap();
    assert_eq!(id.len(), 22);
    assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{id}");
    path
}

#[tokio::test]
async fn a_registration_is_a_session_from_beginning_to_end() {
    let mut world = World::with(TestAuth::knowing(&[("d", "k")]), |_, _| {}).await;
    let mut device = world.client().await;
    let path = register(&mut device, &["ep=d", "key=k"]).await;
    assert_eq!(world.told("connected d").await["keepAliveMs"], 90_000_000);
    assert_eq!(register(&mut device, &["ep=d", "key=k", "lt=60"]).await, path, "the same again");
    // The name is what it takes, from wherever.
    device.rebind().await;
    assert_eq!(device.post(&path, &[], "").await.code, code(2, 4));
    world.told("moved d").await;
    assert_eq!(device.post("rd/AAAAAAAAAAAAAAAAAAAAAA", &[], "").await.code, code(4, 4));
    assert_eq!(device.get(&path, &[]).await.code, code(4, 5));
    assert_eq!(world.metric("landfall_coap_registrations"), 1.0);
    assert_eq!(device.delete(&path, &[]).await.code, code(2, 2));
    let ended = world.told("disconnected d deregistered").await;
    assert_eq!((&ended["initiator"], &ended["inferred"]), (&"device".into(), &false.into()));
    assert_eq!(device.delete(&path, &[]).await.code, code(4, 4));
    assert_eq!(device.post(&path, &[], "").await.code, code(4, 4));
    assert_eq!(world.metric("landfall_coap_registrations"), 0.0);
    assert_ne!(register(&mut device, &["ep=d", "key=k"]).await, path, "a new session, a new name");
    assert_eq!(world.story(), ["connected d", "moved d", "disconnected d deregistered", "connected d"]);
    world.close().await;
}

/// Sends a request while nothing is stored: it is acknowledged without an answer, which comes once things are.
async fn answer_behind_the_store(world: &World, device: &mut CoapClient, request: Message) -> Message {
    world.bus.set_slow(true);
    let request = Message { id: device.id(), token: device.token(), ..request };
    device.send(&request).await;
    let early = device.receive().await;
    assert_eq!((early.kind, early.code), (kind::ACK, 0), "nothing is stored yet");
    world.bus.set_slow(false);
    let answer = device.receive().await;
    assert_eq!((answer.kind, &answer.token), (kind::CON, &request.token));
    device.send(&Message::empty(kind::ACK, answer.id)).await;
    answer
}

#[tokio::test]
async fn a_registration_and_its_end_are_told_when_they_are_stored() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let register = Message::request(method::POST).path("rd").query("ep=d");
    let answer = answer_behind_the_store(&world, &mut device, register).await;
    assert_eq!((answer.code, world.story()), (code(2, 1), vec!["connected d".to_owned()]));
    let path = answer.joined(option::LOCATION_PATH, "/");
    let answer =
        answer_behind_the_store(&world, &mut device, Message::request(method::DELETE).path(&path)).await;
    assert_eq!(answer.code, code(2, 2));
    assert_eq!(world.story(), ["connected d", "disconnected d deregistered"]);
    world.close().await;
}

#[tokio::test]
async fn a_goodbye_is_heard_while_nothing_can_be_stored() {
    let mut world =
        World::with(TestAuth::open(), |config, _| config.request_timeout = Duration::from_millis(200)).await;
    let mut device = world.client().await;
    let path = register(&mut device, &["ep=d"]).await;
    world.bus.set_away(true);
    assert_eq!(device.delete(&path, &[]).await.code, code(5, 3), "not stored in time");
    assert_eq!(device.delete(&path, &[]).await.code, code(4, 4), "but it was heard");
    world.bus.set_away(false);
    world.told("disconnected d deregistered").await;
    world.close().await;
}

#[tokio::test]
async fn a_session_whose_beginning_is_refused_is_no_registration() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    world.bus.refuse_next();
    assert_eq!(device.post("rd", &["ep=d"], "").await.code, code(5, 3), "it may come again");
    register(&mut device, &["ep=d"]).await;
    assert_eq!(world.story(), ["connected d"]);
    world.close().await;
}

#[tokio::test]
async fn a_refresh_may_change_the_lifetime() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let path = register(&mut device, &["ep=d"]).await;
    assert_eq!(device.post(&path, &["lt=1"], "").await.code, code(2, 4));
    world.told("disconnected d lifetime-expired").await;
    assert_eq!(device.post(&path, &[], "").await.code, code(4, 4), "it is over with its session");
    world.close().await;
}

#[tokio::test]
async fn who_may_not_register_is_told() {
    let mut world =
        World::with(TestAuth::knowing(&[("d", "k")]), |config, _| config.max_registrations = 0).await;
    let mut device = world.client().await;
    assert_eq!(device.post("rd", &["ep=d"], "").await.code, code(4, 1));
    assert_eq!(device.post("rd", &["ep=d", "key=k"], "").await.code, code(5, 3), "the bound");
    assert_eq!(device.request(Message::request(method::GET).path("rd")).await.kind, kind::ACK);
    world.close().await;
}
