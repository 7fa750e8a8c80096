//! What an idle connection costs this crate, in bytes of resident memory.
//!
//! `cargo run --release -p landfall-net --example idle -- [tcp|tls12|tls13|ws|wss13] [CONNECTIONS]`. The clients live in
//! a child process, so that only the server's side is counted.
#![allow(clippy::print_stdout, reason = "an example that prints its result")]

use std::error::Error;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use landfall_net::{
    AcceptSettings, Accepted, ClientAuth, Exchanged, Gate, Limits, Listener, Refusal, Scope, Serve, Stream,
    StreamKind, Tls, TlsSettings, exchange,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, version};

type Anything<T> = Result<T, Box<dyn Error>>;

/// Echoes, with both buffers dropped while nothing moves.
struct Echo;

impl Serve for Echo {
    async fn serve<S: Stream>(self: Arc<Self>, mut connection: Accepted<S>) {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        while let Ok(moved) = exchange(&mut connection.stream, Some(&mut input), &mut output).await {
            match moved {
                Exchanged::Read(_) => output.unsplit(std::mem::take(&mut input)),
                Exchanged::Wrote => {}
                Exchanged::End => break,
            }
        }
    }

    fn refused(&self, _: SocketAddr, _: StreamKind, _: Refusal) {}
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Anything<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["clients", kind, count, at, cert] => clients(kind, count.parse()?, at.parse()?, cert).await,
        [kind, count] => serve(kind, count.parse()?).await,
        [kind] => serve(kind, 5000).await,
        _ => serve("tcp", 5000).await,
    }
}

async fn serve(kind: &str, count: usize) -> Anything<()> {
    let dir = tempfile::tempdir()?;
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, issued.cert.pem())?;
    std::fs::write(&key, issued.signing_key.serialize_pem())?;
    let tls = Tls::load(TlsSettings {
        max_record: TlsSettings::LARGEST_RECORD,
        cert: cert.clone(),
        key,
        client_ca: None,
        client_auth: ClientAuth::Required,
    })?;
    let scheme = kind.trim_end_matches(|c: char| c.is_ascii_digit());
    let listener = Listener::bind(&format!("{scheme}://127.0.0.1:0").parse()?, Some(tls)).await?;
    let (scope, gate, at) = (Scope::new(), Gate::new(Limits::default()), listener.local_addr()?);
    listener.run(&scope, Arc::new(Echo), Arc::clone(&gate), AcceptSettings::default());

    let cert = cert.to_string_lossy().into_owned();
    // A few first, so that what is paid once is not counted.
    let warm = hold(kind, 50, at, &cert).await?;
    let before = resident()?;
    let all = hold(kind, count, at, &cert).await?;
    let after = resident()?;
    println!(
        "{kind}: {} bytes per idle connection ({} connections)",
        after.saturating_sub(before) / count,
        gate.open()
    );
    drop((warm, all));
    scope.drain(Duration::from_secs(5)).await;
    Ok(())
}

/// Starts a process that holds so many connections until the returned child is dropped.
async fn hold(kind: &str, count: usize, at: SocketAddr, cert: &str) -> Anything<tokio::process::Child> {
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["clients", kind, &count.to_string(), &at.to_string(), cert])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().ok_or("no stdout")?;
    let ready = BufReader::new(out).lines().next_line().await?;
    if ready.as_deref() != Some("ready") {
        return Err("the clients did not connect".into());
    }
    Ok(child)
}

async fn clients(kind: &str, count: usize, at: SocketAddr, cert: &str) -> Anything<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert)?)?;
    let versions = if kind.ends_with("12") { [&version::TLS12] } else { [&version::TLS13] };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let mut open: Vec<Box<dyn Stream>> = Vec::new();
    for _ in 0..count {
        let tcp = TcpStream::connect(at).await?;
        let mut stream: Box<dyn Stream> = if kind.starts_with("tls") || kind.starts_with("wss") {
            Box::new(connector.connect(ServerName::try_from("localhost")?, tcp).await?)
        } else {
            Box::new(tcp)
        };
        if kind.starts_with("ws") {
            stream
                .write_all(
                    b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
                )
                .await?;
            stream.flush().await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await?);
            }
            stream.write_all(&[0x82, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g']).await?;
            stream.flush().await?;
            stream.read_exact(&mut [0; 6]).await?;
        } else {
            stream.write_all(b"ping").await?;
            stream.flush().await?;
            stream.read_exact(&mut [0; 4]).await?;
        }
        open.push(stream);
    }
    println!("ready");
    // Until the parent goes.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn resident() -> Anything<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}
