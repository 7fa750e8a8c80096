//! What may come once a CONNECT has been accepted.

use landfall_testkit::Version;
use landfall_testkit::packet::{self, Connect, Publish, field, frame, kind, property};
use landfall_testkit::proxy::Seed;

use super::Attack;
use super::Fate::{Either, Ends, Waits};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

/// Every attack within a session.
pub(super) fn all() -> Vec<Attack> {
    let both =
        BOTH.into_iter().flat_map(|version| [framing(version), types(version), publishes(version)].concat());
    let more = BOTH.into_iter().flat_map(|version| [topics(version), subscriptions(version)].concat());
    both.chain(more).chain(only_5()).chain(noise()).collect()
}

fn framing(version: Version) -> Vec<Attack> {
    let publish = Publish::new(version, "t", "payload", 1, 1).encode();
    let attack =
        |name: &str, bytes: &[u8], fate| Attack::new(format!("{name}, {version:?}"), version, bytes, fate);
    vec![
        attack("a length of five bytes (A1)", &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], Ends),
        attack("claims 256 MB (A2)", &[0x30, 0xff, 0xff, 0xff, 0x7f], Ends),
        attack("half a packet", &publish[..publish.len() - 3], Waits),
        attack("a first byte", &[0x30], Waits),
        attack("an empty PUBLISH", &[0x30, 0x00], Ends),
        attack("a topic longer than the packet (A13)", &[0x30, 0x04, 0xff, 0xff, b't', b't'], Ends),
        attack("PUBLISH truncated before its packet id (A4)", &[0x32, 0x03, 0x00, 0x01, b't'], Ends),
        attack("PUBLISH truncated in its packet id", &[0x32, 0x04, 0x00, 0x01, b't', 0x00], Ends),
    ]
}

fn types(version: Version) -> Vec<Attack> {
    let attack =
        |name: &str, bytes: Vec<u8>| Attack::new(format!("{name}, {version:?}"), version, bytes, Ends);
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let with_id = |first: u8, more: &[u8]| frame(first, &[&[0, 1], properties, more].concat());
    vec![
        attack("a second CONNECT (A14)", Connect::new(version, "again").encode()),
        attack("type 0", vec![0x00, 0x00]),
        attack("CONNACK (A6)", vec![0x20, 0x02, 0x00, 0x00]),
        attack("SUBACK (A6)", with_id(0x90, &[0])),
        attack("UNSUBACK (A6)", with_id(0xb0, &[])),
        attack("PINGRESP (A6)", vec![0xd0, 0x00]),
        attack("AUTH", vec![0xf0, 0x00]),
        attack("PINGREQ with flags", vec![0xc1, 0x00]),
        attack("PINGREQ with a body", vec![0xc0, 0x01, 0x00]),
        attack("PUBREL without its flags", vec![0x60, 0x02, 0x00, 0x01]),
        attack("PUBACK with flags", vec![0x41, 0x02, 0x00, 0x01]),
        attack("PUBACK of no bytes", vec![0x40, 0x00]),
        attack("PUBACK of one byte", vec![0x40, 0x01, 0x00]),
        attack("PUBREL of packet id 0", vec![0x62, 0x02, 0x00, 0x00]),
        attack("DISCONNECT with flags", vec![0xe1, 0x00]),
        attack("SUBSCRIBE without its flags", with_id(0x80, &[field("a").as_slice(), &[0]].concat())),
        attack("UNSUBSCRIBE without its flags", with_id(0xa0, &field("a"))),
    ]
}

fn publishes(version: Version) -> Vec<Attack> {
    let attack =
        |name: &str, bytes: Vec<u8>| Attack::new(format!("{name}, {version:?}"), version, bytes, Ends);
    let publish = Publish::new(version, "t", "x", 1, 1);
    let mut qos_3 = publish.encode();
    qos_3[0] = 0x36;
    let dup_0 = Publish { dup: true, ..Publish::new(version, "t", "x", 0, 0) }.encode();
    vec![
        attack("QoS 3", qos_3),
        attack("DUP at QoS 0", dup_0),
        attack("packet id 0", Publish { id: 0, ..publish.clone() }.encode()),
        attack("packet id 0 at QoS 2", Publish { id: 0, qos: 2, ..publish }.encode()),
    ]
}

