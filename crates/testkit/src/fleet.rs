//! A fleet of simulated devices that never give up, and a journal of what they saw acknowledged.
//!
//! Owns: devices over MQTT, CoAP and UDP that connect, number what they send, come back when they are cut off, leave and stay
//! away for a while; seeded. Does not own: the faults, and judging the events ([`crate::verify`]).
//!
//! Each device sends one message at a time, so that the order of its messages is the order of their numbers, and sends one that
//! must be acknowledged again until it is, over as many connections as that takes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::coap::{Message, code, kind as coap_kind, method};
use crate::packet::{self, Connect, Publish, Version, kind};
use crate::proxy::Seed;
use crate::recorder::Seen;
use crate::{Gateway, RawClient};

/// How long a device waits for an answer before it tries another way.
const ANSWER: Duration = Duration::from_secs(4);

/// Where the devices find the gateway, now.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
    /// CoAP over UDP.
    pub coap: SocketAddr,
    /// Lines over UDP.
    pub udp: SocketAddr,
}

impl Doors {
    /// Those of a gateway.
    pub fn of(gateway: &Gateway) -> Self {
        Self { mqtt: gateway.mqtt("tcp"), coap: gateway.coap(), udp: gateway.udp() }
    }
}

/// How many devices of each kind, and how restless they are.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// MQTT devices; every third sends QoS 0, 1, 2.
    pub mqtt: usize,
    /// CoAP devices; every second asks for acknowledgements (CON).
    pub coap: usize,
    /// UDP devices; every second asks for acknowledgements.
    pub udp: usize,
    /// Between two messages of a device, at most.
    pub pause: Duration,
    /// Of a hundred messages, so many are a device's last before it leaves for a moment.
    pub leaves: u64,
    /// Where chance begins.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { mqtt: 12, coap: 4, udp: 4, pause: Duration::from_millis(20), leaves: 5, seed: 1 }
    }
}

#[derive(Debug)]
struct Shared {
    doors: watch::Receiver<Doors>,
    end: watch::Receiver<bool>,
    journal: Mutex<std::fs::File>,
    acknowledged: AtomicU64,
    plan: Plan,
}

impl Shared {
    fn is_over(&self) -> bool {
        *self.end.borrow()
    }

    fn doors(&self) -> Doors {
        *self.doors.borrow()
    }

    /// The device saw this message acknowledged.
    fn acknowledged(&self, device: &str, payload: &str) {
        let line = format!("{{\"device\":\"{device}\",\"payload\":\"{payload}\"}}\n");
        let mut journal = self.journal.lock().expect("nobody panics while holding it");
        journal.write_all(line.as_bytes()).expect("a journal that can be written");
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    async fn pause(&self, seed: &mut Seed) {
        let most = u64::try_from(self.plan.pause.as_micros()).unwrap_or(1).max(1);
        sleep(Duration::from_micros(seed.below(most))).await;
    }
}

/// A running fleet. Dropping it ends every device from one moment to the next.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    doors: watch::Sender<Doors>,
    end: watch::Sender<bool>,
    devices: JoinSet<()>,
    journal: PathBuf,
}

