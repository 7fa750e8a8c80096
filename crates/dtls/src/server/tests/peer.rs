//! A client by hand: it says what it is told to, in order or not.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::super::negotiation::{Exchange, Group};
use super::super::transcript::Transcript;
use crate::engine::{Answer, BadRecord, Engine, EngineEvent, Failure, Outlet};
use crate::handshake::{FragmentHeader, MessageType, Reader};
use crate::keys::{Master, Randoms, Side, TrafficKeys, psk_premaster};
use crate::record::{ContentType, RecordHeader};
use crate::suite::Suite;
use crate::{Server, ServerConfig};

pub(super) const KEY: &[u8] = b"sixteen byte key";
/// extended_master_secret and renegotiation_info.
pub(super) const USUAL: &[u8] = &[0, 23, 0, 0, 0xFF, 1, 0, 1, 0];

/// What the server told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) datagrams: Vec<Vec<u8>>,
    pub(super) data: Vec<Vec<u8>>,
    pub(super) events: Vec<EngineEvent>,
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

impl Told {
    pub(super) fn failure(&self) -> Option<Failure> {
        self.events.iter().find_map(|event| match event {
            EngineEvent::Failed(failure) => Some(*failure),
            _ => None,
        })
    }

    pub(super) fn dropped(&self) -> Vec<BadRecord> {
        let dropped = |event: &EngineEvent| match event {
            EngineEvent::Dropped(why) => Some(*why),
            _ => None,
        };
        self.events.iter().filter_map(dropped).collect()
    }

    pub(super) fn asked(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, EngineEvent::WhoIs(_))).count()
    }

    /// The last datagram, when it is an alert in epoch 0.
    pub(super) fn alert(&self) -> Option<u8> {
        let (header, body) = RecordHeader::read(self.datagrams.last()?)?;
        (header.content == ContentType::ALERT && header.epoch == 0).then_some(body[1])
    }
}

pub(super) fn psk_config() -> ServerConfig {
    ServerConfig {
        psk: true,
        certificate: None,
        client_ca: None,
        require_client_certificate: false,
        mtu: 1_200,
        max_forged: 1_000,
    }
}

/// A CA, a server's certificate and a client's.
pub(super) struct Pki {
    pub(super) config: ServerConfig,
    pub(super) client: CertifiedKey,
}

impl Pki {
    /// Certificates of clients are asked for, and required.
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let issuer = Issuer::new(params, key);
        let config = ServerConfig {
            psk: false,
            certificate: Some(Arc::new(issue(&issuer, ExtendedKeyUsagePurpose::ServerAuth))),
            client_ca: Some(Arc::new(roots)),
            require_client_certificate: true,
            mtu: 1_200,
            max_forged: 1_000,
        };
        Self { config, client: issue(&issuer, ExtendedKeyUsagePurpose::ClientAuth) }
    }
}

fn issue(issuer: &Issuer<'static, KeyPair>, usage: ExtendedKeyUsagePurpose) -> CertifiedKey {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["somebody".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, issuer).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&private).unwrap();
    CertifiedKey::new(vec![CertificateDer::from(certificate.der().to_vec())], key)
}

/// A client, and the server that it talks to.
pub(super) struct Peer {
    pub(super) server: Server,
    pub(super) told: Told,
    pub(super) suite: Suite,
    pub(super) randoms: Randoms,
    pub(super) transcript: Transcript,
    /// The number of the client's next message.
    pub(super) next_message: u16,
    next_record: u64,
    next_protected: u64,
    extended: bool,
    pub(super) keys: Option<(Master, TrafficKeys)>,
    /// The messages that the server has sent, in order.
    pub(super) heard: Vec<(FragmentHeader, Vec<u8>)>,
}

impl Peer {
    pub(super) fn new(config: ServerConfig, suite: Suite) -> Self {
        Self {
            server: Server::accept(&Arc::new(config), 0),
            told: Told::default(),
            suite,
            randoms: [[7; 32], [0; 32]],
            transcript: Transcript::new(true),
            next_message: 1,
            next_record: 9,
            next_protected: 0,
            extended: false,
            keys: None,
            heard: Vec::new(),
        }
    }