fn topics(version: Version) -> Vec<Attack> {
    let publish = |topic: &[u8]| Publish::new(version, topic, "x", 0, 0).encode();
    let bad: [(&str, &[u8]); 9] = [
        ("an empty topic (A10)", b""),
        ("# in a topic", b"a/#"),
        ("+ in a topic", b"+/a"),
        ("NUL in a topic", b"a\0b"),
        ("a topic that is no UTF-8", b"a\xff"),
        ("a truncated character", b"a\xc3"),
        ("a surrogate in a topic", b"\xed\xa0\x80"),
        ("an overlong character in a topic", b"\xe0\x80\xaf"),
        ("a character beyond Unicode", b"\xf4\x90\x80\x80"),
    ];
    let mut attacks: Vec<Attack> = bad
        .into_iter()
        .map(|(name, topic)| Attack::new(format!("{name}, {version:?}"), version, publish(topic), Ends))
        .collect();
    // Legal, and no reason to work long: 65,535 levels (A11).
    let slashes = publish(&[b'/'; 65_535]);
    attacks.push(Attack::new(format!("65,535 levels, {version:?}"), version, slashes, Either));
    attacks
}

fn subscriptions(version: Version) -> Vec<Attack> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let subscribe = |id: u16, rest: &[u8]| frame(0x82, &[&id.to_be_bytes(), properties, rest].concat());
    let unsubscribe = |id: u16, rest: &[u8]| frame(0xa2, &[&id.to_be_bytes(), properties, rest].concat());
    let filter = |text: &[u8], options: u8| subscribe(1, &[field(text).as_slice(), &[options]].concat());
    let cases = vec![
        ("SUBSCRIBE with packet id 0", subscribe(0, &[field("a").as_slice(), &[0]].concat())),
        ("SUBSCRIBE to nothing", subscribe(1, &[])),
        ("SUBSCRIBE truncated before its options (A5)", subscribe(1, &field("a"))),
        ("SUBSCRIBE with a length beyond the packet", subscribe(1, &[0xff, 0xff, b'a', 0])),
        ("SUBSCRIBE with QoS 3", filter(b"a", 3)),
        ("SUBSCRIBE with reserved bits", filter(b"a", 0xc0)),
        ("an empty filter", filter(b"", 0)),
        ("a filter that is no UTF-8", filter(b"\xff", 0)),
        ("a filter with NUL", filter(b"a\0", 0)),
        ("UNSUBSCRIBE with packet id 0", unsubscribe(0, &field("a"))),
        ("UNSUBSCRIBE from nothing", unsubscribe(1, &[])),
        ("UNSUBSCRIBE truncated", unsubscribe(1, &[0, 9, b'a'])),
    ];
    let mut attacks: Vec<Attack> = cases
        .into_iter()
        .map(|(name, bytes)| Attack::new(format!("{name}, {version:?}"), version, bytes, Ends))
        .collect();
    // Malformed filters: a code in the SUBACK will do too.
    for text in ["a/#/b", "a#", "+a", "a/+b", "##", "$share", "$share//a", "$share/g+/a", "$share/g/"] {
        attacks.push(Attack::new(
            format!("filter {text}, {version:?}"),
            version,
            filter(text.as_bytes(), 0),
            Either,
        ));
    }
    let deep = "+/".repeat(32_767);
    attacks.push(Attack::new(
        format!("32,767 wildcards (A11), {version:?}"),
        version,
        filter(deep.as_bytes(), 0),
        Either,
    ));
    attacks
}

