//! Faults of every kind drawn from a seed, several at a time: two replicas, the way of each to NATS, and nats-server; among the
//! devices some that begin anew at any moment with the message ids of before, two behind one port.
//!
//! `LANDFALL_TEST_SEED` takes another seed, to look for rare faults in many runs.

use std::net::SocketAddr;
use std::path::Path;

use landfall_testkit::fleet::seed_or;
use landfall_testkit::packet::{self, Connect, Publish, kind};
use landfall_testkit::proxy::Seed;
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES};
use landfall_testkit::verify::assert_verified;
use landfall_testkit::{Doors, Fleet, Gateway, Mode, NatsServer, Plan, Proxy, RawClient, Version};
use tempfile::TempDir;

use super::{close, judge, judge_replicas, on, until_kept};

/// What is wrong with a replica or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Killed,
    Frozen,
    /// Its way to NATS is cut.
    Cut,
    /// Nothing comes through on its way to NATS.
    Stalled,
}

struct Replica {
    gateway: Gateway,
    way: Proxy,
    state: State,
}

impl Replica {
    async fn start(nats: &NatsServer, name: &str, seed: u64) -> Self {
        let way = Proxy::start(SocketAddr::from(([127, 0, 0, 1], nats.port())), seed).await;
        let settings = on(nats).set("nats.url", format!("nats://{}", way.address()));
        let gateway = settings.set("instance.replica", name).start().await;
        Self { gateway, way, state: State::Well }
    }

    fn harm(&mut self, state: State) {
        match state {
            State::Well => {}
            State::Killed => {
                self.gateway.kill();
                // The next process has a log of its own.
                eprintln!("its log:\n{}", self.gateway.log());
            }
            State::Frozen => self.gateway.freeze(),
            State::Cut => self.way.set(Mode::Cut),
            State::Stalled => self.way.set(Mode::Stall),
        }
        self.state = state;
    }

    async fn heal(mut self) -> Self {
        match self.state {
            State::Well => {}
            State::Killed => self.gateway = self.gateway.restart().await,
            State::Frozen => self.gateway.thaw(),
            State::Cut | State::Stalled => self.way.set(Mode::Pass),
        }
        self.state = State::Well;
        self
    }

    fn serves(&self) -> bool {
        !matches!(self.state, State::Killed | State::Frozen)
    }
}

/// What may happen in a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Processes and ways break.
    Breaks,
    /// An operator purges a stream of events too. What was stored and purged is looked for nowhere, so no gateway is killed: who was
    /// present since its last checkpoint would stand nowhere.
    Purges,
}

/// The packet id of what a stray sends.
const STRAY_ID: u16 = 9;

/// A device beside the fleet that does what once locked devices out: it sends what it may not, or loses its connection with a
/// message under way, and comes again at once. Whatever is wrong, it is answered; returns whether it was let in.
async fn stray(address: SocketAddr, forbidden: bool) -> bool {
    let connect = Connect::new(Version::V4, "stray").persistent(3600);
    for _ in 0..2 {
        let (mut client, connack) = RawClient::connect(address, &connect).await;
        match connack.connack_code() {
            0 => {}
            3 => return false,
            code => panic!("a CONNACK of {code}"),
        }
        let topic = if forbidden { "$SYS/stray" } else { "stray" };
        client.send(&Publish::new(Version::V4, topic, "x", 2, STRAY_ID).encode()).await;
        if forbidden {
            client.until_closed().await;
        } else {
            // The answer to the message may come before, or after NATS is back.
            client.send(&packet::ping()).await;
            while client.next().await.is_some_and(|packet| packet.kind() != kind::PINGRESP) {}
        }
    }
    true
}

struct Storm {
    weather: Weather,
    nats: NatsServer,
    server: State,
    replicas: Vec<Replica>,
    fleet: Fleet,
    seed: Seed,
}

impl Storm {
    async fn begin(weather: Weather, replicas: &[&str], seed: u64, folder: &Path) -> Self {
        let (nats, mut seed) = (NatsServer::start().await, Seed(seed));
        let mut started = Vec::new();
        for name in replicas {
            started.push(Replica::start(&nats, name, seed.draw()).await);
        }
        let plan = Plan { seed: seed.draw(), ..Plan::default() };
        let fleet = Fleet::start(Doors::of(&started[0].gateway), plan, folder);
        let storm = Self { weather, nats, server: State::Well, replicas: started, fleet, seed };
        storm.tell_the_way();
        storm
    }

    fn tell_the_way(&self) {
        let doors: Vec<Doors> = self.replicas.iter().map(|replica| Doors::of(&replica.gateway)).collect();
        self.fleet.go_to_any(&doors);
    }

    /// A stray comes to a replica that can hear it.
    async fn provoke(&mut self) {
        let (which, forbidden) = (self.seed.draw(), self.seed.below(2) == 0);
        let serving: Vec<&Replica> = self.replicas.iter().filter(|replica| replica.serves()).collect();
        let Some(among) = u64::try_from(serving.len()).ok().filter(|count| *count > 0) else { return };
        let replica = serving[usize::try_from(which % among).unwrap_or(0)];
        let is_in = stray(replica.gateway.mqtt("tcp"), forbidden).await;
        eprintln!(
            "a stray, {}: {}",
            if forbidden { "forbidden" } else { "lost" },
            if is_in { "in" } else { "refused" }
        );
    }

