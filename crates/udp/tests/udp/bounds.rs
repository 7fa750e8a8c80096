//! Hostile datagrams, and every bound.

use crate::world::{KEY, signed, world, world_with};

/// Bytes that are no line, each for a reason of its own.
const NO_LINES: &[&[u8]] = &[
    b"",
    b"\n",
    b"\0",
    b"LF1",
    b"LF1 ",
    b"LF1  ",
    b"LF1\n",
    b"LF1 \n",
    b"LF1 a\r\r\n",
    b"LF1 a \n",
    b"LF1 a  ack",
    b"LF1 \x1b[2J",
    b"LF1 a\x00b",
    b"LF1 %00",
    b"LF1 %0a",
    b"LF1 %",
    b"LF1 %zz",
    b"LF1 a@",
    b"LF1 @",
    b"LF1 a@b@c",
    b"LF1 \xff\xfe",
    b"LF1 a seq=0",
    b"LF1 a seq=-1",
    b"LF1 a seq=99999999999999999999",
    b"LF1 a seq=",
    b"LF1 a hb=0",
    b"LF1 a hb=4294967296",
    b"LF1 a sleep=9999999",
    b"LF1 a sig=00",
    b"LF1 a ack ack",
    b"LF1 a bye sleep=1",
    b"LF1 a status=1",
    b"LF1 a got=a/b",
    b"LF1 a got=%23",
    b"LF1 a res=+",
    b"LF1 a key=",
    b"LF1 a key=%f",
    b"LF1 a unknown",
    b"LF1 a unknown=1",
    b"LF1 a ACK",
    b"lf1 a",
    b" LF1 a",
    b"LF1\ta",
    b"LF2 a",
    b"LF1.1 a",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x40\x01\x00\x01",
    b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01f",
    b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\x00",
    b"${jndi:ldap://x}",
];

/// One hundred datagrams that nobody ought to take for anything.
fn hostile() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = NO_LINES.iter().map(|datagram| datagram.to_vec()).collect();
    all.push([b"LF1 a key=", &[b'k'; 1_100][..]].concat());
    all.push([b"LF1 ", &[b'a'; 129][..]].concat());
    all.push(vec![b'L'; 60_000]);
    // The rest: a good line, cut, or with one byte that is no text.
    let good = b"LF1 pump@acme key=s3cret seq=1 hb=30 got=c1 ack bye";
    let mut seed = 7_usize;
    while all.len() < 100 {
        let mut datagram = good.to_vec();
        let at = seed % good.len();
        datagram[at] = 0x80 | u8::try_from(seed % 128).unwrap();
        seed += 13;
        all.push(datagram);
    }
    all
}

#[tokio::test]
async fn a_hundred_hostile_datagrams_are_a_hundred_counted_refusals() {
    let world = world().await;
    let device = world.device().await;
    let hostile = hostile();
    assert_eq!(hostile.len(), 100);
    for datagram in &hostile {
        device.send(datagram).await;
    }
    device.fence().await;
    world
        .until("all are told", |world| {
            world.refused("malformed") + world.refused("unsupported-version") == 100
        })
        .await;
    assert_eq!(world.refused("unsupported-version"), 1);
    let others: Vec<_> = world.story().into_iter().filter(|word| !word.starts_with("refused")).collect();
    assert_eq!(others, ["connected null"], "the fence's");
    assert_eq!(world.metric("landfall_udp_dropped_total{reason=\"panicked\"}"), 0);
}

#[tokio::test]
async fn an_oversized_datagram_is_refused_and_never_cut() {
    let world = world_with(|_| {}, |udp| udp.max_datagram = 100).await;
    let device = world.device().await;
    let line = format!("LF1 a key={KEY} ack");
    assert_eq!(device.ask(format!("{line}\n{}", "x".repeat(100))).await, "LF1 ack");
    for size in [101, 1_400, 9_000, 65_000] {
        device.send(format!("{line}\n{}", "x".repeat(size))).await;
    }
    device.fence().await;
    world.until("all are told", |world| world.refused("limit-reached") == 4).await;
    assert_eq!(world.payloads(), ["x".repeat(100)]);
}

