//! One socket, the same message id again: a device that has begun anew, or another one behind the same port of a translator.

use landfall_testkit::coap::{Message, code, kind, method, option};

use crate::world::{TestAuth, World};

/// POST with an id and a token that are said.
fn word(id: u16, token: u8, path: &str, queries: &[&str], payload: &str) -> Message {
    let message = Message::request(method::POST).path(path).queries(queries).payload(payload);
    Message { id, token: vec![token], ..message }
}

#[tokio::test]
async fn what_has_other_bytes_is_stored_whatever_its_message_id() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    for non in [false, true] {
        for (token, payload) in [(1, "one"), (2, "two"), (2, "three"), (1, "one")] {
            let request = word(1, token, "t", &["ep=d"], payload);
            let request = if non { request.non() } else { request };
            device.send(&request).await;
            let answer = device.receive().await;
            assert_eq!((answer.code, answer.token), (code(2, 4), vec![token]), "{payload}");
        }
    }
    let events = world.events();
    let payloads: Vec<_> =
        events.iter().filter(|e| e["type"] == "upstream").map(|e| e["payload"].clone()).collect();
    assert_eq!(payloads, ["one", "two", "three", "one", "one", "two", "three", "one"]);
    world.close().await;
}

#[tokio::test]
async fn another_device_behind_the_same_port_is_asked_who_it_is() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret"), ("e", "other")]), |_, _| {}).await;
    let mut device = world.client().await;
    for (n, (queries, expected)) in [
        (["ep=d", "key=secret"], code(2, 4)),
        (["ep=e", "key=other"], code(2, 4)),
        (["ep=e", "key=wrong"], code(4, 1)),
        (["ep=x", "key=secret"], code(4, 1)),
        (["ep=d", "key=other"], code(4, 1)),
    ]
    .into_iter()
    .enumerate()
    {
        // The very same message but for who says it, and with the same token.
        device.send(&word(1, 1, "t", &queries, "p")).await;
        assert_eq!(device.receive().await.code, expected, "{n}: {queries:?}");
    }
    assert_eq!((world.count("upstream d t"), world.count("upstream e t")), (1, 1));
    world.told("refused bad-credentials").await;
    world.told("refused unknown-device").await;
    world.close().await;
}

#[tokio::test]
async fn a_late_2_04_never_speaks_for_what_is_not_stored() {
    // With the id of the first, and with its token alone, which the answer comes with once it is acknowledged.
    for (id, is_late) in [(1, false), (1, true), (2, true)] {
        let mut world = World::open().await;
        let mut device = world.client().await;
        assert_eq!(device.post("t", &["ep=d"], "").await.code, code(2, 4));
        world.bus.set_slow(true);
        device.send(&word(1, 1, "t", &["ep=d"], "one")).await;
        if is_late {
            assert_eq!(device.receive().await.code, 0, "the answer takes longer");
        }
        device.send(&word(id, 1, "t", &["ep=d"], "two")).await;
        landfall_testkit::wait::eventually(landfall_testkit::wait::PATIENCE, "both wait", async || {
            (world.bus.waiting() == 2).then_some(())
        })
        .await;
        assert!(world.bus.store_next(), "the first is stored");
        world.bus.refuse_next();
        world.bus.set_slow(false);
        let mut codes = Vec::new();
        while codes.last() != Some(&code(5, 0)) {
            let message = device.receive().await;
            if message.kind == kind::CON {
                device.send(&Message::empty(kind::ACK, message.id)).await;
            }
            codes.push(message.code);
        }
        assert!(codes.iter().all(|one| [0, code(5, 0)].contains(one)), "{codes:?}");
        world.close().await;
    }
}

#[tokio::test]
async fn answers_to_two_commands_are_two_outcomes_whatever_their_message_id() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let (observation, _) = device.observe("command", &["ep=d"]).await;
    for (token, id) in [(1, "c1"), (2, "c2")] {
        world.command("d", id, "answered");
        let note = device.notification(&observation).await;
        let to = note.joined(option::LOCATION_PATH, "/");
        device.send(&word(1, token, &to, &["ep=d", "status=200"], id)).await;
        let answer = device.receive().await;
        assert_eq!((answer.code, answer.token), (code(2, 4), vec![token]));
    }
    let events = world.events();
    let answers: Vec<_> =
        events.iter().filter(|e| e["type"] == "downstream").map(|e| e["response"].clone()).collect();
    assert_eq!(answers, ["c1", "c2"]);
    world.close().await;
}

#[tokio::test]
async fn a_registration_with_an_old_message_id_is_one() {
    let mut world = World::open().await;
    let mut device = world.client().await;
    let mut names = Vec::new();
    for (token, ep) in [(1, "ep=d"), (2, "ep=e")] {
        device.send(&word(1, token, "rd", &[ep], "")).await;
        let answer = device.receive().await;
        assert_eq!((answer.code, &answer.token), (code(2, 1), &vec![token]));
        names.push(answer.joined(option::LOCATION_PATH, "/"));
    }
    assert_ne!(names[0], names[1]);
    assert_eq!((world.count("connected d"), world.count("connected e")), (1, 1));
    world.close().await;
}

/// Several devices may share a channel that has proven nothing; and one that begins anew on its own has its old ids.
#[tokio::test]
async fn on_a_secure_channel_too() {
    let mut world = World::with(TestAuth::knowing(&[("d", "secret")]), |_, _| {}).await;
    let mut device = world.on_channel("d", "secret").await;
    for payload in ["one", "two"] {
        device.send(&word(1, 1, "t", &[], payload)).await;
        assert_eq!(device.receive().await.code, code(2, 4));
    }
    assert_eq!(world.count("upstream d t"), 2);
    world.close().await;
}
