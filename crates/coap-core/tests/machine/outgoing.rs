//! RFC 7252, sections 4.2, 4.4, 4.7 and 4.8: confirmable messages of ours.

use std::collections::HashSet;

use landfall_coap_core::{Ending, Kind, NoteFailure, Output};

use crate::bench::{Bench, ack, changed, content, one, post, rst, sent};

#[test]
fn section_4_2_a_confirmable_message_is_sent_five_times_at_doubled_intervals() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    let start = bench.now;
    let first = bench.drain();
    let came = bench.pass(200_000);
    let times: Vec<u64> = came
        .iter()
        .filter(|(_, output)| matches!(output, Output::Transmit { .. }))
        .map(|(at, output)| {
            assert_eq!(std::slice::from_ref(output), &first[..], "the same bytes");
            at - start
        })
        .collect();
    let timeout = times[0];
    assert!((2_000..=3_000).contains(&timeout), "{timeout}");
    assert_eq!(times, [timeout, 3 * timeout, 7 * timeout, 15 * timeout]);
    let (at, last) = came.iter().find(|(_, output)| matches!(output, Output::Failed { .. })).unwrap();
    assert_eq!(at - start, 31 * timeout, "at most MAX_TRANSMIT_WAIT");
    assert_eq!(*last, Output::Failed { note, peer: 1, why: NoteFailure::Silent });
}

#[test]
fn section_4_8_the_first_timeout_differs() {
    let mut timeouts = HashSet::new();
    for peer in 0..20 {
        let mut bench = Bench::new();
        for _ in 0..peer {
            // Other draws before it.
            let (other, _) = bench.register(99, 1, b"t");
            bench.wait(300_000);
            bench.endpoint.unobserve(other);
        }
        let (observation, _) = bench.register(peer, 7, b"t");
        for _ in 0..=peer {
            bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
            let note = one(&bench.drain());
            let next = bench.endpoint.next_timeout().unwrap() - bench.now;
            timeouts.insert(next);
            bench.send(peer, &ack(note.id));
        }
    }
    assert!(timeouts.len() > 10, "{timeouts:?}");
}

#[test]
fn section_4_7_one_message_is_in_flight_to_one_peer() {
    let mut bench = Bench::new();
    let (one_, _) = bench.register(1, 7, b"t");
    let (two, _) = bench.register(2, 7, b"t");
    let notes: Vec<_> =
        (0..3).map(|n| bench.endpoint.notify(bench.now, one_, content(format!("{n}"))).unwrap()).collect();
    bench.endpoint.notify(bench.now, two, content("other")).unwrap();
    let outputs = bench.drain();
    let flight = sent(&outputs);
    assert_eq!(flight.len(), 2, "one to each peer");
    let mut id = flight[0].id;
    for (n, note) in notes.iter().enumerate() {
        let outputs = bench.send(1, &ack(id));
        assert_eq!(outputs[..2], [Output::Heard { peer: 1 }, Output::Delivered { note: *note, peer: 1 }]);
        match sent(&outputs).first() {
            Some(next) => {
                assert_eq!(next.payload, format!("{}", n + 1), "in order");
                id = next.id;
            }
            None => assert_eq!(n, 2),
        }
    }
}

#[test]
fn section_4_2_only_the_peer_and_the_id_of_the_flight_match() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    let note = one(&bench.drain());
    for (peer, message) in
        [(2, ack(note.id)), (1, ack(note.id ^ 1)), (2, rst(note.id)), (1, rst(note.id ^ 0x8000))]
    {
        let outputs = bench.send(peer, &message);
        assert!(matches!(outputs[..], [Output::Rejected { .. }]), "{outputs:?}");
    }
    assert!(matches!(bench.send(1, &ack(note.id))[..], [Output::Heard { .. }, Output::Delivered { .. }]));
    let again = bench.send(1, &ack(note.id));
    assert!(matches!(again[..], [Output::Rejected { .. }]), "it counts once: {again:?}");
}

#[test]
fn section_4_2_a_reset_ends_the_observation_and_what_waits_for_it() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let first = bench.endpoint.notify(bench.now, observation, content("1")).unwrap();
    let second = bench.endpoint.notify(bench.now, observation, content("2")).unwrap();
    let note = one(&bench.drain());
    let outputs = bench.send(1, &rst(note.id));
    assert_eq!(
        outputs,
        [
            Output::Heard { peer: 1 },
            Output::Failed { note: first, peer: 1, why: NoteFailure::Reset },
            Output::Failed { note: second, peer: 1, why: NoteFailure::Ended },
            Output::ObservationEnded { observation, peer: 1, why: Ending::Reset },
        ]
    );
    assert!(sent(&bench.wait(100_000)).is_empty());
    assert_eq!(bench.endpoint.observations(), 0);
}

#[test]
fn section_4_4_ids_of_ours_come_in_no_order_and_never_twice() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
        let note = one(&bench.drain());
        assert_eq!(note.kind, Kind::Con);
        ids.push(note.id);
        bench.send(1, &ack(note.id));
        bench.now += 10;
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1_000);
    let neighbours = ids.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 64).count();
    assert!(neighbours < 20, "{neighbours} of 999");
}

#[test]
fn a_separate_answer_waits_behind_a_notification() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let (exchange, _) = bench.ask(1, &post(8, "p"));
    bench.wait(1_500);
    bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    let note = one(&bench.drain());
    assert!(bench.respond(exchange, changed()).is_empty());
    let answer = one(&bench.send(1, &ack(note.id)));
    assert_eq!((answer.kind, answer.token.as_bytes()), (Kind::Con, &b"tok"[..]));
}

#[test]
fn a_silent_peer_does_not_take_a_separate_answer_for_the_end_of_its_observation() {
    let mut bench = Bench::new();
    bench.register(1, 7, b"t");
    let (exchange, _) = bench.ask(1, &post(8, "p"));
    bench.wait(1_500);
    bench.respond(exchange, changed());
    let came = bench.wait(100_000);
    assert_eq!(sent(&came).len(), 4);
    assert_eq!((came.len(), bench.endpoint.observations()), (4, 1));
}
