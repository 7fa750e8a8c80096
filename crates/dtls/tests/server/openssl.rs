//! OpenSSL's client over a real socket.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_dtls::{Closing, Engine, EngineEvent, Failure, Server, ServerConfig, Stage};

use super::certificates::config;
use super::pki::Pki;
use super::world::{KEY, Told, Verdict, psk_config};

/// The client is ended with the test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One association over a loopback socket; whatever comes is sent back in capitals.
fn serve(
    config: ServerConfig,
    verdict: &Verdict,
    arguments: &[&str],
    input: &[u8],
) -> Option<(Told, String)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-dtls1_2", "-connect", &address]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(child) = command.spawn() else {
        let required = std::env::var("LANDFALL_REQUIRE_INTEROP").is_ok_and(|value| value == "1");
        assert!(!required, "openssl is missing");
        return None;
    };
    let mut client = Client(child);
    let mut told = Told::default();
    let mut server = Server::accept(&Arc::new(config), 0);
    let began = Instant::now();
    let (mut buffer, mut echoed, mut peer) = (vec![0; 20_000], 0, None);
    while server.stage() != Stage::Over && began.elapsed() < Duration::from_secs(20) {
        let now = u64::try_from(began.elapsed().as_millis()).unwrap();
        let (events, stage) = (told.events.len(), server.stage());
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            peer = Some(from);
            server.receive(now, &mut buffer[..length], &mut told);
        } else if server.next_timeout().is_some_and(|due| due <= now) {
            server.handle_timeout(now, &mut told);
        }
        if told.events[events..].iter().any(|event| matches!(event, EngineEvent::WhoIs(_))) {
            server.answer(now, verdict.answer(), &mut told);
        }
        if stage == Stage::Shaking && server.stage() == Stage::Established {
            client.0.stdin.as_mut().unwrap().write_all(input).unwrap();
            if input.is_empty() {
                // The end of input makes the client say close_notify.
                client.0.stdin = None;
            }
        }
        for data in &told.data[echoed..] {
            let mut datagram = Vec::new();
            server.send(&data.to_ascii_uppercase(), &mut datagram).unwrap();
            told.datagrams.push(datagram);
        }
        if told.data.len() > echoed {
            server.close(&mut told);
        }
        echoed = told.data.len();
        for datagram in told.datagrams.drain(..) {
            socket.send_to(&datagram, peer.unwrap()).unwrap();
        }
    }
    client.0.stdin = None;
    let mut output = String::new();
    client.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    client.0.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    Some((told, output))
}

fn assert_echoes(config: ServerConfig, verdict: &Verdict, arguments: &[&str], suite: &str) -> Option<String> {
    let (told, output) = serve(config, verdict, arguments, b"over the wire\n")?;
    let established = told.events.iter().find_map(|event| match event {
        EngineEvent::Established { suite, .. } => Some(*suite),
        _ => None,
    });
    assert_eq!(established, Some(suite), "{:?}\n{output}", told.events);
    assert_eq!(told.data, [b"over the wire\n".to_vec()]);
    assert!(output.contains("OVER THE WIRE"), "{output}");
    Some(output)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn psk_suites() {
    let key = hex(KEY);
    for (cipher, suite) in [
        ("PSK-AES128-CCM8:@SECLEVEL=0", "TLS_PSK_WITH_AES_128_CCM_8"),
        ("PSK-AES128-GCM-SHA256:@SECLEVEL=0", "TLS_PSK_WITH_AES_128_GCM_SHA256"),
    ] {
        let base = ["-psk_identity", "meter", "-psk", &key, "-cipher", cipher];
        let verdict = Verdict::Key(KEY.to_vec());
        let Some(output) = assert_echoes(psk_config(), &verdict, &base, suite) else { return };
        assert!(output.contains("Extended master secret: yes"), "{output}");
        let (told, _) = serve(psk_config(), &verdict, &base, b"").unwrap();
        let last = told.events.last();
        assert!(matches!(last, Some(EngineEvent::Closed(Closing::CloseNotify))), "{last:?}");
    }
}

#[test]
fn certificate_suites() {
    let pki = Pki::new();
    for (cipher, suite) in [
        ("ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ] {
        for group in ["X25519:P-256", "P-256"] {
            let arguments = ["-cipher", cipher, "-groups", group];
            let verdict = Verdict::Refused;
            if assert_echoes(config(&pki, false, false), &verdict, &arguments, suite).is_none() {
                return;
            }
            // Asked for a certificate, and with none to show.
            assert_echoes(config(&pki, true, false), &verdict, &arguments, suite);
        }
    }
}

#[test]
fn a_client_certificate() {
    let (pki, folder) = (Pki::new(), Folder::new());
    let (certificate, key, authority) = (folder.at("c.der"), folder.at("k.der"), folder.at("ca.pem"));
    let shown = pki.client("meter-9");
    std::fs::write(&certificate, shown.certificate).unwrap();
    std::fs::write(&key, shown.private_key).unwrap();
    std::fs::write(&authority, &pki.authority_pem).unwrap();
    let arguments = [
        "-cert",
        &certificate,
        "-certform",
        "DER",
        "-key",
        &key,
        "-keyform",
        "DER",
        "-CAfile",
        &authority,
        "-verify_return_error",
    ];
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let output = assert_echoes(config(&pki, true, true), &Verdict::Admitted, &arguments, suite);
    assert!(output.is_none_or(|output| output.contains("Verify return code: 0 (ok)")));
}

#[test]
fn a_wrong_key() {
    let key = hex(b"some other key..");
    let arguments = ["-psk_identity", "meter", "-psk", &key, "-cipher", "PSK-AES128-CCM8:@SECLEVEL=0"];
    let verdict = Verdict::Key(KEY.to_vec());
    let Some((told, output)) = serve(psk_config(), &verdict, &arguments, b"") else { return };
    assert!(matches!(told.events.last(), Some(EngineEvent::Failed(Failure::WrongKey))), "{:?}", told.events);
    assert!(output.contains("decrypt error"), "{output}");
}

/// A folder of one test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("landfall-dtls-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
