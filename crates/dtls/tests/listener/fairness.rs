//! Who makes room for whom: nobody's crowd costs others their handshakes, or their sessions.

use std::net::{Ipv4Addr, SocketAddr};

use landfall_dtls::{Closing, Failure, Key, Limits};

use crate::world::{Client, Said, World, established};

/// A host with many ports.
fn at(host: u32, port: u16) -> Client {
    let ip = Ipv4Addr::from(0x0A00_0000 + host);
    let number = host << 16 | u32::from(port);
    let mut random = [port as u8; 32];
    random[1..5].copy_from_slice(&number.to_be_bytes());
    Client { remote: SocketAddr::from((ip, port)), way: number, random }
}

fn finishes(world: &mut World, client: &Client) -> Option<Key> {
    let said = world.receive(client, &client.handshake(1, b'e', &[]));
    established(&said)
}

/// Nineteen seconds of 9,000 ClientHellos a second from one address, all with their cookies, and devices whose way there and back
/// takes eight seconds.
#[test]
fn slow_devices_come_in_beside_a_crowd_from_one_address() {
    let limits = Limits { max_handshakes: 256, max_handshakes_per_host: 32, ..Limits::default() };
    let mut world = World::new(limits);
    let slow: Vec<Client> = (1..=100).map(|host| at(host, 5_684)).collect();
    let (mut ports, mut came) = ((1_024..60_000).cycle(), 0);
    for second in 0..19 {
        for client in &slow {
            match second {
                2 => drop(world.knock(client)),
                10 => drop(world.receive(client, &client.handshake(0, b'n', &[]))),
                18 => came += usize::from(finishes(&mut world, client).is_some()),
                _ => {}
            }
        }
        for _ in 0..9_000 {
            let flooder = at(7_777, ports.next().unwrap());
            world.knock(&flooder);
        }
        world.pass(1_000);
        assert!(world.listener.handshakes() <= 32 + 100, "the crowd has its share");
    }
    assert_eq!(came, 100);
}

/// The same, when many hosts do it together and all places are taken: whoever has the most makes room.
#[test]
fn of_a_full_table_the_host_with_the_most_makes_room() {
    let limits = Limits { max_handshakes: 64, max_handshakes_per_host: 32, ..Limits::default() };
    let mut world = World::new(limits);
    let slow: Vec<Client> = (1..=40).map(|host| at(host, 5_684)).collect();
    slow.iter().for_each(|client| drop(world.knock(client)));
    for port in 0..500 {
        world.pass(1);
        for host in 100..104 {
            world.knock(&at(host, port));
        }
    }
    assert_eq!(world.listener.handshakes(), 64);
    for client in &slow {
        assert!(finishes(&mut world, client).is_some(), "{client:?}");
    }
}

#[test]
fn where_all_have_the_same_the_quietest_of_all_makes_room() {
    let mut world = World::new(Limits { max_handshakes: 6, ..Limits::default() });
    for client in [at(1, 1), at(2, 1), at(3, 1), at(2, 2), at(3, 2), at(1, 2)] {
        world.knock(&client);
        world.pass(1);
    }
    // Three hosts with two each, and one that is new: host 1 was heard first.
    let said = world.knock(&at(9, 1));
    assert_eq!(said[0], Said::Failed(None, at(1, 1).way, Failure::Displaced));
    // Now hosts 2 and 3 have the most.
    let said = world.knock(&at(8, 1));
    assert_eq!(said[0], Said::Failed(None, at(2, 1).way, Failure::Displaced));
    // Whoever has as many as anybody makes room for himself, though others are quieter.
    let said = world.knock(&at(3, 3));
    assert_eq!(said[0], Said::Failed(None, at(3, 1).way, Failure::Displaced));
    assert_eq!(world.listener.handshakes(), 6);
}

