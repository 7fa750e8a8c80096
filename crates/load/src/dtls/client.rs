//! One client: a socket of its own, and dimpl, a DTLS that others wrote.
//!
//! Owns: bringing the two together, sending again, losing datagrams on purpose. Does not own: how many there are.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Output};
use tokio::net::UdpSocket;

/// A datagram that is not answered is said again after this, and so often.
const AGAIN: Duration = Duration::from_millis(500);
const TIMES: u64 = 60;

/// What clients that take turns share.
pub(crate) struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
    text: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { input: vec![0; 2048], output: vec![0; 2048], text: Vec::new() }
    }
}

/// What a client says: the same each time, or with a number in it.
#[derive(Clone, Debug)]
pub(super) struct Words {
    before: Arc<str>,
    after: Option<Arc<str>>,
}

impl Words {
    /// `{n}` in `text` is the number.
    pub(super) fn of(text: &str) -> Self {
        match text.split_once("{n}") {
            Some((before, after)) => Self { before: before.into(), after: Some(after.into()) },
            None => Self { before: text.into(), after: None },
        }
    }

    fn put(&self, number: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.before.as_bytes());
        if let Some(after) = &self.after {
            out.extend_from_slice(number.to_string().as_bytes());
            out.extend_from_slice(after.as_bytes());
        }
    }
}

/// A client from its ClientHello on.
pub(crate) struct Client {
    socket: UdpSocket,
    dtls: Box<dimpl::Dtls>,
    words: Words,
    /// When dimpl wants to be called.
    timer: Instant,
    /// Datagrams said so far.
    said: u64,
    /// Answers that nobody has asked for yet.
    answers: u32,
    is_open: bool,
    is_closed: bool,
    flights_again: u64,
    chance: Chance,
}

impl Client {
    pub(super) fn new(
        socket: UdpSocket,
        config: Arc<Config>,
        words: Words,
        (lose, seed): (u8, u32),
        now: Instant,
    ) -> Self {
        let mut dtls = Box::new(dimpl::Dtls::new_12_psk(config, now));
        dtls.set_active(true);
        Self {
            socket,
            dtls,
            words,
            timer: now,
            said: 0,
            answers: 0,
            is_open: false,
            is_closed: false,
            flights_again: 0,
            chance: Chance { percent: lose, state: u64::from(seed) + 1 },
        }
    }

    /// Flights of the handshake that were sent again.
    pub(super) fn flights_again(&self) -> u64 {
        self.flights_again
    }

    /// The handshake, from the ClientHello on.
    pub(super) async fn shake(&mut self, scratch: &mut Scratch) -> Result<(), String> {
        // The runtime takes a new socket for full until the kernel has said that it is not.
        self.socket.writable().await.map_err(|error| error.to_string())?;
        self.dtls.handle_timeout(self.timer).map_err(|error| error.to_string())?;
        self.drain(scratch)?;
        while !self.is_open {
            let timer = self.timer;
            self.wait(timer, scratch).await?;
        }
        Ok(())
    }

    /// Says one datagram; if it is to be answered, again and again until it is. Returns how often again.
    pub(crate) async fn say(&mut self, is_answered: bool, scratch: &mut Scratch) -> Result<u64, String> {
        for again in 0..TIMES {
            self.send(scratch)?;
            if !is_answered || self.answers(Instant::now() + AGAIN, scratch).await? > 0 {
                return Ok(again);
            }
        }
        Err(format!("no answer to a datagram that was sent {TIMES} times"))
    }

    /// Sends the next datagram.
    pub(super) fn send(&mut self, scratch: &mut Scratch) -> Result<(), String> {
        self.said += 1;
        self.words.put(self.said, &mut scratch.text);
        self.dtls.send_application_data(&scratch.text).map_err(|error| error.to_string())?;
        self.drain(scratch).map(|_| ())
    }

