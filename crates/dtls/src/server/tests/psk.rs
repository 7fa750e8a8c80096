//! Keys that both sides share, and what a ClientHello may say.

use super::peer::{KEY, Peer, Pki, USUAL, psk_config};
use crate::ServerConfig;
use crate::engine::{Answer, Engine, EngineEvent, Failure, Identity, Stage};
use crate::handshake::{FragmentHeader, MessageType};
use crate::record::ContentType;
use crate::suite::Suite;

fn greeted() -> Peer {
    let mut peer = Peer::new(psk_config(), Suite::PskGcm);
    peer.greet(USUAL);
    peer
}

/// The extensions of the ServerHello.
fn extensions(offered: &[u8]) -> Vec<u8> {
    let mut peer = Peer::new(psk_config(), Suite::PskCcm8);
    peer.greet(offered);
    let (header, hello) = &peer.heard[0];
    assert_eq!(header.kind, MessageType::SERVER_HELLO);
    hello[38..].to_vec()
}

#[test]
fn only_what_was_offered_is_answered() {
    assert!(extensions(&[]).is_empty());
    assert_eq!(extensions(&[0, 23, 0, 0]), [0, 4, 0, 23, 0, 0]);
    assert_eq!(extensions(&[0xFF, 1, 0, 1, 0]), [0, 5, 0xFF, 1, 0, 1, 0]);
    assert!(extensions(&[0, 11, 0, 2, 1, 0]).is_empty(), "no curves, no points");
}

#[test]
fn with_and_without_the_extended_master_secret() {
    for suite in Suite::ALL.into_iter().filter(|suite| suite.is_psk()) {
        for extensions in [USUAL, &[]] {
            let mut peer = Peer::new(psk_config(), suite);
            peer.greet(extensions);
            assert_eq!(peer.heard.len(), 2, "no ServerKeyExchange: there is no hint");
            peer.finish_psk();
            assert_eq!(peer.server.stage(), Stage::Established);
            let datagram = peer.protected(ContentType::APPLICATION_DATA, b"x");
            peer.receive(datagram);
            assert_eq!(peer.told.data, [b"x"]);
        }
    }
}

#[test]
fn the_clients_order_counts() {
    let chosen = |suites: &[Suite]| {
        let mut peer = Peer::new(psk_config(), Suite::PskCcm8);
        let codes: Vec<u16> =
            [0x1301, 0xC02C].into_iter().chain(suites.iter().map(|suite| suite.code())).collect();
        let body = peer.hello(&codes, &[]);
        let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
        peer.receive(datagram);
        peer.listen();
        u16::from_be_bytes(*peer.heard[0].1[35..].first_chunk().unwrap())
    };
    assert_eq!(chosen(&[Suite::PskGcm, Suite::PskCcm8]), 0x00A8);
    assert_eq!(chosen(&[Suite::PskCcm8, Suite::PskGcm]), 0xC0A8);
}

/// Stacks list the suites of certificates first and whether they have a certificate or not; those of keys only with a key.
#[test]
fn a_key_goes_before_a_certificate_whatever_the_clients_order() {
    for is_optional in [false, true] {
        for order in [[Suite::EcdsaGcm, Suite::PskCcm8], [Suite::PskCcm8, Suite::EcdsaGcm]] {
            let config = Pki::new().config;
            let require_client_certificate = !is_optional;
            let config = ServerConfig { psk: true, require_client_certificate, ..config };
            let mut peer = Peer::new(config, Suite::PskCcm8);
            let body = peer.hello(&order.map(Suite::code), USUAL);
            let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
            peer.receive(datagram);
            peer.listen_extended();
            peer.finish_psk();
            assert_eq!(peer.server.stage(), Stage::Established, "{order:?}");
        }
    }
    // Where no keys are served, the certificate is what is left.
    let mut peer = Peer::new(Pki::new().config, Suite::EcdsaGcm);
    let body = peer.hello(&[Suite::PskCcm8.code(), Suite::EcdsaGcm.code()], USUAL);
    let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
    peer.receive(datagram);
    peer.listen_extended();
    assert_eq!(peer.heard[0].1[35..37], Suite::EcdsaGcm.code().to_be_bytes());
}

