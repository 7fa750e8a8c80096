//! How to reach NATS: addresses, credentials, TLS, parsed once.
//!
//! Owns: the options of every connection that this crate makes, and that no secret leaves them: addresses are stripped of
//! their userinfo here, so neither an error nor a log of the client library can show it.
//! Does not own: when to connect, what to do when a connection breaks.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::trouble::{Cause, Telling};

/// How long a connection may take, TLS and the first exchange included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing was heard for two to three of these is dead.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait between two attempts to connect.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// Why a connection cannot be made. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given.
    #[error("no NATS server is named")]
    NoAddress,
    /// The text is not the address of a NATS server.
    #[error(
        "{url} is not the address of a NATS server: {why} (nats://[user:password@]host[:port] or tls://…)"
    )]
    BadAddress {
        /// The text without its userinfo.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two addresses name different users; all servers of one cluster take the same one.
    #[error("{0} names another user than the address before it")]
    TwoUsers(String),
    /// A credentials or certificate file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The server did not take the connection.
    #[error("cannot connect to {to}: {why}")]
    Refused {
        /// The server.
        to: String,
        /// Why not.
        why: String,
    },
}

/// Where NATS is and who the gateway is to it, as set by the operator.
#[derive(Clone, Default)]
pub struct ConnectSettings {
    /// `nats://` or `tls://` addresses of the servers of one cluster; userinfo `user:password@` or `token@`.
    pub urls: Vec<String>,
    /// A NATS credentials file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// PEM file with the roots that may have signed the servers' certificates; the system's when absent.
    pub ca: Option<PathBuf>,
    /// PEM files with the gateway's own certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the server shows for the gateway's connections.
    pub name: String,
}

impl fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| redact(url)).collect();
        f.debug_struct("ConnectSettings")
            .field("urls", &urls)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Who the gateway says it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum User {
    Password(String, String),
    Token(String),
}

/// A parsed [`ConnectSettings`]: every connection of this crate is made from one.
#[derive(Clone)]
pub struct Target {
    addresses: Vec<ServerAddr>,
    pub(crate) user: Option<User>,
    pub(crate) settings: Arc<ConnectSettings>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// The addresses, without credentials.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.addresses.iter().map(ServerAddr::as_url_str).collect();
        f.write_str(&urls.join(","))
    }
}

impl Target {
    /// Parses the addresses. Files are read when a connection is made, so that renewed credentials are taken up.
    ///
    /// # Errors
    /// When there is no address, or one is no address, or two name different users.
    pub fn new(settings: ConnectSettings) -> Result<Self, ConnectError> {
        let mut addresses = Vec::with_capacity(settings.urls.len());
        let mut user = None;
        for url in &settings.urls {
            let (address, theirs) = parse(url)?;
            match (&user, theirs) {
                (_, None) => {}
                (None, theirs) => user = theirs,
                (Some(ours), Some(theirs)) if *ours == theirs => {}
                (Some(_), Some(_)) => return Err(ConnectError::TwoUsers(redact(url))),
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        Ok(Self { addresses, user, settings: Arc::new(settings) })
    }

    /// A client that connects in the background and again whenever its connection breaks: for requests, replies and
    /// subscriptions, never for events, because such a client loses what it had not written yet without a word.
    ///
    /// # Errors
    /// When a credentials or certificate file cannot be read. A server that is away is no error.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        let options = self
            .options(Complaints::default())
            .await?
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay);
        let connecting = options.connect(self.addresses.as_slice()).await;
        connecting.map_err(|error| ConnectError::Refused { to: self.to_string(), why: error.to_string() })
    }

    /// The address that the `nth` attempt to publish goes to.
    pub(crate) fn address(&self, nth: usize) -> Option<&ServerAddr> {
        self.addresses.get(nth % self.addresses.len().max(1))
    }

    /// What all connections have in common.
    pub(crate) async fn options(&self, complaints: Complaints) -> Result<ConnectOptions, ConnectError> {
        let mut options = ConnectOptions::new()
            .name(&self.settings.name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .event_callback(move |event| {
                complaints.note(&event);
                std::future::ready(())
            });
        options = match &self.user {
            Some(User::Password(user, password)) => options.user_and_password(user.clone(), password.clone()),
            Some(User::Token(token)) => options.token(token.clone()),
            None => options,
        };
        self.check_files()?;
        if let Some(ca) = &self.settings.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &self.settings.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if let Some(path) = &self.settings.credentials {
            let read = options.credentials_file(path).await;
            options = read.map_err(|source| ConnectError::File { path: path.clone(), source })?;
        }
        Ok(options)
    }

    /// Reads every file that a connection needs, without making one.
    ///
    /// # Errors
    /// When one cannot be read or does not hold what it should.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.check_files()?;
        self.client_config()?;
        self.hello(false, "").map(drop)
    }

    /// The library reads certificates only when a server asks for TLS, and then says no more than that it failed.
    fn check_files(&self) -> Result<(), ConnectError> {
        let own = self.settings.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        for path in self.settings.ca.iter().chain(own) {
            let opened = std::fs::File::open(path);
            opened.map_err(|source| ConnectError::File { path: path.clone(), source })?;
        }
        Ok(())
    }
}

