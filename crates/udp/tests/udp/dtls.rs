//! The same under DTLS: presence from the handshake on, and whose channel is whose.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use serde_json::Value;

use crate::client::Client;
use crate::world::{Device, KEY, World, secure_world, secure_world_with, world};

fn ends(world: &World) -> Vec<Value> {
    world.events("disconnected").iter().map(|end| end["reason"].clone()).collect()
}

fn outcomes(world: &World) -> Vec<String> {
    let word = |e: &Value| format!("{} {}", e["commandId"], e["outcome"]).replace('"', "");
    world.events("downstream").iter().map(word).collect()
}

/// A certificate for the gateway, by which nobody proves anything.
fn certificate() -> Arc<CertifiedKey> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(vec![own.cert.der().clone()], key))
}

async fn certified_world() -> World {
    secure_world_with(|_| {}, |_| {}, Some(certificate())).await
}

#[tokio::test]
async fn the_handshake_begins_the_session() {
    let world = secure_world().await;
    let client = Client::psk(world.secure, "pump-17@acme").await;
    world.until("it is there", |world| world.events("connected").len() == 1).await;
    let connected = &world.events("connected")[0];
    for (name, value) in [
        ("endpointId", "pump-17"),
        ("tenant", "acme"),
        ("transport", "dtls"),
        ("protocol", "UDP"),
        ("remoteId", "pump-17@acme"),
        ("identifiedBy", "psk"),
    ] {
        assert_eq!(connected[name], value, "{connected}");
    }
    assert_eq!(connected["remoteAddress"], client.socket.local_addr().unwrap().to_string());
    assert_eq!((&connected["inferred"], &connected["keepAliveMs"]), (&false.into(), &77_000.into()));
}

#[tokio::test]
async fn a_payload_needs_no_line_and_may_have_one() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.send("21.5").await;
    client.send("LF2 is a payload\n").await;
    assert_eq!(client.ask("LF1 a seq=7 ack\n22.5").await, "LF1 ack seq=7");
    assert_eq!(client.ask("LF1 a@default seq=8 ack\n23.5").await, "LF1 ack seq=8");
    // What a line shows as a proof is not looked at; a number proves nothing, and so none is too low.
    assert_eq!(client.ask("LF1 a key=wrong ack").await, "LF1 ack");
    let sig = "ab".repeat(32);
    for seq in [3, 2] {
        let ack = client.ask(format!("LF1 a seq={seq} sig={sig} ack\n{seq}")).await;
        assert_eq!(ack, format!("LF1 ack seq={seq}"));
    }
    assert_eq!(world.payloads(), ["21.5", "LF2 is a payload\\n", "22.5", "23.5", "3", "2"]);
    assert_eq!((world.events("connected").len(), world.metric("landfall_udp_signed_devices")), (1, 0));
    assert!(world.events("upstream").iter().all(|event| event["transport"] == "dtls"));
}

#[tokio::test]
async fn an_ack_leaves_on_the_channel_after_the_store() {
    let world = secure_world().await;
    world.bus.hold_connectivity();
    let mut client = Client::psk(world.secure, "a").await;
    client.send("LF1 a seq=1 ack").await;
    world.until("it waits for the beginning", |world| world.metric("landfall_udp_unstored") == 1).await;
    world.bus.release(true);
    assert_eq!(client.receive().await, "LF1 ack seq=1");
    world.bus.set_away(true);
    client.send("LF1 a seq=2 ack\n2").await;
    world.until("it waits for the store", |world| world.metric("landfall_udp_unstored") == 1).await;
    world.bus.set_away(false);
    assert_eq!(client.receive().await, "LF1 ack seq=2");
    world.bus.refuse_next();
    client.send("LF1 a seq=3 ack\nlost").await;
    client.fence("a").await;
    assert_eq!(world.payloads(), ["2"]);
}

