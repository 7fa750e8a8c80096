//! What is bounded, at its bound.

use landfall_dtls::{Closing, Failure, Key, Limits};

use crate::fake::CLOSE_NOTIFY;
use crate::world::{Client, Said, World, data, established};

fn limited(world: &World) -> u64 {
    world.listener.counts().limited
}

#[test]
fn of_too_many_handshakes_the_quietest_goes() {
    let mut world = World::new(Limits { max_handshakes: 3, ..Limits::default() });
    let clients: Vec<Client> = (1..=4).map(Client::new).collect();
    for client in &clients[..3] {
        world.knock(client);
        world.pass(10);
    }
    // The first has said something since, and somebody in the second's name something that was dropped.
    world.receive(&clients[0], &clients[0].handshake(0, b'n', &[]));
    world.receive(&clients[1], &clients[2].handshake(0, b'n', &[]));
    let said = world.knock(&clients[3]);
    let expected = [Said::Failed(None, 2, Failure::Displaced), Said::Transmit(4, b"flight".to_vec())];
    assert_eq!(said, expected);
    assert_eq!((world.listener.handshakes(), world.listener.counts().displaced), (3, 1));
    for client in [0, 2, 3].map(|at| &clients[at]) {
        assert!(established(&world.receive(client, &client.handshake(1, b'e', &[]))).is_some());
    }
    assert_eq!((world.listener.handshakes(), world.listener.sessions()), (0, 3));
}

#[test]
fn a_flood_of_handshakes_keeps_nobody_out() {
    let mut world = World::new(Limits { max_handshakes: 64, ..Limits::default() });
    let honest = Client::new(1);
    for number in 0..2_000 {
        world.knock(&Client::new(1_000 + number));
    }
    assert_eq!(world.listener.handshakes(), 64);
    let before = world.listener.footprint();
    world.knock(&honest);
    // Between its messages half of the table is filled anew.
    for number in 0..32 {
        world.knock(&Client::new(5_000 + number));
    }
    let asked = world.receive(&honest, &honest.handshake(0, b'W', b"me"));
    let [Said::WhoIs(key, _)] = asked[..] else { panic!("{asked:?}") };
    for number in 0..32 {
        world.knock(&Client::new(6_000 + number));
    }
    assert_eq!(established(&world.answer(key, landfall_dtls::Answer::Admitted)), Some(key));
    assert_eq!((world.listener.handshakes(), world.listener.sessions()), (63, 1));
    assert_eq!(world.listener.counts().displaced, 2_000 + 64 + 1 - 64);
    assert!(world.listener.footprint() <= before, "{} bytes after {before}", world.listener.footprint());
}

#[test]
fn no_handshakes_at_all_is_a_limit_too() {
    let mut world = World::new(Limits { max_handshakes: 0, ..Limits::default() });
    assert_eq!(world.knock(&Client::new(1)), [Said::Failed(None, 1, Failure::Limit)]);
    let mut world = World::new(Limits { max_sessions: 0, ..Limits::default() });
    assert_eq!(world.knock(&Client::new(1)), [Said::Failed(None, 1, Failure::Limit)]);
}

#[test]
fn a_full_house_lets_in_whom_a_silent_one_makes_room_for() {
    let mut world = World::new(Limits { max_sessions: 3, ..Limits::default() });
    let clients: Vec<Client> = (1..=3).map(Client::new).collect();
    let keys: Vec<Key> = clients.iter().map(|client| world.connect(client)).collect();
    let late = Client::new(9);
    world.pass(Limits::EVICT_AFTER_MS - 1);
    assert_eq!(world.knock(&late), [Said::Failed(None, 9, Failure::Limit)]);
    assert_eq!((limited(&world), world.listener.handshakes()), (1, 0));
    world.receive(&clients[0], &clients[0].data(b'd', b"here"));
    world.pass(1);
    world.knock(&late);
    let said = world.receive(&late, &late.handshake(1, b'e', &[]));
    let key = established(&said).unwrap();
    let expected = [
        Said::Transmit(9, b"finished".to_vec()),
        Said::Established(key, 9),
        Said::Transmit(2, CLOSE_NOTIFY.to_vec()),
        Said::Closed(keys[1], 2, Closing::Evicted),
    ];
    assert_eq!(said, expected);
    assert_eq!((world.listener.sessions(), world.listener.counts().evicted), (3, 1));
    // The next who is silent is the third; the first was heard just now.
    let later = Client::new(10);
    world.knock(&later);
    let said = world.receive(&later, &later.handshake(1, b'e', &[]));
    assert!(said.contains(&Said::Closed(keys[2], 3, Closing::Evicted)), "{said:?}");
    let last = Client::new(11);
    assert_eq!(world.knock(&last), [Said::Failed(None, 11, Failure::Limit)]);
}

