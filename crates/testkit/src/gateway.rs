//! The real gateway as a process: `landfall run` with settings of the test's own, every port 0, every file in a temporary
//! folder.
//!
//! Owns: its settings file, its start, its end, and the check that no thread of it ever panicked. Does not own: what it
//! publishes ([`crate::recorder`]).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use toml::{Table, Value};

use crate::http::{self, Answer};
use crate::process::{Process, Signal, resident_bytes};
use crate::wait::{PATIENCE, eventually};
use crate::{NatsServer, Pki, paths};

/// What a panic of any thread leaves in the log.
const PANICKED: &str = "panicked at";

/// What the gateway says of itself once its devices are answered (`landfall.run.json`).
#[derive(Clone, Debug, Deserialize)]
pub struct RunFile {
    /// Its process id.
    pub pid: u32,
    /// The instance's name.
    pub instance: String,
    /// This process's name.
    pub replica: String,
    /// This start of it.
    pub incarnation: String,
    /// The NATS server that it uses.
    pub nats: String,
    /// The admin interface.
    pub admin: SocketAddr,
    /// The addresses it listens on, by family: `mqtt`, `coap`, `udp`.
    pub listeners: std::collections::BTreeMap<String, Vec<String>>,
}

/// The settings of a gateway to be.
#[derive(Clone, Debug)]
pub struct GatewayBuilder {
    settings: Table,
    environment: Vec<(String, String)>,
    /// A program and arguments that start it.
    before: Vec<String>,
    folder: Arc<TempDir>,
}

