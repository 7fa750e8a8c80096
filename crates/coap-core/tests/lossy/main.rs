//! The endpoint over a link that loses, repeats and disorders: what a client was told is what happened, and once.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod client;
mod sim;

use landfall_coap_core::{Code, NoteFailure};
use landfall_testkit::Faults;
use landfall_testkit::proxy::Seed;

use client::{Client, Counts, Outcome, Task};
use sim::{Fate, Sim, answer_to, big, body_of};

const BAD: Faults = Faults { loss: 0.3, duplicate: 0.3, corrupt: 0.0, delay: (5, 3_000) };
const CLIENTS: u32 = 5;

/// Tasks of every kind; the bodies tell who sends them.
fn tasks(seed: &mut Seed, peer: u32) -> Vec<Task> {
    let mut tasks = vec![Task::Observe];
    for i in 0..10 {
        tasks.push(match seed.below(5) {
            0 => Task::Shout(body_of(peer, i, 20)),
            1 => Task::Upload(body_of(peer, i, 100 + i * 40), 2),
            2 => Task::Fetch(format!("f{i}")),
            _ => Task::Post(body_of(peer, i, 20 + i)),
        });
    }
    if seed.below(2) == 0 {
        tasks.push(Task::Deregister);
    }
    tasks
}

fn clients(seed: &mut Seed) -> Vec<Client> {
    // They begin with the same message id and the same token: only the address tells them apart.
    let first = seed.draw() as u16;
    (0..CLIENTS)
        .map(|peer| {
            let tasks = tasks(seed, peer);
            Client::new(seed.draw(), first, tasks)
        })
        .collect()
}

fn run(seed: u64, faults: Faults, knows_clients: bool) -> Sim {
    let mut seed = Seed(seed);
    let clients = clients(&mut seed);
    let mut sim = Sim::new(seed.draw(), faults, clients);
    sim.knows_clients = knows_clients;
    sim.run();
    sim
}

/// What must hold however bad the link was; says how many confirmable tasks there were, and how many were answered.
fn check(seed: u64, sim: &Sim) -> (u64, u64) {
    let (mut asked, mut answered) = (0, 0);
    for (peer, client) in (0_u32..).zip(&sim.clients) {
        for (task, outcome) in &client.outcomes {
            asked += 1;
            answered += u64::from(matches!(outcome, Outcome::Answered(..)));
            check_outcome(seed, sim, peer, task, outcome);
        }
        for note in &client.notes {
            let known = sim.notes.values().any(|known| known.peer == peer && known.text == *note);
            assert!(known || note == "state", "seed {seed}: {note:?} was never sent to {peer}");
        }
    }
    for (body, times) in &sim.handed_up {
        assert_eq!(*times, 1, "seed {seed}: {body:?} was handed up {times} times");
        assert!(body.1.starts_with(format!("{}/", body.0).as_bytes()), "seed {seed}: a body of another");
    }
    for note in sim.notes.values() {
        let came = sim.clients[note.peer as usize].notes.iter().filter(|text| **text == note.text).count();
        match note.fate {
            Fate::Delivered => assert_eq!(came, 1, "seed {seed}: {note:?}"),
            Fate::Failed(_) => assert!(came <= 1, "seed {seed}: {note:?} came {came} times"),
            Fate::UnderWay => panic!("seed {seed}: nobody was told what became of {note:?}"),
        }
    }
    check_rest(seed, sim);
    (asked, answered)
}

fn check_outcome(seed: u64, sim: &Sim, peer: u32, task: &Task, outcome: &Outcome) {
    let Outcome::Answered(code, payload) = outcome else {
        assert_eq!(*outcome, Outcome::Silent, "seed {seed}: {task:?} of {peer}");
        return;
    };
    match task {
        Task::Post(body) | Task::Upload(body, _) => {
            assert_eq!(*code, Code::CHANGED, "seed {seed}: {task:?} of {peer}");
            assert_eq!(*payload, answer_to(body), "seed {seed}: {task:?} of {peer}");
            let times = sim.handed_up.get(&(peer, body.clone())).copied().unwrap_or(0);
            assert_eq!(times, 1, "seed {seed}: {task:?} of {peer} was answered");
        }
        Task::Fetch(name) => {
            assert_eq!(
                (*code, payload),
                (Code::CONTENT, &big(peer, name)),
                "seed {seed}: {task:?} of {peer}"
            );
        }
        Task::Observe | Task::Deregister => {
            assert_eq!(*code, Code::CONTENT, "seed {seed}: {task:?} of {peer}");
        }
        Task::Shout(_) | Task::Rest(_) => panic!("{task:?} has no outcome"),
    }
}

