//! The grammar: what is read, what is refused, what a signature covers.

use proptest::prelude::*;

use super::*;

fn parse(datagram: &str) -> Result<Line<'_>, LineError> {
    Line::parse(datagram.as_bytes())
}

fn refused(datagram: &str) -> LineError {
    parse(datagram).expect_err(datagram)
}

#[test]
fn a_name_is_enough() {
    for datagram in ["LF1 pump-17", "LF1 pump-17\n"] {
        let line = parse(datagram).unwrap();
        assert_eq!((line.device.as_str(), line.tenant), ("pump-17", None));
        assert!(line.payload.is_empty() && !line.ack && !line.bye);
    }
}

#[test]
fn a_carriage_return_may_stand_before_the_line_feed() {
    for (datagram, payload) in [
        ("LF1 a ack\r\n", ""),
        ("LF1 a ack\r\nx", "x"),
        ("LF1 a ack\r\n\r\n", "\r\n"),
        ("LF1 a ack\n\r\n", "\r\n"),
    ] {
        let line = parse(datagram).unwrap();
        assert_eq!((line.device.as_str(), line.ack, line.payload), ("a", true, payload.as_bytes()));
    }
    // A signature covers what was sent.
    let datagram = format!("LF1 a seq=1 sig={} ack\r\nx", "0".repeat(64));
    assert_eq!(parse(&datagram).unwrap().signed.unwrap().covered().concat(), b"LF1 a seq=1 ack\r\nx");
    let longest = format!("LF1 a key={}\r\nx", "k".repeat(MAX_LINE - "LF1 a key=".len() - 1));
    assert_eq!(parse(&longest).unwrap().payload, b"x");
}

#[test]
fn every_word_is_read() {
    let line =
        parse("LF1 pump@acme key=s%20e seq=7 hb=30 sleep=60 got=c1 res=c2 status=200 ack\n\0\n ").unwrap();
    assert_eq!((line.device.as_str(), line.tenant.as_ref().unwrap().as_str()), ("pump", "acme"));
    assert_eq!(line.key.as_ref().unwrap().expose(), b"s e");
    assert_eq!((line.seq, line.heartbeat, line.sleep), (Some(7), Some(30), Some(60)));
    assert_eq!(line.got.unwrap().as_str(), "c1");
    let answer = line.answer.unwrap();
    assert_eq!((answer.command.as_str(), answer.status.as_deref()), ("c2", Some("200")));
    assert_eq!((line.ack, line.bye, line.payload), (true, false, &b"\0\n "[..]));
    let line = parse("LF1 a bye ack\nlast words").unwrap();
    assert!(line.bye && line.ack && line.payload == b"last words");
}

#[test]
fn names_may_hold_what_the_line_may_not() {
    let line = parse("LF1 a%20b%40c%25%C3%A9@t%40x").unwrap();
    assert_eq!((line.device.as_str(), line.tenant.unwrap().as_str()), ("a b@c%é", "t@x"));
    assert_eq!(parse("LF1 wärme").unwrap().device.as_str(), "wärme");
    for name in ["", "@", "a@", "@t", "a@b@c", "%0A", "a%", "a%4", "a%4g", "%FF", &"x".repeat(129)] {
        assert_eq!(refused(&format!("LF1 {name}")), LineError::Name, "{name:?}");
    }
    assert!(parse(&format!("LF1 {0}@{0}", "x".repeat(128))).is_ok());
}

#[test]
fn what_is_no_line_is_refused() {
    for datagram in ["", "\n", "LF1", "LF1\n", "lf1 a", "GET / HTTP/1.1", "LF a", "LF01x a", "LF1\ta"] {
        let error = refused(datagram);
        assert!(matches!(error, LineError::NotOurs | LineError::Text), "{datagram:?} {error:?}");
    }
    assert_eq!(refused("LF2 a"), LineError::Version);
    assert_eq!(refused("LF10 a seq=1\nx"), LineError::Version);
    assert_eq!(Line::parse(b"LF1 a\xff"), Err(LineError::Text));
    for control in
        ["LF1 a\r\r\n", "LF1 a\rb\n", "LF1 a\r", "LF1 a\0", "LF1 a\u{85}", "LF1 a\tack", "LF1 a\x7f"]
    {
        assert_eq!(refused(control), LineError::Text);
    }
    for spaces in ["LF1 a ", "LF1 a  ack", "LF1 a ack "] {
        assert_eq!(refused(spaces), LineError::Spaces);
    }
    assert_eq!(refused("LF1  a"), LineError::Name);
}

#[test]
fn words_are_known_and_come_once() {
    for word in ["ACK", "acks", "foo", "foo=1", "=", "=1", "Key=a", "ack=1", "bye=", "key", "seq", "hb"] {
        assert_eq!(refused(&format!("LF1 a {word}")), LineError::Unknown, "{word}");
    }
    let sig = "sig=".to_owned() + &"0".repeat(64);
    for word in ["key=k", "seq=1", "hb=1", "sleep=1", "got=c", "res=c", "ack", "bye", &sig] {
        let LineError::Twice(named) = refused(&format!("LF1 a {word} {word}")) else { panic!("{word}") };
        assert_eq!(Some(named), word.split('=').next());
    }
    assert_eq!(refused("LF1 a res=c status=1 status=1"), LineError::Twice("status"));
}

