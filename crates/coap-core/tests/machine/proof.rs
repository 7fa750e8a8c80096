//! Amplification: no stranger draws more than three times its bytes until its address is proven (RFC 9175, section 2.4).

use landfall_coap_core::{Code, Kind, Message, Output, Rejected, Response, number};

use crate::bench::{
    Bench, Outputs, ack, changed, content, get, handed_up, one, post, register, request, rst, sent,
};

fn bytes(outputs: &Outputs) -> usize {
    outputs
        .iter()
        .map(|output| if let Output::Transmit { bytes, .. } = output { bytes.len() } else { 0 })
        .sum()
}

fn unmatched() -> Output<u32> {
    Output::Rejected { peer: 1, why: Rejected::Unmatched }
}

fn length(message: &Message) -> usize {
    landfall_coap_core::codec::encode(message).len()
}

/// `/.well-known/core` of a stranger, answered with a long body.
fn core(bench: &mut Bench, peer: u32, id: u16) -> (usize, Outputs) {
    let mut message = request(landfall_coap_core::Kind::Con, Code::GET, id);
    message.options.remove(number::URI_PATH);
    message.options.push(number::URI_PATH, ".well-known");
    message.options.push(number::URI_PATH, "core");
    let (exchange, _) = handed_up(&bench.send(peer, &message));
    (length(&message), bench.respond(exchange, content(vec![b'x'; 2_000])))
}

#[test]
fn a_stranger_gets_a_smaller_block() {
    let mut bench = Bench::new();
    let (asked, outputs) = core(&mut bench, 1, 7);
    let answer = one(&outputs);
    assert!(bytes(&outputs) <= 3 * asked, "{} for {asked}", bytes(&outputs));
    assert_eq!(answer.code, Code::CONTENT);
    assert!(!answer.payload.is_empty() && answer.options.has(number::BLOCK2));
}

#[test]
fn what_does_not_fit_at_all_asks_for_proof() {
    let mut bench = Bench::new();
    let message = get(7);
    let (exchange, _) = handed_up(&bench.send(1, &message));
    let mut long = Response::new(Code::CONTENT);
    for _ in 0..4 {
        long = long.location("x".repeat(100));
    }
    let outputs = bench.respond(exchange, long.clone());
    let answer = one(&outputs);
    assert_eq!(answer.code, Code::UNAUTHORIZED);
    assert!(outputs.contains(&Output::Rejected { peer: 1, why: Rejected::Unproven }));
    assert!(bytes(&outputs) <= 3 * length(&message));

    // The same request with the Echo value is answered in full; without it, or from another address, it is not.
    let value = answer.options.first(number::ECHO).unwrap().clone();
    let mut again = get(8);
    again.options.push(number::ECHO, value.clone());
    let mut foreign = get(8);
    foreign.options.push(number::ECHO, value);
    let (exchange, _) = handed_up(&bench.send(2, &foreign));
    assert_eq!(one(&bench.respond(exchange, long.clone())).code, Code::UNAUTHORIZED);
    let (exchange, _) = handed_up(&bench.send(1, &again));
    assert_eq!(one(&bench.respond(exchange, long)).code, Code::CONTENT);
}

#[test]
fn rfc_9175_section_2_3_an_echo_value_ages() {
    let mut bench = Bench::new();
    let (exchange, _) = handed_up(&bench.send(1, &get(7)));
    let long = Response::new(Code::CONTENT).location("x".repeat(200));
    let challenge = one(&bench.respond(exchange, long.clone()));
    bench.wait(62_000);
    let mut again = get(8);
    again.options.push(number::ECHO, challenge.options.first(number::ECHO).unwrap().clone());
    let (exchange, _) = handed_up(&bench.send(1, &again));
    assert_eq!(one(&bench.respond(exchange, long)).code, Code::UNAUTHORIZED);
}

#[test]
fn retransmissions_count() {
    let mut bench = Bench::new();
    let message = register(7, b"t");
    let (exchange, _) = handed_up(&bench.send(1, &message));
    let observation = bench.endpoint.observe(bench.now, exchange, Response::new(Code::CONTENT)).unwrap();
    let mut drawn = bytes(&bench.drain());
    bench.endpoint.notify(bench.now, observation, content("0123456789")).unwrap();
    drawn += bytes(&bench.drain()) + bytes(&bench.wait(100_000));
    assert!(drawn <= 3 * length(&message), "{drawn} for {}", length(&message));
}

