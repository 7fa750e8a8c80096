//! Every key of the settings: its type, default, range and meaning. The documentation and `config print` are made of this
//! file.
//!
//! Owns: the typed sections. Does not own: rules between keys (`super::rules`).

use std::path::PathBuf;
use std::time::Duration;

use landfall_event::{Format, InstanceName, ReplicaId, TopicFilter};
use landfall_hub::UpstreamBody;
use landfall_net::ws::Origin;
use landfall_net::{
    ClientAuth, DatagramEndpoint, DatagramSettings, DtlsSettings, Endpoint, Network, PemFile, TlsSettings,
};
use landfall_session::Patience;

use super::Settings;
use super::address::{
    DatagramListenKind, HostName, HostPortKind, NatsTarget, NatsTargetKind, StreamListenKind,
};
use super::kind::{Choice, Flag, Kind, Path, count, each, maybe, parsed, size, span};
use super::log::LogFilter;
use super::source::Reader;

/// One key, for people: what `config print` and the documentation say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The section; "" for a key outside of every section.
    pub section: &'static str,
    /// The key within its section.
    pub key: &'static str,
    /// What it means, one line per entry.
    pub doc: &'static [&'static str],
    /// The default as TOML.
    pub default: &'static str,
    /// What is allowed, unit and range included.
    pub allowed: String,
    /// The value in force as TOML, secrets left out.
    pub value: String,
}

impl Row {
    /// The environment variable of the key.
    pub fn variable(&self) -> String {
        let path = if self.section.is_empty() {
            self.key.to_owned()
        } else {
            format!("{}__{}", self.section, self.key)
        };
        format!("LANDFALL_{}", path.to_ascii_uppercase())
    }
}

fn path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn row<K: Kind>(
    section: &'static str,
    key: &'static str,
    doc: &'static [&'static str],
    default: &'static str,
    kind: &K,
    value: &K::Value,
) -> Row {
    Row { section, key, doc, default, allowed: kind.allowed(), value: kind.show(value) }
}

macro_rules! sections {
    ($($(#[doc = $about:literal])+ $name:literal $Section:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $Type:ty = $default:literal, $kind:expr;)+
    })+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug)]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $key: $Type,)+
            }

            impl $Section {
                /// What the section is about, one line per entry.
                pub(crate) const ABOUT: &'static [&'static str] = &[$($about),+];

                pub(crate) fn read(reader: &mut Reader) -> Option<Self> {
                    $(let $key = reader.take(&path($name, stringify!($key)), $default, &$kind);)+
                    Some(Self { $($key: $key?,)+ })
                }

                pub(crate) fn rows(&self) -> Vec<Row> {
                    vec![$(row($name, stringify!($key), &[$($doc),+], $default, &$kind, &self.$key),)+]
                }
            }
        )+
    };
}

/// Is this a key outside of every section?
pub(crate) fn is_top_level(key: &str) -> bool {
    key == "drain_timeout"
}

/// How devices prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They need not.
    Open,
    /// As a file of devices says.
    Devices,
}

/// What becomes of devices that come while NATS is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// They are let in; what happens is kept on disk.
    Admit,
    /// They are told to come back later.
    Refuse,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

const MS: u64 = 1;
const S: u64 = 1_000;
const M: u64 = 60 * S;
const H: u64 = 60 * M;
const D: u64 = 24 * H;

