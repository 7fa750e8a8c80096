//! Peers that are gone for good: a secure channel that is closed.

use bytes::Bytes;
use landfall_coap_core::block::BlockValue;
use landfall_coap_core::{Code, Ending, Kind, NoteFailure, Output, number};

use crate::bench::{Bench, changed, content, get, handed_up, one, post, register, request, sent};

#[test]
fn observations_end_and_what_is_on_its_way_fails() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let (other, _) = bench.register(2, 7, b"t");
    let first = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    let second = bench.endpoint.notify(bench.now, observation, content("y")).unwrap();
    bench.drain();
    bench.endpoint.forget(&1);
    let outputs = bench.drain();
    let failed = |note| Output::Failed { note, peer: 1, why: NoteFailure::Ended };
    let ended = Output::ObservationEnded { observation, peer: 1, why: Ending::Gone };
    assert_eq!(outputs, [failed(first), failed(second), ended]);
    assert_eq!((bench.endpoint.observations(), bench.endpoint.peers()), (1, 1));
    assert!(bench.endpoint.notify(bench.now, observation, content("z")).is_none());
    assert!(bench.endpoint.notify(bench.now, other, content("z")).is_some(), "nobody else is meant");
}

#[test]
fn answers_to_one_who_is_gone_go_nowhere() {
    let mut bench = Bench::new();
    let (early, _) = bench.ask(1, &post(1, "a"));
    let (late, _) = bench.ask(1, &post(2, "b"));
    let (observed, _) = bench.ask(1, &register(3, b"t"));
    bench.respond(early, changed());
    bench.endpoint.forget(&1);
    assert_eq!((bench.drain(), bench.endpoint.peers()), (vec![], 1));
    assert!(bench.pass(10_000).is_empty(), "not even an empty acknowledgement");
    assert!(!bench.endpoint.respond(bench.now, late, changed()));
    assert_eq!(bench.endpoint.observe(bench.now, observed, content("x")), None);
    assert_eq!((bench.drain(), bench.endpoint.peers(), bench.endpoint.exchanges()), (vec![], 0, 0));
}

#[test]
fn a_separate_response_is_not_sent_again() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &get(1));
    assert_eq!(sent(&bench.pass(5_000).into_iter().map(|(_, output)| output).collect::<Vec<_>>()).len(), 1);
    assert_eq!(one(&bench.respond(exchange, content("late"))).kind, Kind::Con);
    bench.endpoint.forget(&1);
    assert!(bench.pass(100_000).is_empty());
    assert_eq!((bench.endpoint.bytes(), bench.endpoint.peers()), (0, 0));
}

#[test]
fn bodies_on_their_way_are_dropped() {
    let mut bench = Bench::new();
    let part = |id, num, more| {
        let mut message = request(Kind::Con, Code::POST, id);
        message.options.push_uint(number::BLOCK1, BlockValue::new(num, more, 0).unwrap().to_uint());
        message.payload = Bytes::from_static(b"0123456789abcdef");
        message
    };
    assert_eq!(one(&bench.send(1, &part(1, 0, true))).code, Code::CONTINUE);
    let (exchange, _) = bench.ask(1, &get(2));
    assert!(one(&bench.respond(exchange, content(vec![b'x'; 3_000]))).options.has(number::BLOCK2));
    assert_eq!((bench.endpoint.uploads(), bench.endpoint.downloads()), (1, 1));
    bench.endpoint.forget(&1);
    assert_eq!((bench.endpoint.uploads(), bench.endpoint.downloads(), bench.endpoint.peers()), (0, 0, 0));
}

#[test]
fn whoever_comes_with_the_same_name_is_somebody_else() {
    let mut bench = Bench::new();
    let (old, _) = bench.ask(1, &post(1, "a"));
    bench.endpoint.forget(&1);
    let (new, _) = handed_up(&bench.send(1, &post(1, "a")));
    assert!(!bench.endpoint.is_proven(&1));
    assert_eq!(bench.endpoint.peers(), 2);
    assert_eq!(one(&bench.respond(new, changed())).code, Code::CHANGED);
    assert_eq!(bench.respond(old, changed()), []);
    assert_eq!(bench.endpoint.peers(), 1);
    bench.endpoint.forget(&9);
    assert_eq!(bench.again(1, &post(1, "a")).len(), 1, "it is remembered");
}
