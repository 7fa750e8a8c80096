//! Records and handshake messages of DTLS 1.2 by hand (RFC 6347): for what no good client sends.
//!
//! Owns: their bytes, in the clear. Does not own: cryptography, or who sends what when.

/// Content types.
pub mod content {
    /// ChangeCipherSpec.
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    /// Alert.
    pub const ALERT: u8 = 21;
    /// Handshake.
    pub const HANDSHAKE: u8 = 22;
    /// Application data.
    pub const DATA: u8 = 23;
}

/// Handshake message types.
pub mod message {
    /// ClientHello.
    pub const CLIENT_HELLO: u8 = 1;
    /// ServerHello.
    pub const SERVER_HELLO: u8 = 2;
    /// HelloVerifyRequest.
    pub const HELLO_VERIFY_REQUEST: u8 = 3;
    /// Certificate.
    pub const CERTIFICATE: u8 = 11;
    /// ClientKeyExchange.
    pub const CLIENT_KEY_EXCHANGE: u8 = 16;
    /// Finished.
    pub const FINISHED: u8 = 20;
}

/// TLS_PSK_WITH_AES_128_GCM_SHA256.
pub const PSK_GCM: u16 = 0x00a8;
/// TLS_PSK_WITH_AES_128_CCM_8.
pub const PSK_CCM_8: u16 = 0xc0a8;
/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256.
pub const ECDHE_ECDSA_GCM: u16 = 0xc02b;
/// TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8.
pub const ECDHE_ECDSA_CCM_8: u16 = 0xc0ae;

/// DTLS 1.2 as it is on the wire.
pub const VERSION: [u8; 2] = [0xfe, 0xfd];

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// See [`content`].
    pub content: u8,
    /// The version as it came.
    pub version: [u8; 2],
    /// The epoch; 0 is in the clear.
    pub epoch: u16,
    /// 48 bits.
    pub sequence: u64,
    /// What it carries.
    pub body: Vec<u8>,
}

impl Record {
    /// A record in the clear.
    pub fn plain(content: u8, sequence: u64, body: impl AsRef<[u8]>) -> Self {
        Self { content, version: VERSION, epoch: 0, sequence, body: body.as_ref().to_vec() }
    }

    /// Its bytes.
    ///
    /// # Panics
    /// When the body is longer than a length can say.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.content];
        bytes.extend(self.version);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(&self.sequence.to_be_bytes()[2..]);
        bytes.extend(u16::try_from(self.body.len()).expect("a short body").to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }

    /// The records of a datagram; `None` when it is none of records.
    pub fn all(mut datagram: &[u8]) -> Option<Vec<Self>> {
        let mut records = Vec::new();
        while !datagram.is_empty() {
            let header = datagram.get(..13)?;
            let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let body = datagram.get(13..13 + len)?.to_vec();
            let mut sequence = [0; 8];
            sequence[2..].copy_from_slice(&header[5..11]);
            records.push(Self {
                content: header[0],
                version: [header[1], header[2]],
                epoch: u16::from_be_bytes([header[3], header[4]]),
                sequence: u64::from_be_bytes(sequence),
                body,
            });
            datagram = &datagram[13 + len..];
        }
        Some(records)
    }
}

/// A handshake message or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// See [`message`].
    pub message: u8,
    /// Bytes of the whole message; 24 bits.
    pub length: u32,
    /// The message's number.
    pub number: u16,
    /// Where the part begins; 24 bits.
    pub offset: u32,
    /// The part.
    pub part: Vec<u8>,
}

impl Fragment {
    /// A whole message.
    ///
    /// # Panics
    /// When it is longer than a length can say.
    pub fn whole(message: u8, number: u16, body: impl AsRef<[u8]>) -> Self {
        let part = body.as_ref().to_vec();
        Self { message, length: u32::try_from(part.len()).expect("a short message"), number, offset: 0, part }
    }

    /// Its bytes, the length of the part as it is.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_claiming(u32::try_from(self.part.len()).unwrap_or(u32::MAX))
    }

    /// Its bytes with a fragment length that may be another than the part has.
    pub fn encode_claiming(&self, claimed: u32) -> Vec<u8> {
        let mut bytes = vec![self.message];
        bytes.extend(&self.length.to_be_bytes()[1..]);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(&self.offset.to_be_bytes()[1..]);
        bytes.extend(&claimed.to_be_bytes()[1..]);
        bytes.extend(&self.part);
        bytes
    }

    /// The fragments of a handshake record in the clear; `None` when it holds something else.
    pub fn all(mut body: &[u8]) -> Option<Vec<Self>> {
        let number = |bytes: &[u8]| u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        let mut fragments = Vec::new();
        while !body.is_empty() {
            let header = body.get(..12)?;
            let len = number(&header[9..12]) as usize;
            fragments.push(Self {
                message: header[0],
                length: number(&header[1..4]),
                number: u16::from_be_bytes([header[4], header[5]]),
                offset: number(&header[6..9]),
                part: body.get(12..12 + len)?.to_vec(),
            });
            body = &body[12 + len..];
        }
        Some(fragments)
    }

    /// As a datagram of one record in the clear.
    pub fn datagram(&self, sequence: u64) -> Vec<u8> {
        Record::plain(content::HANDSHAKE, sequence, self.encode()).encode()
    }
}

