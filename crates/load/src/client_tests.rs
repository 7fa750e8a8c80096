use super::*;
use Version::{V4, V5};

fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out);
    out.to_vec()
}

/// Kinds, ids and payloads of all packets in `bytes`, and how many bytes were left.
fn taken(bytes: &[u8], version: Version) -> (Vec<String>, usize) {
    let (mut input, mut seen) = (BytesMut::from(bytes), Vec::new());
    take_packets(&mut input, version, |packet| {
        seen.push(format!("{packet:?}"));
        Ok(())
    })
    .unwrap();
    (seen, input.len())
}

#[test]
fn a_connect_is_written_as_section_3_1_says() {
    let bytes = written(|out| put_connect(out, V4, "ab", 60, (None, None)));
    assert_eq!(bytes, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab");
    let bytes = written(|out| put_connect(out, V5, "a", 0, (Some("u"), Some("pw"))));
    assert_eq!(bytes, b"\x10\x15\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x01a\x00\x01u\x00\x02pw");
}

#[test]
fn a_publish_is_written_as_section_3_3_says() {
    let bytes = written(|out| put_publish(out, V4, "a/b", (1, 10), b"x"));
    assert_eq!(bytes, [0x32, 8, 0, 3, b'a', b'/', b'b', 0, 10, b'x']);
    let bytes = written(|out| put_publish(out, V5, "a", (2, 10), b"x"));
    assert_eq!(bytes, [0x34, 7, 0, 1, b'a', 0, 10, 0, b'x']);
    let bytes = written(|out| put_publish(out, V4, "a", (0, 0), &[0; 200]));
    assert_eq!(&bytes[..6], [0x30, 0xcb, 0x01, 0, 1, b'a']);
}

#[test]
fn subscribe_and_answers_are_written() {
    let bytes = written(|out| put_subscribe(out, V4, 1, "a/#", 1));
    assert_eq!(bytes, b"\x82\x08\x00\x01\x00\x03a/#\x01");
    let bytes = written(|out| put_subscribe(out, V5, 1, "a", 0));
    assert_eq!(bytes, b"\x82\x07\x00\x01\x00\x00\x01a\x00");
    assert_eq!(written(|out| put_answer(out, PUBREL, 0x102)), [0x62, 2, 1, 2]);
}

#[test]
fn packets_are_taken_when_they_are_complete() {
    let (seen, left) = taken(&[0x40, 2, 0, 7, 0x50, 3, 0, 8, 0x97, 0x40, 2, 1], V5);
    assert_eq!(
        seen,
        [
            "Answer { kind: 64, id: 7, code: 0 }".to_owned(),
            "Answer { kind: 80, id: 8, code: 151 }".to_owned()
        ]
    );
    assert_eq!(left, 3);
    assert_eq!(taken(&[0x90, 3, 0, 1, 0x80], V4).0, ["Suback { code: 128 }"]);
    assert_eq!(taken(&[0xd0, 0, 0xe0, 1, 0x8e], V5).0, ["Pingresp", "Disconnect { code: 142 }"]);
    for wrong in [&[0x10, 0][..], &[0x40, 1, 0], &[0x40, 0xff, 0xff, 0xff, 0xff, 1]] {
        assert!(take_packets(&mut BytesMut::from(wrong), V4, |_| Ok(())).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_publish_of_the_server_is_read_in_both_versions() {
    for version in [V4, V5] {
        for qos in 0..=2 {
            let mut input = BytesMut::new();
            put_publish(&mut input, version, "t/é", (qos, 9), b"hello");
            let mut count = 0;
            take_packets(&mut input, version, |packet| {
                count += 1;
                let id = if qos > 0 { 9 } else { 0 };
                assert_eq!(packet, Packet::Publish { topic: "t/é", qos, id, payload: b"hello" });
                Ok(())
            })
            .unwrap();
            assert_eq!((count, input.len()), (1, 0));
        }
    }
    // With a property: a content type.
    let (seen, _) = taken(b"\x30\x0a\x00\x01t\x04\x03\x00\x01jab", V5);
    assert_eq!(seen, [r#"Publish { topic: "t", qos: 0, id: 0, payload: [97, 98] }"#]);
}

#[test]
fn a_connack_tells_how_much_may_be_under_way() {
    assert_eq!(taken(&[0x20, 2, 0, 5], V4).0, ["Connack { code: 5, receive_maximum: 65535 }"]);
    // Topic Alias Maximum, a user property, Receive Maximum, in this order.
    let properties = b"\x22\x00\x0a\x26\x00\x01a\x00\x01b\x21\x00\x14";
    let mut bytes = vec![0x20, 3 + 13, 0, 0, 13];
    bytes.extend(properties);
    assert_eq!(properties.len(), 13);
    assert_eq!(taken(&bytes, V5).0, ["Connack { code: 0, receive_maximum: 20 }"]);
    assert_eq!(taken(&[0x20, 3, 0, 0, 0], V5).0, ["Connack { code: 0, receive_maximum: 65535 }"]);
}
