//! Who a device is: keys, signatures, and what a copy of a signed datagram is good for.

use landfall_testkit::udp::UdpDevice;

use super::{assert_refused, delivered, metric, proven, sessions, story};

#[tokio::test]
async fn who_does_not_prove_his_name_is_not_there() {
    let world = proven().await;
    let at = world.gateway.udp();
    let mut nobody = [
        UdpDevice::new(at, "pump").await.key("of-valve"),
        UdpDevice::new(at, "pump").await.key("OF-PUMP"),
        UdpDevice::new(at, "pump").await,
        UdpDevice::new(at, "pump").await.signing("of-valve"),
        UdpDevice::new(at, "pump").await.tenant("acme").key("of-pump"),
    ];
    let count = nobody.len() as u64;
    let mut pump = UdpDevice::new(at, "pump").await.key("of-pump");
    // Before it is there, and while it is: nothing of theirs is the device's.
    for round in 1..=2 {
        for mut device in [
            UdpDevice::new(at, "unknown").await.key("of-pump"),
            UdpDevice::new(at, "pump").await.tenant("other").key("of-pump"),
        ] {
            device.send("ack bye", "x").await;
        }
        for device in &mut nobody {
            device.send("ack bye", "x").await;
        }
        assert_refused(&world, "bad-credentials", count * round).await;
        assert_refused(&world, "unknown-device", 2 * round).await;
        delivered(&mut pump, "", "here").await;
    }
    assert!(nobody.iter_mut().all(|device| device.waiting().is_empty()), "nothing is answered");
    assert_eq!(story(&world, "pump").await, ["connected"], "no goodbye, no move, no second session");
    assert_eq!(world.recorder.of("upstream", "pump").len(), 2);
    assert_eq!(sessions(&world).await.len(), 1);
    let refused: Vec<_> =
        world.recorder.all().into_iter().filter(|event| event.kind() == "refused").collect();
    assert!(refused.iter().all(|event| event.text("transport") == "udp"));
    assert!(
        refused.iter().all(|event| event.json.get("endpointId").is_none()),
        "nobody has proven that name"
    );
    assert!(!world.gateway.log().contains("of-pump") && !world.gateway.log().contains("OF-PUMP"));
    world.close().await;
}

#[tokio::test]
async fn a_copy_of_a_signed_datagram_is_no_word_of_the_device() {
    let world = proven().await;
    let mut pump = UdpDevice::new(world.gateway.udp(), "pump").await.signing("of-pump");
    let mut copies = Vec::new();
    for n in 1..=5 {
        let datagram = pump.datagram("ack hb=60", n.to_string());
        pump.send_raw(&datagram).await;
        assert_eq!(pump.receive_raw().await, format!("LF1 ack seq={n}").into_bytes());
        copies.push(datagram);
    }
    let session = world.recorder.expect("connected", "pump").await;
    // From elsewhere: the newest is acknowledged again, as a lost ack asks for; the others are refused.
    let thief = UdpDevice::new(world.gateway.udp(), "thief").await;
    for copy in &copies {
        thief.send_raw(copy).await;
    }
    assert_eq!(thief.receive_raw().await, b"LF1 ack seq=5");
    assert_refused(&world, "bad-credentials", 4).await;
    assert_eq!(metric(&world, "landfall_udp_retransmitted_total").await, 1.0);
    // One bit changed, in the line, in the number and in the payload.
    for (from, to) in [("hb=60", "hb=61"), ("seq=5", "seq=6"), ("\n5", "\n6")] {
        let text = String::from_utf8(copies[4].clone()).unwrap();
        assert!(text.contains(from));
        thief.send_raw(text.replace(from, to).as_bytes()).await;
    }
    assert_refused(&world, "bad-credentials", 7).await;
    delivered(&mut pump, "", "6").await;
    assert_eq!(world.recorder.expect_count("upstream", "pump", 6).await.len(), 6, "each once");
    assert_eq!(story(&world, "pump").await, ["connected"], "and nobody moved");
    // Gone is gone: no copy brings it back, nor does its own goodbye, said again.
    let goodbye = pump.datagram("ack bye", "");
    pump.send_raw(&goodbye).await;
    assert_eq!(pump.receive_raw().await, b"LF1 ack seq=7");
    world.recorder.expect_end("pump", "udp").await;
    for copy in copies.iter().chain([&goodbye]) {
        thief.send_raw(copy).await;
    }
    assert_eq!(thief.receive_raw().await, b"LF1 ack seq=7");
    assert_refused(&world, "bad-credentials", 12).await;
    assert!(sessions(&world).await.is_empty());
    delivered(&mut pump, "", "8").await;
    let back = world.recorder.expect_that("connected", "pump", "again", |event| {
        event.text("sessionId") != session.text("sessionId")
    });
    assert!(back.await.number("epoch") > session.number("epoch"));
    world.close().await;
}
