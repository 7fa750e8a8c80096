//! What a handshake and a record cost, without a socket: `cargo test --release -p landfall-dtls --lib cost -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::peer::{KEY, Peer, Pki, USUAL, psk_config};
use crate::engine::{Answer, Engine, Stage};
use crate::record::ContentType;
use crate::suite::Suite;

/// The time of the server in one handshake.
fn handshake(suite: Suite, pki: Option<&Pki>) -> (Duration, Peer) {
    let config = match pki {
        Some(pki) => crate::ServerConfig {
            certificate: pki.config.certificate.clone(),
            client_ca: None,
            require_client_certificate: false,
            ..psk_config()
        },
        None => psk_config(),
    };
    let mut peer = Peer::new(config, suite);
    let body = peer.hello(&[suite.code()], USUAL);
    let hello = peer.message(crate::handshake::MessageType::CLIENT_HELLO, &body);
    let began = Instant::now();
    peer.receive(hello);
    let mut spent = began.elapsed();
    peer.listen_extended();
    let exchange =
        if suite.is_psk() { peer.psk_key_exchange(b"meter", KEY) } else { peer.ecdhe_key_exchange() };
    let last = [exchange, peer.change(), peer.finished()].concat();
    let began = Instant::now();
    peer.receive(last);
    if suite.is_psk() {
        peer.answer(Answer::Psk(KEY));
    }
    spent += began.elapsed();
    assert_eq!(peer.server.stage(), Stage::Established);
    (spent, peer)
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    let pki = Pki::new();
    for suite in Suite::ALL {
        let rounds = 2_000;
        let spent: Duration = (0..rounds).map(|_| handshake(suite, Some(&pki)).0).sum();
        println!("{}: {} ns per handshake", suite.name(), spent.as_nanos() / rounds);
        for size in [32, 128, 1_024] {
            let (_, mut peer) = handshake(suite, Some(&pki));
            let text = vec![7; size];
            let mut records: Vec<Vec<u8>> =
                (0..10_000).map(|_| peer.protected(ContentType::APPLICATION_DATA, &text)).collect();
            let began = Instant::now();
            for record in &mut records {
                peer.server.receive(0, record, &mut peer.told);
            }
            let received = began.elapsed().as_nanos() / 10_000;
            let mut datagram = Vec::with_capacity(2_000);
            let began = Instant::now();
            for _ in 0..10_000 {
                datagram.clear();
                peer.server.send(&text, &mut datagram).unwrap();
            }
            let sent = began.elapsed().as_nanos() / 10_000;
            println!("    {size} bytes: {received} ns received, {sent} ns sent");
        }
    }
}
