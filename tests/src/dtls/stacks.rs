//! DTLS stacks that others wrote, unmodified: OpenSSL, GnuTLS and Mbed TLS bare, libcoap over two of them, aiocoap over
//! tinydtls; every suite that each of them has.

use landfall_testkit::interop::dtls::{self, Build, Shown, Suite};
use landfall_testkit::process::Process;
use landfall_testkit::{PATIENCE, Pki, World};
use serde_json::{Value, json};

use super::{ACME, PUMP, world};

struct Stage {
    pki: Pki,
    world: World,
}

impl Stage {
    async fn set() -> Self {
        let pki = Pki::new();
        let world = world(&pki).await;
        Self { pki, world }
    }

    /// A bare client over UDP: a handshake, one record, an end in order.
    async fn lives(&self, suite: Suite, start: impl Fn(Shown<'_>) -> Option<Process>, shaken: &str) -> bool {
        let meter = self.pki.client("meter's own");
        let (device, remote_id, shown) = match suite.is_psk() {
            true => ("pump", "pump", Shown::Psk("pump", PUMP)),
            false => ("meter", "meter's own", Shown::Certificate(&meter, &self.pki)),
        };
        let recorder = &self.world.recorder;
        let before = recorder.of("connected", device).len();
        let Some(mut process) = start(shown) else { return false };
        process.logged(shaken, PATIENCE).await;
        let connected = recorder.expect_count("connected", device, before + 1).await.pop().unwrap();
        for (field, value) in [
            ("transport", "dtls"),
            ("protocol", "UDP"),
            ("identifiedBy", if suite.is_psk() { "psk" } else { "certificate" }),
            ("remoteId", remote_id),
            ("tenant", "default"),
        ] {
            assert_eq!(connected.text(field), value, "{suite:?}: {field} in {}", connected.json);
        }
        process.say("21.5\n");
        let upstream = recorder.expect_count("upstream", device, before + 1).await.pop().unwrap();
        assert_eq!(upstream.json["payload"], json!(21.5), "{suite:?}: {}", upstream.json);
        assert_eq!(upstream.text("sessionId"), connected.text("sessionId"));
        process.hang_up();
        let ended = recorder.expect_ends(device, "dtls", before + 1).await.pop().unwrap();
        let told = (ended.text("reason"), ended.text("initiator"));
        assert_eq!(told, ("secure-channel-closed", "device"), "{suite:?}: {}", ended.json);
        assert_eq!(ended.json["inferred"], false, "it said so");
        assert!(process.exited(PATIENCE).await.success(), "{}", process.log());
        true
    }

    async fn assert_suites(&self, each: f64) {
        let suites = self.world.gateway.metrics("landfall_dtls_handshakes_established_total").await;
        assert!(
            suites.len() == Suite::ALL.len() && suites.iter().all(|(_, count)| *count == each),
            "{suites:?}"
        );
    }
}

#[tokio::test]
async fn openssl_speaks_every_suite() {
    let stage = Stage::set().await;
    let at = stage.world.gateway.udps();
    for suite in Suite::ALL {
        let start = |shown: Shown<'_>| dtls::openssl(at, shown, suite, &[]);
        if !stage.lives(suite, start, "Verify return code").await {
            return;
        }
    }
    stage.assert_suites(1.0).await;
    stage.world.close().await;
}

/// Other groups, a P-384 key of the gateway's, small datagrams.
#[tokio::test]
async fn openssl_in_other_ways() {
    let pki = Pki::p384();
    let stage = Stage { world: world(&pki).await, pki };
    let at = stage.world.gateway.udps();
    for (suite, more) in [
        (Suite::EcdheCcm8, &["-groups", "P-256:P-384"][..]),
        (Suite::EcdheGcm, &["-groups", "X25519:P-384"]),
        (Suite::EcdheGcm, &["-mtu", "256"]),
        (Suite::PskGcm, &["-no_ticket"]),
        (Suite::PskCcm8, &["-msg", "-state"]),
    ] {
        if !stage.lives(suite, |shown| dtls::openssl(at, shown, suite, more), "Verify return code").await {
            return;
        }
    }
    stage.world.close().await;
}

/// Without the extended master secret, as older stacks are, and without any extension.
#[tokio::test]
async fn gnutls_as_older_stacks_are() {
    let stage = Stage::set().await;
    let at = stage.world.gateway.udps();
    for (suite, more) in [
        (Suite::PskCcm8, ":%NO_SESSION_HASH"),
        (Suite::PskGcm, ":%NO_SESSION_HASH"),
        (Suite::EcdheCcm8, ":%NO_SESSION_HASH"),
        (Suite::EcdheGcm, ":%NO_SESSION_HASH:%DISABLE_SAFE_RENEGOTIATION"),
        (Suite::PskCcm8, ":%NO_EXTENSIONS"),
    ] {
        if !stage.lives(suite, |shown| dtls::gnutls(at, shown, suite, more), "Handshake was completed").await
        {
            return;
        }
    }
    stage.world.close().await;
}

#[tokio::test]
async fn gnutls_speaks_every_suite() {
    let stage = Stage::set().await;
    let at = stage.world.gateway.udps();
    for suite in Suite::ALL {
        let start = |shown: Shown<'_>| dtls::gnutls(at, shown, suite, "");
        if !stage.lives(suite, start, "Handshake was completed").await {
            return;
        }
    }
    stage.assert_suites(1.0).await;
    stage.world.close().await;
}

#[tokio::test]
async fn mbedtls_speaks_every_suite() {
    let stage = Stage::set().await;
    let at = stage.world.gateway.udps();
    for suite in Suite::ALL {
        let start = |shown: Shown<'_>| dtls::mbedtls(at, shown, suite);
        if !stage.lives(suite, start, "\"shaken\"").await {
            return;
        }
    }
    stage.assert_suites(1.0).await;
    stage.world.close().await;
}

/// OpenSSL, Mbed TLS and wolfSSL list the suites of certificates first, whether they have a certificate or not. A device with a key
/// is known by it all the same, and is nobody's stranger where certificates are optional.
#[tokio::test]
async fn a_device_with_a_key_gets_in_whatever_its_stack_lists_first() {
    for client_auth in ["required", "optional"] {
        let pki = Pki::new();
        let world =
            World::with(|builder| super::settings(builder, &pki).set("dtls.client_auth", client_auth));
        let stage = Stage { world: world.await, pki };
        let at = stage.world.gateway.udps();
        let is_key = |shown: Shown<'_>| matches!(shown, Shown::Psk(..));
        let openssl = |shown: Shown<'_>| {
            assert!(is_key(shown));
            dtls::openssl_listing(at, shown, "ALL:PSK", &[])
        };
        if !stage.lives(Suite::PskGcm, openssl, "Verify return code").await {
            return;
        }
        let orders: [&[Suite]; 3] =
            [&[Suite::EcdheGcm, Suite::EcdheCcm8, Suite::PskCcm8], &[Suite::PskGcm, Suite::EcdheGcm], &[]];
        for order in orders {
            let mbedtls = |shown: Shown<'_>| dtls::mbedtls_listing(at, shown, order);
            if !stage.lives(Suite::PskCcm8, mbedtls, "\"shaken\"").await {
                return;
            }
        }
        let suites = stage.world.gateway.metrics("landfall_dtls_handshakes_established_total").await;
        assert!(suites.iter().all(|(suite, _)| suite.contains("TLS_PSK")), "{suites:?}");
        stage.world.close().await;
    }
}