#[tokio::test]
async fn the_default_takes_eight_kibibytes() {
    let world = world().await;
    let device = world.device().await;
    let line = format!("LF1 a key={KEY} ack");
    assert_eq!(device.ask(format!("{line}\n{}", "x".repeat(8_192))).await, "LF1 ack");
    device.send(format!("{line}\n{}", "x".repeat(8_193))).await;
    device.fence().await;
    assert_eq!(world.payloads(), ["x".repeat(8_192)]);
}

#[tokio::test]
async fn a_full_window_drops_and_a_retransmission_is_stored_once() {
    let world = world_with(|hub| hub.window_bytes = 4_096, |_| {}).await;
    let device = world.device().await;
    device.ask(signed(KEY, "LF1 a seq=1 ack", "one")).await;
    world.bus.set_away(true);
    device.send(signed(KEY, "LF1 a seq=2 ack", &"x".repeat(2_500))).await;
    let word = signed(KEY, "LF1 a seq=3 ack", "three");
    device.send(&word).await;
    device.send(signed(KEY, "LF1 a seq=3 bye ack", "forged later")).await;
    world
        .until("it is dropped", |world| {
            world.metric("landfall_udp_dropped_total{reason=\"window-full\"}") == 1
        })
        .await;
    world.bus.set_away(false);
    assert_eq!(device.receive().await, "LF1 ack seq=2");
    assert_eq!(device.ask(&word).await, "LF1 ack seq=3");
    assert_eq!(device.ask(&word).await, "LF1 ack seq=3");
    assert_eq!(world.payloads()[1..], ["x".repeat(2_500), "three".to_owned()]);
}

#[tokio::test]
async fn acks_that_wait_are_bounded() {
    let world = world_with(|_| {}, |udp| udp.max_unstored = 2).await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack")).await;
    world.bus.set_away(true);
    for n in 1..=3 {
        device.send(format!("LF1 a key={KEY} seq={n} ack\n{n}")).await;
    }
    world
        .until("one is dropped", |world| {
            world.metric("landfall_udp_dropped_total{reason=\"unstored-full\"}") == 1
        })
        .await;
    world.bus.set_away(false);
    assert_eq!(
        (device.receive().await, device.receive().await),
        ("LF1 ack seq=1".into(), "LF1 ack seq=2".into())
    );
    device.fence().await;
    assert_eq!(world.payloads(), ["1", "2"]);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let world = world_with(|hub| hub.max_sessions = 1, |_| {}).await;
    let device = world.device().await;
    device.fence().await;
    device.send(format!("LF1 b key={KEY} ack\nx")).await;
    device.fence().await;
    world.until("the refusal is told", |world| world.refused("limit-reached") == 1).await;
    assert_eq!(world.events("connected").len(), 1);
}

#[tokio::test]
async fn a_flood_costs_nobody_his_ack() {
    let world = world().await;
    let device = world.device().await;
    let mut stored = 0;
    for round in 0..50 {
        for _ in 0..20 {
            device.send("LF1 nobody key=guess ack\nflood").await;
        }
        let answer = device.ask(format!("LF1 a key={KEY} seq={} ack\n{round}", round + 1)).await;
        assert_eq!(answer, format!("LF1 ack seq={}", round + 1));
        stored += 1;
    }
    assert_eq!(world.payloads().len(), stored);
    assert_eq!(world.hub.session_count(), 1);
}

#[tokio::test]
async fn a_defect_costs_one_datagram() {
    let panicked = "landfall_udp_dropped_total{reason=\"panicked\"}";
    let world = world().await;
    let device = world.device().await;
    // At once, and of one whose key takes its time.
    for (count, is_slow, breaks) in [
        (1, false, "authenticate"),
        (2, true, "authenticate"),
        (3, false, "still_holds"),
        (4, true, "still_holds"),
    ] {
        *world.auth.breaks.lock() = breaks;
        world.auth.answers.send_replace(!is_slow);
        device.send(format!("LF1 d{count} key={KEY} ack\nx")).await;
        if is_slow {
            let waiting = "landfall_udp_authenticating";
            world.until("it waits", |world| world.metric(waiting) == 1).await;
        }
        world.auth.answers.send_replace(true);
        world.until("the defect is met", |world| world.metric(panicked) == count).await;
        *world.auth.breaks.lock() = "";
        device.fence().await;
    }
    assert!(world.payloads().is_empty());
}
