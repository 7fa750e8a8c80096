//! Two hundred clients of others' making, over a way that loses, delays and doubles, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, Output, PskResolver};
use landfall_dtls::{
    Answer, Closing, Event, Failure, Identity, Key, Limits, Listener, Server, ServerConfig, Sink, Tick,
};

const CLIENTS: usize = 200;
const KEY: &[u8] = b"sixteen byte key";

struct Resolver(Vec<u8>);

impl PskResolver for Resolver {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

struct Client {
    dtls: Dtls,
    due: Option<Tick>,
    connected: bool,
    closed: bool,
    failed: bool,
    data: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flying {
    Up(usize, Vec<u8>),
    Down(usize, Vec<u8>),
    /// The authenticator says something of the association with this number.
    Answer(u64),
}

#[derive(Default)]
struct Heard {
    down: Vec<(usize, Vec<u8>)>,
    data: Vec<(Key, usize, Vec<u8>)>,
    events: Vec<Event<usize>>,
}

impl Sink<usize> for Heard {
    fn transmit(&mut self, path: &usize, datagram: &[u8]) {
        self.down.push((*path, datagram.to_vec()));
    }

    fn data(&mut self, key: Key, path: &usize, bytes: &[u8]) {
        self.data.push((key, *path, bytes.to_vec()));
    }

    fn event(&mut self, event: Event<usize>) {
        self.events.push(event);
    }
}

struct Crowd {
    listener: Listener<Server, usize>,
    /// Whose association it is.
    owners: HashMap<Key, usize>,
    clients: Vec<Client>,
    base: Instant,
    now: Tick,
    flying: BinaryHeap<Reverse<(Tick, u64, Flying)>>,
    sent: u64,
    /// Lost, and as many doubled, of a hundred.
    loss: u64,
    dice: u64,
    established: Vec<(usize, Key)>,
    closed: Vec<(Key, Closing)>,
    failed: Vec<(Option<Key>, Failure)>,
    data: Vec<(usize, Vec<u8>)>,
}

fn address(number: usize) -> SocketAddr {
    // Ten clients to a host.
    SocketAddr::from(([192, 0, 2, (number / 10) as u8], 10_000 + number as u16))
}

impl Crowd {
    fn new(loss: u64) -> Self {
        let config = ServerConfig {
            psk: true,
            certificate: None,
            client_ca: None,
            require_client_certificate: false,
            mtu: 1_200,
            max_forged: 1_000,
        };
        let limits = Limits { handshake_timeout_ms: 120_000, ..Limits::default() };
        Self {
            listener: Listener::new(Arc::new(config), limits, [5; 32], 0),
            owners: HashMap::new(),
            clients: Vec::new(),
            base: Instant::now(),
            now: 0,
            flying: BinaryHeap::new(),
            sent: 0,
            loss,
            dice: 0x9E37_79B9_7F4A_7C15,
            established: Vec::new(),
            closed: Vec::new(),
            failed: Vec::new(),
            data: Vec::new(),
        }
    }

    fn client(&self, number: usize, seed: u64, key: &[u8]) -> Client {
        let config = Config::builder()
            .with_psk_client(format!("device-{number}").into_bytes(), Arc::new(Resolver(key.to_vec())))
            .dangerously_set_rng_seed(seed)
            .build()
            .unwrap();
        let mut dtls = Dtls::new_12_psk(Arc::new(config), self.base + Duration::from_millis(self.now));
        dtls.set_active(true);
        let due = Some(self.now);
        Client { dtls, due, connected: false, closed: false, failed: false, data: Vec::new() }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % below
    }

    fn fly(&mut self, what: &Flying) {
        let copies = match self.roll(100) {
            roll if roll < self.loss => 0,
            roll if roll < 2 * self.loss => 2,
            _ => 1,
        };
        for _ in 0..copies {
            self.post(what.clone());
        }
    }

