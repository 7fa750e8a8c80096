//! Auth mode `devices`: who gets in, as whom, and what each may do.

use landfall_testkit::ledger::Open;
use landfall_testkit::packet::{Connect, Publish, Will, kind, subscribe};
use landfall_testkit::streams::{ACCESS, CONNECTIVITY, stored, stored_when};
use landfall_testkit::{Gateway, NatsServer, PATIENCE, Pki, RawClient, Version, World};

const BOTH: [Version; 2] = [Version::V4, Version::V5];

const DEVICES: &str = r##"
[[device]]
id = "pump-17"
password = "plain:secret"
app_version = "demo-v1"
publish = ["up/%d/#", "shared"]
subscribe = ["command/#", "c/#", "config/%d"]

[[device]]
id = "pump-18"
tenant = "acme"
password = "plain:other"
publish = ["#"]
subscribe = ["#"]

[[device]]
id = "mute"
password = "plain:m"
publish = []
subscribe = []
"##;

async fn world() -> World {
    World::with(|settings| settings.devices(DEVICES).set("events.refusal_interval", "100ms")).await
}

async fn assert_refused(world: &World, cause: &str) {
    world
        .recorder
        .find(PATIENCE, cause, |event| event.kind() == "refused" && event.text("cause") == cause)
        .await;
}

#[tokio::test]
async fn the_credential_says_who_a_device_is() {
    let world = world().await;
    for version in BOTH {
        let client_id = format!("some-client-{}", version.level());
        let connect = Connect::new(version, &client_id).login("pump-17", "secret");
        let mut client = RawClient::accepted(world.mqtt(), &connect).await;
        let event = world
            .recorder
            .expect_that("connected", "pump-17", &client_id, |event| event.text("remoteId") == client_id)
            .await;
        assert_eq!(event.text("identifiedBy"), "password");
        assert_eq!(event.text("appVersionName"), "demo-v1");
        assert_eq!(event.text("tenant"), "default");
        client.ping().await;
    }
    let connect = Connect::new(Version::V5, "x").login("pump-18@acme", "other");
    let client = RawClient::accepted(world.mqtt(), &connect).await;
    let event = world.recorder.expect("connected", "pump-18").await;
    assert_eq!(event.text("tenant"), "acme");
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_wrong_word_is_refused_in_the_versions_own_code() {
    let world = world().await;
    for (user, password, cause) in [
        ("pump-17", "wrong", "bad-credentials"),
        ("pump-17", "", "bad-credentials"),
        ("nobody", "secret", "unknown-device"),
        ("pump-18", "other", "unknown-device"),
        ("pump-17@acme", "secret", "unknown-device"),
        ("", "", "unknown-device"),
    ] {
        for version in BOTH {
            let connect = Connect::new(version, "c").login(user, password);
            let (mut client, connack) = RawClient::connect(world.mqtt(), &connect).await;
            // A stranger cannot tell a device that exists from one that does not.
            let due = if version == Version::V5 { 0x86 } else { 4 };
            assert_eq!(connack.connack_code(), due, "{user}:{password}");
            assert!(!connack.session_present());
            client.until_closed().await;
        }
        assert_refused(&world, cause).await;
    }
    for version in BOTH {
        let (_, connack) = RawClient::connect(world.mqtt(), &Connect::new(version, "pump-17")).await;
        assert_ne!(connack.connack_code(), 0, "a client id proves nothing");
    }
    assert!(world.recorder.all().iter().all(|event| event.kind() != "connected"));
    let log = world.gateway.log();
    assert!(!log.contains("secret") && !log.contains("plain:"), "no secret in the log");
    world.close().await;
}

#[tokio::test]
async fn publishing_is_held_to_the_acl() {
    let world = world().await;
    let connect = Connect::new(Version::V5, "c").login("pump-17", "secret");
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.publish_acked("up/pump-17/flow", "1", 1).await, 0);
    assert_eq!(client.publish_acked("shared", "2", 2).await, 0);
    assert_eq!(client.publish_acked("up/pump-18/flow", "3", 3).await, 0x87, "another device's branch");
    client.send(&Publish::new(Version::V5, "elsewhere", "4", 2, 4).encode()).await;
    assert_eq!(client.expect(kind::PUBREC).await.ack_code(), 0x87);
    assert_eq!(client.publish_acked("shared", "5", 5).await, 0, "the session goes on");
    let events = world.recorder.expect_count("upstream", "pump-17", 3).await;
    assert_eq!(events.iter().map(|event| event.number("payload")).collect::<Vec<_>>(), [1, 2, 5]);
    assert_refused(&world, "not-authorized").await;
    drop(client);
    // Version 3.1.1 has no negative acknowledgement (3.3.5): the connection ends rather than that the device is told
    // something that is not true.
    let mut client =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V4, "c").login("pump-17", "secret")).await;
    client.send(&Publish::new(Version::V4, "elsewhere", "6", 1, 1).encode()).await;
    assert!(client.until_closed().await.is_empty());
    world
        .recorder
        .expect_that("disconnected", "pump-17", "not-authorized", |event| {
            event.text("reason") == "not-authorized"
        })
        .await;
    world.close().await;
}

