//! A beacon: sends a reading every five seconds, again until it is stored, and answers whatever command comes.
//!
//! `udp_beacon [HOST:PORT [DEVICE]]`, 127.0.0.1:7683 and beacon-1 if not given; for a gateway that knows its devices, the key
//! to sign with is in `LANDFALL_KEY`. Ctrl-C says goodbye.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::net::UdpSocket;
use tokio::time::timeout;

struct Beacon {
    socket: UdpSocket,
    device: String,
    key: Option<String>,
    /// Must rise, over restarts too: it begins with the clock.
    seq: u64,
    commands: Vec<String>,
}

impl Beacon {
    /// Says one thing until it is stored: the same bytes again, which are stored once, and after a minute a new number.
    async fn say(&mut self, words: &str, payload: &str) -> Result<(), Box<dyn Error>> {
        loop {
            let (datagram, ack) = self.datagram(words, payload)?;
            for _ in 0..30 {
                let _ = self.socket.send(datagram.as_bytes()).await;
                if timeout(Duration::from_secs(2), self.listen(&ack)).await.is_ok() {
                    println!("stored: {words} {payload}");
                    return Ok(());
                }
            }
        }
    }

    /// A datagram with the next number, signed if there is a key, and the ack that it gets.
    fn datagram(&mut self, words: &str, payload: &str) -> Result<(String, String), Box<dyn Error>> {
        self.seq += 1;
        let mut line = format!("LF1 {} seq={} {words}", self.device, self.seq);
        if let Some(key) = &self.key {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes())?;
            mac.update(format!("{line}\n{payload}").as_bytes());
            line += &format!(" sig={:x}", mac.finalize().into_bytes());
        }
        Ok((format!("{line}\n{payload}"), format!("LF1 ack seq={}", self.seq)))
    }

    /// Notes commands until `end` comes; without an end, until a command does.
    async fn listen(&mut self, end: &str) {
        let mut bytes = [0; 2048];
        while !end.is_empty() || self.commands.is_empty() {
            // An error says that nobody listens there: the gateway may be back soon.
            let Ok(length) = self.socket.recv(&mut bytes).await else { continue };
            let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
            if text == end {
                return;
            }
            let command = text.strip_prefix("LF1 cmd id=").and_then(|rest| rest.split_once(' '));
            self.commands.extend(command.map(|(id, _)| id.to_owned()));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7683".to_owned())).await?;
    let device = env::args().nth(2).unwrap_or_else(|| "beacon-1".to_owned());
    let seq = u64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?;
    let mut beacon = Beacon { socket, device, key: env::var("LANDFALL_KEY").ok(), seq, commands: Vec::new() };
    let run = async {
        loop {
            beacon.say("hb=10 ack", &format!(r#"{{"reading":{}}}"#, beacon.seq)).await?;
            let _ = timeout(Duration::from_secs(5), beacon.listen("")).await;
            while let Some(id) = beacon.commands.pop() {
                beacon.say(&format!("res={id} status=200 ack"), "done").await?;
            }
        }
    };
    tokio::select! { end = run => return end, _ = tokio::signal::ctrl_c() => {} }
    timeout(Duration::from_secs(4), beacon.say("bye ack", "")).await?
}
