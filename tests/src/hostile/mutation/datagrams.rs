//! Mutated datagrams of CoAP, of the line, and of DTLS, and a valid one now and then, which must be answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use landfall_testkit::coap::{Message, method};
use landfall_testkit::dtls::wire::{ClientHello, ECDHE_ECDSA_CCM_8, PSK_CCM_8, PSK_GCM, Record, content};
use landfall_testkit::proxy::Seed;
use tokio::net::UdpSocket;

use super::changes::{mutated, pick};

/// Mutated datagrams between two valid ones.
const BETWEEN: u64 = 16;
/// After each valid one: some ten thousand a second come. A flood that takes the whole processor is another matter (`super::super::floods`,
/// `super::super::dtls`).
const PACE: Duration = Duration::from_millis(1);
/// How long one may wait for the answer to a valid datagram, which is asked for again as often as `TRIES`.
const ANSWER: Duration = Duration::from_secs(2);
const TRIES: usize = 10;

/// Tells the answer from whatever else comes.
type IsAnswer = Box<dyn Fn(&[u8]) -> bool + Send>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Coap,
    Line,
    Dtls,
}

#[derive(Clone)]
pub(super) struct Attacker {
    at: SocketAddr,
    kind: Kind,
    seed: Arc<AtomicU64>,
}

impl Attacker {
    pub(super) fn new(at: SocketAddr, seed: Seed, kind: Kind) -> Self {
        Self { at, kind, seed: Arc::new(AtomicU64::new(seed.0)) }
    }

    /// So many inputs from a new address.
    pub(super) async fn wave(self, inputs: u64) {
        let mut seed = Seed(self.seed.fetch_add(1, Ordering::Relaxed));
        let mut socket = self.socket().await;
        for n in 1..=inputs {
            let (valid, other) = (self.valid(&mut seed), self.valid(&mut seed));
            // One that is longer than the system sends is no input.
            let _ = socket.send(&mutated(&mut seed, &valid, &other)).await;
            if n % BETWEEN == 0 {
                self.is_answered(&socket, n).await;
                tokio::time::sleep(PACE).await;
            }
            if n % 1_024 == 0 {
                socket = self.socket().await;
            }
        }
    }

    async fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.at).await.unwrap();
        socket
    }

    async fn is_answered(&self, socket: &UdpSocket, n: u64) {
        let (question, is_answer) = self.question(n);
        let mut datagram = vec![0; 4_096];
        for _ in 0..TRIES {
            let _ = socket.send(&question).await;
            let answered = async {
                loop {
                    if let Ok(len) = socket.recv(&mut datagram).await
                        && is_answer(&datagram[..len])
                    {
                        return;
                    }
                }
            };
            if tokio::time::timeout(ANSWER, answered).await.is_ok() {
                return;
            }
        }
        panic!("{:?}: no answer to a valid datagram after {n} mutated ones, seed {:?}", self.kind, self.seed);
    }

    /// A datagram that has to be answered, and what its answer looks like.
    fn question(&self, n: u64) -> (Vec<u8>, IsAnswer) {
        match self.kind {
            Kind::Coap => {
                let mut message =
                    Message::request(method::POST).path("a").queries(&["ep=mutant", "key=green"]);
                // Ids of the valid ones are not those of the others, which stay below 64.
                message.id = 0x8000 | u16::try_from(n % 0x7fff).unwrap();
                message.token = n.to_be_bytes().to_vec();
                let token = message.token.clone();
                let is_answer = move |datagram: &[u8]| {
                    Message::decode(datagram).is_ok_and(|answer| answer.token == token)
                };
                (message.encode(), Box::new(is_answer))
            }
            Kind::Line => {
                let line = format!("LF1 mutant key=green seq={n} ack\nx");
                let wanted = format!("LF1 ack seq={n}");
                (line.into_bytes(), Box::new(move |datagram| datagram.starts_with(wanted.as_bytes())))
            }
            Kind::Dtls => {
                let hello = ClientHello::new(n, &[PSK_CCM_8]).datagram(0);
                (hello, Box::new(|datagram| landfall_testkit::dtls::wire::cookie(datagram).is_some()))
            }
        }
    }

    fn valid(&self, seed: &mut Seed) -> Vec<u8> {
        match self.kind {
            Kind::Coap => coap(seed),
            Kind::Line => line(seed),
            Kind::Dtls => dtls(seed),
        }
    }
}

fn coap(seed: &mut Seed) -> Vec<u8> {
    let queries = *pick(
        seed,
        &[&["ep=mutant", "key=green"][..], &["ep=mutant", "key=no"], &["ep=mutant", "key=green", "lt=60"]],
    );
    let message = match seed.below(6) {
        0 => Message::request(method::GET).path("command").number(6, 0),
        1 => Message::request(method::POST)
            .path("up")
            .number(27, u32::try_from(seed.below(256)).unwrap())
            .payload([7; 64]),
        2 => Message::request(method::POST).path("rd"),
        3 => Message::request(method::GET).path(".well-known/core").number(23, 0x12),
        4 => Message::empty(u8::try_from(seed.below(4)).unwrap(), 0),
        _ => Message::request(method::POST).path("telemetry/a").number(12, 50).payload("{\"celsius\":21.5}"),
    };
    let mut message = if seed.below(4) == 0 { message } else { message.queries(queries) };
    if seed.below(3) == 0 {
        message = message.non();
    }
    message.id = u16::try_from(seed.below(64)).unwrap();
    message.token = vec![seed.draw().to_le_bytes()[0]; usize::try_from(seed.below(9)).unwrap()];
    message.encode()
}

fn line(seed: &mut Seed) -> Vec<u8> {
    let n = seed.below(1 << 20);
    match seed.below(5) {
        0 => format!("LF1 mutant key=green seq={n} hb=60\n21.5").into_bytes(),
        1 => b"LF1 mutant key=no ack\nx".to_vec(),
        2 => format!("LF1 mutant key=green seq={n} sig={:064x}\nx", seed.draw()).into_bytes(),
        3 => b"LF1 mutant key=green got=0123456789abcdef".to_vec(),
        _ => format!("LF1 mutant key=green seq={n} ack\n{{\"volts\":3.1}}").into_bytes(),
    }
}

fn dtls(seed: &mut Seed) -> Vec<u8> {
    let suites = *pick(seed, &[&[PSK_CCM_8][..], &[PSK_GCM, PSK_CCM_8], &[ECDHE_ECDSA_CCM_8]]);
    match seed.below(4) {
        0 => ClientHello::new(seed.draw(), suites).datagram(0),
        1 => ClientHello::new(seed.draw(), suites).cookie(&seed.draw().to_le_bytes()).datagram(1),
        2 => Record::plain(content::ALERT, seed.below(8), [2, 40]).encode(),
        _ => Record::plain(content::DATA, seed.draw() & 0xffff_ffff, [9; 48]).encode(),
    }
}
