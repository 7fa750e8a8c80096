//! A UDP device written by hand: `LF1` lines, signatures, acknowledgements that are waited for, commands.
//!
//! Owns: one carrier, one device's numbers, and the bytes of its datagrams. Does not own: what the gateway should make of
//! them. It shares nothing with the gateway, which it judges: a datagram from another address than the one that was told
//! fails the test, and so does one that is no `LF1` line.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::time::{Instant, timeout_at};

use crate::carrier::Carrier;
use crate::dtls::DtlsClient;
use crate::wait::{PATIENCE, within};

/// A datagram from the gateway: `LF1` and words, then perhaps LF and a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The words behind `LF1`, as they came.
    pub words: Vec<String>,
    /// What follows the line; empty too where no LF came.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Takes one apart.
    ///
    /// # Errors
    /// What it lacks.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let line = std::str::from_utf8(&bytes[..at]).map_err(|_| "a line that is no text")?;
        let mut words = line.split(' ').map(str::to_owned);
        if words.next().as_deref() != Some("LF1") {
            return Err("no LF1".into());
        }
        Ok(Self { words: words.collect(), payload: bytes.get(at + 1..).unwrap_or_default().to_vec() })
    }

    /// What kind it is: `ack`, `cmd`.
    pub fn kind(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// A word's value, with its escapes undone: `value("id")` of `id=a%20b` is `a b`.
    ///
    /// # Panics
    /// When an escape is broken.
    pub fn value(&self, key: &str) -> Option<String> {
        let found = self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        found.map(unescape)
    }

    /// Its payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// A device at one address.
#[derive(Debug)]
pub struct UdpDevice {
    carrier: Carrier,
    /// The first word: the device, perhaps with its tenant.
    name: String,
    key: Option<String>,
    signing: Option<Vec<u8>>,
    seq: u64,
    again: Duration,
    retransmits: u32,
    patience: Duration,
    held: VecDeque<Datagram>,
    sent: Vec<u8>,
}

impl UdpDevice {
    /// A device of the default tenant at an address of its own; nothing is sent yet.
    ///
    /// # Panics
    /// When it cannot bind.
    pub async fn new(gateway: SocketAddr, device: &str) -> Self {
        Self::over(Carrier::plain(gateway).await, device)
    }

    /// The same over a secure channel whose handshake has succeeded.
    pub fn secure(channel: DtlsClient, device: &str) -> Self {
        Self::over(Carrier::secure(channel), device)
    }

    fn over(carrier: Carrier, device: &str) -> Self {
        Self {
            carrier,
            name: escape(device),
            key: None,
            signing: None,
            seq: 0,
            again: Duration::from_secs(1),
            retransmits: 10,
            patience: PATIENCE,
            held: VecDeque::new(),
            sent: Vec::new(),
        }
    }

    /// Of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.name = format!("{}@{}", self.name, escape(tenant));
        self
    }

    /// Showing this key in every line.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    /// Signing every datagram with this key, which is not shown.
    #[must_use]
    pub fn signing(self, key: &str) -> Self {
        Self { signing: Some(key.as_bytes().to_vec()), ..self }
    }

    /// Sending again so often, so far apart, what is not acknowledged.
    #[must_use]
    pub fn timing(self, again: Duration, retransmits: u32) -> Self {
        Self { again, retransmits, ..self }
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.carrier.local_addr()
    }

    /// Takes another address, as a device does behind a NAT that forgot it.
    pub async fn rebind(&mut self) {
        self.carrier.rebind().await;
    }

    /// Talks to another address of the gateway from now on.
    pub async fn redirect(&mut self, gateway: SocketAddr) {
        self.carrier.redirect(gateway).await;
    }

    /// Its secure channel.
    ///
    /// # Panics
    /// When it has none.
    pub fn channel(&mut self) -> &mut DtlsClient {
        self.carrier.channel()
    }

    /// The number of its newest datagram.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its next datagram, which is not sent: with the next number, these words (`hb=30 ack`, or none) and this payload;
    /// without a payload the line has no LF.
    pub fn datagram(&mut self, words: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
        self.seq += 1;
        let mut line = format!("LF1 {}", self.name);
        if let Some(key) = &self.key {
            line += &format!(" key={}", escape(key));
        }
        line += &format!(" seq={}", self.seq);
        if !words.is_empty() {
            line += &format!(" {words}");
        }
        let payload = payload.as_ref();
        match &self.signing {
            Some(key) => signed(&line, payload, key),
            None => joined(&line, payload),
        }
    }

    /// Sends the next datagram once.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn send(&mut self, words: &str, payload: impl AsRef<[u8]>) {
        let datagram = self.datagram(words, payload);
        self.send_raw(&datagram).await;
        self.sent = datagram;
    }

    /// Sends the newest datagram once more, byte by byte.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn repeat(&mut self) {
        let datagram = self.sent.clone();
        self.send_raw(&datagram).await;
    }

    /// Sends the next datagram with `ack`, again and again until its acknowledgement comes. True when it came.
    ///
    /// # Panics
    /// When what comes is no `LF1` line.
    pub async fn deliver(&mut self, words: &str, payload: impl AsRef<[u8]>) -> bool {
        self.send(format!("ack {words}").trim_end(), payload).await;
        let seq = self.seq.to_string();
        for _ in 0..=self.retransmits {
            let deadline = Instant::now() + self.again;
            while let Ok(datagram) = timeout_at(deadline, self.intake()).await {
                if datagram.kind() != "ack" {
                    self.held.push_back(datagram);
                } else if datagram.value("seq").as_ref() == Some(&seq) {
                    return true;
                }
            }
            self.repeat().await;
        }
        false
    }

    /// The next datagram from the gateway that is no acknowledgement.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn receive(&mut self) -> Datagram {
        if let Some(held) = self.held.pop_front() {
            return held;
        }
        within(self.patience, "a datagram", async {
            loop {
                let datagram = self.intake().await;
                if datagram.kind() != "ack" {
                    return datagram;
                }
            }
        })
        .await
    }

    /// The next command: its id, its name and its payload.
    ///
    /// # Panics
    /// When none comes in time, or something else.
    pub async fn command(&mut self) -> (String, String, Vec<u8>) {
        let datagram = self.receive().await;
        assert_eq!(datagram.kind(), "cmd", "{datagram:?}");
        let id = datagram.value("id").expect("a command has an id");
        (id, datagram.value("name").expect("a command has a name"), datagram.payload)
    }

    /// Confirms a command.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn got(&mut self, id: &str) {
        self.send(&format!("got={}", escape(id)), "").await;
    }

    /// Answers a command.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn answer(&mut self, id: &str, status: &str, payload: impl AsRef<[u8]>) {
        self.send(&format!("res={} status={}", escape(id), escape(status)), payload).await;
    }

    /// Says goodbye.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn bye(&mut self) {
        self.send("bye", "").await;
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// When they cannot be sent.
    pub async fn send_raw(&self, bytes: &[u8]) {
        self.carrier.send(bytes).await;
    }

    /// The next datagram as it came.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn receive_raw(&self) -> Vec<u8> {
        within(self.patience, "a datagram", self.read()).await
    }

    /// What has come and was not taken yet, without waiting: a test asks once it knows by other means that nothing more is
    /// on its way.
    ///
    /// # Panics
    /// When something is no `LF1` line.
    pub fn waiting(&mut self) -> Vec<Datagram> {
        while let Some(datagram) = self.carrier.try_receive() {
            self.held.push_back(parsed(&datagram));
        }
        self.held.drain(..).collect()
    }

    async fn intake(&self) -> Datagram {
        parsed(&self.read().await)
    }

    async fn read(&self) -> Vec<u8> {
        self.carrier.receive().await
    }
}

