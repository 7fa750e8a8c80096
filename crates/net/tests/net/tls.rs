//! TLS versions, mutual TLS, and replacing the files.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use landfall_event::RefusedDetail;
use landfall_net::{
    ClientAuth, Exchanged, Following, Refusal, StreamKind, Tls, TlsSettings, TlsStream, exchange, receive,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ALL_VERSIONS, ProtocolVersion};

use crate::support::{Authority, Client, Files, House, Identity, closed, echoes, within};

#[tokio::test]
async fn both_versions_are_served() {
    let authority = Authority::new("ca");
    let house = House::open("tls://127.0.0.1:0", Some(Files::of(&authority.server()).load())).await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let client = Client::speaking(&authority, &[version], None);
        for _ in 0..2 {
            let mut stream = client.connect(house.at).await.unwrap();
            echoes(&mut stream, b"hello").await;
            assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        }
    }
    house.end().await;
}

#[tokio::test]
async fn large_transfers_survive_in_both_directions() {
    let authority = Authority::new("ca");
    let house = House::open("tls://127.0.0.1:0", Some(Files::of(&authority.server()).load())).await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    for version in [&TLS12, &TLS13] {
        let stream = Client::speaking(&authority, &[version], None).connect(house.at).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut back = vec![0; bytes.len()];
        let write = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        let (wrote, read) = within(async { tokio::join!(write, reader.read_exact(&mut back)) }).await;
        wrote.unwrap();
        read.unwrap();
        assert!(back == bytes);
    }
    house.end().await;
}

#[tokio::test]
async fn the_protocol_name_is_mqtt_and_not_everything() {
    let authority = Authority::new("ca");
    let house = House::open("tls://127.0.0.1:0", Some(Files::of(&authority.server()).load())).await;
    let stream = Client::trusting(&authority).offering(&["x", "mqtt"]).connect(house.at).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
    house.end().await;
}

/// Firmware that was made for another service names that service's protocol, and HTTP libraries name theirs.
#[tokio::test]
async fn a_client_that_names_other_protocols_is_served_without_one() {
    let authority = Authority::new("ca");
    let files = Files::of(&authority.server());
    for endpoint in ["tls://127.0.0.1:0", "wss://127.0.0.1:0"] {
        let house = House::open(endpoint, Some(files.load())).await;
        for version in [&TLS12, &TLS13] {
            for offer in [&["x-amzn-mqtt-ca"][..], &["h2"], &["h2", "x-amzn-mqtt-ca"]] {
                let client = Client::speaking(&authority, &[version], None).offering(offer);
                // Twice: the second resumes what the first was given.
                for _ in 0..2 {
                    let mut stream = client.connect(house.at).await.unwrap();
                    assert_eq!(stream.get_ref().1.alpn_protocol(), None, "{endpoint} {offer:?}");
                    if endpoint.starts_with("tls") {
                        echoes(&mut stream, b"hello").await;
                    }
                }
            }
        }
        let http =
            Client::trusting(&authority).offering(&["h2", "http/1.1"]).connect(house.at).await.unwrap();
        let expected = endpoint.starts_with("wss").then_some(&b"http/1.1"[..]);
        assert_eq!(http.get_ref().1.alpn_protocol(), expected);
        drop(http);
        house.end().await;
    }
}

/// A ClientHello that comes byte by byte, and one that is none.
#[tokio::test]
async fn a_hello_in_pieces_is_read_and_what_is_none_is_told_so() {
    let authority = Authority::new("ca");
    let house = House::open("tls://127.0.0.1:0", Some(Files::of(&authority.server()).load())).await;
    let (near, far) = tokio::io::duplex(1);
    let pipe = async {
        let mut socket = house.connect().await;
        let mut far = far;
        let _ = tokio::io::copy_bidirectional(&mut far, &mut socket).await;
    };
    let client = Client::trusting(&authority).offering(&["x-amzn-mqtt-ca"]);
    let talk = async {
        let mut stream = client.shake(near).await.unwrap();
        echoes(&mut stream, b"hello").await;
    };
    within(async { tokio::join!(pipe, talk) }).await;
    let mut stream = house.connect().await;
    stream.write_all(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0]).await.unwrap();
    let mut alert = Vec::new();
    within(stream.read_to_end(&mut alert)).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert: {alert:02x?}");
    let seen = house.echo.wait_for(|seen| seen.refused.len() == 1).await;
    assert_eq!(seen.refused, [Refusal::TlsFailed(RefusedDetail::HandshakeMalformed)]);
    house.end().await;
}

