//! Hostile datagrams against the CoAP listener: each is refused and counted, or draws an error, and has no other effect;
//! nobody else notices, and nothing of them chooses a subject.

mod floods;
mod names;

use landfall_testkit::coap::{Block, CoapClient, Message, code, kind, method, option};
use landfall_testkit::proxy::Seed;
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{GatewayBuilder, PATIENCE, World};

const DEVICES: &str = r##"
[[device]]
id = "witness"
password = "plain:of-witness"
[[device]]
id = "victim"
password = "plain:of-victim"
"##;

/// Memory that one test's attacks may leave in use.
const BOUND: u64 = 48 << 20;

/// The world of these tests: devices are known, refusals told soon.
async fn world(more: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> World {
    World::with(|settings| more(settings.devices(DEVICES).set("events.refusal_interval", "200ms"))).await
}

/// A device that behaves, and that must not notice anything.
struct Witness {
    client: CoapClient,
    spoken: usize,
}

impl Witness {
    async fn meet(world: &World) -> Self {
        let mut witness = Self { client: CoapClient::new(world.gateway.coap(), 1).await, spoken: 0 };
        witness.speak().await;
        witness
    }

    /// A message, stored and acknowledged.
    async fn speak(&mut self) {
        self.spoken += 1;
        let queries = ["ep=witness", "key=of-witness"];
        let answer = self.client.post("calm", &queries, self.spoken.to_string()).await;
        assert_eq!(answer.code, code(2, 4), "{answer:?}");
    }
}

/// A datagram, and whether it is counted as a refusal.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    is_counted: bool,
}

