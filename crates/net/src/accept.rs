//! The accept loop of every stream listener.
//!
//! Owns: binding, permits, accept errors, and taking each connection through its handshake in a task of its own under a
//! deadline. Does not own: what is spoken on the stream ([`Serve`]), limits' counts (`limit`), TLS and WebSocket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use crate::ws::{self, WsStream};
use crate::{
    BindError, Endpoint, Gate, LimitReached, PeerCertificate, Permit, Scope, Stream, StreamKind, Tls,
    TlsStream,
};

/// How long accepting pauses when the process or the system is out of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often the same accept trouble is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How connections are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptSettings {
    /// From the TCP connection to the end of the TLS handshake and the WebSocket upgrade, together.
    pub handshake_timeout: Duration,
}

impl Default for AcceptSettings {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10) }
    }
}

/// A connection that is ready for its protocol.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The bytes.
    pub stream: S,
    /// The peer. An IPv4 peer of an IPv6 socket is told as IPv4.
    pub remote: SocketAddr,
    /// The address that it came to.
    pub local: SocketAddr,
    /// What the stream is wrapped in.
    pub kind: StreamKind,
    /// The client's certificate, if it showed one and `tls.client_ca` is set.
    pub certificate: Option<Box<PeerCertificate>>,
    /// Its place among the connections; give it back by dropping it with the stream.
    pub permit: Permit,
}

/// Why a connection was closed before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A limit of the gate.
    Limit(LimitReached),
    /// The TLS handshake failed or was not finished in time.
    TlsFailed,
    /// The WebSocket upgrade was no request for MQTT over WebSocket, or was not finished in time.
    Malformed,
}

/// Serves connections.
pub trait Serve: Send + Sync + 'static {
    /// Speaks the protocol on one connection until it ends. Runs in a task of its own, which is exactly as large as this
    /// future: the handshake is over and freed. It should end soon after its scope is cancelled.
    fn serve<S: Stream>(
        self: Arc<Self>,
        connection: Accepted<S>,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// A connection was closed before it was served. Called for each, from the accept loop or a handshake's task: must
    /// not block, and must bound what it logs and publishes.
    fn refused(&self, remote: SocketAddr, kind: StreamKind, why: Refusal);
}

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    endpoint: Endpoint,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Connections that the kernel keeps until they are accepted (it may cap this: `net.core.somaxconn`).
    pub const BACKLOG: u32 = 4096;

    /// Binds. Of a name with several addresses the first that can be bound is taken.
    ///
    /// # Errors
    /// [`BindError`]; also when `tls://` or `wss://` comes without `tls`.
    pub async fn bind(endpoint: &Endpoint, tls: Option<Arc<Tls>>) -> Result<Self, BindError> {
        let named = || endpoint.to_string();
        if endpoint.kind().is_tls() && tls.is_none() {
            return Err(BindError::NoTls { endpoint: named(), scheme: endpoint.kind().scheme() });
        }
        let tls = tls.filter(|_| endpoint.kind().is_tls());
        let addresses = lookup_host((endpoint.host(), endpoint.port()))
            .await
            .map_err(|source| BindError::Lookup { endpoint: named(), source })?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match bind_one(address).and_then(|socket| Ok((socket.local_addr()?, socket))) {
                Ok((local, socket)) => return Ok(Self { socket, endpoint: endpoint.bound_to(local), tls }),
                Err(source) => last = source,
            }
        }
        Err(BindError::Bind { endpoint: named(), source: last })
    }

    /// Where it listens, with the port that it got.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Starts accepting in `scope`, and gives each connection to `handler` in a task of its own in `scope`. When the
    /// scope is cancelled the socket is closed, and so is everything that is still in a handshake.
    pub fn run<H: Serve>(self, scope: &Scope, handler: Arc<H>, gate: Arc<Gate>, settings: AcceptSettings) {
        let Self { socket, endpoint, tls } = self;
        let door = Arc::new(Door { endpoint, tls, scope: scope.clone(), handler, gate, settings });
        scope.spawn(accept_all(socket, door));
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A gateway that is started again gets its port at once, whatever old connections linger there.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(Listener::BACKLOG)
}

/// What the connections of one listener share.
struct Door<H> {
    endpoint: Endpoint,
    tls: Option<Arc<Tls>>,
    scope: Scope,
    handler: Arc<H>,
    gate: Arc<Gate>,
    settings: AcceptSettings,
}

/// A connection that is in, and not yet through its handshake.
struct Arrival {
    stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
    permit: Permit,
}

