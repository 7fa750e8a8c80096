//! Datagrams that are no good DTLS: hellos that contradict themselves, messages that a server never gets, noise, and every
//! such thing from the address of a device that is there.

use landfall_testkit::dtls::wire::{
    self, ClientHello, ECDHE_ECDSA_CCM_8, Fragment, PSK_CCM_8, PSK_GCM, Record, VERSION, content, message,
};
use landfall_testkit::dtls::{DtlsClient, Secret};
use landfall_testkit::proxy::Seed;
use landfall_testkit::{Pki, World};

use super::dtls::{KEY, Witness, assert_only_friends, begun, comes_in, metric, settings};
use crate::coap::Wire;

/// Datagrams of other protocols, and of none.
fn strangers() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b""[..],
        b"\x16",
        b"\x16\xfe\xfd",
        b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0",
        b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\0",
        b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\xff\xff",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\x16\x03\x03\0\0\0\0\0\0\0\0\0\x0c\x01\0\0\0\0\0\0\0\0\0\0\0",
        b"LF1 witness bye",
        b"\x40\x01\x12\x34",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x2f\xfe\xfd\0\0\0\0\0\0\0\0\0\x01x",
        b"\x18\xfe\xfd\0\0\0\0\0\0\0\0\0\x03\x01\x40\0",
        b"\x19\xfe\xfd\0\0\0\0\0\0\0\0\0\x08cidcidcid",
        b"\xff\xfe\xfd\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    all.push(vec![0x16; 1_400]);
    all.push(vec![0xff; 60_000]);
    all.push([0x16, 0xfe, 0xfd].repeat(20_000));
    all
}

/// Hellos that are none, or that contradict themselves.
fn hellos(cookie: &[u8]) -> Vec<Vec<u8>> {
    let good = || ClientHello::new(77, &[PSK_CCM_8]).cookie(cookie);
    let with = |change: &dyn Fn(&mut ClientHello)| {
        let mut hello = good();
        change(&mut hello);
        hello.datagram(1)
    };
    let mut all = vec![
        with(&|h| h.random.truncate(31)),
        with(&|h| h.random.clear()),
        with(&|h| h.session = vec![9; 33]),
        with(&|h| h.session = vec![9; 255]),
        with(&|h| h.session = vec![9; 32]),
        with(&|h| h.suites.clear()),
        with(&|h| h.suites = vec![0x0000; 2_000]),
        with(&|h| h.suites = vec![0x5600, 0x00ff, PSK_CCM_8]),
        with(&|h| h.compression.clear()),
        with(&|h| h.compression = vec![1]),
        with(&|h| h.compression = vec![7; 255]),
        with(&|h| h.extensions.clear()),
        with(&|h| h.extensions = vec![(23, vec![1])]),
        with(&|h| h.extensions = vec![(23, vec![]), (23, vec![])]),
        with(&|h| h.extensions = vec![(0xff01, vec![5, 1, 2, 3, 4, 5])]),
        with(&|h| h.extensions = vec![(0xff01, vec![])]),
        with(&|h| h.extensions = (0..300).map(|n| (n, vec![0; 20])).collect()),
        with(&|h| h.extensions = vec![(10, vec![0xff, 0xff, 0, 23])]),
        with(&|h| h.extensions = vec![(13, vec![0, 3, 4, 3, 5])]),
        with(&|h| h.extensions = vec![(54, vec![0])]),
        with(&|h| h.extensions = vec![(35, vec![1; 500])]),
        with(&|h| h.extensions = vec![(0, b"\0\x10\0\0\x0d../etc/passwd".to_vec())]),
        with(&|h| (h.suites, h.extensions) = (vec![ECDHE_ECDSA_CCM_8], vec![])),
        with(&|h| (h.suites, h.extensions) = (vec![ECDHE_ECDSA_CCM_8], vec![(10, vec![0, 2, 0, 25])])),
        with(&|h| h.version = [3, 3]),
        with(&|h| h.version = [0xfe, 0xfc]),
        with(&|h| h.version = [0, 0]),
        with(&|h| h.cookie = vec![1; 255]),
    ];
    // Cut short everywhere, with what is left of it a message of its own.
    let body = good().body();
    all.extend(
        (0..body.len()).map(|end| Fragment::whole(message::CLIENT_HELLO, 1, &body[..end]).datagram(1)),
    );
    // Longer than it says.
    all.push(Fragment::whole(message::CLIENT_HELLO, 1, [&body[..], b"more"].concat()).datagram(1));
    // A good one, in a record of another epoch, of another version, and with another behind it.
    let fragment = Fragment::whole(message::CLIENT_HELLO, 1, &body).encode();
    let record = Record::plain(content::HANDSHAKE, 1, &fragment);
    all.push(Record { epoch: 1, ..record.clone() }.encode());
    all.push(Record { epoch: 0xffff, sequence: (1 << 48) - 1, ..record.clone() }.encode());
    all.push(Record { version: [3, 3], ..record.clone() }.encode());
    all.push(Record::plain(content::HANDSHAKE, 1, [fragment.clone(), fragment].concat()).encode());
    all.push(record.encode().repeat(8));
    all
}

