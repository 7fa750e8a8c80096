//! Hostile words on a channel whose device has proven who it is: they concern that device alone, name nobody else, and end
//! nothing.

use landfall_testkit::coap::{CoapClient, Message, code};
use landfall_testkit::dtls::{DtlsClient, Secret};
use landfall_testkit::{PATIENCE, Pki, UdpDevice, World};

use super::coap::{frames, mutations, options};
use super::datagrams::{names, words};
use super::dtls::{KEY, Witness, assert_only_friends, metric, settings};

/// The device that misbehaves is `late`, as the world of these tests knows two.
fn late() -> Secret {
    Secret::psk("late", KEY)
}

async fn assert_unharmed(world: &World, witness: &mut Witness, memory: u64) {
    witness.speak(world).await;
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 32 << 20, "{grown} bytes");
    for dropped in ["landfall_udp_dropped_total{reason=\"panicked\"}", "landfall_dtls_defects_total"] {
        assert_eq!(metric(world, dropped).await, 0.0, "{dropped}");
    }
    world.wiretap.assert_clean(world.instance()).await;
    assert_only_friends(world);
}

#[tokio::test]
async fn coap_messages_that_are_none() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).coap_dtls()).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let channel = DtlsClient::connect(world.gateway.coaps(), &late()).await;
    let mut attacker = CoapClient::secure(channel, 5);
    for attack in frames().iter().chain(&options()) {
        // No record holds more.
        let bytes = &attack.bytes[..attack.bytes.len().min(16_384)];
        let drawn = attacker.drawn_by(bytes).await;
        assert!(drawn.len() <= 1, "{}: {drawn:02x?}", attack.name);
    }
    for seed in 0..4 {
        for bytes in mutations(seed, 150).iter().filter(|bytes| bytes.len() <= 16_384) {
            for answer in attacker.drawn_by(bytes).await {
                Message::decode(&answer).unwrap_or_else(|why| panic!("{why}: {answer:02x?} to {bytes:02x?}"));
            }
        }
        witness.speak(&world).await;
    }
    // All of it was on one channel, which stands.
    assert_eq!(attacker.post("t", &[], "after all").await.code, code(2, 4));
    assert!(world.recorder.of("disconnected", "late").len() <= world.recorder.of("connected", "late").len());
    assert_eq!(metric(&world, "landfall_dtls_handshakes_begun_total").await, 2.0);
    assert_unharmed(&world, &mut witness, memory).await;
    world.close().await;
}

#[tokio::test]
async fn lines_that_are_none_or_name_others() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let channel = DtlsClient::connect(world.gateway.udps(), &late()).await;
    let mut attacker = UdpDevice::secure(channel, "late");
    let lines = [names(), words()].concat();
    for (bytes, _) in &lines {
        attacker.send_raw(bytes).await;
    }
    // The same of its own: what it may say of itself is all that counts.
    for (bytes, _) in &words() {
        let own = String::from_utf8_lossy(bytes).replace("victim", "late");
        attacker.send_raw(own.as_bytes()).await;
    }
    for forged in
        ["LF1 witness bye", "LF1 witness hb=1", "LF1 witness sleep=2592000", "LF1 witness@default bye"]
    {
        attacker.send_raw(forged.as_bytes()).await;
    }
    assert!(attacker.deliver("hb=60", "after all").await);
    let refused = |cause: &str| {
        let events = world.recorder.all();
        let of = events.iter().filter(|event| event.kind() == "refused" && event.text("cause") == cause);
        of.map(|event| event.number("count")).sum::<u64>()
    };
    world.recorder.find(PATIENCE, "the forgeries", |_| refused("not-authorized") >= 4).await;
    assert!(refused("malformed") > 50, "{}", refused("malformed"));
    assert!(world.recorder.of("dormant", "witness").is_empty());
    assert_unharmed(&world, &mut witness, memory).await;
    world.close().await;
}
