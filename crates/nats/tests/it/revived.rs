//! What was purged and is shown again by a server that was killed: it lets nobody go on who was closed.

use async_nats::jetstream;
use bytes::Bytes;
use landfall_event::{Incarnation, Reason, SessionId, subject};
use landfall_hub::SessionHandle;
use landfall_testkit::ledger::{self, Open};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES, everything};
use landfall_testkit::wait::{PATIENCE, eventually};
use landfall_testkit::{Mode, NatsServer, Proxy};

use crate::node::{Node, ends, hear, presence, send};

const LEASES: &str = "KV_LANDFALL_LEASES";
const CHECKPOINTS: &str = "KV_LANDFALL_CHECKPOINTS";

/// A gateway that is cut off, and one that closes its sessions.
struct Pair {
    proxy: Proxy,
    cut_off: Node,
    survivor: Node,
    session: SessionHandle,
    before: (SessionId, Incarnation),
    /// What of the first one's lease and checkpoint the store held while it was well: stream, subject, body.
    held: Vec<(&'static str, String, Bytes)>,
}

impl Pair {
    /// Its sessions are closed, and it is forgotten.
    async fn closed_and_forgotten(nats: &NatsServer) -> Self {
        let proxy = Proxy::start(([127, 0, 0, 1], nats.port()).into(), 13).await;
        let cut_off = Node::start(&format!("nats://{}", proxy.address()), "a1").await;
        let session = cut_off.open("pump").await;
        let before = (session.id(), cut_off.hub.origin().incarnation);
        let subjects = Self::subjects(&cut_off);
        let survivor = Node::start(&nats.url(), "b1").await;
        let context = jetstream::new(nats.client().await);
        // A key that was written several times is what a server shows again most readily: an older value.
        let lease = &subjects[0].1;
        let newest = async || {
            let stored = context.get_stream(LEASES).await.expect("a bucket");
            stored.get_last_raw_message_by_subject(lease).await.expect("it is there").sequence
        };
        // Two gateways write there in turn.
        let first = newest().await;
        eventually(PATIENCE, "its lease, several times", async || {
            (newest().await >= first + 6).then_some(())
        })
        .await;
        let mut held = Vec::new();
        for (stream, subject) in subjects {
            let stored = context.get_stream(stream).await.expect("a bucket");
            let last = stored.get_last_raw_message_by_subject(&subject).await.expect("it is there");
            held.push((stream, subject, last.payload));
        }
        proxy.set(Mode::Stall);
        eventually(PATIENCE, "its end", async || {
            (ends(&presence(nats).await, "gateway-lost") == 1).then_some(())
        })
        .await;
        eventually(PATIENCE, "to be forgotten", async || {
            let all = everything(&nats.url(), CHECKPOINTS).await;
            let head = &held[1].1;
            all.iter().all(|entry| entry.subject != *head).then_some(())
        })
        .await;
        Self { proxy, cut_off, survivor, session, before, held }
    }

    fn subjects(node: &Node) -> [(&'static str, String); 2] {
        let origin = node.hub.origin();
        [
            (LEASES, subject::lease_subject(&origin.instance, &origin.replica)),
            (CHECKPOINTS, subject::checkpoint_subject(&origin.incarnation, "head")),
        ]
    }

    /// It comes back, and begins anew.
    async fn begins_anew(self, nats: &NatsServer) {
        let Self { proxy, cut_off, survivor, session, before, .. } = self;
        send(&session, 1);
        proxy.set(Mode::Pass);
        hear(&session, &[1]).await;
        let now = (session.id(), cut_off.hub.origin().incarnation);
        assert!(now.0 != before.0 && now.1 != before.1, "it went on as if nothing had happened");
        session.close(Reason::ClientClosed);
        cut_off.leave().await;
        survivor.leave().await;
        ledger::assert_kept(nats, Open::None).await;
    }
}

#[tokio::test]
async fn a_lease_or_a_checkpoint_that_is_there_again_lets_nobody_go_on_who_was_closed() {
    for shown in [[true, false], [false, true], [true, true]] {
        eprintln!("lease, checkpoint: {shown:?}");
        let nats = NatsServer::start().await;
        let pair = Pair::closed_and_forgotten(&nats).await;
        let context = jetstream::new(nats.client().await);
        for ((_, subject, body), _) in pair.held.iter().zip(shown).filter(|(_, shown)| *shown) {
            let stored = context.publish(subject.clone(), body.clone()).await.expect("JetStream answers");
            stored.await.expect("it is stored");
        }
        pair.begins_anew(&nats).await;
    }
}

/// After `kill -9` a server shows older values of a key whose newest was purged, so its lease is there again.
#[tokio::test]
async fn a_server_that_was_killed_lets_nobody_go_on_who_was_closed() {
    let mut nats = NatsServer::start().await;
    let pair = Pair::closed_and_forgotten(&nats).await;
    nats.kill();
    nats.restart().await;
    for stream in [LEASES, CHECKPOINTS, CONNECTIVITY, MESSAGES] {
        let all = everything(&nats.url(), stream).await;
        let subjects: Vec<&str> = all.iter().map(|entry| entry.subject.as_str()).collect();
        eprintln!("{stream} shows {subjects:?}");
    }
    pair.begins_anew(&nats).await;
}
