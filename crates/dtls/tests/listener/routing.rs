//! Whose datagram it is.

use landfall_dtls::{Answer, Closing, Failure, Key, Limits};

use crate::fake::script;
use crate::world::{Client, Said, World, data, established, record};

#[test]
fn a_handshake_and_its_session() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    let asked = world.receive(&client, &client.handshake(0, b'w', b"me"));
    let [Said::WhoIs(key, 1)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(world.listener.path(key), Some(1));
    assert_eq!(world.answer(key, Answer::Psk(b"key")), [Said::Transmit(1, b"answered".to_vec())]);
    let said = world.receive(&client, &client.handshake(1, b'e', b"first"));
    assert_eq!(
        said,
        [
            Said::Transmit(1, b"finished".to_vec()),
            Said::Established(key, 1),
            Said::Data(key, 1, b"first".to_vec()),
        ]
    );
    assert_eq!(world.listener.path(key), Some(1));
    let said = world.receive(&client, &client.data(b'd', b"second"));
    assert_eq!(said, [Said::Data(key, 1, b"second".to_vec())]);
    assert_eq!(world.send(key, b"back"), (Ok(()), vec![Said::Transmit(1, b"back".to_vec())]));
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (1, 0));
    assert_eq!((world.listener.counts().begun, world.listener.counts().established), (1, 1));
}

#[test]
fn it_may_be_established_by_the_answer() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let old = world.connect(&client);
    let client = client.with_random(7);
    world.knock(&client);
    let said = world.receive(&client, &client.handshake(0, b'W', b"me"));
    let [Said::WhoIs(key, 1)] = said[..] else { panic!("{said:?}") };
    let said = world.answer(key, Answer::Admitted);
    let expected = [
        Said::Transmit(1, b"finished".to_vec()),
        Said::Closed(old, 1, Closing::Replaced),
        Said::Established(key, 1),
    ];
    assert_eq!(said, expected);
    assert_eq!(world.answer(old, Answer::Admitted), []);
}

#[test]
fn a_hello_that_comes_again_goes_to_its_handshake() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let cookie = world.cookie(&client);
    for _ in 0..3 {
        let said = world.receive(&client, &client.hello(&cookie));
        assert_eq!(said, [Said::Transmit(1, b"flight".to_vec())]);
    }
    let counts = *world.listener.counts();
    assert_eq!((counts.begun, counts.retransmitted, world.listener.handshakes()), (1, 2, 1));
}

#[test]
fn the_rest_of_a_hello_goes_to_the_handshake_alone() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let mut rest = client.hello(&[]);
    rest[19..22].copy_from_slice(&[0, 0, 1]);
    rest[14..17].copy_from_slice(&[0, 1, 0]);
    assert_eq!(world.receive(&client, &rest), []);
    world.connect(&client);
    assert_eq!(world.receive(&client, &rest), []);
    assert_eq!(world.listener.counts().strays, 2);
    let client = client.with_random(7);
    world.knock(&client);
    // To the scripted engine one ClientHello is as good as another.
    assert_eq!(world.receive(&client, &rest), [Said::Transmit(1, b"flight".to_vec())]);
    assert_eq!(world.listener.counts().cookies, 2);
}

#[test]
fn whoever_begins_anew_gives_up_what_it_began() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    let asked = world.receive(&client, &client.handshake(0, b'w', b"me"));
    let [Said::WhoIs(key, _)] = asked[..] else { panic!("{asked:?}") };
    let again = client.with_random(7);
    let said = world.knock(&again);
    let expected = [Said::Failed(Some(key), 1, Failure::Displaced), Said::Transmit(1, b"flight".to_vec())];
    assert_eq!(said, expected);
    assert_eq!(world.answer(key, Answer::Admitted), []);
    assert_eq!(world.listener.path(key), None);
    assert_eq!((world.listener.handshakes(), world.listener.counts().displaced), (1, 0));
    let said = world.receive(&again, &again.handshake(1, b'e', &[]));
    assert_ne!(established(&said), Some(key));
}

/// A session of one random, and a handshake of another at the same address.
fn both(world: &mut World) -> (Client, Key, Client) {
    let old = Client::new(1);
    let key = world.connect(&old);
    let new = old.with_random(7);
    assert_eq!(world.knock(&new), [Said::Transmit(1, b"flight".to_vec())]);
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (1, 1));
    (old, key, new)
}

#[test]
fn an_old_session_stays_until_the_new_handshake_has_succeeded() {
    let mut world = World::new(Limits::default());
    let (old, old_key, new) = both(&mut world);
    let said = world.receive(&old, &old.data(b'd', b"still here"));
    assert_eq!(data(&said), [(old_key, 1, b"still here".as_slice())]);
    let said = world.receive(&new, &new.handshake(1, b'e', b"now me"));
    let new_key = established(&said).unwrap();
    let expected = [
        Said::Transmit(1, b"finished".to_vec()),
        Said::Closed(old_key, 1, Closing::Replaced),
        Said::Established(new_key, 1),
        Said::Data(new_key, 1, b"now me".to_vec()),
    ];
    assert_eq!(said, expected, "and its peer is told no close_notify");
    // What was under way of the old one.
    assert_eq!(world.receive(&old, &old.data(b'd', b"late")), []);
    assert_eq!(world.receive(&old, &old.data(b'c', b"")), []);
    assert_eq!(world.listener.counts().forged, 2);
    let said = world.receive(&new, &new.data(b'd', b"fine"));
    assert_eq!(data(&said), [(new_key, 1, b"fine".as_slice())]);
    assert_eq!(world.listener.path(old_key), None);
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (1, 0));
}

