//! RFC 7641: registration, notification, the end.

use landfall_coap_core::{Code, Ending, Kind, NoteFailure, Output, Response, number};

use crate::bench::{Bench, ack, content, get, handed_up, one, register, requests, sent, token};

#[test]
fn section_4_1_a_registration_is_answered_with_a_number() {
    let mut bench = Bench::new();
    let (_, answer) = bench.register(1, 7, b"t");
    assert_eq!((answer.kind, answer.code), (Kind::Ack, Code::CONTENT));
    assert!(answer.options.has(number::OBSERVE));
    assert_eq!(bench.endpoint.observations(), 1);
}

#[test]
fn section_4_4_numbers_rise() {
    let mut bench = Bench::new();
    let (observation, answer) = bench.register(1, 7, b"t");
    let mut last = answer.options.uint(number::OBSERVE).unwrap();
    for _ in 0..300 {
        bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
        let note = one(&bench.drain());
        let value = note.options.uint(number::OBSERVE).unwrap();
        assert!(value > last && note.kind == Kind::Con && note.token == token(b"t"));
        last = value;
        bench.send(1, &ack(note.id));
    }
    let (_, answer) = bench.register(1, 8, b"t");
    assert!(answer.options.uint(number::OBSERVE).unwrap() > last, "and over a refresh");
}

#[test]
fn section_4_1_a_refresh_keeps_the_observation_and_what_waits_for_it() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    let flight = one(&bench.drain());
    let (again, _) = bench.register(1, 8, b"t");
    assert_eq!(again, observation);
    assert!(bench.send(1, &ack(flight.id)).contains(&Output::Delivered { note, peer: 1 }));
    assert_eq!(bench.endpoint.observations(), 1);
}

#[test]
fn section_4_1_another_token_for_the_same_resource_takes_its_place() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"old");
    let note = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    bench.drain();
    let (exchange, _) = handed_up(&bench.send(1, &register(8, b"new")));
    let second = bench.endpoint.observe(bench.now, exchange, Response::new(Code::CONTENT)).unwrap();
    let outputs = bench.drain();
    assert_eq!(
        outputs[..2],
        [
            Output::Failed { note, peer: 1, why: NoteFailure::Ended },
            Output::ObservationEnded { observation, peer: 1, why: Ending::Replaced },
        ]
    );
    assert_ne!(second, observation);
    bench.endpoint.notify(bench.now, second, content("y")).unwrap();
    let mut outputs = bench.drain();
    outputs.extend(bench.wait(1));
    assert_eq!(one(&outputs).token, token(b"new"));
}

#[test]
fn two_peers_with_one_token_observe_for_themselves() {
    let mut bench = Bench::new();
    let (first, _) = bench.register(1, 7, b"t");
    let (second, _) = bench.register(2, 7, b"t");
    assert_ne!(first, second);
    bench.endpoint.notify(bench.now, second, content("x")).unwrap();
    let outputs = bench.drain();
    assert!(matches!(outputs[..], [Output::Transmit { peer: 2, .. }]), "{outputs:?}");
}

#[test]
fn section_3_6_get_with_observe_1_ends_it() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let mut message = register(8, b"other");
    message.options.set_uint(number::OBSERVE, 1);
    assert_eq!(bench.send(1, &message).len(), 1, "another token ends nothing");
    message = register(9, b"t");
    message.options.set_uint(number::OBSERVE, 1);
    let outputs = bench.send(1, &message);
    assert_eq!(outputs[0], Output::ObservationEnded { observation, peer: 1, why: Ending::Cancelled });
    let (exchange, _) = handed_up(&outputs);
    assert!(!one(&bench.respond(exchange, content("x"))).options.has(number::OBSERVE));
    assert_eq!(bench.endpoint.notify(bench.now, observation, content("x")), None);
}

