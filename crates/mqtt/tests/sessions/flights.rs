//! Commands under way when a persistent session loses its connection: sent again until their time is over, one outcome each.

use super::*;

/// A PUBLISH of a command, as a 3.1.1 client reads it.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    id: String,
    packet_id: u16,
    qos: u8,
    dup: bool,
}

impl Client {
    async fn got(&mut self) -> Got {
        let [first, length] = self.receive::<2>().await;
        assert_eq!(first >> 4, 3, "{first:02x}");
        let mut packet = vec![0; usize::from(length)];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut packet)).await.unwrap().unwrap();
        let topic = usize::from(packet[1]);
        let id = String::from_utf8(packet[2..2 + topic].to_vec()).unwrap();
        Got {
            id: id.split('/').nth(4).unwrap().to_owned(),
            packet_id: u16::from_be_bytes([packet[2 + topic], packet[3 + topic]]),
            qos: first >> 1 & 3,
            dup: first & 8 != 0,
        }
    }

    async fn puback(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[0x40, 2, high, low]).await;
    }

    async fn answer(&mut self, command: &str) {
        let topic = format!("command///res/{command}/200");
        let mut packet =
            vec![0x30, u8::try_from(2 + topic.len()).unwrap(), 0, u8::try_from(topic.len()).unwrap()];
        packet.extend(topic.as_bytes());
        self.send(&packet).await;
    }

    /// Nothing came before the answer to a ping.
    async fn quiet(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.receive::<2>().await, [0xd0, 0]);
    }
}

fn got(id: &str, packet_id: u16, dup: bool) -> Got {
    Got { id: id.to_owned(), packet_id, qos: 1, dup }
}

impl World {
    fn ask(&self, id: &str, wait: &str, ttl_ms: u64) {
        self.hub.command(CommandRequest {
            tenant: "default".parse().unwrap(),
            device: "pump".parse().unwrap(),
            id: Some(id.into()),
            name: Some("go".into()),
            ttl: Some(ttl_ms.to_string()),
            wait: Some(wait.into()),
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::from_static(b"x"),
            reply: None,
        });
    }

    /// The connection is gone, and its session lies there.
    async fn lost(&self, client: Client) {
        drop(client);
        self.until(|| self.hub.session_count() == 0).await;
        self.flushed().await;
    }

    async fn resume(&self) -> Client {
        let (client, present) = self.connect("pump", false).await;
        assert!(present);
        client
    }

    /// The next process, after this one was killed: what is in the store is all that it knows.
    async fn killed(self) -> World {
        self.flushed().await;
        let store: Arc<Moody> = Arc::default();
        for session in self.store.sessions().await.unwrap() {
            store.save(session).await.unwrap();
        }
        for StoredQueue { tenant, device, entry, .. } in self.store.queued().await.unwrap() {
            store.enqueue(&tenant, &device, entry).await.unwrap();
        }
        world(store, OfflineLimits::default()).await
    }

    /// The field of every outcome.
    fn attempts(&self) -> Vec<u64> {
        let events = self.bus.stored();
        let events = events.iter().map(|event| serde_json::from_slice::<Value>(&event.body).unwrap());
        events.filter_map(|event| event.get("attempts").and_then(Value::as_u64)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_under_way_is_sent_again_and_has_the_outcome_that_came() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    w.ask("c2", "delivered", 60_000);
    assert_eq!((client.got().await, client.got().await), (got("c1", 1, false), got("c2", 2, false)));
    w.lost(client).await;
    assert_eq!(w.outcomes(), ["c2 delivered -"], "nobody knows yet what becomes of the other");
    let mut client = w.resume().await;
    assert_eq!((client.got().await, client.got().await), (got("c1", 1, true), got("c2", 2, true)));
    client.puback(1).await;
    client.puback(2).await;
    assert_eq!(w.until_outcomes(2).await, ["c2 delivered -", "c1 acknowledged -"]);
    assert_eq!(w.attempts(), [1, 2]);
    client.quiet().await;
    w.lost(client).await;
    w.resume().await.quiet().await;
    assert_eq!(w.outcomes().len(), 2);
}

#[tokio::test]
async fn a_command_whose_time_is_over_is_not_sent_again() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 400);
    w.ask("c2", "acknowledged", 60_000);
    assert_eq!((client.got().await, client.got().await), (got("c1", 1, false), got("c2", 2, false)));
    w.lost(client).await;
    assert_eq!(w.until_outcomes(1).await, ["c1 expired not-connected"]);
    let mut client = w.resume().await;
    assert_eq!(client.got().await, got("c2", 2, true));
    client.puback(2).await;
    assert_eq!(w.until_outcomes(2).await[1], "c2 acknowledged -");
    client.quiet().await;
}

