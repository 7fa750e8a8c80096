//! How associations end, and that their keys end with them.

use landfall_dtls::{Answer, Closing, Failure, Key, Limits, SendError};

use crate::fake::CLOSE_NOTIFY;
use crate::world::{Client, Said, World};

fn is_gone(world: &mut World, key: Key) {
    assert_eq!(world.listener.path(key), None);
    assert_eq!(world.send(key, b"x"), (Err(SendError::NotEstablished), vec![]));
    assert_eq!(world.answer(key, Answer::Admitted), []);
    assert_eq!(world.close(key), []);
}

#[test]
fn the_peer_ends_it() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let key = world.connect(&client);
    let said = world.receive(&client, &client.data(b'c', b""));
    assert_eq!(said, [Said::Closed(key, 1, Closing::CloseNotify)]);
    is_gone(&mut world, key);
    assert_eq!(world.receive(&client, &client.data(b'd', b"x")), []);
    assert_eq!(world.listener.counts().strays, 1);
    assert_eq!(world.listener.next_timeout(), None);
}

#[test]
fn the_caller_ends_it_and_is_told_nothing() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let key = world.connect(&client);
    assert_eq!(world.close(key), [Said::Transmit(1, CLOSE_NOTIFY.to_vec())]);
    is_gone(&mut world, key);
    // A handshake, too, of which nobody has heard by name but who was asked.
    world.knock(&client);
    let asked = world.receive(&client, &client.handshake(0, b'w', b"me"));
    let [Said::WhoIs(key, _)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(world.close(key), []);
    is_gone(&mut world, key);
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (0, 0));
}

#[test]
fn all_of_them_end_at_once() {
    let mut world = World::new(Limits::default());
    for number in 1..=20 {
        world.connect(&Client::new(number));
        world.knock(&Client::new(number).with_random(200));
        world.knock(&Client::new(100 + number));
    }
    let said = world.close_all();
    assert_eq!(said.len(), 20);
    assert!(said.iter().all(|said| matches!(said, Said::Transmit(_, bytes) if bytes == CLOSE_NOTIFY)));
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (0, 0));
    assert_eq!(world.listener.next_timeout(), None);
    world.connect(&Client::new(1));
}

#[test]
fn record_numbers_run_out() {
    let mut world = World::new(Limits::default());
    let key = world.connect(&Client::new(1));
    let (sent, said) = world.send(key, b"exhausted");
    assert_eq!(sent, Err(SendError::Exhausted));
    assert_eq!(said, [Said::Closed(key, 1, Closing::Exhausted)]);
    is_gone(&mut world, key);
}

#[test]
fn what_cannot_be_sent_is_not() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    let asked = world.receive(&client, &client.handshake(0, b'w', b"me"));
    let [Said::WhoIs(key, _)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(world.send(key, b"x"), (Err(SendError::NotEstablished), vec![]));
    world.receive(&client, &client.handshake(1, b'e', &[]));
    assert_eq!(world.send(key, &[0; 16_385]), (Err(SendError::TooLarge), vec![]));
    assert_eq!(world.send(key, b"x"), (Ok(()), vec![Said::Transmit(1, b"x".to_vec())]));
}

#[test]
fn whoever_was_asked_of_is_named_when_it_fails() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    for (answer, why) in [(Answer::Refused, Failure::WrongKey), (Answer::Unavailable, Failure::Unavailable)] {
        world.knock(&client);
        let asked = world.receive(&client, &client.handshake(0, b'w', b"me"));
        let [Said::WhoIs(key, _)] = asked[..] else { panic!("{asked:?}") };
        assert_eq!(world.answer(key, answer), [Said::Failed(Some(key), 1, why)]);
        is_gone(&mut world, key);
    }
    world.knock(&client);
    let said = world.receive(&client, &client.handshake(0, b'f', &[]));
    assert_eq!(said, [Said::Failed(None, 1, Failure::Alert(40))]);
}

#[test]
fn an_engine_that_talks_out_of_turn_is_not_heard() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    let said = world.receive(&client, &client.handshake(0, b'!', &[]));
    assert!(matches!(said[..], [Said::WhoIs(..)]), "{said:?}");
    world.receive(&client, &client.handshake(1, b'e', &[]));
    // Over without a word: the caller hears of it nevertheless.
    let said = world.receive(&client, &client.data(b's', &[]));
    assert!(matches!(said[..], [Said::Closed(_, 1, Closing::Exhausted)]), "{said:?}");
}

#[test]
fn keys_are_numbers_that_never_come_again() {
    let mut world = World::new(Limits::default());
    let mut seen = std::collections::HashSet::new();
    for round in 0..1_000 {
        let key = world.connect(&Client::new(1).with_random(round as u8));
        assert!(key.number() != 0 && seen.insert(key.number()));
        assert_eq!(Key::from_number(key.number()), Some(key));
        if round % 3 == 0 {
            world.close(key);
        }
    }
    assert_eq!(Key::from_number(0), None);
    // Numbers of nobody.
    for number in [1, 255, 1 << 24, u64::MAX] {
        is_gone(&mut world, Key::from_number(number).unwrap());
    }
}
