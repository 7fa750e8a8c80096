//! Keys that both sides share.

use landfall_dtls::{Closing, EngineEvent, Failure, Identity, SendError, Stage};

use super::world::{KEY, NAME, Verdict, World, psk_client, psk_config};
use landfall_dtls::Engine;

fn world() -> World {
    World::new(psk_config(), psk_client(KEY))
}

#[test]
fn data_flows_both_ways() {
    let mut world = world();
    world.shake();
    let (identity, suite) = world.established().unwrap();
    assert_eq!((identity, suite), (Some(Identity::Psk(NAME.into())), "TLS_PSK_WITH_AES_128_CCM_8"));
    world.assert_flows();
    world.send_up(b"");
    world.send_up(&[7; 1_000]);
    world.run();
    assert_eq!(world.told.data[1..], [Vec::new(), vec![7; 1_000]]);
    assert_eq!(world.server.next_timeout(), None);
}

#[test]
fn the_client_closes() {
    let mut world = world();
    world.shake();
    world.close_client();
    world.run();
    assert_eq!(world.server.stage(), Stage::Over);
    assert!(matches!(world.told.events.last(), Some(EngineEvent::Closed(Closing::CloseNotify))));
    assert_eq!(world.server.send(b"x", &mut Vec::new()), Err(SendError::NotEstablished));
}

#[test]
fn the_server_closes() {
    let mut world = world();
    world.shake();
    let told = world.told.events.len();
    world.close_server();
    world.run();
    assert!(world.client_closed);
    assert_eq!(world.server.stage(), Stage::Over);
    assert_eq!(world.told.events.len(), told, "closing tells no event");
}

#[test]
fn a_wrong_key_and_an_unknown_identity_look_the_same() {
    let end = |verdict| {
        let mut world = world().answering(Some(verdict));
        world.run_until(10);
        let events = format!("{:?}", world.told.events);
        assert!(matches!(world.told.events.last(), Some(EngineEvent::Failed(Failure::WrongKey))), "{events}");
        assert_eq!(world.server.stage(), Stage::Over);
        (world.client_error.clone(), world.sent(), events)
    };
    assert_eq!(end(Verdict::Key(b"another key".to_vec())), end(Verdict::Refused));
    assert_eq!(end(Verdict::Key(Vec::new())), end(Verdict::Refused), "no key is nobody's key");
}

#[test]
fn who_cannot_be_found_out_may_come_back() {
    let mut world = world().answering(Some(Verdict::Unavailable));
    world.run_until(10);
    assert!(matches!(world.told.events.last(), Some(EngineEvent::Failed(Failure::Unavailable))));
    assert_eq!(world.server.stage(), Stage::Over);
}

#[test]
fn a_handshake_waits_for_its_answer() {
    let mut world = world().answering(None);
    world.run_until(20);
    assert_eq!(world.server.stage(), Stage::Shaking);
    assert_eq!(world.server.next_timeout(), None, "nothing is due while it waits");
    let asked = |world: &World| {
        let is_question = |event: &&EngineEvent| matches!(event, EngineEvent::WhoIs(_));
        world.told.events.iter().filter(is_question).count()
    };
    assert_eq!(asked(&world), 1);
    // The client repeats itself meanwhile: it is asked once.
    world.run_until(5_000);
    assert_eq!(asked(&world), 1);
    world.answer(&Verdict::Key(KEY.to_vec()));
    world.run();
    assert!(world.connected);
    assert_eq!(world.server.stage(), Stage::Established);
    world.assert_flows();
    // An answer that comes again changes nothing.
    world.answer(&Verdict::Refused);
    world.assert_flows();
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut world = world();
    world.answer(&Verdict::Refused);
    world.shake();
    world.assert_flows();
}
