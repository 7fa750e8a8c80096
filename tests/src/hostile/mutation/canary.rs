//! A device that behaves, whose every message is timed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use landfall_testkit::{CoapClient, RawClient, UdpDevice, within};

/// How long a phase without mutated input lasts.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// How long one of its messages may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two of its messages.
const PACE: Duration = Duration::from_millis(2);

/// Whose messages are timed.
pub(super) enum Canary {
    Mqtt(RawClient, u16),
    Coap(CoapClient),
    Udp(UdpDevice),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Quiet,
    Mutated,
}

/// A canary, and how long its messages took, by phase and round.
pub(super) struct Timed {
    canary: Canary,
    rounds: Vec<(Phase, Vec<Duration>)>,
}

impl Canary {
    pub(super) fn start(self) -> Timed {
        Timed { canary: self, rounds: Vec::new() }
    }

    /// One message, stored and acknowledged.
    async fn beat(&mut self) {
        match self {
            Self::Mqtt(client, sent) => {
                *sent = *sent % 60_000 + 1;
                assert_eq!(
                    client.publish_acked("calm", "1", *sent).await,
                    0,
                    "the canary's message is taken"
                );
            }
            Self::Coap(client) => {
                let answer = client.post("calm", &["ep=canary", "key=yellow"], "1").await;
                assert_eq!(answer.code_text(), "2.04", "{answer:?}");
            }
            Self::Udp(device) => assert!(device.deliver("", "1").await, "the canary's message is stored"),
        }
    }
}

impl Timed {
    /// Lets the canary speak for as long as `what` lasts.
    pub(super) async fn beside(&mut self, phase: Phase, what: impl Future<Output = ()>) {
        let (mut took, is_over) = (Vec::new(), Cell::new(false));
        let canary = &mut self.canary;
        let beating = async {
            while !is_over.get() {
                let asked = Instant::now();
                within(ANSWER, "the canary's acknowledgement", canary.beat()).await;
                took.push(asked.elapsed());
                tokio::time::sleep(PACE).await;
            }
        };
        tokio::join!(beating, async {
            what.await;
            is_over.set(true);
        });
        self.rounds.push((phase, took));
    }

    /// With mutated input beside it, the slowest of a hundred messages takes less than twice what it takes in quiet: the medians
    /// over the rounds are compared.
    pub(super) fn finish(self, timed: bool) {
        let [quiet, mutated] = [Phase::Quiet, Phase::Mutated].map(|phase| {
            let rounds = self.rounds.iter().filter(|(which, took)| *which == phase && !took.is_empty());
            let mut slowest: Vec<Duration> = rounds.map(|(_, took)| percentile(took.clone())).collect();
            slowest.sort_unstable();
            *slowest.get(slowest.len() / 2).expect("the canary has spoken")
        });
        eprintln!("canary p99, median of the rounds: {quiet:?} in quiet, {mutated:?} beside mutated input");
        assert!(!timed || mutated < quiet * 2, "{quiet:?} in quiet, {mutated:?} beside mutated input");
    }
}

/// The 99th percentile.
fn percentile(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[(took.len() * 99 / 100).min(took.len() - 1)]
}