/// What a client reads, beside what it makes of it.
struct Tapped {
    stream: TcpStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Small devices have buffers for small records only.
#[tokio::test]
async fn no_record_is_larger_than_the_setting() {
    let authority = Authority::new("ca");
    let files = Files::of(&authority.server());
    for most in [512, 4_096, TlsSettings::LARGEST_RECORD] {
        let tls = Tls::load(TlsSettings { max_record: most, ..files.settings() }).unwrap();
        let house = House::open("tls://127.0.0.1:0", Some(tls)).await;
        for version in [&TLS12, &TLS13] {
            let read = Arc::new(Mutex::new(Vec::new()));
            let tapped = Tapped { stream: house.connect().await, read: Arc::clone(&read) };
            let mut stream = Client::speaking(&authority, &[version], None).shake(tapped).await.unwrap();
            echoes(&mut stream, &[0x5a; 100_000]).await;
            drop(stream);
            let bytes = read.lock().unwrap().clone();
            let (mut rest, mut largest) = (bytes.as_slice(), 0);
            while let [_, _, _, high, low, more @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                largest = largest.max(length);
                rest = more.get(length..).unwrap_or_default();
            }
            // Nonce, type and tag come on top of the plaintext.
            assert!(largest <= most + 24, "{largest} for {most}");
            assert!(largest > most.min(9_000), "the room that there is is used: {largest} for {most}");
        }
        house.end().await;
    }
}

fn fingerprint_of(identity: &Identity) -> String {
    let der = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
    Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_verified_client_is_told_with_name_and_fingerprint() {
    let authority = Authority::new("ca");
    let devices = Authority::new("devices");
    for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
        let tls = Files::of(&authority.server()).load_mutual(&devices, client_auth);
        let house = House::open("tls://127.0.0.1:0", Some(tls)).await;
        let pump = devices.client("pump 17 \u{1b}[31m");
        for version in [&TLS12, &TLS13] {
            let client = Client::speaking(&authority, &[version], Some(&pump));
            // Twice: nothing is resumed, so each connection is verified.
            for _ in 0..2 {
                echoes(&mut client.connect(house.at).await.unwrap(), b"hello").await;
            }
        }
        let seen = house.echo.wait_for(|seen| seen.served.len() == 4).await;
        for (_, _, certificate) in seen.served {
            let certificate = certificate.expect("a certificate was shown");
            assert_eq!(certificate.common_name.as_deref(), Some("pump 17 \u{1b}[31m"));
            assert_eq!(certificate.fingerprint, fingerprint_of(&pump));
        }
        house.end().await;
    }
}

/// Connects and expects that no byte comes back. TLS 1.3 tells a client of its refusal only after its own handshake.
async fn turned_away(client: &Client, house: &House) {
    if let Ok(mut stream) = client.connect(house.at).await {
        assert!(within(stream.read_u8()).await.is_err(), "it must not be served");
    }
}

#[tokio::test]
async fn a_missing_or_foreign_client_certificate_ends_the_handshake() {
    let (authority, devices) = (Authority::new("ca"), Authority::new("devices"));
    let foreign = Authority::new("devices").client("pump-17");
    for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
        let tls = Files::of(&authority.server()).load_mutual(&devices, client_auth);
        let house = House::open("tls://127.0.0.1:0", Some(tls)).await;
        for version in [&TLS12, &TLS13] {
            turned_away(&Client::speaking(&authority, &[version], Some(&foreign)), &house).await;
            let without = Client::speaking(&authority, &[version], None);
            match client_auth {
                ClientAuth::Required => turned_away(&without, &house).await,
                ClientAuth::Optional => echoes(&mut without.connect(house.at).await.unwrap(), b"hello").await,
            }
        }
        let (refused, served) = if client_auth == ClientAuth::Required { (4, 0) } else { (2, 2) };
        let seen = house.echo.wait_for(|seen| seen.refused.len() == refused).await;
        let of = |detail| seen.refused.iter().filter(|why| **why == Refusal::TlsFailed(detail)).count();
        // An authority of the same name and another key is found out by its signature.
        assert_eq!(of(RefusedDetail::CertificateInvalid), 2, "{:?}", seen.refused);
        assert_eq!(of(RefusedDetail::NoCertificate), refused - 2, "{:?}", seen.refused);
        assert_eq!(seen.served.len(), served);
        assert!(seen.served.iter().all(|(_, _, certificate)| certificate.is_none()));
        house.end().await;
    }
}