#[tokio::test]
async fn silence_ends_presence_and_the_next_word_begins_it_anew_without_a_handshake() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.ask("LF1 a hb=1 ack").await;
    world.until("the end", |world| ends(world) == ["idle-timeout"]).await;
    assert!(world.events("disconnected")[0]["durationMs"].as_u64().unwrap() >= 1_500);
    world.command("a", "c1", "delivered", b"");
    client.send("back").await;
    assert_eq!(client.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
    assert_eq!(client.ask("LF1 a ack\nagain").await, "LF1 ack");
    assert_eq!((world.payloads(), world.events("connected").len()), (vec!["back".into(), "again".into()], 2));
    let again = &world.events("connected")[1];
    assert_eq!((&again["remoteId"], &again["identifiedBy"]), (&"a".into(), &"psk".into()), "{again}");
    assert_eq!(again["inferred"], true, "no handshake has said so");
}

#[tokio::test]
async fn every_word_is_a_sign_of_life() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.ask("LF1 a ack").await;
    for word in ["LF1 a", "", "x", "LF1 a got=nothing"] {
        let before = world.last_seen("a");
        let mut seen = before;
        // Until the clocks have moved on by more than what two of them differ by.
        for _ in 0..5_000 {
            client.send(word).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            seen = world.last_seen("a");
            if seen > before + 1 {
                break;
            }
        }
        assert!(seen > before + 1, "{word:?}");
    }
    assert!(world.payloads().iter().all(|payload| payload == "x"), "an empty one is no message");
    client.ask("LF1 a sleep=3600 ack").await;
    world.until("it sleeps", |world| world.events("dormant").len() == 1).await;
    client.send("good morning").await;
    world.until("it is awake", |world| world.events("awake").len() == 1).await;
}

#[tokio::test]
async fn a_goodbye_ends_presence_and_leaves_the_channel() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    assert_eq!(client.ask("LF1 a seq=1 bye ack\nlast words").await, "LF1 ack seq=1");
    assert_eq!(client.ask("LF1 a seq=2 bye ack").await, "LF1 ack seq=2");
    assert_eq!((ends(&world), world.payloads()), (vec!["client-closed".into()], vec!["last words".into()]));
    assert_eq!(client.ask("LF1 a seq=3 ack\nback").await, "LF1 ack seq=3");
    assert_eq!(world.events("connected").len(), 2);
}

#[tokio::test]
async fn a_word_that_comes_with_the_goodbye_begins_presence_anew() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.fence("a").await;
    // The gateway finds both at once, before it hears that the first has ended the session.
    client.send("LF1 a bye\n1").await;
    client.send("2").await;
    assert_eq!(client.ask("LF1 a ack\n3").await, "LF1 ack");
    assert_eq!(client.ask("LF1 a ack\n4").await, "LF1 ack");
    assert_eq!(world.payloads(), ["1", "2", "3", "4"]);
    assert_eq!((ends(&world), world.events("connected").len()), (vec!["client-closed".into()], 2));
}

#[tokio::test]
async fn a_command_goes_out_on_the_channel() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.fence("a").await;
    world.command("a", "c1", "answered", b"now\n!");
    assert_eq!(client.receive().await, "LF1 cmd id=c1 name=re%20boot\nnow\n!");
    let ack = client.ask("LF1 a got=c1 res=c1 status=200 seq=4 ack\ndone").await;
    assert_eq!(ack, "LF1 ack seq=4");
    assert_eq!(outcomes(&world), ["c1 answered"]);
    // What one record can carry, and one byte more.
    let line = "LF1 cmd id=c2 name=re%20boot\n".len();
    let largest: &'static [u8] = vec![b'x'; 16_384 - line].leak();
    world.command("a", "c2", "delivered", largest);
    assert_eq!(client.receive().await.len(), 16_384);
    let larger: &'static [u8] = vec![b'x'; 16_385 - line].leak();
    world.command("a", "c3", "delivered", larger);
    world.until("the outcomes", |world| outcomes(world).len() == 3).await;
    assert_eq!(outcomes(&world)[1..], ["c2 delivered", "c3 rejected"]);
    assert_eq!(world.events("downstream")[2]["status"], "too-large");
}

#[tokio::test]
async fn the_end_of_a_channel_ends_its_session() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.ask("LF1 a ack\n1").await;
    client.close().await;
    world.until("the end", |world| ends(world) == ["secure-channel-closed"]).await;
    let end = &world.events("disconnected")[0];
    assert_eq!((&end["initiator"], &end["inferred"]), (&"device".into(), &false.into()), "{end}");
    // One whose presence has ended before.
    let mut other = Client::psk(world.secure, "b").await;
    other.ask("LF1 b bye ack").await;
    other.close().await;
    let mut fence = Client::psk(world.secure, "c").await;
    fence.fence("c").await;
    assert_eq!(ends(&world), ["secure-channel-closed", "client-closed"]);
}

