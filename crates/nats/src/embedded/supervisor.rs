//! The thread that starts the server, watches it, starts it again.
//!
//! Owns: the process and its restarts. Does not own: its files ([`super::store`]).

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::store::{LOOK_INTERVAL, StoreDir};
use super::{CHILD_COMMAND, EmbeddedError, EmbeddedSettings, EmbeddedState, Password, find};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A server that ran for this long is started again without a pause that earlier deaths have earned.
const GOOD_RUN: Duration = Duration::from_secs(30);
/// How often the length of its log is looked at.
const LOG_LOOKS: Duration = Duration::from_secs(60);
/// How long the server may take to greet a connection.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

type Stop = oneshot::Receiver<Duration>;

/// The thread's whole life. It starts the children itself and ends after them, because their death signal hangs on it.
pub(super) fn run(
    settings: (EmbeddedSettings, Password),
    state: watch::Sender<EmbeddedState>,
    started: oneshot::Sender<Result<(), EmbeddedError>>,
    stop: Stop,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(supervise(settings, state, started, stop)),
        Err(error) => {
            let _ = started.send(Err(EmbeddedError::Failed { why: error.to_string(), said: String::new() }));
        }
    }
}

async fn supervise(
    settings: (EmbeddedSettings, Password),
    state: watch::Sender<EmbeddedState>,
    started: oneshot::Sender<Result<(), EmbeddedError>>,
    mut stop: Stop,
) {
    let starting = async {
        let mut supervisor = Supervisor::new(settings, state).await?;
        let server = supervisor.start().await?;
        Ok((supervisor, server))
    };
    let running = tokio::select! {
        // Nobody waits for the start any more. What is on its way up is killed.
        _ = &mut stop => return,
        running = starting => running,
    };
    match running {
        Ok((mut supervisor, server)) => {
            // If nobody hears it, the other end of `stop` is gone as well.
            let _ = started.send(Ok(()));
            supervisor.keep_running(server, &mut stop).await;
        }
        Err(error) => drop(started.send(Err(error))),
    }
}

struct Supervisor {
    settings: EmbeddedSettings,
    password: Password,
    program: std::path::PathBuf,
    store: StoreDir,
    port: u16,
    state: watch::Sender<EmbeddedState>,
}

/// One process of the server.
struct Server {
    child: Child,
    pid: u32,
    since: Instant,
    log_begins: u64,
}

impl Supervisor {
    async fn new(
        (settings, password): (EmbeddedSettings, Password),
        state: watch::Sender<EmbeddedState>,
    ) -> Result<Self, EmbeddedError> {
        let program = find::find(settings.server.as_deref()).await?;
        let store = StoreDir::open(&settings.store_dir)?;
        store.end_leftover().await?;
        Ok(Self { port: settings.port, settings, password, program, store, state })
    }

    /// Starts a process and waits until it serves.
    async fn start(&mut self) -> Result<Server, EmbeddedError> {
        let mut server = self.spawn()?;
        let up = timeout(self.settings.start_timeout, self.comes_up(&mut server)).await;
        let why = match up {
            Ok(Ok(())) => return Ok(server),
            Ok(Err(status)) => format!("it ended with {status}"),
            Err(_) => format!("it does not accept connections within {:?}", self.settings.start_timeout),
        };
        self.end(&mut server, Duration::ZERO).await;
        Err(EmbeddedError::Failed { why, said: self.store.last_words(server.log_begins) })
    }