/// Its exit says nothing of the answer; an error does, on its standard error.
async fn well_done(process: &Process) {
    assert!(process.exited(PATIENCE).await.success(), "{}", process.log());
    let log = process.log();
    assert!(!log.contains("ERR") && !log.contains("WARN") && !log.contains("4.0"), "{log}");
}

async fn libcoap(build: Build) {
    let stage = Stage::set().await;
    let meter = stage.pki.client("meter's own");
    let recorder = &stage.world.recorder;
    let uri = format!("coaps://{}/site/flow", stage.world.gateway.coaps());
    let by_certificate = Shown::Certificate(&meter, &stage.pki);
    for (n, device, shown) in [
        (1, "pump", Shown::Psk("pump", PUMP)),
        (1, "meter", by_certificate),
        (2, "pump", Shown::Psk("pump@default", PUMP)),
        (3, "pump", Shown::Psk("pump@acme", ACME)),
    ] {
        let arguments = ["-m", "post", "-t", "50", "-e", "{\"bar\": 2}", "-B", "12", &uri];
        let Some(process) = dtls::coap_client(build, shown, &arguments) else { return };
        well_done(&process).await;
        let connected = recorder.expect_count("connected", device, n).await.pop().unwrap();
        let by = if device == "pump" { "psk" } else { "certificate" };
        let told = (connected.text("transport"), connected.text("identifiedBy"));
        assert_eq!(told, ("coaps", by), "{}", connected.json);
        let tenant = if n == 3 { "acme" } else { "default" };
        assert_eq!(connected.text("tenant"), tenant, "{}", connected.json);
        let upstream = recorder.expect_count("upstream", device, n).await.pop().unwrap();
        assert_eq!((upstream.text("topic"), &upstream.json["payload"]), ("site/flow", &json!({"bar": 2})));
        assert_eq!(upstream.text("sessionId"), connected.text("sessionId"));
        let ended = recorder.expect_ends(device, "coaps", n).await.pop().unwrap();
        assert_eq!(ended.text("reason"), "secure-channel-closed", "{}", ended.json);
    }
    libcoap_in_blocks(&stage, build, &uri).await;
    stage.world.close().await;
}

