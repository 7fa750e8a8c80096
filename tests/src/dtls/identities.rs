//! Who a channel is, and what becomes of those that prove nothing; one family with plain UDP and plain CoAP.

use std::time::Duration;

use landfall_testkit::coap::code;
use landfall_testkit::dtls::{DtlsClient, End, Pace, Secret};
use landfall_testkit::interop::dtls::{self, Shown, Suite};
use landfall_testkit::packet::Connect;
use landfall_testkit::{CoapClient, PATIENCE, Pki, RawClient, UdpDevice, Version, World};
use serde_json::json;

use super::{
    ACME, assert_refused, coap, delivered, posted, pump, sessions, settings, told, udp, valve, world,
};

#[tokio::test]
async fn a_certificate_is_known_by_its_fingerprint_or_its_name() {
    let pki = Pki::new();
    let (gauge, branch) = (pki.client("somebody"), pki.client_by_branch("meter's own"));
    let listed = format!(
        "{}[[device]]\nid = \"gauge\"\ntenant = \"acme\"\ncertificate = \"{}\"\n",
        super::devices(),
        gauge.fingerprint()
    );
    let world = World::with(|builder| settings(builder, &pki).devices(&listed)).await;
    let mut device = coap(world.gateway.coaps(), &Secret::certificate(&gauge)).await;
    posted(&mut device, "1").await;
    let connected = world.recorder.expect("connected", "gauge").await;
    for (field, value) in [
        ("transport", json!("coaps")),
        ("protocol", json!("CoAP")),
        ("identifiedBy", json!("certificate")),
        ("remoteId", json!("somebody")),
        ("tenant", json!("acme")),
        ("remoteAddress", json!(device.local_addr().to_string())),
    ] {
        assert_eq!(connected.json[field], value, "{field} in {}", connected.json);
    }
    assert_eq!(device.channel().peer_certificate(), Some(pki.server().der.as_slice()));
    // One of an authority below the one that is trusted shows its chain. OpenSSL sends it.
    let shown = Shown::Certificate(&branch, &pki);
    let Some(mut process) = dtls::openssl(world.gateway.udps(), shown, Suite::EcdheGcm, &[]) else { return };
    assert_eq!(world.recorder.expect("connected", "meter").await.text("transport"), "dtls");
    process.hang_up();
    assert_eq!(world.recorder.expect_end("meter", "dtls").await.text("reason"), "secure-channel-closed");
    process.exited(PATIENCE).await;
    world.close().await;
}

/// A certificate suite, and no certificate of the device's own: the channel is private, and each word says whose it is.
#[tokio::test]
async fn a_channel_of_nobody_carries_what_plain_datagrams_carry() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("dtls.client_auth", "optional")).await;
    let shown = Shown::Nothing(&pki);
    let Some(mut process) = dtls::openssl(world.gateway.udps(), shown, Suite::EcdheGcm, &[]) else { return };
    process.logged("Verify return code", PATIENCE).await;
    assert!(sessions(&world).await.is_empty(), "nobody yet");
    process.say("LF1 plain key=p-key hb=60\n");
    let connected = world.recorder.expect("connected", "plain").await;
    let told = (connected.text("transport"), connected.text("identifiedBy"));
    assert_eq!(told, ("dtls", "password"), "{}", connected.json);
    process.say("LF1 plain key=wrong\n");
    assert_refused(&world, "bad-credentials", "dtls", 1).await;
    process.say("without a line\n");
    assert_refused(&world, "malformed", "dtls", 1).await;
    process.hang_up();
    let ended = world.recorder.expect_end("plain", "dtls").await;
    assert_eq!(ended.text("reason"), "secure-channel-closed", "{}", ended.json);
    process.exited(PATIENCE).await;
    let uri = format!("coaps://{}/t?ep=plain&key=p-key", world.gateway.coaps());
    let build = dtls::Build::OpenSsl;
    let Some(process) = dtls::coap_client(build, shown, &["-m", "post", "-e", "x", "-B", "9", &uri]) else {
        return;
    };
    process.exited(PATIENCE).await;
    assert_eq!(world.recorder.expect("upstream", "plain").await.text("topic"), "t");
    world.close().await;
}

#[tokio::test]
async fn in_open_mode_a_certificate_is_believed() {
    let pki = Pki::new();
    let world = World::with(|builder| builder.coap_dtls().udp_dtls().dtls(&pki)).await;
    let mut device = coap(world.gateway.coaps(), &Secret::certificate(&pki.client("free"))).await;
    posted(&mut device, "1").await;
    let connected = world.recorder.expect("connected", "free").await;
    assert_eq!((connected.text("transport"), connected.text("identifiedBy")), ("coaps", "certificate"));
    // Nobody has a key, and suites with keys are not offered.
    let mut keyed = DtlsClient::new(world.gateway.udps(), &Secret::psk("free", "x")).await;
    assert_eq!(keyed.handshake().await, Err(End::Alert(40)));
    assert_refused(&world, "tls-failed", "dtls", 1).await;
    world.close().await;
}

