//! RFC 7959 in messages: bodies of requests, responses and notifications.

use bytes::Bytes;
use landfall_coap_core::block::BlockValue;
use landfall_coap_core::{Answered, Code, Kind, Message, NoteFailure, Output, Rejected, Response, number};

use crate::bench::{
    Bench, ack, changed, content, get, handed_up, one, post, register, request, requests, sent,
};

fn block(num: u32, more: bool, szx: u8) -> u32 {
    BlockValue::new(num, more, szx).unwrap().to_uint()
}

/// POST of block `num` of a body of 16-byte blocks.
fn part(id: u16, num: u32, more: bool, payload: &'static [u8]) -> Message {
    let mut message = request(Kind::Con, Code::POST, id);
    message.options.push_uint(number::BLOCK1, block(num, more, 0));
    message.payload = Bytes::from_static(payload);
    message
}

fn further(id: u16, num: u32, szx: u8) -> Message {
    let mut message = get(id);
    message.options.push_uint(number::BLOCK2, block(num, false, szx));
    message
}

#[test]
fn section_2_5_a_body_is_handed_up_when_it_is_whole() {
    let mut bench = Bench::new();
    for (num, payload) in (0..2).zip([b"0123456789abcdef", b"ghijklmnopqrstuv"]) {
        let outputs = bench.send(1, &part(10 + num as u16, num, true, payload));
        let answer = one(&outputs);
        assert_eq!(
            (answer.code, answer.options.uint(number::BLOCK1)),
            (Code::CONTINUE, Some(block(num, true, 0)))
        );
        assert!(requests(&outputs).is_empty());
    }
    let (exchange, request) = handed_up(&bench.send(1, &part(12, 2, false, b"wxyz")));
    assert_eq!(request.payload, "0123456789abcdefghijklmnopqrstuvwxyz");
    let answer = one(&bench.respond(exchange, changed()));
    assert_eq!(answer.options.uint(number::BLOCK1), Some(block(2, false, 0)));
    assert_eq!(bench.endpoint.uploads(), 0);
}

#[test]
fn section_2_5_a_repeated_block_changes_nothing() {
    let mut bench = Bench::new();
    let first = part(10, 0, true, b"0123456789abcdef");
    let answer = bench.send(1, &first);
    assert_eq!(bench.again(1, &first), answer);
    bench.send(1, &part(11, 1, true, b"ghijklmnopqrstuv"));
    assert_eq!(bench.again(1, &first), answer, "also when the network was slow with it");
    let last = part(12, 2, false, b"w");
    let (exchange, request) = handed_up(&bench.send(1, &last));
    assert_eq!(request.payload.len(), 33);
    let answer = bench.respond(exchange, changed());
    assert_eq!(bench.again(1, &last), answer);
}

#[test]
fn section_2_9_2_a_body_without_its_beginning_is_incomplete() {
    let mut bench = Bench::new();
    let outputs = bench.send(1, &part(10, 3, true, b"0123456789abcdef"));
    assert_eq!(one(&outputs).code, Code::REQUEST_ENTITY_INCOMPLETE);
    assert!(outputs.contains(&Output::Rejected { peer: 1, why: Rejected::Incomplete }));
    bench.send(1, &part(11, 0, true, b"0123456789abcdef"));
    let other = bench.send(2, &part(11, 1, true, b"0123456789abcdef"));
    assert_eq!(one(&other).code, Code::REQUEST_ENTITY_INCOMPLETE, "of another peer");
}

#[test]
fn section_2_9_3_a_body_above_the_limit_is_refused_with_the_limit() {
    let mut bench = Bench::with(|limits| limits.max_body = 20);
    bench.send(1, &part(10, 0, true, b"0123456789abcdef"));
    let outputs = bench.send(1, &part(11, 1, true, b"0123456789abcdef"));
    let answer = one(&outputs);
    assert_eq!((answer.code, answer.options.uint(number::SIZE1)), (Code::REQUEST_ENTITY_TOO_LARGE, Some(20)));
    assert!(outputs.contains(&Output::Rejected { peer: 1, why: Rejected::TooLarge }));
    assert_eq!(bench.endpoint.uploads(), 0);
}

