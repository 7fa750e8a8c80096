//! Bounds: what a flood can make the endpoint keep, and what it says then.

use landfall_coap_core::block::BlockValue;
use landfall_coap_core::{Code, Kind, Output, Rejected, Response, number};

use crate::bench::{Bench, changed, content, get, handed_up, one, post, register, request, requests};

fn is_busy(bench: &mut Bench, peer: u32, id: u16) -> bool {
    let outputs = bench.send(peer, &post(id, "p"));
    if !requests(&outputs).is_empty() {
        return false;
    }
    let answer = one(&outputs);
    assert_eq!((answer.kind, answer.code), (Kind::Ack, Code::SERVICE_UNAVAILABLE));
    assert_eq!(answer.options.uint(number::MAX_AGE), Some(5));
    assert!(outputs.contains(&Output::Rejected { peer, why: Rejected::Busy }));
    true
}

#[test]
fn section_5_9_3_4_exchanges_are_bounded() {
    let mut bench = Bench::with(|limits| limits.max_exchanges = 10);
    let exchanges: Vec<_> = (0..10).map(|peer| handed_up(&bench.send(peer, &post(1, "p"))).0).collect();
    assert!(is_busy(&mut bench, 11, 1));
    assert_eq!(bench.endpoint.peers(), 10, "no state for it");
    bench.respond(exchanges[0], changed());
    assert!(!is_busy(&mut bench, 11, 1), "the same message later is served");
}

#[test]
fn exchanges_of_one_peer_are_bounded() {
    let mut bench = Bench::with(|limits| limits.max_exchanges_per_peer = 4);
    (0..4).for_each(|id| assert!(!is_busy(&mut bench, 1, id)));
    assert!(is_busy(&mut bench, 1, 4));
    assert!(!is_busy(&mut bench, 2, 4), "others are served");
}

#[test]
fn peers_are_bounded_and_quiet_strangers_go_first() {
    let mut bench = Bench::with(|limits| limits.max_peers = 100);
    for peer in 0..50 {
        let (exchange, _) = handed_up(&bench.send(peer, &post(1, "p")));
        bench.endpoint.prove(&peer);
        bench.respond(exchange, changed());
    }
    for peer in 1_000..11_000 {
        let outputs = bench.send(peer, &post(1, "p"));
        for (exchange, _) in requests(&outputs) {
            bench.respond(exchange, changed());
        }
        assert!(bench.endpoint.peers() <= 100);
    }
    for peer in 0..50 {
        assert!(requests(&bench.send(peer, &post(1, "p"))).is_empty(), "{peer} is still known");
    }
}

#[test]
fn peers_that_wait_for_an_answer_stay() {
    let mut bench = Bench::with(|limits| limits.max_peers = 10);
    (0..10).for_each(|peer| assert!(!is_busy(&mut bench, peer, 1)));
    assert!(is_busy(&mut bench, 99, 1));
}

#[test]
fn remembered_ids_are_bounded_and_no_answer_is_forgotten_that_may_be_asked_for_again() {
    let mut bench = Bench::with(|limits| limits.max_remembered = 100);
    let message = request(Kind::Con, Code::POST, 1);
    for peer in 0..100 {
        let (exchange, _) = bench.ask(peer, &message);
        bench.respond(exchange, changed());
    }
    assert!(is_busy(&mut bench, 200, 1));
    bench.wait(44_000);
    assert!(is_busy(&mut bench, 200, 1), "its sender may retransmit still");
    assert!(requests(&bench.send(0, &message)).is_empty());
    bench.wait(1_500);
    assert!(!is_busy(&mut bench, 200, 1), "MAX_TRANSMIT_SPAN is over for the oldest");
    assert_eq!(bench.endpoint.remembered(), 100);
}