sections! {
    /// Keys outside of every section; in a file they stand before the first one.
    "" Top {
        /// How long an orderly stop may take: devices are told, events are stored, then the process ends.
        drain_timeout: Duration = "\"10s\"", span(100 * MS, H);
    }

    /// Who this gateway is.
    "instance" Instance {
        /// The name that all replicas of one gateway share; part of every NATS subject.
        name: InstanceName = "\"landfall\"", parsed("1 to 128 characters of [A-Za-z0-9_~-]");
        /// The name of this process among the replicas.
        replica: Option<ReplicaId> = "\"\"",
            maybe(parsed("1 to 128 characters of [A-Za-z0-9_~-]"), "the host's name and a random part");
    }

    /// The connection to NATS, and what JetStream keeps.
    "nats" Nats {
        /// Where NATS is. `embedded` starts and supervises a private nats-server on the loopback interface.
        url: NatsTarget = "\"embedded\"", NatsTargetKind;
        /// Where the embedded server stores its streams, and where the running gateway leaves `landfall.run.json`.
        store_dir: PathBuf = "\"data/nats\"", Path("a directory, made when missing");
        /// The nats-server program of the embedded server, 2.11 or newer.
        server: Option<PathBuf> = "\"\"", maybe(Path("a program"), "the one on PATH, else in .tools/");
        /// The port of the embedded server, on the loopback interface.
        port: u16 = "0", count(0, 65_535, "a TCP port; 0 for a free one");
        /// The embedded server writes every message to the disk before it acknowledges it: survives a power cut, and is
        /// several times slower.
        sync_always: bool = "false", Flag;
        /// Credentials of an external NATS.
        creds: Option<PathBuf> = "\"\"", maybe(Path("a NATS credentials file (.creds)"), "none");
        /// Who signed the certificate of an external NATS.
        ca: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "the system's roots");
        /// The gateway's own certificate towards an external NATS.
        cert: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "none");
        /// The private key of `nats.cert`.
        key: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "none");
        /// Events that are sent to JetStream and not acknowledged at once; further ones wait.
        publish_window: usize = "4096", count(1, 8_192, "events");
        /// Bytes of device messages that may be on their way to the store at once; when so many are, reading from the
        /// devices stops.
        publish_window_bytes: usize = "\"32MiB\"", size(1 << 20, 1 << 30);
        /// How long JetStream may leave everything unacknowledged before its connection counts as dead; what was on its way is
        /// then sent again under the same ids.
        ack_timeout: Duration = "\"5s\"", span(100 * MS, 30 * S);
        /// How long this gateway counts as alive after its last sign of life. When it has ended, another replica closes its
        /// sessions (`gateway-lost`).
        lease_ttl: Duration = "\"10s\"", span(S, 5 * M);
        /// What becomes of devices that come while NATS is away: let in, or told to come back later. Those that are there stay
        /// in any case.
        when_away: WhenAway = "\"admit\"",
            Choice(&[("admit", WhenAway::Admit), ("refuse", WhenAway::Refuse)]);
        /// Where events are kept while NATS is away; each start of a gateway has a directory of its own there.
        spool_dir: PathBuf = "\"data/spool\"", Path("a directory, made when missing");
        /// The most that is kept there. Beyond that, sessions that began and ended meanwhile are dropped first, then the oldest
        /// messages of devices that asked for no acknowledgement; both are told afterwards (`events-dropped`).
        spool_limit: u64 = "\"256MiB\"", size(1 << 20, 1 << 40);
        /// Copies that JetStream keeps of each stream. Applied when the gateway makes a stream; never altered later.
        replicas: usize = "1", count(1, 5, "servers");
        /// How long JetStream remembers the ids of events, so that one sent twice is stored once; it holds each in memory for so
        /// long. After an outage of more than half of it the gateway asks the stream. Applied when the gateway makes a stream.
        duplicate_window: Duration = "\"30s\"", span(20 * S, D);
        /// How long connectivity events are kept. They are the ledger of who is present: of a session that is open for longer
        /// than this a reader sees no beginning. A stream that is there is given this limit if nothing that it holds goes by it.
        connectivity_max_age: Duration = "\"0s\"", span(H, 3_650 * D).or_zero("ever");
        /// The most that the connectivity stream may hold; no less than what the gateway may write before it has noted on a checkpoint
        /// who is present. A stream that is there is given this limit if nothing that it holds goes by it.
        connectivity_max_bytes: u64 = "\"4GiB\"", size(64 << 20, 1 << 50).or_zero("no bound");
        /// How long device messages and command outcomes are kept. A stream that is there is given this limit if nothing that it
        /// holds goes by it.
        messages_max_age: Duration = "\"7d\"", span(M, 3_650 * D).or_zero("ever");
        /// The most that the message stream may hold; no less than 16 of the largest messages that a device may send. A stream that
        /// is there is given this limit if nothing that it holds goes by it.
        messages_max_bytes: u64 = "\"8GiB\"", size(64 << 20, 1 << 50).or_zero("no bound");
        /// How long refusals are kept. A stream that is there is given this limit if nothing that it holds goes by it.
        access_max_age: Duration = "\"30d\"", span(M, 3_650 * D).or_zero("ever");
        /// The most that the stream of refusals may hold. A stream that is there is given this limit if nothing that it holds goes by it.
        access_max_bytes: u64 = "\"256MiB\"", size(1 << 20, 1 << 50).or_zero("no bound");
    }

    /// The form of the events that are published.
    "events" Events {
        /// The encoding. The two Kaa dialects write `connected` and `disconnected` in Avro, all else stays JSON.
        format: Format = "\"json\"",
            Choice(&[("json", Format::Json), ("kaa-2017", Format::Kaa2017), ("kaa-elce", Format::KaaElce)]);
        /// The body of `message.upstream`: the event with the payload inside, or the payload untouched with the event's
        /// head as `Landfall-*` headers.
        upstream_body: UpstreamBody = "\"event\"", Choice(&[("event", UpstreamBody::Event), ("raw", UpstreamBody::Raw)]);
        /// Between two `service.lifecycle.keep-alive` of this gateway.
        keep_alive: Duration = "\"10s\"", span(S, H);
        /// Refused attempts of one source with one cause become one `access.refused` per this time.
        refusal_interval: Duration = "\"10s\"", span(100 * MS, H);
    }

    /// The MQTT listener.
    "mqtt" Mqtt {
        /// Where it listens. Schemes: `tcp`, `tls`, `ws`, `wss`; `tls` and `wss` need the section `[tls]`. WebSocket is taken at
        /// `/mqtt` and `/`, or at the path that the address names. Port 0 takes a free port.
        listen: Vec<Endpoint> = "[\"tcp://127.0.0.1:1883\"]", each(StreamListenKind, 64).or_none("no MQTT");
        /// From an accepted connection (after TLS and WebSocket) to the answer to its CONNECT.
        connect_timeout: Duration = "\"10s\"", span(100 * MS, 5 * M);
        /// How long a device may leave unread what is sent to it; then its session ends as `slow-consumer`.
        write_timeout: Duration = "\"30s\"", span(S, 10 * M);
        /// How long one packet may take, from its first byte to its last; then its session ends as `protocol-error`. Every byte
        /// of it is a sign of life, so the keep-alive does not bound that. A packet of 256 KiB in "5m" is some 900 bytes a second.
        packet_timeout: Duration = "\"5m\"", span(S, H);
        /// The largest packet that a device may send. A message whose event does not fit into one message of NATS (1 MiB by
        /// default, Base64 and the event's fields included) is refused all the same.
        max_packet_size: u32 = "\"256KiB\"", size(256, 8 << 20);
        /// QoS 1 and 2 messages of one device that may wait for their acknowledgement (MQTT 5, 3.2.2.3.3).
        receive_maximum: u16 = "32", count(1, 65_535, "messages");
        /// Topic aliases that one device may set (MQTT 5, 3.2.2.3.8).
        topic_alias_maximum: u16 = "32", count(0, 65_535, "aliases");
        /// Connections at once, those that have not said CONNECT yet included. Each takes a file descriptor: the gateway raises
        /// its limit of those as far as it may, and says at the start where that is too few.
        max_connections: usize = "100000", count(1, 10_000_000, "connections");
        /// Connections at once from one IPv4 address or one IPv6 /64 network. Where all devices come from the address of a
        /// balancer, let it tell theirs (`proxy_protocol`), or set 0.
        max_connections_per_address: Option<usize> = "\"\"", maybe(
            count(0, 10_000_000, "connections; 0 for no bound of its own"),
            "a quarter of the connections that there may be, 64 at least",
        );
        /// Which of the addresses in `listen` are behind a balancer that speaks the PROXY protocol (version 1 or 2, before TLS
        /// and WebSocket). The address that it tells is the device's in events, limits and refusals. A connection from
        /// `proxy_networks` without that header is refused; others are served as they are, and refused with one.
        proxy_protocol: Vec<Endpoint> = "[]", each(StreamListenKind, 64).or_none("none of them");
        /// The networks of those balancers: from everybody else nothing is believed.
        proxy_networks: Vec<Network> = "[]",
            each(parsed("networks such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.1\""), 64).or_none("none");
        /// Web pages that may open a WebSocket beside those of the same host, by origin; `*` for every page, which
        /// `auth.mode = "open"` does not allow. Clients that are no browser send no origin and are not asked for one.
        allowed_origins: Vec<Origin> = "[]",
            each(parsed("origins such as \"https://app.example\", or \"*\""), 64).or_none("pages of the same host only");
        /// The longest keep-alive: a device that asks for more, or for none, is given this one (MQTT 5) or held to it
        /// (MQTT 3.1.1).
        max_keep_alive: Duration = "\"65535s\"", span(S, 65_535 * S).or_zero("no bound");
        /// How long a session outlives its connection at most (MQTT 5, 3.1.2.11.2); MQTT 3.1.1 sessions without clean
        /// session are kept for so long.
        max_session_expiry: Duration = "\"7d\"", span(S, 3_650 * D).or_zero("no session that outlives its connection");
        /// Persistent sessions that are kept, in all.
        max_sessions: usize = "100000", count(0, 10_000_000, "sessions");
        /// Subscriptions of one device.
        max_subscriptions: usize = "64", count(1, 4_096, "subscriptions");
        /// Commands that wait for one device while it is away; a further one is told `busy`.
        offline_queue: usize = "100", count(0, 10_000, "commands");
    }

    /// The CoAP listener. Bounds that hold in all are shared out evenly among its sockets; a device at one of them is told to
    /// come back later (5.03 with Max-Age).
    "coap" Coap {
        /// Where it listens. Schemes: `udp`, and `dtls` for CoAPS, see the section `[dtls]`. Port 0 takes a free port.
        listen: Vec<DatagramEndpoint> = "[\"udp://127.0.0.1:5683\"]", each(DatagramListenKind, 64).or_none("no CoAP");
        /// Sockets of each address, each with a task of its own; the system spreads the devices over them.
        sockets: usize = "0", count(0, 64, "sockets; 0 for one per processor, at most 8");
        /// Bytes that the system is asked to keep per socket for datagrams that wait to be read. It may give less, see
        /// `net.core.rmem_max`.
        receive_buffer: usize = "\"4MiB\"", size(64 << 10, 1 << 30);
        /// The largest body that a device may send, in one message or in blocks (RFC 7959); a larger one is told 4.13. A
        /// message whose event does not fit into one message of NATS (1 MiB by default, Base64 and the event's fields
        /// included) is refused all the same.
        max_body: usize = "\"256KiB\"", size(1 << 10, 8 << 20);
        /// Addresses of devices with anything to remember of them, in all.
        max_peers: usize = "262144", count(64, 10_000_000, "addresses");
        /// Requests that wait for their answer, in all.
        max_exchanges: usize = "65536", count(64, 10_000_000, "requests");
        /// Message ids that are remembered, in all, so that a message that comes again has no second effect: each for 247 s
        /// (CON) or 145 s (NON), less when they run short, and 45 s at least. So 45 for each message a second are the least.
        max_remembered: usize = "1048576", count(64, 100_000_000, "message ids");
        /// Bytes of answers kept, in all, for messages that come again.
        replay_memory: usize = "\"64MiB\"", size(1 << 20, 64 << 30);
        /// Observations (RFC 7641), in all.
        max_observations: usize = "262144", count(64, 10_000_000, "observations");
        /// Bodies that are being put together from blocks, in all.
        max_uploads: usize = "4096", count(64, 1_000_000, "bodies");
        /// Bytes of bodies that are being put together, in all.
        upload_memory: usize = "\"64MiB\"", size(1 << 20, 64 << 30);
        /// From a request to its answer: what is not stored by then is told 5.03, though it may be stored later. The same message
        /// sent again gets the same answer, even then; a new request with the same content is a new event.
        request_timeout: Duration = "\"30s\"", span(S, 3 * M);
        /// The longest that an answer waits for a command (`ttd`); a device that asks for more waits for so long. CoAP forgets a
        /// request after 247 s, so neither this nor `request_timeout` can be longer than three minutes.
        max_ttd: Duration = "\"60s\"", span(S, 3 * M);
    }

    /// The UDP listener: one datagram is one message.
    "udp" Udp {
        /// Where it listens. Schemes: `udp`; `dtls`, see the section `[dtls]`. Port 0 takes a free port.
        listen: Vec<DatagramEndpoint> = "[\"udp://127.0.0.1:7683\"]", each(DatagramListenKind, 64).or_none("no UDP");
        /// Sockets of each address, each with a task of its own; the system spreads the devices over them.
        sockets: usize = "0", count(0, 64, "sockets; 0 for one per processor, at most 8");
        /// Bytes that the system is asked to keep per socket for datagrams that wait to be read. It may give less, see
        /// `net.core.rmem_max`.
        receive_buffer: usize = "\"4MiB\"", size(64 << 10, 1 << 30);
        /// The largest payload of a datagram; a larger one is counted and refused whole. The line before it has at most 1 KiB.
        max_datagram: usize = "\"8KiB\"", size(64, 65_507);
        /// How long after its last word a device's address is believed to lead to it: a command is sent there at once, and
        /// later only with the device's next word. It should be shorter than what address translators on the way remember.
        reach: Duration = "\"30s\"", span(S, D).or_zero("with the next word only");
        /// Datagrams whose ack waits for the store, in all; a further one is dropped and counted.
        max_unstored: usize = "65536", count(64, 10_000_000, "datagrams");
        /// Devices that sign, whose newest number is remembered against replay: some 100 bytes each. A further one is refused.
        max_signed_devices: usize = "1000000", count(1, 100_000_000, "devices");
    }

    /// TLS of every listener that uses it. The files are read again when they change.
    "tls" Tls {
        /// The gateway's certificate and its chain.
        cert: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "none");
        /// The private key of the certificate.
        key: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "none");
        /// Who signs the certificates of devices (mutual TLS).
        client_ca: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "no client certificates");
        /// Whether a device must show a certificate, when there is a `client_ca`.
        client_auth: ClientAuth = "\"required\"",
            Choice(&[("required", ClientAuth::Required), ("optional", ClientAuth::Optional)]);
        /// How long the TLS handshake and the WebSocket upgrade may take together.
        handshake_timeout: Duration = "\"10s\"", span(100 * MS, 5 * M);
        /// The most plaintext in one record that is sent. Small devices have no room for the 16 KiB that TLS allows: take what
        /// the smallest has for a record's content.
        max_record_size: usize = "\"4KiB\"", size(512, 16 << 10);
    }

    /// DTLS of the `dtls` addresses of `[coap]` and `[udp]`. Devices have a pre-shared key (`psk` in the file of devices) or
    /// find the gateway's certificate to be right; its suites need a key for ECDSA on P-256 or P-384. The files are read again
    /// when they change. Bounds that hold in all are shared out evenly among the sockets.
    "dtls" Dtls {
        /// The gateway's certificate and its chain.
        cert: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "`tls.cert`, where its key is for ECDSA");
        /// The private key of the certificate.
        key: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "`tls.key`");
        /// Who signs the certificates of devices.
        client_ca: Option<PathBuf> = "\"\"", maybe(Path("a PEM file"), "`tls.client_ca`");
        /// Whether a device that has no pre-shared key must show a certificate, when there is a `client_ca`.
        client_auth: Option<ClientAuth> = "\"\"", maybe(
            Choice(&[("required", ClientAuth::Required), ("optional", ClientAuth::Optional)]),
            "`tls.client_auth`",
        );
        /// How long a handshake may take.
        handshake_timeout: Duration = "\"30s\"", span(S, 5 * M);
        /// Silence after which a secure channel is forgotten: the device's next word then needs a new handshake. A session of
        /// presence ends by its own silence, mostly long before, and the next word on the channel begins another.
        session_timeout: Duration = "\"48h\"", span(M, 30 * D);
        /// Secure channels at once, in all. When there are so many, one that was silent for a minute makes room for a new one.
        max_sessions: usize = "100000", count(1, 10_000_000, "channels");
        /// Handshakes at once, in all. When there are so many, the address that has the most makes room, by the one that was
        /// longest without a word. As many channels of devices that have shown neither key nor certificate there.
        max_handshakes: usize = "4096", count(1, 1_000_000, "handshakes");
        /// Handshakes at once of one IPv4 address or one IPv6 /64 network, in all. When it has so many, a further one is refused,
        /// unless one of them was without a word for ten seconds, which then makes room. As many of its channels of devices that
        /// have shown neither key nor certificate; there the oldest makes room.
        max_handshakes_per_address: usize = "512", count(1, 1_000_000, "handshakes");
        /// Channels on which one device may be let in that has shown neither key nor certificate in their handshakes; with one more
        /// its oldest is closed. One at least for each socket.
        max_vouched_per_device: usize = "4", count(1, 65_536, "channels");
        /// Records that may be forged in the name of one channel: with the last of them it is closed, since each is a guess at
        /// what protects it (RFC 9147, section 4.5.3).
        max_forged: usize = "8388608", count(1, 11_863_283, "records");
        /// Alerts in a second, in all, to those who send data on a channel that is gone, as after a restart: one to each address
        /// in ten seconds.
        lost_alerts: usize = "100", count(0, 1_000_000, "alerts; 0 for none");
        /// Channels and handshakes at once of one IPv4 address or one IPv6 /64 network, in all.
        max_per_address: usize = "16384", count(1, 10_000_000, "channels and handshakes");
        /// The largest datagram (UDP payload) that a message of a handshake is sent in; a larger message is cut.
        mtu: usize = "1200", count(256, 16_384, "bytes");
    }

    /// Who may connect.
    "auth" Auth {
        /// `open` believes what a device calls itself, and is refused unless every listener is on the loopback interface;
        /// `devices` knows the devices of a file.
        mode: AuthMode = "\"open\"", Choice(&[("open", AuthMode::Open), ("devices", AuthMode::Devices)]);
        /// The file of devices. It is read again when it changes; sessions of devices that are gone from it or changed in
        /// it end within a second.
        devices: PathBuf = "\"devices.toml\"", Path("a TOML file");
        /// Topics (CoAP: paths) that devices may send to in `open`; MQTT devices may subscribe to them too, and to whatever `#`
        /// matches. `#` leaves out topics that begin with `$`: such branches are named, as `$aws/#` or `$SYS/broker/connection/#`.
        open_topics: Vec<TopicFilter> = "[\"#\"]", each(parsed("MQTT topic filters"), 64).or_none("no topic");
        /// Passwords that are verified at once; each may take a processor for a moment, and keeps
        /// the memory that its hash needs, some 20 MiB, for the next one.
        max_verifications: usize = "2", count(1, 256, "passwords");
        /// Passwords that wait to be verified, of devices of the file and hosts that have not failed of late. One in 64 as many
        /// wait in each of the narrow lanes: names that are not known, hosts that have failed, CoAP and UDP in the clear.
        max_waiting: usize = "4096", count(64, 1_000_000, "passwords");
    }

    /// When silence ends a session.
    "presence" Presence {
        /// Silence that ends the session of a device whose protocol has no connect and no disconnect, unless the device (`lt`,
        /// `hb`), its entry or its tenant says otherwise. MQTT has both, and its own keep-alive.
        idle_timeout: Duration = "\"300s\"", span(S, 30 * D);
        /// Learns from each such device's own rhythm how long it may be silent, where nobody has said it: at most
        /// `idle_timeout`. The event that ends a session for it holds the evidence.
        adaptive: bool = "false", Flag;
        /// How improbable a silence must be to end a session that way: phi, where 8 stands for a probability of 10^-8.
        adaptive_level: u8 = "8", count(1, 15, "phi");
        /// The shortest silence that ends a session that way, however steady the device is.
        adaptive_min: Duration = "\"10s\"", span(100 * MS, D);
        /// How late silence may be noticed, whatever the protocol.
        tick: Duration = "\"100ms\"", span(10 * MS, 10 * S);
        /// Sessions at once, in all.
        max_sessions: usize = "1000000", count(1, 100_000_000, "sessions");
    }

    /// Commands to devices.
    "commands" Commands {
        /// Commands without an outcome yet, in all; a further one is told `busy`.
        max_under_way: usize = "65536", count(1, 10_000_000, "commands");
        /// Commands that wait for one device, connected or silent; a further one is told `busy`. For MQTT devices that are
        /// away see `mqtt.offline_queue`.
        max_per_device: usize = "32", count(1, 10_000, "commands");
        /// CoAP and UDP devices that are remembered once silence has ended their session: commands for them wait for their
        /// next word. Beyond that, those that fell silent first are forgotten, and commands for them told `not-connected`.
        max_quiet_devices: usize = "65536", count(0, 10_000_000, "devices");
        /// The longest time to live that a command may ask for.
        max_ttl: Duration = "\"7d\"", span(S, 365 * D);
    }

    /// The HTTP interface for operators: /livez, /readyz, /metrics, /v1/sessions. It asks for no password and can only
    /// read; anything off the loopback interface belongs behind a proxy or a firewall.
    "admin" Admin {
        /// Where it listens. Port 0 takes a free port.
        listen: Option<Endpoint> = "\"127.0.0.1:8080\"", maybe(HostPortKind, "no such interface");
        /// Names by which it may be asked (`Host`), beside addresses, `localhost` and the name in `listen`. Any other name could
        /// be one that a web page made to lead here. /livez and /readyz answer to every name.
        allowed_hosts: Vec<HostName> = "[]", each(parsed("host names without a port"), 64).or_none("no further name");
    }

    /// The log, on standard error.
    "log" Log {
        /// The form of its lines.
        format: LogForm = "\"text\"", Choice(&[("text", LogForm::Text), ("json", LogForm::Json)]);
        /// What is logged. A word alone is for Landfall's own parts, libraries then stay at `warn`; `name=level` is for one
        /// library or part, as in `info,landfall_mqtt=debug`.
        level: LogFilter = "\"info\"", parsed("off, error, warn, info, debug or trace, and name=level between commas");
    }
}