#[test]
fn section_2_2_the_reserved_size_is_refused() {
    for number in [number::BLOCK1, number::BLOCK2] {
        let mut message = post(7, "x");
        message.options.push_uint(number, 7);
        assert_eq!(one(&Bench::new().send(1, &message)).code, Code::BAD_REQUEST);
    }
}

#[test]
fn bodies_that_are_never_finished_are_bounded_and_go() {
    let mut bench = Bench::with(|limits| limits.max_uploads = 100);
    let mut refused = 0;
    for peer in 0..1_000 {
        let outputs = bench.send(peer, &part(10, 0, true, b"0123456789abcdef"));
        let code = one(&outputs).code;
        // Above the half, strangers prove their address first.
        refused += usize::from(matches!(code, Code::SERVICE_UNAVAILABLE | Code::UNAUTHORIZED));
    }
    assert!(bench.endpoint.uploads() <= 100 && refused >= 900);
    bench.wait(121_000);
    assert_eq!(bench.endpoint.uploads(), 0);
}

#[test]
fn section_2_4_a_long_body_leaves_block_by_block() {
    let mut bench = Bench::new();
    let body: Vec<u8> = (0..2_500_u32).map(|n| n as u8).collect();
    let (exchange, _) = bench.ask(1, &get(10));
    let first = one(&bench.respond(exchange, content(body.clone()).content_format(42)));
    assert_eq!(first.options.uint(number::BLOCK2), Some(block(0, true, 6)));
    let mut whole = first.payload.to_vec();
    for num in 1..3 {
        let piece = one(&bench.send(1, &further(10 + num as u16, num, 6)));
        assert_eq!(piece.options.uint(number::BLOCK2), Some(block(num, num < 2, 6)));
        assert_eq!(piece.options.first(number::ETAG), first.options.first(number::ETAG));
        assert_eq!(piece.options.uint(number::CONTENT_FORMAT), Some(42));
        assert_eq!((piece.kind, piece.code), (Kind::Ack, Code::CONTENT));
        whole.extend_from_slice(&piece.payload);
    }
    assert_eq!(whole, body);
}

#[test]
fn section_2_4_the_client_may_ask_for_smaller_blocks() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &further(10, 0, 2));
    let first = one(&bench.respond(exchange, content(vec![1; 150])));
    assert_eq!((first.payload.len(), first.options.uint(number::BLOCK2)), (64, Some(block(0, true, 2))));
    let (exchange, _) = bench.ask(2, &further(10, 0, 2));
    let short = one(&bench.respond(exchange, content("short")));
    assert_eq!(short.options.uint(number::BLOCK2), Some(block(0, false, 2)), "it has asked");
}

#[test]
fn section_4_the_length_is_told_to_who_asks() {
    let mut bench = Bench::new();
    let mut message = get(10);
    message.options.push_uint(number::SIZE2, 0);
    let (exchange, _) = bench.ask(1, &message);
    assert_eq!(
        one(&bench.respond(exchange, content(vec![1; 5_000]))).options.uint(number::SIZE2),
        Some(5_000)
    );
}

#[test]
fn blocks_of_a_body_that_is_not_kept_are_refused_and_ask_nobody() {
    let mut bench = Bench::new();
    let outputs = bench.send(1, &further(10, 4, 6));
    assert_eq!(one(&outputs).code, Code::REQUEST_ENTITY_INCOMPLETE);
    assert!(requests(&outputs).is_empty());
    assert_eq!(bench.endpoint.peers(), 0);
    let (exchange, _) = bench.ask(1, &get(11));
    bench.respond(exchange, content(vec![1; 2_000]));
    assert_eq!(one(&bench.send(1, &further(12, 9, 6))).code, Code::BAD_REQUEST, "beyond the end");
    assert_eq!(one(&bench.send(2, &further(12, 1, 6))).code, Code::REQUEST_ENTITY_INCOMPLETE, "not its own");
}

