use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use dimpl::{Config, Output, PskResolver};
use serde_json::Value;
use tokio::net::UdpSocket;

use super::*;

const KEY: &str = "6c616e6466616c6c";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    dtls: Dtls,
}

fn settings(line: &str) -> Dtls {
    Line::try_parse_from(["dtls"].into_iter().chain(line.split(' '))).unwrap().dtls
}

struct Known;

impl PskResolver for Known {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        identity.starts_with(b"bench-").then(|| b"landfall".to_vec())
    }
}

/// What a stand-in has seen.
#[derive(Default)]
struct Seen {
    opened: usize,
    said: Vec<String>,
    closed: usize,
}

/// A server that echoes.
async fn stand_in(socket: UdpSocket, stop: Arc<AtomicBool>) -> Seen {
    let config = Arc::new(Config::builder().with_psk_server(None, Arc::new(Known)).build().unwrap());
    let (mut peers, mut seen) = (HashMap::new(), Seen::default());
    let (mut buffer, mut out) = ([0; 2048], [0; 2048]);
    while !stop.load(Ordering::Relaxed) {
        let receiving = tokio::time::timeout(Duration::from_millis(20), socket.recv_from(&mut buffer));
        if let Ok(Ok((length, from))) = receiving.await {
            let peer = peers
                .entry(from)
                .or_insert_with(|| dimpl::Dtls::new_12_psk(Arc::clone(&config), Instant::now()));
            let _ = peer.handle_timeout(Instant::now());
            let _ = peer.handle_packet(&buffer[..length]);
        }
        for (address, peer) in &mut peers {
            let _ = peer.handle_timeout(Instant::now());
            let mut said = Vec::new();
            loop {
                match peer.poll_output(&mut out) {
                    Output::Packet(datagram) => drop(socket.send_to(datagram, address).await),
                    Output::Connected => seen.opened += 1,
                    Output::CloseNotify => seen.closed += 1,
                    Output::ApplicationData(text) => said.push(text.to_vec()),
                    Output::Timeout(_) if said.is_empty() => break,
                    Output::Timeout(_) => {
                        for text in said.drain(..) {
                            let _ = peer.send_application_data(&text);
                            seen.said.push(String::from_utf8(text).unwrap());
                        }
                    }
                    Output::BufferTooSmall { needed } => panic!("{needed}"),
                    _ => {}
                }
            }
        }
    }
    seen
}

async fn against_stand_in(line: &str) -> (Result<Value, String>, Seen) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let (stop, mut running) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    running.spawn(stand_in(socket, Arc::clone(&stop)));
    let found = settings(&format!("--server {server} {line}")).run(Progress::new(false, true)).await;
    // What was said last is on its way through the loopback already.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.store(true, Ordering::Relaxed);
    let seen = running.join_next().await.unwrap().unwrap();
    (found.map(|report| report.value()), seen)
}

#[tokio::test]
async fn handshakes_are_done_counted_and_ended() {
    let me = std::process::id();
    let line = format!(
        "--key {KEY} --pid {me} --identities 3 --text {{id}}:{{n}} handshakes --count 20 --at-once 4"
    );
    let (found, mut seen) = against_stand_in(&line).await;
    let found = found.unwrap();
    assert_eq!((&found["handshakes"], &found["lost"]), (&20.into(), &0.into()), "{found}");
    assert!(
        found["cpu_us_per_handshake"].is_f64() && found["handshake_p50_us"].as_u64() > Some(0),
        "{found}"
    );
    assert_eq!((seen.opened, seen.closed), (20, 20));
    seen.said.sort();
    seen.said.dedup();
    assert_eq!(seen.said, ["bench-0:1", "bench-1:1", "bench-2:1"]);
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_sent_again() {
    let line = format!("--key {KEY} --lose 20 --resend 40 --answered handshakes --count 40 --at-once 40");
    let (found, seen) = against_stand_in(&line).await;
    let found = found.unwrap();
    assert_eq!(found["lost"], 0, "{found}");
    assert!(found["flights_sent_again"].as_u64() > Some(10), "{found}");
    assert!(seen.opened >= 40 && seen.said.len() >= 40);
}

#[tokio::test]
async fn records_are_answered_within_their_window() {
    let line =
        format!("--key {KEY} --answered --size 10 records --sessions 3 --window 2 --seconds 1 --warmup 0");
    let (found, seen) = against_stand_in(&line).await;
    let found = found.unwrap();
    let records = usize::try_from(found["records"].as_u64().unwrap()).unwrap();
    assert!(records > 50 && (records..=records + 6).contains(&seen.said.len()), "{found}");
    assert!(seen.said.iter().all(|said| said == "xxxxxxxxxx"));
    assert_eq!((found["records_lost"].as_u64(), seen.closed), (Some(0), 3), "{found}");
}

#[tokio::test]
async fn records_that_nobody_answers_are_counted_too() {
    let line = format!("--key {KEY} records --sessions 2 --seconds 1 --warmup 0");
    let (found, seen) = against_stand_in(&line).await;
    let found = found.unwrap();
    assert!(found["records"].as_u64() > Some(50) && found["answered"] == false, "{found}");
    assert!(seen.said.len() > 50);
}

#[tokio::test]
async fn idle_sessions_are_held_and_let_go() {
    let me = std::process::id();
    let line = format!("--key {KEY} --pid {me} idle --sessions 30 --hold 0");
    let (found, seen) = against_stand_in(&line).await;
    let found = found.unwrap();
    assert_eq!(found["sessions"], 30, "{found}");
    assert!(found["bytes_per_session"].is_u64(), "{found}");
    assert_eq!((seen.opened, seen.said.len(), seen.closed), (30, 30, 30));
}

#[tokio::test]
async fn a_wrong_key_and_nobody_there_are_errors() {
    let line = "--key 00 --patience 1 handshakes --count 2";
    let (found, seen) = against_stand_in(line).await;
    assert!(found.unwrap_err().contains("no handshake"));
    assert_eq!(seen.opened, 0);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = socket.local_addr().unwrap();
    drop(socket);
    let error = settings(&format!("--server {server} --patience 1 idle --sessions 2"))
        .run(Progress::new(false, true))
        .await
        .unwrap_err();
    assert!(error.contains(&server.to_string()), "{error}");
}
