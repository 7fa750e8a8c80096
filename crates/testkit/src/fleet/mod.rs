//! A fleet of simulated devices that never give up, and a journal of what they saw acknowledged.
//!
//! Owns: devices over MQTT, CoAP and UDP that connect, number what they send, come back when they are cut off, leave and stay
//! away for a while; seeded. Does not own: the faults, and judging the events ([`crate::verify`]; [`order`] for what only the
//! numbers in the payloads tell).
//!
//! What must be acknowledged is sent again until it is, over as many connections as that takes, and in the order of its
//! numbers, so that the order in the stream is that order too. What asks for no acknowledgement is sent once.

mod datagrams;
mod forgetful;
mod mqtt;
pub mod order;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Gateway;
use crate::proxy::Seed;

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
    /// MQTT devices; every third sends QoS 0, 1, 2, and every fifth keeps its session when it is cut off.
    pub mqtt: usize,
    /// CoAP devices; every second asks for acknowledgements (CON).
    pub coap: usize,
    /// UDP devices; every second asks for acknowledgements.
    pub udp: usize,
    /// Pairs of CoAP devices that share a port, begin anew at any moment with the message ids of before, and give up what is not
    /// acknowledged soon.
    pub forgetful: usize,
    /// Messages that an MQTT device sends ahead of their acknowledgements.
    pub window: usize,
    /// Between two messages of a device, at most.
    pub pause: Duration,
    /// Of a hundred messages, so many are a device's last before it leaves for a moment.
    pub leaves: u64,
    /// Where chance begins.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            mqtt: 12,
            coap: 4,
            udp: 4,
            forgetful: 2,
            window: 4,
            pause: Duration::from_millis(20),
            leaves: 5,
            seed: 1,
        }
    }
}

/// The seed that `LANDFALL_TEST_SEED` names, to look for rare faults in many runs; without it `usual`.
pub fn seed_or(usual: u64) -> u64 {
    std::env::var("LANDFALL_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[derive(Debug)]
struct Shared {
    doors: watch::Receiver<Vec<Doors>>,
    end: watch::Receiver<bool>,
    journal: Mutex<std::fs::File>,
    acknowledged: AtomicU64,
    /// Those of the forgetful.
    of_forgetful: AtomicU64,
    plan: Plan,
}

impl Shared {
    fn is_over(&self) -> bool {
        *self.end.borrow()
    }

    /// Those of one gateway, of several the one that `any` points to.
    fn doors(&self, any: u64) -> Doors {
        let doors = self.doors.borrow();
        let among = u64::try_from(doors.len()).unwrap_or(1);
        doors[usize::try_from(any % among).unwrap_or(0)]
    }

    /// A forgetful one did.
    fn acknowledged_by_forgetful(&self, device: &str, payload: &str) {
        self.record(device, payload);
        self.of_forgetful.fetch_add(1, Ordering::Relaxed);
    }

    /// The device saw this message acknowledged.
    fn acknowledged(&self, device: &str, payload: &str) {
        self.record(device, payload);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn record(&self, device: &str, payload: &str) {
        let line = format!("{{\"device\":\"{device}\",\"payload\":\"{payload}\"}}\n");
        let mut journal = self.journal.lock().expect("nobody panics while holding it");
        journal.write_all(line.as_bytes()).expect("a journal that can be written");
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
    doors: watch::Sender<Vec<Doors>>,
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
        let (doors, watch_doors) = watch::channel(vec![doors]);
        let (end, watch_end) = watch::channel(false);
        let shared = Arc::new(Shared {
            doors: watch_doors,
            end: watch_end,
            journal: Mutex::new(file),
            acknowledged: AtomicU64::new(0),
            of_forgetful: AtomicU64::new(0),
            plan,
        });
        let mut devices = JoinSet::new();
        let mut seeds = Seed(plan.seed);
        for n in 0..plan.mqtt {
            devices.spawn(mqtt::device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        for n in 0..plan.coap {
            devices.spawn(datagrams::coap_device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        for n in 0..plan.forgetful {
            devices.spawn(forgetful::device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        for n in 0..plan.udp {
            devices.spawn(datagrams::udp_device(Arc::clone(&shared), n, Seed(seeds.draw())));
        }
        Self { shared, doors, end, devices, journal }
    }

    /// The gateway is to be found elsewhere from now on.
    pub fn go_to(&self, doors: Doors) {
        self.doors.send_replace(vec![doors]);
    }

    /// There are several gateways from now on: a device that connects takes any.
    ///
    /// # Panics
    /// When there is none.
    pub fn go_to_any(&self, doors: &[Doors]) {
        assert!(!doors.is_empty(), "a gateway");
        self.doors.send_replace(doors.to_vec());
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

    /// Waits until the forgetful have seen so many more: none of them is answered for ever with what its forerunner got.
    pub async fn forgetful_progress(&self, by: u64) {
        let seen = || self.shared.of_forgetful.load(Ordering::Relaxed);
        let goal = seen() + by;
        let what = format!("{by} messages of forgetful devices");
        crate::eventually(crate::PATIENCE * 3, &what, async || (seen() >= goal).then_some(())).await;
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