#[tokio::test]
async fn new_files_serve_new_handshakes_and_bad_ones_change_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::of(&old.server());
    let tls = files.load();
    let house = House::open("tls://127.0.0.1:0", Some(tls.clone())).await;
    let mut standing = Client::trusting(&old).connect(house.at).await.unwrap();
    echoes(&mut standing, b"before").await;
    assert!(!tls.reload_if_changed().unwrap());

    files.write("cert.pem", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n");
    let error = tls.reload_if_changed().unwrap_err().to_string();
    assert!(error.contains("tls.cert") && error.contains("cert.pem"), "{error}");
    assert!(!tls.reload_if_changed().unwrap(), "a bad file is told once");
    echoes(&mut Client::trusting(&old).connect(house.at).await.unwrap(), b"the old one stays").await;

    let identity = new.server();
    files.write("cert.pem", &identity.cert);
    assert!(
        tls.reload_if_changed().unwrap_err().to_string().contains("does not go with"),
        "the key is still old"
    );
    files.write("key.pem", &identity.key);
    assert!(tls.reload_if_changed().unwrap());
    echoes(&mut Client::trusting(&new).connect(house.at).await.unwrap(), b"the new one").await;
    assert!(Client::trusting(&old).connect(house.at).await.is_err());
    echoes(&mut standing, b"still").await;
    house.end().await;
}

