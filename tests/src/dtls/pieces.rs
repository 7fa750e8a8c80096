//! Handshakes in pieces: small, overlapping, out of order, twice and empty, through a way that cuts them; and lost on the way.

use futures_util::future::join_all;
use landfall_testkit::dtls::recut::Cut;
use landfall_testkit::dtls::{DtlsClient, Pace, Secret};
use landfall_testkit::interop::dtls::{self, Shown, Suite};
use landfall_testkit::{Faults, PATIENCE, Pki, UdpProxy};

use super::{PUMP, metric, pump, valve, world};

const WAYS: [Cut; 5] = [
    Cut::FINE,
    Cut::BYTES,
    Cut { piece: 1, overlap: 3, twice: 50, empty: 50, shuffled: true },
    Cut { piece: 200, overlap: 150, twice: 30, empty: 10, shuffled: true },
    Cut { piece: 7, overlap: 0, twice: 100, empty: 0, shuffled: false },
];

#[tokio::test]
async fn handshakes_in_pieces_succeed_at_once() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let meter = Secret::certificate(&pki.client("meter's own"));
    let mut taken = 0.0;
    for (seed, cut) in (1..).zip(WAYS) {
        let proxy = UdpProxy::start(world.gateway.udps(), seed, Faults::NONE).await;
        proxy.cut(cut);
        for (device, secret) in [("pump", &pump()), ("valve", &valve()), ("meter", &meter)] {
            let mut client = DtlsClient::connect(proxy.address(), secret).await;
            client.send(format!("{seed}").as_bytes()).await;
            let upstream =
                world.recorder.expect_count("upstream", device, seed as usize).await.pop().unwrap();
            assert_eq!(upstream.json["payload"], seed, "{cut:?}");
            client.close().await;
            taken += 1.0;
        }
        assert!(proxy.pieces() > 10, "{cut:?}: {}", proxy.pieces());
    }
    assert_eq!(
        metric(&world, "landfall_dtls_handshakes_begun_total").await,
        taken,
        "each at its first attempt"
    );
    world.close().await;
}

/// A chain of two certificates, from a stack that has others' habits, cut.
#[tokio::test]
async fn openssl_in_pieces() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let branch = pki.client_by_branch("meter's own");
    let proxy = UdpProxy::start(world.gateway.udps(), 9, Faults::NONE).await;
    proxy.cut(Cut::FINE);
    for (n, suite) in (1..).zip([Suite::EcdheGcm, Suite::EcdheCcm8]) {
        let shown = Shown::Certificate(&branch, &pki);
        let Some(mut process) = dtls::openssl(proxy.address(), shown, suite, &[]) else { return };
        process.logged("Verify return code", PATIENCE).await;
        process.say("1\n");
        world.recorder.expect_count("upstream", "meter", n).await;
        process.hang_up();
        world.recorder.expect_ends("meter", "dtls", n).await;
        process.exited(PATIENCE).await;
    }
    let Some(mut process) = dtls::openssl(proxy.address(), Shown::Psk("pump", PUMP), Suite::PskGcm, &[])
    else {
        return;
    };
    process.say("1\n");
    world.recorder.expect("upstream", "pump").await;
    process.hang_up();
    process.exited(PATIENCE).await;
    assert!(proxy.pieces() > 100, "{}", proxy.pieces());
    world.close().await;
}

/// In pieces, and every fifth piece lost: flights are sent again, and cut in other ways then.
#[tokio::test]
async fn in_pieces_of_which_some_are_lost() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let proxy = UdpProxy::start(
        world.gateway.udps(),
        4,
        Faults { loss: 0.1, duplicate: 0.1, delay: (0, 20), ..Faults::NONE },
    )
    .await;
    proxy.cut(Cut { piece: 60, overlap: 10, twice: 20, empty: 10, shuffled: true });
    let pace = Pace { again: std::time::Duration::from_millis(150), retransmits: 9, ..Pace::default() };
    let meter = Secret::certificate(&pki.client("meter's own"));
    let secrets = [pump(), valve(), meter];
    let shaken = secrets.iter().map(|secret| async {
        let mut client = DtlsClient::paced(proxy.address(), secret, pace).await;
        client.handshake().await.map(|()| client)
    });
    let clients: Result<Vec<_>, _> = join_all(shaken).await.into_iter().collect();
    assert_eq!(clients.unwrap().len(), 3);
    for device in ["pump", "valve", "meter"] {
        world.recorder.expect("connected", device).await;
    }
    let (there, back) = proxy.counts();
    assert!(there.lost > 3 && there.overtaken > 3 && back.sent > 5, "{there:?} {back:?}");
    world.close().await;
}

/// Small datagrams of the gateway's: its certificate in many fragments.
#[tokio::test]
async fn the_gateways_own_messages_are_cut_to_its_mtu() {
    let pki = Pki::new();
    let world =
        landfall_testkit::World::with(|builder| super::settings(builder, &pki).set("dtls.mtu", 256)).await;
    let wire = crate::coap::Wire::to(world.gateway.udps()).await;
    let hello = landfall_testkit::dtls::wire::ClientHello::new(1, &[0xc02b]);
    wire.send(&hello.datagram(0)).await;
    let cookie = landfall_testkit::dtls::wire::cookie(&wire.receive().await).unwrap();
    wire.send(&hello.cookie(&cookie).datagram(1)).await;
    let came = wire.all_for(std::time::Duration::from_millis(500)).await;
    assert!(came.len() >= 3 && came.iter().all(|datagram| datagram.len() <= 256), "{came:02x?}");
    let meter = Secret::certificate(&pki.client("meter's own"));
    let mut client = DtlsClient::connect(world.gateway.udps(), &meter).await;
    client.send(b"1").await;
    world.recorder.expect("upstream", "meter").await;
    world.close().await;
}