/// An observation of a stranger, and a notification that is too long for its credit; with the ping that went in its place,
/// and the bytes drawn and sent so far.
fn held_back(bench: &mut Bench) -> (Message, usize, usize) {
    let message = register(7, b"t");
    let (exchange, _) = handed_up(&bench.send(1, &message));
    let observation = bench.endpoint.observe(bench.now, exchange, Response::new(Code::CONTENT)).unwrap();
    let answered = bytes(&bench.drain());
    bench.endpoint.notify(bench.now, observation, content("0123456789".repeat(5))).unwrap();
    let outputs = bench.drain();
    let ping = one(&outputs);
    assert_eq!((ping.kind, ping.code), (Kind::Con, Code::EMPTY), "{ping:?}");
    (ping, answered + bytes(&outputs), length(&message))
}

#[test]
fn a_message_that_is_held_back_goes_when_a_ping_is_reset() {
    let mut bench = Bench::new();
    let (ping, ..) = held_back(&mut bench);
    let outputs = bench.send(1, &rst(ping.id));
    assert_eq!(outputs[0], Output::Heard { peer: 1 });
    assert_eq!(outputs[2], Output::Proven { peer: 1 });
    let note = one(&outputs);
    assert_eq!((note.code, note.payload.len()), (Code::CONTENT, 50));
    assert!(bench.endpoint.is_proven(&1));
    assert!(
        matches!(bench.send(1, &ack(note.id))[..], [Output::Heard { .. }, Output::Delivered { .. }]),
        "and is as any other from then on"
    );
    assert_eq!(bench.send(1, &rst(ping.id)), [unmatched()], "a ping is reset once");
}

#[test]
fn pings_are_within_what_may_be_sent() {
    let mut bench = Bench::new();
    let (_, mut drawn, asked) = held_back(&mut bench);
    for _ in 0..20 {
        bench.endpoint.probe(bench.now, &1);
        drawn += bytes(&bench.drain());
    }
    drawn += bytes(&bench.wait(100_000));
    assert!(drawn <= 3 * asked && drawn + 4 > 3 * asked, "{drawn} for {asked}");
}

#[test]
fn what_the_shell_vouches_for_is_not_held_back() {
    let mut bench = Bench::new();
    held_back(&mut bench);
    bench.endpoint.prove(&1);
    assert_eq!(one(&bench.drain()).payload.len(), 50);
    bench.endpoint.prove(&1);
    bench.endpoint.probe(bench.now, &1);
    assert_eq!(bench.drain(), []);
}

#[test]
fn the_shell_may_ask_for_proof() {
    let mut bench = Bench::new();
    bench.endpoint.probe(bench.now, &1);
    assert_eq!(bench.drain(), [], "nobody is known there");
    handed_up(&bench.send(1, &post(7, "payload")));
    let probe = |bench: &mut Bench| {
        bench.endpoint.probe(bench.now, &1);
        one(&bench.drain()).id
    };
    let first = probe(&mut bench);
    assert_eq!(probe(&mut bench), first, "the same for a while");
    assert_eq!(bench.send(1, &ack(first)), [unmatched()], "a ping is reset, not acknowledged");
    assert_eq!(bench.send(2, &rst(first)).len(), 1, "by its peer");
    bench.wait(50_000);
    let second = probe(&mut bench);
    assert_ne!(second, first);
    assert_eq!(bench.send(1, &rst(first)), [unmatched()]);
    assert_eq!(bench.send(1, &rst(second)), [Output::Heard { peer: 1 }, Output::Proven { peer: 1 }]);
}

#[test]
fn a_ping_that_is_too_old_proves_nothing() {
    let mut bench = Bench::new();
    let (ping, ..) = held_back(&mut bench);
    bench.now += 250_000;
    assert!(bench.send(1, &rst(ping.id)).contains(&unmatched()));
    assert!(!bench.endpoint.is_proven(&1));
}

