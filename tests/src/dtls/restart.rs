//! A gateway that is killed has no last words: its channels are gone, and what a device sends on them is nobody's until it
//! shakes hands again.

use std::time::Duration;

use landfall_testkit::dtls::{DtlsClient, End};
use landfall_testkit::ledger::Open;
use landfall_testkit::{CoapClient, Faults, Pki, UdpProxy, World, contract};

use super::{assert_refused, metric, posted, pump, until_metric, valve, world};

#[tokio::test]
async fn after_a_kill_old_records_mean_nothing_and_a_new_handshake_works() {
    let pki = Pki::new();
    let mut world = world(&pki).await;
    // The devices keep talking to one address, as to a name: a restart here gives new ports.
    let udp = UdpProxy::start(world.gateway.udps(), 1, Faults::NONE).await;
    let coap = UdpProxy::start(world.gateway.coaps(), 2, Faults::NONE).await;
    let mut pump_device = DtlsClient::connect(udp.address(), &pump()).await;
    let mut valve_device = DtlsClient::connect(coap.address(), &valve()).await;
    pump_device.send(b"before").await;
    world.recorder.expect("upstream", "pump").await;
    world.gateway.kill();
    let World { gateway, recorder, wiretap, client, nats } = world;
    let gateway = gateway.restart().await;
    let world = World { gateway, recorder, wiretap, client, nats };
    udp.retarget(world.gateway.udps());
    coap.retarget(world.gateway.coaps());
    pump_device.send(b"into the void").await;
    valve_device.send(b"\x40\x01\x12\x34").await;
    until_metric(&world, "landfall_dtls_strays_total", 2.0).await;
    // Each is told that its channel is gone, and so is the operator.
    assert_eq!(metric(&world, "landfall_dtls_lost_total").await, 2.0);
    until_metric(&world, "landfall_dtls_lost_alerts_total", 2.0).await;
    assert_refused(&world, "tls-failed", "dtls", 1).await;
    assert_refused(&world, "tls-failed", "coaps", 1).await;
    assert!(pump_device.try_next().is_none() && valve_device.try_next().is_none());
    let mut pump_device = pump_device.beside(&pump());
    pump_device.handshake().await.unwrap();
    pump_device.send(b"after").await;
    let upstream = world.recorder.expect_count("upstream", "pump", 2).await;
    assert_eq!(upstream[1].text("payload"), "after");
    assert_eq!(upstream.len(), 2);
    let mut again = valve_device.beside(&valve());
    again.handshake().await.unwrap();
    posted(&mut CoapClient::secure(again, 5), "after").await;
    assert_eq!(metric(&world, "landfall_dtls_sessions ").await, 2.0);
    // What was killed has told no ends: the next one told them, and then its own.
    world.gateway.terminate();
    assert!(world.gateway.exited(Duration::from_secs(20)).await.success());
    for (name, transport) in [("pump", "dtls"), ("valve", "coaps")] {
        let ended = world.recorder.expect_ends(name, transport, 2).await;
        let connected = world.recorder.of("connected", name);
        assert_eq!((connected.len(), ended.len()), (2, 2));
        for (began, end) in connected.iter().zip(&ended) {
            assert_eq!(end.text("sessionId"), began.text("sessionId"));
        }
        assert_eq!([ended[0].text("reason"), ended[1].text("reason")], ["gateway-lost", "gateway-draining"]);
    }
    let found: Vec<_> = world.recorder.all().iter().flat_map(|event| contract::violations(event)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// One that ends in order can be begun anew at once, with the same keys and other records.
#[tokio::test]
async fn after_a_restart_in_order_a_device_knows_at_once() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let proxy = UdpProxy::start(world.gateway.udps(), 1, Faults::NONE).await;
    let mut device = DtlsClient::connect(proxy.address(), &pump()).await;
    device.send(b"1").await;
    world.recorder.expect("upstream", "pump").await;
    world.gateway.terminate();
    assert_eq!(device.ended().await, End::Closed);
    assert!(world.gateway.exited(Duration::from_secs(20)).await.success());
    world.assert_sound(Open::None).await;
    let World { gateway, recorder, wiretap, client, nats } = world;
    let gateway = gateway.restart().await;
    let world = World { gateway, recorder, wiretap, client, nats };
    proxy.retarget(world.gateway.udps());
    let mut device = device.beside(&pump());
    device.handshake().await.unwrap();
    device.send(b"2").await;
    world.recorder.expect_count("upstream", "pump", 2).await;
    world.close().await;
}
