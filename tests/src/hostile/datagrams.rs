//! Hostile datagrams against the UDP listener: each is counted as refused and has no other effect; nobody else notices.

use landfall_testkit::udp::{UdpDevice, signed};
use landfall_testkit::wait::eventually;
use landfall_testkit::{PATIENCE, World};

const DEVICES: &str = r##"
[[device]]
id = "witness"
password = "plain:of-witness"
[[device]]
id = "victim"
password = "plain:of-victim"
"##;

/// What one of these may cost in memory altogether.
const BOUND: u64 = 32 << 20;

/// A datagram, and the cause under which it is refused.
pub(super) type Attack = (Vec<u8>, &'static str);

fn malformed(bytes: impl Into<Vec<u8>>) -> Attack {
    (bytes.into(), "malformed")
}

/// Datagrams of other protocols, and of none.
fn strangers() -> Vec<Attack> {
    let texts: [&[u8]; 24] = [
        b"",
        b"\n",
        b"\0",
        b"\r\n\r\n",
        b"LF1",
        b"LF1\n",
        b"lf1 victim",
        b" LF1 victim",
        b"\xef\xbb\xbfLF1 victim",
        b"L\0F\x001\0 \0v\0",
        b"LF1\tvictim",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x10\x0c\0\x04MQTT\x04\x02\0<\0\0",
        b"\x44\x02\x12\x34abcd\xb1a\xff1",
        b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\x30\x01\0\0\x24\0\0\0\0\0\0\0\x24\xfe\xfd",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\xff\0\x01",
        b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl",
        b"\x17\0\x03\x2a\0\0\0\0",
        b"\0\0\0\0\0\x01\0\0stats\r\n",
        b"0\x26\x02\x01\x01\x04\x06public\xa5\x19",
        b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP x\r\n\r\n",
        b"M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\n\r\n",
        b"<165>1 2026-01-01T00:00:00Z h a - - - FORGED",
    ];
    let mut all: Vec<Attack> = texts.into_iter().map(malformed).collect();
    all.push(malformed([0xff; 1_200]));
    all.push(malformed(vec![b'L'; 60_000]));
    all.push(malformed([b"LF1 ", &[b'a'; 2_000][..]].concat()));
    all.push(malformed([b"LF1 victim ", &[b' '; 1_100][..], b"\nx"].concat()));
    // One byte beyond the longest line.
    let filler = "k".repeat(1_025 - "LF1 victim key=".len());
    all.push(malformed(format!("LF1 victim key={filler}\nx")));
    let others =
        ["LF0 victim", "LF2 victim bye", "LF11 victim", "LF4294967296 victim", "LF99999999999999999999999 a"];
    all.extend(others.map(|line| (line.into(), "unsupported-version")));
    all
}

/// Lines whose names are none.
pub(super) fn names() -> Vec<Attack> {
    let longest = "a".repeat(129);
    let bytes = "%ff".repeat(3);
    let lines = [
        "LF1 ",
        "LF1  victim",
        "LF1 @",
        "LF1 victim@",
        "LF1 @acme",
        "LF1 a@b@c",
        "LF1 %",
        "LF1 %4",
        "LF1 %GG",
        "LF1 victim%",
        "LF1 %00",
        "LF1 victim%00",
        "LF1 victim%0aFORGED",
        "LF1 victim%0D%0AFORGED",
        "LF1 %1b[2J",
        "LF1 %7f",
        "LF1 %c2%85",
        "LF1 %c0%af",
        "LF1 %ed%a0%80",
        "LF1 %f4%90%80%80",
        "LF1 victim@%0a",
        "LF1 victim\x1b[31m",
        "LF1 victim\u{85}",
        "LF1 victim\0",
        &format!("LF1 {longest}"),
        &format!("LF1 victim@{longest}"),
        &format!("LF1 {bytes}"),
    ]
    .map(str::to_owned);
    let mut all: Vec<Attack> = lines.into_iter().map(malformed).collect();
    all.push(malformed(*b"LF1 vic\xfftim"));
    all.push(malformed(*b"LF1 \xed\xa0\x80"));
    all
}

/// Words that are none, or that contradict each other; the device and its key would be right.
const WORDS: &[&str] = &[
    "seq=",
    "seq=0",
    "seq=-1",
    "seq=+1",
    "seq=01",
    "seq=1e3",
    "seq=18446744073709551616",
    "seq=\u{661}",
    "seq=1 seq=2",
    "hb=0",
    "hb=2592001",
    "hb=1.5",
    "hb=4294967296",
    "hb=1 hb=1",
    "hb",
    "sleep=0",
    "sleep=2592001",
    "sleep=99999999999999999999",
    "sleep=1 bye",
    "ack ack",
    "ack=1",
    "bye bye",
    "bye=",
    "ACK",
    "ping",
    "x=y",
    "=",
    "=x",
    " ack",
    "ack ",
    "ack\r\r",
    "a\rck",
    "key=of-victim",
    "key=",
    "key=%",
    "got=",
    "got=a got=b",
    "res=",
    "res=a res=b",
    "status=200",
    "res=a status=",
    "res=a status=%0a",
    "sig=",
    "sig=00",
    "got=%ff",
    "got=a%2fb",
    "got=%23",
    "res=%0d",
    "transport=dtls",
    "tenant=acme",
    "identifiedBy=certificate",
];

/// Lines with such words.
pub(super) fn words() -> Vec<Attack> {
    let mac = "ab".repeat(32);
    let more = [
        format!("sig={mac}"),
        format!("seq=1 sig={mac}0"),
        format!("seq=1 sig={}", "zz".repeat(32)),
        format!("seq=1 sig={mac} sig={mac}"),
        format!("seq=1 sig={mac}"),
        format!("res=a status={}", "s".repeat(65)),
        format!("got={}", "g".repeat(129)),
    ];
    // The fifth would be right without the key beside it.
    let lines = WORDS
        .iter()
        .map(|words| (*words).to_owned())
        .chain(more)
        .map(|words| format!("LF1 victim key=of-victim {words}\nx"));
    lines.map(malformed).collect()
}

/// Well made, and not the victim's.
fn liars() -> Vec<Attack> {
    let mut all = Vec::new();
    for line in [
        "LF1 victim",
        "LF1 victim key=of-witness",
        "LF1 victim key=%00",
        "LF1 victim key=of-victim%00 bye ack",
    ] {
        all.push((line.into(), "bad-credentials"));
    }
    for key in ["", "of-witness", "of-victim "] {
        all.push((
            signed("LF1 victim seq=18446744073709551615 bye", b"x", key.as_bytes()),
            "bad-credentials",
        ));
    }
    // What was signed is another datagram.
    let good = String::from_utf8(signed("LF1 victim seq=5 hb=30", b"21.5", b"of-victim")).unwrap();
    for (from, to) in [
        ("seq=5", "seq=6"),
        ("hb=30", "hb=31"),
        ("\n21.5", "\n99.9"),
        (" hb=30", " hb=30 bye"),
        ("\n", "\n\n"),
    ] {
        all.push((good.replace(from, to).into_bytes(), "bad-credentials"));
    }
    for name in [
        "kaa.v1.events.>",
        "$JS.API.>",
        "*",
        "../../etc/passwd",
        "victim.",
        "VICTIM",
        "\u{202e}mitciv",
        "' OR 1=1--",
        "${jndi:ldap://x}",
    ] {
        let line = format!("LF1 {} key=of-victim hb=1 ack bye\nx", name.replace(' ', "%20"));
        all.push((line.into_bytes(), "unknown-device"));
    }
    all.push((b"LF1 victim@other key=of-victim".to_vec(), "unknown-device"));
    all
}

/// How many refusals with this cause are counted.
async fn counted(world: &World, cause: &str) -> u64 {
    let samples = world.gateway.metrics(&format!("landfall_refused_total{{cause=\"{cause}\"}}")).await;
    samples.iter().map(|(_, value)| *value as u64).sum()
}

/// How many were told by events.
fn told(world: &World, cause: &str) -> u64 {
    let events = world.recorder.all();
    let refused = events.iter().filter(|event| event.kind() == "refused" && event.text("cause") == cause);
    refused.map(|event| event.number("count")).sum()
}

async fn world() -> World {
    World::with(|settings| settings.devices(DEVICES).set("events.refusal_interval", "200ms")).await
}

#[tokio::test]
async fn each_datagram_is_a_counted_refusal_and_nothing_else() {
    let attacks: Vec<Attack> = [strangers(), names(), words(), liars()].concat();
    assert!(attacks.len() >= 120, "{}", attacks.len());
    let world = world().await;
    let at = world.gateway.udp();
    let mut witness = UdpDevice::new(at, "witness").await.key("of-witness");
    assert!(witness.deliver("hb=60", "").await);
    let attacker = UdpDevice::new(at, "attacker").await;
    let memory = world.gateway.resident_bytes();
    for (n, few) in attacks.chunks(16).enumerate() {
        for (bytes, _) in few {
            attacker.send_raw(bytes).await;
        }
        assert!(witness.deliver("", n.to_string()).await, "the witness is served between");
    }
    for cause in ["malformed", "unsupported-version", "bad-credentials", "unknown-device"] {
        let due = attacks.iter().filter(|(_, of_attack)| *of_attack == cause).count() as u64;
        world.recorder.find(PATIENCE, cause, |_| told(&world, cause) >= due).await;
        assert_eq!((told(&world, cause), counted(&world, cause).await), (due, due), "{cause}");
    }
    assert_nobody_noticed(&world, attacker, attacks.len().div_ceil(16)).await;
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < BOUND, "{grown} bytes for {} datagrams", attacks.len());
    world.close().await;
}

