//! Nobody gets in who has not returned a cookie, and nothing is kept of whoever has not.

use landfall_dtls::Limits;

use crate::world::{Client, Said, World, hello, record};

fn flight(client: &Client) -> Vec<Said> {
    vec![Said::Transmit(client.way, b"flight".to_vec())]
}

fn is_verify_request(said: &[Said]) -> bool {
    matches!(said, [Said::Transmit(_, bytes)] if bytes[0] == 22 && bytes[13] == 3)
}

#[test]
fn a_cookie_lets_in_whom_it_was_given_to() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let cookie = world.cookie(&client);
    let others = [
        Client { remote: "10.0.0.1:5685".parse().unwrap(), ..client },
        Client { remote: "10.0.0.2:5684".parse().unwrap(), ..client },
        client.with_random(9),
    ];
    for other in others {
        assert!(is_verify_request(&world.receive(&other, &other.hello(&cookie))), "{other:?}");
    }
    assert_eq!(world.listener.handshakes(), 0);
    assert_eq!(world.receive(&client, &client.hello(&cookie)), flight(&client));
    assert_eq!(world.listener.handshakes(), 1);
    assert_eq!((world.listener.counts().cookies, world.listener.counts().begun), (4, 1));
}

#[test]
fn a_cookie_is_good_for_one_rotation_and_not_for_two() {
    for (ms, is_good) in [(60_000, true), (120_000, false)] {
        let mut world = World::new(Limits::default());
        let client = Client::new(1);
        let cookie = world.cookie(&client);
        world.pass(ms);
        assert_eq!(world.receive(&client, &client.hello(&cookie)) == flight(&client), is_good, "{ms} ms");
    }
}

#[test]
fn no_answer_to_a_stranger_is_larger_than_what_it_answers() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let whole = client.hello(&[]);
    // All starts of a ClientHello, the lengths put right as those of a fragment.
    for end in 0..=whole.len() - 25 {
        let mut start = whole[..25 + end].to_vec();
        start[11..13].copy_from_slice(&(12 + end as u16).to_be_bytes());
        start[22..25].copy_from_slice(&[0, 0, end as u8]);
        for said in world.receive(&client, &start) {
            let Said::Transmit(_, reply) = said else { panic!("{said:?}") };
            assert!(reply.len() <= start.len(), "{} bytes for {}", reply.len(), start.len());
        }
    }
    // The cookie's length is the last that is needed of it.
    assert_eq!(world.listener.counts().cookies as usize, whole.len() - 25 - 35);
    assert_eq!(world.listener.footprint(), World::new(Limits::default()).listener.footprint());
}

#[test]
fn a_client_of_another_version_is_told_so() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    for version in [0xFEFF_u16, 0x0100, 0x0303, 0xFEFE] {
        let said = world.receive(&client, &hello(version, &client.random, &[]));
        let alert = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 70].to_vec();
        assert_eq!(said, [Said::Transmit(1, alert)], "{version:x}");
    }
    // What a client of 1.3 says that hides it, and one that does not.
    for version in [0xFEFD, 0xFEFC] {
        let said = world.receive(&client, &hello(version, &client.random, &[]));
        assert!(is_verify_request(&said), "{version:x}");
    }
    assert_eq!((world.listener.counts().versions, world.listener.counts().cookies), (4, 2));
}

#[test]
fn a_hundred_thousand_hellos_cost_no_memory() {
    let mut world = World::new(Limits::default());
    let before = world.listener.footprint();
    let mut client = Client::new(0);
    let mut datagram = client.hello(&[0; 17]);
    for number in 0..100_000_u32 {
        client.remote.set_ip(std::net::Ipv4Addr::from(0x0A00_0000 + number).into());
        datagram[40..44].copy_from_slice(&number.to_be_bytes());
        assert!(is_verify_request(&world.receive(&client, &datagram)));
    }
    assert_eq!(world.listener.counts().cookies, 100_000);
    assert_eq!(world.listener.footprint(), before);
    assert_eq!((world.listener.handshakes(), world.listener.sessions()), (0, 0));
    assert_eq!(world.listener.next_timeout(), None);
}

#[test]
fn what_is_no_record_is_counted_and_not_answered() {
    let mut world = World::new(Limits::default());
    let client = Client::new(1);
    let whole = client.hello(&[]);
    let mut bad: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    // Other types of content, and a version that is none of DTLS.
    bad.extend([0, 19, 24, 25, 128, 255].map(|content| [&[content], &whole[1..]].concat()));
    bad.push([&[22, 3, 3], &whole[3..]].concat());
    for datagram in &bad {
        assert_eq!(world.receive(&client, datagram), []);
    }
    assert_eq!(world.listener.counts().malformed as usize, bad.len());
    assert_eq!(world.receive(&client, &record(23, 1, b"who knows")), []);
    assert_eq!(world.receive(&client, &record(22, 0, &[16, 0, 0])), []);
    assert_eq!(world.receive(&client, &record(21, 0, &[1, 0])), []);
    assert_eq!(world.listener.counts().strays, 3);
}