#[test]
fn an_old_session_outlives_a_handshake_that_fails() {
    for failing in [b'f', b's'] {
        let mut world = World::new(Limits::default());
        let (old, old_key, new) = both(&mut world);
        let said = world.receive(&new, &new.handshake(0, failing, &[]));
        assert!(matches!(said[..], [Said::Failed(None, 1, _)]), "{said:?}");
        assert_eq!((world.listener.sessions(), world.listener.handshakes()), (1, 0));
        // Records of either kind are the session's again.
        let said = world.receive(&old, &old.handshake(1, b'd', b"one"));
        assert_eq!(data(&said), [(old_key, 1, b"one".as_slice())]);
        let said = world.receive(&old, &old.data(b'd', b"two"));
        assert_eq!(data(&said), [(old_key, 1, b"two".as_slice())]);
        // And the next handshake is none the worse.
        let next = old.with_random(8);
        world.connect(&next);
    }
}

#[test]
fn a_hello_without_a_cookie_changes_nothing() {
    let mut world = World::new(Limits::default());
    let (old, key, new) = both(&mut world);
    for random in [1, 7, 9] {
        let stranger = old.with_random(random);
        let said = world.receive(&stranger, &stranger.hello(&[]));
        assert!(matches!(&said[..], [Said::Transmit(1, reply)] if reply[13] == 3), "{said:?}");
    }
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (1, 1));
    let said = world.receive(&old, &old.data(b'd', b"x"));
    assert_eq!(data(&said), [(key, 1, b"x".as_slice())]);
    assert!(established(&world.receive(&new, &new.handshake(1, b'e', &[]))).is_some());
}

/// Who has got a record of this type and epoch, sealed with the keys of either: that one does not drop it.
fn taken_by(content: u8, epoch: u16) -> &'static str {
    let mut world = World::new(Limits::default());
    let (old, _, new) = both(&mut world);
    let is_taken = |world: &mut World, client: &Client| {
        let before = world.listener.counts().forged;
        world.receive(client, &record(content, epoch, &script(client.tag(), b'n', &[])));
        world.listener.counts().forged == before
    };
    match (is_taken(&mut world, &old), is_taken(&mut world, &new)) {
        (true, false) => "the session",
        (false, true) => "the handshake",
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_handshake_has_what_is_a_handshakes_and_the_session_the_rest() {
    for content in [20, 21, 22, 23] {
        assert_eq!(taken_by(content, 0), "the handshake", "{content}");
    }
    for epoch in [1, 2, 65_535] {
        assert_eq!(taken_by(22, epoch), "the handshake");
        for content in [20, 21, 23] {
            assert_eq!(taken_by(content, epoch), "the session", "{content}");
        }
    }
}

#[test]
fn with_one_of_them_there_it_has_everything() {
    for (content, epoch) in [(20, 0), (21, 0), (22, 0), (23, 0), (21, 1), (22, 1), (23, 1)] {
        let mut world = World::new(Limits::default());
        let client = Client::new(1);
        world.knock(&client);
        let some = record(content, epoch, &script(client.tag(), b'p', &[]));
        world.receive(&client, &some);
        world.receive(&client, &client.handshake(1, b'e', &[]));
        world.receive(&client, &some);
        assert_eq!(world.listener.counts().replayed, 2, "{content} in epoch {epoch}");
    }
}

#[test]
fn a_path_moves_with_what_is_authenticated_only() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    // Nothing is yet.
    world.receive(&client.by(50), &client.handshake(0, b'n', &[]));
    let asked = world.receive(&client.by(51), &client.handshake(0, b'w', b"me"));
    let [Said::WhoIs(key, 1)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(world.listener.path(key), Some(1));
    let said = world.receive(&client.by(52), &client.handshake(1, b'e', &[]));
    assert_eq!(said[1], Said::Established(key, 52));
    world.receive(&client.by(53), &client.with_random(9).data(b'd', b"forged"));
    world.receive(&client.by(54), &client.data(b'p', b"replayed"));
    world.receive(&client.by(55), &client.data(b'm', b"malformed"));
    world.receive(&client.by(56), &client.data(b'n', b"nothing"));
    assert_eq!(world.listener.path(key), Some(52));
    assert_eq!(world.send(key, b"x").1, [Said::Transmit(52, b"x".to_vec())]);
    let said = world.receive(&client.by(57), &client.data(b'd', b"mine"));
    assert_eq!(said, [Said::Data(key, 57, b"mine".to_vec())]);
    assert_eq!(world.listener.path(key), Some(57));
    let said = world.receive(&client.by(58), &client.data(b'c', b""));
    assert_eq!(said, [Said::Closed(key, 58, Closing::CloseNotify)]);
}

#[test]
fn one_peer_cannot_speak_for_another() {
    let mut world = World::new(Limits::default());
    let (one, two) = (Client::new(1), Client::new(2));
    let key = world.connect(&one);
    world.connect(&two);
    // The right keys from the wrong address: somebody else's session hears it.
    assert_eq!(world.receive(&two, &one.data(b'd', b"x")), []);
    assert_eq!(world.listener.counts().forged, 1);
    assert_eq!(world.listener.path(key), Some(1));
}
