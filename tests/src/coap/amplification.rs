//! A forged sender's victim gets at most three times what was sent: until an address is proven, by anything.
//!
//! In `open` mode there is no address but of this machine, which nobody else can forge, so a session proves it; here the
//! gateway knows its devices, and nobody shows a key.

use std::time::Duration;

use landfall_testkit::World;
use landfall_testkit::coap::{Block, CoapClient, Message, code, kind, method, option};

use super::{DEVICES, Wire};

/// Over this the first two retransmissions of anything would come (2 to 3 s, and twice that after).
const SPAN: Duration = Duration::from_secs(10);

fn request(method: u8, path: &str, queries: &[&str]) -> Message {
    let mut message = Message::request(method).path(path).queries(queries);
    (message.id, message.token) = (0x0101, vec![7]);
    message
}

/// Twenty requests and more that somebody could send in another's name.
fn requests() -> Vec<(&'static str, Message)> {
    let get = |path, queries: &[&str]| request(method::GET, path, queries);
    let block = |number, more, exponent| Block { number, more, exponent }.value();
    let core = || get(".well-known/core", &[]);
    let mut shortest = core();
    shortest.token.clear();
    vec![
        ("the links", core()),
        ("the links, as briefly as can be", shortest),
        ("the links, unconfirmed", core().non()),
        ("the links, filtered", get(".well-known/core", &["rt=core.rd"])),
        ("the links, in large blocks", core().number(option::BLOCK2, block(0, false, 6))),
        ("the links, in small blocks", core().number(option::BLOCK2, block(0, false, 0))),
        ("the links and how long they are", core().number(option::SIZE2, 0)),
        ("a block of a body that is not", core().number(option::BLOCK2, block(3, false, 6))),
        ("a block far out", get("command", &["ep=pump"]).number(option::BLOCK2, block(1 << 20, false, 6))),
        ("an observation", get("command", &["ep=pump"]).number(option::OBSERVE, 0)),
        ("an observation with a wrong key", get("command", &["ep=pump", "key=x"]).number(option::OBSERVE, 0)),
        ("an observation of the links", core().number(option::OBSERVE, 0)),
        ("a window", get("command", &["ep=pump", "ttd=60"])),
        ("nothing at all", get("", &[])),
        ("a message", request(method::POST, "t", &["ep=pump"]).payload("x")),
        ("a message without a name", request(method::POST, "t", &[])),
        ("a registration", request(method::POST, "rd", &["ep=pump", "lt=60"])),
        ("a removal", request(method::DELETE, "rd/x", &[])),
        ("a large body", request(method::PUT, "t", &["ep=pump"]).number(option::SIZE1, u32::MAX)),
        ("the first block of many", {
            let first = request(method::PUT, "t", &["ep=pump"]).number(option::BLOCK1, block(0, true, 6));
            first.payload([7; 1024])
        }),
        ("a block without its first", {
            let late = request(method::PUT, "t", &["ep=pump"]).number(option::BLOCK1, block(9, true, 0));
            late.payload([7; 16])
        }),
        ("a method that is not", request(31, "t", &[])),
        ("a critical option", core().option(9, "")),
        ("a proxy", core().option(option::PROXY_URI, "coap://victim/")),
        ("somebody else's proof", core().option(option::ECHO, [7; 16])),
        ("two names", get("command", &["ep=a", "ep=b"])),
        ("a response", Message { code: code(2, 5), ..core() }),
        ("a ping", Message::empty(kind::CON, 1)),
    ]
}

/// Sends datagrams from an address that never answers, and returns the bytes sent and got over the span of retransmissions.
async fn drawn(world: &World, datagrams: &[Vec<u8>]) -> (usize, usize) {
    let wire = Wire::to(world.gateway.coap()).await;
    for datagram in datagrams {
        wire.send(datagram).await;
    }
    let got: usize = wire.all_for(SPAN).await.iter().map(Vec::len).sum();
    (datagrams.iter().map(Vec::len).sum(), got)
}

