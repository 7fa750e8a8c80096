//! The accept loop of every stream listener.
//!
//! Owns: binding, permits, accept errors, and taking each connection through its handshake in a task of its own under a
//! deadline. Does not own: what is spoken on the stream ([`Serve`]), limits' counts (`limit`), TLS and WebSocket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use landfall_event::RefusedDetail;
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use crate::proxy::read_header;
use crate::tls;
use crate::ws::{self, Origins, WsStream};
use crate::{
    BindError, Endpoint, Gate, LimitReached, Network, PeerCertificate, Permit, Scope, Stream, StreamKind,
    Tls, TlsStream,
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
    /// The peer, or whom a balancer that is believed says it is. An IPv4 peer of an IPv6 socket is told as IPv4.
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
    TlsFailed(RefusedDetail),
    /// The WebSocket upgrade was no request for MQTT over WebSocket, or was not finished in time.
    Malformed(RefusedDetail),
    /// A balancer that is believed sent no PROXY header, none that can be read, or none in time.
    NoProxyHeader,
    /// The WebSocket was asked for by a page of an origin that is not admitted.
    Origin,
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
    /// Whose connections begin with a PROXY header.
    balancers: Arc<[Network]>,
    origins: Arc<Origins>,
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
                Ok((local, socket)) => {
                    let (balancers, origins) = (Arc::default(), Arc::default());
                    return Ok(Self { socket, endpoint: endpoint.bound_to(local), tls, balancers, origins });
                }
                Err(source) => last = source,
            }
        }
        Err(BindError::Bind { endpoint: named(), source: last })
    }

    /// Every connection from these networks begins with a PROXY header, which says whose it is. Others come without one.
    #[must_use]
    pub fn behind(self, balancers: Arc<[Network]>) -> Self {
        Self { balancers, ..self }
    }

    /// Which web pages may open a WebSocket; without this, those of the same host.
    #[must_use]
    pub fn admitting(self, origins: Arc<Origins>) -> Self {
        Self { origins, ..self }
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
        let Self { socket, endpoint, tls, balancers, origins } = self;
        let (scope, trouble) = (scope.clone(), Mutex::default());
        let door = Door {
            endpoint,
            tls,
            balancers,
            origins,
            scope: scope.clone(),
            handler,
            gate,
            settings,
            trouble,
        };
        let door = Arc::new(door);
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
    balancers: Arc<[Network]>,
    origins: Arc<Origins>,
    scope: Scope,
    handler: Arc<H>,
    gate: Arc<Gate>,
    settings: AcceptSettings,
    /// With the balancers.
    trouble: Mutex<Trouble>,
}

/// A connection that is in, and not yet through its handshake.
struct Arrival {
    stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
    permit: Permit,
    /// It has to begin with a PROXY header; `remote` is the balancer until then.
    is_proxied: bool,
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
                if let Some(untold) = trouble.next() {
                    let endpoint = &door.endpoint;
                    tracing::warn!(%endpoint, %error, untold, "cannot accept connections for now");
                }
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
    let is_proxied = door.balancers.iter().any(|network| network.contains(remote.ip()));
    let entered = if is_proxied { door.gate.enter_unnamed() } else { door.gate.enter(remote.ip()) };
    let permit = match entered {
        Ok(permit) => permit,
        Err(limit) => return door.handler.refused(remote, kind, Refusal::Limit(limit)),
    };
    // Both fail only when the peer has gone already, which its first read will tell.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let arrival = Arrival { stream, remote, local, permit, is_proxied };
    if kind == StreamKind::Tcp && !is_proxied {
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
    Tcp(TcpStream),
    Tls(TlsStream),
    Ws(WsStream<TcpStream>),
    Wss(WsStream<TlsStream>),
    /// It went away before its first byte, like a port scan or a health check: nothing was refused.
    Gone,
}

/// Takes one connection through its handshake and starts its serving, as another task: this one is freed.
async fn shake<H: Serve>(door: Arc<Door<H>>, arrival: Arrival) {
    let Arrival { stream, mut remote, local, mut permit, mut is_proxied } = arrival;
    let began = Instant::now();
    let shaking = handshake(&door, stream, (&mut remote, &mut permit, &mut is_proxied));
    let shaken = tokio::select! {
        biased;
        () = door.scope.cancelled() => return,
        shaken = timeout(door.settings.handshake_timeout, shaking) => shaken,
    };
    let kind = door.endpoint.kind();
    let failure = match shaken {
        Ok(Ok(Shaken::Tcp(stream))) => return serve(&door, stream, remote, local, permit, None),
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
        Err(_) if is_proxied => Failure::Proxy(io::ErrorKind::TimedOut.into()),
        Err(_) if kind.is_tls() => Failure::Tls(io::ErrorKind::TimedOut.into()),
        Err(_) => Failure::Upgrade(io::ErrorKind::TimedOut.into()),
    };
    let (why, error) = match failure {
        Failure::Limit(limit) => return door.handler.refused(remote, kind, Refusal::Limit(limit)),
        Failure::Proxy(error) => {
            if let Some(untold) = door.trouble.lock().next() {
                tracing::warn!(
                    endpoint = %door.endpoint, balancer = %remote, %error, untold,
                    "a balancer sent no PROXY header: mqtt.proxy_protocol and mqtt.proxy_networks say that it does"
                );
            }
            (Refusal::NoProxyHeader, error)
        }
        Failure::Tls(error) => (Refusal::TlsFailed(tls::detail_of(&error)), error),
        Failure::Upgrade(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            (Refusal::Origin, error)
        }
        Failure::Upgrade(error) => (Refusal::Malformed(ws::detail_of(&error)), error),
    };
    tracing::debug!(%remote, kind = kind.scheme(), ?error, after_ms = began.elapsed().as_millis(), "handshake failed");
    door.handler.refused(remote, kind, why);
}

/// At which step a handshake failed.
enum Failure {
    Proxy(io::Error),
    Limit(LimitReached),
    Tls(io::Error),
    Upgrade(io::Error),
}

async fn handshake<H: Serve>(
    door: &Door<H>,
    mut stream: TcpStream,
    (remote, permit, is_proxied): (&mut SocketAddr, &mut Permit, &mut bool),
) -> Result<Shaken, Failure> {
    // Nothing is allocated for a client that says nothing.
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => return Ok(Shaken::Gone),
        Ok(_) => {}
    }
    if *is_proxied {
        let named = read_header(&mut stream).await.map_err(Failure::Proxy)?;
        *is_proxied = false;
        // A balancer's own connections are its own: it looks whether we live.
        *remote = named.unwrap_or(*remote);
        permit.name(remote.ip()).map_err(Failure::Limit)?;
    }
    let kind = door.endpoint.kind();
    let (path, origins) = (door.endpoint.path(), &door.origins);
    match &door.tls {
        None if kind == StreamKind::Tcp => Ok(Shaken::Tcp(stream)),
        None => ws::upgrade(stream, path, origins).await.map(Shaken::Ws).map_err(Failure::Upgrade),
        Some(tls) => {
            let stream = tls.accept(stream, kind).await.map_err(Failure::Tls)?;
            if kind.is_websocket() {
                ws::upgrade(stream, path, origins).await.map(Shaken::Wss).map_err(Failure::Upgrade)
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
    /// May it be told now? Then how often it was not since the last time.
    fn next(&mut self) -> Option<u64> {
        if self.told.is_some_and(|told| told.elapsed() < LOG_EVERY) {
            self.untold += 1;
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.untold))
    }
}
