//! The hub against a bus in memory: the order and the exactness of what it publishes.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use landfall_event::{
    Dropped, Epoch, Gap, IdentifiedBy, Incarnation, Origin, Reason, RefusedCause, SessionId, Transport,
};
use landfall_hub::memory::MemoryBus;
use landfall_hub::{
    Acl, Adopted, Attempt, CommandRequest, Hello, Hub, HubConfig, Mail, OpenError, Principal, Protocol,
    SessionHandle, Uplink, Will,
};
use landfall_net::Scope;
use prometheus_client::registry::Registry;
use serde_json::Value;

struct World {
    bus: Arc<MemoryBus>,
    hub: Arc<Hub>,
}

fn world(change: impl FnOnce(&mut HubConfig)) -> World {
    let origin = Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: Incarnation::new(1, [7; 10]),
    };
    let mut config = HubConfig::new(origin);
    change(&mut config);
    let bus = Arc::new(MemoryBus::default());
    let hub = Hub::new(config, Arc::clone(&bus) as _, &mut Registry::default());
    World { bus, hub }
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
        transport: Transport::Mqtt,
        protocol: Protocol::Mqtt5,
        remote_id: device.into(),
        remote_address: ([127, 0, 0, 1], 4000).into(),
        keep_alive_ms: None,
        on_silence: Reason::KeepAliveTimeout,
        inferred: false,
        clean_start: Some(true),
        will: None,
    }
}

fn uplink(topic: &str) -> Uplink {
    Uplink {
        topic: topic.into(),
        qos: Some(1),
        retain: false,
        content_type: None,
        properties: Vec::new(),
        publish: None,
        payload: Bytes::from_static(b"21.5"),
    }
}

fn request(device: &str) -> CommandRequest {
    CommandRequest {
        tenant: "default".parse().unwrap(),
        device: device.parse().unwrap(),
        id: Some("c1".into()),
        name: Some("reboot".into()),
        ttl: None,
        wait: None,
        topic: None,
        content_type: None,
        correlation_data: None,
        payload: Bytes::from_static(b"now"),
        reply: Some("_INBOX.me".into()),
    }
}

impl World {
    fn events(&self) -> Vec<Value> {
        // What the gateway keeps of a will is no event.
        let events = self.bus.stored().into_iter().filter(|stored| stored.subject.starts_with("kaa."));
        events.map(|stored| serde_json::from_slice(&stored.body).unwrap()).collect()
    }

    /// Types, and the reasons and outcomes where there are any.
    fn story(&self) -> Vec<String> {
        let word = |event: &Value| {
            let more = event.get("reason").or(event.get("outcome")).or(event.get("topic"));
            let kind = event["type"].as_str().unwrap();
            more.map_or(kind.to_owned(), |more| format!("{kind} {}", more.as_str().unwrap()))
        };
        self.events().iter().map(word).collect()
    }
}

impl World {
    /// Sessions that ended for `reason`, one by one or many in one event.
    fn ended(&self, reason: &str) -> usize {
        let events = self.events();
        let alone = events.iter().filter(|e| e["type"] == "disconnected");
        let each = |e: &Value| match e["sessions"].as_array() {
            Some(many) => many.iter().filter(|one| one["reason"] == reason).count(),
            None => usize::from(e["reason"] == reason),
        };
        alone.map(each).sum()
    }
}

async fn mail(handle: &SessionHandle) -> Mail {
    std::future::poll_fn(|cx| handle.poll_mail(cx, true)).await
}

