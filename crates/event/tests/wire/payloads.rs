//! Payloads in events: embedded as JSON exactly when every parser will take them.

use bytes::Bytes;
use landfall_event::json::{self, MAX_DEPTH, MAX_JSON_PAYLOAD, PayloadEncoding};
use landfall_event::{Event, EventId, Occasion, Stream, Transport, Upstream, wire};
use proptest::prelude::*;
use proptest::sample::select;

use crate::generate::seen_payload;
use crate::samples::{self, T0};

/// Sends the payload through an event; checks that the event is valid, and says what became of the payload.
fn through(payload: &[u8]) -> wire::Payload {
    let session = samples::session("pump-17", 0, Transport::Mqtt);
    let origin = samples::origin();
    let id = EventId::Session(session.session(), Stream::Messages, 1);
    let occasion = Occasion { origin: &origin, id, at: T0 };
    let upstream =
        Upstream { payload: Bytes::copy_from_slice(payload), ..samples::upstream(&session, 1, "t", b"") };
    let body = json::encode(&occasion, &Event::Upstream(upstream));
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 19, "nothing broke out of the payload");
    match json::decode(&body).unwrap().body {
        wire::Body::Upstream(upstream) => upstream.payload,
        other => panic!("{other:?}"),
    }
}

/// What every parser takes.
const JSON: &[&str] = &[
    "{\"a\":{\"b\":[1,-0,0.5e-7,true,false,null,\"\\u00e9\\ud83d\\ude80\"]}}",
    " \t\r\n{ \"a\" :\n1 }\n",
    "21.5",
    "\"text\"",
    "{\"a\":1,\"a\":2}",
    "{}",
    "[ ]",
    "\"\u{7f}\u{2028}\"",
];

/// What some parser refuses.
const TEXT: &[&str] = &[
    "",
    " ",
    "text",
    "\u{feff}{}",
    "{\"a\":1}}",
    "1 2",
    "{\"a\":1,}",
    "[1,]",
    "[,1]",
    "{1:2}",
    "{\"a\" 1}",
    "[1}",
    "{\"a\":1]",
    "\"",
    "\"\\\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\ud800\\n\"",
    "\"\\ud800\\ud800\"",
    "\"\\udc00\"",
    "\"a\nb\"",
    "01",
    "+1",
    ".5",
    "1.",
    "1e",
    "-",
    "NaN",
    "Infinity",
    "1e999",
    "-1E+309",
    "nul",
    "nulll",
    "// c\n1",
    "'a'",
    "\0\u{1f}\"\\",
];

#[test]
fn text_of_control_characters_does_not_grow_sixfold() {
    let seen = through(&[1; 200_000]);
    assert_eq!((seen.encoding, seen.bytes.len()), (PayloadEncoding::Base64, 200_000));
    let lines = "one line of a log\n".repeat(10_000);
    assert_eq!(through(lines.as_bytes()).encoding, PayloadEncoding::Utf8);
}

#[test]
fn each_payload_is_embedded_as_what_it_is() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let mut json: Vec<String> = JSON.iter().copied().map(str::to_owned).collect();
    json.extend([deep(MAX_DEPTH), long(MAX_JSON_PAYLOAD)]);
    for payload in &json {
        let seen = through(payload.as_bytes());
        assert_eq!(seen.encoding, PayloadEncoding::Json, "{payload:.40}");
        assert_eq!(seen.bytes, payload.trim().as_bytes(), "{payload:.40}");
    }
    let mut text: Vec<String> = TEXT.iter().copied().map(str::to_owned).collect();
    text.extend([deep(MAX_DEPTH + 1), long(MAX_JSON_PAYLOAD + 1)]);
    text.extend(["[".repeat(200_000), "{\"a\":".repeat(200_000), "9".repeat(400)]);
    for payload in &text {
        let seen = through(payload.as_bytes());
        assert_eq!(seen.encoding, PayloadEncoding::Utf8, "{payload:.40}");
        assert_eq!(seen.bytes, payload.as_bytes(), "{payload:.40}");
    }
    for bytes in [&b"\xff"[..], b"\xed\xa0\x80", b"{\"a\":\"\xc0\xaf\"}", &[0x80; 1000]] {
        let expected = wire::Payload { encoding: PayloadEncoding::Base64, bytes: bytes.to_vec() };
        assert_eq!(through(bytes), expected);
    }
}

#[test]
fn a_megabyte_of_anything_is_carried() {
    for byte in [b'"', b'\\', 0, b'[', b'x', 0xff] {
        let payload = vec![byte; 1 << 20];
        assert_eq!(through(&payload).bytes, payload, "{byte:#x}");
    }
}

/// Pieces that JSON, and what is nearly JSON, is made of.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\\",
    "1",
    "-0",
    "01",
    "1.",
    "1e5",
    "1e400",
    "0.1",
    "true",
    "null",
    "nul",
    " ",
    "\n",
    "\u{b}",
    "é",
    "\0",
    "\"k\":",
    "{\"k\":",
    "[1,",
    "{}",
    "[]",
];

fn nearly_json() -> impl Strategy<Value = String> {
    proptest::collection::vec(select(PIECES), 0..12).prop_map(|pieces| pieces.concat())
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        crate::generate::text().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::hash_map(crate::generate::text(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Another parser agrees on what is JSON.
    #[test]
    fn nearly_json_is_told_from_json(text in nearly_json()) {
        prop_assert_eq!(through(text.as_bytes()), seen_payload(text.as_bytes()));
    }

    #[test]
    fn json_is_embedded_byte_for_byte(document in document(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_vec_pretty(&document).unwrap()
        } else {
            serde_json::to_vec(&document).unwrap()
        };
        prop_assert_eq!(through(&text), wire::Payload { encoding: PayloadEncoding::Json, bytes: text });
    }

    #[test]
    fn a_damaged_document_is_told_from_json(document in document(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = serde_json::to_vec(&document).unwrap();
        let place = at.index(text.len());
        text[place] = byte;
        prop_assert_eq!(through(&text), seen_payload(&text));
    }
}