#[test]
fn rfc_7641_section_3_4_a_long_notification_is_fetched_before_the_next_one_leaves() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    bench.endpoint.notify(bench.now, observation, content(vec![b'1'; 2_500])).unwrap();
    bench.endpoint.notify(bench.now, observation, content("2")).unwrap();
    let first = one(&bench.drain());
    assert_eq!((first.payload.len(), first.options.has(number::OBSERVE)), (1_024, true));
    assert!(sent(&bench.send(1, &ack(first.id))).is_empty(), "it has blocks to fetch");
    for num in 1..3 {
        let mut message = further(20 + num as u16, num, 6);
        message.options.remove(number::URI_PATH);
        message.options.push(number::URI_PATH, "command");
        let messages = sent(&bench.send(1, &message));
        assert_eq!(messages[0].options.first(number::ETAG), first.options.first(number::ETAG));
        assert_eq!(messages.len(), num as usize, "the next notification follows the last block");
        if num == 2 {
            assert_eq!((messages[1].kind, &messages[1].payload[..]), (Kind::Con, &b"2"[..]));
        }
    }
}

#[test]
fn a_client_that_fetches_nothing_holds_the_next_notification_for_a_while_only() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    bench.endpoint.notify(bench.now, observation, content(vec![b'1'; 2_500])).unwrap();
    bench.endpoint.notify(bench.now, observation, content("2")).unwrap();
    let first = one(&bench.drain());
    bench.send(1, &ack(first.id));
    assert!(sent(&bench.wait(4_900)).is_empty());
    assert_eq!(one(&bench.wait(200)).payload, "2");
}

#[test]
fn a_registration_says_how_large_the_blocks_of_its_notifications_are() {
    let mut bench = Bench::new();
    let mut message = register(7, b"t");
    message.options.push_uint(number::BLOCK2, block(0, false, 2));
    let (exchange, _) = bench.ask(1, &message);
    let observation = bench.endpoint.observe(bench.now, exchange, content("")).unwrap();
    bench.drain();
    bench.endpoint.notify(bench.now, observation, content(vec![1; 100])).unwrap();
    assert_eq!(one(&bench.drain()).payload.len(), 64);
}

#[test]
fn an_answer_above_the_limit_becomes_an_error() {
    let mut bench = Bench::with(|limits| limits.max_body = 2_000);
    let (exchange, _) = bench.ask(1, &get(10));
    assert_eq!(one(&bench.respond(exchange, content(vec![1; 2_001]))).code, Code::INTERNAL_SERVER_ERROR);
    let (observation, _) = bench.register(1, 11, b"t");
    assert_eq!(bench.endpoint.notify(bench.now, observation, content(vec![1; 2_001])), None);
}

/// A GET of one of the blocks of what is observed.
fn of_command(id: u16, num: u32) -> landfall_coap_core::Message {
    let mut message = further(id, num, 6);
    message.options.remove(number::URI_PATH);
    message.options.push(number::URI_PATH, "command");
    message
}

#[test]
fn a_notification_of_several_blocks_is_delivered_with_the_last_one() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content(vec![b'1'; 2_500])).unwrap();
    let delivered = Output::Delivered { note, peer: 1 };
    let first = one(&bench.drain());
    assert!(!bench.send(1, &ack(first.id)).contains(&delivered), "the first block is not all of it");
    assert!(!bench.send(1, &of_command(21, 1)).contains(&delivered));
    assert!(bench.send(1, &of_command(22, 2)).contains(&delivered));
    assert!(!bench.wait(300_000).contains(&Output::Unfetched { note, peer: 1 }));
}

#[test]
fn blocks_that_are_fetched_late_still_deliver() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content(vec![b'1'; 2_500])).unwrap();
    let first = one(&bench.drain());
    bench.send(1, &ack(first.id));
    assert!(bench.wait(5_100).contains(&Output::Unfetched { note, peer: 1 }));
    bench.send(1, &of_command(21, 1));
    assert!(bench.send(1, &of_command(22, 2)).contains(&Output::Delivered { note, peer: 1 }));
}