#[tokio::test(start_paused = true)]
async fn a_session_is_one_connected_and_one_disconnected() {
    let w = world(|_| {});
    let handle = w.hub.open(hello("pump")).await.unwrap();
    let permit = handle.try_admit(4).unwrap();
    handle.upstream(uplink("t"), Some(9), permit).unwrap();
    assert!(matches!(mail(&handle).await.settled.as_slice(), [(9, Ok(()))]));
    handle.close(Reason::ClientClosed);
    assert_eq!(w.story(), ["connected", "upstream t", "disconnected client-closed"]);
    let events = w.events();
    assert_eq!(events.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!((&events[2]["messagesIn"], &events[2]["bytesIn"]), (&1.into(), &4.into()));
    assert_eq!(w.hub.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_ends_its_session_once() {
    let w = world(|_| {});
    drop(w.hub.open(hello("pump")).await.unwrap());
    assert_eq!(w.story(), ["connected", "disconnected connection-lost"]);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_ends_the_old_session_first_and_its_late_close_is_nothing() {
    let w = world(|_| {});
    let first = w.hub.open(hello("pump")).await.unwrap();
    let second = w.hub.open(hello("pump")).await.unwrap();
    assert_eq!(mail(&first).await.ended, Some(Reason::TakenOver));
    let permit = first.try_admit(1).unwrap();
    assert_eq!(first.upstream(uplink("late"), None, permit), Err(Reason::TakenOver));
    first.close(Reason::ConnectionLost);
    assert_eq!(w.story(), ["connected", "disconnected taken-over", "connected"]);
    let events = w.events();
    assert!(events[2]["epoch"].as_u64() > events[0]["epoch"].as_u64());
    assert_eq!(w.hub.session_count(), 1);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn connected_is_stored_before_open_returns() {
    let w = world(|_| {});
    w.bus.set_away(true);
    let opening = tokio::time::timeout(Duration::from_secs(5), w.hub.open(hello("pump"))).await;
    assert!(opening.is_err());
    w.bus.set_away(false);
    assert!(w.events().is_empty(), "a device that was never let in leaves no event");
    assert!(w.hub.open(hello("pump")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_not_the_networks_doing() {
    let w = world(|_| {});
    w.bus.set_stalled(true);
    let opening = tokio::time::timeout(Duration::from_secs(5), w.hub.open(hello("pump"))).await;
    assert!(opening.is_err(), "the device is told no");
    w.bus.set_stalled(false);
    assert_eq!(w.story(), ["connected", "disconnected not-admitted"]);
    assert_eq!(w.events()[1]["initiator"], "gateway");
}

/// Believes nobody any more.
#[derive(Debug)]
struct Withdrawn;

impl landfall_hub::Authenticator for Withdrawn {
    fn authenticate<'a>(
        &'a self,
        _: &'a landfall_hub::Credentials,
    ) -> landfall_hub::BoxFuture<'a, Result<landfall_hub::Principal, landfall_hub::AuthError>> {
        Box::pin(async { Err(landfall_hub::AuthError::Unavailable) })
    }

    fn psk<'a>(
        &'a self,
        _: &'a landfall_hub::Credentials,
    ) -> landfall_hub::BoxFuture<
        'a,
        Result<(landfall_hub::Secret, landfall_hub::Principal), landfall_hub::AuthError>,
    > {
        Box::pin(async { Err(landfall_hub::AuthError::Unavailable) })
    }

    fn still_holds(
        &self,
        _: &landfall_event::TenantId,
        _: &landfall_event::DeviceId,
        _: &Arc<landfall_hub::Acl>,
    ) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_withdrawn_begin_no_session() {
    let w = world(|_| {});
    let there = w.hub.open(hello("pump")).await.unwrap();
    w.hub.set_authenticator(Arc::new(Withdrawn));
    assert_eq!(w.hub.open(hello("pump")).await.err(), Some(OpenError::Withdrawn));
    assert_eq!(w.story(), ["connected"], "and who is there is not taken over");
    drop(there);
}

#[tokio::test(start_paused = true)]
async fn epochs_rise_above_what_was_stored_before() {
    let floor = 1 << 52;
    let w = world(|_| {});
    w.hub.raise_epoch(Epoch(floor));
    let handle = w.hub.open(hello("pump")).await.unwrap();
    assert!(handle.epoch().0 > floor);
}

/// Its devices may go to another replica next, whose clock says no more than the time.
#[tokio::test(start_paused = true)]
async fn a_crowd_does_not_make_epochs_run_ahead_of_the_clock() {
    let w = world(|_| {});
    let micros = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    for n in 0..2_000 {
        let before = micros();
        let handle = w.hub.open(hello(&format!("d{n}"))).await.unwrap();
        let epoch = u128::from(handle.epoch().0);
        assert!((before..=micros() + 2).contains(&epoch), "{before} {epoch}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_before_disconnected_unless_it_is_taken_back() {
    let w = world(|_| {});
    let will = Some(Will { uplink: uplink("gone"), delay_ms: 0 });
    drop(w.hub.open(Hello { will: will.clone(), ..hello("a") }).await.unwrap());
    let polite = w.hub.open(Hello { will, ..hello("b") }).await.unwrap();
    polite.discard_will();
    polite.close(Reason::ClientClosed);
    let story = w.story();
    assert_eq!(&story[..3], ["connected", "upstream gone", "disconnected connection-lost"]);
    assert_eq!(&story[3..], ["connected", "disconnected client-closed"]);
    assert_eq!(w.events()[1]["will"], true);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_will_waits_for_the_device_to_come_back() {
    let w = world(|_| {});
    let scope = Scope::new();
    w.hub.start(&scope);
    let with_will = |device: &str| Hello {
        will: Some(Will { uplink: uplink("gone"), delay_ms: 5_000 }),
        clean_start: Some(false),
        ..hello(device)
    };
    drop(w.hub.open(with_will("back-in-time")).await.unwrap());
    drop(w.hub.open(with_will("too-late")).await.unwrap());
    let back = w.hub.open(Hello { clean_start: Some(false), ..hello("back-in-time") }).await.unwrap();
    assert_eq!(w.story().iter().filter(|word| word.starts_with("upstream")).count(), 0);
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    let wills: Vec<_> = w.events().into_iter().filter(|e| e["type"] == "upstream").collect();
    assert_eq!(wills.iter().map(|e| e["endpointId"].as_str().unwrap()).collect::<Vec<_>>(), ["too-late"]);
    drop(back);
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_and_a_held_one_is_not_silent() {
    let w = world(|_| {});
    let scope = Scope::new();
    w.hub.start(&scope);
    let silent = Hello { keep_alive_ms: Some(1_500), ..hello("silent") };
    let silent = w.hub.open(silent).await.unwrap();
    silent.hold(false);
    let held = w.hub.open(Hello { keep_alive_ms: Some(1_500), ..hello("held") }).await.unwrap();
    held.hold(true);
    let from = tokio::time::Instant::now();
    assert_eq!(mail(&silent).await.ended, Some(Reason::KeepAliveTimeout));
    let took = from.elapsed();
    assert!(took >= Duration::from_millis(1_500) && took <= Duration::from_millis(1_700), "{took:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(w.hub.session_count(), 1);
    held.hold(false);
    assert_eq!(mail(&held).await.ended, Some(Reason::KeepAliveTimeout));
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stood_still_blames_nobody_for_it() {
    let w = world(|_| {});
    let scope = Scope::new();
    w.hub.start(&scope);
    let device = w.hub.open(Hello { keep_alive_ms: Some(30_000), ..hello("pump") }).await.unwrap();
    device.hold(false);
    tokio::time::sleep(Duration::from_secs(20)).await;
    // No tick runs while the clock jumps.
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(w.hub.session_count(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(mail(&device).await.ended, Some(Reason::KeepAliveTimeout));
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_window_waits_for_the_store() {
    let w = world(|config| config.window_bytes = 2_000);
    let handle = w.hub.open(hello("pump")).await.unwrap();
    w.bus.set_away(true);
    for _ in 0..3 {
        let permit = handle.try_admit(4).unwrap();
        handle.upstream(uplink("t"), None, permit).unwrap();
    }
    assert!(handle.try_admit(4).is_none());
    let waiting = handle.admit(4);
    w.bus.set_away(false);
    drop(waiting.await);
    assert!(handle.try_admit(1 << 20).is_some(), "a message larger than the window costs all of it");
}

#[tokio::test(start_paused = true)]
async fn every_command_has_one_outcome_that_is_told_when_it_is_stored() {
    let w = world(|_| {});
    let handle = w.hub.open(hello("pump")).await.unwrap();
    w.hub.command(request("pump"));
    let command = mail(&handle).await.command.unwrap();
    assert_eq!((command.id.as_str(), command.name.as_str()), ("c1", "reboot"));
    assert!(w.bus.replies().is_empty());
    w.bus.set_away(true);
    handle.sent(&command.id, 3, true);
    assert!(w.bus.replies().is_empty());
    w.bus.set_away(false);
    handle.acknowledged(&command.id);
    assert_eq!(w.story()[1..], ["downstream delivered"]);
    let [(to, body)] = w.bus.replies().try_into().unwrap();
    assert_eq!((to.as_str(), &body), ("_INBOX.me", &w.bus.stored()[1].body));
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_what_its_requester_asked_for() {
    let w = world(|_| {});
    let handle = w.hub.open(hello("pump")).await.unwrap();
    let send = |id: &str, wait: &str| {
        w.hub.command(CommandRequest { id: Some(id.into()), wait: Some(wait.into()), ..request("pump") });
    };
    send("ack", "acknowledged");
    send("ans", "answered");
    send("mute", "acknowledged");
    for can_acknowledge in [true, true, false] {
        let command = mail(&handle).await.command.unwrap();
        handle.sent(&command.id, 3, can_acknowledge);
        handle.acknowledged(&command.id);
    }
    let permit = handle.try_admit(2).unwrap();
    handle
        .answered(&"ans".parse().unwrap(), ("200".into(), Bytes::from_static(b"ok")), (Some(4), permit))
        .unwrap();
    assert!(matches!(mail(&handle).await.settled.as_slice(), [(4, Ok(()))]));
    let outcomes = ["downstream acknowledged", "downstream delivered", "downstream answered"];
    assert_eq!(w.story()[1..], outcomes);
    assert_eq!(
        (w.events()[3]["status"].as_str(), w.events()[3]["response"].as_str()),
        (Some("200"), Some("ok"))
    );
    let permit = handle.try_admit(2).unwrap();
    let late = handle.answered(&"ans".parse().unwrap(), ("200".into(), Bytes::new()), (None, permit));
    assert!(late.is_err(), "an answer to nothing is an ordinary message");
}

#[tokio::test(start_paused = true)]
async fn commands_expire_fail_and_are_turned_away() {
    let w = world(|config| config.commands_per_session = 2);
    let scope = Scope::new();
    w.hub.start(&scope);
    w.hub.command(request("nobody"));
    let handle = w.hub.open(hello("pump")).await.unwrap();
    let command = |id: &str, ttl: &str| CommandRequest {
        id: Some(id.into()),
        ttl: Some(ttl.into()),
        ..request("pump")
    };
    w.hub.command(command("1", "60000"));
    w.hub.command(command("1", "60000"));
    w.hub.command(command("2", "0"));
    w.hub.command(command("3", "60000"));
    w.hub.command(CommandRequest { name: Some("a/b".into()), ..command("4", "60000") });
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(handle);
    let story: Vec<_> = w.story().into_iter().filter(|word| word.starts_with("downstream")).collect();
    let expected = ["not-connected", "rejected", "busy", "rejected", "expired", "failed"];
    assert_eq!(story, expected.map(|outcome| format!("downstream {outcome}")));
    assert_eq!(w.story().last().unwrap(), "disconnected connection-lost");
    assert_eq!(w.bus.replies().len(), expected.len());
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_are_coalesced() {
    let w = world(|_| {});
    let scope = Scope::new();
    w.hub.start(&scope);
    for port in 1..=100 {
        let remote = ([127, 0, 0, 9], port).into();
        w.hub.refused(&Attempt::new(RefusedCause::Malformed, Transport::Mqtt, remote));
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    let counts: Vec<_> = w.events().iter().map(|e| e["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 99]);
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn draining_ends_every_session_and_lets_nobody_in() {
    let w = world(|_| {});
    let mut handles = Vec::new();
    for n in 0..20 {
        handles.push(w.hub.open(hello(&format!("d{n}"))).await.unwrap());
    }
    let scope = Scope::new();
    w.hub.announce(&scope).await.unwrap();
    w.hub.drain().await.unwrap();
    let story = w.story();
    assert_eq!(w.ended("gateway-draining"), 20);
    assert_eq!(story.last().unwrap(), "leave");
    assert_eq!(mail(&handles[0]).await.ended, Some(Reason::GatewayDraining));
    assert_eq!(w.hub.open(hello("late")).await.err(), Some(OpenError::Draining));
    drop(handles);
    assert_eq!(w.story().len(), story.len());
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connected_that_is_refused_for_good_leaves_no_disconnected() {
    let w = world(|_| {});
    w.bus.refuse_next();
    let will = Some(Will { uplink: uplink("gone"), delay_ms: 0 });
    assert_eq!(w.hub.open(Hello { will, ..hello("pump") }).await.err(), Some(OpenError::NotStored));
    assert!(w.events().is_empty());
    assert_eq!(w.hub.session_count(), 0);
    assert!(w.hub.open(hello("pump")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_settled_command_leaves_nothing_behind_and_its_id_may_come_again() {
    let w = world(|_| {});
    let scope = Scope::new();
    w.hub.start(&scope);
    let handle = w.hub.open(hello("pump")).await.unwrap();
    for _ in 0..3 {
        w.hub.command(CommandRequest { ttl: Some("500".into()), ..request("pump") });
        let command = mail(&handle).await.command.unwrap();
        assert!(handle.is_under_way(&command.id));
        handle.sent(&command.id, 3, true);
        assert!(!handle.is_under_way(&command.id));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(w.story()[1..], ["downstream delivered"; 3]);
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waited_is_adopted_once_and_never_by_an_ended_session() {
    let w = world(|_| {});
    let handle = w.hub.open(hello("pump")).await.unwrap();
    w.hub.command(request("pump"));
    let command = mail(&handle).await.command.unwrap();
    assert_eq!(handle.adopt(&command), Adopted::Duplicate);
    handle.sent(&command.id, 3, true);
    assert_eq!(handle.adopt(&command), Adopted::UnderWay);
    handle.close(Reason::ClientClosed);
    assert_eq!(handle.adopt(&command), Adopted::Ended);
    assert_eq!(w.story()[1..], ["downstream delivered", "downstream failed", "disconnected client-closed"]);
}

#[tokio::test(start_paused = true)]
async fn limits_and_operators() {
    let w = world(|config| config.max_sessions = 2);
    let a = w.hub.open(hello("a")).await.unwrap();
    let b = w.hub.open(hello("b")).await.unwrap();
    assert_eq!(w.hub.open(hello("c")).await.err(), Some(OpenError::Full));
    let again = w.hub.open(hello("a")).await;
    assert!(again.is_ok(), "a takeover needs no further place");
    assert_eq!(w.hub.kick(&"default".parse().unwrap(), &"b".parse().unwrap()), 1);
    assert_eq!(mail(&b).await.ended, Some(Reason::Kicked));
    assert_eq!(w.hub.sessions(10, |_| true).len(), 1);
    assert_eq!(w.hub.revoke(|_, _, _| false), 1);
    assert_eq!(w.story().last().unwrap(), "disconnected credentials-revoked");
    drop((a, again));
}

#[tokio::test]
async fn many_gaps_are_told_in_as_many_events_as_fit_into_nats() {
    let World { bus, hub } = world(|_| {});
    let gap = |n| Gap { session: SessionId::new(n, [3; 10]), from: u64::MAX - 1, to: u64::MAX };
    hub.tell_dropped(Dropped { sessions: 7, messages: 18_002, gaps: (0..9_001).map(gap).collect() });
    let told = bus.stored();
    assert!(
        told.iter().all(|event| event.body.len() < 512 << 10),
        "NATS takes 1 MiB, and less where it is told to"
    );
    let told: Vec<Value> = told.iter().map(|event| serde_json::from_slice(&event.body).unwrap()).collect();
    let sum = |field: &str| told.iter().map(|event| event[field].as_u64().unwrap()).sum::<u64>();
    let gaps: usize = told.iter().map(|event| event["gaps"].as_array().unwrap().len()).sum();
    assert_eq!((sum("sessions"), sum("messages"), gaps), (7, 18_002, 9_001));
    hub.tell_dropped(Dropped { sessions: 1, messages: 0, gaps: Vec::new() });
    assert_eq!(bus.stored().len(), told.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn before_anybody_is_let_in_no_session_begins_and_nothing_is_told() {
    let w = world(|_| {});
    let scope = Scope::new();
    w.hub.keep_out();
    w.hub.start(&scope);
    let began = tokio::time::Instant::now();
    assert_eq!(w.hub.open(hello("d")).await.unwrap_err(), OpenError::Away);
    assert!(!w.hub.takes_sessions());
    assert_eq!(began.elapsed(), Duration::ZERO, "told at once");
    for port in 1..=100 {
        w.hub.refused(&Attempt::new(RefusedCause::Malformed, Transport::Mqtt, ([127, 0, 0, 9], port).into()));
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(w.events().is_empty(), "{:?}", w.story());
    w.hub.let_in();
    let handle = w.hub.open(hello("d")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let counts: Vec<_> = w.events().iter().filter_map(|e| e["count"].as_u64()).collect();
    assert_eq!(counts, [100], "what was refused meanwhile is told with its number");
    assert_eq!(w.story().first().unwrap(), "connected");
    drop(handle);
    scope.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_never_let_anybody_in_has_nothing_to_tell_at_its_end() {
    let w = world(|_| {});
    w.hub.keep_out();
    w.hub.refused(&Attempt::new(RefusedCause::Malformed, Transport::Mqtt, ([127, 0, 0, 9], 1).into()));
    w.hub.drain().await.unwrap();
    assert!(w.events().is_empty(), "{:?}", w.story());
}
