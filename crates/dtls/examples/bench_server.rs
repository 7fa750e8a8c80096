//! A listener on a socket and nothing around it: what this crate costs, to be measured beside other people's servers.
//!
//! `cargo run --release -p landfall-dtls --example bench_server -- 127.0.0.1:0 6c616e6466616c6c` prints
//! `listening ADDRESS` and echoes application data until it is killed. The key (hex) is that of every identity.
#![allow(clippy::print_stdout, reason = "an example that prints its address")]

use std::error::Error;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_dtls::{Answer, Event, Key, Limits, Listener, Server, ServerConfig, Sink};

/// How often the timers are looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// What one datagram led to. Datagrams leave at once, the rest is dealt with when the listener has returned.
struct Outcome<'a> {
    socket: &'a UdpSocket,
    asked: Vec<Key>,
    echoes: Vec<(Key, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Sink<SocketAddr> for Outcome<'_> {
    fn transmit(&mut self, path: &SocketAddr, datagram: &[u8]) {
        // One that the kernel does not take is lost like any other.
        let _ = self.socket.send_to(datagram, path);
    }

    fn data(&mut self, key: Key, _: &SocketAddr, bytes: &[u8]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.echoes.push((key, from..self.bytes.len()));
    }

    fn event(&mut self, event: Event<SocketAddr>) {
        if let Event::WhoIs { key, .. } = event {
            self.asked.push(key);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (address, key) = arguments.next().zip(arguments.next()).ok_or("usage: bench_server ADDRESS KEY")?;
    let key = bytes(&key).ok_or("the key is not in hex")?;
    let socket = UdpSocket::bind(&address)?;
    socket.set_read_timeout(Some(LOOK))?;
    println!("listening {}", socket.local_addr()?);

    let config = ServerConfig {
        psk: true,
        certificate: None,
        client_ca: None,
        require_client_certificate: false,
        mtu: 1200,
        max_forged: 1_000,
    };
    let started = Instant::now();
    let now = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let secret = std::array::from_fn(|_| 0x5a); // Nobody attacks a benchmark.
    let mut listener: Listener<Server, SocketAddr> =
        Listener::new(Arc::new(config), Limits::default(), secret, now());
    let mut outcome = Outcome { socket: &socket, asked: Vec::new(), echoes: Vec::new(), bytes: Vec::new() };
    let (mut datagram, mut asked) = (vec![0; 16 * 1024], Vec::new());
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                let datagram = datagram.get_mut(..length).unwrap_or_default();
                listener.receive(now(), (from, from), datagram, &mut outcome);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        while !outcome.asked.is_empty() {
            std::mem::swap(&mut asked, &mut outcome.asked);
            for one in asked.drain(..) {
                listener.answer(now(), one, Answer::Psk(&key), &mut outcome);
            }
        }
        let (echoes, said) = (std::mem::take(&mut outcome.echoes), std::mem::take(&mut outcome.bytes));
        for (key, range) in &echoes {
            let _ = listener.send(*key, said.get(range.clone()).unwrap_or_default(), &mut outcome);
        }
        (outcome.echoes, outcome.bytes) = (echoes, said);
        outcome.echoes.clear();
        outcome.bytes.clear();
        if listener.next_timeout().is_some_and(|at| at <= now()) {
            listener.handle_timeout(now(), &mut outcome);
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}
