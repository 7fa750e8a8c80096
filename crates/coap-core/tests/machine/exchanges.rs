//! RFC 7252, sections 4.5 and 5.2; RFC 7967: one request, one answer, whatever the network repeats.

use landfall_coap_core::{Code, Kind, Output, Rejected, number};

use crate::bench::{Bench, ack, changed, content, get, handed_up, one, post, request, requests, rst, sent};

#[test]
fn section_5_2_1_an_answer_rides_on_the_acknowledgement() {
    let mut bench = Bench::new();
    let (exchange, request) = bench.ask(1, &post(7, "p"));
    assert_eq!((request.path.join("/"), &request.payload[..]), ("a/b".to_owned(), &b"p"[..]));
    let answer = one(&bench.respond(exchange, changed()));
    assert_eq!((answer.kind, answer.id, answer.code), (Kind::Ack, 7, Code::CHANGED));
    assert_eq!(answer.token, request.token);
    assert_eq!(bench.endpoint.exchanges(), 0);
    assert!(bench.wait(10_000).is_empty(), "no acknowledgement beside it");
}

#[test]
fn section_5_2_2_a_late_answer_is_a_message_of_its_own() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &post(7, "p"));
    let came = bench.pass(1_500);
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].0, 1_001_000);
    assert_eq!(sent(&[came[0].1.clone()]), [ack(7)]);
    let answer = one(&bench.respond(exchange, changed()));
    assert_eq!((answer.kind, answer.code), (Kind::Con, Code::CHANGED));
    assert_eq!(answer.token.as_bytes(), b"tok");
    assert_eq!(bench.send(1, &ack(answer.id)), [Output::Heard { peer: 1 }]);
    assert!(bench.wait(100_000).is_empty(), "not sent again");
}

#[test]
fn section_5_2_2_a_late_answer_is_reset_by_a_client_that_has_lost_its_state() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &post(7, "p"));
    bench.wait(1_500);
    let answer = one(&bench.respond(exchange, changed()));
    assert_eq!(bench.send(1, &rst(answer.id)), [Output::Heard { peer: 1 }]);
    assert!(bench.wait(100_000).is_empty());
}

#[test]
fn section_5_2_3_a_non_confirmable_request_has_a_non_confirmable_answer() {
    let mut bench = Bench::new();
    let (exchange, request) = bench.ask(1, &request(Kind::Non, Code::GET, 7));
    assert!(!request.confirmable);
    assert!(bench.wait(5_000).is_empty(), "no acknowledgement");
    let answer = one(&bench.respond(exchange, content("x")));
    assert_eq!((answer.kind, answer.code), (Kind::Non, Code::CONTENT));
    assert_eq!(answer.token, request.token);
}

#[test]
fn section_4_5_a_duplicate_gets_the_same_answer_and_has_no_effect() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &post(7, "p"));
    assert!(bench.again(1, &post(7, "p")).is_empty(), "the answer is awaited");
    let first = bench.respond(exchange, changed());
    for _ in 0..3 {
        assert_eq!(bench.again(1, &post(7, "p")), first);
    }
    bench.wait(246_000);
    assert_eq!(bench.again(1, &post(7, "p")), first, "within EXCHANGE_LIFETIME");
    bench.wait(1_000);
    assert_eq!(requests(&bench.send(1, &post(7, "p"))).len(), 1, "the id may be used again");
}

#[test]
fn section_4_5_an_answer_of_any_length_is_replayed() {
    for length in [0_usize, 10, 14, 15, 16, 200, 1_024] {
        let mut bench = Bench::new();
        let (exchange, _) = bench.ask(1, &get(7));
        let first = bench.respond(exchange, content(vec![b'x'; length]));
        assert_eq!(one(&first).payload.len(), length);
        assert_eq!(bench.again(1, &get(7)), first, "{length}");
    }
}

#[test]
fn section_4_5_a_duplicate_after_the_empty_acknowledgement_gets_it_again() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &post(7, "p"));
    bench.wait(1_500);
    assert_eq!(one(&bench.again(1, &post(7, "p"))), ack(7));
    bench.respond(exchange, changed());
    assert_eq!(one(&bench.again(1, &post(7, "p"))), ack(7), "the answer is on its own way");
}

#[test]
fn section_4_5_a_duplicate_non_is_ignored_for_non_lifetime() {
    let mut bench = Bench::new();
    let message = request(Kind::Non, Code::POST, 7);
    let (exchange, _) = bench.ask(1, &message);
    bench.respond(exchange, changed());
    assert!(bench.again(1, &message).is_empty());
    bench.wait(144_000);
    assert!(bench.again(1, &message).is_empty());
    bench.wait(1_000);
    assert_eq!(requests(&bench.send(1, &message)).len(), 1);
}

#[test]
fn everything_is_forgotten_in_the_end() {
    let mut bench = Bench::new();
    for peer in 0..50 {
        let (exchange, _) = handed_up(&bench.send(peer, &post(7, "p")));
        bench.respond(exchange, changed());
    }
    assert_eq!((bench.endpoint.peers(), bench.endpoint.remembered()), (50, 50));
    bench.wait(248_000);
    assert_eq!((bench.endpoint.peers(), bench.endpoint.remembered()), (0, 0));
    assert_eq!((bench.endpoint.next_timeout(), bench.endpoint.bytes()), (None, 0));
}

#[test]
fn an_exchange_that_is_never_answered_ends() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &post(7, "p"));
    bench.wait(248_000);
    assert_eq!((bench.endpoint.exchanges(), bench.endpoint.peers()), (0, 0));
    assert!(bench.respond(exchange, changed()).is_empty());
}

#[test]
fn rfc_7967_what_is_not_wanted_is_not_sent() {
    for (value, code, silent) in [
        (0, Code::CHANGED, false),
        (2, Code::CHANGED, true),
        (2, Code::NOT_FOUND, false),
        (8, Code::NOT_FOUND, true),
        (8, Code::SERVICE_UNAVAILABLE, false),
        (16, Code::SERVICE_UNAVAILABLE, true),
        (26, Code::CHANGED, true),
        (26, Code::NOT_FOUND, true),
    ] {
        for kind in [Kind::Con, Kind::Non] {
            let mut bench = Bench::new();
            let mut message = request(kind, Code::POST, 7);
            message.options.push_uint(number::NO_RESPONSE, value);
            let (exchange, request) = bench.ask(1, &message);
            let leaves = bench.endpoint.respond(bench.now, exchange, landfall_coap_core::Response::new(code));
            assert_eq!(leaves, !silent, "{value} {code}");
            assert_eq!(request.wants_success(), value & 2 == 0);
            let outputs = bench.drain();
            match (silent, kind) {
                (false, _) => assert_eq!(one(&outputs).code, code),
                (true, Kind::Con) => {
                    assert_eq!(one(&outputs), ack(7));
                    assert_eq!(one(&bench.again(1, &message)), ack(7), "and again");
                }
                (true, _) => assert!(outputs.is_empty(), "{value} {code}"),
            }
        }
    }
}

#[test]
fn rfc_7967_holds_for_what_the_endpoint_refuses_itself() {
    let mut bench = Bench::new();
    let mut message = request(Kind::Non, Code::new(0, 5), 7);
    message.options.push_uint(number::NO_RESPONSE, 26);
    assert_eq!(bench.send(1, &message), [Output::Rejected { peer: 1, why: Rejected::Method }]);
    message.kind = Kind::Con;
    assert_eq!(one(&bench.send(1, &message)), ack(7));
}
