//! What one channel leaves behind at an address is not the next one's: message ids, observations, blocks, sizes, and a file
//! of devices that changes.

use landfall_testkit::coap::{Block, CoapClient, Message, code, method, option};
use landfall_testkit::dtls::{DtlsClient, Secret};
use landfall_testkit::{PATIENCE, Pki, World};
use serde_json::json;

use super::{
    VALVE, assert_refused, coap, delivered, devices, metric, posted, pump, sessions, settings, told, udp,
    valve, world,
};

/// A new channel at an address, whose client begins with the same message ids and tokens as the one before.
async fn again(before: &mut CoapClient, secret: &Secret) -> CoapClient {
    let mut channel = before.channel().beside(secret);
    channel.handshake().await.unwrap();
    CoapClient::secure(channel, 1)
}

#[tokio::test]
async fn message_ids_of_the_channel_before_mean_nothing() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = coap(world.gateway.coaps(), &pump()).await;
    posted(&mut device, "1").await;
    for n in 2..=4 {
        device = again(&mut device, &pump()).await;
        posted(&mut device, &n.to_string()).await;
    }
    device = again(&mut device, &valve()).await;
    posted(&mut device, "5").await;
    let upstream = world.recorder.expect_count("upstream", "pump", 4).await;
    let payloads: Vec<_> = upstream.iter().map(|event| event.json["payload"].clone()).collect();
    assert_eq!(payloads, [1, 2, 3, 4], "none was taken for a repetition");
    world.recorder.expect("upstream", "valve").await;
    assert_eq!(metric(&world, "landfall_coap_duplicates").await, 0.0);
    world.close().await;
}

#[tokio::test]
async fn an_observation_ends_with_its_channel() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = coap(world.gateway.coaps(), &pump()).await;
    let (_observation, _) = device.observe("command", &[]).await;
    let mut device = again(&mut device, &pump()).await;
    posted(&mut device, "nothing observed").await;
    let reply = world
        .command("pump", "who hears?", &[("Command-Ttl", "700"), ("Command-Wait", "acknowledged")])
        .await;
    assert_eq!(reply["outcome"], "expired", "{reply}");
    assert!(device.ping().await && device.strays().is_empty(), "{:?}", device.strays());
    // Another device's, even less.
    let (_observation, _) = device.observe("command", &[]).await;
    let mut other = again(&mut device, &valve()).await;
    posted(&mut other, "1").await;
    let reply = world.command("pump", "who hears?", &[("Command-Ttl", "500")]).await;
    assert_eq!(reply["outcome"], "expired", "it is left to its silence: {reply}");
    assert!(other.ping().await && other.strays().is_empty(), "{:?}", other.strays());
    world.close().await;
}

#[tokio::test]
async fn blocks_of_one_channel_are_not_the_next_ones() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let part = |number: u32, more: bool, byte: u8| {
        let block = Block { number, more, exponent: 2 };
        Message::request(method::PUT).path("body").number(option::BLOCK1, block.value()).payload([byte; 64])
    };
    let mut device = coap(world.gateway.coaps(), &pump()).await;
    assert_eq!(device.request(part(0, true, b'a')).await.code, code(2, 31));
    let mut other = again(&mut device, &valve()).await;
    assert_eq!(other.request(part(1, false, b'b')).await.code, code(4, 8), "its body has no beginning");
    assert!(told(&world, "malformed", "coaps") == 0);
    assert!(world.recorder.of("upstream", "valve").is_empty());
    let stored = other.upload(&Message::request(method::PUT).path("body"), &[b'c'; 200], 2).await;
    assert_eq!(stored.code, code(2, 4));
    let upstream = world.recorder.expect("upstream", "valve").await;
    assert_eq!(upstream.text("payload"), "c".repeat(200));
    world.close().await;
}