/// The most sockets that an address has unless the settings say a number.
const MOST_SOCKETS: usize = 8;

fn sockets(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, |processors| processors.get().min(MOST_SOCKETS)),
        sockets => sockets,
    }
}

/// How many of the addresses are for DTLS.
fn secure(listen: &[DatagramEndpoint]) -> usize {
    listen.iter().filter(|endpoint| endpoint.kind().is_dtls()).count()
}

impl Settings {
    /// Sockets that DTLS is spoken at, in all.
    pub fn dtls_sockets(&self) -> usize {
        let (coap, udp) = (&self.coap, &self.udp);
        secure(&coap.listen) * sockets(coap.sockets) + secure(&udp.listen) * sockets(udp.sockets)
    }
}

impl Coap {
    /// How each of its addresses is bound.
    pub fn datagrams(&self) -> DatagramSettings {
        DatagramSettings { sockets: sockets(self.sockets), receive_buffer: self.receive_buffer }
    }

    /// What one socket has of a bound that holds in all: never less than `least`.
    pub fn share(&self, in_all: usize, least: usize) -> usize {
        in_all.div_ceil((self.listen.len() * sockets(self.sockets)).max(1)).max(least)
    }
}

impl Udp {
    /// How each of its addresses is bound.
    pub fn datagrams(&self) -> DatagramSettings {
        DatagramSettings { sockets: sockets(self.sockets), receive_buffer: self.receive_buffer }
    }
}

