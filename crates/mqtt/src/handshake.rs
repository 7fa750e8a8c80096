//! Lets a client in: CONNECT, identity, the session's beginning, CONNACK.
//!
//! Everything that may turn a client away comes first, under one deadline. The session begins when nothing can but the store,
//! which has a time of its own; a client whose session has begun is let in.
//!
//! Owns: the order of those steps, and what a client is told that is not let in. Does not own: who it is (the
//! `Authenticator`), the session (`landfall-hub`), the bytes (`landfall-mqtt-core`).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use landfall_event::{DeviceId, PublishProperties, Reason, RefusedCause, RefusedDetail, TenantId, Transport};
use landfall_hub::{
    Attempt, AuthError, Credentials, Hello, OpenError, PeerCertificate, Principal, Protocol, Secret,
    SessionHandle, Uplink, Will,
};
use landfall_mqtt_core::{Accept, Action, ConnectRequest, Connection, Refusal, Version};
use landfall_net::{Accepted, Permit, Stream};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::conn::{Conn, FAREWELL};
use crate::listener::{MqttServer, transport};
use crate::sessions::{Hold, Taken};

/// The longest client id in bytes: it stands in every `connected` and in memory for as long as the session.
const MAX_CLIENT_ID: usize = 256;

/// What a handshake of TLS begins with: no CONNECT does.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// A client on its way in.
pub(crate) struct Newcomer<S> {
    caller: Caller,
    stream: S,
    permit: Permit,
    core: Connection,
    input: BytesMut,
    out: BytesMut,
}

/// Who calls, and whom.
struct Caller {
    server: Arc<MqttServer>,
    transport: Transport,
    remote: SocketAddr,
    certificate: Option<PeerCertificate>,
}

/// A client that may come in.
struct Admissible {
    hello: Hello,
    /// Its MQTT session outlives the connection.
    lasting: bool,
    /// The keep-alive that holds for it, in seconds.
    keep_alive: u16,
}

/// A client that was let in.
struct Admitted {
    handle: SessionHandle,
    hold: Option<Box<Hold>>,
    keep_alive: u16,
}

/// Why a client was not let in, as it is told.
struct Turned {
    refusal: Refusal,
    cause: Option<RefusedCause>,
    /// Who it is, where it has proven it.
    device: Option<(TenantId, DeviceId)>,
    /// The topic of a will that it may not publish.
    topic: Option<Arc<str>>,
}

/// A client that sent no CONNECT.
enum Gone {
    /// It left.
    Silently,
    /// The answer is in `out`.
    Told,
}

impl Turned {
    fn because(cause: RefusedCause) -> Self {
        Self { refusal: cause.into(), cause: Some(cause), device: None, topic: None }
    }

    /// It has proven who it is.
    fn of(self, principal: &Principal) -> Self {
        Self { device: Some((principal.tenant.clone(), principal.device.clone())), ..self }
    }

    /// Nothing is wrong with the client; it may come back.
    fn for_now(refusal: Refusal) -> Self {
        Self { refusal, cause: None, device: None, topic: None }
    }
}

impl<S: Stream> Newcomer<S> {
    pub(crate) fn new(server: Arc<MqttServer>, accepted: Accepted<S>) -> Self {
        let core = Connection::new(Arc::clone(&server.config().limits));
        let shown = |shown: Box<landfall_net::PeerCertificate>| PeerCertificate {
            common_name: shown.common_name,
            fingerprint: shown.fingerprint,
        };
        let caller = Caller {
            server,
            transport: transport(accepted.kind),
            remote: accepted.remote,
            certificate: accepted.certificate.map(shown),
        };
        let (stream, permit) = (accepted.stream, accepted.permit);
        Self { caller, stream, permit, core, input: BytesMut::new(), out: BytesMut::new() }
    }

    /// Returns the connection when the client is let in; else it has been told and the socket is closed.
    pub(crate) async fn welcome(mut self) -> Option<Box<Conn<S>>> {
        let deadline = Instant::now() + self.caller.server.config().connect_timeout;
        // A client that says nothing in time is closed without a word: it may not even speak MQTT.
        let request = match tokio::time::timeout_at(deadline, self.connect_request()).await.ok()? {
            Ok(request) => request,
            Err(Gone::Silently) => return None,
            Err(Gone::Told) => {
                self.say_and_close().await;
                return None;
            }
        };
        match self.caller.admit(&request, deadline).await {
            Ok(admitted) => Some(self.accept(&request, admitted)),
            Err(turned) => {
                self.caller.refuse(&request, &turned);
                self.core.refuse(turned.refusal, &mut self.out);
                self.say_and_close().await;
                None
            }
        }
    }