#[test]
fn an_answer_of_several_blocks_is_there_with_the_last_one() {
    let mut bench = Bench::new();
    let (exchange, _) = bench.ask(1, &get(10));
    assert_eq!(bench.endpoint.respond_in_full(bench.now, exchange, content("x")), Answered::Whole);
    bench.drain();
    let (exchange, _) = bench.ask(1, &get(11));
    let answered = bench.endpoint.respond_in_full(bench.now, exchange, content(vec![1; 1_500]));
    let Answered::Begun(note) = answered else { panic!("{answered:?}") };
    bench.drain();
    assert!(bench.send(1, &further(12, 1, 6)).contains(&Output::Delivered { note, peer: 1 }));
    assert_eq!(bench.endpoint.respond_in_full(bench.now, exchange, content("x")), Answered::No);
}

#[test]
fn what_is_recalled_fails_and_the_observation_goes_on() {
    let mut bench = Bench::new();
    let (observation, _) = bench.register(1, 7, b"t");
    let note = bench.endpoint.notify(bench.now, observation, content("x")).unwrap();
    bench.drain();
    bench.endpoint.recall(observation);
    assert_eq!(bench.drain(), [Output::Failed { note, peer: 1, why: NoteFailure::Ended }]);
    assert!(bench.endpoint.notify(bench.now, observation, content("y")).is_some());
}

#[test]
fn every_block_of_a_body_is_handed_up_before_it_is_answered() {
    let mut bench = Bench::new();
    bench.lets_in = false;
    let (exchange, asked) = handed_up(&bench.send(1, &part(10, 0, true, b"0123456789abcdef")));
    assert!(asked.is_partial && asked.payload.is_empty() && asked.path == ["a", "b"]);
    let answer = one(&bench.respond(exchange, Response::new(Code::CONTINUE)));
    assert_eq!((answer.code, answer.options.uint(number::BLOCK1)), (Code::CONTINUE, Some(block(0, true, 0))));
    assert_eq!(one(&bench.again(1, &part(10, 0, true, b"0123456789abcdef"))), answer);
    // Who is not let in with one of them has sent them all in vain.
    let (exchange, asked) = handed_up(&bench.send(1, &part(11, 1, true, b"0123456789abcdef")));
    assert!(asked.is_partial);
    assert_eq!(one(&bench.respond(exchange, Response::new(Code::UNAUTHORIZED))).code, Code::UNAUTHORIZED);
    assert_eq!(bench.endpoint.uploads(), 0);
    let outputs = bench.send(1, &part(12, 2, false, b"x"));
    assert_eq!(one(&outputs).code, Code::REQUEST_ENTITY_INCOMPLETE);
}

#[test]
fn a_block_that_is_fetched_is_told_with_what_it_shows() {
    let mut bench = Bench::new();
    bench.lets_in = false;
    let with_key = |mut message: Message| {
        message.options.push(number::URI_QUERY, "key=x");
        message
    };
    let (exchange, _) = bench.ask(1, &with_key(get(10)));
    bench.respond(exchange, content(vec![1; 2_000]));
    let outputs = bench.send(1, &with_key(further(11, 1, 6)));
    let told = outputs.iter().any(|output| {
        matches!(output, Output::Fetched { peer: 1, request } if request.queries == ["key=x"] && request.path == ["a", "b"])
    });
    assert!(told, "{outputs:?}");
    // Who does not show the same gets nothing, and says nothing.
    for outputs in [bench.send(1, &further(12, 1, 6)), bench.send(2, &with_key(further(12, 1, 6)))] {
        assert_eq!(one(&outputs).code, Code::REQUEST_ENTITY_INCOMPLETE);
        assert!(!outputs.iter().any(|output| matches!(output, Output::Fetched { .. })));
    }
}