    /// A ClientHello's body.
    pub(super) fn hello(&self, suites: &[u16], extensions: &[u8]) -> Vec<u8> {
        let mut body = [&[0xFE, 0xFD][..], &self.randoms[0], &[0], &[2, 1, 1]].concat();
        body.extend(u16::try_from(2 * suites.len()).unwrap().to_be_bytes());
        body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        body.extend([1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        body
    }

    pub(super) fn receive(&mut self, mut datagram: Vec<u8>) {
        self.server.receive(100, &mut datagram, &mut self.told);
    }

    /// A record of epoch 0.
    pub(super) fn record(&mut self, content: ContentType, body: &[u8]) -> Vec<u8> {
        let header = RecordHeader::new(content, 0, self.next_record, u16::try_from(body.len()).unwrap());
        self.next_record += 1;
        [&header.to_bytes()[..], body].concat()
    }

    /// A record with one piece of a message.
    pub(super) fn piece(&mut self, header: FragmentHeader, body: &[u8]) -> Vec<u8> {
        self.record(ContentType::HANDSHAKE, &[&header.to_bytes()[..], body].concat())
    }

    /// The next message as one record; it is in the transcript then.
    pub(super) fn message(&mut self, kind: MessageType, body: &[u8]) -> Vec<u8> {
        let header = FragmentHeader::whole(kind, u32::try_from(body.len()).unwrap(), self.next_message);
        self.next_message += 1;
        self.transcript.push(&header, body);
        self.piece(header, body)
    }

    /// Says hello with the one suite, and hears the server's flight.
    pub(super) fn greet(&mut self, extensions: &[u8]) {
        self.extended = extensions.starts_with(USUAL);
        let body = self.hello(&[self.suite.code()], extensions);
        let datagram = self.message(MessageType::CLIENT_HELLO, &body);
        self.receive(datagram);
        self.listen();
    }

    /// Takes the messages of the server's first flight; none of them is cut.
    pub(super) fn listen(&mut self) {
        for datagram in std::mem::take(&mut self.told.datagrams) {
            let mut rest = datagram.as_slice();
            while let Some((record, after)) = RecordHeader::read(rest) {
                let (body, more) = after.split_at(record.length.into());
                let (header, body, _) = FragmentHeader::read(body).unwrap();
                assert_eq!(header.length, header.fragment);
                self.transcript.push(&header, body);
                self.heard.push((header, body.to_vec()));
                rest = more;
            }
        }
        if let Some((_, hello)) = self.heard.first() {
            self.randoms[1] = *hello[2..].first_chunk().unwrap();
        }
    }

    /// As [`Peer::listen`], after a hello with [`USUAL`] that was not said by [`Peer::greet`].
    pub(super) fn listen_extended(&mut self) {
        self.extended = true;
        self.listen();
    }

    pub(super) fn psk_key_exchange(&mut self, identity: &[u8], key: &[u8]) -> Vec<u8> {
        let body = [&u16::try_from(identity.len()).unwrap().to_be_bytes()[..], identity].concat();
        let record = self.message(MessageType::CLIENT_KEY_EXCHANGE, &body);
        self.derive(&psk_premaster(key));
        record
    }

    /// The server's ServerKeyExchange answered, on P-256.
    pub(super) fn ecdhe_key_exchange(&mut self) -> Vec<u8> {
        let (_, parameters) =
            self.heard.iter().find(|(header, _)| header.kind == MessageType::SERVER_KEY_EXCHANGE).unwrap();
        let server_point = Reader(&parameters[3..]).vec8().unwrap().to_vec();
        let exchange = Exchange::generate(Group::Secp256r1).unwrap();
        let point = exchange.point().unwrap();
        let body = [&[u8::try_from(point.len()).unwrap()][..], &point].concat();
        let record = self.message(MessageType::CLIENT_KEY_EXCHANGE, &body);
        self.derive(&exchange.agree(&server_point).unwrap());
        record
    }

    fn derive(&mut self, premaster: &[u8]) {
        let master = if self.extended {
            Master::extended(premaster, &self.transcript.hash())
        } else {
            Master::classic(premaster, &self.randoms)
        };
        let keys = master.traffic_keys(&self.randoms, self.suite.key_length());
        self.keys = Some((master, keys));
    }

    pub(super) fn change(&mut self) -> Vec<u8> {
        self.record(ContentType::CHANGE_CIPHER_SPEC, &[1])
    }

    /// A protected record.
    pub(super) fn protected(&mut self, content: ContentType, text: &[u8]) -> Vec<u8> {
        let header = RecordHeader::new(content, 1, self.next_protected, 0);
        self.next_protected += 1;
        let mut record = Vec::new();
        self.suite.seal(&self.keys.as_ref().unwrap().1.client, header, text, &mut record).unwrap();
        record
    }

    pub(super) fn finished(&mut self) -> Vec<u8> {
        let verify_data = self.keys.as_ref().unwrap().0.verify_data(Side::Client, &self.transcript.hash());
        let header = FragmentHeader::whole(MessageType::FINISHED, 12, self.next_message).to_bytes();
        self.protected(ContentType::HANDSHAKE, &[&header[..], &verify_data].concat())
    }

    pub(super) fn answer(&mut self, answer: Answer<'_>) {
        self.server.answer(100, answer, &mut self.told);
    }

    /// A PSK handshake from the key exchange to the end.
    pub(super) fn finish_psk(&mut self) {
        let exchange = self.psk_key_exchange(b"meter", KEY);
        let datagram = [exchange, self.change(), self.finished()].concat();
        self.receive(datagram);
        self.answer(Answer::Psk(KEY));
    }
}