/// A command that no record can hold is told so, and the channel goes on; so is a payload beyond what is taken.
#[tokio::test]
async fn sizes_at_the_edges_of_a_record() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("udp.max_datagram", 65_507)).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    for size in [1_500, 8_000, 16_000] {
        let text = "x".repeat(size);
        let (reply, command) = tokio::join!(world.command("pump", &text, &[]), device.command());
        assert_eq!((&reply["outcome"], command.2.len()), (&json!("delivered"), size), "{size}");
    }
    for size in [16_384, 20_000, 60_000] {
        let reply = world.command("pump", &"x".repeat(size), &[("Command-Ttl", "2000")]).await;
        assert_ne!(reply["outcome"], "delivered", "{size}: {reply}");
        delivered(&mut device, "", "still here").await;
    }
    // The largest record, as a payload.
    let mut raw = DtlsClient::connect(world.gateway.udps(), &valve()).await;
    for size in [16_384, 12_000, 1_400] {
        raw.send(&vec![b'y'; size]).await;
    }
    let upstream = world.recorder.expect_count("upstream", "valve", 3).await;
    let sizes: Vec<_> = upstream.iter().map(|event| event.text("payload").len()).collect();
    assert_eq!(sizes, [16_384, 12_000, 1_400], "never cut");
    world.close().await;
}

#[tokio::test]
async fn a_payload_beyond_the_bound_is_refused_and_the_channel_goes_on() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("udp.max_datagram", 1_000)).await;
    let mut raw = DtlsClient::connect(world.gateway.udps(), &valve()).await;
    for size in [1_000, 1_001, 5_000, 16_384, 999] {
        raw.send(&vec![b'y'; size]).await;
    }
    assert_refused(&world, "limit-reached", "dtls", 3).await;
    let upstream = world.recorder.expect_count("upstream", "valve", 2).await;
    assert_eq!(upstream.len(), 2);
    assert_eq!(sessions(&world).await.len(), 1);
    world.close().await;
}

/// Whoever's entry stays as it was does not notice that the file has changed; whoever's is new can come in.
#[tokio::test]
async fn an_edited_file_touches_only_whom_it_concerns() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=60", "1").await;
    let mut gone = coap(world.gateway.coaps(), &valve()).await;
    posted(&mut gone, "1").await;
    let key = landfall_testkit::interop::dtls::hex(b"a new device's key");
    let listed = devices().replace(&landfall_testkit::interop::dtls::hex(VALVE), &key);
    world.gateway.edit_devices(&format!("{listed}[[device]]\nid = \"new\"\npsk = \"{key}\"\n"));
    let ended = world.recorder.expect_end("valve", "coaps").await;
    assert_eq!(ended.text("reason"), "credentials-revoked");
    let newcomer = Secret::psk("new", b"a new device's key");
    let mut newcomer = udp(world.gateway.udps(), &newcomer, "new").await;
    delivered(&mut newcomer, "hb=60", "1").await;
    delivered(&mut device, "hb=60", "2").await;
    assert_eq!(world.recorder.of("connected", "pump").len(), 1);
    assert!(world.recorder.of("disconnected", "pump").is_empty());
    let mut back = coap(world.gateway.coaps(), &Secret::psk("valve", b"a new device's key")).await;
    posted(&mut back, "2").await;
    world.recorder.find(PATIENCE, "both", |_| world.recorder.of("upstream", "valve").len() == 2).await;
    world.close().await;
}

/// OpenSSL asks to renegotiate when it is told `R`: it is refused, and nothing else happens to the session.
#[tokio::test]
async fn renegotiation_is_refused() {
    use landfall_testkit::interop::dtls::{Shown, Suite, openssl};
    let pki = Pki::new();
    let world = world(&pki).await;
    let shown = Shown::Psk("pump", super::PUMP);
    let Some(mut process) = openssl(world.gateway.udps(), shown, Suite::PskCcm8, &[]) else { return };
    process.say("1\n");
    world.recorder.expect("upstream", "pump").await;
    process.say("R\n");
    process.logged("RENEGOTIATING", PATIENCE).await;
    let mut other = udp(world.gateway.udps(), &valve(), "valve").await;
    delivered(&mut other, "hb=60", "1").await;
    process.hang_up();
    process.exited(PATIENCE * 2).await;
    assert_eq!(metric(&world, "landfall_dtls_handshakes_begun_total").await, 2.0);
    assert_eq!(metric(&world, "landfall_dtls_defects_total").await, 0.0);
    assert_eq!(world.recorder.of("connected", "pump").len(), 1);
    world.close().await;
}