#[tokio::test]
async fn a_session_that_is_ended_for_good_takes_its_channel_with_it() {
    let world = secure_world().await;
    let mut kicked = Client::psk(world.secure, "a").await;
    kicked.fence("a").await;
    assert_eq!(world.hub.kick(&"default".parse().unwrap(), &"a".parse().unwrap()), 1);
    kicked.closed().await;
    let mut revoked = Client::psk(world.secure, "a").await;
    revoked.fence("a").await;
    assert_eq!(world.hub.revoke(|_, _, _| false), 1);
    revoked.closed().await;
    assert_eq!(ends(&world), ["kicked", "credentials-revoked"]);
    // It may come back.
    let mut back = Client::psk(world.secure, "a").await;
    back.fence("a").await;
    assert_eq!(world.hub.session_count(), 1);
}

#[tokio::test]
async fn credentials_that_were_withdrawn_in_a_silence_begin_nothing() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    client.ask("LF1 a bye ack").await;
    world.auth.holds.store(false, Ordering::SeqCst);
    client.send("LF1 a ack\nx").await;
    client.closed().await;
    world.until("the refusal is told", |world| world.refused("bad-credentials") == 1).await;
    let refused = &world.events("refused")[0];
    assert_eq!(refused["transport"], "dtls", "{refused}");
    assert_eq!((world.events("connected").len(), world.payloads().len()), (1, 0));
    // And with the handshake itself.
    Client::psk(world.secure, "a").await.closed().await;
    assert_eq!(world.events("connected").len(), 1);
}

#[tokio::test]
async fn a_channel_speaks_for_its_own_device_only() {
    let world = secure_world().await;
    let mut client = Client::psk(world.secure, "a").await;
    for word in ["LF1 b", "LF1 a@other", "LF1 b ack\nx", "LF1 b bye", "LF1 a@acme sleep=9"] {
        client.send(word).await;
    }
    for word in ["LF1 a  ack", "LF1 ", "LF1 a seq=0\nx"] {
        client.send(word).await;
    }
    client.send(vec![b'x'; 8 * 1024 + 1]).await;
    client.fence("a").await;
    let told = |world: &World| {
        ["not-authorized", "malformed", "limit-reached"].map(|cause| world.refused(cause)) == [5, 3, 1]
    };
    world.until("the refusals are told", told).await;
    assert_eq!((world.events("connected").len(), world.hub.session_count()), (1, 1));
    assert!(world.payloads().is_empty() && ends(&world).is_empty());
}