fn only_5() -> Vec<Attack> {
    let v5 = Version::V5;
    let publish =
        |topic: &str, properties: &[u8]| Publish::new(v5, topic, "x", 1, 1).property(properties).encode();
    let alias = property::topic_alias;
    let ends = vec![
        ("topic alias 0 (A16)", publish("t", &alias(0))),
        ("topic alias beyond the most (A16)", publish("t", &alias(65_535))),
        ("topic alias that was never set (A16)", publish("", &alias(1))),
        ("topic alias twice", publish("t", &[alias(1), alias(2)].concat())),
        ("an unknown property", publish("t", &[0x7e, 0])),
        ("a property of CONNECT", publish("t", &property::session_expiry(1))),
        ("a subscription identifier from a client", publish("t", &property::subscription_identifier(1))),
        ("a payload format 2", publish("t", &[0x01, 0x02])),
        ("a response topic with a wildcard", publish("t", &property::response_topic("a/+"))),
        ("a content type that is no UTF-8", publish("t", &[0x03, 0, 1, 0xff])),
        ("a property length beyond the packet", frame(0x32, &[0, 1, b't', 0, 1, 0x7f, 0x23])),
        ("a property length of five bytes", frame(0x32, &[0, 1, b't', 0, 1, 0xff, 0xff, 0xff, 0xff, 1])),
        ("AUTH that nobody asked for (A14)", frame(0xf0, &[0x18, 0])),
        ("AUTH with a method", {
            let method = property::authentication_method("PLAIN");
            frame(0xf0, &[&[0x19, u8::try_from(method.len()).unwrap()], method.as_slice()].concat())
        }),
        ("subscription identifier 0", frame(0x82, &[0, 1, 2, 0x0b, 0, 0, 1, b'a', 0])),
        ("no local on a shared subscription", {
            frame(0x82, &[&[0, 1, 0], field("$share/g/a").as_slice(), &[0x04]].concat())
        }),
        ("retain handling 3", frame(0x82, &[0, 1, 0, 0, 1, b'a', 0x30])),
    ];
    let either = vec![
        ("DISCONNECT with a code of nobody", frame(0xe0, &[0x55])),
        ("DISCONNECT with an unknown property", frame(0xe0, &[0x00, 2, 0x7e, 0])),
        ("PUBREC of a message that never was", packet::acknowledgement(kind::PUBREC, 9)),
        ("PUBCOMP of a message that never was", packet::acknowledgement(kind::PUBCOMP, 9)),
        ("PUBACK of a message that never was", packet::acknowledgement(kind::PUBACK, 9)),
        ("PUBACK with a code of nobody", frame(0x40, &[0, 9, 0x55])),
    ];
    let ends = ends.into_iter().map(|(name, bytes)| Attack::new(name, v5, bytes, Ends));
    ends.chain(either.into_iter().map(|(name, bytes)| Attack::new(name, v5, bytes, Either))).collect()
}

fn noise() -> Vec<Attack> {
    let mut seed = Seed(4711);
    let mut attacks = Vec::new();
    for version in BOTH {
        for n in 0..10 {
            let noise: Vec<u8> = (0..1024).map(|_| seed.draw().to_be_bytes()[0]).collect();
            attacks.push(Attack::new(format!("noise {n}, {version:?}"), version, noise, Either));
        }
        // Good packets with one byte turned: the nearest to what a bad radio does.
        let good = Publish::new(version, "site/7/flow", r#"{"l":4.5}"#, 1, 77).encode();
        for n in 0..10 {
            let mut bent = good.clone();
            let at = usize::try_from(seed.below(bent.len() as u64)).unwrap();
            bent[at] ^= 1 << seed.below(8);
            attacks.push(Attack::new(format!("bent {n}, {version:?}"), version, bent, Waits));
        }
    }
    for attack in &mut attacks {
        if attack.fate == Waits {
            attack.fate = Either;
        }
    }
    attacks
}