#[tokio::test]
async fn no_request_draws_more_than_three_times_its_bytes() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    // Somebody with a key is served meanwhile, and its command goes to nobody else.
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    let (observation, _) = device.observe("command", &["ep=pump", "key=p-key"]).await;
    let requests = requests();
    assert!(requests.len() >= 20);
    let alone = futures_util::future::join_all(requests.iter().map(|(name, message)| {
        let world = &world;
        async move { (*name, drawn(world, &[message.encode()]).await) }
    }));
    // The same one after the other from one address, each with an id of its own: the sums hold at every moment.
    let together = async {
        let wire = Wire::to(world.gateway.coap()).await;
        let (mut sent, mut got) = (0, 0);
        for (id, (name, message)) in (1000..).zip(&requests) {
            let bytes = Message { id, ..message.clone() }.encode();
            wire.send(&bytes).await;
            // What is said at once comes before the answer to a ping, which says nothing new itself.
            wire.send(&Message::empty(kind::CON, 0xfff0).encode()).await;
            sent += bytes.len() + 4;
            loop {
                let answer = wire.receive().await;
                got += answer.len();
                assert!(got <= 3 * sent, "{name}: {got} bytes for {sent}");
                if answer == Message::empty(kind::RST, 0xfff0).encode() {
                    break;
                }
            }
        }
        let late: usize = wire.all_for(SPAN - Duration::from_secs(2)).await.iter().map(Vec::len).sum();
        assert!(got + late <= 3 * sent, "{got} and {late} bytes for {sent}");
    };
    let command = async {
        let (headers, payload) = ([("Command-Wait", "acknowledged")], "x".repeat(700));
        let (reply, got) =
            tokio::join!(world.command("pump", &payload, &headers), device.notification(&observation));
        assert_eq!((&reply["outcome"], got.payload.len()), (&"acknowledged".into(), 700));
    };
    let (alone, (), ()) = tokio::join!(alone, together, command);
    for (name, (sent, got)) in alone {
        assert!(got <= 3 * sent, "{name}: {got} bytes for {sent}");
    }
    let connected: Vec<_> =
        world.recorder.all().into_iter().filter(|event| event.kind() == "connected").collect();
    assert_eq!(connected.len(), 1, "nobody came but who has a key");
    drop(device);
    world.close().await;
}

#[tokio::test]
async fn sending_again_draws_no_more() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    let core = request(method::GET, ".well-known/core", &[]).encode();
    let post = request(method::POST, "t", &["ep=pump"]).payload("x").encode();
    for datagram in [core, post] {
        let wire = Wire::to(world.gateway.coap()).await;
        let mut got = 0;
        for sent in 1..=50 {
            wire.send(&datagram).await;
            got += wire.receive().await.len();
            assert!(got <= 3 * sent * datagram.len(), "{got} bytes for {sent} times {}", datagram.len());
        }
    }
    world.close().await;
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_all_of_it_can_be_had() {
    let world = World::with(|settings| settings.devices(DEVICES)).await;
    // A stranger's first answer is short, yet block by block it gets all.
    let wire = Wire::to(world.gateway.coap()).await;
    let mut get = request(method::GET, ".well-known/core", &[]);
    get.token.clear();
    let bytes = get.encode();
    wire.send(&bytes).await;
    let first = wire.receive().await;
    assert!(first.len() <= 3 * bytes.len());
    let first = Message::decode(&first).unwrap();
    assert_eq!(first.code, code(2, 5), "{first:?}");
    let mut stranger = CoapClient::new(world.gateway.coap(), 1).await;
    let all = stranger.download(&Message::request(method::GET).path(".well-known/core")).await;
    assert_eq!(all.text(), r#"</rd>;rt="core.rd",</command>;rt="landfall.command";obs"#);
    // A key proves the address, and then the answer comes whole.
    assert_eq!(stranger.post("t", &["ep=pump", "key=p-key"], "x").await.code, code(2, 4));
    let whole = stranger.get(".well-known/core", &[]).await;
    assert_eq!((whole.text(), whole.block(option::BLOCK2)), (all.text(), None));
    world.close().await;
}
