//! Amplification: no stranger draws more than three times its bytes until its address is proven (RFC 9175, section 2.4).

use landfall_coap_core::{Code, Output, Rejected, Response, number};

use crate::bench::{
    Bench, Outputs, ack, changed, content, get, handed_up, one, post, register, request, sent,
};

fn bytes(outputs: &Outputs) -> usize {
    outputs
        .iter()
        .map(|output| if let Output::Transmit { bytes, .. } = output { bytes.len() } else { 0 })
        .sum()
}

fn length(message: &landfall_coap_core::Message) -> usize {
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