#[test]
fn values_are_within_their_bounds() {
    for number in ["", "0", "01", "+1", "-1", "1.0", "0x1", "1e3", "18446744073709551616", "١"] {
        assert_eq!(refused(&format!("LF1 a seq={number}")), LineError::Value("seq"), "{number}");
        assert_eq!(refused(&format!("LF1 a hb={number}")), LineError::Value("hb"), "{number}");
    }
    assert_eq!(parse("LF1 a seq=18446744073709551615").unwrap().seq, Some(u64::MAX));
    assert_eq!(parse("LF1 a hb=2592000 sleep=2592000").unwrap().heartbeat, Some(MAX_SECONDS));
    assert_eq!(refused("LF1 a hb=2592001"), LineError::Value("hb"));
    assert_eq!(refused("LF1 a sleep=2592001"), LineError::Value("sleep"));
    for id in ["", "a/b", "%23", "%00", &"x".repeat(129)] {
        assert_eq!(refused(&format!("LF1 a got={id}")), LineError::Value("got"));
        assert_eq!(refused(&format!("LF1 a res={id}")), LineError::Value("res"));
    }
    for status in ["", "%0a", "%ff", &"x".repeat(65)] {
        assert_eq!(refused(&format!("LF1 a res=c status={status}")), LineError::Value("status"));
    }
    for sig in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
        assert_eq!(refused(&format!("LF1 a seq=1 sig={sig}")), LineError::Value("sig"));
    }
    assert_eq!(refused("LF1 a key="), LineError::Value("key"));
    assert_eq!(refused("LF1 a key=%f"), LineError::Value("key"));
    assert_eq!(parse("LF1 a key=%00%ff=").unwrap().key.unwrap().expose(), b"\0\xff=");
}

#[test]
fn words_that_contradict_each_other_are_refused() {
    let sig = "sig=".to_owned() + &"ab".repeat(32);
    assert_eq!(refused(&format!("LF1 a {sig}")), LineError::Together("sig without seq"));
    assert_eq!(refused(&format!("LF1 a {sig} seq=1 key=k")), LineError::Together("sig and key"));
    assert_eq!(refused("LF1 a status=1"), LineError::Together("status without res"));
    assert_eq!(refused("LF1 a sleep=1 bye"), LineError::Together("bye and sleep"));
}

#[test]
fn a_signature_covers_all_but_itself() {
    let sig = " sig=".to_owned() + &"0aF9".repeat(16);
    for (before, behind) in [
        ("LF1 a seq=1", "\npayload sig=x"),
        ("LF1 a", " seq=1 ack\n"),
        ("LF1 a seq=1", ""),
        ("LF1 é seq=9", "\n\n"),
    ] {
        let datagram = format!("{before}{sig}{behind}");
        let signed = parse(&datagram).unwrap().signed.unwrap();
        assert_eq!(signed.covered(), [before.as_bytes(), behind.as_bytes()]);
        assert_eq!(signed.mac, [0x0A, 0xF9].repeat(16)[..]);
    }
}

#[test]
fn a_line_has_a_bound_and_a_payload_none() {
    let longest = format!("LF1 a key={}", "k".repeat(MAX_LINE - "LF1 a key=".len()));
    assert_eq!(longest.len(), MAX_LINE);
    assert!(parse(&longest).is_ok());
    assert_eq!(parse(&format!("{longest}\n{}", "p".repeat(65_000))).unwrap().payload.len(), 65_000);
    assert_eq!(refused(&format!("{longest}k\n")), LineError::TooLong);
    assert_eq!(refused(&format!("{longest}k")), LineError::TooLong);
    assert_eq!(refused(&"x".repeat(65_507)), LineError::NotOurs);
}

#[test]
fn secrets_are_not_printed() {
    let datagram = format!("LF1 a seq=1 sig={}", "ab".repeat(32));
    for printed in
        [format!("{:?}", parse("LF1 a key=hunter2").unwrap()), format!("{:?}", parse(&datagram).unwrap())]
    {
        assert!(
            !printed.contains("hunter2") && !printed.contains("104, 117") && !printed.contains("171"),
            "{printed}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn escaped_values_are_read_back(value in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut datagram = b"LF1 a key=".to_vec();
        escape(&value, &mut datagram);
        let line = Line::parse(&datagram);
        match std::str::from_utf8(&datagram).map(|text| text.chars().any(char::is_control)) {
            // Bytes that are no text stand raw: the device that holds such a key writes them as %XX.
            Err(_) | Ok(true) => prop_assert_eq!(line.err(), Some(LineError::Text)),
            Ok(false) => {
                let key = line.unwrap().key.unwrap();
                prop_assert_eq!(key.expose(), &value[..]);
            }
        }
    }
}
