//! Clients that others wrote, over a real socket and with a cookie: OpenSSL's, and libcoap's over OpenSSL and GnuTLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_dtls::{Closing, Event, Failure, Key, Limits, Listener, Server, ServerConfig, Sink};

use super::certificates::config;
use super::pki::Pki;
use super::world::{KEY, Verdict, psk_config};

/// The client is ended with the test.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the listener told.
#[derive(Default)]
struct Told {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    data: Vec<(Key, Vec<u8>)>,
    events: Vec<Event<SocketAddr>>,
}

impl Sink<SocketAddr> for Told {
    fn transmit(&mut self, path: &SocketAddr, datagram: &[u8]) {
        self.datagrams.push((*path, datagram.to_vec()));
    }

    fn data(&mut self, key: Key, _: &SocketAddr, bytes: &[u8]) {
        self.data.push((key, bytes.to_vec()));
    }

    fn event(&mut self, event: Event<SocketAddr>) {
        self.events.push(event);
    }
}

impl Told {
    fn is_over(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Closed { .. } | Event::Failed { .. }))
    }

    fn suite(&self) -> Option<&'static str> {
        self.events.iter().find_map(|event| match event {
            Event::Established { suite, .. } => Some(*suite),
            _ => None,
        })
    }
}

/// What a listener says to a client's word.
type Respond = fn(&[u8]) -> Vec<u8>;

/// As [`serve_losing`], and nothing is lost.
fn serve(
    config: ServerConfig,
    verdict: &Verdict,
    command: impl FnOnce(SocketAddr) -> Command,
    input: &[u8],
    respond: Respond,
) -> Option<(Told, String)> {
    serve_losing(|_| false, config, verdict, command, (input, respond))
}

/// One client, and a listener that answers its first word with what `respond` says and ends. The first datagram of the
/// listener's that is `lost` is.
fn serve_losing(
    lost: fn(&[u8]) -> bool,
    config: ServerConfig,
    verdict: &Verdict,
    command: impl FnOnce(SocketAddr) -> Command,
    (input, respond): (&[u8], Respond),
) -> Option<(Told, String)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut command = command(socket.local_addr().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(child) = command.spawn() else {
        let required = std::env::var("LANDFALL_REQUIRE_INTEROP").is_ok_and(|value| value == "1");
        let program = command.get_program();
        assert!(!required, "{program:?} is missing: `make tools` installs it");
        eprintln!("SKIPPED: {program:?} is missing (`make tools` installs it)");
        return None;
    };
    let mut client = Client(child);
    let mut told = Told::default();
    let mut listener: Listener<Server, SocketAddr> =
        Listener::new(Arc::new(config), Limits::default(), [7; 32], 0);
    let began = Instant::now();
    let (mut buffer, mut seen, mut loses) = (vec![0; 20_000], 0, true);
    while !told.is_over() && told.data.is_empty() && began.elapsed() < Duration::from_secs(20) {
        let now = u64::try_from(began.elapsed().as_millis()).unwrap();
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            listener.receive(now, (from, from), &mut buffer[..length], &mut told);
        }
        listener.handle_timeout(now, &mut told);
        if let Some(Event::WhoIs { key, .. }) = told.events.get(seen) {
            listener.answer(now, *key, verdict.answer(), &mut told);
        }
        if told.events[seen..].iter().any(|event| matches!(event, Event::Established { .. })) {
            let mut stdin = client.0.stdin.take().unwrap();
            stdin.write_all(input).unwrap();
            // The end of input makes the client say close_notify.
            client.0.stdin = (!input.is_empty()).then_some(stdin);
        }
        seen = told.events.len();
        if let Some((key, data)) = told.data.first() {
            let (key, response) = (*key, respond(data));
            listener.send(key, &response, &mut told).unwrap();
            listener.close(key, &mut told);
        }
        for (to, datagram) in told.datagrams.drain(..) {
            if loses && lost(&datagram) {
                loses = false;
                continue;
            }
            socket.send_to(&datagram, to).unwrap();
        }
    }
    client.0.stdin = None;
    let mut output = String::new();
    client.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    client.0.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(listener.counts().cookies, 1, "{output}");
    Some((told, output))
}

fn s_client(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-dtls1_2", "-connect", &address.to_string()]).args(arguments);
    command
}

fn assert_echoes(config: ServerConfig, verdict: &Verdict, arguments: &[&str], suite: &str) -> Option<String> {
    let command = |address| s_client(address, arguments);
    let (told, output) = serve(config, verdict, command, b"over the wire\n", <[u8]>::to_ascii_uppercase)?;
    assert_eq!(told.suite(), Some(suite), "{:?}\n{output}", told.events);
    assert_eq!(told.data[0].1, b"over the wire\n");
    assert!(output.contains("OVER THE WIRE"), "{output}");
    Some(output)
}

fn psk_coap(program: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    let uri = format!("coaps://{address}/x");
    command.args(["-m", "get", "-u", "meter", "-k", str::from_utf8(KEY).unwrap(), "-B", "10", &uri]);
    command
}

/// A response 2.05 to a CoAP request, with a text.
fn content(request: &[u8]) -> Vec<u8> {
    let token = usize::from(request[0] & 0xF);
    let header = [0x60 | request[0] & 0xF, 0x45, request[2], request[3]];
    [&header[..], &request[4..4 + token], &[0xFF], b"landed"].concat()
}