fn counted(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Attack {
    Attack { name: name.into(), bytes: bytes.into(), is_counted: true }
}

fn told(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Attack {
    Attack { name: name.into(), bytes: bytes.into(), is_counted: false }
}

/// A request that would be served, but for the key that is missing.
fn request(method: u8) -> Message {
    let mut message = Message::request(method).path("telemetry/a").query("ep=victim").payload("21.5");
    (message.id, message.token) = (0x1234, b"tk".to_vec());
    message
}

/// D1 and D3: the header and the frame of a message.
pub(super) fn frames() -> Vec<Attack> {
    let mut all = Vec::new();
    for length in 9..=15_u8 {
        let bytes = [&[0x40 | length, 2, 0, 1][..], &[b't'; 15]].concat();
        all.push(counted(format!("a token of {length} bytes"), bytes));
        all.push(counted(format!("a token of {length} bytes, not there"), [0x40 | length, 2, 0, 1]));
    }
    for length in 1..=8_u8 {
        all.push(counted(format!("a token cut at {length}"), vec![0x40 | length, 2, 0, 1]));
    }
    for version in [0_u8, 2, 3] {
        let mut bytes = request(method::POST).encode();
        bytes[0] = bytes[0] & 0x3f | version << 6;
        all.push(counted(format!("version {version}"), bytes));
    }
    for len in 0..4 {
        all.push(counted(format!("a header of {len} bytes"), vec![0x40; len]));
    }
    for kind in 0..4_u8 {
        let first = 0x40 | kind << 4;
        all.push(counted(format!("empty of kind {kind} with a token"), vec![first | 1, 0, 0, 1, 7]));
        all.push(counted(format!("empty of kind {kind} with an option"), vec![first, 0, 0, 1, 0xb1, b'a']));
        all.push(counted(format!("empty of kind {kind} with a payload"), vec![first, 0, 0, 1, 0xff, b'x']));
        all.push(counted(format!("a marker without a payload, kind {kind}"), vec![first, 2, 0, 1, 0xff]));
    }
    for class in [1_u8, 6, 7] {
        all.push(counted(format!("a code of class {class}"), vec![0x40, class << 5, 0, 1]));
        all.push(counted(format!("a code of class {class}, NON"), vec![0x50, class << 5 | 31, 0, 1]));
    }
    all.push(counted("an acknowledgement that asks", vec![0x60, 2, 0, 1]));
    all.push(counted("a reset that asks", vec![0x70, 2, 0, 1]));
    all.push(counted("65,000 bytes of nothing", vec![0xff; 65_000]));
    all
}

/// D2: options that are none.
pub(super) fn options() -> Vec<Attack> {
    let head = [0x40, 2, 0, 1];
    [
        ("a delta of 15", &[0xf0][..]),
        ("a length of 15", &[0x0f]),
        ("both of 15, and not the marker", &[0xfe, 0xff]),
        ("a length beyond the end", &[0xb9, b'a']),
        ("an extended delta that is cut", &[0xd0]),
        ("a longer one that is cut", &[0xe0, 1]),
        ("an extended length that is cut", &[0x0d]),
        ("a longer one that is cut", &[0x0e, 0xff]),
        ("a length of 65,804", &[0x0e, 0xff, 0xff]),
        ("a number above 65,535", &[0xe0, 0xff, 0xff]),
        ("numbers that add up to more", &[0xe0, 0xf0, 0, 0xe0, 0xf0, 0]),
        ("and that wrap to Uri-Path", &[0xe0, 0xfe, 0xf2, 0xd1, 0xfc, b'x', 0xe0, 0xff, 0xff]),
    ]
    .map(|(name, bytes)| counted(name, [&head[..], bytes].concat()))
    .into_iter()
    .collect()
}

/// D4 and D5: blocks of bodies that do not begin, do not fit or do not end.
fn blocks() -> Vec<Attack> {
    let block = |number, more, exponent| Block { number, more, exponent }.value();
    let with = |number, value: u32| request(method::PUT).number(number, value);
    let nothing = request(method::GET);
    vec![
        counted("a block size of 7", with(option::BLOCK1, 7).encode()),
        counted("a block size of 7 and more", with(option::BLOCK1, 15).encode()),
        counted("a wanted block size of 7", nothing.clone().number(option::BLOCK2, 7).encode()),
        counted("a block of four bytes", request(method::PUT).option(option::BLOCK1, [0, 0, 0, 1]).encode()),
        counted("two blocks", with(option::BLOCK1, 8).number(option::BLOCK1, 8).encode()),
        counted(
            "a first block that is too short",
            with(option::BLOCK1, block(0, true, 6)).payload("x").encode(),
        ),
        told("a block without its first", with(option::BLOCK1, block(5, true, 0)).payload([7; 16]).encode()),
        told("the last of 2^20", with(option::BLOCK1, block((1 << 20) - 1, false, 6)).encode()),
        told("one that says it is 4 GiB", {
            let first = with(option::BLOCK1, block(0, true, 0)).payload([7; 16]);
            first.number(option::SIZE1, u32::MAX).encode()
        }),
        // Who sends the first block is asked for its key: nothing is kept of a stranger's.
        counted(
            "a first block and no more",
            with(option::BLOCK1, block(0, true, 0)).payload([7; 16]).encode(),
        ),
        told("a block of no body", nothing.clone().number(option::BLOCK2, block(9, false, 6)).encode()),
        told("the last of no body", nothing.number(option::BLOCK2, block((1 << 20) - 1, false, 6)).encode()),
    ]
}

/// D9, D10 and C5: options that ask for what is not served, paths and queries that are none.
fn requests() -> Vec<Attack> {
    let post = || request(method::POST);
    let path = |segment: &[u8]| Message::request(method::POST).option(option::URI_PATH, segment);
    let query = |text: &str| Message::request(method::POST).path("t").query(text);
    let all = [
        ("a critical option", post().option(9, "x")),
        ("a critical option far out", post().option(65_001, [0; 900])),
        ("a critical option, unconfirmed", post().non().option(9, "x")),
        ("If-Match", post().option(1, "x")),
        ("If-None-Match", post().option(5, "")),
        ("OSCORE", post().option(9, [0; 9])),
        ("two Content-Formats", post().number(option::ACCEPT, 0).number(option::ACCEPT, 50)),
        ("an Accept of three bytes", post().option(option::ACCEPT, [1, 2, 3])),
        ("a proxy", post().option(option::PROXY_URI, "coap://169.254.169.254/latest")),
        ("a proxy by its scheme", post().option(39, "http").option(option::URI_HOST, "internal")),
        ("a proxy, unconfirmed", post().non().option(option::PROXY_URI, "http://localhost:8080/metrics")),
        ("a segment of 256 bytes", path(&[b'a'; 256])),
        ("a path that is not UTF-8", path(b"\xc3\x28")),
        ("a path of surrogates", path(b"\xed\xa0\x80")),
        ("an overlong slash", path(b"\xc0\xaf")),
        ("the segment .", path(b".")),
        ("the segment ..", path(b"..")),
        ("a query that is not UTF-8", Message::request(method::POST).option(option::URI_QUERY, b"ep=\xff")),
        ("no name", query("ep=")),
        ("a name of 129 bytes", query(&format!("ep={}", "x".repeat(129)))),
        ("a name with a control character", query("ep=vic\rtim")),
        ("a name with a zero", query("ep=victim\0")),
        ("two names", query("ep=victim").query("ep=witness")),
        ("two keys", query("ep=victim").query("key=a").query("key=of-victim")),
        ("a lifetime of nothing", query("ep=victim").query("lt=0")),
        ("a lifetime without end", query("ep=victim").query("lt=4294967296")),
        ("a lifetime that is no number", query("ep=victim").query("lt=1e3")),
        ("a sleep of minus one", query("ep=victim").query("sleep=-1")),
        ("a window that is no number", query("ep=victim").query("ttd=\u{661}")),
        ("nobody's request", Message::request(method::POST).path("t")),
        ("a stranger's", query("ep=nobody").query("key=x")),
        ("a wrong key", query("ep=victim").query("key=of-witness")),
        ("a key that begins right", query("ep=victim").query("key=of-victi")),
        ("a key and a zero", query("ep=victim").query("key=of-victim\0")),
        ("another tenant", query("ep=victim").query("t=acme").query("key=of-victim")),
        (
            "an observation",
            Message::request(method::GET).path("command").query("ep=victim").number(option::OBSERVE, 0),
        ),
        ("a window", Message::request(method::GET).path("command").query("ep=victim").query("ttd=60")),
        ("a registration", Message::request(method::POST).path("rd").query("ep=victim")),
        ("an answer", Message::request(method::POST).path("command/res/c1").query("ep=victim")),
    ]
    .map(|(name, message)| counted(name, message.encode()));
    let many =
        (0..900).fold(Message::request(method::POST), |message, _| message.option(option::URI_PATH, "abcd"));
    all.into_iter().chain([counted("900 segments", many.encode())]).collect()
}

/// D7 and D12: what answers nothing, in the name of somebody who does.
fn answers() -> Vec<Attack> {
    let mut all = vec![
        told("a method without a name", Message::request(31).path("t").encode()),
        told("FETCH", Message::request(5).path("t").encode()),
        told("somebody's registration", Message::request(method::DELETE).path("rd/victim").encode()),
    ];
    for kind in [kind::ACK, kind::RST] {
        all.extend((0..8).map(|id| told(format!("kind {kind} of {id}"), Message::empty(kind, id).encode())));
    }
    for kind in [kind::CON, kind::NON, kind::ACK] {
        let response = Message { kind, code: code(2, 5), ..request(method::POST) };
        all.push(told(format!("a response of kind {kind}"), response.encode()));
    }
    all
}

/// Valid requests of somebody without the key, each with one to eight bytes changed, cut, doubled or put in.
pub(super) fn mutations(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut seed = Seed(seed);
    let block = |number, more| Block { number, more, exponent: 2 }.value();
    let command = || Message::request(method::GET).path("command").query("ep=victim");
    let valid = [
        request(method::POST),
        request(method::PUT).number(option::CONTENT_FORMAT, 50).number(option::NO_RESPONSE, 2),
        request(method::PUT)
            .number(option::BLOCK1, block(0, true))
            .number(option::SIZE1, 5_000)
            .payload([7; 64]),
        request(method::PUT).number(option::BLOCK1, block(1, false)).payload([7; 60]),
        command().number(option::OBSERVE, 0),
        command().query("ttd=5").number(option::BLOCK2, block(3, false)),
        Message::request(method::POST).path("rd").queries(&["ep=victim", "lt=60"]),
        Message::request(method::GET).path(".well-known/core").number(option::ACCEPT, 40),
        request(method::POST).option(option::ECHO, [1; 16]).option(option::REQUEST_TAG, [2; 4]).non(),
    ];
    let mut below = move |end: usize| usize::try_from(seed.below(end as u64)).unwrap();
    let mutate = |_| {
        let mut bytes = valid[below(valid.len())].encode();
        for _ in 0..=below(8) {
            let (at, value) = (below(bytes.len().max(1)), u8::try_from(below(256)).unwrap());
            match below(5) {
                0 if !bytes.is_empty() => bytes[at] = value,
                1 if !bytes.is_empty() => bytes[at] ^= 1 << (value % 8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at.min(bytes.len()), value),
                _ => bytes.extend_from_within(at.min(bytes.len())..),
            }
        }
        bytes
    };
    (0..count).map(mutate).collect()
}

/// The sum of the counts of all refusals so far.
fn refusals(world: &World) -> usize {
    usize::try_from(super::refusals(world)).unwrap()
}

/// Nobody but the witness came, nothing but its messages is stored, nothing grew.
async fn assert_harmless(world: World, witness: Witness, memory: u64) {
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < BOUND, "{grown} bytes more than before");
    for event in world.recorder.all() {
        match event.kind() {
            "refused" | "join" | "keep-alive" => {}
            _ => assert!(event.is_about("witness"), "{}", event.json),
        }
    }
    assert_eq!(stored(&world.nats, MESSAGES).await.len(), witness.spoken);
    assert_eq!(world.recorder.of("connected", "witness").len(), 1);
    assert_eq!(world.recorder.of("disconnected", "witness").len(), 0);
    super::assert_log_is_clean(&world);
    drop(witness);
    world.close().await;
}

#[tokio::test]
async fn each_is_refused_and_has_no_effect() {
    let world = world(|settings| settings).await;
    let mut witness = Witness::meet(&world).await;
    let attacks = [frames(), options(), blocks(), requests(), answers()].concat();
    assert!(attacks.len() >= 100, "{}", attacks.len());
    let memory = world.gateway.resident_bytes();
    for (n, attack) in attacks.iter().enumerate() {
        // Each from an address of its own, and each with what the gateway says to it before the next.
        let mut attacker = CoapClient::new(world.gateway.coap(), 1_000 + n as u64).await;
        let drawn = attacker.drawn_by(&attack.bytes).await;
        assert!(drawn.len() <= 1, "{}: {drawn:02x?}", attack.name);
        for answer in drawn {
            let answer = Message::decode(&answer).unwrap_or_else(|why| panic!("{}: {why}", attack.name));
            let is_error = matches!(answer.code >> 5, 4 | 5) || answer.kind == kind::RST;
            assert!(is_error, "{}: {answer:?}", attack.name);
        }
        if n % 16 == 0 {
            witness.speak().await;
        }
    }
    witness.speak().await;
    let expected = attacks.iter().filter(|attack| attack.is_counted).count();
    world.recorder.find(PATIENCE, "the refusals", |_| refusals(&world) >= expected).await;
    assert_eq!(refusals(&world), expected, "each counts once, and nothing else does");
    let causes: std::collections::BTreeSet<String> = world
        .recorder
        .all()
        .iter()
        .filter(|event| event.kind() == "refused")
        .map(|event| event.text("cause").to_owned())
        .collect();
    assert_eq!(causes, ["bad-credentials", "malformed", "unknown-device"].map(str::to_owned).into());
    assert_harmless(world, witness, memory).await;
}

#[tokio::test]
async fn messages_with_bytes_changed_have_no_effect() {
    let world = world(|settings| settings).await;
    let mut witness = Witness::meet(&world).await;
    let memory = world.gateway.resident_bytes();
    for seed in 0..20 {
        let mut attacker = CoapClient::new(world.gateway.coap(), 100 + seed).await;
        for bytes in mutations(seed, 150) {
            for answer in attacker.drawn_by(&bytes).await {
                Message::decode(&answer).unwrap_or_else(|why| panic!("{why}: {answer:02x?} to {bytes:02x?}"));
            }
        }
        witness.speak().await;
    }
    world.recorder.find(PATIENCE, "refusals", |_| refusals(&world) > 500).await;
    assert_harmless(world, witness, memory).await;
}