    /// Waits for answers, and returns how many came; 0 when none did until then.
    pub(super) async fn answers(&mut self, until: Instant, scratch: &mut Scratch) -> Result<u32, String> {
        while self.answers == 0 && Instant::now() < until {
            self.wait(until, scratch).await?;
        }
        Ok(std::mem::take(&mut self.answers))
    }

    /// Says close_notify. Best effort, as it is in DTLS.
    pub(crate) fn leave(&mut self, scratch: &mut Scratch) {
        if self.dtls.close().is_ok() {
            let _ = self.drain(scratch);
        }
    }

    /// Waits for datagrams and the timer, and deals with them.
    async fn wait(&mut self, until: Instant, scratch: &mut Scratch) -> Result<(), String> {
        let until = until.min(self.timer);
        if tokio::time::timeout_at(until.into(), self.socket.readable()).await.is_ok() {
            let now = Instant::now();
            loop {
                match self.socket.try_recv(&mut scratch.input) {
                    Ok(length) => self.take(length, now, scratch)?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_of_the_way(&error) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        let now = Instant::now();
        if now >= self.timer {
            self.dtls.handle_timeout(now).map_err(|error| error.to_string())?;
            if self.drain(scratch)? > 0 && !self.is_open {
                self.flights_again += 1;
            }
        }
        if self.is_closed { Err("the server has closed the session".into()) } else { Ok(()) }
    }

    fn take(&mut self, length: usize, now: Instant, scratch: &mut Scratch) -> Result<(), String> {
        if self.chance.strikes() {
            return Ok(());
        }
        if now < self.timer {
            self.dtls.handle_timeout(now).map_err(|error| error.to_string())?;
        }
        let datagram = scratch.input.get(..length).unwrap_or_default();
        self.dtls.handle_packet(datagram).map_err(|error| error.to_string())?;
        self.drain(scratch).map(|_| ())
    }

    /// Deals with everything that dimpl has to tell. Returns how many datagrams it sent.
    fn drain(&mut self, scratch: &mut Scratch) -> Result<u32, String> {
        let mut sent = 0;
        loop {
            let room = match self.dtls.poll_output(&mut scratch.output) {
                Output::Packet(datagram) => {
                    sent += 1;
                    if !self.chance.strikes() {
                        // What the kernel does not take is lost like any other.
                        match self.socket.try_send(datagram) {
                            Err(error) if !is_of_the_way(&error) => return Err(error.to_string()),
                            _ => {}
                        }
                    }
                    continue;
                }
                Output::Timeout(at) => {
                    self.timer = at;
                    return Ok(sent);
                }
                Output::BufferTooSmall { needed } => needed,
                Output::Connected => {
                    self.is_open = true;
                    continue;
                }
                Output::ApplicationData(_) => {
                    self.answers += 1;
                    continue;
                }
                Output::CloseNotify => {
                    self.is_closed = true;
                    continue;
                }
                _ => continue,
            };
            scratch.output.resize(room, 0);
        }
    }
}

/// What a lossy way does: the datagram is gone, or nobody is there yet.
fn is_of_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused)
}

/// Loses datagrams, the same ones in every run.
struct Chance {
    percent: u8,
    state: u64,
}

impl Chance {
    /// Xorshift (Marsaglia, 2003).
    fn strikes(&mut self) -> bool {
        if self.percent == 0 {
            return false;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 32) % 100 < u64::from(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_hold_their_number() {
        let mut out = Vec::new();
        Words::of("LF1 a seq={n} ack").put(12, &mut out);
        assert_eq!(out, b"LF1 a seq=12 ack");
        Words::of("as it is").put(12, &mut out);
        assert_eq!(out, b"as it is");
    }

    #[test]
    fn chance_strikes_as_often_as_it_says() {
        for percent in [0, 20, 90] {
            let mut struck = 0;
            for seed in 1..=1000 {
                let mut chance = Chance { percent, state: seed };
                struck += (0..100).filter(|_| chance.strikes()).count();
            }
            let expected = usize::from(percent) * 1000;
            assert!(struck.abs_diff(expected) <= expected / 20, "{percent}: {struck}");
        }
    }
}
