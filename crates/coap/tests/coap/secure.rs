//! The same under DTLS: presence from the handshake on, and whose channel is whose.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use landfall_testkit::coap::{CoapClient, code, option};
use landfall_testkit::dtls::{DtlsClient, End, Secret};
use landfall_testkit::pki::Pki;
use landfall_testkit::wait::{PATIENCE, eventually};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use crate::world::{TestAuth, World, post};

fn devices() -> TestAuth {
    TestAuth::knowing(&[("d", "secret"), ("e", "other")])
}

async fn world() -> World {
    World::with(devices(), |_, _| {}).await
}

/// One whose devices are soon idle.
async fn impatient(idle: Duration) -> World {
    World::with(devices(), |_, hub| hub.idle_timeout = idle).await
}

async fn is_closed(device: &mut CoapClient) {
    assert_eq!(device.channel().ended().await, End::Closed);
}

/// Silence has ended their sessions, which may be told together.
async fn are_idle(world: &World, devices: [&str; 2]) {
    let idle = async || devices.iter().all(|device| world.peer(device).is_none()).then_some(());
    eventually(PATIENCE, "they are idle", idle).await;
}

#[tokio::test]
async fn the_handshake_begins_the_session_and_a_request_needs_no_name() {
    let mut world = world().await;
    let mut device = world.on_channel("d@acme", "secret").await;
    let connected = world.told("connected d").await;
    for (name, value) in [
        ("tenant", "acme"),
        ("transport", "coaps"),
        ("protocol", "CoAP"),
        ("remoteId", "d@acme"),
        ("identifiedBy", "psk"),
    ] {
        assert_eq!(connected[name], value, "{connected}");
    }
    assert_eq!(connected["remoteAddress"], device.local_addr().to_string());
    assert_eq!(connected["inferred"], false, "a handshake says that it is there");
    assert_eq!(device.post("a", &[], "1").await.code, code(2, 4));
    assert_eq!(device.post("b", &["ep=d", "t=acme", "key=wrong"], "2").await.code, code(2, 4));
    assert_eq!(world.story(), ["connected d", "upstream d a", "upstream d b"]);
    assert_eq!(world.events()[1]["transport"], "coaps");
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 1, "the channel is proof enough");
    world.close().await;
}

#[tokio::test]
async fn whoever_names_another_is_refused() {
    let mut world = world().await;
    let mut device = world.on_channel("d", "secret").await;
    for queries in [&["ep=e"][..], &["ep=e", "key=other"], &["ep=d", "t=acme"], &["t=acme"]] {
        assert_eq!(device.post("a", queries, "").await.code, code(4, 3), "{queries:?}");
    }
    let refused = world.told("refused d not-authorized").await;
    assert_eq!(refused["transport"], "coaps");
    assert_eq!(device.post("a", &["ep=d", "t=default"], "").await.code, code(2, 4));
    assert_eq!(world.story(), ["connected d", "refused d not-authorized", "upstream d a"]);
    world.close().await;
}

#[tokio::test]
async fn the_acl_is_the_principals() {
    let auth = devices().publish("allowed/#");
    let mut world = World::with(auth, |_, _| {}).await;
    let mut device = world.on_channel("d", "secret").await;
    assert_eq!(device.post("allowed/a", &[], "").await.code, code(2, 4));
    assert_eq!(device.post("b", &[], "").await.code, code(4, 3));
    world.told("refused d not-authorized").await;
    world.close().await;
}

#[tokio::test]
async fn commands_come_by_observe_and_by_waiting() {
    let mut world = world().await;
    let mut device = world.on_channel("d", "secret").await;
    let (observation, first) = device.observe("command", &[]).await;
    assert_eq!(first.code, code(2, 5));
    world.command("d", "c1", "answered");
    let note = device.notification(&observation).await;
    assert_eq!(note.payload, b"{\"now\":1}");
    assert_eq!(device.post("command/res/c1", &["status=200"], "done").await.code, code(2, 4));
    assert_eq!(world.told("downstream d answered").await["response"], "done");
    device.cancel(&observation).await;
    world.command("d", "c2", "delivered");
    assert_eq!(device.get("command", &["ttd=30"]).await.payload, b"{\"now\":1}");
    world.told("downstream d delivered").await;
    world.close().await;
}

