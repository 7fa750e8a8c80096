//! The engine against rustls's own client, in memory: whole, in pieces, and damaged.

use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::ClientConnection;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, ServerName};

use super::{Engine, MAX_PLAINTEXT, MAX_SEALED, Plain, Seal};

/// Configurations of a server and a client, of both versions, that verify each other.
struct World {
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 2],
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "engine");
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let cert =
            CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        let own = || (vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
        let (chain, secret) = own();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, secret)
            .unwrap();
        let clients = [&TLS12, &TLS13].map(|version| {
            let (chain, secret) = own();
            let mut config = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(chain, secret)
                .unwrap();
            // Small records, so that its handshake messages come in many fragments.
            config.max_fragment_size = Some(64);
            Arc::new(config)
        });
        World { server: Arc::new(server), clients }
    })
}

/// The server's end, fed by hand.
struct Server {
    engine: Engine,
    incoming: Vec<u8>,
    plain: BytesMut,
    outgoing: BytesMut,
}

impl Server {
    fn new() -> Self {
        let engine = Engine::new(world().server.clone()).unwrap();
        Self { engine, incoming: Vec::new(), plain: BytesMut::new(), outgoing: BytesMut::new() }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        self.incoming.extend_from_slice(bytes);
        let mut plain = Plain { reader: None, rest: &mut self.plain };
        let done = self.engine.receive(&mut self.incoming, &mut plain, &mut self.outgoing)?;
        self.incoming.drain(..done);
        Ok(())
    }

    fn send(&mut self, what: &Seal<'_>) -> Result<(), rustls::Error> {
        let mut room = vec![0; MAX_SEALED];
        let sealed = self.engine.seal(what, &mut room, &mut self.incoming, &mut self.outgoing)?;
        self.outgoing.extend_from_slice(&room[..sealed.expect("sending is allowed")]);
        Ok(())
    }
}

fn client(version: usize) -> ClientConnection {
    ClientConnection::new(world().clients[version].clone(), ServerName::try_from("localhost").unwrap())
        .unwrap()
}

/// What the client wants to send.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

/// Gives the client what the server has for it.
fn tell(client: &mut ClientConnection, server: &mut Server) -> Result<(), rustls::Error> {
    let all = server.outgoing.split();
    let mut rest = &all[..];
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// Shakes hands with the client's bytes cut into `pieces`. `spoil` may change what the client says.
fn shake(
    client: &mut ClientConnection,
    server: &mut Server,
    pieces: usize,
    mut spoil: impl FnMut(&mut Vec<u8>),
) -> Result<(), rustls::Error> {
    for _ in 0..20 {
        let mut wire = said(client);
        spoil(&mut wire);
        for piece in wire.chunks(pieces) {
            server.feed(piece)?;
        }
        tell(client, server)?;
        if !client.is_handshaking() && !client.wants_write() {
            break;
        }
    }
    Ok(())
}

#[test]
fn every_way_of_cutting_shakes_hands_and_carries_data() {
    for version in [0, 1] {
        for pieces in [1, 2, 7, 63, 1000, 100_000] {
            let (mut client, mut server) = (client(version), Server::new());
            shake(&mut client, &mut server, pieces, |_| {}).unwrap();
            assert!(!server.engine.is_handshaking());
            assert!(server.engine.peer_certificate().is_some());
            std::io::Write::write_all(&mut client.writer(), &[7; 10_000]).unwrap();
            shake(&mut client, &mut server, pieces, |_| {}).unwrap();
            assert_eq!((&server.plain[..], server.incoming.len()), (&[7; 10_000][..], 0));
            server.send(&Seal::Data(&[8; MAX_PLAINTEXT])).unwrap();
            tell(&mut client, &mut server).unwrap();
            let mut got = vec![0; MAX_PLAINTEXT];
            std::io::Read::read_exact(&mut client.reader(), &mut got).unwrap();
            assert!(got == [8; MAX_PLAINTEXT]);
        }
    }
}

#[test]
fn keys_are_renewed_under_way_and_both_sides_say_goodbye() {
    let (mut client, mut server) = (client(1), Server::new());
    shake(&mut client, &mut server, 500, |_| {}).unwrap();
    for n in 0..5_u8 {
        client.refresh_traffic_keys().unwrap();
        std::io::Write::write_all(&mut client.writer(), &[n]).unwrap();
        shake(&mut client, &mut server, 500, |_| {}).unwrap();
        server.send(&Seal::Data(&[n])).unwrap();
        tell(&mut client, &mut server).unwrap();
        let mut got = [9];
        std::io::Read::read_exact(&mut client.reader(), &mut got).unwrap();
        assert_eq!((&server.plain.split()[..], got), (&[n][..], [n]));
    }
    server.send(&Seal::CloseNotify).unwrap();
    tell(&mut client, &mut server).unwrap();
    assert_eq!(std::io::Read::read(&mut client.reader(), &mut [0]).unwrap(), 0, "an orderly end");
    client.send_close_notify();
    server.feed(&said(&mut client)).unwrap();
    assert!(server.engine.is_peer_closed());
}

#[test]
fn a_failure_is_told_by_an_alert_and_stays() {
    for version in [0, 1] {
        let (mut client, mut server) = (client(version), Server::new());
        shake(&mut client, &mut server, 500, |_| {}).unwrap();
        std::io::Write::write_all(&mut client.writer(), b"hello").unwrap();
        let mut wire = said(&mut client);
        *wire.last_mut().unwrap() ^= 1;
        let error = server.feed(&wire).unwrap_err();
        assert_eq!(error, rustls::Error::DecryptError);
        assert_eq!(server.engine.failure(), Some(&error));
        assert!(matches!(tell(&mut client, &mut server), Err(rustls::Error::AlertReceived(_))));
        assert_eq!(server.feed(b"more").unwrap_err(), error);
        assert!(server.send(&Seal::Data(b"x")).is_err());
    }
}

proptest! {
    /// A damaged client must not take more than its own connection down.
    #[test]
    fn damage_ends_in_an_error_or_a_wait_and_never_in_a_panic(
        version in 0..2_usize,
        pieces in 1..300_usize,
        spoils in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
        flights in 0..4_usize,
    ) {
        let (mut client, mut server) = (client(version), Server::new());
        let mut flight = 0;
        let _ = shake(&mut client, &mut server, pieces, |wire| {
            if flight >= flights && !wire.is_empty() {
                for (at, value, how) in &spoils {
                    let at = at.index(wire.len());
                    match how {
                        0 => wire[at] ^= value,
                        1 => wire[at] = *value,
                        2 => wire.insert(at, *value),
                        _ => wire.truncate(at + 1),
                    }
                }
            }
            flight += 1;
        });
        let _ = server.feed(&[22, 3, 3, 0, 0]);
        let _ = server.feed(&[0; 100]);
    }

    #[test]
    fn arbitrary_records_never_panic(
        records in proptest::collection::vec((20..25_u8, proptest::collection::vec(any::<u8>(), 0..80)), 0..20),
        pieces in 1..50_usize,
    ) {
        let mut wire = Vec::new();
        for (kind, body) in records {
            wire.extend_from_slice(&[kind, 3, 3, 0, body.len() as u8]);
            wire.extend_from_slice(&body);
        }
        let mut server = Server::new();
        for piece in wire.chunks(pieces) {
            if server.feed(piece).is_err() {
                break;
            }
        }
    }
}
