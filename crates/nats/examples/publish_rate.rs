//! Measures how many publications a second a `Publisher` gets stored: bodies of 450 bytes, the file stream of the
//! messages, a window of 4,096, submitters that wait for room as listeners do.
//!
//! `cargo run --release -p landfall-nats --example publish_rate -- nats://127.0.0.1:4222 1000000`

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use landfall_event::subject::{stream_name, stream_subjects};
use landfall_event::{EventId, SessionId, Stream};
use landfall_hub::{Bus, Publication, Receipt};
use landfall_nats::{ConnectSettings, Publisher, PublisherSettings, Target};
use landfall_net::Scope;
use tokio::sync::Semaphore;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("say where NATS is")?;
    let count: u64 = arguments.next().unwrap_or_else(|| "500000".into()).parse()?;
    let target = Target::new(ConnectSettings { urls: vec![url], ..ConnectSettings::default() })?;
    let client = target.client().await?;
    let js = async_nats::jetstream::new(client.clone());
    js.get_or_create_stream(async_nats::jetstream::stream::Config {
        name: stream_name(Stream::Messages).to_owned(),
        subjects: stream_subjects(Stream::Messages).iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    })
    .await?;

    let scope = Scope::new();
    let publisher = Publisher::start(&scope, target, client, PublisherSettings::default());
    let subject = stream_subjects(Stream::Messages).first().ok_or("a subject")?;
    let subject: Arc<str> = subject.replace('*', "rate").replace('>', "upstream").into();
    let session = SessionId::new(u64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_millis())?, rand_bytes());
    let body = Bytes::from(vec![b'x'; 450]);
    let window = Arc::new(Semaphore::new(4096));
    let start = Instant::now();
    for seq in 1..=count {
        let permit = Arc::clone(&window).acquire_owned().await?;
        publisher.submit(Publication {
            stream: Stream::Messages,
            subject: Arc::clone(&subject),
            id: EventId::Session(session, Stream::Messages, seq),
            headers: Vec::new(),
            body: body.clone(),
            receipt: Receipt::unheard(Some(permit)),
        });
    }
    publisher.close(Duration::from_secs(60)).await;
    let took = start.elapsed();
    let rate = count as f64 / took.as_secs_f64();
    println!("{:?}", publisher.stats());
    println!("{count} stored in {took:.2?}: {rate:.0} a second");
    Ok(())
}

fn rand_bytes() -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    bytes
}
