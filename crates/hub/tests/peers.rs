//! Sessions of devices that never connect, against a bus in memory and in virtual time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use landfall_event::{Family, IdentifiedBy, Incarnation, Origin, Reason, Stream, Transport};
use landfall_hub::memory::MemoryBus;
use landfall_hub::{
    Acl, Bus, CommandRequest, Hello, Hub, HubConfig, News, OpenError, PeerHandle, Post, Principal, Protocol,
    Publication, StoreError, Uplink,
};
use landfall_net::Scope;
use landfall_session::{Patience, Terms};
use prometheus_client::registry::Registry;
use serde_json::Value;

struct World {
    bus: Arc<MemoryBus>,
    hub: Arc<Hub>,
    post: Arc<Post>,
    scope: Scope,
}

fn origin() -> Origin {
    Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: Incarnation::new(1, [7; 10]),
    }
}

fn world(change: impl FnOnce(&mut HubConfig)) -> World {
    let mut config = HubConfig::new(origin());
    change(&mut config);
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::new(config, Arc::clone(&bus) as _, &mut Registry::default());
    let scope = Scope::new();
    hub.start(&scope);
    World { bus, hub, post: Post::new(), scope }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn hello(device: &str) -> Hello {
    let principal = Principal {
        tenant: "default".parse().unwrap(),
        device: device.parse().unwrap(),
        identified_by: IdentifiedBy::Anonymous,
        app_version: "".into(),
        acl: Arc::new(Acl::default()),
        keep_alive: None,
    };
    Hello {
        principal,
        transport: Transport::Udp,
        protocol: Protocol::Udp,
        remote_id: device.into(),
        remote_address: at(4000),
        keep_alive_ms: None,
        on_silence: Reason::IdleTimeout,
        inferred: true,
        clean_start: None,
        will: None,
    }
}

fn uplink(payload: &'static str) -> Uplink {
    Uplink {
        topic: "".into(),
        qos: None,
        retain: false,
        content_type: None,
        properties: Vec::new(),
        publish: None,
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

fn request(device: &str, id: &str, ttl_ms: u64) -> CommandRequest {
    CommandRequest {
        tenant: "default".parse().unwrap(),
        device: device.parse().unwrap(),
        id: Some(id.into()),
        name: Some("reboot".into()),
        ttl: Some(ttl_ms.to_string()),
        wait: None,
        topic: None,
        content_type: None,
        correlation_data: None,
        payload: Bytes::from_static(b"now"),
        reply: None,
    }
}

impl World {
    fn begin(&self, device: &str) -> PeerHandle {
        self.hub.begin_inferred(hello(device), [0; 2], &self.post, false).unwrap()
    }

    fn peer(&self, device: &str) -> Option<PeerHandle> {
        self.hub.peer(&"default".parse().unwrap(), &device.parse().unwrap(), Family::Udp)
    }

    fn events(&self) -> Vec<Value> {
        self.bus.stored().iter().map(|stored| serde_json::from_slice(&stored.body).unwrap()).collect()
    }

    /// Types and numbers of the connectivity events.
    fn presence(&self) -> Vec<(String, u64)> {
        let about = |e: &Value| e["type"] != "upstream" && e["type"] != "downstream";
        let word = |e: Value| (e["type"].as_str().unwrap().to_owned(), e["seq"].as_u64().unwrap());
        self.events().into_iter().filter(about).map(word).collect()
    }

    fn last(&self) -> Value {
        self.events().pop().unwrap()
    }

    /// What is in the box now.
    async fn news(&self) -> Vec<News> {
        let mut news = Vec::new();
        std::future::poll_fn(|cx| {
            let _ = self.post.poll(cx, &mut news);
            Poll::Ready(())
        })
        .await;
        news
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_an_inferred_session_once_and_never_early() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    let peer = w.begin("meter");
    let permit = peer.try_admit(3).unwrap();
    peer.upstream(uplink("on"), Some(5), permit).unwrap();
    pass(20).await;
    peer.heard_from(at(4000), &w.post).unwrap();
    pass(29).await;
    assert!(!peer.is_over(), "a word starts the silence anew");
    pass(2).await;
    assert!(peer.is_over() && w.peer("meter").is_none());
    let events = w.events();
    assert_eq!(
        (&events[0]["type"], &events[0]["inferred"], &events[0]["keepAliveMs"]),
        (&"connected".into(), &true.into(), &30_000.into())
    );
    let end = &events[2];
    assert_eq!((&end["reason"], &end["inferred"]), (&"idle-timeout".into(), &true.into()));
    assert_eq!(end["messagesIn"], 1);
    let News::Settled { token: 5, result: Ok(()) } = &w.news().await[0] else { panic!("the token is told") };
    assert_eq!(peer.heard_from(at(4000), &w.post), Err(Reason::IdleTimeout));
    assert_eq!(peer.upstream(uplink("late"), None, peer.try_admit(4).unwrap()), Err(Reason::IdleTimeout));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn many_ends_at_once_are_few_events_and_each_session_is_in_one() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    for n in 0..2_000 {
        w.begin(&format!("d{n}"));
    }
    pass(31).await;
    let ends: Vec<_> = w.events().into_iter().filter(|e| e["type"] == "disconnected").collect();
    assert!(ends.len() <= 48, "{} events for 2,000 ends", ends.len());
    let mut devices: Vec<_> = ends
        .iter()
        .flat_map(|e| e["sessions"].as_array().map_or(std::slice::from_ref(e), Vec::as_slice))
        .map(|one| one["endpointId"].as_str().unwrap().to_owned())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    assert_eq!((devices.len(), w.hub.session_count()), (2_000, 0));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_that_the_device_announced_is_its_silence() {
    let w = world(|_| {});
    let peer = w.begin("meter");
    peer.agree(Terms::after(5_000, Reason::LifetimeExpired));
    pass(6).await;
    let end = w.last();
    assert_eq!((&end["reason"], &end["inferred"]), (&"lifetime-expired".into(), &true.into()));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_address_moves_the_session_and_begins_none() {
    let w = world(|_| {});
    let peer = w.begin("meter");
    peer.heard_from(at(4001), &w.post).unwrap();
    peer.heard_from(at(4001), &w.post).unwrap();
    let moved = w.last();
    assert_eq!(
        (&moved["type"], &moved["remoteAddress"], &moved["previousAddress"]),
        (&"moved".into(), &"127.0.0.1:4001".into(), &"127.0.0.1:4000".into())
    );
    peer.close(Reason::ClientClosed);
    let story = [("connected", 1), ("moved", 2), ("disconnected", 3)];
    assert_eq!(w.presence(), story.map(|(word, seq)| (word.to_owned(), seq)));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_announced_sleep_is_silence_that_is_allowed_for() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    let peer = w.begin("meter");
    peer.dormant(600_000);
    assert!(peer.is_asleep());
    pass(629).await;
    assert!(!peer.is_over(), "the sleep, and the usual silence after it");
    peer.heard_from(at(4000), &w.post).unwrap();
    assert!(!peer.is_asleep());
    pass(31).await;
    assert!(peer.is_over(), "awake, the usual silence holds again");
    let story = [("connected", 1), ("dormant", 2), ("awake", 3), ("disconnected", 4)];
    assert_eq!(w.presence(), story.map(|(word, seq)| (word.to_owned(), seq)));
    let dormant = &w.events()[1];
    assert_eq!(dormant["sleepMs"], 600_000);
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sleeper_that_does_not_wake_is_gone_after_its_sleep_and_its_silence() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    let peer = w.begin("meter");
    peer.dormant(60_000);
    pass(91).await;
    assert!(peer.is_over());
    assert_eq!(w.last()["reason"], "idle-timeout");
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_commands_once_and_takes_them_in_order() {
    let w = world(|_| {});
    let peer = w.begin("meter");
    w.hub.command(request("meter", "c1", 60_000));
    w.hub.command(request("meter", "c2", 60_000));
    let news = w.news().await;
    assert!(matches!(&news[..], [News::Commands(told)] if told.id() == peer.id()));
    let first = peer.next_command().unwrap();
    peer.put_back(Arc::clone(&first));
    assert!(peer.heard_from(at(4000), &w.post).unwrap().commands);
    for id in ["c1", "c2"] {
        let command = peer.next_command().unwrap();
        assert_eq!(command.id.as_str(), id);
        peer.sent(&command.id, 3, false);
    }
    assert!(peer.next_command().is_none());
    let outcomes: Vec<_> =
        w.events().iter().filter_map(|e| e["outcome"].as_str().map(str::to_owned)).collect();
    assert_eq!(outcomes, ["delivered", "delivered"]);
    w.hub.command(request("meter", "c3", 60_000));
    assert!(
        matches!(&w.news().await[..], [News::Commands(_)]),
        "the box had been emptied, so it is told again"
    );
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_for_a_device_that_fell_silent_waits_for_its_next_word() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    w.begin("meter");
    w.hub.command(request("meter", "before", 3_600_000));
    pass(31).await;
    w.hub.command(request("meter", "after", 3_600_000));
    w.hub.command(request("meter", "short", 1_000));
    w.hub.command(request("stranger", "c9", 3_600_000));
    let outcomes = |w: &World| {
        let word = |e: &Value| Some(format!("{} {}", e["commandId"].as_str()?, e["outcome"].as_str()?));
        w.events().iter().filter_map(word).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&w), ["c9 not-connected"]);
    let again = w.begin("meter");
    assert!(again.heard_from(at(4000), &w.post).unwrap().commands);
    let mut ids = Vec::new();
    while let Some(command) = again.next_command() {
        ids.push(command.id.to_string());
    }
    assert_eq!(ids, ["before", "after", "short"]);
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_sent_may_be_confirmed_after_its_devices_silence() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    let peer = w.begin("meter");
    for (id, wait) in [("got", "acknowledged"), ("told", "answered"), ("unsure", "acknowledged")] {
        w.hub.command(CommandRequest { wait: Some(wait.into()), ..request("meter", id, 3_600_000) });
        let command = peer.next_command().unwrap();
        match id {
            "unsure" => peer.attempted(&command.id, 3),
            _ => peer.sent(&command.id, 3, true),
        }
    }
    pass(31).await;
    assert!(peer.is_over() && w.events().iter().all(|event| event["type"] != "downstream"));
    let again = w.begin("meter");
    let unsent = again.next_command().unwrap();
    assert_eq!((unsent.id.as_str(), again.next_command().is_none()), ("unsure", true));
    again.attempted(&unsent.id, 3);
    for id in ["got", "unsure"] {
        again.acknowledged(&id.parse().unwrap());
        let outcome = w.last();
        assert_eq!((&outcome["commandId"], &outcome["outcome"]), (&id.into(), &"acknowledged".into()));
        assert_eq!(outcome["attempts"], if id == "got" { 1 } else { 2 });
    }
    let permit = again.try_admit(3).unwrap();
    let answer = ("200".into(), Bytes::from_static(b"yes"));
    again.answered(&"told".parse().unwrap(), answer, (None, permit)).unwrap();
    assert_eq!(w.last()["outcome"], "answered");
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_waiting_commands_their_outcome() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    w.begin("meter");
    pass(31).await;
    w.hub.command(request("meter", "c1", 3_600_000));
    w.hub.drain().await.unwrap();
    assert_eq!((&w.last()["outcome"], &w.last()["status"]), (&"not-connected".into(), &"draining".into()));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_watched_session_tells_its_end_and_others_do_not() {
    let w = world(|config| config.idle_timeout = Duration::from_secs(30));
    w.begin("other");
    let peer = w.hub.begin_inferred(hello("meter"), [0; 2], &w.post, true).unwrap();
    pass(31).await;
    let news = w.news().await;
    assert!(matches!(&news[..], [News::Ended(ended, Reason::IdleTimeout)] if ended.id() == peer.id()));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_beginning_joins_and_an_absent_store_begins_nothing() {
    let w = world(|_| {});
    let first = w.begin("meter");
    let second = w.begin("meter");
    assert_eq!(first.id(), second.id(), "two tasks had a word of one device at once");
    assert_eq!(w.presence().len(), 1);
    w.bus.set_away(true);
    let refused = w.hub.begin_inferred(hello("new"), [0; 2], &w.post, false);
    assert_eq!(refused.err(), Some(OpenError::Away));
    second.heard_from(at(4000), &w.post).unwrap();
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_learned_rhythm_ends_a_session_sooner_and_says_why() {
    let w = world(|config| {
        config.idle_timeout = Duration::from_secs(3_600);
        config.adaptive =
            Some(Patience { level: 8.0, least_ms: 5_000, most_ms: 3_600_000, settle_ms: 300_000 });
    });
    let peer = w.begin("meter");
    for n in 0..100 {
        tokio::time::sleep(Duration::from_millis(10_000 + n % 7 * 100)).await;
        peer.heard_from(at(4000), &w.post).unwrap();
    }
    pass(120).await;
    assert!(peer.is_over(), "two minutes of silence from a device that speaks every ten seconds");
    let evidence = &w.last()["evidence"];
    let interval = evidence["intervalMs"].as_u64().unwrap();
    assert!((9_000..12_000).contains(&interval), "{interval}");
    // A rhythm that changes a little is not a reason to set the timer anew: within an eighth of the level's silence.
    assert!(evidence["phi"].as_f64().unwrap() >= 7.0);
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_listener_keeps_its_own_words_with_the_session() {
    let w = world(|_| {});
    let peer = w.hub.begin_inferred(hello("meter"), [7, 9], &w.post, false).unwrap();
    peer.memo(|memo| memo[1] += 1);
    assert_eq!(w.peer("meter").unwrap().memo(|memo| *memo), [7, 10]);
    w.scope.drain(Duration::from_secs(1)).await;
}

/// A bus that stores nothing until it is told to; one that is closed says so at once.
#[derive(Debug, Default)]
struct Slow(Mutex<Vec<Publication>>, AtomicBool);

impl Bus for Slow {
    fn submit(&self, publication: Publication) {
        if self.1.load(Ordering::Relaxed) {
            return publication.receipt.refused(StoreError::Closed);
        }
        self.0.lock().unwrap().push(publication);
    }

    fn reply(&self, _: &str, _: Bytes) {}

    fn is_ready(&self) -> bool {
        true
    }
}

impl Slow {
    /// Stores what waits of one stream, and says what it was.
    fn store(&self, stream: Stream) -> Vec<Value> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        let (now, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.stream == stream);
        *self.0.lock().unwrap() = later;
        let store = |publication: Publication| {
            publication.receipt.stored();
            serde_json::from_slice(&publication.body).unwrap()
        };
        now.into_iter().map(store).collect()
    }
}

fn slow(change: impl FnOnce(&mut HubConfig)) -> (Arc<Slow>, World) {
    let World { hub, bus, post, scope } = world(|_| {});
    let mut config = HubConfig::new(origin());
    change(&mut config);
    drop(hub);
    let slow = Arc::new(Slow::default());
    let hub = Hub::new(config, Arc::clone(&slow) as _, &mut Registry::default());
    hub.start(&scope);
    (slow, World { bus, hub, post, scope })
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_means_that_the_session_is_stored_too() {
    let (bus, w) = slow(|_| {});
    let peer = w.begin("meter");
    peer.upstream(uplink("on"), Some(5), peer.try_admit(2).unwrap()).unwrap();
    assert!(!peer.begun(&w.post, 6));
    assert_eq!(bus.store(Stream::Messages).len(), 1);
    assert!(w.news().await.is_empty(), "the message is stored, its session's beginning is not");
    assert_eq!(bus.store(Stream::Connectivity).len(), 1);
    let told: Vec<_> = w.news().await.into_iter().map(|news| format!("{news:?}")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|news| news.contains("Ok(())")));
    assert!(peer.begun(&w.post, 7));
    assert!(peer.close_with(Reason::ClientClosed, 8));
    assert!(w.news().await.is_empty());
    assert_eq!(bus.store(Stream::Connectivity)[0]["reason"], "client-closed");
    assert!(matches!(w.news().await[..], [News::Settled { token: 8, result: Ok(()) }]));
    assert!(!peer.close_with(Reason::ClientClosed, 9));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_refuses_at_once_holds_nobody_up() {
    let (bus, w) = slow(|_| {});
    let peer = w.begin("meter");
    bus.1.store(true, Ordering::Relaxed);
    peer.upstream(uplink("on"), Some(5), peer.try_admit(2).unwrap()).unwrap();
    assert!(w.news().await.is_empty());
    bus.store(Stream::Connectivity);
    assert!(matches!(w.news().await[..], [News::Settled { token: 5, result: Err(StoreError::Closed) }]));
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_is_refused_for_good_is_tried_again_with_the_next_word() {
    let (bus, w) = slow(|_| {});
    let peer = w.begin("meter");
    peer.upstream(uplink("on"), Some(5), peer.try_admit(2).unwrap()).unwrap();
    for publication in bus.0.lock().unwrap().drain(..) {
        publication.receipt.refused(StoreError::Refused("no".into()));
    }
    assert!(matches!(w.news().await[..], [News::Settled { token: 5, result: Err(_) }]));
    assert!(peer.heard_from(at(4000), &w.post).is_err());
    let again = w.begin("meter");
    assert_ne!(again.id(), peer.id());
    let told = bus.store(Stream::Connectivity);
    assert_eq!(told.len(), 1, "the first one has no end to tell: {told:?}");
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn ends_wait_for_the_store_and_a_device_that_comes_back_tells_its_own_first() {
    let (bus, w) = slow(|config| {
        config.idle_timeout = Duration::from_secs(30);
        config.window_bytes = 400_000;
    });
    for n in 0..4_000 {
        w.begin(&format!("d{n}"));
    }
    bus.store(Stream::Connectivity);
    pass(32).await;
    assert_eq!(w.hub.session_count(), 0, "all are noticed");
    let names = |events: &[Value]| {
        let each = |e: &Value| e["sessions"].as_array().cloned().unwrap_or_else(|| vec![e.clone()]);
        let ends = events.iter().filter(|e| e["type"] == "disconnected").flat_map(each);
        ends.map(|one| one["endpointId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut told = names(&bus.store(Stream::Connectivity));
    assert!(told.len() < 1_000, "{} ends are on their way at once", told.len());
    let missing = (0..4_000).map(|n| format!("d{n}")).find(|name| !told.contains(name)).unwrap();
    w.begin(&missing);
    let next = bus.store(Stream::Connectivity);
    told.extend(names(&next));
    assert!(told.contains(&missing));
    assert_eq!(next.last().unwrap()["type"], "connected", "after its own end");
    for _ in 0..100 {
        pass(1).await;
        told.extend(names(&bus.store(Stream::Connectivity)));
    }
    // The one that came back has fallen silent again.
    assert_eq!(told.iter().filter(|name| **name == missing).count(), 2);
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 4_000);
    w.scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sleep_holds_also_when_it_cannot_be_told() {
    let (bus, w) = slow(|config| {
        config.idle_timeout = Duration::from_secs(30);
        config.window_bytes = 600;
    });
    let peer = w.begin("meter");
    peer.upstream(uplink("on"), None, peer.try_admit(2).unwrap()).unwrap();
    assert!(peer.try_admit(2).is_none());
    peer.dormant(600_000);
    pass(629).await;
    assert!(!peer.is_over());
    peer.heard_from(at(4000), &w.post).unwrap();
    pass(31).await;
    assert!(peer.is_over());
    let kinds: Vec<_> =
        bus.store(Stream::Connectivity).iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["connected", "disconnected"]);
    w.scope.drain(Duration::from_secs(1)).await;
}