#[tokio::test]
async fn a_delivered_command_whose_time_is_over_is_not_sent_again() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "delivered", 300);
    assert_eq!(client.got().await, got("c1", 1, false));
    w.ask("c2", "acknowledged", 300);
    assert_eq!(client.got().await, got("c2", 2, false));
    w.lost(client).await;
    // The second says when the first one's time is over.
    assert_eq!(w.until_outcomes(2).await, ["c1 delivered -", "c2 expired not-connected"]);
    w.resume().await.quiet().await;
    assert_eq!(w.outcomes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_device_may_answer_on_its_next_connection() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "answered", 60_000);
    assert_eq!(client.got().await, got("c1", 1, false));
    client.puback(1).await;
    client.quiet().await;
    w.lost(client).await;
    let mut client = w.resume().await;
    client.quiet().await;
    client.answer("c1").await;
    assert_eq!(w.until_outcomes(1).await, ["c1 answered 200"]);
}

#[tokio::test(start_paused = true)]
async fn what_found_no_room_waits_for_the_next_connection() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    for n in 1..=32 {
        w.ask(&format!("c{n}"), "acknowledged", 60_000);
        assert_eq!(client.got().await, got(&format!("c{n}"), n, false));
    }
    for n in 33..=35 {
        w.ask(&format!("c{n}"), "acknowledged", 60_000);
    }
    client.quiet().await;
    w.lost(client).await;
    assert_eq!((w.outcomes().len(), w.stored_queue().await), (0, 3));
    let mut client = w.resume().await;
    for n in 1..=32 {
        assert_eq!(client.got().await, got(&format!("c{n}"), n, true));
        client.puback(n).await;
    }
    for n in 33..=35 {
        assert_eq!(client.got().await, got(&format!("c{n}"), n, false), "in the order in which they came");
        client.puback(n).await;
    }
    assert_eq!(w.until_outcomes(35).await.last().unwrap(), "c35 acknowledged -");
    w.flushed().await;
    assert_eq!(w.stored_queue().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_discarded_fails_what_was_under_way() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    assert_eq!(client.got().await, got("c1", 1, false));
    w.lost(client).await;
    let (mut client, present) = w.connect("pump", true).await;
    assert!(!present);
    client.quiet().await;
    assert_eq!(w.outcomes(), ["c1 failed session-discarded"]);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_hands_on_what_is_under_way() {
    let w = new_world().await;
    let mut first = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    assert_eq!(first.got().await, got("c1", 1, false));
    let mut second = w.resume().await;
    first.closed().await;
    w.ask("c2", "acknowledged", 60_000);
    assert_eq!((second.got().await, second.got().await), (got("c1", 1, true), got("c2", 2, false)));
    second.puback(1).await;
    second.puback(2).await;
    assert_eq!(w.until_outcomes(2).await, ["c1 acknowledged -", "c2 acknowledged -"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_process_settles_what_a_killed_one_had_under_way() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    for (id, wait) in
        [("c1", "acknowledged"), ("c2", "answered"), ("c3", "acknowledged"), ("c4", "delivered")]
    {
        w.ask(id, wait, 60_000);
    }
    for n in 1..=4 {
        assert_eq!(client.got().await, got(&format!("c{n}"), n, false));
    }
    client.puback(2).await;
    client.puback(3).await;
    client.quiet().await;
    assert_eq!(w.outcomes(), ["c4 delivered -", "c3 acknowledged -"]);
    let w = w.killed().await;
    assert!(w.outcomes().is_empty());
    let mut client = w.resume().await;
    assert_eq!((client.got().await, client.got().await), (got("c1", 1, true), got("c4", 4, true)));
    client.puback(1).await;
    client.puback(4).await;
    client.answer("c2").await;
    assert_eq!(
        w.until_outcomes(2).await,
        ["c1 acknowledged -", "c2 answered 200"],
        "and what was told is not told again"
    );
    client.quiet().await;
}

#[tokio::test]
async fn what_was_told_as_expired_is_not_told_again_by_the_next_process() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "answered", 300);
    assert_eq!(client.got().await, got("c1", 1, false));
    client.puback(1).await;
    client.quiet().await;
    w.ask("c2", "acknowledged", 600);
    assert_eq!(client.got().await, got("c2", 2, false));
    assert_eq!(w.until_outcomes(1).await, ["c1 expired -"], "on an open connection");
    client.quiet().await;
    w.lost(client).await;
    assert_eq!(w.until_outcomes(2).await[1], "c2 expired not-connected");
    let w = w.killed().await;
    w.ask("c3", "acknowledged", 0);
    assert_eq!(w.until_outcomes(1).await, ["c3 expired not-connected"]);
    w.resume().await.quiet().await;
    assert_eq!(w.outcomes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_leaves_its_commands_to_the_next() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    assert_eq!(client.got().await, got("c1", 1, false));
    w.hub.drain().await.unwrap();
    client.closed().await;
    assert!(w.outcomes().is_empty());
    let w = w.restart(OfflineLimits::default()).await;
    let mut client = w.resume().await;
    assert_eq!(client.got().await, got("c1", 1, true));
    client.puback(1).await;
    assert_eq!(w.until_outcomes(1).await, ["c1 acknowledged -"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_leaves_what_was_under_way() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    w.ask("c2", "answered", 60_000);
    assert_eq!((client.got().await, client.got().await), (got("c1", 1, false), got("c2", 2, false)));
    client.puback(2).await;
    client.quiet().await;
    w.doors.drain(Duration::ZERO).await;
    client.closed().await;
    assert!(w.outcomes().is_empty());
    let w = w.restart(OfflineLimits::default()).await;
    let mut client = w.resume().await;
    assert_eq!(client.got().await, got("c1", 1, true));
    client.puback(1).await;
    client.answer("c2").await;
    assert_eq!(w.until_outcomes(2).await, ["c1 acknowledged -", "c2 answered 200"]);
}

#[tokio::test(start_paused = true)]
async fn one_id_is_one_command_while_its_device_is_away() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    assert_eq!(client.got().await, got("c1", 1, false));
    w.lost(client).await;
    w.ask("c1", "acknowledged", 60_000);
    assert_eq!(w.outcomes(), ["c1 rejected duplicate-id"]);
    w.ask("c2", "acknowledged", 60_000);
    w.ask("c2", "acknowledged", 60_000);
    assert_eq!(w.outcomes().last().unwrap(), "c2 rejected duplicate-id");
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_ends_the_session_does_not_end_its_commands() {
    let w = new_world().await;
    let mut client = w.subscriber("pump").await;
    w.ask("c1", "acknowledged", 60_000);
    assert_eq!(client.got().await, got("c1", 1, false));
    w.hub.kick(&"default".parse().unwrap(), &"pump".parse().unwrap());
    client.closed().await;
    let mut client = w.resume().await;
    assert_eq!(client.got().await, got("c1", 1, true));
    client.puback(1).await;
    assert_eq!(w.until_outcomes(1).await, ["c1 acknowledged -"]);
    // A goodbye that keeps the session keeps them, too.
    w.ask("c2", "acknowledged", 60_000);
    assert_eq!(client.got().await, got("c2", 2, false));
    client.send(GOODBYE).await;
    client.closed().await;
    assert_eq!(w.resume().await.got().await, got("c2", 2, true));
    assert_eq!(w.outcomes().len(), 1);
}
