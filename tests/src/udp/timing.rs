//! What must happen in time: never early, and at most so late. These have the machine to themselves.

use std::time::{Duration, Instant};

use landfall_testkit::World;
use landfall_testkit::recorder::Seen;
use landfall_testkit::udp::UdpDevice;

use super::{assert_refused, delivered, proven, sessions, story};

/// How late silence may be noticed, by the contract: `presence.tick`, and as much again for a busy machine.
const LATE: Duration = Duration::from_millis(200);

/// Holds that an end came in time, by the gateway's own clock.
fn assert_in_time(event: &Seen, due: Duration) {
    assert_eq!(
        (event.text("reason"), event.text("initiator")),
        ("idle-timeout", "gateway"),
        "{}",
        event.json
    );
    assert_eq!(event.json["inferred"], true);
    assert!(event.json.get("evidence").is_none(), "nothing was learned: {}", event.json);
    let silent = Duration::from_millis(event.number("timestamp") - event.number("lastSeenAt"));
    assert!((due..=due + LATE).contains(&silent), "{silent:?} where {due:?} was due: {}", event.json);
}

#[tokio::test]
async fn silence_ends_a_session_at_one_and_a_half_heartbeats() {
    let world = World::with(|settings| settings.set("presence.idle_timeout", "1s")).await;
    let at = world.gateway.udp();
    let mut heard = Vec::new();
    for (name, words, due) in
        [("hb1", "hb=1", 1_500), ("hb2", "hb=2", 3_000), ("without", "", 1_000), ("again", "hb=1", 3_000)]
    {
        let mut device = UdpDevice::new(at, name).await;
        let before = Instant::now();
        delivered(&mut device, words, "x").await;
        if name == "again" {
            // What was announced last holds; from then on it need not be repeated.
            delivered(&mut device, "hb=2", "").await;
            delivered(&mut device, "", "").await;
        }
        heard.push((name, Duration::from_millis(due), before));
    }
    for (name, due, before) in heard {
        let event = world.recorder.expect_end(name, "udp").await;
        assert_in_time(&event, due);
        // By the device's clock: from before its word to the event.
        let waited = event.at - before;
        assert!(waited >= due, "{name}: {waited:?} is early");
        assert!(waited <= due + LATE + Duration::from_millis(150), "{name}: {waited:?} is late");
        assert_eq!(event.number("messagesIn"), 1);
    }
    assert!(sessions(&world).await.is_empty());
    world.close().await;
}

#[tokio::test]
async fn any_word_is_a_sign_of_life_and_a_copy_is_none() {
    let world = proven().await;
    let mut pump = UdpDevice::new(world.gateway.udp(), "pump").await.signing("of-pump");
    let mut valve = UdpDevice::new(world.gateway.udp(), "valve").await.key("of-valve");
    let thief = UdpDevice::new(world.gateway.udp(), "thief").await;
    let old = pump.datagram("hb=1", "1");
    pump.send_raw(&old).await;
    let newest = pump.datagram("hb=1 ack", "2");
    pump.send_raw(&newest).await;
    assert_eq!(pump.receive_raw().await, b"LF1 ack seq=2");
    let silent_from = Instant::now();
    delivered(&mut valve, "hb=1", "").await;
    let mut wrong = UdpDevice::new(world.gateway.udp(), "pump").await.key("of-valve");
    // Copies, from the device's own address and from elsewhere, and lies in its name, all along.
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let mut rounds = 0;
    while world.recorder.of("disconnected", "pump").is_empty() {
        ticks.tick().await;
        assert!(silent_from.elapsed() < Duration::from_secs(5), "kept alive by copies");
        for copy in [&old, &newest] {
            thief.send_raw(copy).await;
            pump.send_raw(copy).await;
        }
        wrong.send("", "").await;
        delivered(&mut valve, "", "").await;
        rounds += 1;
    }
    let ended = world.recorder.expect_end("pump", "udp").await;
    assert_in_time(&ended, Duration::from_millis(1_500));
    assert_eq!(ended.number("messagesIn"), 2);
    assert_refused(&world, "bad-credentials", rounds * 3).await;
    assert_eq!(story(&world, "pump").await, ["connected", "disconnected"], "and no copy brings it back");
    assert_eq!(story(&world, "valve").await, ["connected"], "any word keeps a device present");
    world.close().await;
}

#[tokio::test]
async fn an_announced_sleep_is_no_silence() {
    let world = World::start().await;
    let at = world.gateway.udp();
    let mut early = UdpDevice::new(at, "early").await;
    let mut never = UdpDevice::new(at, "never").await;
    let mut short = UdpDevice::new(at, "short").await;
    delivered(&mut short, "hb=1", "").await;
    delivered(&mut early, "hb=1 sleep=60", "good night").await;
    delivered(&mut never, "hb=1 sleep=2", "").await;
    let dormant = world.recorder.expect("dormant", "early").await;
    assert_eq!((dormant.number("sleepMs"), dormant.number("seq")), (60_000, 2));
    assert_eq!(dormant.number("wakeBy"), dormant.number("timestamp") + 61_500);
    // One that did not say so is gone long before these two are missed.
    assert_in_time(&world.recorder.expect_end("short", "udp").await, Duration::from_millis(1_500));
    assert_eq!(story(&world, "early").await, ["connected", "dormant"]);
    delivered(&mut early, "", "").await;
    let awake = world.recorder.expect("awake", "early").await;
    let slept = awake.number("timestamp") - dormant.number("timestamp");
    assert!(awake.number("dormantMs").abs_diff(slept) <= 5, "{}", awake.json);
    // Awake, the usual silence holds again, from its word on.
    assert_in_time(&world.recorder.expect_end("early", "udp").await, Duration::from_millis(1_500));
    let missed = world.recorder.expect_end("never", "udp").await;
    assert_in_time(&missed, Duration::from_millis(3_500));
    let wake_by = world.recorder.expect("dormant", "never").await.number("wakeBy");
    let late = missed.number("timestamp").saturating_sub(wake_by);
    assert!(late <= 200, "{late} ms after {wake_by}");
    assert_eq!(story(&world, "early").await, ["connected", "dormant", "awake", "disconnected"]);
    assert_eq!(story(&world, "never").await, ["connected", "dormant", "disconnected"]);
    world.close().await;
}

#[tokio::test]
async fn a_gateway_that_stood_still_gives_everybody_his_time() {
    let world = World::start().await;
    let mut heard = UdpDevice::new(world.gateway.udp(), "heard").await;
    let mut silent = UdpDevice::new(world.gateway.udp(), "silent").await;
    delivered(&mut heard, "hb=1", "").await;
    delivered(&mut silent, "hb=1", "").await;
    world.gateway.freeze();
    // Longer than both may be silent. What comes meanwhile waits in the system's buffers.
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..6 {
        ticks.tick().await;
        heard.send("", "").await;
    }
    world.gateway.thaw();
    let thawed = Instant::now();
    delivered(&mut heard, "hb=60", "").await;
    let ended = world.recorder.expect_end("silent", "udp").await;
    assert_eq!(ended.text("reason"), "idle-timeout");
    let waited = ended.at - thawed;
    // It may have been heard a moment before the freeze.
    let due = Duration::from_millis(1_500);
    assert!((due - LATE..=due + LATE + Duration::from_millis(150)).contains(&waited), "{waited:?}");
    let silence = ended.number("timestamp") - ended.number("lastSeenAt");
    assert!(silence >= 3_900, "the last that was heard of it stays what it was: {silence} ms");
    assert_eq!(story(&world, "heard").await, ["connected"]);
    world.close().await;
}
