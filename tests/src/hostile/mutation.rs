//! Mutated input by the thousand, with a canary beside it: nothing panics, nothing is left hanging, memory comes back, and the
//! canary does not notice.
//!
//! Valid packets and datagrams are changed at random, from a seed. The suite sends a few thousand of each; `make fuzz-smoke` takes
//! a minute, and `LANDFALL_FUZZ_INPUTS` says how many of each otherwise.

mod canary;
mod changes;
mod datagrams;
mod streams;

use std::time::Duration;

use landfall_testkit::dtls::{DtlsClient, Secret};
use landfall_testkit::proxy::Seed;
use landfall_testkit::{CoapClient, Pki, RawClient, UdpDevice, Version, World, eventually};

use canary::{Canary, Phase, Timed};

/// How many mutated inputs each protocol gets in the suite.
const IN_THE_SUITE: u64 = 3_000;
/// Rounds that they are sent in. Memory is measured after the first: what a gateway needs once, it has had then.
const ROUNDS: u64 = 8;
/// How long memory has to come back, and what was provoked to be told.
const CALM: Duration = Duration::from_secs(60);

/// How many inputs, and which.
#[derive(Clone, Copy, Debug)]
struct Campaign {
    inputs: u64,
    seed: u64,
    /// Is the canary's delay compared with a quiet one? Only where nothing else runs.
    timed: bool,
}

impl Campaign {
    fn of_this_run() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let asked = number("LANDFALL_FUZZ_INPUTS");
        let seed = number("LANDFALL_TEST_SEED").unwrap_or(1);
        Self { inputs: asked.unwrap_or(IN_THE_SUITE), seed, timed: asked.is_some() }
    }

    fn seed(self) -> Seed {
        Seed(self.seed)
    }
}

/// A gateway whose refusals are soon told, which knows one device for DTLS.
async fn world(pki: &Pki) -> World {
    World::with(|settings| {
        settings
            .tls(pki)
            .dtls(pki)
            .devices(&devices())
            .udp_dtls()
            .set("mqtt.connect_timeout", "2s")
            .set("events.refusal_interval", "1s")
    })
    .await
}

/// The canary, a device for datagrams, and for each attacker over MQTT one that may send anywhere and one that may not.
fn devices() -> String {
    let entry = |id: &str, password: &str, publish: &str| {
        format!("[[device]]\nid = \"{id}\"\npassword = \"plain:{password}\"\npublish = [\"{publish}\"]\n")
    };
    let mut devices =
        entry("canary", "yellow", "#") + "psk = \"79656c6c6f77\"\n" + &entry("mutant", "green", "#");
    for n in 0..streams::AT_ONCE {
        devices += &entry(&format!("mutant-{n}"), "green", "#");
        devices += &entry(&format!("narrow-{n}"), "green", "only/here");
    }
    devices
}

/// Sends `send(inputs)` in alternating phases with quiet, and holds what must hold.
async fn run<F, Fut>(world: World, campaign: Campaign, mut canary: Timed, mut send: F)
where
    F: FnMut(u64) -> Fut,
    Fut: Future<Output = ()>,
{
    let portion = (campaign.inputs / ROUNDS).max(1);
    let mut before = 0;
    for round in 0..ROUNDS {
        canary.beside(Phase::Quiet, tokio::time::sleep(canary::QUIET)).await;
        canary.beside(Phase::Mutated, send(portion)).await;
        if round == 0 {
            before = world.gateway.resident_bytes();
        }
    }
    eventually(CALM, "the memory that the inputs took", async || {
        let now = world.gateway.resident_bytes();
        // A tenth, and the few pages by which a resting process varies.
        (now <= before + before / 10 + (2 << 20)).then_some(())
    })
    .await;
    canary.finish(campaign.timed);
    world.gateway.assert_sound();
    super::assert_log_is_clean(&world);
    world.close().await;
}

#[tokio::test]
async fn mutated_mqtt_packets_are_answered_or_their_connection_ends() {
    let (campaign, pki) = (Campaign::of_this_run(), Pki::new());
    let world = world(&pki).await;
    let login = landfall_testkit::packet::Connect::new(Version::V5, "canary").login("canary", "yellow");
    let canary = Canary::Mqtt(RawClient::accepted(world.mqtt(), &login).await, 0).start();
    let mut attackers = streams::Attackers::new(world.mqtt(), campaign.seed());
    run(world, campaign, canary, move |inputs| attackers.wave(inputs)).await;
}

#[tokio::test]
async fn mutated_coap_datagrams_leave_an_endpoint_that_answers() {
    let (campaign, pki) = (Campaign::of_this_run(), Pki::new());
    let world = world(&pki).await;
    let canary = Canary::Coap(CoapClient::new(world.gateway.coap(), 1).await).start();
    let attacker = datagrams::Attacker::new(world.gateway.coap(), campaign.seed(), datagrams::Kind::Coap);
    run(world, campaign, canary, move |inputs| attacker.clone().wave(inputs)).await;
}

#[tokio::test]
async fn mutated_lines_leave_a_socket_that_answers() {
    let (campaign, pki) = (Campaign::of_this_run(), Pki::new());
    let world = world(&pki).await;
    let canary = Canary::Udp(UdpDevice::new(world.gateway.udp(), "canary").await.key("yellow")).start();
    let attacker = datagrams::Attacker::new(world.gateway.udp(), campaign.seed(), datagrams::Kind::Line);
    run(world, campaign, canary, move |inputs| attacker.clone().wave(inputs)).await;
}

#[tokio::test]
async fn mutated_dtls_records_leave_a_socket_that_shakes_hands() {
    let (campaign, pki) = (Campaign::of_this_run(), Pki::new());
    let world = world(&pki).await;
    let channel = DtlsClient::connect(world.gateway.udps(), &Secret::psk("canary", b"yellow")).await;
    let canary = Canary::Udp(UdpDevice::secure(channel, "canary")).start();
    let attacker = datagrams::Attacker::new(world.gateway.udps(), campaign.seed(), datagrams::Kind::Dtls);
    run(world, campaign, canary, move |inputs| attacker.clone().wave(inputs)).await;
}
