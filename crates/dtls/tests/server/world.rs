//! One server, one client and the way between them, in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output, PskResolver};
use landfall_dtls::{Answer, Engine, EngineEvent, Identity, Outlet, Server, ServerConfig, Stage, Tick};

pub(crate) const KEY: &[u8] = b"sixteen byte key";
pub(crate) const NAME: &[u8] = b"meter-1@farm";

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
    Twice,
    /// It takes so many ms longer.
    Late(u64),
}

/// What becomes of each datagram, by its way and its number.
type Fates = Box<dyn FnMut(Way, usize, &[u8]) -> Fate>;

/// What the authenticator says of an identity.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Key(Vec<u8>),
    Admitted,
    Refused,
    Unavailable,
}

impl Verdict {
    pub(crate) fn answer(&self) -> Answer<'_> {
        match self {
            Self::Key(key) => Answer::Psk(key),
            Self::Admitted => Answer::Admitted,
            Self::Refused => Answer::Refused,
            Self::Unavailable => Answer::Unavailable,
        }
    }
}

/// All that an engine told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) data: Vec<Vec<u8>>,
    pub(crate) events: Vec<EngineEvent>,
}

impl Outlet for Told {
    fn transmit(&mut self, datagram: &[u8]) {
        self.datagrams.push(datagram.to_vec());
    }

    fn data(&mut self, bytes: &[u8]) {
        self.data.push(bytes.to_vec());
    }

    fn event(&mut self, event: EngineEvent) {
        self.events.push(event);
    }
}

struct Resolver(Vec<u8>);

impl PskResolver for Resolver {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

pub(crate) fn psk_config() -> ServerConfig {
    ServerConfig {
        psk: true,
        certificate: None,
        client_ca: None,
        require_client_certificate: false,
        mtu: 1_200,
        max_forged: 1_000,
    }
}

pub(crate) fn psk_client(key: &[u8]) -> Dtls {
    let config = Config::builder()
        .with_psk_client(NAME.to_vec(), Arc::new(Resolver(key.to_vec())))
        .dangerously_set_rng_seed(7)
        .build()
        .unwrap();
    Dtls::new_12_psk(Arc::new(config), Instant::now())
}

pub(crate) fn certificate_client(certificate: DtlsCertificate, mtu: usize) -> Dtls {
    let config = Config::builder().mtu(mtu).build().unwrap();
    Dtls::new_12(Arc::new(config), certificate, Instant::now())
}

pub(crate) struct World {
    pub(crate) server: Server,
    client: Dtls,
    base: Instant,
    pub(crate) now: Tick,
    client_due: Option<Tick>,
    flying: Vec<(Tick, usize, Way, Vec<u8>)>,
    sent: usize,
    fate: Fates,
    verdict: Option<Verdict>,
    /// Also what was sent is there, in order.
    pub(crate) told: Told,
    seen: usize,
    pub(crate) connected: bool,
    pub(crate) client_closed: bool,
    pub(crate) client_error: Option<String>,
    pub(crate) client_data: Vec<Vec<u8>>,
}

impl World {
    pub(crate) fn new(config: ServerConfig, mut client: Dtls) -> Self {
        client.set_active(true);
        Self {
            server: Server::accept(&Arc::new(config), 0),
            client,
            base: Instant::now(),
            now: 0,
            client_due: Some(0),
            flying: Vec::new(),
            sent: 0,
            fate: Box::new(|_, _, _| Fate::Arrives),
            verdict: Some(Verdict::Key(KEY.to_vec())),
            told: Told::default(),
            seen: 0,
            connected: false,
            client_closed: false,
            client_error: None,
            client_data: Vec::new(),
        }
    }

    /// What every `WhoIs` is answered at once; `None`: nothing.
    pub(crate) fn answering(mut self, verdict: Option<Verdict>) -> Self {
        self.verdict = verdict;
        self
    }

    pub(crate) fn with_fate(mut self, fate: impl FnMut(Way, usize, &[u8]) -> Fate + 'static) -> Self {
        self.fate = Box::new(fate);
        self
    }

    pub(crate) fn set_fate(&mut self, fate: impl FnMut(Way, usize, &[u8]) -> Fate + 'static) {
        self.fate = Box::new(fate);
    }

    /// How many datagrams were sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Lets things happen until `end` (of virtual time, in ms) or until nothing more would.
    pub(crate) fn run_until(&mut self, end: Tick) {
        for _ in 0..10_000 {
            let arrival = self.flying.iter().map(|(at, number, ..)| (*at, *number)).min();
            let times = [arrival.map(|(at, _)| at), self.client_due, self.server.next_timeout()];
            let Some(next) = times.into_iter().flatten().min().filter(|next| *next <= end) else {
                self.now = self.now.max(end);
                return;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|(at, _)| at <= self.now) {
                let number = arrival.unwrap().1;
                let at = self.flying.iter().position(|one| one.1 == number).unwrap();
                let (_, _, way, datagram) = self.flying.swap_remove(at);
                self.arrive(way, datagram);
            } else if self.server.next_timeout().is_some_and(|due| due <= self.now) {
                self.server.handle_timeout(self.now, &mut self.told);
                self.after_server();
            } else {
                self.client_due = None;
                let now = self.base + Duration::from_millis(self.now);
                let result = self.client.handle_timeout(now);
                self.note(result);
                self.poll_client();
            }
        }
        panic!("nothing comes to rest");
    }

