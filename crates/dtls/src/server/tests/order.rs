//! What comes when, and what has no place.

use super::peer::{KEY, Peer, USUAL, psk_config};
use crate::engine::{Answer, BadRecord, Closing, Engine, EngineEvent, Failure, Stage};
use crate::fragments::MAX_BYTES;
use crate::handshake::{FragmentHeader, MessageType};
use crate::record::{ContentType, RecordHeader};
use crate::suite::Suite;

fn peer() -> Peer {
    Peer::new(psk_config(), Suite::PskCcm8)
}

fn greeted() -> Peer {
    let mut peer = peer();
    peer.greet(USUAL);
    peer
}

fn established() -> Peer {
    let mut peer = greeted();
    peer.finish_psk();
    assert_eq!(peer.server.stage(), Stage::Established);
    peer
}

#[test]
fn numbers_begin_where_the_hello_was() {
    let mut peer = peer();
    let body = peer.hello(&[Suite::PskCcm8.code()], USUAL);
    let datagram = peer.message(MessageType::CLIENT_HELLO, &body);
    peer.receive(datagram);
    let (record, body) = RecordHeader::read(&peer.told.datagrams[0]).unwrap();
    let (hello, ..) = FragmentHeader::read(body).unwrap();
    assert_eq!((record.sequence, record.epoch), (9, 0));
    assert_eq!((hello.kind, hello.message_seq), (MessageType::SERVER_HELLO, 1));
}