    fn spawn(&self) -> Result<Server, EmbeddedError> {
        self.store.configure(&self.settings, &self.password, self.port)?;
        let (out, err, log_begins) = self.store.open_log()?;
        let mut command = match &self.settings.launcher {
            Some(launcher) => {
                let mut command = Command::new(launcher);
                command.arg(CHILD_COMMAND).arg(getpid().as_raw_nonzero().to_string()).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg("-c").arg(self.store.configuration());
        // A process group of its own: a Ctrl-C at the terminal is for the gateway, which stops the server last.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).kill_on_drop(true);
        let failed = |why: String| EmbeddedError::Failed { why, said: String::new() };
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let pid = child.id().ok_or_else(|| failed("it has no process id".to_owned()))?;
        self.store.note_pid(pid);
        self.state.send_modify(|state| state.pid = Some(pid));
        Ok(Server { child, pid, since: Instant::now(), log_begins })
    }

    /// Waits until the server accepts connections; an error is its end.
    async fn comes_up(&mut self, server: &mut Server) -> Result<(), ExitStatus> {
        loop {
            if self.port == 0
                && let Some(port) = self.store.port_of(server.pid)
            {
                self.port = port;
            }
            if self.port != 0 && greets(self.port).await {
                break;
            }
            tokio::select! {
                status = server.child.wait() => return Err(status.unwrap_or_default()),
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
        // Another program on a configured port greets too, while ours has failed to take it.
        if let Ok(Some(status)) = server.child.try_wait() {
            return Err(status);
        }
        let port = self.port;
        self.state.send_modify(|state| {
            state.port = port;
            state.serving = true;
        });
        tracing::info!(pid = server.pid, port, store = %self.settings.store_dir.display(), "nats-server runs");
        Ok(())
    }

    /// Starts the server again whenever it dies, until it is to stop.
    async fn keep_running(&mut self, mut server: Server, stop: &mut Stop) {
        let mut pause = FIRST_PAUSE;
        loop {
            let status = tokio::select! {
                within = &mut *stop => return self.finish(Some(server), within.unwrap_or_default()).await,
                status = self.watched(&mut server) => status,
            };
            if server.since.elapsed() >= GOOD_RUN {
                pause = FIRST_PAUSE;
            }
            loop {
                self.gone();
                tracing::error!(status, again_in = ?pause, "nats-server died");
                tokio::select! {
                    within = &mut *stop => return self.finish(None, within.unwrap_or_default()).await,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                self.state.send_modify(|state| state.restarts += 1);
                let restarted = tokio::select! {
                    // Dropping the process on its way up kills it.
                    within = &mut *stop => return self.finish(None, within.unwrap_or_default()).await,
                    restarted = self.start() => restarted,
                };
                match restarted {
                    Ok(restarted) => break server = restarted,
                    Err(error) => tracing::error!(%error, "nats-server"),
                }
            }
        }
    }

    /// Returns how the server ended. Keeps its log short until then.
    async fn watched(&self, server: &mut Server) -> String {
        let mut looks = tokio::time::interval(LOG_LOOKS);
        loop {
            tokio::select! {
                status = server.child.wait() => return status.map_or_else(|error| error.to_string(), |s| s.to_string()),
                _ = looks.tick() => if self.store.shorten_log() { server.log_begins = 0 },
            }
        }
    }

    /// Stops the server in order.
    async fn finish(&mut self, server: Option<Server>, within: Duration) {
        if let Some(mut server) = server {
            self.end(&mut server, within).await;
        }
        self.gone();
        self.store.forget_pid();
        tracing::info!("nats-server has stopped");
    }

    /// Ends a process: asks it to, and kills it when it has not ended in time.
    async fn end(&self, server: &mut Server, within: Duration) {
        if !within.is_zero() {
            if let Some(pid) = i32::try_from(server.pid).ok().and_then(Pid::from_raw)
                && matches!(server.child.try_wait(), Ok(None))
            {
                // It is our child and not yet waited for, so the id is still its own.
                let _ = kill_process(pid, Signal::TERM);
            }
            if timeout(within, server.child.wait()).await.is_ok() {
                return;
            }
            tracing::warn!(pid = server.pid, "nats-server does not stop in time and is killed");
        }
        // Waits for its end as well.
        if let Err(error) = server.child.kill().await {
            tracing::debug!(%error, "killing nats-server");
        }
    }

    fn gone(&self) {
        self.state.send_modify(|state| {
            state.pid = None;
            state.serving = false;
        });
    }
}

/// Does a NATS server accept connections on the port? It speaks first.
async fn greets(port: u16) -> bool {
    let greeting = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut line = String::new();
        BufReader::new(stream.take(64)).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line.starts_with("INFO "))
    };
    matches!(timeout(GREETING_TIMEOUT, greeting).await, Ok(Ok(true)))
}