#[test]
fn section_4_5_silence_ends_it() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let notes: Vec<_> =
        (0..2).map(|_| bench.endpoint.notify(bench.now, observation, content("x")).unwrap()).collect();
    bench.drain();
    let came: Vec<_> =
        bench.wait(100_000).into_iter().filter(|output| !matches!(output, Output::Transmit { .. })).collect();
    assert_eq!(
        came,
        [
            Output::Failed { note: notes[0], peer: 1, why: NoteFailure::Silent },
            Output::Failed { note: notes[1], peer: 1, why: NoteFailure::Ended },
            Output::ObservationEnded { observation, peer: 1, why: Ending::Silent },
        ]
    );
    assert_eq!(bench.endpoint.observations(), 0);
}

#[test]
fn section_4_2_a_notification_that_says_no_is_the_last() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note =
        bench.endpoint.notify(bench.now, observation, Response::new(Code::SERVICE_UNAVAILABLE)).unwrap();
    let last = one(&bench.drain());
    assert_eq!((last.code, last.options.has(number::OBSERVE)), (Code::SERVICE_UNAVAILABLE, false));
    assert_eq!(bench.endpoint.observations(), 0);
    assert_eq!(bench.endpoint.notify(bench.now, observation, content("x")), None);
    assert!(bench.send(1, &ack(last.id)).contains(&Output::Delivered { note, peer: 1 }));
}

#[test]
fn section_4_1_an_answer_that_says_no_registers_nothing() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &register(7, b"t"));
    assert_eq!(bench.endpoint.observe(bench.now, exchange, Response::new(Code::UNAUTHORIZED)), None);
    assert!(!one(&bench.drain()).options.has(number::OBSERVE));
    let (exchange, _) = bench.ask(1, &get(8));
    assert_eq!(bench.endpoint.observe(bench.now, exchange, content("x")), None, "no registration");
    assert!(!one(&bench.drain()).options.has(number::OBSERVE));
    assert_eq!(bench.endpoint.observations(), 0);
}

#[test]
fn a_late_answer_to_a_registration_is_numbered_as_it_leaves() {
    let mut bench = Bench::new();
    bench.register(1, 7, b"a");
    let mut message = register(8, b"b");
    message.options.push(number::URI_QUERY, "other");
    let (exchange, _) = bench.ask(1, &message);
    bench.wait(1_500);
    let observation = bench.endpoint.observe(bench.now, exchange, content("state")).unwrap();
    bench.endpoint.notify(bench.now, observation, content("news")).unwrap();
    let answer = one(&bench.drain());
    assert_eq!((answer.kind, answer.payload.as_ref()), (Kind::Con, &b"state"[..]));
    let note = one(&bench.send(1, &ack(answer.id)));
    assert_eq!(note.payload, "news");
    assert!(note.options.uint(number::OBSERVE) > answer.options.uint(number::OBSERVE));
}

#[test]
fn who_observes_no_more_gets_nothing_but_answers() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    bench.drain();
    let (exchange, _) = bench.ask(1, &get(8));
    bench.endpoint.unobserve(observation);
    assert_eq!(bench.drain(), [Output::Failed { note, peer: 1, why: NoteFailure::Ended }]);
    assert_eq!(one(&bench.respond(exchange, content("bye"))).payload, "bye");
    assert!(sent(&bench.wait(300_000)).is_empty());
    assert_eq!((bench.endpoint.peers(), bench.endpoint.bytes()), (0, 0));
}

#[test]
fn an_observation_outlives_every_other_trace() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    bench.wait(24 * 3_600_000);
    assert_eq!((bench.endpoint.peers(), bench.endpoint.remembered()), (1, 0));
    bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    assert_eq!(requests(&bench.drain()).len(), 0);
    assert_eq!(bench.endpoint.observations(), 1);
}

#[test]
fn the_shell_may_end_an_observation_without_a_word() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    bench.drain();
    bench.endpoint.unobserve(observation);
    assert_eq!(bench.drain(), [Output::Failed { note, peer: 1, why: NoteFailure::Ended }]);
    assert!(sent(&bench.wait(300_000)).is_empty());
    assert_eq!((bench.endpoint.observations(), bench.endpoint.peers(), bench.endpoint.bytes()), (0, 0, 0));
}