#[test]
fn a_host_has_so_many_handshakes_and_no_more() {
    let limits = Limits { max_handshakes_per_host: 3, ..Limits::default() };
    let mut world = World::new(limits);
    for port in 1..=3 {
        assert_eq!(world.knock(&at(1, port)).len(), 1, "at the limit");
    }
    let fourth = at(1, 4);
    assert_eq!(world.knock(&fourth), [Said::Failed(None, fourth.way, Failure::Limit)]);
    assert_eq!((world.listener.counts().limited, world.listener.handshakes()), (1, 3));
    // Another host is none of this one's, and what is begun anew at an address is no more than it was.
    assert_eq!(world.knock(&at(2, 1)).len(), 1);
    assert_eq!(world.knock(&at(1, 2).with_random(99)).len(), 2);
    // Nor do handshakes count that have succeeded.
    assert!(finishes(&mut world, &at(1, 3)).is_some());
    assert_eq!(world.knock(&fourth).len(), 1);
    // Silence makes room: the first was heard longest ago.
    world.pass(Limits::DISPLACE_AFTER_MS - 1);
    let fifth = at(1, 5);
    assert_eq!(world.knock(&fifth), [Said::Failed(None, fifth.way, Failure::Limit)]);
    world.pass(1);
    assert_eq!(world.knock(&fifth)[0], Said::Failed(None, at(1, 1).way, Failure::Displaced));
}

#[test]
fn strangers_of_one_host_take_no_other_strangers_place() {
    let limits = Limits { max_handshakes: 8, max_handshakes_per_host: 4, ..Limits::default() };
    let mut world = World::new(limits);
    let quiet: Vec<Key> = (1..=4).map(|host| world.come_in(&at(host, 1)).0).collect();
    let crowd: Vec<Key> = (1..=20).map(|port| world.come_in(&at(9, port)).0).collect();
    assert_eq!(world.listener.sessions(), 8);
    assert!(quiet.iter().all(|key| world.listener.path(*key).is_some()));
    assert!(crowd[16..].iter().all(|key| world.listener.path(*key).is_some()), "its own oldest went");
    // Full: the host with the most makes room for a new one.
    let (_, said) = world.come_in(&at(5, 1));
    assert!(said.contains(&Said::Closed(crowd[16], at(9, 17).way, Closing::Evicted)), "{said:?}");
}

/// A key that proves a device in its handshake is no other channel's; what is said on a channel may be said on a thousand.
#[test]
fn no_device_makes_room_for_a_channel_that_was_only_vouched_for() {
    let limits = Limits { max_sessions: 3, handshake_timeout_ms: 1_000_000, ..Limits::default() };
    let mut world = World::new(limits);
    let device = world.connect(&at(1, 1));
    let mut strangers: Vec<Key> = (2..=6).map(|host| world.come_in(&at(host, 1)).0).collect();
    strangers.reverse();
    let mut vouch = |world: &mut World| {
        let key = strangers.pop().unwrap();
        let (is_known, said) = world.vouch(key);
        (key, is_known, said)
    };
    let (first, ..) = vouch(&mut world);
    let (second, ..) = vouch(&mut world);
    assert_eq!((world.listener.vouched(), world.listener.sessions()), (2, 6));
    let (_, is_known, said) = vouch(&mut world);
    assert!(!is_known && said.is_empty(), "all were heard just now: {said:?}");
    world.pass(Limits::EVICT_AFTER_MS);
    // The device is quieter than any.
    let (third, is_known, said) = vouch(&mut world);
    assert!(is_known && said.contains(&Said::Closed(first, at(2, 1).way, Closing::Evicted)), "{said:?}");
    let (fourth, is_known, said) = vouch(&mut world);
    assert!(is_known && said.contains(&Said::Closed(second, at(3, 1).way, Closing::Evicted)), "{said:?}");
    let (fifth, _) = world.come_in(&at(7, 1));
    assert_eq!(world.vouch(fifth), (false, vec![]));
    assert!([device, third, fourth].iter().all(|key| world.listener.path(*key).is_some()));
    // One that proves itself takes the place of those first.
    world.pass(Limits::EVICT_AFTER_MS);
    world.knock(&at(8, 1));
    let said = world.receive(&at(8, 1), &at(8, 1).handshake(1, b'e', &[]));
    assert!(said.contains(&Said::Closed(third, at(5, 1).way, Closing::Evicted)), "{said:?}");
    assert!(world.listener.path(device).is_some());
}
