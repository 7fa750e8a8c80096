//! Who is not let in: told to the operator with its cause, to the device with an alert, and no session begins.

use landfall_testkit::coap::{Message, code, method};
use landfall_testkit::dtls::wire::{self, ClientHello};
use landfall_testkit::dtls::{DtlsClient, End, Secret};
use landfall_testkit::interop::dtls::{self, Build, Shown, Suite};
use landfall_testkit::recorder::Seen;
use landfall_testkit::{PATIENCE, Pki, World};

use super::{PUMP, assert_refused, coap, delivered, metric, posted, pump, udp, until_metric, world};
use crate::coap::Wire;

/// Alerts by their registered numbers.
const DECRYPT_ERROR: u8 = 51;
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// Nobody has come in.
fn assert_nobody(world: &World) {
    let began: Vec<_> =
        world.recorder.all().into_iter().filter(|event| event.kind() == "connected").collect();
    assert!(began.is_empty(), "{began:?}");
}

async fn refused(world: &World, secret: &Secret) -> End {
    let mut client = DtlsClient::new(world.gateway.udps(), secret).await;
    client.handshake().await.unwrap_err()
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_identity_look_the_same() {
    let pki = Pki::new();
    let world = world(&pki).await;
    for key in [&b"another key"[..], b"", &[0; 64], b"acme-key-16bytes"] {
        assert_eq!(refused(&world, &Secret::psk("pump", key)).await, End::Alert(DECRYPT_ERROR), "{key:?}");
    }
    assert_refused(&world, "bad-credentials", "dtls", 4).await;
    let named = |event: &Seen| event.kind() == "refused" && event.json["claimedId"] == "pump";
    let event = world.recorder.find(PATIENCE, "the claimed identity", named).await;
    assert!(event.json.get("endpointId").is_none(), "nothing is proven");
    let longest = "n".repeat(128);
    let unknown = [
        "nobody",
        "",
        "pump@other",
        "pump@",
        "@acme",
        "pump\0",
        "../pump",
        "PUMP",
        "kaa.v1.events.>",
        "plain",
        "meter",
        "pump@acme@acme",
        "\u{202e}pmup",
        &longest,
    ];
    for identity in unknown {
        assert_eq!(
            refused(&world, &Secret::psk(identity, PUMP)).await,
            End::Alert(DECRYPT_ERROR),
            "{identity:?}"
        );
    }
    assert_refused(&world, "unknown-device", "dtls", unknown.len() as u64).await;
    // Longer than anybody's can be.
    for length in [129, 1_000, 5_000] {
        let end = refused(&world, &Secret::psk(&"n".repeat(length), PUMP)).await;
        assert_eq!(end, End::Alert(DECRYPT_ERROR), "{length} bytes");
    }
    assert_refused(&world, "unknown-device", "dtls", unknown.len() as u64 + 3).await;
    let mut shaken = coap(world.gateway.coaps(), &pump()).await;
    posted(&mut shaken, "a good one comes in").await;
    let events = world.recorder.all();
    let told: Vec<&Seen> =
        events.iter().filter(|event| event.kind() == "refused").map(|event| &**event).collect();
    assert!(told.iter().all(|event| event.json.get("endpointId").is_none()), "proved nothing: {told:?}");
    assert_eq!(metric(&world, "landfall_dtls_handshakes_failed_total{reason=\"wrong-key\"}").await, 21.0);
    assert!(!world.gateway.log().contains("pump-key") && !world.gateway.log().contains('\u{202e}'));
    world.close().await;
}

/// The same in bytes: what a server sends to a wrong key and to an identity that nobody has, flight by flight.
#[tokio::test]
async fn on_the_wire_nothing_tells_them_apart() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut seen = Vec::new();
    for identity in ["pump", "nobody"] {
        let suite = Suite::PskCcm8;
        let shown = Shown::Psk(identity, b"a wrong key");
        let Some(process) = dtls::openssl(world.gateway.udps(), shown, suite, &["-msg"]) else { return };
        process.exited(PATIENCE).await;
        assert!(process.log().contains("alert number 51"), "{}", process.log());
        let lines = process.log();
        let came = lines.lines().filter(|line| line.starts_with("<<<")).map(str::to_owned);
        seen.push(came.collect::<Vec<_>>());
    }
    assert!(seen[0].len() >= 6, "{seen:?}");
    assert_eq!(seen[0], seen[1]);
    assert_nobody(&world);
    world.close().await;
}

