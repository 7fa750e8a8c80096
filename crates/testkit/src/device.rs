//! A well-behaved device made of `rumqttc`, with one face for both versions.
//!
//! Owns: its connection, and everything that came to it. Does not own: bad behaviour ([`crate::raw`]).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport, v5};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::interop::Over;
pub use crate::packet::Version;
use crate::wait::PATIENCE;

/// What came to a device, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// CONNACK with success.
    Connected {
        /// The session present flag.
        session_present: bool,
    },
    /// PUBACK or PUBCOMP of a packet id.
    Acknowledged(u16),
    /// SUBACK; false when a filter was refused.
    Subscribed(bool),
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
        /// Its quality of service.
        qos: u8,
    },
    /// MQTT 5 DISCONNECT from the server, with its reason code's name.
    Disconnected(String),
    /// The connection ended; what `rumqttc` says of it.
    Ended(String),
}

/// How a device connects.
#[derive(Clone, Debug)]
pub struct Options {
    version: Version,
    id: String,
    address: SocketAddr,
    over: Over,
    tls: Option<Arc<ClientConfig>>,
    clean: bool,
    expiry: Option<u32>,
    keep_alive: u16,
    login: Option<(String, String)>,
}

impl Options {
    /// A clean session over TCP.
    pub fn new(version: Version, id: &str, address: SocketAddr) -> Self {
        Self {
            version,
            id: id.to_owned(),
            address,
            over: Over::Tcp,
            tls: None,
            clean: true,
            expiry: None,
            keep_alive: 60,
            login: None,
        }
    }

    /// Over something else than TCP; with TLS where that is secure.
    #[must_use]
    pub fn over(self, over: Over, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { over, tls, ..self }
    }

    /// A session that outlives its connection, on MQTT 5 by so many seconds.
    #[must_use]
    pub fn persistent(self, expiry: u32) -> Self {
        Self { clean: false, expiry: Some(expiry), ..self }
    }

    /// Seconds of keep-alive.
    #[must_use]
    pub fn keep_alive(self, seconds: u16) -> Self {
        Self { keep_alive: seconds, ..self }
    }

    /// With a user name and a password.
    #[must_use]
    pub fn login(self, username: &str, password: &str) -> Self {
        Self { login: Some((username.to_owned(), password.to_owned())), ..self }
    }

    fn transport(&self) -> Transport {
        let tls = || TlsConfiguration::Rustls(self.tls.clone().expect("a TLS configuration"));
        match self.over {
            Over::Tcp => Transport::Tcp,
            Over::Tls | Over::MutualTls => Transport::Tls(tls()),
            Over::Ws => Transport::Ws,
            Over::Wss => Transport::Wss(tls()),
        }
    }

    /// What `rumqttc` takes for a host: a whole URL where WebSocket is spoken.
    fn host(&self) -> String {
        match self.over {
            Over::Ws | Over::Wss => {
                format!("{}://localhost:{}/mqtt", self.over.scheme(), self.address.port())
            }
            Over::Tcp | Over::Tls | Over::MutualTls => "localhost".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
enum Client {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A connected device. Dropping it breaks its connection without a goodbye.
#[derive(Debug)]
pub struct Device {
    client: Client,
    log: Arc<Mutex<Vec<Incoming>>>,
    count: watch::Receiver<usize>,
    task: JoinSet<()>,
}

impl Device {
    /// Connects over TCP with a clean session, and is accepted.
    pub async fn connect(version: Version, id: &str, address: SocketAddr) -> Self {
        Self::with(&Options::new(version, id, address)).await
    }

    /// Connects, and is accepted.
    pub async fn with(options: &Options) -> Self {
        let device = Self::start(options);
        device
            .wait("a CONNACK", |log| {
                log.iter().any(|i| matches!(i, Incoming::Connected { .. })).then_some(())
            })
            .await;
        device
    }

    /// Begins to connect, whatever comes of it.
    pub fn start(options: &Options) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, count) = watch::channel(0);
        let mut task = JoinSet::new();
        let told = log.clone();
        let push = move |incoming: Incoming| {
            told.lock().expect("nobody panics while holding it").push(incoming);
            tell.send_modify(|count| *count += 1);
        };
        let client = match options.version {
            Version::V4 => Client::V4(start_v4(options, &mut task, push)),
            Version::V5 => Client::V5(start_v5(options, &mut task, push)),
        };
        Self { client, log, count, task }
    }

    /// Publishes; returns when the client has taken it, not when it is acknowledged.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, qos: u8) {
        match &self.client {
            Client::V4(client) => {
                let qos = rumqttc::qos(qos).expect("a quality of service");
                client.publish(topic, qos, false, payload).await.expect("the client runs");
            }
            Client::V5(client) => {
                let qos = v5::mqttbytes::qos(qos).expect("a quality of service");
                client.publish(topic, qos, false, payload.into()).await.expect("the client runs");
            }
        }
    }

    /// Subscribes and waits for the SUBACK; true when it is granted.
    ///
    /// # Panics
    /// When none comes.
    pub async fn subscribe(&self, filter: &str, qos: u8) -> bool {
        let before = self.subacks().len();
        match &self.client {
            Client::V4(client) => {
                let qos = rumqttc::qos(qos).expect("a quality of service");
                client.subscribe(filter, qos).await.expect("the client runs");
            }
            Client::V5(client) => {
                let qos = v5::mqttbytes::qos(qos).expect("a quality of service");
                client.subscribe(filter, qos).await.expect("the client runs");
            }
        }
        self.wait("a SUBACK", |_| self.subacks().get(before).copied()).await
    }

    /// Says goodbye and waits for the end of the connection.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn disconnect(mut self) {
        match &self.client {
            Client::V4(client) => client.disconnect().await.expect("the client runs"),
            Client::V5(client) => client.disconnect().await.expect("the client runs"),
        }
        self.ended().await;
        self.task.shutdown().await;
    }

