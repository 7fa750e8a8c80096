//! Message ids and tokens that are used again before their time, as by a device that has begun anew: RFC 7252, sections 4.4, 4.5
//! and 5.3.1. A duplicate has the same bytes; anything else is a request of its own, and is never answered with what another got.

use landfall_coap_core::block::BlockValue;
use landfall_coap_core::{Code, Kind, Message, Output, number};

use crate::bench::{
    Bench, ack, changed, content, get, handed_up, one, post, register, request, requests, sent, token,
};

/// POST with a token of its own.
fn post_as(id: u16, with: &[u8], payload: &'static str) -> Message {
    Message { token: token(with), ..post(id, payload) }
}

#[test]
fn section_4_5_other_bytes_with_the_same_id_are_another_request() {
    let of = |kind, with: &[u8], payload: &'static str| Message { kind, ..post_as(1, with, payload) };
    for kind in [Kind::Con, Kind::Non] {
        // Another token, or another payload alone; before the first is answered, or after.
        for (second, answered) in [
            (of(kind, b"\x02", "two"), true),
            (of(kind, b"\x01", "two"), true),
            (of(kind, b"\x02", "two"), false),
        ] {
            let mut bench = Bench::new();
            let (first, _) = bench.ask(1, &of(kind, b"\x01", "one"));
            if answered {
                bench.respond(first, changed());
            }
            let (exchange, asked) = handed_up(&bench.send(1, &second));
            assert_eq!(asked.payload, "two");
            let answer = bench.respond(exchange, changed());
            assert_eq!(one(&answer).token, second.token);
            let again = bench.again(1, &second);
            assert_eq!(
                again,
                if kind == Kind::Con { answer } else { Vec::new() },
                "it has a memory of its own"
            );
        }
    }
}

#[test]
fn section_4_5_a_confirmable_message_is_no_duplicate_of_one_that_is_not() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &request(Kind::Non, Code::POST, 1));
    bench.respond(exchange, changed());
    assert_eq!(requests(&bench.send(1, &request(Kind::Con, Code::POST, 1))).len(), 1);
}

#[test]
fn what_came_before_is_a_request_again_when_its_id_was_used_for_another() {
    let mut bench = Bench::new();
    // A device that measures, sends, and sleeps without a memory: each time with its first id.
    for payload in ["21.5", "21.6", "21.5"] {
        let (exchange, asked) = bench.ask(1, &post(1, payload));
        assert_eq!(asked.payload, payload);
        assert_eq!(one(&bench.respond(exchange, changed())).code, Code::CHANGED);
    }
    assert_eq!(one(&bench.again(1, &post(1, "21.5"))).code, Code::CHANGED);
}

#[test]
fn an_answer_to_the_former_owner_of_an_id_never_leaves() {
    for (late, with) in [(0, &b"\x02"[..]), (1_500, b"\x02"), (0, b"\x01"), (1_500, b"\x01")] {
        let mut bench = Bench::new();
        let (first, _) = bench.ask(1, &post_as(1, b"\x01", "one"));
        bench.wait(late);
        let (second, _) = handed_up(&bench.send(1, &post_as(1, with, "two")));
        assert!(!bench.endpoint.respond(bench.now, first, changed()), "nobody is there to hear it");
        assert!(bench.drain().is_empty());
        let answer = one(&bench.respond(second, content("2")));
        assert_eq!((answer.kind, answer.id, &answer.payload[..]), (Kind::Ack, 1, &b"2"[..]));
        assert_eq!(bench.endpoint.exchanges(), 0);
    }
}

#[test]
fn section_5_3_1_an_answer_never_passes_for_one_to_a_younger_request_with_the_same_token() {
    for kind in [Kind::Con, Kind::Non] {
        for late in [0, 1_500] {
            let mut bench = Bench::new();
            let (first, _) = bench.ask(1, &Message { kind, ..post_as(1, b"\x01", "one") });
            bench.wait(late);
            let (second, _) = handed_up(&bench.send(1, &Message { kind, ..post_as(2, b"\x01", "two") }));
            assert!(!bench.endpoint.respond(bench.now, first, changed()));
            let outputs = bench.drain();
            if kind == Kind::Con && late == 0 {
                assert_eq!(one(&outputs), ack(1), "the message has come; its answer does not");
            } else {
                assert!(outputs.is_empty(), "{outputs:?}");
            }
            assert_eq!(one(&bench.respond(second, changed())).token, token(b"\x01"));
        }
    }
}

