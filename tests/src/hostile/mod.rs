//! Hostile input: more than a hundred byte strings of every class that servers of this field have fallen to. Each ends in
//! an MQTT error or a closed connection; nobody else notices; no thread panics; memory stays bounded; no subject is chosen
//! by a device.

mod after_connect;
mod before_connect;
mod coap;
mod datagrams;
mod dtls;
mod dtls_bytes;
mod dtls_inside;
mod floods;
mod mutation;
mod names;
mod websockets;

use landfall_testkit::packet::{self, Connect, kind};
use landfall_testkit::raw::Packet;
use landfall_testkit::{PATIENCE, RawClient, Version, World};

/// What must become of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The gateway ends the connection at once; MQTT 5 is told why.
    Ends,
    /// The bytes are half a packet: the gateway waits, within its deadlines.
    Waits,
    /// Legal, if odd: served, or ended.
    Either,
}

/// A byte string and what must become of it.
#[derive(Clone, Debug)]
struct Attack {
    name: String,
    version: Version,
    bytes: Vec<u8>,
    fate: Fate,
}

impl Attack {
    fn new(name: impl Into<String>, version: Version, bytes: impl Into<Vec<u8>>, fate: Fate) -> Self {
        Self { name: name.into(), version, bytes: bytes.into(), fate }
    }
}

/// A device that behaves, and that must not notice anything.
struct Witness {
    client: RawClient,
    sent: u16,
}

impl Witness {
    async fn connect(world: &World) -> Self {
        let client = RawClient::accepted(world.mqtt(), &Connect::new(Version::V5, "witness")).await;
        Self { client, sent: 0 }
    }

    /// A message, stored and acknowledged.
    async fn speak(&mut self) {
        self.sent = self.sent % 60_000 + 1;
        assert_eq!(self.client.publish_acked("calm", self.sent.to_string(), self.sent).await, 0);
    }
}

/// The world of these tests: deadlines short, refusals told soon.
async fn world() -> World {
    World::with(|settings| {
        settings
            .listen(&["tcp://127.0.0.1:0", "ws://127.0.0.1:0"])
            .set("mqtt.connect_timeout", "2s")
            .set("events.refusal_interval", "200ms")
    })
    .await
}

/// The sum of the counts of all refusals so far.
fn refusals(world: &World) -> u64 {
    world
        .recorder
        .all()
        .iter()
        .filter(|event| event.kind() == "refused")
        .map(|event| event.number("count"))
        .sum()
}

/// Is this an answer that MQTT gives to something wrong?
fn is_error(packet: &Packet) -> bool {
    match packet.kind() {
        kind::CONNACK => packet.connack_code() != 0,
        kind::DISCONNECT => packet.disconnect_code() >= 0x80,
        kind::PUBACK | kind::PUBREC => packet.ack_code() >= 0x80,
        _ => false,
    }
}

/// Sends what comes before a CONNECT is accepted, and sees it end. Returns whether the gateway refused it by its content.
async fn attack_before(world: &World, attack: &Attack) {
    let mut client = RawClient::open(world.mqtt()).await;
    // The gateway may close while this is still being sent.
    let _ = client.try_send(&attack.bytes).await;
    match attack.fate {
        Fate::Ends | Fate::Waits => {
            let said = client.until_closed().await;
            assert!(said.iter().all(is_error), "{}: {said:?}", attack.name);
        }
        Fate::Either => {
            let _ = client.try_send(&packet::ping()).await;
            client.next().await;
        }
    }
}

/// Sends what comes after an accepted CONNECT of the device `name`, and sees what becomes of it.
async fn attack_after(world: &World, name: &str, attack: &Attack) {
    let mut client = RawClient::accepted(world.mqtt(), &Connect::new(attack.version, name)).await;
    let _ = client.try_send(&attack.bytes).await;
    match attack.fate {
        Fate::Ends => {
            let said = client.until_closed().await;
            match attack.version {
                Version::V4 => assert!(said.is_empty(), "{}: {said:?}", attack.name),
                Version::V5 => assert!(said.last().is_some_and(is_error), "{}: {said:?}", attack.name),
            }
        }
        Fate::Waits => drop(client),
        Fate::Either => {
            let _ = client.try_send(&packet::ping()).await;
            while client.next().await.is_some_and(|packet| packet.kind() != kind::PINGRESP) {}
        }
    }
    world.recorder.expect("connected", name).await;
}

/// Runs attacks a few at a time with the witness between, and finds the whole unharmed.
async fn run(attacks: &[Attack], before: bool) -> World {
    let world = world().await;
    let mut witness = Witness::connect(&world).await;
    witness.speak().await;
    let memory = world.gateway.resident_bytes();
    for (round, few) in attacks.chunks(8).enumerate() {
        let names: Vec<String> = (0..few.len()).map(|n| format!("attacker-{}", round * 8 + n)).collect();
        let under_way = few.iter().zip(&names).map(|(attack, name)| {
            let world = &world;
            async move {
                if before {
                    attack_before(world, attack).await;
                } else {
                    attack_after(world, name, attack).await;
                }
            }
        });
        futures_util::future::join_all(under_way).await;
        witness.speak().await;
    }
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 48 << 20, "{grown} bytes more than before {} attacks", attacks.len());
    world.gateway.assert_sound();
    world.wiretap.assert_clean("landfall").await;
    assert_log_is_clean(&world);
    world
}

/// Nothing of a device reaches the log unescaped, and no flood of lines does.
fn assert_log_is_clean(world: &World) {
    let log = world.gateway.log();
    let control = |c: char| {
        c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!log.contains(control), "control characters in the log");
    assert!(log.lines().all(|line| !line.starts_with("FORGED")), "a line that a device wrote");
    assert!(log.lines().count() < 2_000, "{} lines", log.lines().count());
}

#[tokio::test]
async fn before_connect_each_is_turned_away() {
    let attacks = before_connect::all();
    assert!(attacks.len() >= 60, "{}", attacks.len());
    let world = run(&attacks, true).await;
    // Each that was refused for what it said is counted; those that waited are told or not, as silence is.
    let ended = attacks.iter().filter(|attack| attack.fate == Fate::Ends).count();
    world.recorder.find(PATIENCE, "the refusals", |_| refusals(&world) >= ended as u64).await;
    let events = world.recorder.all().iter().filter(|event| event.kind() == "refused").count();
    assert!(events < ended, "{events} events for {ended} refusals: they are coalesced");
    let present = world.recorder.all().iter().filter(|event| event.kind() == "connected").count();
    let possible = 1 + attacks.iter().filter(|attack| attack.fate == Fate::Either).count();
    assert!(present <= possible, "{present} sessions began where {possible} may have");
    world.close().await;
}

#[tokio::test]
async fn after_connect_each_ends_its_own_connection() {
    let attacks = after_connect::all();
    assert!(attacks.len() >= 100, "{}", attacks.len());
    let world = run(&attacks, false).await;
    for (n, attack) in attacks.iter().enumerate() {
        let event = world.recorder.expect("disconnected", &format!("attacker-{n}")).await;
        let reason = event.text("reason");
        match attack.fate {
            Fate::Ends => assert_eq!(reason, "protocol-error", "{}", attack.name),
            Fate::Waits => assert_eq!(reason, "connection-lost", "{}", attack.name),
            Fate::Either => {}
        }
    }
    world.close().await;
}
