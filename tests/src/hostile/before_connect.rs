//! What may come as the first bytes of a connection.

use landfall_testkit::packet::{Connect, Will, field, frame, kind, property};
use landfall_testkit::proxy::Seed;
use landfall_testkit::{Version, packet};

use super::Attack;
use super::Fate::{Either, Ends, Waits};

/// A CONNECT of MQTT 5 with this body behind the protocol name and level.
fn connect_body(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = field("MQTT");
    body.extend([level, flags, 0, 60]);
    body.extend(rest);
    frame(0x10, &body)
}

fn named(version: Version, id: &[u8]) -> Vec<u8> {
    Connect::new(version, id).encode()
}

/// Every attack on a connection that has not said CONNECT yet.
pub(super) fn all() -> Vec<Attack> {
    [framing(), wrong_order(), connect_fields(), connect_properties(), other_protocols()].concat()
}

fn framing() -> Vec<Attack> {
    let v5 = Version::V5;
    let whole = Connect::new(v5, "cut").encode();
    let mut attacks = vec![
        Attack::new("a length of five bytes (A1)", v5, [0x10, 0xff, 0xff, 0xff, 0xff, 0x01], Ends),
        Attack::new("a length of five bytes, first overlong", v5, [0x10, 0x80, 0x80, 0x80, 0x80, 0x00], Ends),
        Attack::new("claims 256 MB (A2)", v5, [0x10, 0xff, 0xff, 0xff, 0x7f], Ends),
        Attack::new(
            "claims more than the most",
            v5,
            [&[0x10], packet::varint(300 * 1024).as_slice()].concat(),
            Ends,
        ),
        Attack::new("an empty CONNECT", v5, [0x10, 0x00], Ends),
        Attack::new("CONNECT with flags in its first byte", v5, [&[0x11], &whole[1..]].concat(), Ends),
        Attack::new("nothing but its first byte", v5, [0x10], Waits),
        Attack::new("half a length", v5, [0x10, 0x80], Waits),
        Attack::new("one byte less", v5, &whole[..whole.len() - 1], Waits),
        Attack::new("bytes behind the payload", v5, frame(0x10, &[&whole[2..], b"more"].concat()), Ends),
    ];
    // Bodies that end anywhere, with a length that agrees.
    for at in 1..whole.len() - 2 {
        attacks.push(Attack::new(format!("a body of {at} bytes"), v5, frame(0x10, &whole[2..2 + at]), Ends));
    }
    attacks
}

fn wrong_order() -> Vec<Attack> {
    let v4 = Version::V4;
    let packets: Vec<(&str, Vec<u8>)> = vec![
        ("type 0", vec![0x00, 0x00]),
        ("CONNACK (A6)", vec![0x20, 0x01, 0x00]),
        ("CONNACK of 3.1.1", vec![0x20, 0x02, 0x00, 0x00]),
        ("PUBLISH", packet::Publish::new(v4, "t", "x", 0, 0).encode()),
        ("PUBLISH of QoS 1", packet::Publish::new(v4, "t", "x", 1, 1).encode()),
        ("PUBACK", packet::acknowledgement(kind::PUBACK, 1)),
        ("PUBREC", packet::acknowledgement(kind::PUBREC, 1)),
        ("PUBREL", packet::acknowledgement(kind::PUBREL, 1)),
        ("PUBCOMP", packet::acknowledgement(kind::PUBCOMP, 1)),
        ("SUBSCRIBE", packet::subscribe(v4, 1, &[("#", 0)])),
        ("SUBACK", vec![0x90, 0x03, 0x00, 0x01, 0x00]),
        ("UNSUBSCRIBE", packet::unsubscribe(v4, 1, &["#"])),
        ("UNSUBACK", vec![0xb0, 0x02, 0x00, 0x01]),
        ("PINGREQ", packet::ping()),
        ("PINGRESP", vec![0xd0, 0x00]),
        ("DISCONNECT", vec![0xe0, 0x00]),
        ("AUTH", vec![0xf0, 0x00]),
    ];
    let first =
        packets.into_iter().map(|(name, bytes)| Attack::new(format!("{name} first (A3)"), v4, bytes, Ends));
    first.collect()
}