#[tokio::test]
async fn subscribing_is_held_to_the_acl() {
    let world = world().await;
    for version in BOTH {
        let connect = Connect::new(version, "c").login("pump-17", "secret");
        let mut client = RawClient::accepted(world.mqtt(), &connect).await;
        let filters = [
            ("command///req/#", 1),
            ("config/pump-17", 0),
            ("config/+", 1),
            ("#", 0),
            ("$SYS/#", 0),
            ("+/+", 0),
        ];
        client.send(&subscribe(version, 5, &filters)).await;
        let refused = if version == Version::V5 { 0x87 } else { 0x80 };
        let codes = client.expect(kind::SUBACK).await.codes(version);
        assert_eq!(
            codes,
            [1, 0, refused, refused, refused, refused],
            "a wildcard covers no more than its ACL does"
        );
        client.ping().await;
    }
    world.close().await;
}

#[tokio::test]
async fn an_empty_list_allows_nothing() {
    let world = world().await;
    let mut client =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "c").login("mute", "m")).await;
    assert_eq!(client.publish_acked("anything", "x", 1).await, 0x87);
    assert_eq!(client.subscribe("anything", 0).await, 0x87);
    assert_eq!(client.subscribe("command///req/#", 0).await, 0x87);
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_will_is_held_to_the_acl() {
    let world = world().await;
    let will = Will { topic: "up/pump-18/forged".to_owned(), payload: b"x".to_vec(), ..Will::default() };
    for version in BOTH {
        let connect = Connect::new(version, "c").login("pump-17", "secret").will(will.clone());
        let (client, connack) = RawClient::connect(world.mqtt(), &connect).await;
        // Refused at the door, or the will is dropped when its time comes: never published.
        let accepted = connack.connack_code() == 0;
        drop(client);
        if accepted {
            let count = if version == Version::V4 { 1 } else { 2 };
            world.recorder.expect_count("disconnected", "pump-17", count).await;
        }
    }
    let mut client =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "c").login("pump-17", "secret")).await;
    assert_eq!(client.publish_acked("shared", "fence", 1).await, 0);
    world
        .recorder
        .expect_that("upstream", "pump-17", "fence", |event| event.text("payload") == "fence")
        .await;
    let forged =
        world.recorder.of("upstream", "pump-17").iter().any(|event| event.text("topic").starts_with("up/"));
    assert!(!forged, "{}", world.recorder.story());
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn one_client_id_of_two_principals_is_two_sessions() {
    let world = world().await;
    let one = Connect::new(Version::V5, "same").login("pump-17", "secret");
    let mut first = RawClient::accepted(world.mqtt(), &one).await;
    let other = Connect::new(Version::V5, "same").login("pump-18@acme", "other");
    let mut second = RawClient::accepted(world.mqtt(), &other).await;
    first.ping().await;
    second.ping().await;
    // And two client ids of one principal are one device: the second takes over.
    let third = Connect::new(Version::V5, "different").login("pump-17", "secret");
    let mut third = RawClient::accepted(world.mqtt(), &third).await;
    first.until_closed().await;
    assert_eq!(world.recorder.expect("disconnected", "pump-17").await.text("reason"), "taken-over");
    second.ping().await;
    third.ping().await;
    assert!(world.recorder.of("disconnected", "pump-18").is_empty());
    drop((second, third));
    world.close().await;
}