/// Only the witness has a session and messages; the attacker was told nothing; the log is clean.
async fn assert_nobody_noticed(world: &World, mut attacker: UdpDevice, messages: usize) {
    assert!(attacker.waiting().is_empty(), "a refusal has no answer");
    let events = world.recorder.all();
    let of_sessions =
        events.iter().filter(|event| event.subject.contains(".endpoint.") && event.kind() != "refused");
    let others: Vec<_> = of_sessions.filter(|event| !event.is_about("witness")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(world.recorder.expect_count("upstream", "witness", messages).await.len(), messages);
    assert_eq!(world.recorder.of("connected", "witness").len(), 1);
    assert!(world.recorder.of("disconnected", "witness").is_empty());
    let panicked = world.gateway.metrics("landfall_udp_dropped_total{reason=\"panicked\"}").await;
    assert!(panicked.iter().all(|(_, count)| *count == 0.0), "{panicked:?}");
    world.gateway.assert_sound();
    world.wiretap.assert_clean(world.instance()).await;
    super::assert_log_is_clean(world);
    for secret in ["of-victim", "of-witness"] {
        assert!(!world.gateway.log().contains(secret), "a key in the log");
    }
}

#[tokio::test]
async fn a_flood_is_few_events_and_bounded_memory() {
    const FLOOD: u64 = 20_000;
    let world = world().await;
    let at = world.gateway.udp();
    let mut witness = UdpDevice::new(at, "witness").await.key("of-witness");
    assert!(witness.deliver("hb=60", "").await);
    let memory = world.gateway.resident_bytes();
    // From many addresses, under many names, each as large as may be.
    let mut attackers = Vec::new();
    for n in 0..20 {
        attackers.push(UdpDevice::new(at, &format!("attacker-{n}")).await);
    }
    let payload = "x".repeat(4_000);
    let mut rounds = 0;
    for n in 0..FLOOD {
        let attacker = &attackers[usize::try_from(n).unwrap() % attackers.len()];
        let name = format!("{n}-{}", "n".repeat(100));
        let datagram = match n % 4 {
            0 => format!("LF1 {name} key=k hb=1 ack\n{payload}").into_bytes(),
            1 => signed(&format!("LF1 victim seq={} ack", n + 1), payload.as_bytes(), b"wrong"),
            2 => format!("LF1 victim key={name} ack").into_bytes(),
            _ => format!("LF1 {name} {name}").into_bytes(),
        };
        attacker.send_raw(&datagram).await;
        if n % 1_000 == 999 {
            // The system may have dropped some of the flood, and the witness's word with it: it says it again.
            assert!(witness.deliver("", n.to_string()).await, "the witness is served");
            rounds += 1;
        }
    }
    let received = eventually(PATIENCE, "the flood to be dealt with", async || {
        let metrics = world.gateway.metrics("landfall_udp_datagrams_total").await;
        let received: f64 = metrics.iter().map(|(_, value)| value).sum();
        let refused: f64 = world.gateway.metrics("landfall_refused_total").await.iter().map(|(_, n)| n).sum();
        let good = world.gateway.metrics("landfall_udp_acks_total").await.iter().map(|(_, n)| n).sum::<f64>();
        (received == refused + good).then_some(received)
    })
    .await;
    assert!(received > 5_000.0, "{received} came through");
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < BOUND, "{grown} bytes for {FLOOD} datagrams");
    let events = world.recorder.all().iter().filter(|event| event.kind() == "refused").count();
    assert!(events < 400, "{events} events for {received} refusals: they are coalesced");
    for attacker in &mut attackers {
        assert!(attacker.waiting().is_empty());
    }
    let upstream = world.recorder.expect_count("upstream", "witness", rounds).await;
    assert!(upstream.len() <= rounds * 2, "said again at most now and then");
    super::assert_log_is_clean(&world);
    assert!(
        world.recorder.all().iter().all(|event| event.kind() != "connected" || event.is_about("witness"))
    );
    world.close().await;
}
