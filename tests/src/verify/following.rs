//! `--follow`: what is wrong is told as it is found, the whole at the end.

use landfall_testkit::process::Signal;
use landfall_testkit::{Gateway, PATIENCE};
use serde_json::Value;

use super::Forger;

#[tokio::test]
async fn a_fault_is_told_while_it_goes_on() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    let one = gateway.session("early", 1);
    gateway.begins(&one).await;
    gateway.ends(&one, 2).await;
    let url = forger.nats.url();
    let builder = Gateway::builder();
    let people = builder.spawn(&["verify", "--follow", "--nats", &url, "--instance", "i"]);
    let machines = builder.spawn(&["verify", "--follow", "--json", "--nats", &url, "--instance", "i"]);
    people.logged("following", PATIENCE).await;
    gateway.ends(&one, 3).await;
    let line = people.logged("closed-twice", PATIENCE).await;
    assert!(line.contains("early@default"), "{line}");
    let line = machines.logged("closed-twice", PATIENCE).await;
    let found: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&found["kind"], &found["streamSeq"]), (&"closed-twice".into(), &4.into()), "{line}");
    // A message of a session that begins while it follows is not held against what it read before.
    let two = gateway.session("late", 1);
    gateway.begins(&two).await;
    gateway.message(&two, 1).await;
    gateway.message(&gateway.session("nobody", 1), 1).await;
    people.logged("without-connected", PATIENCE).await;
    machines.logged("without-connected", PATIENCE).await;
    assert!(people.is_running() && machines.is_running());
    people.signal(Signal::INT);
    machines.signal(Signal::TERM);
    for process in [&people, &machines] {
        assert_eq!(process.exited(PATIENCE).await.code(), Some(1), "{}", process.log());
    }
    let said = people.logged("2 violations", PATIENCE).await;
    assert!(!said.is_empty() && people.output().contains("connected"), "{}", people.output());
    let whole: Value = serde_json::from_str(machines.output().lines().last().unwrap()).unwrap();
    assert_eq!(
        (&whole["violationCount"], &whole["connected"], &whole["messages"]),
        (&2.into(), &2.into(), &2.into())
    );
}

#[tokio::test]
async fn where_nothing_is_wrong_the_end_is_well() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    let url = forger.nats.url();
    let following = Gateway::builder().spawn(&["verify", "--follow", "--nats", &url, "--instance", "i"]);
    following.logged("following", PATIENCE).await;
    let one = gateway.session("d", 1);
    gateway.begins(&one).await;
    gateway.message(&one, 1).await;
    // It is told to end at once: what came until then is in its summary.
    following.signal(Signal::TERM);
    assert_eq!(following.exited(PATIENCE).await.code(), Some(0), "{}", following.log());
    following.logged("1  open now", PATIENCE).await;
    following.logged("nothing is wrong", PATIENCE).await;
}