#[test]
fn libcoap() {
    for program in ["coap-client-openssl", "coap-client-gnutls"] {
        let command = |address: SocketAddr| psk_coap(program, address);
        let verdict = Verdict::Key(KEY.to_vec());
        let Some((told, output)) = serve(psk_config(), &verdict, command, b"", content) else { continue };
        assert!(
            told.suite().is_some_and(|suite| suite.starts_with("TLS_PSK")),
            "{:?}\n{output}",
            told.events
        );
        assert!(output.contains("landed"), "{program}: {output}");
    }
}

/// ServerHello, or ChangeCipherSpec and Finished, do not arrive the first time.
#[test]
fn lost_flights() {
    let flights: [fn(&[u8]) -> bool; 2] =
        [|datagram| datagram[0] == 22 && datagram[13] == 2, |datagram| datagram[0] == 20];
    for program in ["coap-client-openssl", "coap-client-gnutls"] {
        for lost in flights {
            let command = |address: SocketAddr| psk_coap(program, address);
            let verdict = Verdict::Key(KEY.to_vec());
            let served = serve_losing(lost, psk_config(), &verdict, command, (b"", content));
            let Some((told, output)) = served else { continue };
            assert!(told.suite().is_some(), "{:?}\n{output}", told.events);
            assert!(output.contains("landed"), "{program}: {output}");
        }
    }
}

#[test]
fn libcoap_with_a_certificate() {
    let (pki, folder) = (Pki::new(), Folder::new("libcoap"));
    let (certificate, key, authority) = (folder.at("c.pem"), folder.at("k.pem"), folder.at("ca.pem"));
    let [shown, private] = pki.client_pem("meter-9");
    std::fs::write(&certificate, shown).unwrap();
    std::fs::write(&key, private).unwrap();
    std::fs::write(&authority, &pki.authority_pem).unwrap();
    for program in ["coap-client-openssl", "coap-client-gnutls"] {
        let command = |address: SocketAddr| {
            let mut command = Command::new(program);
            let uri = format!("coaps://{address}/x");
            command.args(["-m", "get", "-c", &certificate, "-j", &key, "-C", &authority, "-B", "5", &uri]);
            command
        };
        let config = config(&pki, true, true);
        let Some((told, output)) = serve(config, &Verdict::Admitted, command, b"", content) else { continue };
        assert!(told.suite().is_some_and(|suite| suite.contains("ECDSA")), "{:?}\n{output}", told.events);
        assert!(output.contains("landed"), "{program}: {output}");
    }
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
        ("PSK-AES128-CCM", "TLS_PSK_WITH_AES_128_CCM"),
        ("PSK-AES256-CCM8:@SECLEVEL=0", "TLS_PSK_WITH_AES_256_CCM_8"),
        ("PSK-AES256-CCM", "TLS_PSK_WITH_AES_256_CCM"),
    ] {
        let base = ["-psk_identity", "meter", "-psk", &key, "-cipher", cipher];
        let verdict = Verdict::Key(KEY.to_vec());
        let Some(output) = assert_echoes(psk_config(), &verdict, &base, suite) else { return };
        assert!(output.contains("Extended master secret: yes"), "{output}");
        let command = |address| s_client(address, &base);
        let (told, _) = serve(psk_config(), &verdict, command, b"", <[u8]>::to_vec).unwrap();
        let last = told.events.last();
        assert!(matches!(last, Some(Event::Closed { why: Closing::CloseNotify, .. })), "{last:?}");
    }
}

/// OpenSSL lists the suites of certificates before those of keys, and has no certificate.
#[test]
fn a_key_gets_in_beside_a_certificate() {
    let (pki, key) = (Pki::new(), hex(KEY));
    let arguments = ["-psk_identity", "meter", "-psk", &key, "-cipher", "ALL:PSK:@SECLEVEL=0"];
    for is_required in [true, false] {
        let config = ServerConfig { psk: true, ..config(&pki, true, is_required) };
        let verdict = Verdict::Key(KEY.to_vec());
        let command = |address| s_client(address, &arguments);
        let served = serve(config, &verdict, command, b"over the wire\n", <[u8]>::to_ascii_uppercase);
        let Some((told, output)) = served else { return };
        assert!(told.suite().is_some_and(|suite| suite.starts_with("TLS_PSK")), "{output}");
        assert!(output.contains("OVER THE WIRE"), "{output}");
    }
}

#[test]
fn certificate_suites() {
    let pki = Pki::new();
    for (cipher, suite) in [
        ("ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-ECDSA-AES128-CCM", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"),
        ("ECDHE-ECDSA-AES256-CCM8:@SECLEVEL=0", "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8"),
        ("ECDHE-ECDSA-AES256-CCM", "TLS_ECDHE_ECDSA_WITH_AES_256_CCM"),
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
    let (pki, folder) = (Pki::new(), Folder::new("openssl"));
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
    let command = |address| s_client(address, &arguments);
    let Some((told, output)) = serve(psk_config(), &verdict, command, b"", <[u8]>::to_vec) else { return };
    let last = told.events.last();
    assert!(matches!(last, Some(Event::Failed { why: Failure::WrongKey, .. })), "{last:?}");
    assert!(output.contains("decrypt error"), "{output}");
}

/// A folder of one test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("landfall-dtls-{name}-{}", std::process::id()));
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
