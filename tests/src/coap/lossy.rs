//! A bad network between real sockets: what was answered is stored exactly once, and nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use landfall_testkit::coap::{CoapClient, Message, Timing, code, method};
use landfall_testkit::streams::{MESSAGES, stored};
use landfall_testkit::{Faults, PATIENCE, UdpProxy, World, eventually};

/// One message of a device's own journal.
struct Sent {
    payload: String,
    was_answered: bool,
}

/// Retransmission as the protocol has it, in a quicker time.
const QUICK: Timing = Timing {
    ack_timeout: Duration::from_millis(80),
    random_factor: 1.5,
    retransmits: 4,
    patience: Duration::from_secs(5),
};

/// A device that sends so many confirmable messages, one after the other, and writes down which were answered.
async fn send(mut client: CoapClient, queries: &[&str], name: &str, count: usize) -> (CoapClient, Vec<Sent>) {
    let mut journal = Vec::new();
    for n in 0..count {
        let payload = format!("{name} says {n:03}");
        let post = Message::request(method::POST).path("lossy").queries(queries).payload(&payload);
        let was_answered = client.try_request(post).await.is_ok_and(|answer| answer.code == code(2, 4));
        journal.push(Sent { payload, was_answered });
    }
    (client, journal)
}

/// How often each payload is stored.
async fn stored_payloads(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in stored(&world.nats, MESSAGES).await {
        *counts.entry(event.text("payload").to_owned()).or_default() += 1;
    }
    counts
}

async fn under(seed: u64, faults: Faults) {
    const DEVICES: usize = 36;
    const MESSAGES_EACH: usize = 5;
    let world = World::start().await;
    let proxy = UdpProxy::start(world.gateway.coap(), seed, faults).await;
    let address = proxy.address();
    let devices = join_all((0..DEVICES).map(|n| async move {
        let name = format!("lossy-{n}");
        let client = CoapClient::new(address, seed + n as u64).await.timing(QUICK);
        send(client, &[&format!("ep={name}")], &name, MESSAGES_EACH).await
    }))
    .await;
    let (there, back) = proxy.counts();
    assert!(there.lost > 20 && back.lost > 20, "{there:?} {back:?}");
    assert!(there.duplicated > 20, "{there:?}");
    let retransmitted: u64 = devices.iter().map(|(client, _)| client.counts().retransmitted).sum();
    assert!(retransmitted > 50, "{retransmitted}");
    // What is stored without an answer may be stored still: the gateway's end waits for it.
    let duplicates = world.gateway.metrics("landfall_coap_duplicates").await;
    world.gateway.terminate();
    world.gateway.exited(Duration::from_secs(20)).await;
    let mut counts = stored_payloads(&world).await;
    let (mut answered, mut all) = (0, 0);
    for sent in devices.iter().flat_map(|(_, journal)| journal) {
        let count = counts.remove(&sent.payload).unwrap_or(0);
        all += 1;
        answered += usize::from(sent.was_answered);
        match sent.was_answered {
            true => assert_eq!(count, 1, "{:?} was answered", sent.payload),
            false => assert!(count <= 1, "{:?} is stored {count} times", sent.payload),
        }
    }
    assert!(counts.is_empty(), "stored, and sent by nobody: {counts:?}");
    assert!(answered * 10 >= all * 8, "{answered} of {all} were answered");
    assert!(duplicates.iter().any(|(_, count)| *count > 20.0), "{duplicates:?}");
    for n in 0..DEVICES {
        assert_eq!(world.recorder.of("connected", &format!("lossy-{n}")).len(), 1);
    }
    world.close().await;
}

#[tokio::test]
async fn thirty_percent_lost_and_delayed() {
    under(1, Faults { loss: 0.3, duplicate: 0.2, corrupt: 0.0, delay: (0, 40) }).await;
}

#[tokio::test]
async fn thirty_percent_lost_delayed_for_longer_than_a_retransmission() {
    under(2, Faults { loss: 0.3, duplicate: 0.3, corrupt: 0.0, delay: (0, 300) }).await;
}

#[tokio::test]
async fn bodies_in_blocks_come_through_as_well() {
    let world = World::start().await;
    let faults = Faults { loss: 0.1, duplicate: 0.2, corrupt: 0.0, delay: (0, 30) };
    let proxy = UdpProxy::start(world.gateway.coap(), 3, faults).await;
    let body = super::body(8_000);
    let uploads = join_all((0..4_u64).map(|n| {
        let (address, body) = (proxy.address(), &body);
        async move {
            let timing = Timing { retransmits: 6, ..QUICK };
            let mut client = CoapClient::new(address, n).await.timing(timing);
            let post = Message::request(method::POST).path("body").query(&format!("ep=up-{n}"));
            client.upload(&post, body, 5).await
        }
    }));
    for (n, answer) in uploads.await.iter().enumerate() {
        assert_eq!(answer.code, code(2, 4), "{answer:?}");
        let events = world.recorder.expect_count("upstream", &format!("up-{n}"), 1).await;
        assert!(STANDARD.decode(events[0].text("payload")).unwrap() == body);
    }
    let (there, back) = proxy.counts();
    assert!(there.lost + back.lost > 3 && there.duplicated > 10, "{there:?} {back:?}");
    world.gateway.terminate();
    world.gateway.exited(Duration::from_secs(20)).await;
    assert_eq!(stored(&world.nats, MESSAGES).await.len(), 4, "one event for each body");
    world.close().await;
}