impl Presence {
    /// How the hub learns silences; `None` when it does not.
    pub fn learning(&self) -> Option<Patience> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (level, most_ms) = (f64::from(self.adaptive_level), ms(self.idle_timeout));
        self.adaptive.then(|| Patience {
            level,
            least_ms: ms(self.adaptive_min),
            most_ms,
            settle_ms: most_ms.saturating_mul(2),
        })
    }
}

impl Dtls {
    /// The files of a certificate, and where they stand; `None` without one. A key that its own section names must fit, and
    /// one of `[tls]` where there is nothing else to prove oneself by.
    pub fn settings(&self, tls: &Tls, mode: AuthMode) -> Option<DtlsSettings> {
        let file = |(own, path): (_, &Option<PathBuf>), (inherited, other): (_, &Option<PathBuf>)| {
            let path = path.clone().map(|path| PemFile { setting: own, path });
            path.or_else(|| other.clone().map(|path| PemFile { setting: inherited, path }))
        };
        Some(DtlsSettings {
            cert: file(("dtls.cert", &self.cert), ("tls.cert", &tls.cert))?,
            key: file(("dtls.key", &self.key), ("tls.key", &tls.key))?,
            ecdsa_needed: self.cert.is_some() || mode == AuthMode::Open,
            client_ca: file(("dtls.client_ca", &self.client_ca), ("tls.client_ca", &tls.client_ca)),
        })
    }

    /// Whether a device that shows no certificate is turned away, where it could show one.
    pub fn client_auth(&self, tls: &Tls) -> ClientAuth {
        self.client_auth.unwrap_or(tls.client_auth)
    }
}

impl Tls {
    /// What the TLS acceptor needs; `None` without a certificate.
    pub fn settings(&self) -> Option<TlsSettings> {
        let (cert, key) = self.cert.clone().zip(self.key.clone())?;
        let (client_ca, client_auth) = (self.client_ca.clone(), self.client_auth);
        Some(TlsSettings { cert, key, client_ca, client_auth, max_record: self.max_record_size })
    }
}
