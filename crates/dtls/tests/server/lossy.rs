//! Datagrams that are lost, late, twice or out of order.

use landfall_dtls::{Engine, EngineEvent, ServerConfig, Stage};

use super::certificates::config;
use super::pki::Pki;
use super::world::{Fate, KEY, Verdict, Way, World, certificate_client, psk_client, psk_config};

type New = Box<dyn Fn() -> World>;

/// Handshakes of both kinds.
fn all() -> Vec<(&'static str, New)> {
    let certificates = || {
        let pki = Pki::new();
        let config = ServerConfig { mtu: 400, ..config(&pki, true, true) };
        World::new(config, certificate_client(pki.client("meter"), 400)).answering(Some(Verdict::Admitted))
    };
    vec![
        ("psk", Box::new(|| World::new(psk_config(), psk_client(KEY)))),
        ("certificates", Box::new(certificates)),
    ]
}

fn retransmitted(world: &World) -> usize {
    world.told.events.iter().filter(|event| matches!(event, EngineEvent::Retransmitted)).count()
}

#[test]
fn any_one_datagram_may_be_lost() {
    for (name, new) in all() {
        let mut whole = new();
        whole.shake();
        let (sent, spare) = (whole.sent(), retransmitted(&whole));
        assert_eq!(spare, 0, "{name}");
        for lost in 0..sent {
            let mut world =
                new().with_fate(move |_, number, _| if number == lost { Fate::Lost } else { Fate::Arrives });
            world.shake();
            assert!(world.now < 20_000, "{name} without {lost}: {} ms", world.now);
            world.set_fate(|_, _, _| Fate::Arrives);
            world.assert_flows();
        }
    }
}

#[test]
fn any_two_datagrams_may_be_lost() {
    let new = &all()[0].1;
    for first in 0..8 {
        for second in first + 1..9 {
            let mut world =
                new().with_fate(
                    move |_, number, _| {
                        if number == first || number == second { Fate::Lost } else { Fate::Arrives }
                    },
                );
            world.shake();
            world.set_fate(|_, _, _| Fate::Arrives);
            world.assert_flows();
        }
    }
}

#[test]
fn every_datagram_may_come_twice() {
    for (name, new) in all() {
        let mut world = new().with_fate(|_, _, _| Fate::Twice);
        world.shake();
        assert_eq!(world.server.stage(), Stage::Established, "{name}");
        assert!(world.sent() < 40, "{name}: no storm of answers to answers: {}", world.sent());
        world.assert_flows();
    }
}

#[test]
fn datagrams_may_overtake_each_other() {
    for (name, new) in all() {
        for modulus in 2..6_u64 {
            let mut world = new().with_fate(move |_, number, _| {
                // The earlier ones of a flight arrive later.
                Fate::Late(30 - (number as u64 * 7) % (modulus * 5))
            });
            world.shake();
            assert_eq!(world.server.stage(), Stage::Established, "{name} {modulus}");
            world.set_fate(|_, _, _| Fate::Arrives);
            world.assert_flows();
        }
    }
}

#[test]
fn the_last_flight_is_sent_again_until_data_comes() {
    let new = &all()[0].1;
    let mut lost = false;
    let mut world = new().with_fate(move |way, _, datagram| {
        // ChangeCipherSpec of the server: lost the first time.
        let last = way == Way::Down && datagram[0] == 20;
        if last && !lost {
            lost = true;
            return Fate::Lost;
        }
        Fate::Arrives
    });
    world.run_until(10);
    assert_eq!((world.server.stage(), world.connected), (Stage::Established, false));
    world.shake();
    assert_eq!(retransmitted(&world), 1);
    world.assert_flows();
}

#[test]
fn a_silent_client_is_told_again_ever_more_slowly() {
    let mut world = all()[0].1();
    let mut seen = 0;
    world.set_fate(move |way, _, _| {
        seen += usize::from(way == Way::Up);
        if way == Way::Up && seen > 1 { Fate::Lost } else { Fate::Arrives }
    });
    world.run_until(10);
    let mut times = Vec::new();
    while let Some(due) = world.server.next_timeout().filter(|_| times.len() < 100) {
        times.push(due);
        world.server.handle_timeout(due, &mut world.told);
    }
    let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000]);
}

#[test]
fn a_repeated_hello_is_answered_at_most_twice_a_second() {
    let mut hello = Vec::new();
    let mut world = all()[0].1();
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = std::rc::Rc::clone(&kept);
    world.set_fate(move |_, number, datagram| {
        if number == 0 {
            keep.borrow_mut().extend_from_slice(datagram);
        }
        if number == 0 { Fate::Arrives } else { Fate::Lost }
    });
    world.run_until(10);
    hello.extend_from_slice(&kept.borrow());
    let before = world.told.events.len();
    for now in (0..100).map(|n| 20 + n * 10) {
        world.server.receive(now, &mut hello.clone(), &mut world.told);
    }
    assert_eq!(world.told.events.len() - before, 2, "1,000 ms");
    for now in (0..100).map(|n| 10_000 + n * 1_000) {
        world.server.receive(now, &mut hello.clone(), &mut world.told);
    }
    assert!(retransmitted(&world) <= 10, "bounded for good");
}
