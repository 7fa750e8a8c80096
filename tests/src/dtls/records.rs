//! Records that are not the device's word: repeated, forged, cut short, of another epoch, from another address. They are
//! dropped and counted; none ends a session, refreshes one, or moves it.

use std::time::Duration;

use landfall_testkit::dtls::wire::{self, Record, content};
use landfall_testkit::dtls::{DtlsClient, End};
use landfall_testkit::{Pki, World};

use super::{coap, delivered, metric, posted, pump, settings, udp, until_metric, valve, world};

fn bad(kind: &str) -> String {
    format!("landfall_dtls_bad_records_total{{kind=\"{kind}\"}}")
}

/// What somebody on the way makes of a record, each with the kind under which it is counted.
fn forgeries(record: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let good = Record::all(record).unwrap().remove(0);
    let with = |change: &dyn Fn(&mut Record)| {
        let mut forged = good.clone();
        change(&mut forged);
        forged.encode()
    };
    vec![
        (with(&|r| *r.body.last_mut().unwrap() ^= 1), "forged"),
        (with(&|r| r.body[0] ^= 0x80), "forged"),
        (with(&|r| r.sequence += 1), "forged"),
        (with(&|r| r.sequence = (1 << 48) - 1), "forged"),
        (with(&|r| r.content = content::ALERT), "forged"),
        (with(&|r| r.content = content::HANDSHAKE), "forged"),
        (with(&|r| r.body.truncate(9)), "forged"),
        (with(&|r| r.epoch = 0), "unexpected"),
        (with(&|r| r.epoch = 2), "unexpected"),
        (with(&|r| r.epoch = u16::MAX), "unexpected"),
        // A fatal alert in the clear, and close_notify in the clear.
        (Record::plain(content::ALERT, 77, [2, 40]).encode(), "unexpected"),
        (Record::plain(content::ALERT, 78, [1, 0]).encode(), "unexpected"),
        (Record::plain(content::DATA, 79, b"in the clear").encode(), "unexpected"),
        (Record::plain(content::CHANGE_CIPHER_SPEC, 80, [1]).encode(), "unexpected"),
        (record[..record.len() - 1].to_vec(), "malformed"),
        (record[..12].to_vec(), "malformed"),
    ]
}

#[tokio::test]
async fn a_repeated_record_is_one_message_and_a_forged_one_none() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = DtlsClient::connect(world.gateway.udps(), &pump()).await;
    let mut all = Vec::new();
    for n in 0..20 {
        device.send(n.to_string().as_bytes()).await;
        all.push(device.last().to_vec());
    }
    for record in &all {
        device.send_datagram(record).await;
    }
    until_metric(&world, &bad("replayed"), 20.0).await;
    let next = device.sealed(b"next");
    let forged = forgeries(&next);
    for (bytes, _) in &forged {
        device.send_datagram(bytes).await;
    }
    for kind in ["forged", "unexpected", "malformed"] {
        let due = forged.iter().filter(|(_, of)| *of == kind).count() as f64;
        until_metric(&world, &bad(kind), due).await;
    }
    // The number that was forged is still free.
    device.send_datagram(&next).await;
    device.send(b"last").await;
    let upstream = world.recorder.expect_count("upstream", "pump", 22).await;
    assert_eq!(upstream.len(), 22);
    assert_eq!((upstream[20].text("payload"), upstream[21].text("payload")), ("next", "last"));
    assert!(world.recorder.of("disconnected", "pump").is_empty());
    assert_eq!(world.recorder.of("connected", "pump").len(), 1);
    world.close().await;
}

/// Several good records in one datagram are several messages; a bad one between them takes nothing along.
#[tokio::test]
async fn records_that_share_a_datagram() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = DtlsClient::connect(world.gateway.udps(), &pump()).await;
    let (one, two, three) = (device.sealed(b"one"), device.sealed(b"two"), device.sealed(b"three"));
    let mut forged = device.sealed(b"forged");
    *forged.last_mut().unwrap() ^= 1;
    device.send_datagram(&[three, forged, one.clone(), one, two].concat()).await;
    let upstream = world.recorder.expect_count("upstream", "pump", 3).await;
    let payloads: Vec<_> = upstream.iter().map(|event| event.text("payload")).collect();
    assert_eq!(payloads, ["three", "one", "two"]);
    until_metric(&world, &bad("forged"), 1.0).await;
    until_metric(&world, &bad("replayed"), 1.0).await;
    world.close().await;
}