#[tokio::test]
async fn a_certificate_is_an_identity() {
    let pki = Pki::new();
    let by_name = pki.client("press-1");
    let by_print = pki.client("a name that nobody knows");
    let stranger = pki.client("stranger");
    let print = sha256_hex(&by_print.der);
    let devices = format!(
        "[[device]]\nid = \"press-1\"\ncertificate = \"press-1\"\npublish = [\"#\"]\n\
         [[device]]\nid = \"press-2\"\ncertificate = \"{print}\"\npublish = [\"#\"]\n"
    );
    let world = World::with(|settings| {
        settings.devices(&devices).tls(&pki).client_ca(&pki).listen(&["tls://127.0.0.1:0"])
    })
    .await;
    let address = world.gateway.mqtt("tls");
    for (identity, device) in [(&by_name, "press-1"), (&by_print, "press-2")] {
        let mut client = RawClient::open_tls(address, pki.client_config(Some(identity))).await.unwrap();
        assert_eq!(client.login(&Connect::new(Version::V5, "any")).await.connack_code(), 0);
        let event = world.recorder.expect("connected", device).await;
        assert_eq!(event.text("identifiedBy"), "certificate");
        assert_eq!(event.text("transport"), "mqtts");
        assert_eq!(client.publish_acked("t", "x", 1).await, 0);
    }
    // A certificate of the same authority that no device has.
    let mut client = RawClient::open_tls(address, pki.client_config(Some(&stranger))).await.unwrap();
    assert_ne!(client.login(&Connect::new(Version::V5, "press-1")).await.connack_code(), 0);
    // One of another authority, and none: TLS itself says no.
    let foreign = Pki::new();
    let imposter = foreign.client("press-1");
    for config in [pki.client_config(Some(&imposter)), pki.client_config(None)] {
        let Ok(mut client) = RawClient::open_tls(address, config).await else { continue };
        // TLS 1.3 lets a client believe that it is through before the server has looked.
        let _ = client.try_send(&Connect::new(Version::V5, "press-1").encode()).await;
        assert!(client.until_closed().await.is_empty(), "no CONNACK");
    }
    world
        .recorder
        .find(PATIENCE * 2, "tls-failed", |e| e.kind() == "refused" && e.text("cause") == "tls-failed")
        .await;
    world.close().await;
}

fn sha256_hex(der: &[u8]) -> String {
    let digest = rustls::crypto::ring::default_provider()
        .cipher_suites
        .iter()
        .find_map(|suite| match suite {
            rustls::SupportedCipherSuite::Tls13(suite) if suite.common.hash_provider.output_len() == 32 => {
                Some(suite.common.hash_provider.hash(der))
            }
            _ => None,
        })
        .expect("a suite with SHA-256");
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_broken_file_of_devices_changes_nothing() {
    let world = world().await;
    let connect = Connect::new(Version::V5, "c").login("pump-17", "secret");
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    world.gateway.edit_devices("[[device]]\nid = ");
    // The gateway says that it cannot read it, and goes on with what it knows.
    world.gateway.process().logged("devices.toml", PATIENCE).await;
    client.ping().await;
    let mut again = RawClient::accepted(world.mqtt(), &connect).await;
    again.ping().await;
    world.assert_sound(Open::Some).await;
    drop((client, again));
    world.close().await;
}

#[tokio::test]
async fn the_gateway_does_not_start_with_a_file_that_it_cannot_trust() {
    let nats = NatsServer::start().await;
    let broken = [
        ("not TOML", "[[device]\n"),
        ("no id", "[[device]]\npassword = \"plain:x\"\n"),
        ("an unknown key", "[[device]]\nid = \"a\"\npasword = \"plain:x\"\n"),
        (
            "one device twice",
            "[[device]]\nid = \"a\"\npassword = \"plain:x\"\n[[device]]\nid = \"a\"\npassword = \"plain:y\"\n",
        ),
        ("a bad filter", "[[device]]\nid = \"a\"\npassword = \"plain:x\"\npublish = [\"a/#/b\"]\n"),
        ("a bare password", "[[device]]\nid = \"a\"\npassword = \"hunter2\"\n"),
    ];
    for (what, devices) in broken {
        let (status, log) = Gateway::builder().nats(&nats).devices(devices).refuses().await;
        assert!(!status.success(), "{what}");
        assert!(log.contains("devices.toml"), "{what}: the message names the file: {log}");
        assert!(!log.contains("hunter2"), "{what}: no secret in a message: {log}");
    }
}

#[tokio::test]
async fn argon2_passwords_work() {
    // "secret", hashed by another implementation with small parameters and a fixed salt.
    let hash = "$argon2id$v=19$m=512,t=1,p=1$bGFuZGZhbGwtc2FsdA$lU9ivN+iW80xfOJ1P201nyxg1pCgYfmluxm40i5wPtQ";
    let devices = format!("[[device]]\nid = \"d\"\npassword = \"{hash}\"\npublish = [\"#\"]\n");
    let world = World::with(|settings| settings.devices(&devices)).await;
    let mut client =
        RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "d").login("d", "secret")).await;
    client.ping().await;
    let (_, connack) =
        RawClient::connect(world.mqtt(), &Connect::new(Version::V5, "d").login("d", "Secret")).await;
    assert_eq!(connack.connack_code(), 0x86);
    drop(client);
    world.close().await;
}