#[tokio::test]
async fn close_notify_ends_the_session_and_all_that_the_machine_kept() {
    let mut world = world().await;
    let mut device = world.on_channel("d", "secret").await;
    let (_, _) = device.observe("command", &[]).await;
    assert_eq!(world.metric("landfall_coap_observations"), 1.0);
    device.channel().close().await;
    let ended = world.told("disconnected d secure-channel-closed").await;
    assert_eq!((&ended["initiator"], &ended["inferred"]), (&"device".into(), &false.into()));
    let gone = async || (world.metric("landfall_coap_observations") == 0.0).then_some(());
    eventually(PATIENCE, "its observation is gone", gone).await;
    assert_eq!((world.metric("landfall_dtls_sessions"), world.metric("landfall_coap_peers")), (0.0, 0.0));
    world.close().await;
}

#[tokio::test]
async fn silence_ends_presence_and_the_next_word_begins_it_anew_on_the_same_channel() {
    let mut world = impatient(Duration::from_millis(300)).await;
    let mut device = world.on_channel("d", "secret").await;
    assert_eq!(device.post("a", &[], "").await.code, code(2, 4));
    let ended = world.told("disconnected d idle-timeout").await;
    assert_eq!(ended["inferred"], true);
    are_idle(&world, ["d", "e"]).await;
    let before = world.count("connected d");
    assert_eq!(device.post("b", &["lt=3600"], "").await.code, code(2, 4));
    assert_eq!(world.count("connected d"), before + 1);
    let again = world.events().into_iter().rfind(|event| event["type"] == "connected").unwrap();
    assert_eq!((&again["keepAliveMs"], &again["remoteId"]), (&3_600_000.into(), &"d".into()));
    assert_eq!(again["inferred"], true);
    let established = "landfall_dtls_handshakes_established_total{suite=\"TLS_PSK_WITH_AES_128_CCM_8\"}";
    assert_eq!(world.metric(established), 1.0);
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 1);
    world.close().await;
}

#[tokio::test]
async fn what_asks_for_nothing_is_a_word_too() {
    let mut world = impatient(Duration::from_millis(300)).await;
    let (mut pings, mut looks) =
        (world.on_channel("d", "secret").await, world.on_channel("e", "other").await);
    are_idle(&world, ["d", "e"]).await;
    assert!(pings.ping().await);
    assert_eq!(looks.get(".well-known/core", &[]).await.code, code(2, 5));
    for device in ["connected d", "connected e"] {
        let again = async || (world.count(device) == 2).then_some(());
        eventually(PATIENCE, "it is there again", again).await;
    }
    world.close().await;
}

#[tokio::test]
async fn a_newer_handshake_takes_over_and_the_older_channel_is_closed() {
    let mut world = world().await;
    let mut old = world.on_channel("d", "secret").await;
    assert_eq!(old.post("a", &[], "").await.code, code(2, 4));
    let mut new = world.on_channel("d", "secret").await;
    is_closed(&mut old).await;
    assert_eq!(new.post("b", &[], "").await.code, code(2, 4));
    let story = ["connected d", "upstream d a", "disconnected d taken-over", "connected d", "upstream d b"];
    assert_eq!(world.story(), story);
    assert_eq!(world.peer("d").unwrap().remote_address(), new.local_addr());
    world.close().await;
}

#[tokio::test]
async fn a_newer_handshake_at_the_same_address_takes_over_too() {
    let mut world = world().await;
    let mut old = world.on_channel("d", "secret").await;
    assert_eq!(old.post("a", &[], "").await.code, code(2, 4));
    let mut again = old.channel().beside(&Secret::psk("d", "secret"));
    again.handshake().await.unwrap();
    let mut new = world.over(again);
    assert_eq!(new.post("b", &[], "").await.code, code(2, 4));
    let mut other = new.channel().beside(&Secret::psk("e", "other"));
    other.handshake().await.unwrap();
    assert_eq!(world.over(other).post("c", &[], "").await.code, code(2, 4));
    let story = world.story();
    assert_eq!(
        &story[..5],
        ["connected d", "upstream d a", "disconnected d taken-over", "connected d", "upstream d b"]
    );
    // Whose channel another device has taken has not said that it leaves: its silence will tell.
    assert_eq!(&story[5..], ["connected e", "upstream e c"]);
    assert!(world.peer("d").is_some());
    world.close().await;
}