    /// Waits for the end of the connection; what was said of it.
    pub async fn ended(&self) -> String {
        self.wait("the end of the connection", |log| {
            log.iter().find_map(|incoming| match incoming {
                Incoming::Ended(why) => Some(why.clone()),
                _ => None,
            })
        })
        .await
    }

    /// Waits for message number `n`, from 0: topic and payload.
    pub async fn message(&self, n: usize) -> (String, Vec<u8>) {
        self.wait(&format!("message {n}"), |log| {
            let mut messages = log.iter().filter_map(|incoming| match incoming {
                Incoming::Message { topic, payload, .. } => Some((topic.clone(), payload.clone())),
                _ => None,
            });
            messages.nth(n)
        })
        .await
    }

    /// How many of its publishes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.log().iter().filter(|incoming| matches!(incoming, Incoming::Acknowledged(_))).count()
    }

    /// Waits until so many of its publishes are acknowledged.
    pub async fn expect_acknowledged(&self, count: usize) {
        self.wait(&format!("{count} acknowledgements"), |_| (self.acknowledged() >= count).then_some(()))
            .await;
    }

    /// The session present flag of its CONNACK.
    pub fn session_present(&self) -> bool {
        self.log().iter().any(|incoming| matches!(incoming, Incoming::Connected { session_present: true }))
    }

    /// Everything that came so far.
    pub fn log(&self) -> Vec<Incoming> {
        self.log.lock().expect("nobody panics while holding it").clone()
    }

    fn subacks(&self) -> Vec<bool> {
        let log = self.log();
        log.iter()
            .filter_map(|i| if let Incoming::Subscribed(granted) = i { Some(*granted) } else { None })
            .collect()
    }

    async fn wait<T>(&self, what: &str, look: impl Fn(&[Incoming]) -> Option<T>) -> T {
        let mut count = self.count.clone();
        let waiting = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = look(&self.log()) {
                    return Some(found);
                }
                if count.changed().await.is_err() {
                    return look(&self.log());
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(found)) => found,
            outcome => panic!(
                "{what}: {}; the device saw {:?}",
                if outcome.is_err() { "not in time" } else { "not before the connection ended" },
                self.log()
            ),
        }
    }
}

fn start_v4(
    options: &Options,
    task: &mut JoinSet<()>,
    push: impl Fn(Incoming) + Send + 'static,
) -> rumqttc::AsyncClient {
    use rumqttc::{Event, Packet, SubscribeReasonCode};
    let mut mqtt = rumqttc::MqttOptions::new(&options.id, options.host(), options.address.port());
    mqtt.set_keep_alive(Duration::from_secs(options.keep_alive.into())).set_clean_session(options.clean);
    mqtt.set_transport(options.transport()).set_inflight(200);
    if let Some((user, password)) = &options.login {
        mqtt.set_credentials(user, password);
    }
    let (client, mut events) = rumqttc::AsyncClient::new(mqtt, 1000);
    task.spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    push(Incoming::Connected { session_present: ack.session_present });
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => push(Incoming::Acknowledged(ack.pkid)),
                Ok(Event::Incoming(Packet::PubComp(ack))) => push(Incoming::Acknowledged(ack.pkid)),
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    push(Incoming::Subscribed(!ack.return_codes.contains(&SubscribeReasonCode::Failure)));
                }
                Ok(Event::Incoming(Packet::Publish(message))) => push(Incoming::Message {
                    topic: message.topic.clone(),
                    payload: message.payload.to_vec(),
                    qos: message.qos as u8,
                }),
                Ok(_) => {}
                // A client that would connect again by itself: one device is one connection here.
                Err(error) => return push(Incoming::Ended(error.to_string())),
            }
        }
    });
    client
}

fn start_v5(
    options: &Options,
    task: &mut JoinSet<()>,
    push: impl Fn(Incoming) + Send + 'static,
) -> v5::AsyncClient {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    let mut mqtt = v5::MqttOptions::new(&options.id, options.host(), options.address.port());
    mqtt.set_keep_alive(Duration::from_secs(options.keep_alive.into())).set_clean_start(options.clean);
    mqtt.set_transport(options.transport()).set_session_expiry_interval(options.expiry);
    if let Some((user, password)) = &options.login {
        mqtt.set_credentials(user, password);
    }
    let (client, mut events) = v5::AsyncClient::new(mqtt, 1000);
    task.spawn(async move {
        loop {
            match events.poll().await {
                Ok(v5::Event::Incoming(Packet::ConnAck(ack))) => {
                    push(Incoming::Connected { session_present: ack.session_present });
                }
                Ok(v5::Event::Incoming(Packet::PubAck(ack))) => push(Incoming::Acknowledged(ack.pkid)),
                Ok(v5::Event::Incoming(Packet::PubComp(ack))) => push(Incoming::Acknowledged(ack.pkid)),
                Ok(v5::Event::Incoming(Packet::SubAck(ack))) => {
                    push(Incoming::Subscribed(
                        ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))),
                    ));
                }
                Ok(v5::Event::Incoming(Packet::Publish(message))) => push(Incoming::Message {
                    topic: String::from_utf8_lossy(&message.topic).into_owned(),
                    payload: message.payload.to_vec(),
                    qos: message.qos as u8,
                }),
                Ok(v5::Event::Incoming(Packet::Disconnect(goodbye))) => {
                    push(Incoming::Disconnected(format!("{:?}", goodbye.reason_code)));
                }
                Ok(_) => {}
                Err(error) => return push(Incoming::Ended(format!("{error:?}"))),
            }
        }
    });
    client
}
