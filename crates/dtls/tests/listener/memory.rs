//! What a session costs.

use std::sync::Arc;

use landfall_dtls::{Limits, Listener};

use crate::fake::Fake;
use crate::world::{Client, Heard, Way, World, established};

#[test]
fn a_session_costs_less_than_two_hundred_bytes_beside_its_engine() {
    let limits = Limits { max_sessions: 100_000, ..Limits::default() };
    let mut world = World::new(limits);
    for number in 0..limits.max_sessions {
        let client = Client::new(number as u32);
        world.connect(&client);
    }
    let own = size_of::<Fake>() + size_of::<Way>();
    let whole = world.listener.footprint() / limits.max_sessions;
    // All of it, with the places that are not taken: a table grows by doubling.
    let taken = limits.max_sessions.next_power_of_two() * own / limits.max_sessions;
    assert!(whole - taken <= 200, "{} bytes beside {own}", whole - taken);
}

#[test]
fn places_are_taken_again() {
    let mut world = World::new(Limits::default());
    let mut first = 0;
    for round in 0..50 {
        for number in 0..1_000 {
            world.connect(&Client::new(round * 1_000 + number));
        }
        world.close_all();
        let now = world.listener.footprint();
        first = if round == 0 { now } else { first };
        // A hash table may have grown once more for what was removed from it.
        assert!(now <= first + first / 4, "{first} bytes, and {now} after {round} rounds");
    }
}

#[test]
fn data_of_a_session_leaves_nothing_behind() {
    let mut listener: Listener<Fake, Way> = Listener::new(Arc::new(()), Limits::default(), [1; 32], 0);
    let client = Client::new(1);
    let mut heard = Heard::default();
    let mut receive = |listener: &mut Listener<Fake, Way>, bytes: Vec<u8>| {
        let mut bytes = bytes;
        listener.receive(0, (1, client.remote), &mut bytes, &mut heard);
        std::mem::take(&mut heard.0)
    };
    let said = receive(&mut listener, client.hello(&[]));
    let crate::world::Said::Transmit(_, reply) = &said[0] else { panic!("{said:?}") };
    receive(&mut listener, client.hello(&reply[28..]));
    let key = established(&receive(&mut listener, client.handshake(1, b'e', &[]))).unwrap();
    listener.send(key, &[0; 1_000], &mut Heard::default()).unwrap();
    let before = listener.footprint();
    for _ in 0..1_000 {
        receive(&mut listener, client.data(b'd', &[7; 500]));
        listener.send(key, &[0; 500], &mut Heard::default()).unwrap();
    }
    assert_eq!(listener.footprint(), before);
}
