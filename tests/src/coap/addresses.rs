//! Who is who by address, and from where an answer comes: tokens, message ids and ports that are the same by chance.

use landfall_testkit::coap::{CoapClient, Message, code, method};
use landfall_testkit::{Recorder, World};

use super::{DEVICES, client};

#[tokio::test]
async fn two_devices_with_the_same_token_and_message_id_never_mix() {
    let world = World::start().await;
    // From the same seed the same message ids and tokens.
    let (mut one, mut other) = (client(&world, 7).await, client(&world, 7).await);
    let mut answers = Vec::new();
    for n in 0..20 {
        let (left, right) = (format!("left-{n}"), format!("right-{n}"));
        let (a, b) = tokio::join!(one.post("t", &["ep=one"], &left), other.post("t", &["ep=other"], &right));
        assert_eq!((a.code, a.id, &a.token), (code(2, 4), b.id, &b.token), "the same by both");
        answers.push((left, right));
    }
    let (here, _) = one.observe("command", &["ep=one"]).await;
    let (there, _) = other.observe("command", &["ep=other"]).await;
    let headers = [("Command-Wait", "acknowledged")];
    for n in 0..5 {
        let (to_one, to_other) = (format!("for one {n}"), format!("for other {n}"));
        let (a, b, left, right) = tokio::join!(
            world.command("one", &to_one, &headers),
            world.command("other", &to_other, &headers),
            one.notification(&here),
            other.notification(&there),
        );
        assert_eq!((&a["outcome"], &b["outcome"]), (&"acknowledged".into(), &"acknowledged".into()));
        assert_eq!((left.text(), right.text()), (to_one, to_other));
        assert_eq!(left.token, right.token);
    }
    for (name, of) in [("one", 0), ("other", 1)] {
        let events = world.recorder.expect_count("upstream", name, 20).await;
        let payloads: Vec<&str> = events.iter().map(|event| event.text("payload")).collect();
        let expected: Vec<&str> =
            answers.iter().map(|pair| if of == 0 { pair.0.as_str() } else { pair.1.as_str() }).collect();
        assert_eq!(payloads, expected, "{name}");
    }
    world.close().await;
}

#[tokio::test]
async fn each_answer_leaves_from_the_address_and_port_that_was_asked() {
    // Off the loopback interface a gateway must know its devices.
    let world = World::with(|settings| {
        settings.devices(DEVICES).coap(&["udp://127.0.0.1:0", "udp://0.0.0.0:0", "udp://[::1]:0"])
    })
    .await;
    let listening: Vec<_> = world.gateway.listening("coap", "udp").collect();
    let [first, wildcard, v6] = listening.as_slice() else { panic!("three listeners: {listening:?}") };
    assert_ne!(first.port(), wildcard.port());
    let pump = ["ep=pump", "key=p-key"];
    // The client fails on an answer from anywhere but where it asked.
    let at = |host: [u8; 4]| (host, wildcard.port()).into();
    let mut device = CoapClient::new(*first, 1).await;
    let asked = [*first, at([127, 0, 0, 1]), at([127, 0, 0, 2]), at([127, 9, 8, 7]), *first];
    for server in asked {
        device.redirect(server).await;
        let answer = device.post("t", &pump, server.to_string()).await;
        assert_eq!(answer.code, code(2, 4), "{server}");
        assert!(device.ping().await, "{server}");
        let core = device.download(&Message::request(method::GET).path(".well-known/core")).await;
        assert_eq!(core.code, code(2, 5), "{server}");
    }
    let mut other = CoapClient::new(*v6, 2).await;
    assert_eq!(other.post("t", &["ep=meter", "key=m-key"], "x").await.code, code(4, 3));
    assert_eq!(other.post("meter/t", &["ep=meter", "key=m-key"], "x").await.code, code(2, 4));
    // A notification comes from where its observation is.
    for server in asked {
        device.redirect(server).await;
        let (observation, _) = device.observe("command", &pump).await;
        let headers = [("Command-Wait", "acknowledged")];
        let (reply, command) =
            tokio::join!(world.command("pump", "x", &headers), device.notification(&observation));
        assert_eq!((&reply["outcome"], command.text().as_str()), (&"acknowledged".into(), "x"), "{server}");
    }
    // Also when the device has spoken through another door since.
    device.redirect(*first).await;
    let (observation, _) = device.observe("command", &pump).await;
    for server in [at([127, 0, 0, 2]), at([127, 0, 0, 1])] {
        device.redirect(server).await;
        assert_eq!(device.post("t", &pump, "x").await.code, code(2, 4), "{server}");
    }
    device.redirect(*first).await;
    let headers = [("Command-Wait", "acknowledged")];
    let (reply, command) =
        tokio::join!(world.command("pump", "y", &headers), device.notification(&observation));
    assert_eq!((&reply["outcome"], command.text().as_str()), (&"acknowledged".into(), "y"));
    assert_eq!(count(&world.recorder, "connected"), 2, "one session each, by whatever door");
    assert_eq!(count(&world.recorder, "moved"), 0, "the device itself has not moved");
    world.close().await;
}

fn count(recorder: &Recorder, kind: &str) -> usize {
    recorder.all().iter().filter(|event| event.kind() == kind).count()
}