#[test]
fn messages_may_come_byte_by_byte_and_backwards() {
    let mut peer = peer();
    let body = peer.hello(&[Suite::PskCcm8.code()], &[]);
    let whole = FragmentHeader::whole(MessageType::CLIENT_HELLO, u32::try_from(body.len()).unwrap(), 1);
    for at in (0..body.len()).rev() {
        let header = FragmentHeader { offset: u32::try_from(at).unwrap(), fragment: 1, ..whole };
        let datagram = peer.piece(header, &body[at..=at]);
        peer.receive(datagram);
    }
    peer.next_message += 1;
    peer.transcript.push(&whole, &body);
    peer.listen();
    assert_eq!(peer.heard.len(), 2);
    peer.finish_psk();
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn a_finished_may_come_before_everything_else() {
    let mut peer = greeted();
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    let finished = peer.finished();
    let change = peer.change();
    peer.receive(finished);
    assert!(peer.told.events.is_empty());
    peer.receive(exchange);
    peer.answer(Answer::Psk(KEY));
    assert_eq!(peer.server.stage(), Stage::Shaking);
    peer.receive(change.clone());
    assert_eq!(peer.server.stage(), Stage::Established);
    peer.receive(change);
    assert!(peer.told.dropped().is_empty(), "part of a flight that may be late");
}

#[test]
fn a_finished_without_a_change_cipher_spec_is_not_taken() {
    let mut peer = greeted();
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    let finished = peer.finished();
    peer.receive([exchange, finished.clone()].concat());
    peer.answer(Answer::Psk(KEY));
    for _ in 0..3 {
        peer.receive(finished.clone());
    }
    // What is no ChangeCipherSpec does not stand for one.
    for body in [&[][..], &[0], &[2], &[1, 1]] {
        let datagram = peer.record(ContentType::CHANGE_CIPHER_SPEC, body);
        peer.receive(datagram);
    }
    assert_eq!((peer.server.stage(), peer.told.failure()), (Stage::Shaking, None));
    assert_eq!(peer.told.dropped(), [BadRecord::Unexpected; 4]);
    assert!(peer.told.datagrams.is_empty(), "nothing was answered");
    // The flight comes again as a whole, as it does when a part of it was lost.
    let again = [peer.change(), finished].concat();
    peer.receive(again);
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn a_change_cipher_spec_before_the_hello_has_no_place() {
    let mut peer = peer();
    let change = peer.change();
    peer.receive(change);
    assert_eq!(peer.told.dropped(), [BadRecord::Unexpected]);
    peer.greet(USUAL);
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    let finished = peer.finished();
    peer.receive([exchange, finished].concat());
    peer.answer(Answer::Psk(KEY));
    assert_eq!(peer.server.stage(), Stage::Shaking);
}

#[test]
fn a_false_record_before_the_keys_gives_way() {
    let mut peer = greeted();
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    let finished = peer.finished();
    let mut forged = finished.clone();
    *forged.last_mut().unwrap() ^= 1;
    peer.receive(forged);
    let change = peer.change();
    peer.receive([exchange, change, finished].concat());
    peer.answer(Answer::Psk(KEY));
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn a_change_cipher_spec_may_come_early_and_often() {
    let mut peer = greeted();
    for _ in 0..3 {
        let change = peer.change();
        peer.receive(change);
    }
    peer.finish_psk();
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn what_is_kept_is_small() {
    let mut peer = greeted();
    let large = RecordHeader::new(ContentType::HANDSHAKE, 1, 0, 129).to_bytes();
    peer.receive([&large[..], &[0; 129]].concat());
    let data = RecordHeader::new(ContentType::APPLICATION_DATA, 0, 40, 5).to_bytes();
    peer.receive([&data[..], b"early"].concat());
    let data = RecordHeader::new(ContentType::APPLICATION_DATA, 1, 40, 5).to_bytes();
    peer.receive([&data[..], b"early"].concat());
    assert_eq!(peer.told.dropped(), [BadRecord::Unexpected; 3]);
    peer.finish_psk();
    assert_eq!(peer.server.stage(), Stage::Established);
    assert!(peer.told.data.is_empty());
}

#[test]
fn data_behind_the_finished_in_one_datagram_arrives() {
    let mut peer = greeted();
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    peer.receive(exchange);
    peer.answer(Answer::Psk(KEY));
    let last = [peer.change(), peer.finished(), peer.protected(ContentType::APPLICATION_DATA, b"x")].concat();
    peer.receive(last);
    assert_eq!(peer.told.data, [b"x"]);
}

#[test]
fn messages_out_of_place_end_it() {
    for kind in [MessageType::SERVER_HELLO, MessageType::CLIENT_HELLO, MessageType::FINISHED, MessageType(99)]
    {
        let mut peer = greeted();
        let datagram = peer.message(kind, b"what?");
        peer.receive(datagram);
        assert_eq!(
            (peer.told.failure(), peer.told.alert()),
            (Some(Failure::Malformed), Some(10)),
            "{kind:?}"
        );
        assert_eq!(peer.server.stage(), Stage::Over);
        assert_eq!(peer.server.next_timeout(), None);
    }
}

#[test]
fn nothing_begins_but_with_a_hello() {
    let mut peer = peer();
    for kind in [MessageType::SERVER_HELLO, MessageType::HELLO_VERIFY_REQUEST, MessageType::FINISHED] {
        let datagram = peer.piece(FragmentHeader::whole(kind, 0, 0), &[]);
        peer.receive(datagram);
    }
    let others = [ContentType::CHANGE_CIPHER_SPEC, ContentType::ALERT, ContentType::APPLICATION_DATA];
    for content in others {
        let datagram = peer.record(content, &[2, 40]);
        peer.receive(datagram);
    }
    assert_eq!(peer.told.dropped(), [BadRecord::Unexpected; 6]);
    assert!(peer.told.datagrams.is_empty());
    peer.greet(USUAL);
    peer.finish_psk();
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn messages_too_far_ahead_are_dropped() {
    let mut peer = greeted();
    for message_seq in [6, 100, 32_000] {
        let header = FragmentHeader::whole(MessageType::CLIENT_KEY_EXCHANGE, 1, message_seq);
        let datagram = peer.piece(header, b"x");
        peer.receive(datagram);
    }
    assert_eq!(peer.told.dropped(), [BadRecord::Unexpected; 3]);
    peer.finish_psk();
    assert_eq!(peer.server.stage(), Stage::Established);
}

#[test]
fn a_message_that_is_too_large_ends_it() {
    let mut peer = greeted();
    let length = u32::try_from(MAX_BYTES).unwrap() + 1;
    let header = FragmentHeader::whole(MessageType::CLIENT_KEY_EXCHANGE, length, 2);
    let datagram = peer.piece(FragmentHeader { fragment: 1, ..header }, b"x");
    peer.receive(datagram);
    assert_eq!((peer.told.failure(), peer.told.alert()), (Some(Failure::TooLarge), Some(47)));
}

#[test]
fn alerts_of_the_client_end_a_handshake() {
    let after = |alert: &[u8]| {
        let mut peer = greeted();
        let datagram = peer.record(ContentType::ALERT, alert);
        peer.receive(datagram);
        (peer.told.failure(), peer.told.datagrams.len())
    };
    assert_eq!(after(&[2, 40]), (Some(Failure::Alert(40)), 0));
    assert_eq!(after(&[1, 0]), (Some(Failure::Alert(0)), 0));
    assert_eq!(after(&[1, 41]), (None, 0));
    assert_eq!(after(&[9, 9, 9]), (None, 0));
}

#[test]
fn alerts_without_protection_do_not_end_what_is_established() {
    let mut peer = established();
    let datagram = peer.record(ContentType::ALERT, &[2, 40]);
    peer.receive(datagram);
    assert_eq!(peer.server.stage(), Stage::Established);
    let datagram = peer.protected(ContentType::ALERT, &[2, 40]);
    peer.receive(datagram);
    assert!(matches!(peer.told.events.last(), Some(EngineEvent::Closed(Closing::Alert(40)))));
    assert_eq!(peer.server.stage(), Stage::Over);
}

#[test]
fn what_is_over_stays_over() {
    let mut peer = established();
    peer.server.close(&mut peer.told);
    let (datagrams, events) = (peer.told.datagrams.len(), peer.told.events.len());
    peer.server.close(&mut peer.told);
    let datagram = peer.protected(ContentType::APPLICATION_DATA, b"x");
    peer.receive(datagram);
    peer.receive(vec![0; 40]);
    peer.answer(Answer::Psk(KEY));
    peer.server.handle_timeout(1_000_000, &mut peer.told);
    assert_eq!((peer.told.datagrams.len(), peer.told.events.len()), (datagrams, events));
}

#[test]
fn closing_a_handshake_is_silent() {
    let mut peer = greeted();
    peer.server.close(&mut peer.told);
    assert!(peer.told.datagrams.is_empty() && peer.told.events.is_empty());
    assert_eq!(peer.server.stage(), Stage::Over);
}