impl Fleet {
    /// Sends the devices of `plan` to `doors`; the journal is kept in `folder`.
    ///
    /// # Panics
    /// When the journal cannot be made.
    pub fn start(doors: Doors, plan: Plan, folder: &Path) -> Self {
        let journal = folder.join("journal.jsonl");
        let file = std::fs::File::create(&journal).expect("a journal");
        let (doors, watch_doors) = watch::channel(doors);
        let (end, watch_end) = watch::channel(false);
        let shared = Arc::new(Shared {
            doors: watch_doors,
            end: watch_end,
            journal: Mutex::new(file),
            acknowledged: AtomicU64::new(0),
            plan,
        });
        let mut devices = JoinSet::new();
        let mut seeds = Seed(plan.seed);
        for n in 0..plan.mqtt {
            devices.spawn(mqtt_device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        for n in 0..plan.coap {
            devices.spawn(coap_device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        for n in 0..plan.udp {
            devices.spawn(udp_device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        Self { shared, doors, end, devices, journal }
    }

    /// The gateway is to be found elsewhere from now on.
    pub fn go_to(&self, doors: Doors) {
        self.doors.send_replace(doors);
    }

    /// Messages that were seen acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more have been seen acknowledged.
    pub async fn progresses(&self, by: u64) {
        let goal = self.acknowledged() + by;
        let what = format!("{by} acknowledged messages");
        crate::eventually(crate::PATIENCE * 3, &what, async || (self.acknowledged() >= goal).then_some(()))
            .await;
    }

    /// Lets every device finish what it is about and leave; returns the journal's file.
    ///
    /// # Panics
    /// When one does not, or has panicked.
    pub async fn stop(mut self) -> PathBuf {
        self.end.send_replace(true);
        let all = async {
            while let Some(device) = self.devices.join_next().await {
                device.expect("a device that does not panic");
            }
        };
        crate::within(crate::PATIENCE * 3, "the devices' end", all).await;
        self.journal
    }
}

async fn mqtt_device(shared: Arc<Shared>, n: usize, mut seed: Seed) {
    let (name, qos) = (format!("mqtt-{n}"), u8::try_from(n % 3).unwrap_or(0));
    let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V4 };
    let mut next = 1_u64;
    while !shared.is_over() {
        let Some(mut client) = mqtt_connect(&shared, version, &name).await else {
            sleep(Duration::from_millis(20 + seed.below(80))).await;
            continue;
        };
        while !shared.is_over() {
            let payload = format!("{name}:{next}");
            let id = u16::try_from(next % 60_000).unwrap_or(0) + 1;
            if mqtt_publish(&mut client, version, (&payload, qos, id)).await.is_none() {
                break;
            }
            if qos > 0 {
                shared.acknowledged(&name, &payload);
            }
            next += 1;
            if seed.below(100) < shared.plan.leaves {
                break;
            }
            shared.pause(&mut seed).await;
        }
        // One goodbye of three is none.
        if shared.is_over() || seed.below(3) > 0 {
            let _ = client.try_send(&packet::disconnect(version, 0, &[])).await;
        }
        drop(client);
        sleep(Duration::from_millis(seed.below(60))).await;
    }
}

async fn mqtt_connect(shared: &Shared, version: Version, name: &str) -> Option<RawClient> {
    let stream = timeout(ANSWER, TcpStream::connect(shared.doors().mqtt)).await.ok()?.ok()?;
    stream.set_nodelay(true).ok()?;
    let mut client = RawClient::over(stream, version);
    client.try_send(&Connect::new(version, name).keep_alive(60).encode()).await.ok()?;
    let connack = answer(&mut client).await?;
    (connack.kind() == kind::CONNACK && connack.connack_code() == 0).then_some(client)
}

async fn answer(client: &mut RawClient) -> Option<crate::raw::Packet> {
    timeout(ANSWER, client.try_next()).await.ok()?
}

/// `None` when the connection is no good any more.
async fn mqtt_publish(
    client: &mut RawClient,
    version: Version,
    (payload, qos, id): (&str, u8, u16),
) -> Option<()> {
    client.try_send(&Publish::new(version, "t", payload, qos, id).encode()).await.ok()?;
    if qos == 0 {
        return Some(());
    }
    let ack = answer(client).await?;
    let wanted = if qos == 1 { kind::PUBACK } else { kind::PUBREC };
    if ack.kind() != wanted || ack.id() != id || ack.ack_code() >= 0x80 {
        return None;
    }
    if qos == 2 {
        // PUBREC has said that it is stored; what follows only ends the exchange.
        client.try_send(&packet::acknowledgement(kind::PUBREL, id)).await.ok()?;
        answer(client).await.filter(|packet| packet.kind() == kind::PUBCOMP)?;
    }
    Some(())
}

async fn udp_device(shared: Arc<Shared>, n: usize, mut seed: Seed) {
    let (name, asks) = (format!("udp-{n}"), n.is_multiple_of(2));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let mut next = 1_u64;
    while !shared.is_over() {
        let payload = format!("{name}:{next}");
        let ack = if asks { " ack" } else { "" };
        let datagram = format!("LF1 {name} seq={next} hb=60{ack}\n{payload}");
        let _ = socket.send_to(datagram.as_bytes(), shared.doors().udp).await;
        if asks {
            let wanted = format!("LF1 ack seq={next}");
            match timeout(ANSWER / 4, udp_answer(&socket, &wanted)).await {
                Ok(()) => shared.acknowledged(&name, &payload),
                // The same again.
                Err(_) => continue,
            }
        }
        next += 1;
        if seed.below(100) < shared.plan.leaves {
            let _ = socket.send_to(format!("LF1 {name} bye").as_bytes(), shared.doors().udp).await;
            sleep(Duration::from_millis(seed.below(60))).await;
        }
        shared.pause(&mut seed).await;
    }
}

async fn udp_answer(socket: &UdpSocket, wanted: &str) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP refusal of an earlier datagram shows up here.
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        if std::str::from_utf8(&buffer[..length]).is_ok_and(|text| text.trim_end() == wanted) {
            return;
        }
    }
}

async fn coap_device(shared: Arc<Shared>, n: usize, mut seed: Seed) {
    let (name, asks) = (format!("coap-{n}"), n.is_multiple_of(2));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (mut next, mut id) = (1_u64, (seed.draw() >> 48) as u16);
    while !shared.is_over() {
        let payload = format!("{name}:{next}");
        id = id.wrapping_add(1);
        let ep = format!("ep={name}");
        let mut request = Message::request(method::POST).path("t").queries(&[&ep, "lt=60"]).payload(&payload);
        (request.id, request.token) = (id, id.to_be_bytes().to_vec());
        let request = if asks { request } else { request.non() };
        if asks {
            match timeout(ANSWER, coap_exchange(&socket, &shared, &request)).await {
                Ok(answer) if answer == code(2, 4) => shared.acknowledged(&name, &payload),
                // Told to come back, or nothing: the same message in a new exchange.
                _ => {
                    sleep(Duration::from_millis(50 + seed.below(100))).await;
                    continue;
                }
            }
        } else {
            let _ = socket.send_to(&request.encode(), shared.doors().coap).await;
        }
        next += 1;
        shared.pause(&mut seed).await;
    }
}

/// Sends a confirmable request until it is answered; returns the answer's code.
async fn coap_exchange(socket: &UdpSocket, shared: &Shared, request: &Message) -> u8 {
    let mut buffer = [0; 2048];
    loop {
        let _ = socket.send_to(&request.encode(), shared.doors().coap).await;
        let answered = timeout(Duration::from_millis(700), async {
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let Ok(message) = Message::decode(&buffer[..length]) else { continue };
                if message.kind == coap_kind::CON {
                    let ack = Message::empty(coap_kind::ACK, message.id);
                    let _ = socket.send_to(&ack.encode(), from).await;
                }
                if message.token == request.token && message.code != 0 {
                    return message.code;
                }
            }
        });
        if let Ok(code) = answered.await {
            return code;
        }
    }
}

/// Finds out of order what a fleet's devices sent: each device's numbers rise in the stream, a message that came again
/// counting where it came first. Empty when all is well.
pub fn disorder(messages: &[Seen]) -> Vec<String> {
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    for event in messages.iter().filter(|event| event.kind() == "upstream") {
        let Some(payload) = event.json["payload"].as_str() else { continue };
        let Some((device, number)) = payload.split_once(':') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        if !seen.insert(payload.to_owned()) {
            continue;
        }
        let newest = newest.entry(device.to_owned()).or_default();
        if number < *newest {
            found.push(format!("{payload} after {newest}"));
        }
        *newest = (*newest).max(number);
    }
    found
}