    fn post(&mut self, what: Flying) {
        let late = self.roll(60);
        self.sent += 1;
        self.flying.push(Reverse((self.now + late, self.sent, what)));
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        for _ in 0..1_000_000 {
            let arrival = self.flying.peek().map(|Reverse((at, ..))| *at);
            let clients = self.clients.iter().filter_map(|client| client.due).min();
            let times = [arrival, clients, self.listener.next_timeout()];
            let Some(next) = times.into_iter().flatten().min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= self.now) {
                let Reverse((.., what)) = self.flying.pop().unwrap();
                self.arrive(what);
            }
            self.clients_due();
            let mut heard = Heard::default();
            self.listener.handle_timeout(self.now, &mut heard);
            self.hear(heard);
        }
        panic!("nothing comes to rest");
    }

    fn arrive(&mut self, what: Flying) {
        let mut heard = Heard::default();
        match what {
            Flying::Up(number, mut bytes) => {
                self.listener.receive(self.now, (number, address(number)), &mut bytes, &mut heard);
            }
            Flying::Down(number, bytes) => {
                let client = &mut self.clients[number];
                client.failed |= client.dtls.handle_packet(&bytes).is_err();
                self.poll(number);
            }
            Flying::Answer(key) => {
                let key = Key::from_number(key).unwrap();
                self.listener.answer(self.now, key, Answer::Psk(KEY), &mut heard);
            }
        }
        self.hear(heard);
    }

    fn clients_due(&mut self) {
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            if client.due.take_if(|due| *due <= self.now).is_some() {
                let now = self.base + Duration::from_millis(self.now);
                client.failed |= client.dtls.handle_timeout(now).is_err();
                self.poll(number);
            }
        }
    }

    fn poll(&mut self, number: usize) {
        let mut buffer = [0; 2_048];
        let mut up = Vec::new();
        let client = &mut self.clients[number];
        while !client.failed {
            match client.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => up.push(packet.to_vec()),
                Output::Connected => client.connected = true,
                Output::CloseNotify => client.closed = true,
                Output::ApplicationData(data) => client.data.push(data.to_vec()),
                Output::Timeout(at) => {
                    let at = at.saturating_duration_since(self.base).as_millis() as u64 + 1;
                    client.due = (at < 100_000_000).then_some(at.max(self.now + 1));
                    break;
                }
                _ => {}
            }
        }
        for bytes in up {
            self.fly(&Flying::Up(number, bytes));
        }
    }

    fn hear(&mut self, heard: Heard) {
        for (number, bytes) in heard.down {
            self.fly(&Flying::Down(number, bytes));
        }
        for event in heard.events {
            match event {
                Event::WhoIs { key, path, identity } => {
                    assert_eq!(identity, Identity::Psk(format!("device-{path}").into_bytes().into()));
                    self.owners.insert(key, path);
                    self.post(Flying::Answer(key.number()));
                }
                Event::Established { key, path, identity, .. } => {
                    assert_eq!(identity, Some(Identity::Psk(format!("device-{path}").into_bytes().into())));
                    assert_eq!(self.owners.get(&key), Some(&path));
                    assert_eq!(self.listener.path(key), Some(path));
                    self.established.push((path, key));
                }
                Event::Closed { key, why, .. } => self.closed.push((key, why)),
                Event::Failed { key, why, .. } => self.failed.push((key, why)),
            }
        }
        for (key, path, bytes) in heard.data {
            assert_eq!(self.owners.get(&key), Some(&path), "data of another's session");
            self.data.push((path, bytes));
        }
    }

    /// Every client says who it is, over its channel, and is answered on it.
    fn talk(&mut self, which: &[usize]) {
        self.loss = 0;
        self.data.clear();
        for &number in which {
            self.clients[number].data.clear();
            self.clients[number].dtls.send_application_data(format!("I am {number}").as_bytes()).unwrap();
            self.poll(number);
        }
        self.run(1_000);
        self.data.sort();
        let mut expected: Vec<_> =
            which.iter().map(|number| (*number, format!("I am {number}").into_bytes())).collect();
        expected.sort();
        assert_eq!(self.data, expected);
        for &number in which {
            let (_, key) = *self.established.iter().rev().find(|(of, _)| *of == number).unwrap();
            let mut heard = Heard::default();
            self.listener.send(key, format!("hello {number}").as_bytes(), &mut heard).unwrap();
            self.hear(heard);
        }
        self.run(1_000);
        for &number in which {
            assert_eq!(self.clients[number].data, [format!("hello {number}").into_bytes()]);
        }
    }
}