#[tokio::test]
async fn a_newer_channel_takes_over_and_the_late_end_of_the_older_one_ends_nothing() {
    let world = secure_world().await;
    let other = world.listen("dtls://127.0.0.1:0").await;
    for second in [world.secure, other] {
        let mut old = Client::psk(world.secure, "a").await;
        old.fence("a").await;
        let mut new = Client::psk(second, "a").await;
        new.ask("LF1 a ack\nnew").await;
        old.closed().await;
        old.close().await;
        let mut fence = Client::psk(world.secure, "fence").await;
        fence.fence("fence").await;
        fence.close().await;
        new.fence("a").await;
        world.command("a", "c1", "delivered", b"");
        assert_eq!(new.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
        new.close().await;
        world.until("all have left", |world| world.hub.session_count() == 0).await;
        let of_a = world.events("disconnected").into_iter().filter(|end| end["endpointId"] == "a");
        let reasons: Vec<_> = of_a.map(|end| end["reason"].clone()).collect();
        assert_eq!(reasons[reasons.len() - 2..], ["taken-over", "secure-channel-closed"]);
    }
    assert_eq!(world.payloads(), ["new", "new"]);
}

#[tokio::test]
async fn an_older_channel_takes_nothing_back() {
    let world = secure_world().await;
    let other = world.listen("dtls://127.0.0.1:0").await;
    let mut old = Client::psk(world.secure, "a").await;
    // Nothing of it is open when the newer one comes to another socket, so it stays.
    old.ask("LF1 a bye ack").await;
    let mut new = Client::psk(other, "a").await;
    new.fence("a").await;
    old.send("LF1 a ack\nlate").await;
    old.closed().await;
    new.ask("LF1 a ack\nnew").await;
    assert_eq!((world.payloads(), ends(&world)), (vec!["new".into()], vec!["client-closed".into()]));
    let closed = "landfall_udp_dropped_total{reason=\"channel-closed\"}";
    assert_eq!(world.metric(closed), 1);
}

#[tokio::test]
async fn plain_and_secure_take_over_from_each_other() {
    let world = secure_world().await;
    let plain = world.device().await;
    let mut first = Client::psk(world.secure, "a").await;
    first.ask("LF1 a ack\n1").await;
    assert_eq!(plain.ask(format!("LF1 a key={KEY} ack\n2")).await, "LF1 ack");
    first.closed().await;
    // The handshake is a word of the device.
    let mut second = Client::psk(world.secure, "a").await;
    second.ask("LF1 a ack\n3").await;
    // So is one on a channel that is still there.
    second.ask("LF1 a bye ack").await;
    plain.ask(format!("LF1 a key={KEY} ack\n4")).await;
    second.ask("LF1 a ack\n5").await;
    assert_eq!(world.payloads(), ["1", "2", "3", "4", "5"]);
    assert_eq!(ends(&world), ["taken-over", "taken-over", "client-closed", "taken-over"]);
    let transports: Vec<_> = world.events("connected").iter().map(|e| e["transport"].clone()).collect();
    assert_eq!(transports, ["dtls", "udp", "dtls", "udp", "dtls"]);
}

#[tokio::test]
async fn whoever_shakes_hands_while_nats_is_away_is_present_with_the_next_word() {
    let world = secure_world().await;
    world.bus.set_away(true);
    let mut client = Client::psk(world.secure, "a").await;
    let away = "landfall_udp_dropped_total{reason=\"away\"}";
    world.until("nothing begins", |world| world.metric(away) == 1).await;
    world.bus.set_away(false);
    assert_eq!(client.ask("LF1 a ack\nx").await, "LF1 ack");
    assert_eq!(world.story(), ["connected null", "upstream x"]);
}

#[tokio::test]
async fn without_room_for_a_session_the_channel_waits_for_one() {
    let world = secure_world_with(|hub| hub.max_sessions = 1, |_| {}, None).await;
    let mut one = Client::psk(world.secure, "a").await;
    one.fence("a").await;
    let mut two = Client::psk(world.secure, "b").await;
    world.until("the refusal is told", |world| world.refused("limit-reached") == 1).await;
    one.ask("LF1 a bye ack").await;
    assert_eq!(two.ask("LF1 b ack\nx").await, "LF1 ack");
}

#[tokio::test]
async fn a_defect_that_one_handshake_meets_costs_nobody_else() {
    let world = secure_world().await;
    let mut other = Client::psk(world.secure, "b").await;
    other.fence("b").await;
    *world.auth.breaks.lock() = "still_holds";
    let mut client = Client::psk(world.secure, "a").await;
    let panicked = "landfall_udp_dropped_total{reason=\"panicked\"}";
    world.until("it met the defect", |world| world.metric(panicked) == 1).await;
    *world.auth.breaks.lock() = "";
    other.fence("b").await;
    client.ask("LF1 a ack\nx").await;
}

#[tokio::test]
async fn a_gateway_that_drains_says_its_last_acks_and_closes_every_channel() {
    let world = secure_world().await;
    let (mut one, mut two) = (Client::psk(world.secure, "a").await, Client::psk(world.secure, "b").await);
    one.fence("a").await;
    two.fence("b").await;
    world.bus.set_away(true);
    one.send("LF1 a seq=1 ack\nlast").await;
    world.until("it waits for the store", |world| world.metric("landfall_udp_unstored") == 1).await;
    let asked = async {
        world.bus.set_away(false);
        assert_eq!(one.receive().await, "LF1 ack seq=1");
        one.closed().await;
        two.closed().await;
    };
    let (drained, ()) = tokio::join!(world.scope.drain(Duration::from_secs(10)), asked);
    assert!(drained.is_clean());
}

#[tokio::test]
async fn on_a_channel_that_proves_nothing_a_line_does() {
    let world = certified_world().await;
    let mut client = Client::nobody(world.secure).await;
    client.send("no line").await;
    client.send("LF1 a key=wrong ack").await;
    assert_eq!(client.ask(format!("LF1 a key={KEY} seq=1 ack\n1")).await, "LF1 ack seq=1");
    assert_eq!(client.ask(format!("LF1 a key={KEY} seq=2 ack\n2")).await, "LF1 ack seq=2");
    assert_eq!(world.auth.asked.load(Ordering::SeqCst), 2, "the wrong one, and once for the session");
    client.send("LF1 a key=wrong ack\nx").await;
    client.send("LF1 a ack\nx").await;
    assert_eq!(client.ask(format!("LF1 a key={KEY} seq=3 ack\n3")).await, "LF1 ack seq=3");
    assert_eq!(world.payloads(), ["1", "2", "3"]);
    let connected = &world.events("connected")[0];
    for (name, value) in [("transport", "dtls"), ("remoteId", "a"), ("identifiedBy", "password")] {
        assert_eq!(connected[name], value, "{connected}");
    }
    world.until("the refusals are told", |world| world.refused("malformed") == 1).await;
    world.until("the refusals are told", |world| world.refused("bad-credentials") == 3).await;
    assert!(world.events("refused").iter().all(|refused| refused["transport"] == "dtls"));
    world.command("a", "c1", "delivered", b"");
    assert_eq!(client.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
    client.close().await;
    world.until("the end", |world| ends(world) == ["secure-channel-closed"]).await;
}

#[tokio::test]
async fn whoever_has_left_while_the_authenticator_thought_begins_nothing() {
    let world = certified_world().await;
    world.auth.answers.send_replace(false);
    let mut client = Client::nobody(world.secure).await;
    client.send(format!("LF1 a key={KEY} ack\nx")).await;
    world.until("it waits", |world| world.metric("landfall_udp_authenticating") == 1).await;
    client.close().await;
    // Another handshake says that the gateway has seen it.
    Client::nobody(world.secure).await;
    world.auth.answers.send_replace(true);
    let closed = "landfall_udp_dropped_total{reason=\"channel-closed\"}";
    world.until("it is dropped", |world| world.metric(closed) == 1).await;
    assert!(world.story().is_empty());
}

#[tokio::test]
async fn devices_that_name_themselves_share_channels_and_move_between_them() {
    let world = certified_world().await;
    let other = world.listen("dtls://127.0.0.1:0").await;
    let (mut here, mut there) = (Client::nobody(world.secure).await, Client::nobody(other).await);
    for name in ["a", "b", "a"] {
        here.ask(format!("LF1 {name} key={KEY} ack\n{name}")).await;
    }
    there.ask(format!("LF1 a key={KEY} ack\nthere")).await;
    let moved = &world.events("moved")[0];
    assert_eq!(moved["remoteAddress"], there.socket.local_addr().unwrap().to_string());
    world.command("a", "c1", "delivered", b"");
    assert_eq!(there.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
    // What it was last heard on before ends, and it does not.
    here.close().await;
    there.ask(format!("LF1 a key={KEY} ack\nstill there")).await;
    let mut fence = Client::nobody(world.secure).await;
    fence.ask(format!("LF1 fence key={KEY} ack")).await;
    assert!(ends(&world).is_empty());
    // One that proves who it is takes over, and is not gone on with.
    let mut proven = Client::psk(world.secure, "a").await;
    proven.fence("a").await;
    // The channel that it had is not its alone.
    there.ask(format!("LF1 c key={KEY} ack")).await;
    fence.ask(format!("LF1 a key={KEY} ack\nand back")).await;
    proven.closed().await;
    assert_eq!(ends(&world), ["taken-over", "taken-over"]);
}

#[tokio::test]
async fn without_channels_a_secure_socket_is_not_served() {
    let world = world().await;
    let endpoint = "dtls://127.0.0.1:0".parse().unwrap();
    let sockets = landfall_net::Datagrams::bind(&endpoint, landfall_net::DatagramSettings::default()).await;
    for socket in sockets.unwrap() {
        assert!(!world.server.serve(socket, &world.scope));
    }
    Device::of(world.address).await.fence().await;
}
