//! What is due when.

use landfall_dtls::{Closing, Failure, Limits};

use crate::fake::CLOSE_NOTIFY;
use crate::world::{Client, Said, World, data};

/// How much later than its deadline something may be, in ms.
const LATE_MS: u64 = 10;

#[test]
fn a_handshake_has_its_time_whatever_it_says() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    for _ in 0..29 {
        assert_eq!(world.pass(1_000), []);
        world.receive(&client, &client.handshake(0, b'n', &[]));
    }
    assert_eq!(world.pass(999), []);
    assert_eq!(world.pass(1 + LATE_MS), [Said::Failed(None, 1, Failure::TimedOut)]);
    assert_eq!((world.listener.handshakes(), world.listener.next_timeout()), (0, None));
}

#[test]
fn a_session_lasts_until_it_was_silent_for_so_long() {
    let mut world = World::new(Limits { session_timeout_ms: 60_000, ..Limits::default() });
    let client = Client::new(1);
    let key = world.connect(&client);
    for _ in 0..10 {
        assert_eq!(world.pass(59_999), []);
        assert_eq!(data(&world.receive(&client, &client.data(b'd', b"x"))).len(), 1);
    }
    // What we send is no word of the peer's.
    world.pass(30_000);
    world.send(key, b"hello?").0.unwrap();
    assert_eq!(world.pass(29_999), []);
    let said = world.pass(1 + LATE_MS);
    assert_eq!(said, [Said::Transmit(1, CLOSE_NOTIFY.to_vec()), Said::Closed(key, 1, Closing::Expired)]);
    assert_eq!(world.listener.next_timeout(), None);
}

#[test]
fn an_engine_gets_its_timeouts() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    world.receive(&client, &client.handshake(0, b't', &[]));
    assert_eq!(world.pass(999), []);
    assert_eq!(world.pass(1 + LATE_MS), [Said::Transmit(1, b"again".to_vec())]);
    world.receive(&client, &client.handshake(0, b't', &[]));
    assert_eq!(world.pass(2_000), [Said::Transmit(1, b"again".to_vec())]);
    // Also when it is established, and its deadline is long before the session's.
    world.receive(&client, &client.handshake(1, b'e', &[]));
    world.pass(100_000);
    world.receive(&client, &client.data(b't', &[]));
    assert_eq!(world.pass(1_000 + LATE_MS), [Said::Transmit(1, b"again".to_vec())]);
    assert_eq!(world.listener.counts().retransmitted, 3);
}

#[test]
fn an_engine_whose_deadline_never_passes_keeps_nobody_from_the_clock() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    world.knock(&client);
    world.receive(&client, &client.handshake(0, b'T', &[]));
    let again = world.pass(100).len();
    assert!((1..=100).contains(&again), "{again} times in 100 ms");
}

#[test]
fn many_deadlines_at_once_are_worked_off_in_parts() {
    let limits = Limits { max_handshakes: 20_000, ..Limits::default() };
    let mut world = World::new(limits);
    for number in 0..10_000 {
        world.knock(&Client::new(number));
    }
    let mut calls = 0;
    let mut failed = 0;
    world.now += 40_000;
    while world.listener.next_timeout().is_some_and(|due| due <= world.now) {
        let mut heard = crate::world::Heard::default();
        world.listener.handle_timeout(world.now, &mut heard);
        failed += heard.0.len();
        calls += 1;
        assert!(heard.0.len() <= 4_096);
    }
    assert_eq!((failed, calls), (10_000, 3));
}

#[test]
fn a_clock_that_stands_still_or_steps_back_does_no_harm() {
    let mut world = World::new(Limits { session_timeout_ms: 60_000, ..Limits::default() });
    let client = Client::new(1);
    let key = world.connect(&client);
    world.pass(30_000);
    world.now -= 25_000;
    assert_eq!(data(&world.receive(&client, &client.data(b'd', b"x"))).len(), 1);
    assert_eq!(world.pass(0), []);
    assert!(world.pass(100_000).contains(&Said::Closed(key, 1, Closing::Expired)));
}