#[test]
fn all_of_them_get_in_and_none_is_taken_for_another() {
    let mut crowd = Crowd::new(10);
    for number in 0..CLIENTS {
        // One in twenty has a wrong key.
        let key: &[u8] = if number % 20 == 7 { b"some other key" } else { KEY };
        let client = crowd.client(number, number as u64 + 1, key);
        crowd.clients.push(client);
        // They come one after the other, and overlap.
        crowd.run(15);
    }
    crowd.run(100_000);
    let (wrong, right): (Vec<usize>, Vec<usize>) = (0..CLIENTS).partition(|number| number % 20 == 7);
    let late: Vec<&usize> = right.iter().filter(|number| !crowd.clients[**number].connected).collect();
    assert!(late.is_empty(), "{late:?} are not there");
    assert!(wrong.iter().all(|number| !crowd.clients[*number].connected));
    assert_eq!(crowd.listener.sessions(), right.len());
    assert!(crowd.failed.iter().filter(|(_, why)| *why == Failure::WrongKey).count() >= wrong.len());
    assert!(crowd.listener.counts().retransmitted > 0);
    crowd.talk(&right);

    // A third begins anew from the same address, and the old sessions end with that.
    crowd.loss = 10;
    let (closed, anew): (usize, Vec<usize>) =
        (crowd.closed.len(), right.iter().copied().filter(|number| number % 3 == 0).collect());
    for &number in &anew {
        crowd.clients[number] = crowd.client(number, 1_000 + number as u64, KEY);
        crowd.run(5);
    }
    crowd.run(100_000);
    let replaced = crowd.closed[closed..].iter().filter(|(_, why)| *why == Closing::Replaced).count();
    assert!(replaced >= anew.len(), "{replaced} of {}", anew.len());
    assert_eq!(crowd.listener.sessions(), right.len());
    crowd.talk(&right);

    // One end closes, or the other.
    for &number in &right[..50] {
        crowd.clients[number].dtls.close().unwrap();
        crowd.poll(number);
    }
    crowd.run(1_000);
    assert_eq!(crowd.listener.sessions(), right.len() - 50);
    let mut heard = Heard::default();
    crowd.listener.close_all(&mut heard);
    crowd.hear(heard);
    crowd.run(1_000);
    assert!(right[50..].iter().all(|number| crowd.clients[*number].closed));
    assert_eq!((crowd.listener.sessions(), crowd.listener.handshakes()), (0, 0));
    let ended = crowd.established.len() - crowd.closed.len();
    assert_eq!(ended, right.len() - 50, "whoever was ended by its peer was told of once");
}

#[test]
fn nobody_is_kept_out_by_two_thousand_who_never_finish() {
    let mut crowd = Crowd::new(0);
    let cookie_of = |crowd: &mut Crowd, from: SocketAddr, random: u8| {
        let random = [random; 32];
        let mut heard = Heard::default();
        let mut hello = crate::world::hello(0xFEFD, &random, &[]);
        crowd.listener.receive(crowd.now, (usize::MAX, from), &mut hello, &mut heard);
        let (_, reply) = heard.down.pop().unwrap();
        crate::world::hello(0xFEFD, &random, &reply[28..])
    };
    for number in 0..2_000_u32 {
        let from = SocketAddr::from((std::net::Ipv4Addr::from(0x0A00_0000 + number), 1));
        let mut hello = cookie_of(&mut crowd, from, number as u8);
        let mut heard = Heard::default();
        crowd.listener.receive(crowd.now, (usize::MAX, from), &mut hello, &mut heard);
        assert!(heard.events.is_empty(), "{:?}", heard.events);
    }
    assert_eq!(crowd.listener.handshakes(), 2_000);
    let client = crowd.client(0, 1, KEY);
    crowd.clients.push(client);
    // What the two thousand are sent again goes nowhere.
    for _ in 0..20 {
        let mut heard = Heard::default();
        crowd.now += 10;
        crowd.listener.handle_timeout(crowd.now, &mut heard);
        crowd.clients_due();
        while let Some(Reverse((.., what))) = crowd.flying.pop() {
            crowd.arrive(what);
        }
    }
    assert!(crowd.clients[0].connected);
    assert_eq!((crowd.listener.sessions(), crowd.listener.handshakes()), (1, 2_000));
}