#[test]
fn room_is_looked_for_when_a_handshake_succeeds() {
    let mut world = World::new(Limits { max_sessions: 1, ..Limits::default() });
    let (one, two) = (Client::new(1), Client::new(2));
    world.knock(&one);
    world.knock(&two);
    world.receive(&two, &two.handshake(0, b'w', b"me"));
    let key = established(&world.receive(&one, &one.handshake(1, b'e', &[]))).unwrap();
    let said = world.receive(&two, &two.handshake(1, b'e', b"data of nobody"));
    assert!(
        matches!(&said[..], [
            Said::Transmit(2, finished),
            Said::Failed(Some(_), 2, Failure::Limit),
            Said::Transmit(2, close),
        ] if finished == b"finished" && close == CLOSE_NOTIFY),
        "{said:?}"
    );
    assert_eq!((world.listener.sessions(), world.listener.handshakes(), limited(&world)), (1, 0, 1));
    assert_eq!(world.listener.counts().established, 1);
    assert!(world.listener.path(key).is_some());
}

#[test]
fn whoever_replaces_its_own_session_needs_no_room() {
    let mut world = World::new(Limits { max_sessions: 2, ..Limits::default() });
    let (one, two) = (Client::new(1), Client::new(2));
    let keys = [world.connect(&one), world.connect(&two)];
    let again = one.with_random(7);
    world.knock(&again);
    let said = world.receive(&again, &again.handshake(1, b'e', &[]));
    assert!(said.contains(&Said::Closed(keys[0], 1, Closing::Replaced)), "{said:?}");
    assert!(world.listener.path(keys[1]).is_some());
    assert_eq!((world.listener.sessions(), limited(&world), world.listener.counts().evicted), (2, 0, 0));
}

#[test]
fn forged_records_keep_nobody_alive() {
    let mut world = World::new(Limits { max_sessions: 2, session_timeout_ms: 100_000, ..Limits::default() });
    let (one, two) = (Client::new(1), Client::new(2));
    let keys = [world.connect(&one), world.connect(&two)];
    let forger = one.with_random(99);
    for _ in 0..7 {
        world.pass(10_000);
        for datagram in [forger.data(b'd', b"x"), forger.handshake(0, b'n', &[]), one.data(b'p', b"again")] {
            assert_eq!(world.receive(&one, &datagram), []);
        }
        assert_eq!(data(&world.receive(&two, &two.data(b'd', b"x"))).len(), 1);
    }
    world.pass(10_000);
    let late = Client::new(3);
    world.knock(&late);
    let said = world.receive(&late, &late.handshake(1, b'e', &[]));
    assert!(said.contains(&Said::Closed(keys[0], 1, Closing::Evicted)), "{said:?}");
    assert!(world.listener.path(keys[1]).is_some());
    // Nor is its end put off.
    let mut world = World::new(Limits { session_timeout_ms: 100_000, ..Limits::default() });
    let key = world.connect(&one);
    for _ in 0..9 {
        world.pass(10_000);
        world.receive(&one, &forger.data(b'd', b"x"));
    }
    let said = world.pass(10_010);
    assert!(said.contains(&Said::Closed(key, 1, Closing::Expired)), "{said:?}");
}

#[test]
fn one_host_has_so_many_and_no_more() {
    let mut world = World::new(Limits { max_per_host: 3, ..Limits::default() });
    let at = |address: &str, way| Client { remote: address.parse().unwrap(), way, random: [way as u8; 32] };
    let (one, two, three) = (at("192.0.2.1:1", 1), at("192.0.2.1:2", 2), at("192.0.2.1:3", 3));
    let key = world.connect(&one);
    world.connect(&two);
    world.knock(&three);
    let before = world.listener.footprint();
    let fourth = at("192.0.2.1:4", 4);
    assert_eq!(world.knock(&fourth), [Said::Failed(None, 4, Failure::Limit)]);
    assert_eq!((limited(&world), world.listener.footprint()), (1, before));
    // The same host beginning its handshake anew is no more than it was; another host is none of this one's.
    assert_eq!(world.knock(&three.with_random(77)).len(), 2);
    world.connect(&at("192.0.2.2:4", 5));
    // Nor is what takes the place of a session.
    assert_eq!(world.knock(&one.with_random(78)).len(), 1);
    world.receive(&one, &one.with_random(78).handshake(0, b'f', &[]));
    // One leaves, one comes.
    world.close(key);
    world.connect(&fourth);
    let sixes = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::ffff:0:0:3]:1"];
    for (way, address) in (10..).zip(sixes) {
        world.connect(&at(address, way));
    }
    let neighbour = at("[2001:db8::4]:9", 20);
    assert_eq!(world.knock(&neighbour), [Said::Failed(None, 20, Failure::Limit)]);
    world.connect(&at("[2001:db8:0:1::4]:9", 21));
}

#[test]
fn a_host_is_free_again_when_its_handshakes_are_over() {
    let mut world = World::new(Limits { max_per_host: 1, max_handshakes: 1, ..Limits::default() });
    let (one, two) = (Client::new(1), Client::new(2));
    world.knock(&one);
    // Displaced.
    world.knock(&two);
    world.knock(&one);
    // Failed.
    world.receive(&one, &one.handshake(0, b'f', &[]));
    world.knock(&one);
    // Timed out.
    world.pass(31_000);
    let key = world.connect(&one);
    world.close(key);
    // Expired.
    world.connect(&one);
    world.pass(90_000_000);
    world.connect(&one);
    assert_eq!(limited(&world), 0);
}