/// What comes in the middle of a handshake, and should not.
fn interjections() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let finished = Fragment::whole(message::FINISHED, 2, [1; 12]).encode();
    all.push(Record::plain(content::CHANGE_CIPHER_SPEC, 2, [1]).encode());
    all.push(Record::plain(content::CHANGE_CIPHER_SPEC, 2, [2]).encode());
    all.push(Record::plain(content::CHANGE_CIPHER_SPEC, 2, [1; 100]).encode());
    all.push(Record::plain(content::CHANGE_CIPHER_SPEC, 2, []).encode());
    all.push(Record::plain(content::HANDSHAKE, 3, &finished).encode());
    all.push(Record { epoch: 1, ..Record::plain(content::HANDSHAKE, 0, [0; 40]) }.encode());
    for kind in [0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 67, 254, 255] {
        for body in [&[][..], &[0], &[0, 0], &[0xff, 0xff], &[0, 4, b'p', b'u', b'm', b'p'], &[0; 300]] {
            all.push(Fragment::whole(kind, 2, body).datagram(2));
        }
    }
    // ClientKeyExchange: identities of every length that is none.
    let longest = [&[0xff, 0xfe][..], &[b'i'; 8_000]].concat();
    for body in [&[0, 0][..], &[0, 5, b'p'], &[0, 1, b'p', b'q'], &[0, 3, 0, 0xff, 0x1b], &longest] {
        all.push(Fragment::whole(message::CLIENT_KEY_EXCHANGE, 2, body).datagram(2));
    }
    // Alerts of every kind.
    for (level, code) in [(1, 0), (2, 0), (2, 40), (1, 90), (2, 255), (0, 0), (3, 3)] {
        all.push(Record::plain(content::ALERT, 2, [level, code]).encode());
    }
    all.push(Record::plain(content::ALERT, 2, [2]).encode());
    all.push(Record::plain(content::ALERT, 2, [2, 40, 2, 40]).encode());
    all
}

async fn assert_unharmed(world: &World, witness: &mut Witness, memory: u64) {
    witness.speak(world).await;
    comes_in(world, 1).await;
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes");
    assert_eq!(metric(world, "landfall_dtls_defects_total").await, 0.0);
    assert_only_friends(world);
}

#[tokio::test]
async fn hellos_that_are_none() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let wire = Wire::to(world.gateway.udps()).await;
    wire.send(&ClientHello::new(77, &[PSK_CCM_8]).datagram(0)).await;
    let cookie = wire::cookie(&wire.receive().await).unwrap();
    let (strangers, hellos) = (strangers(), hellos(&cookie));
    assert!(hellos.len() > 100, "{}", hellos.len());
    for (n, datagram) in strangers.iter().chain(&hellos).enumerate() {
        wire.send(datagram).await;
        // From an address that was given no cookie as well.
        Wire::to(world.gateway.udps()).await.send(datagram).await;
        if n % 50 == 0 {
            witness.speak(&world).await;
        }
    }
    assert_unharmed(&world, &mut witness, memory).await;
    world.close().await;
}

#[tokio::test]
async fn messages_out_of_place() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let (interjections, at) = (interjections(), world.gateway.udps());
    for suite in [PSK_GCM, ECDHE_ECDSA_CCM_8] {
        for (n, datagram) in interjections.iter().enumerate() {
            let socket = begun(&world, n, &[suite]).await;
            socket.send_to(datagram, at).await.unwrap();
            socket.send_to(datagram, at).await.unwrap();
        }
        // All of them at one.
        let socket = begun(&world, 1_000, &[suite]).await;
        for datagram in &interjections {
            socket.send_to(datagram, at).await.unwrap();
        }
        witness.speak(&world).await;
    }
    assert_unharmed(&world, &mut witness, memory).await;
    world.close().await;
}

/// Whoever can write the address of a device that is there, and has no keys: nothing of it reaches the device's session.
#[tokio::test]
async fn everything_from_the_address_of_a_session() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let mut seed = Seed(11);
    let good = witness.device.last().to_vec();
    for datagram in strangers().iter().chain(&hellos(&[1; 16])).chain(&interjections()) {
        witness.device.send_datagram(datagram).await;
    }
    for _ in 0..2_000 {
        // Its own newest record, with some bytes of it others.
        let mut bytes = good.clone();
        for _ in 0..=seed.below(3) {
            let at = usize::try_from(seed.below(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << seed.below(8);
        }
        witness.device.send_datagram(&bytes).await;
    }
    witness.speak(&world).await;
    // What was answered to all that is not the device's.
    assert_eq!(witness.device.try_next(), None);
    // And a handshake that goes halfway, with somebody else's name, over and over.
    for _ in 0..50 {
        let secret = Secret::psk("late", [KEY, b"!"].concat());
        witness.device.beside(&secret).half_a_handshake().await;
    }
    witness.speak(&world).await;
    assert!(metric(&world, "landfall_dtls_handshakes ").await <= 1.0);
    assert_unharmed(&world, &mut witness, memory).await;
    assert_eq!(world.recorder.of("connected", "witness").len(), 1);
    world.close().await;
}

/// Noise in the shape of records, by the ten thousand.
#[tokio::test]
async fn noise() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let mut seed = Seed(5);
    let noisy = DtlsClient::connect(world.gateway.udps(), &Secret::psk("late", KEY)).await;
    for n in 0..10_000_u64 {
        let mut draw = |end: u64| seed.below(end);
        let body: Vec<u8> = (0..draw(200)).map(|_| draw(256) as u8).collect();
        let record = Record {
            content: 20 + draw(6) as u8,
            version: if draw(10) == 0 { [draw(256) as u8, draw(256) as u8] } else { VERSION },
            epoch: draw(3) as u16,
            sequence: draw(1 << 10),
            body,
        };
        let mut bytes = record.encode();
        if draw(5) == 0 {
            bytes.truncate(usize::try_from(draw(bytes.len() as u64 + 1)).unwrap());
        }
        noisy.send_datagram(&bytes).await;
        if n % 500 == 499 {
            witness.speak(&world).await;
        }
    }
    drop(noisy);
    assert_eq!(metric(&world, "landfall_dtls_defects_total").await, 0.0);
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes");
    assert_only_friends(&world);
    world.close().await;
}