#[tokio::test]
async fn the_watch_sees_a_change() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::of(&old.server());
    let tls = files.load();
    let house = House::open("tls://127.0.0.1:0", Some(tls.clone())).await;
    tls.watch(&house.scope, Following::every(Duration::from_millis(20)));
    let identity = new.server();
    files.write("key.pem", &identity.key);
    files.write("cert.pem", &identity.cert);
    let client = Client::trusting(&new);
    within(async { while client.connect(house.at).await.is_err() {} }).await;
    house.end().await;
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_setting_and_path_and_no_secret() {
    let authority = Authority::new("ca");
    let (identity, other) = (authority.server(), authority.server());
    let files = Files::of(&identity);
    files.write("other.pem", &other.key);
    files.write("empty.pem", "");
    files.write(
        "sealed.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.write("broken.pem", "-----BEGIN PRIVATE KEY-----\ntop*secret\n-----END PRIVATE KEY-----\n");
    files.write("open.pem", "-----BEGIN PRIVATE KEY-----\ntopsecret");
    files.write("der.pem", "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n");
    let base = files.settings();
    let with_cert = |name: &str| TlsSettings { cert: files.path(name), ..base.clone() };
    let with_key = |name: &str| TlsSettings { key: files.path(name), ..base.clone() };
    let with_ca = |name: &str| TlsSettings { client_ca: Some(files.path(name)), ..base.clone() };
    for (settings, setting, name, problem) in [
        (with_cert("none.pem"), "tls.cert", "none.pem", "No such file"),
        (with_cert("empty.pem"), "tls.cert", "empty.pem", "no CERTIFICATE block"),
        (with_key("none.pem"), "tls.key", "none.pem", "No such file"),
        (with_key("cert.pem"), "tls.key", "cert.pem", "no PRIVATE KEY block"),
        (with_key("sealed.pem"), "tls.key", "sealed.pem", "encrypted"),
        (with_key("broken.pem"), "tls.key", "broken.pem", "no base64"),
        (with_key("open.pem"), "tls.key", "open.pem", "no end line"),
        (with_key("other.pem"), "tls.key", "other.pem", "does not go with tls.cert"),
        (with_ca("key.pem"), "tls.client_ca", "key.pem", "no CERTIFICATE block"),
        (with_ca("der.pem"), "tls.client_ca", "der.pem", "cannot be used"),
        (with_cert(""), "tls.cert", "", "directory"),
    ] {
        let error = Tls::load(settings).expect_err(name);
        let text = format!("{error} {error:?}");
        assert!(text.contains(setting) && text.contains(name) && text.contains(problem), "{text}");
        assert!(!text.contains("secret") && !text.contains("c2Vj"), "{text}");
        for line in other.key.lines().filter(|line| !line.starts_with('-')) {
            assert!(!text.contains(line), "{text}");
        }
    }
    // A version that nobody speaks any more is simply not there.
    assert_eq!(ALL_VERSIONS.len(), 2);
}

/// Connects over a pipe that takes a few bytes at a time, so that everything is cut and everything waits.
async fn over_a_narrow_pipe(
    tls: &Tls,
    client: &Client,
    width: usize,
) -> (TlsStream<DuplexStream>, tokio_rustls::client::TlsStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(width);
    let (tell, told) = oneshot::channel();
    let accept = async {
        let server = tls.accept(near, StreamKind::Tls).await.unwrap();
        tell.send(()).unwrap();
        server
    };
    let connect = async {
        let mut client = client.shake(far).await.unwrap();
        // Goes on reading: the server's last words, a ticket, must fit through the pipe too.
        tokio::select! {
            biased;
            _ = told => client,
            byte = client.read_u8() => panic!("nothing was sent: {byte:?}"),
        }
    };
    within(async { tokio::join!(accept, connect) }).await
}

#[tokio::test]
async fn a_narrow_pipe_changes_nothing() {
    let authority = Authority::new("ca");
    let tls = Files::of(&authority.server()).load();
    for version in [&TLS12, &TLS13] {
        for width in [1, 7, 1000] {
            let client = Client::speaking(&authority, &[version], None);
            let (mut server, client) = over_a_narrow_pipe(&tls, &client, width).await;
            let (mut reader, mut writer) = tokio::io::split(client);
            let bytes: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
            let echo = async {
                let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
                while let Exchanged::Read(_) | Exchanged::Wrote =
                    exchange(&mut server, Some(&mut input), &mut output).await.unwrap()
                {
                    output.unsplit(std::mem::take(&mut input));
                }
                assert!(output.is_empty());
                server.shutdown().await.unwrap();
            };
            let client = async {
                let write = async {
                    writer.write_all(&bytes).await.unwrap();
                    writer.flush().await.unwrap();
                };
                let mut back = vec![0; bytes.len()];
                let ((), read) = tokio::join!(write, reader.read_exact(&mut back));
                assert!(read.is_ok() && back == bytes);
                let mut client = reader.unsplit(writer);
                client.shutdown().await.unwrap();
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.expect("an orderly goodbye");
                assert!(rest.is_empty());
            };
            within(async { tokio::join!(echo, client) }).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_off_is_told_from_one_that_ended() {
    let authority = Authority::new("ca");
    let tls = Files::of(&authority.server()).load();
    for orderly in [true, false] {
        let (mut server, mut client) = over_a_narrow_pipe(&tls, &Client::trusting(&authority), 4096).await;
        client.write_all(b"last").await.unwrap();
        if orderly {
            client.shutdown().await.unwrap();
        } else {
            client.flush().await.unwrap();
        }
        drop(client);
        let mut input = BytesMut::new();
        assert_eq!(within(receive(&mut server, &mut input)).await.unwrap(), 4);
        match within(receive(&mut server, &mut input)).await {
            Ok(0) if orderly => {}
            Err(error) if !orderly => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_record_ends_the_connection_with_an_alert() {
    let authority = Authority::new("ca");
    let tls = Files::of(&authority.server()).load();
    let (mut server, client) = over_a_narrow_pipe(&tls, &Client::trusting(&authority), 4096).await;
    let (mut pipe, mut session) = client.into_inner();
    pipe.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
    pipe.write_all(&[0; 20]).await.unwrap();
    let error = within(receive(&mut server, &mut BytesMut::new())).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(within(receive(&mut server, &mut BytesMut::new())).await.is_err(), "it stays so");
    drop(server);
    let mut wire = Vec::new();
    within(pipe.read_to_end(&mut wire)).await.unwrap();
    let mut rest = &wire[..];
    let mut alert = Ok(());
    while !rest.is_empty() && alert.is_ok() {
        session.read_tls(&mut rest).unwrap();
        alert = session.process_new_packets().map(drop);
    }
    assert!(matches!(alert, Err(tokio_rustls::rustls::Error::AlertReceived(_))), "{alert:?}");
}

#[tokio::test]
async fn a_writer_to_a_peer_that_does_not_read_waits() {
    let authority = Authority::new("ca");
    let tls = Files::of(&authority.server()).load();
    let (mut server, mut client) = over_a_narrow_pipe(&tls, &Client::trusting(&authority), 4096).await;
    let mut output = BytesMut::from(&[5; 200_000][..]);
    let mut taken = 0;
    loop {
        tokio::select! {
            biased;
            moved = exchange(&mut server, None, &mut output) => assert_eq!(moved.unwrap(), Exchanged::Wrote),
            () = tokio::task::yield_now() => break,
        }
        taken += 1;
        assert!(taken < 10, "one record is kept, not all");
    }
    assert!(output.len() > 150_000);
    let mut got = vec![0; 200_000];
    let drive = async {
        while !output.is_empty() {
            exchange(&mut server, None, &mut output).await.unwrap();
        }
        server.flush().await.unwrap();
    };
    let (read, ()) = within(async { tokio::join!(client.read_exact(&mut got), drive) }).await;
    read.unwrap();
    assert!(got == [5; 200_000]);
}

/// Firmware that speaks plainly to the port of TLS, firmware of another fleet, and firmware that is old: each is to be found.
#[tokio::test]
async fn plain_bytes_a_foreign_certificate_and_an_old_version_look_different() {
    let (authority, devices) = (Authority::new("ca"), Authority::new("devices"));
    let tls = Files::of(&authority.server()).load_mutual(&devices, ClientAuth::Required);
    let house = House::open("tls://127.0.0.1:0", Some(tls)).await;
    let mut expected = Vec::new();
    for plain in [&b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"[..], b"GET /mqtt HTTP/1.1\r\n\r\n"] {
        let mut stream = house.connect().await;
        stream.write_all(plain).await.unwrap();
        closed(&mut stream).await;
        expected.push(RefusedDetail::PlainBytes);
    }
    let foreign = Authority::new("another fleet").client("pump-17");
    turned_away(&Client::speaking(&authority, &[&TLS13], Some(&foreign)), &house).await;
    expected.push(RefusedDetail::UnknownAuthority);
    let distrustful = Client::speaking(&Authority::new("who else"), &[&TLS12], None);
    assert!(distrustful.connect(house.at).await.is_err());
    expected.push(RefusedDetail::DeviceKnowsNoAuthority);
    // The ClientHello of TLS 1.0 with one suite.
    let hello = [&[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let mut stream = house.connect().await;
    stream.write_all(&hello).await.unwrap();
    closed(&mut stream).await;
    expected.push(RefusedDetail::ProtocolVersion);
    let mut stream = house.connect().await;
    stream.write_all(&hello[..20]).await.unwrap();
    drop(stream);
    expected.push(RefusedDetail::Closed);
    let seen = house.echo.wait_for(|seen| seen.refused.len() == expected.len()).await;
    let mut told: Vec<_> = seen.refused.iter().map(|why| format!("{why:?}")).collect();
    let mut expected: Vec<_> = expected.into_iter().map(|d| format!("{:?}", Refusal::TlsFailed(d))).collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
    house.end().await;
}