async fn accept_all<H: Serve>(socket: TcpListener, door: Arc<Door<H>>) {
    let mut trouble = Trouble::default();
    loop {
        let next = tokio::select! {
            biased;
            () = door.scope.cancelled() => return,
            next = socket.accept() => next,
        };
        match next {
            Ok((stream, remote)) => admit(&door, stream, remote),
            Err(error) if is_exhausted(&error) => {
                trouble.tell(&door.endpoint, &error);
                // The connection stays in the backlog, so accepting again at once would only spin.
                tokio::select! {
                    () = door.scope.cancelled() => return,
                    () = sleep(EXHAUSTED_PAUSE) => {}
                }
            }
            // The peer of that one connection went away before it was accepted.
            Err(error) => {
                tracing::debug!(endpoint = %door.endpoint, %error, "a connection was gone before it was accepted");
            }
        }
    }
}

fn admit<H: Serve>(door: &Arc<Door<H>>, stream: TcpStream, remote: SocketAddr) {
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let kind = door.endpoint.kind();
    let permit = match door.gate.enter(remote.ip()) {
        Ok(permit) => permit,
        Err(limit) => return door.handler.refused(remote, kind, Refusal::Limit(limit)),
    };
    // Both fail only when the peer has gone already, which its first read will tell.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let arrival = Arrival { stream, remote, local, permit };
    if kind == StreamKind::Tcp {
        serve(door, arrival.stream, arrival.remote, arrival.local, arrival.permit, None);
    } else {
        door.scope.spawn(shake(Arc::clone(door), arrival));
    }
}

fn serve<H: Serve, S: Stream>(
    door: &Door<H>,
    stream: S,
    remote: SocketAddr,
    local: SocketAddr,
    permit: Permit,
    certificate: Option<Box<PeerCertificate>>,
) {
    let accepted = Accepted { stream, remote, local, kind: door.endpoint.kind(), certificate, permit };
    door.scope.spawn(Arc::clone(&door.handler).serve(accepted));
}

/// A connection after its handshake.
enum Shaken {
    Tls(TlsStream),
    Ws(WsStream<TcpStream>),
    Wss(WsStream<TlsStream>),
    /// It went away before its first byte, like a port scan or a health check: nothing was refused.
    Gone,
}

/// Takes one connection through its handshake and starts its serving, as another task: this one is freed.
async fn shake<H: Serve>(door: Arc<Door<H>>, arrival: Arrival) {
    let Arrival { stream, remote, local, permit } = arrival;
    let began = Instant::now();
    let shaken = tokio::select! {
        biased;
        () = door.scope.cancelled() => return,
        shaken = timeout(door.settings.handshake_timeout, handshake(&door, stream)) => shaken,
    };
    let kind = door.endpoint.kind();
    let failure = match shaken {
        Ok(Ok(Shaken::Tls(stream))) => {
            let certificate = stream.peer_certificate().map(Box::new);
            return serve(&door, stream, remote, local, permit, certificate);
        }
        Ok(Ok(Shaken::Ws(stream))) => return serve(&door, stream, remote, local, permit, None),
        Ok(Ok(Shaken::Wss(stream))) => {
            let certificate = stream.get_ref().peer_certificate().map(Box::new);
            return serve(&door, stream, remote, local, permit, certificate);
        }
        Ok(Ok(Shaken::Gone)) => return,
        Ok(Err(failure)) => failure,
        Err(_) if kind.is_tls() => Failure::Tls(io::ErrorKind::TimedOut.into()),
        Err(_) => Failure::Upgrade(io::ErrorKind::TimedOut.into()),
    };
    let (why, error) = match failure {
        Failure::Tls(error) => (Refusal::TlsFailed, error),
        Failure::Upgrade(error) => (Refusal::Malformed, error),
    };
    tracing::debug!(%remote, kind = kind.scheme(), ?error, after_ms = began.elapsed().as_millis(), "handshake failed");
    door.handler.refused(remote, kind, why);
}

/// At which step a handshake failed.
enum Failure {
    Tls(io::Error),
    Upgrade(io::Error),
}

async fn handshake<H: Serve>(door: &Door<H>, stream: TcpStream) -> Result<Shaken, Failure> {
    // Nothing is allocated for a client that says nothing.
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => return Ok(Shaken::Gone),
        Ok(_) => {}
    }
    let kind = door.endpoint.kind();
    let path = door.endpoint.path();
    match &door.tls {
        None => ws::upgrade(stream, path).await.map(Shaken::Ws).map_err(Failure::Upgrade),
        Some(tls) => {
            let stream = tls.accept(stream, kind).await.map_err(Failure::Tls)?;
            if kind.is_websocket() {
                ws::upgrade(stream, path).await.map(Shaken::Wss).map_err(Failure::Upgrade)
            } else {
                Ok(Shaken::Tls(stream))
            }
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Tells of trouble that comes many times a second, now and then.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
    untold: u64,
}

impl Trouble {
    fn tell(&mut self, endpoint: &Endpoint, error: &io::Error) {
        if self.told.is_some_and(|told| told.elapsed() < LOG_EVERY) {
            self.untold += 1;
            return;
        }
        tracing::warn!(%endpoint, %error, untold = self.untold, "cannot accept connections for now");
        *self = Self { told: Some(Instant::now()), untold: 0 };
    }
}