#[test]
fn hellos_that_come_to_nothing() {
    let end = |change: fn(&mut Vec<u8>), suite| {
        let mut peer = Peer::new(psk_config(), Suite::PskCcm8);
        let mut body = peer.hello(&[suite], USUAL);
        change(&mut body);
        let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
        peer.receive(datagram);
        assert_eq!(peer.server.stage(), Stage::Over);
        (peer.told.failure().unwrap(), peer.told.alert().unwrap())
    };
    assert_eq!(end(|body| body[1] = 0xFF, 0xC0A8), (Failure::Version, 70), "DTLS 1.0");
    assert_eq!(end(|body| body[0] = 3, 0xC0A8), (Failure::Version, 70), "TLS");
    assert_eq!(end(|_| (), 0x1301), (Failure::NoCommonSuite, 40));
    assert_eq!(end(|_| (), 0xC02B), (Failure::NoCommonSuite, 40), "no certificate");
    assert_eq!(end(|body| body[43] = 1, 0xC0A8), (Failure::NoCommonSuite, 40), "compressed only");
    assert_eq!(end(|body| body.truncate(40), 0xC0A8), (Failure::Malformed, 50));
    let twice = |body: &mut Vec<u8>| {
        let at = body.len() - 2 - USUAL.len();
        body.truncate(at);
        body.extend([0, 8, 0, 23, 0, 0, 0, 23, 0, 0]);
    };
    assert_eq!(end(twice, 0xC0A8), (Failure::Malformed, 50), "an extension twice");
    let later = |body: &mut Vec<u8>| {
        let at = body.len() - 2 - USUAL.len();
        body.truncate(at);
        body.extend([0, 7, 0, 43, 0, 3, 2, 0xFE, 0xFC]);
    };
    assert_eq!(end(later, 0xC0A8), (Failure::Version, 70), "DTLS 1.3 and nothing else");
}

#[test]
fn identities_of_any_length() {
    for (length, asked) in [(0, 1), (1, 1), (128, 1), (129, 0), (4_000, 0)] {
        let mut peer = greeted();
        let exchange = peer.psk_key_exchange(&vec![0; length], KEY);
        let finished = peer.finished();
        peer.receive(exchange);
        assert_eq!(peer.told.asked(), asked, "{length}");
        let change = peer.change();
        peer.receive([change, finished].concat());
        peer.answer(Answer::Refused);
        assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::WrongKey), Some(51)), "{length}");
    }
}

#[test]
fn the_identity_is_told_as_it_is() {
    let mut peer = greeted();
    let exchange = peer.psk_key_exchange(b"..\0\xFF", KEY);
    peer.receive(exchange);
    let Some(EngineEvent::WhoIs(identity)) = peer.told.events.first() else { panic!("not asked") };
    assert!(*identity == Identity::Psk(b"..\0\xFF"[..].into()));
    assert_eq!(format!("{identity:?}"), "Psk(\"..\\x00\\xff\")");
}

#[test]
fn key_exchanges_that_cannot_be_read() {
    for body in [&[][..], &[0], &[0, 5, 1, 2], &[0, 1, 1, 2], &[0xFF, 0xFF, 1]] {
        let mut peer = greeted();
        let datagram = peer.message(MessageType::CLIENT_KEY_EXCHANGE, body);
        peer.receive(datagram);
        assert_eq!(
            (peer.told.failure(), peer.told.alert()),
            (Some(Failure::Malformed), Some(50)),
            "{body:?}"
        );
        assert_eq!(peer.told.asked(), 0);
    }
}

#[test]
fn a_certificates_answer_is_no_key() {
    let mut peer = greeted();
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    let last = [exchange, peer.change(), peer.finished()].concat();
    peer.receive(last);
    peer.answer(Answer::Admitted);
    assert_eq!(peer.told.failure(), Some(Failure::WrongKey));
}

#[test]
fn a_finished_that_says_something_else() {
    // The right keys, but another transcript; then another number, another type, and too much.
    let end = |header: FragmentHeader, verify_data: &[u8]| {
        let mut peer = greeted();
        let exchange = peer.psk_key_exchange(b"meter", KEY);
        let text = [&header.to_bytes()[..], verify_data].concat();
        let finished = peer.protected(ContentType::HANDSHAKE, &text);
        let change = peer.change();
        peer.receive([exchange, change, finished].concat());
        peer.answer(Answer::Psk(KEY));
        assert_eq!(peer.server.stage(), Stage::Over);
        (peer.told.failure().unwrap(), peer.told.alert().unwrap())
    };
    let whole = |kind, seq| FragmentHeader::whole(kind, 12, seq);
    assert_eq!(end(whole(MessageType::FINISHED, 3), &[0; 12]), (Failure::WrongKey, 51));
    assert_eq!(end(whole(MessageType::FINISHED, 4), &[0; 12]), (Failure::Malformed, 10));
    assert_eq!(end(whole(MessageType::CLIENT_HELLO, 3), &[0; 12]), (Failure::Malformed, 10));
    assert_eq!(end(whole(MessageType::FINISHED, 3), &[0; 13]), (Failure::Malformed, 50));
    assert_eq!(end(whole(MessageType::FINISHED, 3), &[]), (Failure::Malformed, 50));
}