    /// Says the last word and closes, in the background of nobody: this is the connection's own task.
    async fn say_and_close(mut self) {
        let patience = self.caller.server.config().connect_timeout;
        if let Ok(Ok(())) = tokio::time::timeout(patience, self.stream.write_all(&self.out)).await {
            landfall_net::close(self.stream, FAREWELL).await;
        }
    }

    /// Reads until CONNECT is complete.
    async fn connect_request(&mut self) -> Result<Box<ConnectRequest>, Gone> {
        loop {
            let is_tls = self.input.starts_with(&TLS_HANDSHAKE);
            match self.core.poll(&mut self.input, &mut self.out) {
                Some(Action::Connect(request)) => return Ok(request),
                Some(Action::Fault(fault)) => {
                    self.caller.server.faults().tell_stranger(self.caller.remote, &fault);
                    let detail = if is_tls { RefusedDetail::TlsBytes.as_str() } else { fault.detail };
                    self.caller.server.hub().refused(&self.caller.attempt(fault.cause).with_detail(detail));
                    return Err(Gone::Told);
                }
                Some(_) => return Err(Gone::Silently),
                None => {}
            }
            if !matches!(landfall_net::receive(&mut self.stream, &mut self.input).await, Ok(1..)) {
                return Err(Gone::Silently);
            }
        }
    }

    fn accept(
        mut self,
        request: &ConnectRequest,
        Admitted { handle, hold, keep_alive }: Admitted,
    ) -> Box<Conn<S>> {
        let sessions = self.caller.server.sessions();
        let left = hold.as_ref().and_then(|hold| sessions.take(hold, request.clean_start));
        let Taken { state, queue, flying, owed } = left.unwrap_or_default();
        let assigned = request.client_id.is_empty().then(|| handle.remote_id());
        let accept = Accept {
            assigned_client_id: assigned,
            keep_alive: Some(keep_alive),
            session_expiry: None,
            key: rand::random(),
        };
        self.core.accept(&accept, state, &mut self.out);
        let hold = match hold {
            Some(hold) if self.core.session_expiry() == 0 => {
                self.caller.server.sessions().let_go(hold);
                None
            }
            hold => hold,
        };
        let streams = (self.stream, self.permit, self.core);
        let left = (queue, flying, owed);
        Conn::new(self.caller.server, streams, (self.input, self.out), (handle, hold), left)
    }
}

/// A slice would keep the whole CONNECT alive.
fn publish_properties(will: &landfall_mqtt_core::Will) -> PublishProperties {
    PublishProperties {
        response_topic: will.response_topic.clone(),
        correlation_data: will.correlation_data.as_deref().map(Bytes::copy_from_slice),
        expiry_ms: will.message_expiry.map(|seconds| u64::from(seconds) * 1000),
        is_utf8: will.payload_is_utf8,
    }
}

impl Caller {
    async fn admit(&self, request: &ConnectRequest, deadline: Instant) -> Result<Admitted, Turned> {
        let unavailable = || Turned::for_now(Refusal::ServerUnavailable);
        let Admissible { hello, lasting, keep_alive } =
            tokio::time::timeout_at(deadline, self.judge(request))
                .await
                .unwrap_or_else(|_| Err(unavailable()))?;
        let key = (hello.principal.tenant.clone(), hello.principal.device.clone());
        let principal = hello.principal.clone();
        let patience = self.server.config().connect_timeout;
        let opened = tokio::time::timeout(patience, self.server.hub().open(hello)).await;
        let handle = opened.unwrap_or(Err(OpenError::Away)).map_err(|error| match error {
            OpenError::Full => Turned::because(RefusedCause::LimitReached).of(&principal),
            OpenError::Withdrawn => Turned::because(RefusedCause::BadCredentials),
            OpenError::Draining | OpenError::NotStored | OpenError::Away => unavailable(),
        })?;
        // Without a deadline: the earlier connection has been told to leave, and waits for nobody.
        let hold = self.server.sessions().hold(key, lasting).await;
        Ok(Admitted { handle, hold, keep_alive })
    }

