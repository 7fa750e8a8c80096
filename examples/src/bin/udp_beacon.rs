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
    /// Says one thing, signed if there is a key: the same bytes again are stored once, and after a minute the number is new.
    async fn say(&mut self, words: &str, body: &str) -> Result<(), Box<dyn Error>> {
        loop {
            self.seq += 1;
            let mut line = format!("LF1 {} seq={} {words}", self.device, self.seq);
            if let Some(key) = &self.key {
                let mac = <Hmac<Sha256>>::new_from_slice(key.as_bytes())?.chain_update(&line);
                line += &format!(" sig={:x}", mac.chain_update(format!("\n{body}")).finalize().into_bytes());
            }
            let (datagram, ack) = (format!("{line}\n{body}"), format!("LF1 ack seq={}", self.seq));
            for _ in 0..30 {
                let _ = self.socket.send(datagram.as_bytes()).await;
                let Ok(()) = timeout(Duration::from_secs(2), self.listen(&ack)).await else { continue };
                println!("stored: {words} {body}");
                return Ok(());
            }
        }
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
