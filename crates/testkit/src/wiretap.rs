//! A subscriber on everything that NATS carries: nothing that a device sends may choose a subject.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::task::JoinSet;

use crate::NatsServer;

/// Every subject on which Landfall publishes events for an instance, below `kaa.v1.events.{instance}.`.
const EVENTS: &[&str] = &[
    "endpoint.connectivity.connected",
    "endpoint.connectivity.disconnected",
    "endpoint.connectivity.dormant",
    "endpoint.connectivity.awake",
    "endpoint.connectivity.moved",
    "endpoint.message.upstream",
    "endpoint.message.downstream",
    "endpoint.access.refused",
    "endpoint.lifecycle.registered",
    "endpoint.lifecycle.appversion-updated",
    "endpoint.metadata.updated",
    "service.lifecycle.join",
    "service.lifecycle.keep-alive",
    "service.lifecycle.leave",
];

/// What NATS itself and its JetStream clients use.
const INTERNAL: &[&str] = &["$JS.", "$KV.", "_INBOX.", "$SRV."];

/// Every distinct subject that was seen.
#[derive(Debug)]
pub struct Wiretap {
    subjects: Arc<Mutex<BTreeSet<String>>>,
    client: async_nats::Client,
    _task: JoinSet<()>,
}

impl Wiretap {
    /// Listens to everything from now on.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn start(server: &NatsServer) -> Self {
        let client = server.client().await;
        let mut everything = client.subscribe(">").await.expect("a subscription");
        client.flush().await.expect("the subscription reaches the server");
        let subjects = Arc::new(Mutex::new(BTreeSet::new()));
        let mut task = JoinSet::new();
        let list = subjects.clone();
        task.spawn(async move {
            while let Some(message) = everything.next().await {
                // Inboxes are many, random and nobody's choice.
                if !message.subject.starts_with("_INBOX.") {
                    list.lock().expect("nobody panics while holding it").insert(message.subject.to_string());
                }
            }
        });
        Self { subjects, client, _task: task }
    }

    /// Every distinct subject so far.
    pub fn subjects(&self) -> BTreeSet<String> {
        self.subjects.lock().expect("nobody panics while holding it").clone()
    }

    /// The subjects so far that are none of Landfall's or of NATS itself.
    pub fn foreign(&self, instance: &str) -> Vec<String> {
        self.subjects().into_iter().filter(|subject| !is_known(subject, instance)).collect()
    }

    /// Waits until everything that the server had received before has been looked at, and finds no foreign subject.
    ///
    /// # Panics
    /// When there is one.
    pub async fn assert_clean(&self, instance: &str) {
        // A round trip: what the server had sent to this client before its PONG has been read from the socket.
        self.client.flush().await.expect("the server answers");
        let foreign = self.foreign(instance);
        assert!(foreign.is_empty(), "subjects that are nobody's: {foreign:?}");
    }
}

/// True for a subject that Landfall or NATS itself may use.
fn is_known(subject: &str, instance: &str) -> bool {
    if INTERNAL.iter().any(|prefix| subject.starts_with(prefix)) {
        return is_plain(subject);
    }
    if let Some(event) = subject.strip_prefix("kaa.v1.events.").and_then(|rest| rest.strip_prefix(instance)) {
        let event = event.strip_prefix('.').unwrap_or_default();
        // The fence of an incarnation lies beside its service events; it names a replica, never a device.
        return EVENTS.contains(&event) || event.starts_with("service.");
    }
    let service = subject.strip_prefix("kaa.v1.service.").and_then(|rest| rest.strip_prefix(instance));
    let tokens: Vec<&str> = service.unwrap_or_default().split('.').collect();
    match tokens.as_slice() {
        ["", "command", tenant, device] | ["", "admin", "kick", tenant, device] => {
            is_token(tenant) && is_token(device)
        }
        ["", "admin", "sessions"] => true,
        // What outlives a connection: one subject per device, its two tokens escaped.
        _ => subject.strip_prefix("landfall.").is_some_and(|rest| rest.split('.').all(is_token)),
    }
}

/// One token of a subject as Landfall writes it: every byte outside `[A-Za-z0-9_~-]` is `%XX`.
fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~' | b'-' | b'%'))
}

/// A subject of NATS itself: no space, control or non-ASCII byte.
fn is_plain(subject: &str) -> bool {
    subject.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn only_the_contracts_subjects_are_known() {
        assert!(is_known("kaa.v1.events.i.endpoint.message.upstream", "i"));
        for kind in ["connected", "disconnected", "moved", "dormant", "awake"] {
            assert!(is_known(&format!("kaa.v1.events.i.endpoint.connectivity.{kind}"), "i"));
            assert!(!is_known(&format!("kaa.v1.events.i.endpoint.connectivity.{kind}.a"), "i"));
        }
        assert!(is_known("kaa.v1.service.i.command.default.a%2Eb", "i"));
        assert!(is_known("$JS.API.STREAM.INFO.X", "i"));
        assert!(!is_known("kaa.v1.events.i.endpoint.message.upstream.x", "i"));
        assert!(!is_known("kaa.v1.events.j.endpoint.message.upstream", "i"));
        assert!(!is_known("kaa.v1.service.i.command.default.a.b", "i"));
        assert!(!is_known("kaa.v1.service.i.command.default.*", "i"));
        assert!(!is_known("a", "i"));
    }
}
