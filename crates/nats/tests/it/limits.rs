//! What a stream loses is nobody's end: its limits, a purge, one message that is deleted, a stream that is made again.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::State;
use bytes::Bytes;
use landfall_event::{Incarnation, Reason, Stream, subject};
use landfall_hub::{SessionHandle, Uplink};
use landfall_nats::streams::{self, Keep, StreamSettings};
use landfall_nats::trim;
use landfall_testkit::ledger::{self, Open};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, everything};
use landfall_testkit::wait::{PATIENCE, eventually};
use landfall_testkit::{Mode, NatsServer, Proxy};

use crate::node::{Node, churn, ends, hear, presence, send, uplink};

/// Streams of this size.
async fn small(nats: &NatsServer, max_bytes: u64) -> Context {
    let context = async_nats::jetstream::new(nats.client().await);
    let keep = Keep { max_bytes, ..Keep::default() };
    let settings = StreamSettings { connectivity: keep, messages: keep, ..StreamSettings::default() };
    streams::establish(&context, &settings).await.expect("streams");
    context
}

async fn state(context: &Context, stream: &str) -> State {
    context.get_stream(stream).await.expect("a stream").cached_info().state.clone()
}

/// A session at rest: who it is, to be asked again later.
struct AtRest {
    session: SessionHandle,
    id: landfall_event::SessionId,
    incarnation: Incarnation,
}

impl AtRest {
    async fn open(node: &Node) -> Self {
        let session = node.open("at-rest").await;
        let (id, incarnation) = (session.id(), node.hub.origin().incarnation);
        Self { session, id, incarnation }
    }

    /// Nobody has ended it, and it still speaks.
    async fn is_as_it_was(&self, node: &Node, n: u64) {
        send(&self.session, n);
        hear(&self.session, &[n]).await;
        assert_eq!(self.session.id(), self.id, "it has not begun anew");
        assert_eq!(node.hub.origin().incarnation, self.incarnation, "nobody took the gateway for gone");
    }
}

/// Sends messages of this size, without waiting for one another, until so many bytes were sent.
async fn flood(session: &SessionHandle, size: usize, mut bytes: usize) {
    let payload = Bytes::from(vec![b'x'; size]);
    while bytes > 0 {
        let permit = session.admit(size).await;
        session
            .upstream(Uplink { payload: payload.clone(), ..uplink(0) }, None, permit)
            .expect("an open session");
        bytes = bytes.saturating_sub(size);
    }
}

#[tokio::test]
async fn one_device_at_full_rate_ends_no_session_of_another() {
    const WHOLE: u64 = 4 << 20;
    let nats = NatsServer::start().await;
    let context = small(&nats, WHOLE).await;
    let node = Node::start(&nats.url(), "a1").await;
    let rest = AtRest::open(&node).await;
    let loud = node.open("loud").await;
    // Large messages and small ones, each twelve times the whole stream.
    for size in [250_000, 2_000] {
        flood(&loud, size, 12 << 22).await;
        node.hub.caught_up().await.expect("everything is stored");
        let held = state(&context, MESSAGES).await;
        assert!(held.bytes <= WHOLE && held.first_sequence > 1, "it has turned over: {held:?}");
        rest.is_as_it_was(&node, 1).await;
    }
    assert_eq!(node.bus.stats().fences_restored, 0, "no fence was ever discarded");
    loud.close(Reason::ClientClosed);
    rest.session.close(Reason::ClientClosed);
    node.leave().await;
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 0);
}

async fn flap(node: &Node, lane: usize) {
    for _ in 0..20 {
        node.open(&format!("flapping-{lane}")).await.close(Reason::ClientClosed);
    }
}

#[tokio::test]
async fn a_device_that_flaps_at_full_rate_hides_no_session_from_a_repair() {
    let nats = NatsServer::start().await;
    let context = small(&nats, 1 << 20).await;
    let node = Node::start(&nats.url(), "a1").await;
    let rest = AtRest::open(&node).await;
    // A few thousand events are the whole ledger.
    loop {
        futures_util::future::join_all((0..16).map(|lane| flap(&node, lane))).await;
        let held = state(&context, CONNECTIVITY).await;
        if held.last_sequence > held.messages * 6 {
            break;
        }
    }
    rest.is_as_it_was(&node, 1).await;
    assert_eq!(node.bus.stats().fences_restored, 0, "no fence was ever discarded");
    let begun = presence(&nats).await;
    assert!(!begun.iter().any(|event| event.is_about("at-rest")), "its beginning is discarded");
    node.die().await;
    drop(rest);
    let next = Node::start(&nats.url(), "a1").await;
    let events = presence(&nats).await;
    let told = |event: &&landfall_testkit::recorder::Seen| {
        event.kind() == "disconnected" && event.json.to_string().contains("at-rest")
    };
    assert_eq!(events.iter().filter(told).count(), 1, "its end is told, once");
    next.leave().await;
}