#[tokio::test]
async fn commands_come_through_as_well() {
    let world = World::start().await;
    let faults = Faults { loss: 0.0, duplicate: 0.5, corrupt: 0.0, delay: (0, 30) };
    let proxy = UdpProxy::start(world.gateway.coap(), 3, faults).await;
    let mut device = CoapClient::new(proxy.address(), 9).await;
    let (observation, _) = device.observe("command", &["ep=listener"]).await;
    let headers = [("Command-Wait", "acknowledged"), ("Command-Ttl", "60000")];
    for n in 0..20 {
        // Of some the first transmission is lost on its way to the device.
        let is_lost = n % 10 == 9;
        let before = proxy.counts().1.lost;
        if is_lost {
            proxy.set_each(faults, Faults::CUT);
        }
        let text = n.to_string();
        let mend = async {
            eventually(PATIENCE, "a loss", async || {
                (!is_lost || proxy.counts().1.lost > before).then_some(())
            })
            .await;
            proxy.set(faults);
        };
        let request = world.command("listener", &text, &headers);
        let (reply, command, ()) = tokio::join!(request, device.notification(&observation), mend);
        assert_eq!((&reply["outcome"], command.text()), (&"acknowledged".into(), text));
    }
    assert!(device.counts().repeated > 3, "{:?}", device.counts());
    assert!(device.held().is_empty() && device.strays().is_empty(), "each once, and nothing else");
    world.close().await;
}

/// UDP's checksum keeps wrong bits from a receiver. Behind this proxy it does not: each wrong bit is in a datagram that
/// arrives. A message whose id is wrong is another message, so the promise holds but for as many as were corrupted.
#[tokio::test]
async fn wrong_bits_break_nothing_else() {
    const DEVICES: usize = 16;
    let listed: String = (0..DEVICES)
        .map(|n| format!("[[device]]\nid = \"rough-{n}\"\npassword = \"plain:{n}-secret\"\n"))
        .chain(["[[device]]\nid = \"witness\"\npassword = \"plain:w\"\n".to_owned()])
        .collect();
    let world = World::with(|settings| settings.devices(&listed)).await;
    let faults = Faults { loss: 0.1, duplicate: 0.2, corrupt: 0.15, delay: (0, 40) };
    let proxy = UdpProxy::start(world.gateway.coap(), 4, faults).await;
    let address = proxy.address();
    let devices = join_all((0..DEVICES).map(|n| async move {
        let name = format!("rough-{n}");
        let (ep, key) = (format!("ep={name}"), format!("key={n}-secret"));
        let client = CoapClient::new(address, 40 + n as u64).await;
        let client = client.timing(Timing { patience: Duration::from_secs(1), ..QUICK }).rough();
        send(client, &[&ep, &key], &name, 8).await.1
    }));
    let witness = async {
        let mut client = CoapClient::new(world.gateway.coap(), 1).await;
        for n in 0..20 {
            let answer = client.post("t", &["ep=witness", "key=w"], n.to_string()).await;
            assert_eq!(answer.code, code(2, 4), "{n}");
        }
    };
    let (devices, ()) = tokio::join!(devices, witness);
    let (there, back) = proxy.counts();
    assert!(there.corrupted > 10 && back.corrupted > 10, "{there:?} {back:?}");
    world.gateway.terminate();
    world.gateway.exited(Duration::from_secs(20)).await;
    let counts = stored_payloads(&world).await;
    let corrupted = usize::try_from(there.corrupted + back.corrupted).unwrap();
    let journal = || devices.iter().flatten();
    let of = |sent: &Sent| counts.get(&sent.payload).copied().unwrap_or(0);
    let missing = journal().filter(|sent| sent.was_answered && of(sent) == 0).count();
    let repeated: usize = journal().map(|sent| of(sent).saturating_sub(1)).sum();
    let foreign = counts.iter().filter(|(payload, _)| payload.parse::<u64>().is_err());
    let foreign: usize =
        foreign.filter(|(payload, _)| journal().all(|sent| sent.payload != **payload)).map(|(_, n)| n).sum();
    assert!(missing + repeated + foreign <= corrupted, "{missing} + {repeated} + {foreign} of {corrupted}");
    assert!(journal().filter(|sent| of(sent) >= 1).count() > 100, "most came through");
    let sessions: std::collections::BTreeSet<String> = world
        .recorder
        .all()
        .iter()
        .filter(|event| event.kind() == "connected")
        .map(|event| event.text("endpointId").to_owned())
        .collect();
    assert!(sessions.iter().all(|name| name == "witness" || name.starts_with("rough-")), "{sessions:?}");
    assert_eq!(world.recorder.of("connected", "witness").len(), 1);
    world.close().await;
}