fn connect_fields() -> Vec<Attack> {
    let (v4, v5) = (Version::V4, Version::V5);
    let will = |topic: &str| {
        Connect::new(v5, "w").will(Will { topic: topic.to_owned(), ..Will::default() }).encode()
    };
    let level = |level: u8| connect_body(level, 2, &field("id"));
    let mut bad_user = Connect::new(v5, "u");
    bad_user.username = Some(vec![0xff, 0xfe]);
    vec![
        Attack::new(
            "protocol name in lower case",
            v4,
            frame(0x10, b"\0\x04mqtt\x04\x02\0\x3c\0\x02id"),
            Ends,
        ),
        Attack::new("MQIsdp of level 4", v4, frame(0x10, b"\0\x06MQIsdp\x04\x02\0\x3c\0\x02id"), Ends),
        Attack::new(
            "protocol name longer than all",
            v4,
            frame(0x10, b"\xff\xffMQTT\x04\x02\0\x3c\0\x02id"),
            Ends,
        ),
        Attack::new("no protocol name", v4, frame(0x10, b"\0\0\x04\x02\0\x3c\0\x02id"), Ends),
        Attack::new("level 0", v4, level(0), Ends),
        Attack::new("level 3", v4, level(3), Ends),
        Attack::new("level 6", v4, level(6), Ends),
        Attack::new("level 255", v4, level(255), Ends),
        Attack::new("the reserved flag", v4, connect_body(4, 0x03, &field("id")), Ends),
        Attack::new("a will of QoS 3", v4, connect_body(4, 0x1e, b"\0\x02id\0\x01t\0\x01p"), Ends),
        Attack::new("a will's QoS without a will", v4, connect_body(4, 0x0a, &field("id")), Ends),
        Attack::new("a will's retain without a will", v4, connect_body(4, 0x22, &field("id")), Ends),
        Attack::new("a password without a user name", v4, connect_body(4, 0x42, b"\0\x02id\0\x01p"), Ends),
        Attack::new("a will that is not there", v4, connect_body(4, 0x06, &field("id")), Ends),
        Attack::new("a user name that is not there", v4, connect_body(4, 0x82, &field("id")), Ends),
        Attack::new("a user name that is no UTF-8", v5, bad_user.encode(), Ends),
        Attack::new("a will to nowhere", v5, will(""), Ends),
        Attack::new("a will to all", v5, will("a/#"), Ends),
        Attack::new("a will with NUL in its topic", v5, will("a\0b"), Ends),
        Attack::new("a client id that is no UTF-8", v4, named(v4, &[0xc3, 0x28]), Ends),
        Attack::new("a client id with a surrogate", v4, named(v4, &[0xed, 0xa0, 0x80]), Ends),
        Attack::new("a client id with an overlong slash", v4, named(v4, &[0xc0, 0xaf]), Ends),
        Attack::new("a client id with NUL", v4, named(v4, b"a\0b"), Ends),
        Attack::new("a client id with CR LF", v5, named(v5, b"a\r\nFORGED line"), Ends),
        Attack::new("a client id with an escape sequence", v5, named(v5, b"a\x1b[2Jb"), Ends),
        Attack::new("a client id with a tab", v5, named(v5, b"a\tb"), Ends),
        Attack::new("a client id of 129 bytes", v5, named(v5, &[b'x'; 129]), Ends),
        Attack::new("a client id of 64 KB (C3)", v5, named(v5, &[b'x'; 65_535]), Ends),
        Attack::new(
            "no client id without a clean session (C2)",
            v4,
            Connect::new(v4, "").persistent(0).encode(),
            Ends,
        ),
    ]
}

fn connect_properties() -> Vec<Attack> {
    let v5 = Version::V5;
    let with = |name: &str, bytes: &[u8]| {
        Attack::new(name, v5, Connect::new(v5, "p").property(bytes).encode(), Ends)
    };
    let will = |name: &str, bytes: &[u8]| {
        let will = Will { topic: "t".to_owned(), properties: bytes.to_vec(), ..Will::default() };
        Attack::new(name, v5, Connect::new(v5, "w").will(will).encode(), Ends)
    };
    let users: Vec<u8> = (0..10_000).flat_map(|n| property::user("n", &n.to_string())).collect();
    let delays: Vec<u8> = (0..20_000).flat_map(|_| property::will_delay(1)).collect();
    vec![
        Attack::new("a property length beyond the packet", v5, connect_body(5, 2, &[0x7f, 0x11]), Ends),
        Attack::new(
            "a property length of five bytes",
            v5,
            connect_body(5, 2, &[0xff, 0xff, 0xff, 0xff, 0x01]),
            Ends,
        ),
        with("an unknown property", &[0x7e, 0x00]),
        with("a property of another packet", &property::topic_alias(1)),
        with("session expiry twice", &[property::session_expiry(1), property::session_expiry(2)].concat()),
        with("receive maximum 0", &property::receive_maximum(0)),
        with("maximum packet size 0", &property::maximum_packet_size(0)),
        with("request problem information 2", &[0x17, 0x02]),
        with("authentication data without a method", &[0x16, 0x00, 0x01, 0x00]),
        with(
            "an authentication method that nobody knows (A14)",
            &property::authentication_method("SCRAM-SHA-1"),
        ),
        with("half a property", &[0x11, 0x00]),
        with("10,000 user properties (A8)", &users),
        will("a will's property of another packet (A7)", &property::receive_maximum(1)),
        will("a will's delay twenty thousand times (A7)", &delays),
        will("a will's payload format 2", &[0x01, 0x02]),
    ]
}

fn other_protocols() -> Vec<Attack> {
    let v4 = Version::V4;
    let mut seed = Seed(17);
    let mut attacks = vec![
        Attack::new("HTTP", v4, *b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Ends),
        Attack::new("TLS", v4, *b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03", Ends),
        Attack::new("SSH", v4, *b"SSH-2.0-OpenSSH_9.2\r\n", Ends),
        Attack::new("NATS", v4, *b"CONNECT {\"verbose\":false}\r\nPUB a 1\r\nx\r\n", Ends),
        Attack::new("all bits set", v4, vec![0xff; 4096], Ends),
        Attack::new("no bit set", v4, vec![0x00; 4096], Ends),
        Attack::new("a CONNECT and 200 KB of noise", v4, noisy(&mut seed), Either),
    ];
    for n in 0..12 {
        // Never a CONNECT, which could be the beginning of something legal.
        let mut noise: Vec<u8> = (0..256).map(|_| seed.draw().to_be_bytes()[0]).collect();
        noise[0] = noise[0] & 0x0f | 0x20;
        attacks.push(Attack::new(format!("noise {n}"), v4, noise, Either));
    }
    attacks
}

fn noisy(seed: &mut Seed) -> Vec<u8> {
    let mut bytes = Connect::new(Version::V5, "noisy").encode();
    bytes.extend((0..200_000).map(|_| seed.draw().to_be_bytes()[0]));
    bytes
}
