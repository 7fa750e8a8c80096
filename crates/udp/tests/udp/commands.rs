//! Commands as datagrams.

use std::time::Duration;

use crate::world::{KEY, World, world, world_with};

fn outcomes(world: &World) -> Vec<String> {
    let word = |e: &serde_json::Value| format!("{} {}", e["commandId"], e["outcome"]).replace('"', "");
    world.events("downstream").iter().map(word).collect()
}

#[tokio::test]
async fn a_command_goes_to_a_device_that_was_heard_lately() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack")).await;
    world.command("a", "c 1%", "delivered", b"now\n!");
    assert_eq!(device.receive().await, "LF1 cmd id=c%201%25 name=re%20boot\nnow\n!");
    world.until("the outcome", |world| outcomes(world) == ["c 1% delivered"]).await;
    world.command("a", "c2", "acknowledged", b"");
    assert_eq!(device.receive().await, "LF1 cmd id=c2 name=re%20boot\n");
    device.ask(format!("LF1 a key={KEY} got=c2 ack")).await;
    assert_eq!(outcomes(&world)[1..], ["c2 acknowledged"]);
    world.command("a", "c3", "answered", b"");
    device.receive().await;
    device.ask(format!("LF1 a key={KEY} got=c3 ack")).await;
    let ack = device.ask(format!("LF1 a key={KEY} res=c3 status=all%20well seq=4 ack\nit is done")).await;
    assert_eq!(ack, "LF1 ack seq=4");
    assert_eq!(outcomes(&world)[2..], ["c3 answered"]);
    let answer = &world.events("downstream")[2];
    assert_eq!(
        (&answer["status"], &answer["response"]),
        (&"all well".into(), &"it is done".into()),
        "{answer}"
    );
    assert!(world.payloads().is_empty());
    // An answer that nobody waits for is a message.
    device.ask(format!("LF1 a key={KEY} res=c9 status=200 ack\nlate")).await;
    assert_eq!(world.events("upstream")[0]["topic"], "command/res/c9");
}

#[tokio::test]
async fn a_command_for_a_device_that_may_not_hear_it_waits_for_the_next_word() {
    let world = world_with(|_| {}, |udp| udp.reach = Duration::ZERO).await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack")).await;
    for id in ["c1", "c2"] {
        world.command("a", id, "delivered", b"");
    }
    device.fence().await;
    assert!(outcomes(&world).is_empty());
    device.send(format!("LF1 a key={KEY}")).await;
    assert_eq!(device.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
    assert_eq!(device.receive().await, "LF1 cmd id=c2 name=re%20boot\n");
    world.until("the outcomes", |world| outcomes(world) == ["c1 delivered", "c2 delivered"]).await;
}

#[tokio::test]
async fn a_sleeping_device_gets_its_commands_when_it_speaks() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} sleep=60 ack")).await;
    world.until("it sleeps", |world| world.events("dormant").len() == 1).await;
    world.command("a", "c1", "delivered", b"");
    device.fence().await;
    assert!(outcomes(&world).is_empty());
    // Also when its word is that it goes on sleeping.
    device.send(format!("LF1 a key={KEY} sleep=60")).await;
    assert_eq!(device.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
    world.until("it sleeps again", |world| world.events("dormant").len() == 2).await;
}

#[tokio::test]
async fn a_command_for_a_device_that_fell_silent_goes_out_with_its_next_word() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} hb=1 ack")).await;
    world.until("the end", |world| world.events("disconnected").len() == 1).await;
    world.command("a", "c1", "delivered", b"");
    device.send(format!("LF1 a key={KEY}")).await;
    assert_eq!(device.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
    world.until("the outcome", |world| outcomes(world) == ["c1 delivered"]).await;
}

#[tokio::test]
async fn a_command_follows_a_device_that_moves() {
    let world = world().await;
    let other = world.listen("udp://127.0.0.1:0").await;
    let (here, there) = (world.device().await, crate::world::Device::of(other).await);
    here.ask(format!("LF1 a key={KEY} ack")).await;
    there.ask(format!("LF1 a key={KEY} ack")).await;
    world.command("a", "c1", "delivered", b"");
    assert_eq!(there.receive().await, "LF1 cmd id=c1 name=re%20boot\n");
}

#[tokio::test]
async fn what_cannot_be_sent_is_rejected() {
    let world = world().await;
    let device = world.device().await;
    device.ask(format!("LF1 a key={KEY} ack")).await;
    world.command("a", "c1", "delivered", &[b'x'; 65_500]);
    world.until("the outcome", |world| outcomes(world) == ["c1 rejected"]).await;
    assert_eq!(world.events("downstream")[0]["status"], "too-large");
    world.command("a", "c2", "delivered", &[b'x'; 60_000]);
    assert_eq!(device.receive().await.len(), 60_000 + "LF1 cmd id=c2 name=re%20boot\n".len());
}