    /// Something breaks, or is well again.
    async fn step(&mut self) {
        let among = u64::try_from(self.replicas.len()).unwrap_or(1);
        let which = usize::try_from(self.seed.below(among + 1)).unwrap_or(0);
        if which == self.replicas.len() {
            self.step_of_server().await;
        } else if self.replicas[which].state == State::Well {
            let all = match self.weather {
                Weather::Breaks => [State::Killed, State::Frozen, State::Cut, State::Stalled],
                Weather::Purges => [State::Well, State::Frozen, State::Cut, State::Stalled],
            };
            let state = all[usize::try_from(self.seed.below(4)).unwrap_or(0)];
            eprintln!("replica {which}: {state:?}");
            self.replicas[which].harm(state);
        } else {
            self.heal(which).await;
        }
    }

    async fn step_of_server(&mut self) {
        if self.server != State::Well {
            return self.heal_server().await;
        }
        if self.weather == Weather::Purges && self.seed.below(2) == 0 {
            return self.purge().await;
        }
        self.server = if self.seed.below(2) == 0 { State::Killed } else { State::Frozen };
        eprintln!("nats-server: {:?}", self.server);
        match self.server {
            State::Killed => self.nats.kill(),
            _ => self.nats.freeze(),
        }
    }

    /// What one does when a store is full.
    async fn purge(&mut self) {
        let name = if self.seed.below(2) == 0 { MESSAGES } else { CONNECTIVITY };
        eprintln!("{name}: purged");
        let context = async_nats::jetstream::new(self.nats.client().await);
        let stream = context.get_stream(name).await.expect("a stream");
        stream.purge().await.expect("a purge");
    }

    async fn heal(&mut self, which: usize) {
        if self.replicas[which].state == State::Killed {
            // A gateway that starts closes what the one before it left open, so it needs the server.
            self.heal_server().await;
        }
        eprintln!("replica {which}: well again");
        let replica = self.replicas.remove(which);
        self.replicas.insert(which, replica.heal().await);
        self.tell_the_way();
    }

    async fn heal_server(&mut self) {
        if self.server == State::Well {
            return;
        }
        eprintln!("nats-server: well again");
        match self.server {
            State::Killed => self.nats.restart().await,
            State::Frozen => self.nats.thaw(),
            _ => {}
        }
        self.server = State::Well;
    }

    /// Lets the devices work for a while with what works.
    async fn go_on(&mut self) {
        let (away, work) = (self.server != State::Well, self.seed.below(200));
        if !away && self.replicas.iter().any(|replica| replica.state == State::Well) {
            self.fleet.progresses(work).await;
        } else if let Some(one) = self.replicas.iter().find(|replica| replica.serves()) {
            until_kept(&one.gateway, work as f64 / 4.0).await;
        }
    }

    async fn end(mut self) {
        self.heal_server().await;
        for which in 0..self.replicas.len() {
            self.heal(which).await;
        }
        for replica in &self.replicas {
            replica.gateway.becomes_ready().await;
        }
        self.fleet.progresses(200).await;
        for replica in &self.replicas {
            assert!(stray(replica.gateway.mqtt("tcp"), true).await, "nobody is locked out");
        }
        self.fleet.forgetful_progress(20).await;
        let journal = self.fleet.stop().await;
        for replica in &self.replicas {
            close(&replica.gateway).await;
        }
        if self.weather == Weather::Purges {
            // Who left before a purge has messages, and no end any more.
            assert_verified(&self.nats.url(), &[]).await;
        } else if self.replicas.len() == 1 {
            judge(&self.nats, &[&journal]).await;
        } else {
            judge_replicas(&self.nats, &[&journal]).await;
        }
    }
}

async fn storm(replicas: &[&str], seed: u64) {
    storm_with(Weather::Breaks, replicas, seed).await;
}

async fn storm_with(weather: Weather, replicas: &[&str], seed: u64) {
    let folder = TempDir::new().expect("a folder");
    let seed = seed_or(seed);
    eprintln!("the storm of seed {seed}");
    let mut storm = Storm::begin(weather, replicas, seed, folder.path()).await;
    storm.fleet.progresses(100).await;
    for _ in 0..12 {
        storm.step().await;
        storm.provoke().await;
        storm.go_on().await;
    }
    storm.end().await;
}

#[tokio::test]
async fn a_storm_over_one_gateway() {
    storm(&["a1"], 61).await;
}

/// nats-server comes back for milliseconds at a time, and the gateway is killed while it moves from the disk to the server.
#[tokio::test]
async fn a_storm_whose_server_comes_back_for_moments() {
    storm(&["a1"], 126).await;
}

#[tokio::test]
async fn a_storm_over_two_replicas() {
    storm(&["a1", "b1"], 62).await;
}

#[tokio::test]
async fn a_storm_in_which_streams_are_purged() {
    storm_with(Weather::Purges, &["a1", "b1"], 63).await;
}