#[tokio::test]
async fn what_is_not_the_devices_word_is_no_sign_of_life() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = udp(world.gateway.udps(), &pump(), "pump").await;
    delivered(&mut device, "hb=1", "1").await;
    let channel = device.channel();
    let (replay, next) = (channel.last().to_vec(), channel.sealed(b"never sent as it is"));
    let forged = forgeries(&next);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let noise = async {
        for n in 0.. {
            ticks.tick().await;
            channel.send_datagram(&replay).await;
            channel.send_datagram(&forged[n % forged.len()].0).await;
        }
    };
    let ended = tokio::select! {
        ended = world.recorder.expect_end("pump", "dtls") => ended,
        () = noise => unreachable!("it goes on"),
    };
    assert_eq!(ended.text("reason"), "idle-timeout");
    let silent = ended.number("timestamp") - ended.number("lastSeenAt");
    assert!((1_500..3_000).contains(&silent), "{silent} ms");
    assert!(metric(&world, &bad("replayed")).await > 5.0);
    world.close().await;
}

/// Without Connection ID the address is all that tells whose a record is.
#[tokio::test]
async fn a_record_from_another_address_is_nobodys() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut device = coap(world.gateway.coaps(), &valve()).await;
    posted(&mut device, "1").await;
    let at = device.local_addr().to_string();
    let stolen = device.channel().sealed(b"\x40\x01\x12\x34");
    let thief = crate::coap::Wire::to(world.gateway.coaps()).await;
    thief.send(&stolen).await;
    until_metric(&world, "landfall_dtls_strays_total", 1.0).await;
    posted(&mut device, "2").await;
    // The device itself at another address is as strange: it has to shake hands.
    let mut moved = DtlsClient::connect(world.gateway.udps(), &pump()).await;
    moved.rebind().await;
    moved.send(b"from elsewhere").await;
    until_metric(&world, "landfall_dtls_strays_total", 2.0).await;
    // Both were told, in the clear, which is nothing to what is established elsewhere.
    assert_eq!(metric(&world, "landfall_dtls_lost_alerts_total").await, 2.0);
    assert_eq!(wire::alert(&thief.receive().await), Some(20));
    assert!(moved.try_next().is_none() && moved.end().is_none());
    super::assert_refused(&world, "tls-failed", "coaps", 1).await;
    super::assert_refused(&world, "tls-failed", "dtls", 1).await;
    let listed = super::sessions(&world).await;
    assert!(listed.iter().any(|one| one["remoteAddress"] == at.as_str()), "{listed:?}");
    assert!(world.recorder.of("upstream", "pump").is_empty());
    let mut again = moved.beside(&pump());
    again.handshake().await.unwrap();
    again.send(b"here I am").await;
    world.recorder.expect("upstream", "pump").await;
    assert!(world.recorder.all().iter().all(|event| event.kind() != "moved"));
    world.close().await;
}

/// So many guesses at what protects a channel, and it is closed; its device hears of that, and shakes hands anew.
#[tokio::test]
async fn a_channel_bears_so_many_forged_records_and_no_more() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("dtls.max_forged", 50)).await;
    let mut device = DtlsClient::connect(world.gateway.udps(), &pump()).await;
    let mut other = udp(world.gateway.udps(), &valve(), "valve").await;
    device.send(b"1").await;
    world.recorder.expect("upstream", "pump").await;
    let mut forged = device.sealed(b"never sent as it is");
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..49 {
        device.send_datagram(&forged).await;
    }
    until_metric(&world, &bad("forged"), 49.0).await;
    device.send(b"2").await;
    world.recorder.expect_count("upstream", "pump", 2).await;
    device.send_datagram(&forged).await;
    assert_eq!(device.ended().await, End::Closed);
    until_metric(&world, "landfall_dtls_guessed_at_total", 1.0).await;
    assert!(world.recorder.of("disconnected", "pump").is_empty(), "it was not the device that left");
    let mut again = device.beside(&pump());
    again.handshake().await.unwrap();
    again.send(b"3").await;
    world.recorder.expect_count("upstream", "pump", 3).await;
    delivered(&mut other, "hb=60", "as before").await;
    world.close().await;
}

/// Application data before the handshake is over is not kept, whatever it is.
#[tokio::test]
async fn data_before_the_handshake_is_dropped() {
    let pki = Pki::new();
    // An alert that answers such data would end the handshake that comes right behind it.
    let world = World::with(|builder| settings(builder, &pki).set("dtls.lost_alerts", 0)).await;
    let memory = world.gateway.resident_bytes();
    let device = DtlsClient::new(world.gateway.udps(), &pump()).await;
    for n in 0..2_000 {
        let early = Record::plain(content::DATA, n, [b'x'; 1_000]);
        device.send_datagram(&early.encode()).await;
        device.send_datagram(&Record { epoch: 1, ..early }.encode()).await;
    }
    let mut device = device;
    device.handshake().await.unwrap();
    device.send(b"now").await;
    let upstream = world.recorder.expect("upstream", "pump").await;
    assert_eq!(upstream.text("payload"), "now");
    assert_eq!(world.recorder.of("upstream", "pump").len(), 1);
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes");
    world.close().await;
}