#[tokio::test]
async fn a_subscription_that_is_no_longer_allowed_delivers_nothing() {
    const ALLOWED: &str =
        "[[device]]\nid = \"d\"\npassword = \"plain:p\"\nsubscribe = [\"command/#\", \"plans/#\"]\n";
    const TAKEN_AWAY: &str = "[[device]]\nid = \"d\"\npassword = \"plain:p\"\nsubscribe = [\"command/#\"]\n";
    let world = World::with(|settings| settings.devices(ALLOWED)).await;
    let connect = Connect::new(Version::V5, "c").login("d", "p").persistent(3600);
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.subscribe("plans/#", 1).await, 1);
    drop(client);
    world.recorder.expect("disconnected", "d").await;
    // The right is taken away while the device is away; its session remembers the subscription (C8).
    world.gateway.edit_devices(TAKEN_AWAY);
    // Read, and applied to whoever is there: a session that begins in between may still be ended by it.
    world.gateway.process().logged("the devices have changed", PATIENCE).await;
    let (mut client, _) = RawClient::connect(world.mqtt(), &connect).await;
    // A subscription that is allowed shows that the device is served, by the new file.
    assert_eq!(client.subscribe("plans/secret", 1).await, 0x87, "the new file is in force");
    let reply = world.command("d", "secret", &[("Topic", "plans/secret")]).await;
    assert_ne!(reply["outcome"], "delivered", "{reply}");
    client.ping().await;
    drop(client);
    world.close().await;
}

/// Nobody's presence rests on a refusal: those have a stream of their own, and what becomes of it is no device's trouble.
#[tokio::test]
async fn refusals_stand_in_a_stream_of_their_own_and_hold_up_no_device() {
    let world = world().await;
    let stranger = Connect::new(Version::V5, "c").login("nobody", "secret");
    drop(RawClient::connect(world.mqtt(), &stranger).await);
    stored_when(&world.nats, ACCESS, "a refusal", |events| events.iter().any(|one| one.kind() == "refused"))
        .await;
    let ledger = stored(&world.nats, CONNECTIVITY).await;
    assert!(ledger.iter().all(|event| event.kind() != "refused"), "{ledger:?}");
    let context = async_nats::jetstream::new(world.nats.client().await);
    context.delete_stream(ACCESS).await.expect("it was there");
    for _ in 0..3 {
        drop(RawClient::connect(world.mqtt(), &stranger).await);
    }
    let connect = Connect::new(Version::V5, "c").login("pump-17", "secret");
    let mut client = RawClient::accepted(world.mqtt(), &connect).await;
    assert_eq!(client.publish_acked("up/pump-17/x", b"stored", 1).await, 0);
    world.recorder.expect("upstream", "pump-17").await;
    drop(client);
    world.close().await;
}