/// What an operator may do to a stream while a gateway lives.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Purge,
    /// All but what was stored last.
    PurgeOlder,
    /// The fence, as a message like any other.
    DeleteOne,
    MakeAgain,
}

async fn harm(context: &Context, name: &str, harm: Harm) {
    let mut stream = context.get_stream(name).await.expect("a stream");
    match harm {
        Harm::Purge => drop(stream.purge().await.expect("a purge")),
        Harm::PurgeOlder => drop(stream.purge().keep(1).await.expect("a purge")),
        Harm::DeleteOne => {
            let fence = stream.get_last_raw_message_by_subject("landfall.fence.>").await.expect("a fence");
            stream.delete_message(fence.sequence).await.expect("its end");
        }
        Harm::MakeAgain => {
            let config = stream.info().await.expect("its state").config.clone();
            context.delete_stream(name).await.expect("its end");
            context.create_stream(config).await.expect("a stream");
        }
    }
}

#[tokio::test]
async fn whatever_a_stream_loses_a_gateway_that_lives_goes_on() {
    for what in [Harm::Purge, Harm::PurgeOlder, Harm::DeleteOne, Harm::MakeAgain] {
        for name in [MESSAGES, CONNECTIVITY] {
            eprintln!("{what:?} of {name}");
            let nats = NatsServer::start().await;
            let context = small(&nats, 64 << 20).await;
            let node = Node::start(&nats.url(), "a1").await;
            let rest = AtRest::open(&node).await;
            let many = node.open_many(50).await;
            let loud = node.open("loud").await;
            // Under load: what is in flight meets it.
            let before = node.bus.stats().stored;
            let ((), ()) = tokio::join!(flood(&loud, 2_000, 4 << 20), async {
                eventually(PATIENCE, "load", async || (node.bus.stats().stored > before + 200).then_some(()))
                    .await;
                harm(&context, name, what).await;
            });
            for n in 1..=3 {
                rest.is_as_it_was(&node, n).await;
            }
            let stats = node.bus.stats();
            assert_eq!((stats.refused, stats.dropped), (0, 0), "nothing was lost on the way: {stats:?}");
            for session in many {
                session.close(Reason::ClientClosed);
            }
            loud.close(Reason::ClientClosed);
            rest.session.close(Reason::ClientClosed);
            node.leave().await;
            assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 0);
        }
    }
}

#[tokio::test]
async fn a_crowd_lives_through_a_purge_of_every_stream() {
    let nats = NatsServer::start().await;
    let context = small(&nats, 64 << 20).await;
    let node = Node::start(&nats.url(), "a1").await;
    let incarnation = node.hub.origin().incarnation;
    let crowd = node.open_many(820).await;
    let all =
        ["KV_LANDFALL_LEASES", MESSAGES, CONNECTIVITY, "KV_LANDFALL_CHECKPOINTS", MESSAGES, CONNECTIVITY];
    for name in all {
        crowd.iter().for_each(|session| send(session, 7));
        harm(&context, name, Harm::Purge).await;
        for session in &crowd {
            hear(session, &[7]).await;
        }
        // Buckets and streams that are purged in one moment leave nothing to go by.
        eventually(PATIENCE, "a lease", async || {
            (state(&context, "KV_LANDFALL_LEASES").await.messages > 0).then_some(())
        })
        .await;
        assert_eq!(node.hub.origin().incarnation, incarnation, "after the purge of {name}");
    }
    // The ledger has forgotten who is present, so a checkpoint says it.
    let head = eventually(PATIENCE, "a checkpoint", async || {
        let all = everything(&nats.url(), "KV_LANDFALL_CHECKPOINTS").await;
        all.into_iter().find(|entry| entry.subject.ends_with(".head") && entry.number("round") > 0)
    })
    .await;
    assert!(head.number("parts") > 0, "{head:?}");
    node.die().await;
    drop(crowd);
    let next = Node::start(&nats.url(), "a1").await;
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 820, "they are closed all the same");
    next.leave().await;
}

