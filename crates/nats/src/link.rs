//! One connection that publishes, and is never repaired.
//!
//! Owns: a client that ends when its connection does, its inbox of acknowledgements, the form of a publish.
//! Does not own: what is sent again on the next one ([`crate::driver`]).
//!
//! The client library connects again by itself: it throws away what it had not written yet, and goes on with what still
//! waits in its channel, so the stream would get messages out of order with a hole in between. A publishing connection
//! must therefore break for good. The library has no switch for that; it asks a callback where to connect to, and this
//! callback names the real server once and afterwards an address that refuses, of which the library is told to try one.
//! It then gives up, which closes the inbox, and that is the sign that the connection is dead.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{
    Client, HeaderMap, HeaderValue, Message, PublishErrorKind, ReconnectToServer, ServerAddr, Subject,
    Subscriber,
};
use futures_util::StreamExt;
use landfall_event::{EventId, Stream, subject};
use landfall_hub::{Publication, StoreError};

use crate::connect::{Complaints, ConnectError, Target};
use crate::desk::Desk;
use crate::fence::Fence;
use crate::message::{event_headers, event_id};
use crate::reading::{self, Selection};

/// Nothing can listen on port 0 (RFC 6335, section 6), so a connection to it is refused at once.
const NOWHERE: &str = "nats://127.0.0.1:0";
/// Channel places beyond the window, for what is not a publish.
const SPARE: usize = 64;
/// Subjects that are kept in the library's form; an instance has fewer kinds of events.
const SUBJECTS_KEPT: usize = 64;

/// Why a publish did not leave.
#[derive(Debug)]
pub(crate) enum SendError {
    /// It never can.
    Refused(StoreError),
    /// The connection is gone.
    Lost,
}

/// Where a stream ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEnd {
    /// The place of the newest message; 0 when there never was one.
    pub(crate) newest: u64,
    /// How long it knows the ids that it has stored.
    pub(crate) remembers: Duration,
    /// It is kept on several servers.
    pub(crate) is_replicated: bool,
}

/// One publishing connection.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    acknowledgements: Subscriber,
    inbox: String,
    largest: usize,
    subjects: Vec<(Arc<str>, Subject)>,
}

impl Link {
    /// Connects to `address` for a window of `in_flight` messages: so many fit into the library's channels that sending
    /// never waits, and no acknowledgement is dropped.
    pub(crate) async fn open(
        target: &Target,
        address: &ServerAddr,
        in_flight: usize,
    ) -> Result<Self, ConnectError> {
        let refused = |why: String| ConnectError::Refused { to: address.as_url_str().to_owned(), why };
        let nowhere: ServerAddr =
            NOWHERE.parse().map_err(|error: std::io::Error| refused(error.to_string()))?;
        let options = target.options(Complaints::of_the_server()).await?;
        let used = Arc::new(AtomicBool::new(false));
        let pool = [address.clone(), nowhere.clone()];
        let real = address.clone();
        let client = options
            .max_reconnects(1)
            .ignore_discovered_servers()
            .reconnect_to_server_callback(move |_, _| {
                let addr = if used.swap(true, Ordering::Relaxed) { nowhere.clone() } else { real.clone() };
                std::future::ready(Some(ReconnectToServer { addr, delay: Some(Duration::ZERO) }))
            })
            .client_capacity(in_flight + SPARE)
            .subscription_capacity(in_flight + SPARE)
            .skip_subject_validation(true)
            .connect(&pool[..])
            .await
            .map_err(|error| refused(error.to_string()))?;
        let inbox = client.new_inbox();
        let acknowledgements =
            client.subscribe(format!("{inbox}.*")).await.map_err(|error| refused(error.to_string()))?;
        let largest = client.server_info().max_payload;
        Ok(Self { client, acknowledgements, inbox, largest, subjects: Vec::new() })
    }

    /// Publishes one message, which `number` names in its acknowledgement. An `Ok` says nothing about its fate.
    pub(crate) async fn send(
        &mut self,
        number: u64,
        publication: &Publication,
        fence: Option<&Fence>,
    ) -> Result<(), SendError> {
        let Publication { id, stream, headers, .. } = publication;
        let headers = event_headers(*id, *stream, headers, fence).map_err(SendError::Refused)?;
        let size = publication.body.len() + wire_length(&headers);
        // The server answers a larger one by closing the connection.
        if size > self.largest {
            return Err(SendError::Refused(StoreError::TooLarge { size, limit: self.largest }));
        }
        let subject = self.subject(&publication.subject);
        let mut reply = String::with_capacity(self.inbox.len() + 21);
        reply.push_str(&self.inbox);
        // Writing to a String cannot fail.
        let _ = write!(reply, ".{number}");
        let body = publication.body.clone();
        let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, body).await;
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::Send => SendError::Lost,
            PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                SendError::Refused(StoreError::Refused(error.to_string()))
            }
        })
    }

    /// Waits for the next acknowledgement and the number that it names; `None` when the connection is dead.
    pub(crate) async fn acknowledgement(&mut self) -> Option<(u64, Message)> {
        loop {
            let message = self.acknowledgements.next().await?;
            let number = message.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
            if let Some(number) = number {
                return Some((number, message));
            }
        }
    }

    /// For requests beside the publishing.
    pub(crate) fn desk(&self) -> Desk {
        Desk::new(self.client.clone())
    }

    /// Where the stream ends now; `None` when there is no such stream.
    pub(crate) async fn end_of(&self, stream: Stream) -> Result<Option<StreamEnd>, async_nats::Error> {
        let context = jetstream::new(self.client.clone());
        match context.get_stream(subject::stream_name(stream)).await {
            Ok(stream) => {
                let info = stream.cached_info();
                Ok(Some(StreamEnd {
                    newest: info.state.last_sequence,
                    remembers: info.config.duplicate_window,
                    is_replicated: info.config.num_replicas > 1,
                }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(None)
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Hands the ids of the stream's messages behind one place, up to another, to `each`.
    pub(crate) async fn ids_within(
        &self,
        stream: Stream,
        (behind, last): (u64, u64),
        mut each: impl FnMut(EventId),
    ) -> Result<(), async_nats::Error> {
        let context = jetstream::new(self.client.clone());
        let stream = context.get_stream_no_info(subject::stream_name(stream)).await?;
        let take = |_, message: Message| {
            if let Some(id) = event_id(&message) {
                each(id);
            }
        };
        let selection = Selection::behind(behind).before(last.saturating_add(1));
        reading::read(&stream, selection.headers_only(), take).await
    }

    /// The subject in the library's form, which is cheap to clone.
    fn subject(&mut self, subject: &Arc<str>) -> Subject {
        if let Some((_, kept)) = self.subjects.iter().find(|(known, _)| Arc::ptr_eq(known, subject)) {
            return kept.clone();
        }
        let made = Subject::from(&**subject);
        if self.subjects.len() < SUBJECTS_KEPT {
            self.subjects.push((Arc::clone(subject), made.clone()));
        }
        made
    }
}

/// Bytes of the headers as NATS counts them: `NATS/1.0`, one line for each, an empty line.
fn wire_length(headers: &HeaderMap) -> usize {
    let line = |name: &str, value: &HeaderValue| name.len() + value.as_str().len() + 4;
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| line(name, value))
    });
    12 + lines.sum::<usize>()
}
