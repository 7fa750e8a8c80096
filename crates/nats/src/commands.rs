//! What is asked of the gateway over NATS: commands to devices, calls of an operator.
//!
//! Owns: the subscriptions, and turning a message into a request. Does not own: what a request's texts mean and how it is
//! answered (`landfall-hub`, `landfall`).
//!
//! There is no queue group: every replica hears every request, as only the replica that holds the device can serve it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use landfall_event::InstanceName;
use landfall_event::subject::{self, AdminCall};
use landfall_hub::CommandRequest;
use landfall_net::Scope;

/// Answers a request whose subject names no device.
const BAD_SUBJECT: &[u8] = br#"{"outcome":"rejected","status":"bad-subject"}"#;

/// Takes a request without waiting. A sink that has no room answers so itself.
pub type Sink<T> = Arc<dyn Fn(T) + Send + Sync>;

/// A call of an operator.
pub struct AdminRequest {
    /// What is asked.
    pub call: AdminCall,
    /// The request's body.
    pub payload: Bytes,
    /// Answers it; `None` when nobody waits.
    pub answer: Option<AdminAnswer>,
}

impl fmt::Debug for AdminRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminRequest").field("call", &self.call).finish_non_exhaustive()
    }
}

/// Sends the answer to one [`AdminRequest`], at most once.
pub struct AdminAnswer {
    client: Client,
    to: async_nats::Subject,
}

impl fmt::Debug for AdminAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminAnswer")
    }
}

impl AdminAnswer {
    /// Sends it. It is lost when the connection breaks at this moment; who asked will ask again.
    pub async fn send(self, body: Bytes) {
        if let Err(error) = self.client.publish(self.to, body).await {
            tracing::debug!(%error, "an operator's answer was not sent");
        }
    }
}

/// What has been asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// Commands handed on.
    pub commands: u64,
    /// Operators' calls handed on.
    pub calls: u64,
    /// Requests whose subject could not be read.
    pub bad_subjects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commands: AtomicU64,
    calls: AtomicU64,
    bad_subjects: AtomicU64,
}

/// The running subscriptions; they end with their scope.
#[derive(Clone, Debug)]
pub struct Requests {
    counters: Arc<Counters>,
}

/// Why requests cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot subscribe to {subject}: {why}")]
pub struct SubscribeError {
    subject: String,
    why: String,
}

impl Requests {
    /// Subscribes to the requests of `instance`. `client` subscribes again whenever it has reconnected.
    ///
    /// # Errors
    /// When the client has ended.
    pub async fn serve(
        scope: &Scope,
        client: &Client,
        instance: &InstanceName,
        commands: Sink<CommandRequest>,
        calls: Sink<AdminRequest>,
    ) -> Result<Self, SubscribeError> {
        let counters = Arc::new(Counters::default());
        let for_commands = subscribe(client, subject::command_wildcard(instance)).await?;
        let for_calls = subscribe(client, subject::admin_wildcard(instance)).await?;
        let reader =
            Reader { client: client.clone(), instance: instance.clone(), counters: Arc::clone(&counters) };
        scope.spawn(reader.clone().run(scope.clone(), for_commands, move |reader, message| {
            reader.command(message).map(|request| commands(request))
        }));
        scope.spawn(reader.run(scope.clone(), for_calls, move |reader, message| {
            reader.call(message).map(|request| calls(request))
        }));
        Ok(Self { counters })
    }

    /// What has been asked so far.
    pub fn stats(&self) -> RequestStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestStats {
            commands: read(&self.counters.commands),
            calls: read(&self.counters.calls),
            bad_subjects: read(&self.counters.bad_subjects),
        }
    }
}

async fn subscribe(client: &Client, subject: String) -> Result<Subscriber, SubscribeError> {
    let subscribed = client.subscribe(subject.clone()).await;
    subscribed.map_err(|error| SubscribeError { subject, why: error.to_string() })
}

/// Turns messages into requests.
#[derive(Clone)]
struct Reader {
    client: Client,
    instance: InstanceName,
    counters: Arc<Counters>,
}

impl Reader {
    async fn run<F>(self, scope: Scope, mut subscription: Subscriber, hand_on: F)
    where
        F: Fn(&Self, Message) -> Option<()>,
    {
        loop {
            let message = tokio::select! {
                () = scope.cancelled() => break,
                message = subscription.next() => message,
            };
            let Some(message) = message else { break };
            let reply = message.reply.clone();
            if hand_on(&self, message).is_none() {
                self.reject(reply).await;
            }
        }
        // The server is told, so that requesters learn at once that nobody listens.
        if let Err(error) = subscription.unsubscribe().await {
            tracing::debug!(%error, "unsubscribing");
        }
    }

    fn command(&self, message: Message) -> Option<CommandRequest> {
        let (tenant, device) = subject::parse_command(&self.instance, &message.subject)?;
        self.counters.commands.fetch_add(1, Ordering::Relaxed);
        let header = |name| crate::header(&message, name).map(str::to_owned);
        Some(CommandRequest {
            tenant,
            device,
            id: header("Command-Id"),
            name: header("Command-Name"),
            ttl: header("Command-Ttl"),
            wait: header("Command-Wait"),
            topic: header("Topic"),
            content_type: header("Content-Type"),
            correlation_data: header("Correlation-Data"),
            payload: message.payload,
            reply: message.reply.map(|reply| reply.to_string()),
        })
    }

    fn call(&self, message: Message) -> Option<AdminRequest> {
        let call = subject::parse_admin(&self.instance, &message.subject)?;
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let answer = message.reply.map(|to| AdminAnswer { client: self.client.clone(), to });
        Some(AdminRequest { call, payload: message.payload, answer })
    }

    async fn reject(&self, reply: Option<async_nats::Subject>) {
        self.counters.bad_subjects.fetch_add(1, Ordering::Relaxed);
        if let Some(to) = reply
            && let Err(error) = self.client.publish(to, Bytes::from_static(BAD_SUBJECT)).await
        {
            tracing::debug!(%error, "a rejection was not sent");
        }
    }
}
