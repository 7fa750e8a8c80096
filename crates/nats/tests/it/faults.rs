//! What a publisher does when its server or the way to it breaks: every receipt is told once, the stream holds each message
//! once, in order per session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_hub::Bus;
use landfall_testkit::NatsServer;
use landfall_testkit::proxy::{Mode, Proxy, Seed};
use landfall_testkit::wait::{PATIENCE, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Fleet, all_stored, assert_whole, make_streams, make_streams_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_started_again() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let publishing = {
        let fleet = Arc::clone(&fleet);
        async move { fleet.publish(8, 2_500, 450).await }
    };
    let killing = async {
        for stored in [2_000, 7_000, 13_000] {
            fleet.reaches(stored).await;
            server.kill();
            fleet.becomes(false).await;
            server.restart().await;
        }
    };
    let (news, ()) = tokio::join!(publishing, killing);
    all_stored(news).await;
    assert_whole(&server.url(), 8, 2_500).await;
    let stats = fleet.publisher.stats();
    assert!(stats.reconnects >= 3, "{stats:?}");
    assert_eq!((stats.stored, stats.refused), (20_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen_and_thawed() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let publishing = {
        let fleet = Arc::clone(&fleet);
        async move { fleet.publish(8, 1_500, 450).await }
    };
    let freezing = async {
        for stored in [1_000, 5_000] {
            fleet.reaches(stored).await;
            server.freeze();
            fleet.becomes(false).await;
            server.thaw();
            fleet.becomes(true).await;
        }
    };
    let (news, ()) = tokio::join!(publishing, freezing);
    all_stored(news).await;
    assert_whole(&server.url(), 8, 1_500).await;
}

/// What was stored without an answer is not stored a second time, even when the stream has forgotten its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_longer_than_the_duplicate_window() {
    const WINDOW: Duration = Duration::from_secs(2);
    let mut server = NatsServer::start().await;
    make_streams_with(&server.url(), WINDOW).await;
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let publishing = {
        let fleet = Arc::clone(&fleet);
        async move { fleet.publish(8, 2_500, 450).await }
    };
    let killing = async {
        for stored in [4_000, 9_000] {
            fleet.reaches(stored).await;
            server.kill();
            // The window is real time in the server: nothing else tells when it is over.
            tokio::time::sleep(WINDOW + Duration::from_millis(500)).await;
            server.restart().await;
        }
    };
    let (news, ()) = tokio::join!(publishing, killing);
    all_stored(news).await;
    assert_whole(&server.url(), 8, 2_500).await;
    let stats = fleet.publisher.stats();
    assert_eq!((stats.stored, stats.refused), (20_000, 0));
}

/// The old connection's bytes arrive beside the new one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_holds_everything_for_longer_than_the_publisher_waits() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let proxy = Proxy::start(address(&server), 1).await;
    let fleet = Arc::new(Fleet::start(&format!("nats://{}", proxy.address())).await);
    let publishing = {
        let fleet = Arc::clone(&fleet);
        async move { fleet.publish(8, 1_500, 450).await }
    };
    let stalling = async {
        for stored in [1_000, 5_000] {
            fleet.reaches(stored).await;
            proxy.set(Mode::Stall);
            fleet.becomes(false).await;
            proxy.set(Mode::Pass);
            fleet.becomes(true).await;
        }
    };
    let (news, ()) = tokio::join!(publishing, stalling);
    all_stored(news).await;
    assert_whole(&server.url(), 8, 1_500).await;
    assert!(fleet.publisher.stats().reconnects >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_breaks_at_any_byte() {
    for seed in [1, 2, 3] {
        let server = NatsServer::start().await;
        make_streams(&server.url()).await;
        let scissors = Scissors::start(address(&server), Seed(seed), 40).await;
        let fleet = Arc::new(Fleet::start(&format!("nats://{}", scissors.address)).await);
        let news = fleet.publish(8, 1_000, 450).await;
        all_stored(news).await;
        assert_whole(&server.url(), 8, 1_000).await;
        let stats = fleet.publisher.stats();
        assert!(stats.reconnects >= 5 && stats.retried > 0, "seed {seed}: {stats:?}");
        assert_eq!(stats.refused, 0, "seed {seed}");
        fleet.publisher.close(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_server_that_comes_late() {
    let mut server = NatsServer::start().await;
    make_streams(&server.url()).await;
    server.kill();
    let fleet = Arc::new(Fleet::start(&server.url()).await);
    let news = fleet.publish(4, 100, 100).await;
    assert!(!fleet.publisher.is_ready());
    assert_eq!(fleet.publisher.stats().queued, 400);
    server.restart().await;
    all_stored(news).await;
    assert_whole(&server.url(), 4, 100).await;
}

/// The library would connect again by itself, silently, and lose what it had not written.
#[tokio::test]
async fn an_idle_connection_that_breaks_is_replaced() {
    let server = NatsServer::start().await;
    make_streams(&server.url()).await;
    let proxy = Proxy::start(address(&server), 1).await;
    let fleet = Fleet::start(&format!("nats://{}", proxy.address())).await;
    assert_eq!(fleet.submit(0, 1, Bytes::new()).await.expect("told"), Ok(()));
    for round in 1..=3 {
        proxy.cut();
        eventually(PATIENCE, "a new connection", async || {
            let stats = fleet.publisher.stats();
            (stats.reconnects == round && fleet.publisher.is_ready()).then_some(())
        })
        .await;
        let news = fleet.submit(0, 1 + round, Bytes::new());
        assert_eq!(within(PATIENCE, "a receipt", news).await.expect("told"), Ok(()));
    }
    assert_whole(&server.url(), 1, 4).await;
}

fn address(server: &NatsServer) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port()))
}

/// A proxy that breaks each connection after a number of bytes drawn anew, so many times; then it passes everything.
struct Scissors {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Scissors {
    async fn start(target: SocketAddr, mut seed: Seed, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            let mut made = 0;
            while let Ok((near, _)) = listener.accept().await {
                made += 1;
                let most = if made <= cuts { 1 + seed.below(300_000) } else { u64::MAX };
                connections.spawn(cut_after(near, target, most));
            }
        });
        Self { address, _task: task }
    }
}

/// Passes `most` bytes from `near` on, everything back, and then breaks both.
async fn cut_after(mut near: TcpStream, target: SocketAddr, most: u64) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    let there = async {
        let mut left = most;
        let mut chunk = [0; 4096];
        while left > 0 {
            let share = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Ok(n @ 1..) = near_in.read(&mut chunk[..share]).await else { break };
            left -= n as u64;
            if far_out.write_all(&chunk[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut far_in, &mut near_out) => {}
    }
}