    /// All that may turn the client away before anything has happened.
    async fn judge(&self, request: &ConnectRequest) -> Result<Admissible, Turned> {
        // Before anything is asked of the store, or much of the processor.
        if self.server.hub().is_shut() {
            return Err(Turned::for_now(Refusal::ServerUnavailable));
        }
        if request.client_id.len() > MAX_CLIENT_ID || request.client_id.chars().any(char::is_control) {
            return Err(Turned::because(RefusedCause::Malformed));
        }
        let credentials = Credentials {
            transport: self.transport,
            remote_address: self.remote,
            client_id: self.client_id(request),
            username: request.username.clone(),
            password: request.password.clone().map(Secret::new),
            signature: None,
            certificate: self.certificate.clone(),
        };
        let principal = match self.server.auth().authenticate(&credentials).await {
            Ok(principal) => principal,
            Err(AuthError::Refused(cause)) => return Err(Turned::because(cause)),
            Err(AuthError::Unavailable) => return Err(Turned::for_now(Refusal::ServerUnavailable)),
        };
        if let Some(will) = request.will.as_ref().filter(|will| !principal.acl.may_publish(&will.topic)) {
            let topic = Some(Arc::clone(&will.topic));
            return Err(Turned { topic, ..Turned::because(RefusedCause::NotAuthorized).of(&principal) });
        }
        let key = (principal.tenant.clone(), principal.device.clone());
        let keep_alive = self.server.keep_alive(request.keep_alive, principal.keep_alive);
        let lasting = request.session_expiry.min(self.server.config().limits.max_session_expiry) > 0;
        // Asked before anything has happened: a client that is turned away must not take over the session that it has.
        if lasting && !self.server.sessions().may_keep(&key) {
            return Err(Turned::because(RefusedCause::LimitReached).of(&principal));
        }
        if self.server.hub().until_sessions_begin().await.is_err() {
            return Err(Turned::for_now(Refusal::ServerUnavailable));
        }
        let hello = self.hello(request, principal, credentials.client_id);
        Ok(Admissible { hello, lasting, keep_alive })
    }

    /// The name of a client that gives none is made of the connection's session; 5.0 clients are told.
    fn client_id(&self, request: &ConnectRequest) -> Arc<str> {
        if request.client_id.is_empty() {
            self.server.make_client_id()
        } else {
            Arc::clone(&request.client_id)
        }
    }

    fn hello(&self, request: &ConnectRequest, principal: Principal, client_id: Arc<str>) -> Hello {
        let keep_alive_s = self.server.keep_alive(request.keep_alive, principal.keep_alive);
        let expiry_s = request.session_expiry.min(self.server.config().limits.max_session_expiry);
        let will = request.will.as_ref().map(|will| Will {
            delay_ms: u64::from(will.delay.min(expiry_s)) * 1000,
            uplink: Uplink {
                topic: Arc::clone(&will.topic),
                qos: Some(will.qos.level()),
                retain: will.retain,
                content_type: will.content_type.clone(),
                properties: will.user_properties.clone(),
                publish: publish_properties(will).said(),
                payload: will.payload.clone(),
            },
        });
        Hello {
            principal,
            transport: self.transport,
            protocol: match request.version {
                Version::V31 => Protocol::Mqtt31,
                Version::V311 => Protocol::Mqtt311,
                Version::V5 => Protocol::Mqtt5,
            },
            remote_id: client_id,
            remote_address: self.remote,
            // One and a half times the keep-alive [MQTT-3.1.2-22].
            keep_alive_ms: (keep_alive_s > 0).then(|| u64::from(keep_alive_s) * 1500),
            on_silence: Reason::KeepAliveTimeout,
            inferred: false,
            clean_start: Some(request.clean_start),
            will,
        }
    }

    /// Tells that the client was turned away, if something is wrong with it.
    fn refuse(&self, request: &ConnectRequest, turned: &Turned) {
        let Some(cause) = turned.cause else { return };
        let mut attempt = self.attempt(cause);
        attempt = match &turned.device {
            Some((tenant, device)) => attempt.of(tenant, device),
            None => attempt.claiming(self.claimed(request, cause)),
        };
        if let Some(topic) = &turned.topic {
            attempt = attempt.about(topic);
        }
        self.server.hub().refused(&attempt);
    }

    /// The name by which an operator finds the client. The user name where that is the name of a device, which only the secret did not
    /// go with: any other one may be a secret that stands in the wrong field, so it is not told, and the client id is.
    fn claimed<'a>(&'a self, request: &'a ConnectRequest, cause: RefusedCause) -> Option<&'a str> {
        let user = request.username.as_deref().filter(|_| cause == RefusedCause::BadCredentials);
        let shown = self.certificate.as_ref().filter(|_| request.username.is_none());
        let certified = shown.and_then(|shown| shown.common_name.as_deref());
        let is_secret =
            |name: &str| request.password.as_ref().is_some_and(|secret| **secret == *name.as_bytes());
        let names = [user, certified, Some(&*request.client_id)].into_iter().flatten();
        names.filter(|name| !name.is_empty()).find(|name| !is_secret(name))
    }

    fn attempt(&self, cause: RefusedCause) -> Attempt<'static> {
        Attempt::new(cause, self.transport, self.remote)
    }
}
