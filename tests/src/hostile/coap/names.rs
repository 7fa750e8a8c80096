//! What a device calls itself and its paths stays text (C5): never a subject, a header, a log line or another's name.

use landfall_testkit::World;
use landfall_testkit::coap::{CoapClient, Message, code, method, option};

/// Texts that mean something to NATS, to a path, to a log or to JSON; each a name without control characters.
const NAMES: &[&str] = &[
    "a.b",
    ".a",
    "a.",
    "...",
    "*",
    ">",
    "a.>",
    "*.*",
    "a b",
    " ",
    "$JS.API.STREAM.DELETE.LANDFALL_MESSAGES",
    "$SYS.REQ.SERVER.PING",
    "_INBOX.x",
    "kaa.v1.events.landfall.endpoint.message.upstream",
    "%",
    "%2e",
    "%2e%2e%2f",
    "%0d%0aFORGED",
    "#",
    "+",
    "a/b",
    "/",
    "//",
    "../../etc",
    "\"}",
    "\\u0000",
    "größe",
    "日本",
    "\u{202e}evil",
    "\u{2028}",
    "'; drop table devices; --",
    "FORGED",
];

/// Texts that a name may not be, and a segment of a path may.
const SEGMENTS: &[&str] =
    &["\r\nFORGED: 1", "a\r\n\r\nPUB x 0", "\0", "a\0b", "\u{1b}[31m", "\t", "\u{7f}", ""];

/// May it be a level of a topic?
fn is_level(text: &str) -> bool {
    !text.contains(['/', '+', '#']) && !text.chars().any(char::is_control)
}

/// A request with these segments as they are; a path in a text would be split.
fn post(segments: &[&str], device: &str) -> Message {
    let message = segments
        .iter()
        .fold(Message::request(method::POST), |message, segment| message.option(option::URI_PATH, segment));
    message.query(&format!("ep={device}"))
}

#[tokio::test]
async fn no_path_and_no_name_chooses_a_subject() {
    let world = World::start().await;
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    for (n, text) in NAMES.iter().chain(SEGMENTS).enumerate() {
        // Alone, between others, and in two segments.
        for segments in [vec![*text], vec!["a", *text, "b"], vec![*text, *text]] {
            let answer = device.request(post(&segments, &format!("path-{n}")).payload("x")).await;
            // As over MQTT: some are no topics, and what begins with `$` the ACL `#` does not cover.
            let expected = match segments[0].starts_with('$') {
                _ if !is_level(text) => code(4, 0),
                true => code(4, 3),
                false => code(2, 4),
            };
            assert_eq!(answer.code, expected, "{segments:?}");
        }
        let mut expected = vec![(*text).to_owned(), format!("a/{text}/b"), format!("{text}/{text}")];
        expected.retain(|topic| is_level(text) && !topic.starts_with('$'));
        if expected.is_empty() {
            continue;
        }
        let events = world.recorder.expect_count("upstream", &format!("path-{n}"), expected.len()).await;
        assert_eq!(events.len(), expected.len());
        for (event, expected) in events.iter().zip(expected) {
            assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.message.upstream");
            assert_eq!(event.text("topic"), expected, "{text:?}: exactly");
        }
    }
    for name in NAMES {
        assert_eq!(device.request(post(&["t"], name).payload("x")).await.code, code(2, 4), "{name:?}");
        let event = world.recorder.expect("connected", name).await;
        assert_eq!((event.text("endpointId"), event.text("remoteId")), (*name, *name));
        assert_eq!(event.subject, "kaa.v1.events.landfall.endpoint.connectivity.connected");
        // The same as a tenant.
        let of_tenant = post(&["t"], "d").query(&format!("t={name}")).payload("x");
        assert_eq!(device.request(of_tenant).await.code, code(2, 4), "{name:?}");
    }
    let tenants: Vec<_> = world.recorder.expect_count("connected", "d", NAMES.len()).await;
    let tenants: Vec<&str> = tenants.iter().map(|event| event.text("tenant")).collect();
    assert_eq!(tenants, NAMES);
    world.wiretap.assert_clean("landfall").await;
    super::super::assert_log_is_clean(&world);
    world.close().await;
}

#[tokio::test]
async fn what_an_answer_says_stays_text() {
    let world = World::with(|settings| settings.set("log.level", "trace").set("log.format", "json")).await;
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    let evil = "x\"}\u{2028}\u{202e}</script>'%0a";
    for (n, name) in ["d", "a.b>*"].into_iter().enumerate() {
        let (observation, _) = device.observe("command", &[&format!("ep={name}")]).await;
        let id = format!("c.{n} >*%");
        let headers = [("Command-Id", id.as_str()), ("Command-Wait", "answered"), ("Command-Name", "a b%")];
        let token = if n == 0 { "d" } else { "a%2Eb%3E%2A" };
        let subject = format!("kaa.v1.service.landfall.command.default.{token}");
        let request = world.command_on(subject, "x", &headers);
        let answer = async {
            let command = device.notification(&observation).await;
            assert_eq!(command.values(option::LOCATION_PATH).last(), Some(id.as_bytes()));
            assert_eq!(command.joined(option::LOCATION_QUERY, "&"), "name=a b%");
            let answer =
                post(&["command", "res", &id], name).query(&format!("status={evil}").replace('/', "|"));
            assert_eq!(device.request(answer.payload(evil)).await.code, code(2, 4));
        };
        let (reply, ()) = tokio::join!(request, answer);
        assert_eq!((&reply["outcome"], &reply["endpointId"]), (&"answered".into(), &name.into()));
        assert_eq!((&reply["response"], &reply["status"]), (&evil.into(), &evil.replace('/', "|").into()));
    }
    for line in world.gateway.log().lines().filter(|line| !line.is_empty()) {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry.is_object(), "{line}");
    }
    world.close().await;
}

#[tokio::test]
async fn keys_stay_secret() {
    let world = super::world(|settings| settings.set("log.level", "trace")).await;
    let mut device = CoapClient::new(world.gateway.coap(), 1).await;
    assert_eq!(device.post("t", &["ep=victim", "key=of-victim"], "x").await.code, code(2, 4));
    assert_eq!(device.post("t", &["ep=victim", "key=hunter2"], "x").await.code, code(4, 1));
    assert_eq!(device.post("t", &["ep=victim", "key=hunter2", "lt=0"], "x").await.code, code(4, 0));
    world.recorder.find(landfall_testkit::PATIENCE, "refusals", |_| super::refusals(&world) >= 2).await;
    let everything = [
        world.gateway.log(),
        world.gateway.get("/metrics").await.body,
        world.gateway.get("/v1/sessions").await.body,
        world.recorder.all().iter().map(|event| event.json.to_string()).collect(),
    ];
    for text in &everything {
        for secret in ["of-victim", "of-witness", "hunter2"] {
            assert!(!text.contains(secret), "{secret} is told");
        }
    }
    world.close().await;
}
