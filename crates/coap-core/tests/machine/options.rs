//! RFC 7252, sections 5.4, 5.7, 5.8 and 5.10: which options and methods are served.

use landfall_coap_core::{Code, Kind, Method, Observe, Output, Rejected, number};

use crate::bench::{Bench, get, handed_up, one, register, request};

/// What a confirmable GET with one more option gets, and why.
fn refused(number: u16, value: &[u8]) -> (Code, Rejected) {
    let mut bench = Bench::new();
    let mut message = get(7);
    message.options.push(number, value.to_vec());
    let outputs = bench.send(1, &message);
    let [_, Output::Rejected { peer: 1, why }] = outputs[..] else { panic!("{outputs:?}") };
    let answer = one(&outputs);
    assert_eq!((answer.kind, answer.id, answer.token.as_bytes()), (Kind::Ack, 7, &b"tok"[..]));
    assert_eq!(bench.endpoint.peers(), 0, "no state");
    (answer.code, why)
}

#[test]
fn section_5_4_1_an_unknown_critical_option_is_refused() {
    for number in [number::IF_MATCH, number::IF_NONE_MATCH, 9, 13, 19, 31, 65_001] {
        assert_eq!(refused(number, b""), (Code::BAD_OPTION, Rejected::BadOption), "{number}");
    }
}

#[test]
fn section_5_4_1_in_a_non_confirmable_request_it_is_ignored_with_it() {
    let mut message = request(Kind::Non, Code::POST, 7);
    message.options.push(65_001, "");
    let outputs = Bench::new().send(1, &message);
    assert_eq!(outputs, [Output::Rejected { peer: 1, why: Rejected::BadOption }]);
}

#[test]
fn section_5_4_1_an_unknown_elective_option_is_passed_over() {
    let mut message = get(7);
    message.options.push(65_000, "x");
    message.options.push(2, "x");
    handed_up(&Bench::new().send(1, &message));
}

#[test]
fn section_5_4_3_a_wrong_length_is_as_an_unknown_option() {
    let long = [0; 256];
    for (number, value) in [
        (number::URI_HOST, &b""[..]),
        (number::URI_HOST, &long[..]),
        (number::URI_PATH, &long[..]),
        (number::URI_QUERY, &long[..]),
        (number::URI_PORT, &[0; 3][..]),
        (number::ACCEPT, &[0; 3][..]),
        (number::BLOCK1, &[0; 4][..]),
        (number::BLOCK2, &[0; 4][..]),
        (number::URI_PATH, b"\xff"),
        (number::URI_QUERY, b"\xc0\x80"),
    ] {
        assert_eq!(refused(number, value), (Code::BAD_OPTION, Rejected::BadOption), "{number} {value:?}");
    }
    let mut message = get(7);
    message.options.push(number::CONTENT_FORMAT, vec![0; 3]);
    message.options.push(number::OBSERVE, vec![0; 4]);
    let (_, request) = handed_up(&Bench::new().send(1, &message));
    assert_eq!((request.content_format, request.observe), (None, None), "elective ones are as if absent");
}

#[test]
fn section_5_4_5_a_repeated_critical_option_is_as_an_unknown_one() {
    for number in [number::URI_HOST, number::URI_PORT, number::ACCEPT, number::BLOCK1, number::BLOCK2] {
        let mut bench = Bench::new();
        let mut message = get(7);
        message.options.push(number, "1");
        message.options.push(number, "1");
        assert_eq!(one(&bench.send(1, &message)).code, Code::BAD_OPTION, "{number}");
    }
    let mut message = get(7);
    message.options.push_uint(number::CONTENT_FORMAT, 50);
    message.options.push_uint(number::CONTENT_FORMAT, 60);
    let (_, request) = handed_up(&Bench::new().send(1, &message));
    assert_eq!(request.content_format, Some(50), "the second is as if absent");
}

#[test]
fn section_5_7_this_is_no_proxy() {
    let proxying = (Code::PROXYING_NOT_SUPPORTED, Rejected::Proxy);
    assert_eq!(refused(number::PROXY_URI, b"coap://10.0.0.1/"), proxying);
    assert_eq!(refused(number::PROXY_SCHEME, b"http"), proxying);
}

#[test]
fn section_5_8_other_methods_are_not_allowed() {
    for detail in 5..32 {
        let mut bench = Bench::new();
        let answer = one(&bench.send(1, &request(Kind::Con, Code::new(0, detail), 7)));
        assert_eq!((answer.code, bench.endpoint.peers()), (Code::METHOD_NOT_ALLOWED, 0));
    }
}

#[test]
fn section_5_10_a_request_says_what_it_asks_for() {
    let mut message = request(Kind::Con, Code::PUT, 7);
    message.options.push(number::URI_HOST, "any.example");
    message.options.push_uint(number::URI_PORT, 9);
    message.options.push(number::URI_QUERY, "ep=x=y");
    message.options.push(number::URI_QUERY, "epoch");
    message.options.push(number::URI_QUERY, "flag");
    message.options.push_uint(number::CONTENT_FORMAT, 50);
    message.options.push_uint(number::ACCEPT, 60);
    let (_, request) = handed_up(&Bench::new().send(1, &message));
    assert_eq!((request.method, request.path), (Method::Put, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((request.content_format, request.accept), (Some(50), Some(60)));
}

#[test]
fn a_query_is_found_by_its_whole_name() {
    let mut message = get(7);
    for query in ["epoch=1", "ep=x=y", "flag", "ep=z"] {
        message.options.push(number::URI_QUERY, query);
    }
    let (_, request) = handed_up(&Bench::new().send(1, &message));
    assert_eq!(request.query("ep"), Some("x=y"));
    assert_eq!(request.query("flag"), Some(""));
    assert_eq!(request.query("fla"), None);
}

#[test]
fn section_5_10_1_dots_are_no_path() {
    for segment in [".", ".."] {
        assert_eq!(refused(number::URI_PATH, segment.as_bytes()), (Code::BAD_REQUEST, Rejected::BadRequest));
    }
}

#[test]
fn rfc_7641_observe_is_an_option_of_get() {
    let observe = |code, value: u32| {
        let mut message = register(7, b"t");
        message.code = code;
        message.options.set_uint(number::OBSERVE, value);
        handed_up(&Bench::new().send(1, &message)).1.observe
    };
    assert_eq!(observe(Code::GET, 0), Some(Observe::Register));
    assert_eq!(observe(Code::GET, 1), Some(Observe::Deregister));
    assert_eq!(observe(Code::GET, 2), None);
    assert_eq!(observe(Code::POST, 0), None);
}