fn parsed(bytes: &[u8]) -> Datagram {
    Datagram::parse(bytes).unwrap_or_else(|problem| panic!("{problem}: {:?}", String::from_utf8_lossy(bytes)))
}

/// A line and its payload as one datagram; without a payload there is no LF.
pub fn joined(line: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    if !payload.is_empty() {
        bytes.push(b'\n');
        bytes.extend(payload);
    }
    bytes
}

/// The same with ` sig=` and the HMAC-SHA-256 of the datagram without that word at the end of the line.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn signed(line: &str, payload: &[u8], key: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(&joined(line, payload));
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    joined(&format!("{line} sig={hex}"), payload)
}

/// A value as a line can hold it: what is no visible ASCII character, and `%`, `@` and `=`, as `%XX`.
pub fn escape(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'%' | b'@' | b'=' => text += &format!("%{byte:02X}"),
            b'!'..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

fn unescape(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, more @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(&more[..2]).expect("two digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
            rest = &more[2..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    String::from_utf8(bytes).expect("text")
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn lines_are_written_as_the_device_means_them() {
        let at = "127.0.0.1:9".parse().unwrap();
        let mut plain = UdpDevice::new(at, "pump 7").await.tenant("acme").key("k=1");
        assert_eq!(plain.datagram("", ""), b"LF1 pump%207@acme key=k%3D1 seq=1");
        assert_eq!(
            plain.datagram("hb=30 ack", "21.5\n"),
            b"LF1 pump%207@acme key=k%3D1 seq=2 hb=30 ack\n21.5\n"
        );
        let mut signing = UdpDevice::new(at, "d").await.signing("key");
        let datagram = String::from_utf8(signing.datagram("", "x")).unwrap();
        // openssl dgst -sha256 -hmac key over "LF1 d seq=1\nx".
        let mac = "37d83c8bcc3c44132b6527c2671136bf5f2aa8d47ed8a84f2866294fdf4c6181";
        assert_eq!(datagram, format!("LF1 d seq=1 sig={mac}\nx"));
    }

    #[test]
    fn a_datagram_is_taken_apart() {
        let datagram = Datagram::parse(b"LF1 cmd id=7 name=set%20point\n{}\n").unwrap();
        assert_eq!((datagram.kind(), datagram.text().as_str()), ("cmd", "{}\n"));
        assert_eq!(datagram.value("name").as_deref(), Some("set point"));
        assert_eq!(datagram.value("na"), None);
        assert_eq!(Datagram::parse(b"LF1 ack").unwrap().payload, b"");
        assert!(Datagram::parse(b"LF2 ack").is_err());
        assert_eq!(unescape(&escape("ä %@=\n")), "ä %@=\n");
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_is_sent_again() {
        let gateway = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = gateway.local_addr().unwrap();
        let mut device = UdpDevice::new(at, "d").await.timing(Duration::from_millis(20), 20);
        let serve = async {
            let mut datagram = [0; 100];
            let mut seen = Vec::new();
            for answer in ["", "LF1 ack seq=9", "LF1 cmd id=1 name=n\nbody", "LF1 ack seq=1"] {
                let (len, from) = gateway.recv_from(&mut datagram).await.unwrap();
                seen.push(datagram[..len].to_vec());
                if !answer.is_empty() {
                    gateway.send_to(answer.as_bytes(), from).await.unwrap();
                }
            }
            seen
        };
        let (seen, delivered) = within(PATIENCE, "an acknowledgement", async {
            tokio::join!(serve, device.deliver("hb=5", "x"))
        })
        .await;
        assert!(delivered && seen.iter().all(|bytes| bytes == b"LF1 d seq=1 ack hb=5\nx"), "{seen:?}");
        assert_eq!(device.command().await, ("1".to_owned(), "n".to_owned(), b"body".to_vec()));
        assert!(device.waiting().is_empty());
    }
}