#[tokio::test]
async fn what_comes_late_from_an_older_channel_ends_nothing_and_takes_nothing_back() {
    let mut world = impatient(Duration::from_millis(500)).await;
    let (mut one, mut two) = (world.on_channel("d", "secret").await, world.on_channel("e", "other").await);
    are_idle(&world, ["d", "e"]).await;
    // Both speak to another socket since; what they had is still open.
    world.secure = world.listen("dtls://127.0.0.1:0", 1).await;
    let (mut newer_one, mut newer_two) =
        (world.on_channel("d", "secret").await, world.on_channel("e", "other").await);
    assert_eq!(newer_one.post("a", &["lt=3600"], "").await.code, code(2, 4));
    assert_eq!(newer_two.post("a", &["lt=3600"], "").await.code, code(2, 4));
    let sessions = ["d", "e"].map(|device| world.peer(device).unwrap().id());
    one.channel().close().await;
    assert_eq!(two.post("b", &[], "").await.code, code(5, 3), "it is told to come again");
    is_closed(&mut two).await;
    let closed = async || (world.metric("landfall_dtls_sessions") == 2.0).then_some(());
    eventually(PATIENCE, "both are closed", closed).await;
    assert_eq!(newer_one.post("c", &[], "").await.code, code(2, 4));
    assert_eq!(newer_two.post("c", &[], "").await.code, code(2, 4));
    assert_eq!(["d", "e"].map(|device| world.peer(device).unwrap().id()), sessions);
    world.close().await;
}

