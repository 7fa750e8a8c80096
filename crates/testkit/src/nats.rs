//! A real nats-server with JetStream on a port of its own, which a test may kill, freeze and start again.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use async_nats::{ConnectOptions, ServerAddr};
use tempfile::TempDir;

use crate::paths;
use crate::process::{Process, Signal};
use crate::wait::{PATIENCE, within};

/// Below the range from which the kernel takes ports for outgoing connections, so that a server that is down for a while
/// finds its port free again.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 18_000;

/// A port that no other test takes until this is dropped: a lock on a file says so to the other processes.
#[derive(Debug)]
struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    fn take() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("landfall-testkit-ports");
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        // Processes begin at different places, so that they seldom meet.
        let start = (std::process::id().wrapping_mul(7919) % u32::from(PORTS)) as u16;
        for _ in 0..PORTS {
            let number = FIRST_PORT + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
            let file =
                File::create(folder.join(number.to_string())).expect("the temporary folder can be written");
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => panic!("the lock of a port: {error}"),
            }
            if std::net::TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: file };
            }
        }
        panic!("no port from {FIRST_PORT} to {} is free", FIRST_PORT + PORTS);
    }
}

/// A nats-server with JetStream on loopback. Its store and its port outlive its process, not this value.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    port: Port,
    store: TempDir,
    more: Vec<String>,
}

impl NatsServer {
    /// Starts one with an empty store.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with further command-line arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(more: &[&str]) -> Self {
        let store = tempfile::tempdir().expect("a temporary folder");
        let more = more.iter().map(|text| (*text).to_owned()).collect();
        let mut server = Self { process: None, port: Port::take(), store, more };
        server.restart().await;
        server
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }

    /// Its port, the same after every restart.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Where it keeps its streams.
    pub fn store(&self) -> &Path {
        self.store.path()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Freezes it: its connections stay open and nothing answers (SIGSTOP).
    pub fn freeze(&self) {
        self.running().freeze();
    }

    /// Lets a frozen one go on (SIGCONT).
    pub fn thaw(&self) {
        self.running().signal(Signal::CONT);
    }

    /// Starts it on the same port with the same store, ending it first when it runs.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self) {
        self.process = None;
        let mut command = Command::new(paths::nats_server());
        command.args(["-a", "127.0.0.1", "-p", &self.port.number.to_string(), "-js", "-sd"]);
        command.arg(self.store.path()).args(&self.more);
        let process = Process::spawn("nats-server", command);
        process.logged("Server is ready", PATIENCE).await;
        self.process = Some(process);
    }

    /// A plain NATS client, which reconnects for as long as it takes.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> async_nats::Client {
        client(&self.url()).await
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the nats-server runs")
    }
}

/// A plain NATS client of the server at `url`, which reconnects for as long as it takes.
///
/// # Panics
/// When it cannot connect.
pub async fn client(url: &str) -> async_nats::Client {
    let address: ServerAddr = url.parse().expect("the URL of a nats-server");
    // The library leaves what a URL says of the user to its caller.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::new().user_and_password(user.to_owned(), password.to_owned())
        }
        _ => ConnectOptions::new(),
    };
    let options = options
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|_| std::time::Duration::from_millis(50))
        .subscription_capacity(1 << 20);
    let client = options.connect(address).await.expect("the URL of a nats-server");
    within(PATIENCE, "a connection to nats-server", client.flush())
        .await
        .expect("a connection to nats-server");
    client
}