#[tokio::test]
async fn certificates_that_do_not_hold() {
    let (pki, other, impostor) = (Pki::new(), Pki::named("another authority"), Pki::new());
    let world = world(&pki).await;
    let name = "meter's own";
    // Whoever signed it, its time, what it is for, and whose it is.
    for (identity, alert) in [
        (other.client(name), 48),
        (impostor.client(name), 42),
        (pki.expired(name), 45),
        (pki.for_servers(name), 42),
    ] {
        assert_eq!(refused(&world, &Secret::certificate(&identity)).await, End::Alert(alert));
    }
    assert_refused(&world, "tls-failed", "dtls", 4).await;
    // A good one of somebody who is not known: access_denied.
    assert_eq!(refused(&world, &Secret::certificate(&pki.client("stranger"))).await, End::Alert(49));
    assert_refused(&world, "unknown-device", "dtls", 1).await;
    for (detail, count) in
        [("unknown certificate authority", 1), ("certificate expired", 1), ("certificate not valid", 2)]
    {
        let told = || -> u64 {
            let events = world.recorder.all();
            events.iter().filter(|e| e.json["detail"] == detail).map(|e| e.number("count")).sum()
        };
        world.recorder.find(PATIENCE, detail, |_| told() >= count).await;
        assert_eq!(told(), count, "{detail}");
    }
    // None at all, where one is required.
    let shown = Shown::Nothing(&pki);
    let Some(process) = dtls::openssl(world.gateway.udps(), shown, Suite::EcdheGcm, &[]) else { return };
    process.logged("alert", PATIENCE).await;
    assert_refused(&world, "tls-failed", "dtls", 5).await;
    assert_nobody(&world);
    // The key of another certificate than the one that is shown.
    let (meter, thief) = (pki.client(name), pki.client("thief"));
    let Secret::Certificate { key, .. } = Secret::certificate(&thief) else { unreachable!() };
    let forged = Secret::Certificate { certificate: meter.der.clone(), key };
    assert!(matches!(refused(&world, &forged).await, End::Alert(_)));
    assert_refused(&world, "tls-failed", "dtls", 6).await;
    assert_nobody(&world);
    let mut good = udp(world.gateway.udps(), &Secret::certificate(&meter), "meter").await;
    delivered(&mut good, "", "1").await;
    world.close().await;
}

#[tokio::test]
async fn libcoap_is_told_of_a_wrong_key() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let uri = format!("coaps://{}/t", world.gateway.coaps());
    for (n, build) in (1..).zip([Build::OpenSsl, Build::GnuTls]) {
        let shown = Shown::Psk("pump", b"wrong");
        let arguments = ["-m", "post", "-e", "x", "-B", "5", &uri];
        let Some(process) = dtls::coap_client(build, shown, &arguments) else { return };
        process.exited(PATIENCE).await;
        assert_refused(&world, "bad-credentials", "coaps", n).await;
    }
    assert_nobody(&world);
    world.close().await;
}

#[tokio::test]
async fn no_common_suite_and_no_common_version() {
    let pki = Pki::new();
    let world = world(&pki).await;
    // TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 is not spoken here.
    let strange = ClientHello::new(1, &[0xc02c, 0x1301, 0x00ff]);
    let wire = Wire::to(world.gateway.udps()).await;
    wire.send(&strange.datagram(0)).await;
    let cookie = wire::cookie(&wire.receive().await).unwrap();
    wire.send(&strange.cookie(&cookie).datagram(1)).await;
    assert_eq!(wire::alert(&wire.receive().await), Some(HANDSHAKE_FAILURE));
    assert_refused(&world, "tls-failed", "dtls", 1).await;
    // DTLS 1.0 at once.
    let old = ClientHello { version: [0xfe, 0xff], ..ClientHello::new(2, &[wire::PSK_CCM_8]) };
    let wire = Wire::to(world.gateway.udps()).await;
    wire.send(&old.datagram(0)).await;
    let answer = wire.receive().await;
    assert_eq!((wire::alert(&answer), answer.len()), (Some(PROTOCOL_VERSION), 15));
    assert_refused(&world, "unsupported-version", "dtls", 1).await;
    // DTLS 1.3 and nothing else, from a stack of others': it says 1.2 where versions stood before 1.3, and the truth elsewhere.
    let mut later = DtlsClient::of_1_3(world.gateway.udps(), &pki.client("later")).await;
    assert_eq!(later.handshake().await, Err(End::Alert(PROTOCOL_VERSION)));
    assert_refused(&world, "unsupported-version", "dtls", 2).await;
    assert_eq!(metric(&world, "landfall_dtls_other_versions_total").await, 2.0);
    until_metric(&world, "landfall_dtls_handshakes ", 0.0).await;
    assert_nobody(&world);
    world.close().await;
}

#[tokio::test]
async fn a_channel_speaks_for_its_own_device_only() {
    let pki = Pki::new();
    let world = world(&pki).await;
    // UDP: a line of another is refused and not acknowledged, and is no sign of life of anybody.
    let mut liar = udp(world.gateway.udps(), &pump(), "valve").await;
    liar.send("ack", "I am the valve").await;
    assert_refused(&world, "not-authorized", "dtls", 1).await;
    let mut liar = udp(world.gateway.udps(), &pump(), "pump").await.tenant("acme");
    liar.send("ack", "I am another tenant's").await;
    assert_refused(&world, "not-authorized", "dtls", 2).await;
    assert!(liar.waiting().is_empty());
    // CoAP: 4.03, whatever key it shows.
    let mut liar = coap(world.gateway.coaps(), &pump()).await;
    for queries in [&["ep=valve"][..], &["ep=valve", "key=v-key"], &["ep=pump", "t=acme"], &["t=acme"]] {
        assert_eq!(liar.post("t", queries, "x").await.code, code(4, 3), "{queries:?}");
    }
    assert_refused(&world, "not-authorized", "coaps", 4).await;
    for queries in [&["ep=pump"][..], &["ep=pump", "t=default"], &["t=default"], &["key=whatever"]] {
        assert_eq!(liar.post("t", queries, "x").await.code, code(2, 4), "{queries:?}");
    }
    let observe = Message::request(method::GET).path("command").query("ep=valve").number(6, 0);
    assert_eq!(liar.request(observe).await.code, code(4, 3));
    assert!(
        world.recorder.of("upstream", "valve").is_empty()
            && world.recorder.of("connected", "valve").is_empty()
    );
    assert_eq!(world.recorder.expect_count("upstream", "pump", 4).await.len(), 4);
    world.close().await;
}