/// LwM2M clients, wakaama's among them, have an endpoint name and a PSK identity that are two things: `ep` is the device's name,
/// the identity that of its entry.
#[tokio::test]
async fn a_psk_identity_need_not_be_the_devices_name() {
    let pki = Pki::new();
    let key = dtls::hex(b"lwm2m-key-16byte");
    let listed = format!(
        "{}[[device]]\nid = \"urn:imei:49015420323751\"\ntenant = \"acme\"\npsk = \"{key}\"\npsk_identity = \"key 7 of line 3\"\n",
        super::devices(),
    );
    let world = World::with(|builder| settings(builder, &pki).devices(&listed)).await;
    let secret = Secret::psk("key 7 of line 3", b"lwm2m-key-16byte");
    let mut device = coap(world.gateway.coaps(), &secret).await;
    let name = "urn:imei:49015420323751";
    let register = device.post("rd", &[&format!("ep={name}"), "lt=60"], "").await;
    assert_eq!(register.code, code(2, 1), "its endpoint name is the device's");
    let connected = world.recorder.expect("connected", name).await;
    for (field, value) in
        [("transport", "coaps"), ("identifiedBy", "psk"), ("remoteId", "key 7 of line 3"), ("tenant", "acme")]
    {
        assert_eq!(connected.text(field), value, "{field} in {}", connected.json);
    }
    // Another name stays another device's, and the identity is no name.
    for other in ["ep=valve", "ep=key 7 of line 3"] {
        assert_eq!(device.post("rd", &[other, "lt=60"], "").await.code, code(4, 3), "{other}");
    }
    assert_refused(&world, "not-authorized", "coaps", 2).await;
    // Nor is the name an identity.
    let by_name = Secret::psk("urn:imei:49015420323751@acme", b"lwm2m-key-16byte");
    let mut by_name = DtlsClient::new(world.gateway.udps(), &by_name).await;
    assert_eq!(by_name.handshake().await, Err(End::Alert(51)));
    assert_refused(&world, "unknown-device", "dtls", 1).await;
    world.close().await;
}

/// A device's word over DTLS and its word over plain UDP belong to one presence: the later takes over.
#[tokio::test]
async fn with_and_without_dtls_are_one_family() {
    let pki = Pki::new();
    let world = world(&pki).await;
    let mut plain = UdpDevice::new(world.gateway.udp(), "valve").await.key("v-key");
    let mut plain_coap = CoapClient::new(world.gateway.coap(), 3).await;
    delivered(&mut plain, "hb=60", "1").await;
    assert_eq!(plain_coap.post("t", &["ep=valve", "key=v-key"], "1").await.code, code(2, 4));
    let mut secure = udp(world.gateway.udps(), &valve(), "valve").await;
    assert_eq!(world.recorder.expect_end("valve", "udp").await.text("reason"), "taken-over");
    delivered(&mut secure, "hb=60", "2").await;
    let mut secure_coap = coap(world.gateway.coaps(), &valve()).await;
    assert_eq!(world.recorder.expect_end("valve", "coap").await.text("reason"), "taken-over");
    posted(&mut secure_coap, "2").await;
    let connect = Connect::new(Version::V5, "c").login("valve", "v-key");
    let mut mqtt = RawClient::accepted(world.mqtt(), &connect).await;
    mqtt.ping().await;
    let mut there: Vec<_> = sessions(&world).await.iter().map(|one| one["transport"].to_string()).collect();
    there.sort();
    assert_eq!(there, [r#""coaps""#, r#""dtls""#, r#""mqtt""#], "families live side by side");
    // And back again: the channel is told.
    delivered(&mut plain, "hb=60", "3").await;
    assert_eq!(world.recorder.expect_end("valve", "dtls").await.text("reason"), "taken-over");
    assert_eq!(secure.channel().ended().await, End::Closed);
    posted(&mut secure_coap, "3").await;
    drop(mqtt);
    world.close().await;
}

/// An IPv6 address, and every address of the machine: the answer comes from where it was asked.
#[tokio::test]
async fn any_address_of_the_gateways() {
    let pki = Pki::new();
    let world = World::with(|builder| {
        settings(builder, &pki).udp(&["dtls://[::1]:0", "dtls://0.0.0.0:0"]).set("auth.mode", "devices")
    })
    .await;
    let at: Vec<_> = world.gateway.listening("udp", "dtls").collect();
    let mut six = udp(at[0], &valve(), "valve").await;
    delivered(&mut six, "hb=60", "1").await;
    let connected = world.recorder.expect("connected", "valve").await;
    assert_eq!(connected.text("remoteAddress"), six.local_addr().to_string());
    for (n, last) in (1..=3).zip([1, 7, 254]) {
        let address = ([127, 0, 0, last], at[1].port()).into();
        let mut device = udp(address, &pump(), "pump").await;
        delivered(&mut device, "hb=60", "1").await;
        device.channel().close().await;
        world.recorder.expect_ends("pump", "dtls", n).await;
    }
    world.close().await;
}

/// So many channels one host may have; one that leaves makes room.
#[tokio::test]
async fn one_host_has_its_share() {
    let pki = Pki::new();
    let world = World::with(|builder| {
        let settings = settings(builder, &pki).coap(&[]).udp(&["dtls://127.0.0.1:0"]);
        settings.set("udp.sockets", 1).set("dtls.max_per_address", 2)
    })
    .await;
    let at = world.gateway.udps();
    let mut first = udp(at, &valve(), "valve").await;
    let _second = udp(at, &pump(), "pump").await;
    let pace = Pace { again: Duration::from_millis(50), retransmits: 2, ..Pace::default() };
    let acme = Secret::psk("pump@acme", ACME);
    let mut third = DtlsClient::paced(at, &acme, pace).await;
    assert!(third.handshake().await.is_err());
    world.recorder.find(PATIENCE, "a limit", |_| told(&world, "limit-reached", "dtls") > 0).await;
    delivered(&mut first, "hb=60", "still here").await;
    first.channel().close().await;
    world.recorder.expect_end("valve", "dtls").await;
    udp(at, &acme, "pump").await;
    world.close().await;
}