impl GatewayBuilder {
    fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self { settings: Table::new(), environment: Vec::new(), before: Vec::new(), folder }
            .set("admin.listen", "127.0.0.1:0")
            .set("instance.name", "landfall")
            .set("instance.replica", "r1")
            .set("nats.store_dir", "nats")
            .set("nats.spool_dir", "spool")
            .set("nats.server", paths::nats_server().to_str().expect("a path in UTF-8"))
            .listen(&["tcp://127.0.0.1:0"])
            .coap(&["udp://127.0.0.1:0"])
            .udp(&["udp://127.0.0.1:0"])
            .set("coap.sockets", 2)
            .set("udp.sockets", 2)
    }

    /// Sets one key of the settings: `set("mqtt.max_packet_size", 1024)`.
    ///
    /// # Panics
    /// When a part of the dotted key is no table.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let mut table = &mut self.settings;
        let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("a table of the settings");
        }
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a key out of the settings again.
    ///
    /// # Panics
    /// When its section is no table.
    #[must_use]
    pub fn unset(mut self, section: &str, key: &str) -> Self {
        if let Some(table) = self.settings.get_mut(section) {
            table.as_table_mut().expect("a table of the settings").remove(key);
        }
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Uses this nats-server.
    #[must_use]
    pub fn nats(self, server: &NatsServer) -> Self {
        self.set("nats.url", server.url())
    }

    /// Listens for MQTT on these endpoints; on none, it does not.
    #[must_use]
    pub fn listen(self, endpoints: &[&str]) -> Self {
        self.set("mqtt.listen", texts(endpoints))
    }

    /// Listens for CoAP on these endpoints; on none, it does not.
    #[must_use]
    pub fn coap(self, endpoints: &[&str]) -> Self {
        self.set("coap.listen", texts(endpoints))
    }

    /// Listens for UDP on these endpoints; on none, it does not.
    #[must_use]
    pub fn udp(self, endpoints: &[&str]) -> Self {
        self.set("udp.listen", texts(endpoints))
    }

    /// Listens for CoAP over DTLS, beside plain UDP.
    #[must_use]
    pub fn coap_dtls(self) -> Self {
        self.coap(&["udp://127.0.0.1:0", "dtls://127.0.0.1:0"])
    }

    /// Listens for UDP over DTLS, beside plain UDP.
    #[must_use]
    pub fn udp_dtls(self) -> Self {
        self.udp(&["udp://127.0.0.1:0", "dtls://127.0.0.1:0"])
    }

    /// Serves DTLS with the certificate of `pki`, and takes client certificates of it.
    #[must_use]
    pub fn dtls(self, pki: &Pki) -> Self {
        self.set("dtls.cert", path_text(&pki.server().certificate))
            .set("dtls.key", path_text(&pki.server().key))
            .set("dtls.client_ca", path_text(pki.authority()))
    }

    /// Serves TLS with the certificate of `pki`.
    #[must_use]
    pub fn tls(self, pki: &Pki) -> Self {
        self.set("tls.cert", path_text(&pki.server().certificate))
            .set("tls.key", path_text(&pki.server().key))
    }

    /// Asks TLS clients for a certificate of `pki`.
    #[must_use]
    pub fn client_ca(self, pki: &Pki) -> Self {
        self.set("tls.client_ca", path_text(pki.authority()))
    }

    /// Turns on auth mode `devices` with this file of devices.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn devices(self, text: &str) -> Self {
        let path = self.folder.path().join("devices.toml");
        write_secret(&path, text);
        self.set("auth.mode", "devices").set("auth.devices", path_text(&path))
    }

    /// Writes the settings file and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) -> PathBuf {
        let path = self.folder.path().join("landfall.toml");
        let text = toml::to_string(&self.settings).expect("settings are a table");
        std::fs::write(&path, text).expect("the temporary folder can be written");
        path
    }

    /// Starts `landfall` with these arguments in the settings' folder and environment, without waiting.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::spawn("landfall", self.command(arguments))
    }

    /// Runs `landfall` with these arguments to its end, off the runtime's threads.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn output(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.command(arguments));
        command.kill_on_drop(true).stdin(std::process::Stdio::null());
        let what = format!("the end of `landfall {}`", arguments.join(" "));
        crate::within(PATIENCE, &what, command.output()).await.expect("landfall starts")
    }

    /// With `dir`, below its folder, on a file system of so many bytes; `None` where that cannot be made.
    ///
    /// # Panics
    /// When it cannot be made and must be.
    pub fn on_small_disk(mut self, dir: &str, bytes: u64) -> Option<Self> {
        let path = self.folder.path().join(dir);
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        let tried = Command::new("unshare").args(["-m", "true"]).output();
        let possible = tried.is_ok_and(|output| output.status.success());
        paths::interop("a mount namespace", possible.then(|| path.clone()))?;
        let mount = format!("mount -t tmpfs -o size={bytes} tmpfs {} && exec \"$@\"", path_text(&path));
        self.before = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
        Some(self)
    }

    /// With a wall clock that the test steps; `None` where libfaketime is missing.
    pub fn with_a_clock_of_its_own(self) -> Option<(Self, Clock)> {
        let library = paths::interop("libfaketime", paths::faketime())?;
        let file = self.folder.path().join("clock");
        let clock = Clock { file };
        clock.set_offset(0);
        let settings = self
            .env("LD_PRELOAD", path_text(&library))
            .env("FAKETIME_TIMESTAMP_FILE", path_text(&clock.file))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Some((settings, clock))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let binary = paths::binary("landfall");
        let mut command = match self.before.split_first() {
            Some((first, more)) => {
                let mut command = Command::new(first);
                command.args(more).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("LANDFALL_") {
                command.env_remove(key);
            }
        }
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").current_dir(self.folder.path());
        command.envs(self.environment.iter().map(|(key, value)| (key, value))).args(arguments);
        command
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; shows its log.
    pub async fn start(self) -> Gateway {
        self.start_where(|answer| answer.status == 200).await
    }

    /// Starts it and waits until its devices are answered, whether they are let in or not.
    ///
    /// # Panics
    /// When it ends or does not bind; shows its log.
    pub async fn start_unready(self) -> Gateway {
        self.start_where(|_| true).await
    }

    async fn start_where(self, enough: impl Fn(&Answer) -> bool) -> Gateway {
        let process = self.launch();
        let run_file = self.folder.path().join("nats/landfall.run.json");
        let pid = process.pid();
        let started = eventually(PATIENCE * 2, "the gateway's start", async || {
            assert!(process.is_running(), "the gateway ended at its start; it wrote:\n{}", process.log());
            let run = read_run_file(&run_file).filter(|run| run.pid == pid)?;
            let answer = http::get(run.admin, "/readyz?store").await?;
            enough(&answer).then_some(run)
        });
        // The log tells more than the deadline does.
        let run = match tokio::time::timeout(PATIENCE, started).await {
            Ok(run) => run,
            Err(_) => panic!("the gateway did not become ready; it wrote:\n{}", process.log()),
        };
        Gateway { settings: self, process, run }
    }

    fn launch(&self) -> Process {
        let path = self.write();
        self.spawn(&["run", "--config", path.to_str().expect("a path in UTF-8")])
    }

    /// Starts it where it must refuse to start, and returns its exit status and what it wrote.
    ///
    /// # Panics
    /// When it does not end by itself.
    pub async fn refuses(self) -> (ExitStatus, String) {
        let process = self.launch();
        let status = process.exited(PATIENCE).await;
        // The pipes may hold its last words still.
        let log = eventually(PATIENCE, "its last words", async || {
            Some(process.log()).filter(|log| !log.trim().is_empty())
        });
        let log = log.await;
        (status, log)
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The wall clock of one gateway.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Puts it so many seconds before or behind the true one.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn set_offset(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the temporary folder can be written");
        std::fs::rename(new, &self.file).expect("the same folder");
    }
}

/// A running gateway. Dropping it kills it; a panic in its log fails the test.
#[derive(Debug)]
pub struct Gateway {
    settings: GatewayBuilder,
    process: Process,
    run: RunFile,
}

impl Gateway {
    /// Settings with ports 0 and a temporary store, for an embedded nats-server until told otherwise.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    /// What it said of itself when it started.
    pub fn run_file(&self) -> &RunFile {
        &self.run
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.settings.folder()
    }

    /// Its settings, for another process with the same.
    pub fn settings(&self) -> &GatewayBuilder {
        &self.settings
    }

    /// Where it listens for MQTT over this scheme: `tcp`, `tls`, `ws`, `wss`.
    ///
    /// # Panics
    /// When it does not listen over it.
    pub fn mqtt(&self, scheme: &str) -> SocketAddr {
        let address = self.listening("mqtt", scheme).next();
        address.unwrap_or_else(|| panic!("no {scheme} listener for MQTT: {:?}", self.run.listeners))
    }

    /// Where it listens for CoAP, plain.
    ///
    /// # Panics
    /// When it does not.
    pub fn coap(&self) -> SocketAddr {
        let address = self.listening("coap", "udp").next();
        address.unwrap_or_else(|| panic!("no listener for CoAP: {:?}", self.run.listeners))
    }

    /// Where it listens for UDP, plain.
    ///
    /// # Panics
    /// When it does not.
    pub fn udp(&self) -> SocketAddr {
        let address = self.listening("udp", "udp").next();
        address.unwrap_or_else(|| panic!("no listener for UDP: {:?}", self.run.listeners))
    }

    /// Where it listens for CoAP over DTLS.
    ///
    /// # Panics
    /// When it does not.
    pub fn coaps(&self) -> SocketAddr {
        let address = self.listening("coap", "dtls").next();
        address.unwrap_or_else(|| panic!("no DTLS listener for CoAP: {:?}", self.run.listeners))
    }

    /// Where it listens for UDP over DTLS.
    ///
    /// # Panics
    /// When it does not.
    pub fn udps(&self) -> SocketAddr {
        let address = self.listening("udp", "dtls").next();
        address.unwrap_or_else(|| panic!("no DTLS listener for UDP: {:?}", self.run.listeners))
    }

    /// Every address of `family` (`mqtt`, `coap`, `udp`) with this scheme, in the order of the settings.
    pub fn listening(&self, family: &str, scheme: &str) -> impl Iterator<Item = SocketAddr> {
        let listeners = self.run.listeners.get(family).map(Vec::as_slice).unwrap_or_default();
        listeners.iter().filter_map(move |endpoint| {
            let rest = endpoint.strip_prefix(scheme)?.strip_prefix("://")?;
            rest.split('/').next()?.parse().ok()
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// True until it has ended.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Gets a path of the admin interface.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        http::get(self.run.admin, path)
            .await
            .unwrap_or_else(|| panic!("no answer to GET {path}; log:\n{}", self.log()))
    }

    /// The samples of one metric, or of all whose name begins so: (name with labels, value).
    pub async fn metrics(&self, prefix: &str) -> Vec<(String, f64)> {
        let answer = self.get("/metrics").await;
        let lines = answer.body.lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(k, v)| (k.to_owned(), v.parse().unwrap_or(f64::NAN)))
            .collect()
    }

    /// Runs a client command of the `landfall` binary with this gateway's settings file.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let config = self.settings.folder().join("landfall.toml");
        let mut all = arguments.to_vec();
        all.extend(["--config", config.to_str().expect("a path in UTF-8")]);
        self.settings.output(&all).await
    }

    /// Starts a client command of the `landfall` binary that goes on running.
    pub fn cli_process(&self, arguments: &[&str]) -> Process {
        let config = self.settings.folder().join("landfall.toml");
        let mut all = arguments.to_vec();
        all.extend(["--config", config.to_str().expect("a path in UTF-8")]);
        self.settings.spawn(&all)
    }

    /// Writes its file of devices anew, in one rename as an editor would.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn edit_devices(&self, text: &str) {
        let folder = self.settings.folder();
        write_secret(&folder.join("devices.new"), text);
        std::fs::rename(folder.join("devices.new"), folder.join("devices.toml")).expect("the same folder");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Freezes it (SIGSTOP).
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Asks it to end (SIGTERM), without waiting.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub async fn exited(&self, deadline: Duration) -> ExitStatus {
        self.process.exited(deadline).await
    }

    /// Starts it again with the same settings and files, killing it first when it runs. Its ports are new.
    pub async fn restart(self) -> Self {
        let settings = self.settings.clone();
        drop(self);
        settings.start().await
    }

    /// Waits until it says that it is ready.
    pub async fn becomes_ready(&self) {
        eventually(PATIENCE * 2, "readiness", async || {
            (self.get("/readyz?store").await.status == 200).then_some(())
        })
        .await;
    }

    /// # Panics
    /// When a thread of it panicked; shows where.
    pub fn assert_sound(&self) {
        let log = self.process.log();
        if let Some(line) = log.lines().find(|line| line.contains(PANICKED)) {
            panic!("the gateway panicked: {line}\nits log:\n{log}");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.process.signal(Signal::CONT);
        self.process.kill();
        if std::thread::panicking() {
            let log = self.process.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(60);
            eprintln!("the gateway's last lines:\n{}", lines[from..].join("\n"));
        } else {
            self.assert_sound();
        }
    }
}

fn read_run_file(path: &Path) -> Option<RunFile> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn texts(items: &[&str]) -> Vec<Value> {
    items.iter().map(|text| Value::from(*text)).collect()
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Writes a file that its own user alone can read, as a file of devices should be.
fn write_secret(path: &Path, text: &str) {
    let mut file = OpenOptions::new();
    let mut file = file
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .expect("the temporary folder can be written");
    file.write_all(text.as_bytes()).expect("the temporary folder can be written");
}