/// Nothing is left behind when all is over.
fn check_rest(seed: u64, sim: &Sim) {
    let endpoint = &sim.endpoint;
    let requests = (endpoint.peers(), endpoint.exchanges(), endpoint.remembered(), endpoint.observations());
    assert_eq!(requests, (0, 0, 0, 0), "seed {seed}: left at {} ms", sim.now);
    assert_eq!(
        (endpoint.uploads(), endpoint.downloads(), endpoint.bytes()),
        (0, 0, 0),
        "seed {seed}: bodies"
    );
    assert_eq!(endpoint.next_timeout(), None, "seed {seed}");
}

#[test]
fn over_a_bad_link_what_is_answered_was_handed_up_once() {
    let (mut asked, mut answered, mut delivered, mut failed) = (0, 0, 0, 0);
    let mut counts = Counts::default();
    for seed in 0..300 {
        let sim = run(seed, BAD, seed % 2 == 0);
        let (more_asked, more_answered) = check(seed, &sim);
        asked += more_asked;
        answered += more_answered;
        delivered += sim.notes.values().filter(|note| note.fate == Fate::Delivered).count();
        failed += sim.notes.values().filter(|note| matches!(note.fate, Fate::Failed(_))).count();
        for client in &sim.clients {
            counts.retransmissions += client.counts.retransmissions;
            counts.piggybacked += client.counts.piggybacked;
            counts.separate += client.counts.separate;
            counts.duplicates += client.counts.duplicates;
            counts.proofs += client.counts.proofs;
        }
    }
    // The link was bad enough to prove something, and not so bad that nothing was.
    let told =
        format!("{answered} of {asked} answered, {delivered} notes delivered, {failed} failed, {counts:?}");
    assert!(answered * 100 > asked * 75, "{told}");
    assert!(delivered > 5 * failed && failed > 0, "{told}");
    assert!(counts.retransmissions > 1_000 && counts.duplicates > 1_000, "{told}");
    assert!(counts.piggybacked > 1_000 && counts.separate > 1_000 && counts.proofs > 50, "{told}");
}

#[test]
fn over_a_good_link_everything_is_answered_and_nothing_sent_twice() {
    for seed in 0..40 {
        let sim = run(seed, Faults { delay: (5, 20), ..Faults::NONE }, seed % 2 == 0);
        let (asked, answered) = check(seed, &sim);
        assert_eq!(asked, answered, "seed {seed}");
        for note in sim.notes.values() {
            // One that was on its way when the client deregistered is not delivered, and that is said.
            let left =
                || matches!(sim.clients[note.peer as usize].outcomes.last(), Some((Task::Deregister, _)));
            let ended = note.fate == Fate::Failed(NoteFailure::Ended) && left();
            assert!(note.fate == Fate::Delivered || ended, "seed {seed}: {note:?}");
        }
        for client in &sim.clients {
            assert_eq!((client.counts.retransmissions, client.counts.duplicates), (0, 0), "seed {seed}");
        }
    }
}

#[test]
fn a_link_that_goes_dead_leaves_nothing_behind() {
    for seed in 0..20 {
        let mut seed_of = Seed(seed);
        let clients = clients(&mut seed_of);
        let mut sim = Sim::new(seed_of.draw(), BAD, clients);
        sim.cut_at(20_000 + seed * 1_000);
        sim.run();
        check(seed, &sim);
    }
}

#[test]
fn a_long_notification_comes_in_blocks() {
    for seed in 0..20 {
        let mut seed_of = Seed(seed);
        let client = Client::new(seed_of.draw(), 1, [Task::Observe]);
        let mut sim = Sim::new(seed_of.draw(), Faults { delay: (5, 20), ..Faults::NONE }, vec![client]);
        sim.knows_clients = seed % 2 == 0;
        sim.note_length = 3_000;
        sim.run();
        check(seed, &sim);
        assert!(!sim.notes.is_empty(), "seed {seed}");
        assert!(sim.notes.values().all(|note| note.fate == Fate::Delivered), "seed {seed}");
    }
}

#[test]
fn strangers_who_repeat_what_they_overhear_change_nothing() {
    let mut rejected = 0;
    for seed in 0..50 {
        let mut seed_of = Seed(seed);
        let clients = clients(&mut seed_of);
        let mut sim = Sim::new(seed_of.draw(), BAD, clients);
        sim.strangers_about = 3;
        sim.run();
        check(seed, &sim);
        rejected += sim.rejected;
    }
    assert!(rejected > 1_000, "{rejected}");
}

#[test]
fn a_run_comes_again_with_its_seed() {
    let outcomes =
        |seed| run(seed, BAD, true).clients.into_iter().map(|client| client.outcomes).collect::<Vec<_>>();
    assert_eq!(format!("{:?}", outcomes(3)), format!("{:?}", outcomes(3)));
}
