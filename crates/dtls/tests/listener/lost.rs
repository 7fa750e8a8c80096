//! Data under keys that are gone: its sender is told, and nothing can be made of that.

use landfall_dtls::{Key, Limits};

use crate::world::{Client, Said, World, record};

/// A record of data as somebody would seal it: number 9 of an epoch.
fn sealed(epoch: u16, length: usize) -> Vec<u8> {
    record(23, epoch, &vec![7; length])
}

/// The alert that answers one: fatal bad_record_mac, in the clear.
fn alert() -> Vec<u8> {
    let number = (9_u64 + 1_024).to_be_bytes();
    [&[21, 0xFE, 0xFD, 0, 0][..], &number[2..], &[0, 2, 2, 20]].concat()
}

fn counts(world: &World) -> (u64, u64, u64) {
    let counts = world.listener.counts();
    (counts.strays, counts.lost, counts.alerts)
}

#[test]
fn a_device_whose_channel_is_gone_is_told() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let said = world.receive(&client, &sealed(1, 16));
    assert_eq!(said, [Said::Transmit(1, alert())]);
    assert!(alert().len() < sealed(1, 16).len(), "less than what it answers");
    assert_eq!(counts(&world), (1, 1, 1));
    assert_eq!((world.listener.sessions(), world.listener.handshakes()), (0, 0), "nothing is kept");
}

#[test]
fn nothing_but_data_is_answered() {
    let mut world = World::new(Limits::default());
    let silent = [
        record(21, 0, &[2, 20]),
        record(21, 1, &[7; 26]),
        record(20, 0, &[1]),
        record(20, 1, &[7; 26]),
        record(22, 1, &[7; 40]),
        record(22, 0, &[16; 40]),
        record(23, 0, &[7; 40]),
        sealed(1, 15),
        sealed(1, 0),
    ];
    for (number, datagram) in (1..).zip(&silent) {
        assert_eq!(world.receive(&Client::new(number), datagram), [], "{datagram:?}");
    }
    assert_eq!(counts(&world), (silent.len() as u64, 0, 0));
}

/// Two that answer each other's records would go on for ever.
#[test]
fn an_answer_is_not_answered() {
    let mut world = World::new(Limits::default());
    let said = world.receive(&Client::new(1), &sealed(1, 30));
    let [Said::Transmit(_, answer)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(world.receive(&Client::new(2), answer), []);
}

#[test]
fn an_address_is_answered_once_in_ten_seconds() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let mut answered = 0;
    for _ in 0..100 {
        answered += world.receive(&client, &sealed(1, 30)).len();
        world.pass(250);
    }
    assert_eq!((answered, counts(&world)), (3, (100, 100, 3)));
}

#[test]
fn so_many_are_answered_in_a_second_whoever_they_are() {
    let mut world = World::new(Limits { alerts_per_second: 5, ..Limits::default() });
    let answered = |world: &mut World, numbers: std::ops::Range<u32>| -> usize {
        numbers.map(|number| world.receive(&Client::new(number), &sealed(1, 30)).len()).sum()
    };
    assert_eq!(answered(&mut world, 0..1_000), 5);
    world.pass(1_000);
    assert_eq!(answered(&mut world, 1_000..2_000), 5);
    let mut world = World::new(Limits { alerts_per_second: 0, ..Limits::default() });
    assert_eq!(answered(&mut world, 0..10), 0, "0: none at all");
    assert_eq!(counts(&world), (10, 10, 0));
}

/// Whoever forges a device's address makes this side say nothing against its channel, nor against its handshake.
#[test]
fn no_forged_record_has_a_word_said_against_a_channel_that_lives() {
    let mut world = World::new(Limits::default());
    let (established, shaking) = (Client::new(1), Client::new(2));
    let key: Key = world.connect(&established);
    world.knock(&shaking);
    for client in [established, shaking] {
        for epoch in [0, 1, 2, 65_535] {
            for content in 20..=23 {
                let said = world.receive(&client, &record(content, epoch, &[7; 40]));
                assert_eq!(said, [], "{content} in epoch {epoch}");
            }
        }
    }
    assert_eq!(counts(&world), (0, 0, 0));
    assert!(world.listener.path(key).is_some());
}
