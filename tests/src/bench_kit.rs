//! What `landfall init` makes is enough: a board comes in over TLS with what was printed, and over DTLS too.

use std::process::Command;

use landfall_testkit::paths;
use landfall_testkit::process::{Process, Signal};
use landfall_testkit::{PATIENCE, eventually};
use serde_json::Value;

/// A command that `init` has printed, as words.
fn printed<'a>(told: &'a str, program: &str) -> Vec<&'a str> {
    let line = told.lines().map(str::trim).find(|line| line.starts_with(program));
    line.unwrap_or_else(|| panic!("{program} is not in {told}")).split_whitespace().skip(1).collect()
}

#[tokio::test]
async fn a_board_comes_in_with_what_init_made() {
    let folder = tempfile::tempdir().unwrap();
    let landfall = |arguments: &[&str]| {
        let mut command = Command::new(paths::binary("landfall"));
        command.args(arguments).current_dir(folder.path());
        for (key, value) in [
            ("LANDFALL_MQTT__LISTEN", "tls://127.0.0.1:0"),
            ("LANDFALL_COAP__LISTEN", "dtls://127.0.0.1:0"),
            ("LANDFALL_UDP__LISTEN", "dtls://127.0.0.1:0"),
            ("LANDFALL_ADMIN__LISTEN", "127.0.0.1:0"),
            ("LANDFALL_NATS__SERVER", paths::nats_server().to_str().unwrap()),
        ] {
            command.env(key, value);
        }
        Process::spawn("landfall", command)
    };
    let made = landfall(&["init", "bench", "--host", "127.0.0.1"]);
    assert!(made.exited(PATIENCE).await.success(), "{}", made.log());
    let told = made.output();

    let gateway = landfall(&["run", "--config", "bench/landfall.toml"]);
    gateway.logged("serving", PATIENCE).await;
    let run = eventually(PATIENCE, "the run file", async || {
        std::fs::read(folder.path().join("bench/nats/landfall.run.json")).ok()
    })
    .await;
    let run: Value = serde_json::from_slice(&run).unwrap();
    let port = |protocol: &str| {
        run["listeners"][protocol][0].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    };
    let watch = landfall(&["watch", "--config", "bench/landfall.toml"]);
    watch.logged("watching", PATIENCE).await;

    if let Some(path) = paths::interop("mosquitto_pub", paths::program("mosquitto_pub")) {
        let mqtt = port("mqtt");
        let words =
            printed(&told, "mosquitto_pub").into_iter().map(|word| if word == "8883" { &mqtt } else { word });
        let mut command = Command::new(path);
        command.args(words).current_dir(folder.path());
        let client = Process::spawn("mosquitto_pub", command);
        assert!(client.exited(PATIENCE).await.success(), "{}", client.log());
        watch.logged("mqtts MQTT/3.1.1", PATIENCE).await;
    }
    if let Some(path) = paths::interop("coap-client-openssl", paths::program("coap-client-openssl")) {
        let coap = port("coap");
        let words = printed(&told, "coap-client-openssl").into_iter().map(|word| word.replace("5684", &coap));
        let mut command = Command::new(path);
        command.args(words).current_dir(folder.path());
        let client = Process::spawn("coap-client-openssl", command);
        assert!(client.exited(PATIENCE).await.success(), "{}", client.log());
        watch.logged("coaps CoAP", PATIENCE).await;
    }
    watch.signal(Signal::INT);
    gateway.signal(Signal::TERM);
    assert!(gateway.exited(PATIENCE).await.success(), "{}", gateway.log());
}