/// The wait before the `attempt`th try to connect: 1 ms, 2 ms, ... 1 s.
pub(crate) fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    if attempt <= 1 { Duration::ZERO } else { Duration::from_millis(1 << doublings).min(LONGEST_DELAY) }
}

/// Splits an address into what is connected to and who connects.
fn parse(url: &str) -> Result<(ServerAddr, Option<User>), ConnectError> {
    let bad = |why: &str| ConnectError::BadAddress { url: redact(url), why: why.to_owned() };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
    if !matches!(scheme, "nats" | "tls") {
        return Err(bad("its scheme is unknown"));
    }
    let (user, host) = match rest.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, rest),
    };
    let address: ServerAddr =
        format!("{scheme}://{host}").parse().map_err(|_| bad("its host or port is wrong"))?;
    if address.host().is_empty() {
        return Err(bad("it has no host"));
    }
    let user = user.map(|userinfo| match userinfo.split_once(':') {
        Some((user, password)) => User::Password(percent_decoded(user), percent_decoded(password)),
        None => User::Token(percent_decoded(userinfo)),
    });
    Ok((address, user))
}

/// Decodes `%XX` where it is one (RFC 3986, section 2.1); everything else stands for itself.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(high).zip(digit(low)).map(|(high, low)| (high << 4) | low)
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// An address with whatever may be a secret in it replaced.
fn redact(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some((_, host))) => format!("***@{host}"),
        (_, None) => url.to_owned(),
    }
}

/// Logs what happens to a connection; the same complaint at first, and then how often it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaints {
    told: Arc<Mutex<(Option<String>, Telling)>>,
    servers_only: bool,
}

impl Complaints {
    /// Passes over what the client library says of itself: its owner speaks for it.
    pub(crate) fn of_the_server() -> Self {
        Self { servers_only: true, ..Self::default() }
    }

    fn note(&self, event: &Event) {
        match event {
            Event::ClientError(_) if self.servers_only => {}
            Event::ServerError(_) | Event::ClientError(_) | Event::SlowConsumer(_) => {
                self.complain(event.to_string());
            }
            Event::Connected => {
                self.told.lock().1 = Telling::default();
                tracing::debug!("connected to NATS");
            }
            Event::LameDuckMode => tracing::info!("the NATS server is about to shut down"),
            Event::Disconnected | Event::Draining | Event::Closed => {
                tracing::debug!(%event, "NATS connection");
            }
        }
    }

    /// The last complaint.
    pub(crate) fn said(&self) -> Option<String> {
        self.told.lock().0.clone()
    }

    pub(crate) fn complain(&self, text: String) {
        let cause = Cause::of(&text);
        // One cause has several wordings, and what is no known cause has only its words.
        let about = if cause == Cause::NotStored { &text } else { cause.as_str() };
        let mut told = self.told.lock();
        if let Some(times) = told.1.meets(about, Instant::now()) {
            tracing::warn!(said = ?text, times, "NATS connection");
        }
        told.0 = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(urls: &[&str]) -> Result<Target, ConnectError> {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Target::new(ConnectSettings { urls, ..ConnectSettings::default() })
    }

    #[test]
    fn credentials_leave_the_address_at_once() {
        let target = target(&["nats://app:hunt%40er%2@n1:4222", "tls://n2"]).unwrap();
        assert_eq!(target.to_string(), "nats://n1:4222,tls://n2");
        assert!(!format!("{target:?}").contains("hunt"));
        assert!(target.user == Some(User::Password("app".into(), "hunt@er%2".into())));
        let settings = ConnectSettings { urls: vec!["nats://s3cr3t@n".into()], ..ConnectSettings::default() };
        assert!(!format!("{settings:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_user_without_a_password_is_a_token() {
        assert!(target(&["nats://s3cr3t@n"]).unwrap().user == Some(User::Token("s3cr3t".into())));
    }

    #[test]
    fn errors_show_no_secret() {
        for url in
            ["http://app:hunter2@n", "nats://app:hunter2@", "nats://app:hunter2@n:port", "app:hunter2@n"]
        {
            let error = target(&[url]).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let error = target(&["nats://app:hunter2@n1", "nats://app:hunter3@n2"]).unwrap_err();
        assert_eq!(error.to_string(), "nats://***@n2 names another user than the address before it");
        assert!(matches!(target(&[]), Err(ConnectError::NoAddress)));
    }

    #[test]
    fn attempts_take_turns() {
        let target = target(&["nats://n1", "nats://n2"]).unwrap();
        let hosts: Vec<&str> = (0..3).filter_map(|nth| target.address(nth)).map(ServerAddr::host).collect();
        assert_eq!(hosts, ["n1", "n2", "n1"]);
    }

    #[test]
    fn delays_grow_to_a_second() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        assert_eq!(reconnect_delay(2), Duration::from_millis(2));
        assert_eq!(reconnect_delay(60), Duration::from_secs(1));
    }
}