#[tokio::test]
async fn a_device_moves_between_plain_and_secure() {
    let mut world = world().await;
    let (mut plain, mut secure) = (world.client().await, world.on_channel("d", "secret").await);
    assert_eq!(secure.post("a", &[], "").await.code, code(2, 4));
    assert_eq!(plain.post("b", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    is_closed(&mut secure).await;
    let mut secure = world.on_channel("d", "secret").await;
    assert_eq!(secure.post("c", &[], "").await.code, code(2, 4));
    let story = [
        "connected d",
        "upstream d a",
        "disconnected d taken-over",
        "connected d",
        "upstream d b",
        "disconnected d taken-over",
        "connected d",
        "upstream d c",
    ];
    assert_eq!(world.story(), story);
    let transports: Vec<_> = world.events().iter().map(|event| event["transport"].clone()).collect();
    assert_eq!(transports, ["coaps", "coaps", "coaps", "coap", "coap", "coap", "coaps", "coaps"]);
    world.close().await;
}

#[tokio::test]
async fn an_operators_end_closes_the_channel() {
    let mut world = world().await;
    let mut device = world.on_channel("d", "secret").await;
    assert_eq!(device.post("a", &[], "").await.code, code(2, 4));
    assert_eq!(world.hub.kick(&"default".parse().unwrap(), &"d".parse().unwrap()), 1);
    is_closed(&mut device).await;
    let mut other = world.on_channel("e", "other").await;
    assert_eq!(other.post("a", &[], "").await.code, code(2, 4));
    assert_eq!(world.hub.revoke(|_, device, _| device.as_str() != "e"), 1);
    is_closed(&mut other).await;
    let ends = ["connected d", "upstream d a", "disconnected d kicked"];
    assert_eq!(&world.story()[..3], ends);
    world.told("disconnected e credentials-revoked").await;
    world.close().await;
}

#[tokio::test]
async fn what_was_proven_is_looked_at_again_when_presence_begins_anew() {
    let mut world = impatient(Duration::from_millis(300)).await;
    let mut device = world.on_channel("d", "secret").await;
    world.told("disconnected d idle-timeout").await;
    world.auth.is_withdrawn.store(true, Ordering::SeqCst);
    assert_eq!(device.post("a", &[], "").await.code, code(4, 1));
    is_closed(&mut device).await;
    let refused = world.told("refused bad-credentials").await;
    assert_eq!(refused["transport"], "coaps");
    assert_eq!(world.count("connected d"), 1);
    world.close().await;
}

#[tokio::test]
async fn a_registration_is_its_channels() {
    let mut world = world().await;
    let mut device = world.on_channel("d", "secret").await;
    let (mut other, mut plain) = (world.on_channel("e", "other").await, world.client().await);
    let made = device.post("rd", &["lt=600"], "").await;
    assert_eq!(made.code, code(2, 1));
    let name = made.joined(option::LOCATION_PATH, "/");
    for stranger in [&mut other, &mut plain] {
        assert_eq!(stranger.post(&name, &[], "").await.code, code(4, 4));
        assert_eq!(stranger.delete(&name, &[]).await.code, code(4, 4));
    }
    assert_eq!(device.post(&name, &["ep=e"], "").await.code, code(4, 3));
    assert_eq!(device.post(&name, &[], "").await.code, code(2, 4));
    assert_eq!(device.delete(&name, &[]).await.code, code(2, 2));
    world.told("disconnected d deregistered").await;
    // The channel stays, and the name is nobody's: but whoever asks is there.
    assert_eq!(device.post(&name, &[], "").await.code, code(4, 4));
    eventually(PATIENCE, "it is there again", async || (world.count("connected d") == 2).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn the_gateways_end_is_told_after_the_last_answers() {
    let mut world = world().await;
    let (mut waiting, mut idle) =
        (world.on_channel("d", "secret").await, world.on_channel("e", "other").await);
    let asking = async {
        let answer = waiting.get("command", &["ttd=60"]).await;
        is_closed(&mut waiting).await;
        answer.code
    };
    let stopping = async {
        let waits = async || (world.metric("landfall_coap_waiting") == 1.0).then_some(());
        eventually(PATIENCE, "it waits", waits).await;
        world.stop();
        is_closed(&mut idle).await;
    };
    let (answer, ()) = tokio::join!(asking, stopping);
    assert_eq!(answer, code(2, 5));
    world.close().await;
}

/// A certificate for the gateway, by which nobody proves anything.
async fn certified(auth: TestAuth) -> (World, Secret) {
    let pki = Pki::new();
    let server = pki.server();
    let chain =
        CertificateDer::pem_slice_iter(server.certificate_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let certificate = Arc::new(CertifiedKey::new(chain, key));
    let world = World::offering(auth, |_, _| {}, Some(certificate)).await;
    (world, Secret::certificate(&pki.client("nobody")))
}

#[tokio::test]
async fn whoever_proves_nothing_shows_a_key_in_the_channel() {
    let (mut world, nobody) = certified(devices()).await;
    let channel = DtlsClient::connect(world.secure, &nobody).await;
    let mut device = world.over(channel);
    assert_eq!(device.post("a", &[], "").await.code, code(4, 1));
    assert_eq!(device.post("a", &["ep=d", "key=wrong"], "").await.code, code(4, 1));
    assert_eq!(device.post("a", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    assert_eq!(device.post("b", &["key=secret"], "").await.code, code(2, 4), "the channel is known");
    let connected = world.told("connected d").await;
    assert_eq!((&connected["transport"], &connected["identifiedBy"]), (&"coaps".into(), &"password".into()));
    // Two devices on one channel, and one of them on another since: as over plain UDP.
    assert_eq!(device.post("a", &["ep=e", "key=other"], "").await.code, code(2, 4));
    let channel = DtlsClient::connect(world.secure, &nobody).await;
    let mut elsewhere = world.over(channel);
    assert_eq!(elsewhere.post("c", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    world.told("moved d").await;
    device.channel().close().await;
    world.told("disconnected e secure-channel-closed").await;
    assert_eq!(elsewhere.post("d", &["key=secret"], "").await.code, code(2, 4));
    assert_eq!(world.count("connected d"), 1);
    world.close().await;
}

#[tokio::test]
async fn a_channel_is_known_and_its_address_is_not() {
    let (mut world, nobody) = certified(TestAuth::open()).await;
    let channel = DtlsClient::connect(world.secure, &nobody).await;
    let mut device = world.over(channel);
    assert_eq!(device.post("a", &["ep=d"], "").await.code, code(2, 4));
    assert_eq!(device.post("b", &[], "").await.code, code(2, 4));
    let mut again = device.channel().beside(&nobody);
    again.handshake().await.unwrap();
    let mut again = world.over(again);
    assert_eq!(again.post("c", &[], "").await.code, code(4, 1));
    assert_eq!(again.post("c", &["ep=d"], "").await.code, code(2, 4));
    world.close().await;
}

#[tokio::test]
async fn nothing_begins_on_a_channel_that_is_over_by_then() {
    let go = Arc::new(Notify::new());
    let (mut world, nobody) = certified(devices().slow("d", &go)).await;
    let channel = DtlsClient::connect(world.secure, &nobody).await;
    let mut device = world.over(channel);
    let message = post(&mut device, "a", &["ep=d", "key=secret"]);
    device.send(&message).await;
    let waits = async || (world.metric("landfall_coap_authenticating") == 1.0).then_some(());
    eventually(PATIENCE, "it waits for the authenticator", waits).await;
    device.channel().close().await;
    let closed = async || (world.metric("landfall_dtls_sessions") == 0.0).then_some(());
    eventually(PATIENCE, "its end", closed).await;
    go.notify_one();
    let done = async || (world.metric("landfall_coap_authenticating") == 0.0).then_some(());
    eventually(PATIENCE, "the answer", done).await;
    assert!(world.story().is_empty() && world.peer("d").is_none(), "{:?}", world.story());
    world.close().await;
}

#[tokio::test]
async fn a_proven_channel_and_a_key_take_over_from_each_other() {
    let (mut world, nobody) = certified(devices()).await;
    let mut proven = world.on_channel("d", "secret").await;
    assert_eq!(proven.post("a", &[], "").await.code, code(2, 4));
    let channel = DtlsClient::connect(world.secure, &nobody).await;
    let mut by_key = world.over(channel);
    assert_eq!(by_key.post("b", &["ep=d", "key=secret"], "").await.code, code(2, 4));
    is_closed(&mut proven).await;
    let mut proven = world.on_channel("d", "secret").await;
    assert_eq!(proven.post("c", &[], "").await.code, code(2, 4));
    let ends = world.story().into_iter().filter(|words| words.starts_with("disconnected"));
    assert_eq!(ends.collect::<Vec<_>>(), ["disconnected d taken-over", "disconnected d taken-over"]);
    world.close().await;
}

#[tokio::test]
async fn message_ids_are_a_channels_own() {
    let mut world = world().await;
    let mut old = world.on_channel("d", "secret").await;
    let message = post(&mut old, "a", &[]);
    old.send(&message).await;
    assert_eq!(old.receive().await.code, code(2, 4));
    let mut again = old.channel().beside(&Secret::psk("d", "secret"));
    again.handshake().await.unwrap();
    let mut new = world.over(again);
    new.send(&message).await;
    assert_eq!(new.receive().await.code, code(2, 4));
    assert_eq!(world.count("upstream d a"), 2, "it is another message");
    assert_eq!(world.metric("landfall_coap_duplicates_total"), 0.0);
    new.send(&message).await;
    assert_eq!(new.receive().await.code, code(2, 4));
    assert_eq!((world.count("upstream d a"), world.metric("landfall_coap_duplicates_total")), (2, 1.0));
    world.close().await;
}

#[tokio::test]
async fn what_stands_behind_the_end_of_its_channel_is_nobodys() {
    let mut world = impatient(Duration::from_millis(300)).await;
    let mut device = world.on_channel("d", "secret").await;
    world.told("disconnected d idle-timeout").await;
    world.auth.is_withdrawn.store(true, Ordering::SeqCst);
    let (first, second) = (post(&mut device, "a", &[]), post(&mut device, "a", &["ep=e", "key=other"]));
    let channel = device.channel();
    let datagram = [channel.sealed(&first.encode()), channel.sealed(&second.encode())].concat();
    channel.send_datagram(&datagram).await;
    is_closed(&mut device).await;
    assert_eq!(world.story(), ["connected d", "disconnected d idle-timeout", "refused bad-credentials"]);
    world.close().await;
}

#[tokio::test]
async fn channels_of_two_sockets_are_told_apart() {
    let mut world = world().await;
    let elsewhere = world.listen("dtls://127.0.0.1:0", 1).await;
    // Both are the first of their socket, and so have the same number.
    let mut old = world.on_channel("d", "secret").await;
    let secret = Secret::psk("d", "secret");
    let mut new = DtlsClient::connect(elsewhere, &secret).await;
    is_closed(&mut old).await;
    new.send(&post(&mut old, "a", &[]).encode()).await;
    assert!(new.receive().await.is_some());
    let mut other = new.beside(&Secret::psk("e", "other"));
    new.close().await;
    world.told("disconnected d secure-channel-closed").await;
    other.handshake().await.unwrap();
    assert_eq!(world.over(other).post("b", &[], "").await.code, code(2, 4));
    let story = ["connected d", "disconnected d taken-over", "connected d", "upstream d a"];
    assert_eq!(&world.story()[..4], story);
    world.close().await;
}

#[tokio::test]
async fn a_channel_is_one_peer_whichever_of_our_addresses_it_speaks_to() {
    let mut world = world().await;
    world.secure = world.listen("dtls://0.0.0.0:0", 1).await;
    world.secure.set_ip([127, 0, 0, 1].into());
    let mut device = world.on_channel("d", "secret").await;
    let (observation, _) = device.observe("command", &[]).await;
    let mut other = world.secure;
    other.set_ip([127, 0, 0, 2].into());
    device.redirect(other).await;
    assert_eq!(device.post("a", &[], "").await.code, code(2, 4));
    world.command("d", "c1", "acknowledged");
    device.notification(&observation).await;
    world.told("downstream d acknowledged").await;
    assert_eq!(world.metric("landfall_coap_peers"), 1.0);
    world.close().await;
}
