//! A gateway that is killed takes its server along. The test starts itself twice more: as the gateway, and as the launcher
//! that becomes the server, so it has a `main` of its own.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test, in helpers and main too"
)]

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use landfall_nats::embedded::{CHILD_COMMAND, Embedded, EmbeddedSettings, child_main};
use landfall_testkit::paths;
use landfall_testkit::process::{Process, exists};
use landfall_testkit::wait::{PATIENCE, eventually};

const NAME: &str = "a_killed_gateway_takes_its_server_along";
/// The word by which the test knows that it is the gateway.
const AS_GATEWAY: &str = "__gateway";

fn main() {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has(CHILD_COMMAND) {
        child_main(arguments.into_iter().skip(1));
    }
    if has("--list") {
        // What a test runner asks first.
        if !has("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match (arguments.first(), arguments.get(1)) {
        (Some(word), Some(store)) if word == AS_GATEWAY => runtime.block_on(gateway(store.into())),
        _ => runtime.block_on(a_killed_gateway_takes_its_server_along()),
    }
}

fn settings(store_dir: PathBuf) -> EmbeddedSettings {
    EmbeddedSettings {
        store_dir,
        server: Some(paths::nats_server()),
        launcher: Some(env::current_exe().expect("a path")),
        ..EmbeddedSettings::default()
    }
}

/// Says which process the server is and waits to be killed.
async fn gateway(store: PathBuf) {
    let embedded = Embedded::start(settings(store)).await.expect("a server");
    println!("server={}", embedded.state().pid.expect("a process"));
    std::future::pending::<()>().await;
}

async fn a_killed_gateway_takes_its_server_along() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..3 {
        let mut command = Command::new(env::current_exe().expect("a path"));
        command.arg(AS_GATEWAY).arg(folder.path());
        let mut gateway = Process::spawn("gateway", command);
        let said = gateway.logged("server=", PATIENCE).await;
        let server = said.rsplit_once('=').and_then(|(_, pid)| pid.parse().ok()).expect("a process id");
        assert!(exists(server), "round {round}");
        gateway.kill();
        eventually(PATIENCE, "the server's end", async || (!exists(server)).then_some(())).await;
    }
    // In order, too, with a launcher.
    let embedded = Embedded::start(settings(folder.path().to_path_buf())).await.expect("a server");
    let server = embedded.state().pid.expect("a process");
    embedded.stop(Duration::from_secs(10)).await;
    assert!(!exists(server));
    println!("test {NAME} ... ok");
}