/// A body in blocks, which are records of their own.
async fn libcoap_in_blocks(stage: &Stage, build: Build, uri: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, "0123456789abcdef".repeat(1_000)).unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["-m", "put", "-b", "512", "-t", "0", "-f", file, "-B", "12", uri];
    let Some(process) = dtls::coap_client(build, Shown::Psk("pump", PUMP), &arguments) else { return };
    well_done(&process).await;
    let upstream = stage.world.recorder.expect_count("upstream", "pump", 4).await.pop().unwrap();
    assert_eq!(upstream.text("payload").len(), 16_000, "byte for byte, and one event");
}

#[tokio::test]
async fn libcoap_over_openssl() {
    libcoap(Build::OpenSsl).await;
}

#[tokio::test]
async fn libcoap_over_gnutls() {
    libcoap(Build::GnuTls).await;
}

#[tokio::test]
async fn libcoap_observes_its_commands() {
    let stage = Stage::set().await;
    let uri = format!("coaps://{}/command", stage.world.gateway.coaps());
    for (n, build) in (1..).zip([Build::OpenSsl, Build::GnuTls]) {
        let shown = Shown::Psk("pump", PUMP);
        let Some(process) = dtls::coap_client(build, shown, &["-s", "2", "-w", &uri]) else { return };
        let text = format!("turn it on, {build:?}");
        // The observation begins a moment after the session.
        let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "10000")];
        stage.world.recorder.expect_count("connected", "pump", n).await;
        let reply = stage.world.command("pump", &text, &headers).await;
        assert_eq!(reply["outcome"], "acknowledged", "{reply}");
        well_done(&process).await;
        assert!(process.output().contains(&text), "{}", process.output());
    }
    stage.world.close().await;
}

/// tinydtls has TLS_PSK_WITH_AES_128_CCM_8 and no extended master secret.
#[tokio::test]
async fn aiocoap_over_tinydtls_is_a_device_from_its_registration_to_its_end() {
    let stage = Stage::set().await;
    let at = stage.world.gateway.coaps();
    let more = ["--lifetime", "60", "--commands", "1", "--upload", "20000"];
    let Some(process) = dtls::tinydtls(at, ("pump", PUMP), &more) else { return };
    process.logged(r#""what": "observing""#, PATIENCE).await;
    let headers = [("Command-Wait", "answered"), ("Command-Id", "c1"), ("Command-Name", "turn")];
    let reply = stage.world.command("pump", "abc", &headers).await;
    assert_eq!((&reply["outcome"], &reply["response"]), (&json!("answered"), &json!({"length": 3})));
    process.logged(r#""what": "done""#, PATIENCE).await;
    assert!(process.exited(PATIENCE).await.success(), "{}", process.log());
    let told: Vec<Value> =
        process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (what, expected) in [
        ("registered", "2.01"),
        ("posted", "2.04"),
        ("put", "2.04"),
        ("uploaded", "2.04"),
        ("posted-non", "2.04"),
        ("observing", "2.05"),
        ("deregistered", "2.02"),
    ] {
        let of = told.iter().filter(|line| line["what"] == what).map(|line| &line["code"]);
        assert_eq!(of.collect::<Vec<_>>(), [expected], "{what}: {told:?}");
    }
    assert_eq!(stage.world.recorder.expect_count("upstream", "pump", 4).await.len(), 4);
    let connected = stage.world.recorder.expect("connected", "pump").await;
    assert_eq!((connected.text("transport"), connected.text("identifiedBy")), ("coaps", "psk"));
    let end = stage.world.recorder.expect("disconnected", "pump").await;
    assert_eq!(end.text("reason"), "deregistered");
    let established = stage.world.gateway.metrics("landfall_dtls_handshakes_established_total").await;
    assert!(established[0].0.contains("PSK_WITH_AES_128_CCM_8"), "{established:?}");
    stage.world.close().await;
}
