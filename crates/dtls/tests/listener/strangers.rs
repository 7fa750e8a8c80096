//! Clients that have proven nothing.

use landfall_dtls::{Closing, Limits};

use crate::fake::CLOSE_NOTIFY;
use crate::world::{Client, Said, World};

#[test]
fn a_stranger_has_as_long_as_a_handshake_whatever_it_says() {
    let limits = Limits { handshake_timeout_ms: 1_000, session_timeout_ms: 100_000, ..Limits::default() };
    let mut world = World::new(limits);
    let client = Client::new(1);
    let (key, _) = world.come_in(&client);
    for _ in 0..9 {
        assert_eq!(world.pass(100), []);
        assert_eq!(world.receive(&client, &client.data(b'd', b"x")), [Said::Data(key, 1, b"x".to_vec())]);
    }
    let said = world.pass(110);
    assert_eq!(said, [Said::Transmit(1, CLOSE_NOTIFY.to_vec()), Said::Closed(key, 1, Closing::Expired)]);
}

#[test]
fn who_is_vouched_for_is_one_of_the_sessions() {
    let limits = Limits { handshake_timeout_ms: 1_000, session_timeout_ms: 5_000, ..Limits::default() };
    let mut world = World::new(limits);
    let client = Client::new(1);
    let (key, _) = world.come_in(&client);
    world.pass(900);
    assert_eq!(world.vouch(key), (true, vec![]));
    assert_eq!(world.vouch(key), (true, vec![]), "once is enough");
    assert_eq!(world.pass(4_900), []);
    world.receive(&client, &client.data(b'd', b"x"));
    assert_eq!(world.pass(4_900), []);
    assert!(world.pass(200).contains(&Said::Closed(key, 1, Closing::Expired)));
    assert_eq!(world.vouch(key), (false, vec![]), "nobody is there");
}

#[test]
fn strangers_make_room_for_strangers_and_take_none_of_the_devices() {
    let mut world = World::new(Limits { max_sessions: 1, max_handshakes: 2, ..Limits::default() });
    let device = world.connect(&Client::new(1));
    world.pass(Limits::EVICT_AFTER_MS * 2);
    // Whose place will be taken is not said before somebody is known who takes it.
    let mut world_is = |number| {
        world.pass(1);
        world.come_in(&Client::new(number))
    };
    let (oldest, _) = world_is(2);
    let (_, said) = world_is(3);
    assert!(!said.iter().any(|said| matches!(said, Said::Closed(..))), "{said:?}");
    let (latest, said) = world_is(4);
    assert!(said.contains(&Said::Closed(oldest, 2, Closing::Evicted)), "{said:?}");
    assert_eq!(world.listener.sessions(), 3);
    // Nor does who is vouched for, while one that has proven itself could.
    assert_eq!(world.vouch(latest), (false, vec![]));
    assert!(world.listener.path(device).is_some());
    let late = Client::new(5);
    world.knock(&late);
    let said = world.receive(&late, &late.handshake(1, b'e', &[]));
    assert!(said.contains(&Said::Closed(device, 1, Closing::Evicted)), "{said:?}");
}