/// A ClientHello.
#[derive(Clone, Debug)]
pub struct ClientHello {
    /// The version in its body.
    pub version: [u8; 2],
    /// 32 bytes.
    pub random: Vec<u8>,
    /// At most 32 bytes in a good one.
    pub session: Vec<u8>,
    /// What the server gave.
    pub cookie: Vec<u8>,
    /// What it offers.
    pub suites: Vec<u16>,
    /// Compression methods.
    pub compression: Vec<u8>,
    /// Extensions with their types, in this order; with none the field is absent.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl ClientHello {
    /// One that offers these suites and the extended master secret, with everything that a certificate suite needs.
    pub fn new(random: u64, suites: &[u16]) -> Self {
        let extensions = vec![
            (10, vec![0, 4, 0, 0x17, 0, 0x1d]), // P-256, X25519
            (11, vec![1, 0]),                   // uncompressed points
            (13, vec![0, 2, 4, 3]),             // ECDSA with SHA-256
            (23, vec![]),                       // extended master secret
        ];
        Self {
            version: VERSION,
            random: random.to_be_bytes().repeat(4),
            session: Vec::new(),
            cookie: Vec::new(),
            suites: suites.to_vec(),
            compression: vec![0],
            extensions,
        }
    }

    /// With this cookie.
    #[must_use]
    pub fn cookie(self, cookie: &[u8]) -> Self {
        Self { cookie: cookie.to_vec(), ..self }
    }

    /// Its body.
    pub fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_vec();
        body.extend(&self.random);
        body.push(self.session.len() as u8);
        body.extend(&self.session);
        body.push(self.cookie.len() as u8);
        body.extend(&self.cookie);
        body.extend((self.suites.len() as u16 * 2).to_be_bytes());
        body.extend(self.suites.iter().flat_map(|suite| suite.to_be_bytes()));
        body.push(self.compression.len() as u8);
        body.extend(&self.compression);
        if !self.extensions.is_empty() {
            let mut all = Vec::new();
            for (number, value) in &self.extensions {
                all.extend(number.to_be_bytes());
                all.extend((value.len() as u16).to_be_bytes());
                all.extend(value);
            }
            body.extend((all.len() as u16).to_be_bytes());
            body.extend(all);
        }
        body
    }

    /// As a datagram: message and record with this number, as a client has 0 for the first and 1 for the one with a cookie.
    pub fn datagram(&self, number: u16) -> Vec<u8> {
        Fragment::whole(message::CLIENT_HELLO, number, self.body()).datagram(u64::from(number))
    }
}

/// The cookie of a HelloVerifyRequest; `None` for any other datagram.
pub fn cookie(datagram: &[u8]) -> Option<Vec<u8>> {
    let record = Record::all(datagram)?.into_iter().find(|record| record.content == content::HANDSHAKE)?;
    let fragment = Fragment::all(&record.body)?.into_iter().next()?;
    if fragment.message != message::HELLO_VERIFY_REQUEST {
        return None;
    }
    let len = usize::from(*fragment.part.get(2)?);
    fragment.part.get(3..3 + len).map(<[u8]>::to_vec)
}

/// The fatal alert of a datagram in the clear: its code.
pub fn alert(datagram: &[u8]) -> Option<u8> {
    let record = Record::all(datagram)?
        .into_iter()
        .find(|record| record.content == content::ALERT && record.epoch == 0)?;
    match record.body.as_slice() {
        [2, code] => Some(*code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_fragments_come_back_as_they_went() {
        let one = Fragment { message: 16, length: 300, number: 2, offset: 7, part: b"part".to_vec() };
        let two = Fragment::whole(message::FINISHED, 3, b"");
        let body = [one.encode(), two.encode()].concat();
        let record = Record::plain(content::HANDSHAKE, 0x1234_5678_9abc, &body);
        let data = Record { epoch: 1, ..Record::plain(content::DATA, 5, b"sealed") };
        let datagram = [record.encode(), data.encode()].concat();
        let records = Record::all(&datagram).unwrap();
        assert_eq!(records, [record, data]);
        assert_eq!(Fragment::all(&records[0].body).unwrap(), [one, two]);
        assert_eq!(Record::all(&datagram[..datagram.len() - 1]), None);
        assert_eq!(Fragment::all(&body[..body.len() - 1]), None);
    }

    #[test]
    fn a_cookie_and_an_alert_are_read() {
        let body = [&[0xfe, 0xff, 3][..], b"abc"].concat();
        let datagram = Fragment::whole(message::HELLO_VERIFY_REQUEST, 0, body).datagram(0);
        assert_eq!(cookie(&datagram).unwrap(), b"abc");
        assert_eq!(alert(&datagram), None);
        assert_eq!(alert(&Record::plain(content::ALERT, 1, [2, 40]).encode()), Some(40));
        assert_eq!(cookie(&ClientHello::new(1, &[PSK_CCM_8]).datagram(0)), None);
        assert_eq!(cookie(b"noise"), None);
    }
}