#[tokio::test]
async fn what_is_purged_while_its_gateway_is_gone_is_closed_all_the_same() {
    let nats = NatsServer::start().await;
    let context = small(&nats, 64 << 20).await;
    let node = Node::start(&nats.url(), "a1").await;
    let open = node.open_many(40).await;
    eventually(PATIENCE, "a checkpoint of them", async || {
        churn(&node, 10).await;
        let all = everything(&nats.url(), "KV_LANDFALL_CHECKPOINTS").await;
        all.iter().any(|entry| entry.subject.ends_with(".head") && entry.number("round") > 0).then_some(())
    })
    .await;
    node.die().await;
    drop(open);
    for name in [MESSAGES, CONNECTIVITY] {
        harm(&context, name, Harm::Purge).await;
    }
    let next = Node::start(&nats.url(), "a1").await;
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 40, "there is no fence to find them by");
    next.leave().await;
}

/// A purge takes the fence by which a gateway was fenced out, too.
#[tokio::test]
async fn who_was_closed_and_finds_no_fence_begins_anew() {
    let nats = NatsServer::start().await;
    let context = small(&nats, 64 << 20).await;
    let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 13).await;
    let cut_off = Node::start(&format!("nats://{}", proxy.address()), "a1").await;
    let survivor = Node::start(&nats.url(), "b1").await;
    let session = cut_off.open("pump").await;
    let (before, incarnation) = (session.id(), cut_off.hub.origin().incarnation);
    proxy.set(Mode::Stall);
    send(&session, 1);
    eventually(PATIENCE, "its end", async || {
        (ends(&presence(&nats).await, "gateway-lost") == 1).then_some(())
    })
    .await;
    for name in [MESSAGES, CONNECTIVITY] {
        harm(&context, name, Harm::Purge).await;
    }
    proxy.set(Mode::Pass);
    hear(&session, &[1]).await;
    assert_ne!((session.id(), cut_off.hub.origin().incarnation), (before, incarnation));
    session.close(Reason::ClientClosed);
    cut_off.leave().await;
    survivor.leave().await;
    ledger::assert_kept(&nats, Open::None).await;
}

#[tokio::test]
async fn fences_are_not_left_behind_by_their_renewal() {
    let nats = NatsServer::start().await;
    small(&nats, 1 << 20).await;
    let node = Node::start(&nats.url(), "a1").await;
    let (origin, loud) = (node.hub.origin(), node.open("loud").await);
    flood(&loud, 2_000, 8 << 20).await;
    node.hub.caught_up().await.expect("everything is stored");
    let fence = subject::fence(Stream::Messages, &origin.instance, &origin.incarnation);
    let left = everything(&nats.url(), MESSAGES).await;
    let fences = left.iter().filter(|message| message.subject == fence).count();
    assert!((1..=5).contains(&fences), "one for each quarter of what is held, not {fences}");
    loud.close(Reason::ClientClosed);
    node.leave().await;
}

#[tokio::test]
async fn a_trim_leaves_what_a_repair_would_read() {
    let nats = NatsServer::start().await;
    let context = small(&nats, 64 << 20).await;
    let node = Node::start(&nats.url(), "a1").await;
    let rest = AtRest::open(&node).await;
    let loud = node.open("loud").await;
    flood(&loud, 2_000, 1 << 20).await;
    node.hub.caught_up().await.expect("everything is stored");
    let client = nats.client().await;
    let later = landfall_hub::unix_now() + 60_000;
    let messages = trim(client.clone(), Stream::Messages, later).await.expect("JetStream answers");
    assert!(messages.messages > 500 && messages.bytes > 1 << 20 && !messages.is_held, "{messages:?}");
    assert_eq!(state(&context, MESSAGES).await.messages, 0);
    let ledger = trim(client.clone(), Stream::Connectivity, later).await.expect("JetStream answers");
    assert!(ledger.is_held, "no checkpoint has the session at rest yet: {ledger:?}");
    let kept = trim(client, Stream::Messages, 1).await.expect("JetStream answers");
    assert_eq!((kept.messages, kept.bytes), (0, 0), "nothing is that old");
    rest.is_as_it_was(&node, 1).await;
    node.die().await;
    drop((rest, loud));
    let next = Node::start(&nats.url(), "a1").await;
    assert_eq!(ends(&presence(&nats).await, "gateway-lost"), 2);
    next.leave().await;
}
