//! A million sessions fall silent at once: what the hub alone needs to notice and to tell, on a bus that stores nothing.
//!
//! `cargo run --release -p landfall-hub --example silence [sessions]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for whoever works on the hub")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use landfall_event::{IdentifiedBy, Incarnation, Origin, Reason, Transport};
use landfall_hub::{Acl, Bus, Hello, Hub, HubConfig, Post, Principal, Protocol, Publication};
use landfall_net::Scope;
use prometheus_client::registry::Registry;

#[derive(Debug, Default)]
struct Sink {
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Bus for Sink {
    fn submit(&self, publication: Publication) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(publication.body.len() as u64, Ordering::Relaxed);
        publication.receipt.stored();
    }

    fn reply(&self, _: &str, _: Bytes) {}

    fn is_ready(&self) -> bool {
        true
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn hello(n: u64, acl: &Arc<Acl>) -> Hello {
    let device = format!("device-{n}");
    Hello {
        principal: Principal {
            tenant: "default".parse().unwrap(),
            device: device.parse().unwrap(),
            identified_by: IdentifiedBy::Anonymous,
            app_version: "".into(),
            acl: Arc::clone(acl),
            keep_alive: None,
        },
        transport: Transport::Udp,
        protocol: Protocol::Udp,
        remote_id: device.into(),
        remote_address: ([127, 0, 0, 1], 4000).into(),
        keep_alive_ms: Some(10_000),
        on_silence: Reason::IdleTimeout,
        inferred: true,
        clean_start: None,
        will: None,
    }
}

#[tokio::main]
async fn main() {
    let sessions = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let origin = Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: Incarnation::new(1, [7; 10]),
    };
    let config = HubConfig { max_sessions: usize::MAX, ..HubConfig::new(origin) };
    let sink = Arc::new(Sink::default());
    let hub = Hub::new(config, Arc::clone(&sink) as _, &mut Registry::default());
    let post = Post::new();
    let acl = Arc::new(Acl::default());
    let (begun, before) = (Instant::now(), resident());
    for n in 0..sessions {
        hub.begin_inferred(hello(n, &acl), [0; 2], &post, false).unwrap();
    }
    println!(
        "begun: {:.2} us and {} bytes a session",
        begun.elapsed().as_secs_f64() * 1e6 / sessions as f64,
        (resident() - before) / sessions,
    );
    // All are silent for as long as they may be before the first look.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let (events, bytes) = (sink.events.load(Ordering::Relaxed), sink.bytes.load(Ordering::Relaxed));
    let scope = Scope::new();
    let ended = Instant::now();
    hub.start(&scope);
    while hub.session_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = ended.elapsed();
    println!(
        "ended: {:.2} s, {:.2} us a session, {} events of {} bytes",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / sessions as f64,
        sink.events.load(Ordering::Relaxed) - events,
        sink.bytes.load(Ordering::Relaxed) - bytes,
    );
    scope.drain(Duration::from_secs(1)).await;
}
