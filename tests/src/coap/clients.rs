//! Clients that others wrote, unmodified: libcoap's `coap-client` from Debian and aiocoap from PyPI.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_testkit::interop::{aiocoap, coap_client};
use landfall_testkit::process::Process;
use landfall_testkit::{PATIENCE, World};
use serde_json::{Value, json};

use super::{DEVICES, body};

struct Stage {
    world: World,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let world = World::with(|settings| settings.devices(DEVICES)).await;
        Self { world, folder: tempfile::tempdir().unwrap() }
    }

    /// `coap-client` on a path, as the device `pump`.
    fn coap_client(&self, arguments: &[&str], path: &str, queries: &str) -> Option<Process> {
        let uri = format!("coap://{}/{path}?ep=pump&key=p-key{queries}", self.world.gateway.coap());
        coap_client(&[arguments, &["-B", "12", &uri]].concat())
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Its exit says nothing of the answer; an error does, on its standard error.
async fn well_done(process: &Process) {
    assert!(process.exited(PATIENCE).await.success(), "{}", process.log());
    let log = process.log();
    assert!(
        !log.lines().any(|line| line.starts_with(['4', '5']) && line.as_bytes().get(1) == Some(&b'.')),
        "{log}"
    );
    assert!(!log.contains("ERR") && !log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn coap_client_posts_puts_and_reads() {
    let stage = Stage::set().await;
    for (n, (method, kind)) in
        (1..).zip([("post", None), ("put", None), ("post", Some("-N")), ("put", Some("-N"))])
    {
        let payload = format!("{{\"n\": {n}}}");
        let mut arguments = vec!["-m", method, "-t", "50", "-e", payload.as_str()];
        arguments.extend(kind);
        let Some(process) = stage.coap_client(&arguments, "site/7/flow", "") else { return };
        well_done(&process).await;
        let event = stage.world.recorder.expect_count("upstream", "pump", n).await.pop().unwrap();
        assert_eq!((event.text("topic"), event.text("contentType")), ("site/7/flow", "application/json"));
        assert_eq!(event.json["payload"], json!({"n": n}));
    }
    // A slash within a segment, in the URI %2f, is no part of a topic.
    let Some(process) = stage.coap_client(&["-m", "post", "-e", "x"], "site/7%2f8/flow", "") else { return };
    process.logged("4.00", PATIENCE).await;
    let uri = format!("coap://{}/.well-known/core", stage.world.gateway.coap());
    let Some(process) = coap_client(&["-w", &uri]) else { return };
    process.logged(r#"</command>;rt="landfall.command";obs"#, PATIENCE).await;
    // Each is a process of its own, and so another address of one device: one session that moves.
    assert_eq!(stage.world.recorder.of("connected", "pump").len(), 1);
    assert_eq!(stage.world.recorder.of("moved", "pump").len(), 3);
    let refused = coap_client(&[
        "-m",
        "post",
        "-e",
        "x",
        &format!("coap://{}/t?ep=pump&key=no", stage.world.gateway.coap()),
    ]);
    let Some(process) = refused else { return };
    process.logged("4.01", PATIENCE).await;
    stage.world.close().await;
}

#[tokio::test]
async fn coap_client_sends_64_kib_in_blocks() {
    let stage = Stage::set().await;
    let body = body(65_536);
    std::fs::write(stage.file("body"), &body).unwrap();
    for (n, (method, size)) in (1..).zip([("post", "1024"), ("put", "256")]) {
        let file = stage.file("body");
        let arguments = ["-m", method, "-b", size, "-t", "42", "-f", file.as_str()];
        let Some(process) = stage.coap_client(&arguments, "body", "") else { return };
        well_done(&process).await;
        let events = stage.world.recorder.expect_count("upstream", "pump", n).await;
        assert_eq!(events.len(), n, "one body, one event");
        let payload = STANDARD.decode(events[n - 1].text("payload")).unwrap();
        assert!(payload == body, "{} bytes", payload.len());
    }
    stage.world.close().await;
}

#[tokio::test]
async fn coap_client_observes_and_pings() {
    let stage = Stage::set().await;
    let arguments = ["-s", "5", "-K", "1", "-w"];
    let Some(process) = stage.coap_client(&arguments, "command", "&lt=60") else { return };
    stage.world.recorder.expect("connected", "pump").await;
    let long = "z".repeat(3_000);
    for (payload, headers) in [
        ("turn it on", [("Command-Id", "c1"), ("Command-Wait", "acknowledged")]),
        ("turn it off", [("Command-Id", "c2"), ("Command-Wait", "acknowledged")]),
        (&long, [("Command-Id", "c3"), ("Command-Wait", "acknowledged")]),
    ] {
        let reply = stage.world.command("pump", payload, &headers).await;
        assert_eq!(reply["outcome"], "acknowledged", "{reply}");
    }
    let command =
        stage.world.command("pump", "answer me", &[("Command-Id", "c4"), ("Command-Wait", "answered")]);
    let answer = async {
        process.logged("answer me", PATIENCE).await;
        let arguments = ["-m", "post", "-e", "as you say"];
        let process = stage.coap_client(&arguments, "command/res/c4", "&status=202").unwrap();
        well_done(&process).await;
    };
    let (reply, ()) = tokio::join!(command, answer);
    assert_eq!((&reply["outcome"], &reply["status"]), (&json!("answered"), &json!("202")), "{reply}");
    well_done(&process).await;
    let got = process.output();
    for part in ["turn it on", "turn it off", long.as_str(), "answer me"] {
        assert!(got.contains(part), "{} of {got:?}", &part[..5]);
    }
    let pings = stage.world.gateway.metrics("landfall_coap_pings").await;
    assert!(pings.iter().any(|(_, count)| *count >= 1.0), "{pings:?}");
    stage.world.close().await;
}

#[tokio::test]
async fn coap_client_fetches_a_command_in_blocks() {
    let stage = Stage::set().await;
    let text = (0..500).fold(String::new(), |mut text, n| {
        let _ = write!(text, "line {n} ");
        text
    });
    for size in ["1024", "64"] {
        let output = stage.file(size);
        let arguments = ["-m", "get", "-b", size, "-o", output.as_str()];
        let Some(process) = stage.coap_client(&arguments, "command", "&ttd=10") else { return };
        stage.world.recorder.expect("connected", "pump").await;
        let reply = stage.world.command("pump", &text, &[]).await;
        assert_eq!(reply["outcome"], "delivered", "{reply}");
        well_done(&process).await;
        assert!(std::fs::read_to_string(&output).unwrap() == text, "by {size}");
    }
    stage.world.close().await;
}

#[tokio::test]
async fn aiocoap_is_a_device_from_its_registration_to_its_end() {
    let stage = Stage::set().await;
    let (world, address) = (&stage.world, stage.world.gateway.coap());
    let more = ["--tenant", "acme", "--key", "v-key", "--lifetime", "60", "--commands", "2"];
    let Some(process) = aiocoap(address, "valve", &more) else { return };
    process.logged(r#""what": "observing""#, PATIENCE).await;
    let subject = || format!("kaa.v1.service.{}.command.acme.valve", world.instance());
    let long = "w".repeat(4_000);
    for (n, payload) in ["short", &long].into_iter().enumerate() {
        let id = format!("c{n}");
        let headers = [("Command-Wait", "answered"), ("Command-Id", id.as_str()), ("Command-Name", "turn")];
        let reply = world.command_on(subject(), payload, &headers).await;
        assert_eq!(
            (&reply["outcome"], &reply["response"]),
            (&json!("answered"), &json!({"length": payload.len()}))
        );
    }
    process.logged(r#""what": "done""#, PATIENCE).await;
    assert!(process.exited(PATIENCE).await.success(), "{}", process.log());
    let told: Vec<Value> =
        process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |what: &str| -> Vec<&Value> { told.iter().filter(|line| line["what"] == what).collect() };
    for (what, expected) in [
        ("discovered", "2.05"),
        ("registered", "2.01"),
        ("refreshed", "2.04"),
        ("posted", "2.04"),
        ("put", "2.04"),
        ("uploaded", "2.04"),
        ("posted-non", "2.04"),
        ("observing", "2.05"),
        ("deregistered", "2.02"),
    ] {
        assert_eq!(
            of(what).iter().map(|line| &line["code"]).collect::<Vec<_>>(),
            [expected],
            "{what}: {told:?}"
        );
    }
    assert_eq!(of("observing")[0]["observed"], true);
    assert!(of("command").iter().all(|line| line["name"] == "turn"), "{told:?}");
    let events = world.recorder.expect_count("upstream", "valve", 4).await;
    let by_topic = |topic: &str| events.iter().find(|event| event.text("topic") == topic).unwrap();
    assert_eq!(by_topic("measure/post").json["payload"], json!({"by": "post"}));
    assert_eq!(by_topic("measure/put").text("payload"), "by put");
    assert_eq!(by_topic("measure/non").text("payload"), "by non");
    assert!(
        STANDARD.decode(by_topic("measure/body").text("payload")).unwrap() == body(65_536),
        "byte for byte"
    );
    assert_eq!(events.len(), 4, "one event each");
    let end = world.recorder.expect("disconnected", "valve").await;
    assert_eq!((end.text("reason"), end.text("tenant")), ("deregistered", "acme"));
    stage.world.close().await;
}