#[test]
fn section_5_3_1_a_separate_response_is_taken_back_when_its_token_is_used_anew() {
    let mut bench = Bench::new();
    let exchanges: Vec<_> = [(1, b"\x01"), (2, b"\x02"), (3, b"\x03")]
        .map(|(id, with)| bench.ask(1, &post_as(id, with, "p")).0)
        .into_iter()
        .collect();
    bench.wait(1_500);
    let flights: Vec<Message> =
        exchanges.into_iter().flat_map(|exchange| sent(&bench.respond(exchange, changed()))).collect();
    assert_eq!(flights.len(), 1, "one is in flight, two wait");
    assert_eq!((flights[0].kind, flights[0].token), (Kind::Con, token(b"\x01")));
    // The device begins anew with the tokens of the first two.
    let (first, _) = handed_up(&bench.send(1, &post_as(10, b"\x01", "new")));
    let (second, _) = handed_up(&bench.send(1, &post_as(11, b"\x02", "new")));
    let tokens: Vec<_> =
        sent(&bench.wait(60_000)).into_iter().filter(|m| m.code != Code::EMPTY).map(|m| m.token).collect();
    assert!(!tokens.is_empty() && tokens.iter().all(|of| *of == token(b"\x03")), "{tokens:?}");
    bench.respond(first, changed());
    bench.respond(second, changed());
    bench.wait(1_000_000);
    assert_eq!((bench.endpoint.bytes(), bench.endpoint.peers()), (0, 0));
}

#[test]
fn a_request_that_is_refused_takes_the_id_as_well() {
    let mut bench = Bench::new();
    let (first, _) = bench.ask(1, &post_as(1, b"", "one"));
    let mut bad = post_as(1, b"", "two");
    bad.options.push(number::IF_MATCH, "x");
    assert_eq!(one(&bench.send(1, &bad)).code, Code::BAD_OPTION);
    assert!(bench.respond(first, changed()).is_empty(), "it would say that the second is stored");
}

#[test]
fn a_registration_is_no_duplicate_of_another() {
    let mut bench = Bench::new();
    let (one_observed, _) = bench.register(1, 1, b"\x01");
    // The same id: a device that has begun anew, with another token.
    let (another, answer) = bench.register(1, 1, b"\x02");
    assert_ne!(one_observed, another);
    assert_eq!((answer.token, answer.options.has(number::OBSERVE)), (token(b"\x02"), true));
    bench.endpoint.notify(bench.now, another, content("x")).unwrap();
    assert_eq!(one(&bench.drain()).token, token(b"\x02"));
    assert_eq!(bench.endpoint.notify(bench.now, one_observed, content("x")), None);
    // A duplicate of it registers nothing.
    assert!(requests(&bench.send(1, &register(1, b"\x02"))).is_empty());
}

#[test]
fn the_id_of_a_ping_is_no_requests() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &post(1, "one"));
    assert!(bench.send(1, &Message::empty(Kind::Con, 1)).contains(&Output::Ping { peer: 1 }));
    assert_eq!(one(&bench.respond(exchange, changed())).code, Code::CHANGED);
    assert!(bench.send(1, &Message::empty(Kind::Con, 1)).contains(&Output::Ping { peer: 1 }), "each is one");
}

#[test]
fn one_id_used_for_ever_is_bounded_and_forgotten() {
    let mut bench = Bench::with(|limits| limits.max_remembered_per_peer = 50);
    let mut served = 0;
    for n in 0..200_u16 {
        let mut message = get(7);
        message.options.push(number::URI_QUERY, n.to_string());
        for (exchange, _) in requests(&bench.send(1, &message)) {
            served += 1;
            bench.endpoint.prove(&1);
            bench.respond(exchange, content(vec![b'x'; 100]));
        }
    }
    assert_eq!((served, bench.endpoint.remembered()), (50, 50));
    assert!(bench.endpoint.bytes() < 200, "of answers, the youngest is kept");
    bench.wait(248_000);
    assert_eq!((bench.endpoint.remembered(), bench.endpoint.peers(), bench.endpoint.bytes()), (0, 0, 0));
}

#[test]
fn rfc_7959_section_2_5_blocks_of_two_uploads_never_mix_by_their_message_ids() {
    let mut bench = Bench::new();
    let part = |id, with: &[u8], num, more, payload: &'static str| {
        let mut message = post_as(id, with, payload);
        message.options.push_uint(number::BLOCK1, BlockValue::new(num, more, 0).unwrap().to_uint());
        message
    };
    assert_eq!(one(&bench.send(1, &part(1, b"\x01", 0, true, "one one one one "))).code, Code::CONTINUE);
    assert_eq!(one(&bench.send(1, &part(2, b"\x01", 1, true, "one one one one "))).code, Code::CONTINUE);
    // The device begins anew, with the ids of before.
    assert_eq!(one(&bench.send(1, &part(1, b"\x02", 0, true, "two two two two "))).token, token(b"\x02"));
    assert_eq!(one(&bench.send(1, &part(2, b"\x02", 1, true, "two two two two "))).token, token(b"\x02"));
    // The last block of the first upload was long under way.
    let late = bench.send(1, &part(3, b"\x01", 2, false, "one"));
    assert_eq!(one(&late).code, Code::REQUEST_ENTITY_INCOMPLETE);
    let (exchange, asked) = handed_up(&bench.send(1, &part(3, b"\x02", 2, false, "two")));
    assert_eq!(asked.payload, "two two two two two two two two two");
    assert_eq!(one(&bench.respond(exchange, changed())).token, token(b"\x02"));
}
