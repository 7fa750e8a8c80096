//! Reading a stream: all of it, or an error. A part of it is never taken for the whole.

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use landfall_event::Stream;
use landfall_nats::{History, Since};
use landfall_testkit::wait::{PATIENCE, within};
use landfall_testkit::{Mode, NatsServer, Proxy};

use crate::support::{Fleet, make_streams, target};

const MESSAGES: u64 = 3_000;

/// A stream with many messages, and a way to it.
async fn written() -> (NatsServer, Proxy) {
    let nats = NatsServer::start().await;
    make_streams(&nats.url()).await;
    let fleet = Fleet::start(&nats.url()).await;
    for seq in 1..=MESSAGES {
        drop(fleet.submit(1, seq, Bytes::from_static(b"x")));
    }
    fleet.reaches(MESSAGES).await;
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 21).await;
    (nats, proxy)
}

/// Reads all, and sets the mode in the middle; how much was seen, and whether it was all.
async fn read(client: Client, proxy: &Proxy, mode: Mode) -> (u64, bool) {
    let mut seen = 0;
    let history = History::new(client);
    let reading = history.read(Stream::Messages, Since::Behind(0), u64::MAX - 1, |_, _| {
        seen += 1;
        if seen == 600 {
            proxy.set(mode);
        }
    });
    let whole = within(PATIENCE, "the end of the reading", reading).await.is_ok();
    (seen, whole)
}

#[tokio::test]
async fn a_reading_ends_with_the_stream() {
    let (_nats, proxy) = written().await;
    let client = target(&format!("nats://{}", proxy.address())).client().await.expect("a client");
    assert_eq!(read(client, &proxy, Mode::Pass).await, (MESSAGES, true));
}

#[tokio::test]
async fn a_server_that_falls_silent_ends_a_reading_with_an_error() {
    let (_nats, proxy) = written().await;
    let client = target(&format!("nats://{}", proxy.address())).client().await.expect("a client");
    let (seen, whole) = read(client, &proxy, Mode::Stall).await;
    assert!(seen < MESSAGES && !whole, "{seen} of {MESSAGES}, whole: {whole}");
}

/// A client that does not connect again ends its subscriptions, as a stream that has ended does.
#[tokio::test]
async fn a_connection_that_is_lost_for_good_ends_a_reading_with_an_error() {
    let (_nats, proxy) = written().await;
    let options = ConnectOptions::new().max_reconnects(1);
    let client = options.connect(format!("nats://{}", proxy.address())).await.expect("a client");
    let (seen, whole) = read(client, &proxy, Mode::Cut).await;
    assert!(seen < MESSAGES && !whole, "{seen} of {MESSAGES}, whole: {whole}");
}