    /// Until both are established, or 100 s have passed.
    pub(crate) fn shake(&mut self) {
        let end = self.now + 100_000;
        while self.now < end && !(self.connected && self.server.stage() == Stage::Established) {
            self.run_until(self.now + 100);
        }
        assert!(self.connected, "the client is not there: {:?} {:?}", self.client_error, self.told.events);
    }

    pub(crate) fn run(&mut self) {
        self.run_until(self.now + 200);
    }

    fn arrive(&mut self, way: Way, mut datagram: Vec<u8>) {
        match way {
            Way::Up => {
                self.server.receive(self.now, &mut datagram, &mut self.told);
                self.after_server();
            }
            Way::Down => {
                let result = self.client.handle_packet(&datagram);
                self.note(result);
                self.poll_client();
            }
        }
    }

    fn note(&mut self, result: Result<(), dimpl::Error>) {
        if let Err(error) = result {
            self.client_error.get_or_insert(error.to_string());
        }
    }

    fn after_server(&mut self) {
        for _ in 0..4 {
            let asked =
                self.told.events.iter().skip(self.seen).any(|event| matches!(event, EngineEvent::WhoIs(_)));
            self.seen = self.told.events.len();
            if asked && let Some(verdict) = &self.verdict {
                self.server.answer(self.now, verdict.answer(), &mut self.told);
            }
        }
        self.fetch();
    }

    fn fetch(&mut self) {
        for datagram in std::mem::take(&mut self.told.datagrams) {
            self.fly(Way::Down, &datagram);
        }
    }

    fn poll_client(&mut self) {
        let mut buffer = vec![0; 20_000];
        if self.client_error.is_some() {
            return;
        }
        loop {
            match self.client.poll_output(&mut buffer) {
                Output::Packet(packet) => {
                    let packet = packet.to_vec();
                    self.fly(Way::Up, &packet);
                }
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.client_closed = true,
                Output::ApplicationData(data) => self.client_data.push(data.to_vec()),
                Output::Timeout(at) => {
                    let at = at.saturating_duration_since(self.base).as_nanos().div_ceil(1_000_000);
                    let at = Tick::try_from(at).unwrap();
                    self.client_due = (at < 10_000_000).then_some(at.max(self.now + 1));
                    return;
                }
                Output::PeerCert(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a datagram on its way; it arrives within the same ms.
    pub(crate) fn fly(&mut self, way: Way, datagram: &[u8]) {
        let number = self.sent;
        self.sent += 1;
        let mut put =
            |at: Tick, again: usize| self.flying.push((at, 10 * number + again, way, datagram.to_vec()));
        match (self.fate)(way, number, datagram) {
            Fate::Arrives => put(self.now, 0),
            Fate::Lost => {}
            Fate::Twice => {
                put(self.now, 0);
                put(self.now, 1);
            }
            Fate::Late(ms) => put(self.now + ms, 0),
        }
    }

    pub(crate) fn send_up(&mut self, data: &[u8]) {
        self.client.send_application_data(data).unwrap();
        self.poll_client();
    }

    pub(crate) fn send_down(&mut self, data: &[u8]) {
        let mut datagram = Vec::new();
        self.server.send(data, &mut datagram).unwrap();
        self.fly(Way::Down, &datagram);
    }

    pub(crate) fn close_client(&mut self) {
        self.client.close().unwrap();
        self.poll_client();
    }

    pub(crate) fn close_server(&mut self) {
        self.server.close(&mut self.told);
        self.fetch();
    }

    pub(crate) fn answer(&mut self, verdict: &Verdict) {
        self.server.answer(self.now, verdict.answer(), &mut self.told);
        self.after_server();
    }

    pub(crate) fn established(&self) -> Option<(Option<Identity>, &'static str)> {
        self.told.events.iter().find_map(|event| match event {
            EngineEvent::Established { identity, suite } => Some((identity.clone(), *suite)),
            _ => None,
        })
    }

    /// Data flows both ways.
    pub(crate) fn assert_flows(&mut self) {
        let (up, down) = (self.told.data.len(), self.client_data.len());
        self.send_up(b"hello");
        self.send_down(b"world");
        self.run();
        assert_eq!(self.told.data[up..], [b"hello".to_vec()]);
        assert_eq!(self.client_data[down..], [b"world".to_vec()]);
    }
}