/// Whoever sends from a forged address has to guess our ids, and may not try them all.
#[test]
fn ids_cannot_be_guessed_one_after_the_other() {
    let mut bench = Bench::new();
    let (ping, ..) = held_back(&mut bench);
    for n in 1..=32 {
        assert_eq!(bench.send(1, &rst(ping.id ^ n)), [unmatched()]);
    }
    assert_eq!(bench.send(1, &rst(ping.id)), [unmatched()]);

    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    bench.endpoint.notify(bench.now, observation, content("1")).unwrap();
    let note = one(&bench.drain());
    for n in 1..=31 {
        assert_eq!(bench.send(1, &ack(note.id ^ n)), [unmatched()]);
    }
    assert_ne!(bench.send(1, &ack(note.id)), [unmatched()], "late acknowledgements of others do no harm");
    bench.endpoint.notify(bench.now, observation, content("2")).unwrap();
    let note = one(&bench.drain());
    for n in 1..=32 {
        assert_eq!(bench.send(1, &ack(note.id ^ n)), [unmatched()]);
    }
    assert_eq!(bench.send(1, &ack(note.id)), [unmatched()], "a guess too many");
    assert!(bench.wait(100_000).iter().any(|output| matches!(output, Output::Failed { .. })));
}

#[test]
fn who_has_proven_an_address_and_no_more_yields_to_others() {
    let mut bench = Bench::with(|limits| limits.max_peers = 4);
    for peer in 0..4 {
        let long = Response::new(Code::CONTENT).location("x".repeat(200));
        let (exchange, _) = handed_up(&bench.send(peer, &get(7)));
        let challenge = one(&bench.respond(exchange, long));
        let mut again = get(8);
        again.options.push(number::ECHO, challenge.options.first(number::ECHO).unwrap().clone());
        let outputs = bench.send(peer, &again);
        assert_eq!(outputs[0], Output::Proven { peer });
        bench.respond(handed_up(&outputs).0, changed());
    }
    let known = handed_up(&bench.send(4, &get(1))).0;
    bench.endpoint.prove(&4);
    bench.respond(known, changed());
    for peer in 5..50 {
        let (exchange, _) = handed_up(&bench.send(peer, &get(1)));
        bench.respond(exchange, changed());
    }
    assert!(bench.endpoint.is_proven(&4) && bench.endpoint.peers() == 4);
}

#[test]
fn duplicates_earn_what_they_draw() {
    let mut bench = Bench::new();
    let message = get(7);
    let (exchange, _) = handed_up(&bench.send(1, &message));
    let mut drawn = bytes(&bench.respond(exchange, content("01234567890123456789")));
    for n in 2..50 {
        drawn += bytes(&bench.send(1, &message));
        assert!(drawn <= 3 * n * length(&message));
    }
    assert!(drawn > 49 * 20, "they are answered");
}

#[test]
fn an_acknowledgement_of_ours_proves_the_address() {
    let mut bench = Bench::new();
    let (exchange, _) = handed_up(&bench.send(1, &post(7, "payload")));
    bench.wait(1_500);
    let answer = one(&bench.respond(exchange, changed()));
    bench.send(1, &ack(answer.id));
    let (exchange, _) = handed_up(&bench.send(1, &get(8)));
    assert_eq!(one(&bench.respond(exchange, content(vec![1; 1_000]))).payload.len(), 1_000);
}

#[test]
fn the_shell_may_know_that_it_is_proven() {
    let mut bench = Bench::new();
    let (exchange, _) = handed_up(&bench.send(1, &get(7)));
    bench.endpoint.prove(&1);
    assert_eq!(one(&bench.respond(exchange, content(vec![1; 1_000]))).payload.len(), 1_000);
}

#[test]
fn a_registration_that_cannot_be_answered_registers_nothing() {
    let mut bench = Bench::new();
    let (exchange, _) = handed_up(&bench.send(1, &register(7, b"t")));
    let long = Response::new(Code::CONTENT).location("x".repeat(200));
    assert_eq!(bench.endpoint.observe(bench.now, exchange, long), None);
    assert_eq!(one(&bench.drain()).code, Code::UNAUTHORIZED);
    assert_eq!(bench.endpoint.observations(), 0);
}

#[test]
fn whatever_a_stranger_sends_draws_three_times_its_bytes_at_most() {
    let mut bench = Bench::new();
    let mut option = get(7);
    option.options.push(65_001, "");
    let mut proxy = get(8);
    proxy.options.push(number::PROXY_URI, "x");
    for (peer, datagram) in [
        b"\x40\0\0\x01".to_vec(),
        b"\x49\x01\0\x01".to_vec(),
        b"\x40\x45\0\x01".to_vec(),
        b"\x40\x05\0\x01".to_vec(),
        landfall_coap_core::codec::encode(&option).to_vec(),
        landfall_coap_core::codec::encode(&proxy).to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        let outputs = bench.raw(peer as u32, &datagram);
        assert_eq!(sent(&outputs).len(), 1);
        assert!(bytes(&outputs) <= 3 * datagram.len());
    }
}