#[test]
fn strangers_whose_requests_have_no_effect_take_half_the_room() {
    let mut bench = Bench::with(|limits| (limits.max_remembered, limits.max_peers) = (10, 30));
    let unauthorized = || Response::new(Code::UNAUTHORIZED);
    // One who lives where he says he does is a stranger still.
    let (exchange, _) = handed_up(&bench.send(0, &get(50_000)));
    let challenge = one(&bench.respond(exchange, Response::new(Code::CONTENT).location("x".repeat(200))));
    let mut again = get(50_001);
    again.options.push(number::ECHO, challenge.options.first(number::ECHO).unwrap().clone());
    let (exchange, _) = handed_up(&bench.send(0, &again));
    bench.respond(exchange, unauthorized());
    assert!(bench.endpoint.is_proven(&0));
    for id in 0..1_000 {
        let peer = u32::from(id % 25);
        for (n, kind, code) in
            [(0, Kind::Con, Code::POST), (1, Kind::Non, Code::PUT), (2, Kind::Con, Code::GET)]
        {
            let (exchange, _) = handed_up(&bench.send(peer, &request(kind, code, 4 * id + n)));
            let answer = one(&bench.respond(exchange, unauthorized()));
            assert_eq!(answer.code, Code::UNAUTHORIZED);
            assert!(bench.endpoint.remembered() <= 5);
        }
        // A block without its first.
        let mut late = post(4 * id + 3, "p");
        late.options.push_uint(number::BLOCK1, BlockValue::new(3, false, 0).unwrap().to_uint());
        assert_eq!(one(&bench.send(peer, &late)).code, Code::REQUEST_ENTITY_INCOMPLETE);
    }
    assert!(bench.endpoint.remembered() <= 5 && bench.endpoint.peers() <= 5);
    // What has an effect is remembered, and so is what is refused to somebody who is known.
    for (peer, response) in [(100, changed()), (101, unauthorized())] {
        let (exchange, _) = handed_up(&bench.send(peer, &post(1, "p")));
        if peer == 101 {
            bench.endpoint.prove(&peer);
        }
        bench.respond(exchange, response);
        assert!(requests(&bench.send(peer, &post(1, "p"))).is_empty(), "{peer}");
    }
}

#[test]
fn remembered_ids_of_one_peer_are_bounded() {
    let mut bench = Bench::with(|limits| limits.max_remembered_per_peer = 10);
    for id in 0..10 {
        let (exchange, _) = bench.ask(1, &post(id, "p"));
        bench.respond(exchange, changed());
    }
    assert!(is_busy(&mut bench, 1, 10));
    bench.wait(248_000);
    assert!(!is_busy(&mut bench, 1, 10));
}

#[test]
fn kept_answers_are_bounded_and_their_code_is_kept_at_least() {
    let mut bench = Bench::with(|limits| limits.max_replay_bytes = 1_500);
    for id in 0..3 {
        let (exchange, _) = bench.ask(1, &post(id, "p"));
        bench.respond(exchange, changed().with_payload(vec![1; 1_000]));
    }
    assert!(bench.endpoint.bytes() <= 1_500);
    assert_eq!(one(&bench.send(1, &post(0, "p"))).payload.len(), 1_000);
    let bare = one(&bench.send(1, &post(2, "p")));
    assert_eq!((bare.code, bare.payload.len()), (Code::CHANGED, 0), "not served twice");
    let (exchange, _) = bench.ask(1, &get(5));
    bench.respond(exchange, content(vec![1; 1_000]));
    assert_eq!(requests(&bench.send(1, &get(5))).len(), 1, "a GET may be served again");
}

#[test]
fn observations_are_bounded() {
    let mut bench = Bench::with(|limits| {
        limits.max_observations = 5;
        limits.max_observations_per_peer = 2;
    });
    let mut observe = |peer: u32, id: u16| {
        let mut message = register(id, &id.to_be_bytes());
        message.options.push(number::URI_QUERY, id.to_string());
        let (exchange, _) = bench.ask(peer, &message);
        let observation = bench.endpoint.observe(bench.now, exchange, content("x"));
        let answer = one(&bench.drain());
        assert_eq!(answer.options.has(number::OBSERVE), observation.is_some());
        assert_eq!(answer.code, Code::CONTENT, "it is answered all the same");
        observation.is_some()
    };
    assert!(observe(1, 1) && observe(1, 2) && !observe(1, 3), "of one peer");
    assert!(observe(2, 1) && observe(2, 2) && observe(3, 1) && !observe(4, 1), "of all");
}

#[test]
fn messages_to_one_peer_are_bounded() {
    let mut bench = Bench::with(|limits| limits.max_outgoing_per_peer = 3);
    let (observation, _) = bench.register(1, 7, b"t");
    for _ in 0..3 {
        assert!(bench.endpoint.notify(bench.now, observation, content("x")).is_some());
    }
    assert_eq!(bench.endpoint.notify(bench.now, observation, content("x")), None);
    bench.drain();
    // A late answer that finds no room is sent once.
    let (exchange, _) = bench.ask(1, &post(8, "p"));
    bench.wait(1_500);
    assert_eq!(one(&bench.respond(exchange, changed())).kind, Kind::Non);
}

#[test]
fn bytes_to_be_sent_are_bounded() {
    let mut bench = Bench::with(|limits| limits.max_outgoing_bytes = 10_000);
    let (observation, _) = bench.register(1, 7, b"t");
    let sent = (0..32)
        .take_while(|_| bench.endpoint.notify(bench.now, observation, content(vec![1; 1_000])).is_some())
        .count();
    assert!((7..=9).contains(&sent), "{sent}");
    bench.endpoint.unobserve(observation);
    bench.drain();
    assert_eq!(bench.endpoint.bytes(), 0);
}
