//! One connection that publishes, and is never repaired.
//!
//! Owns: the inbox of acknowledgements, the form of a publish, and a client for what is asked beside it. Does not own: what is sent
//! again on the next one ([`crate::driver`]), the bytes ([`crate::line`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, Message, ReconnectToServer, ServerAddr};
use landfall_event::{EventId, Stream, subject};
use landfall_hub::{Publication, StoreError};
use tokio::time::Instant;

use crate::ack::{self, Answer};
use crate::connect::{Complaints, ConnectError, Target};
use crate::desk::Desk;
use crate::fence::Fence;
use crate::line::{Line, Lost};
use crate::message::{event_headers, event_id};
use crate::protocol::{HeaderBlock, put_publish};
use crate::reading::{self, Selection};

/// Nothing can listen on port 0 (RFC 6335, section 6), so a connection to it is refused at once.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Where a stream ends.
#[derive(Clone, Debug)]
pub(crate) struct StreamEnd {
    /// The place of the newest message; 0 when there never was one.
    pub(crate) newest: u64,
    /// How long it knows the ids that it has stored.
    pub(crate) remembers: Duration,
    /// It is kept on several servers.
    pub(crate) is_replicated: bool,
    /// All that the server says of it.
    pub(crate) info: Info,
}

/// One publishing connection.
#[derive(Debug)]
pub(crate) struct Link {
    line: Line,
    /// For requests. It is not to outlive the server's present life either.
    client: Client,
    /// What the server says on it.
    beside: Complaints,
    inbox: String,
    headers: HeaderBlock,
}

impl Link {
    /// Connects to `address`.
    pub(crate) async fn open(target: &Target, address: &ServerAddr) -> Result<Self, ConnectError> {
        let mut line = Line::open(target, address).await?;
        let beside = Complaints::of_the_server();
        let client = open_client(target, address, beside.clone()).await?;
        let inbox = client.new_inbox();
        line.out().extend_from_slice(format!("SUB {inbox}.* 1\r\n").as_bytes());
        Ok(Self { line, client, beside, inbox, headers: HeaderBlock::default() })
    }

    /// Writes one publish, which `number` names in its acknowledgement, to be sent with the next [`Self::flush`].
    /// Returns its size: headers and body.
    ///
    /// # Errors
    /// When it can never be sent.
    pub(crate) fn send(
        &mut self,
        number: u64,
        publication: &Publication,
        fence: Option<&Fence>,
    ) -> Result<usize, StoreError> {
        let Publication { id, headers: own, .. } = publication;
        let headers = &mut self.headers;
        headers.begin();
        event_headers(*id, own, fence, |name, value| headers.put(name, value))?;
        let size = publication.body.len() + headers.end();
        // The server answers a larger one by closing the connection.
        if size > self.line.largest {
            return Err(StoreError::TooLarge { size, limit: self.line.largest });
        }
        put_publish(self.line.out(), (&publication.subject, &self.inbox, number), headers, &publication.body);
        Ok(size)
    }

    /// Bytes that were written and not sent.
    pub(crate) fn unwritten(&mut self) -> usize {
        self.line.out().len()
    }

    /// Sends what was written. That it succeeds says nothing about its fate.
    pub(crate) async fn flush(&mut self) -> Result<(), Lost> {
        self.line.flush().await
    }

    /// Waits for the next acknowledgement and the number that it names. May be cut off.
    pub(crate) async fn acknowledgement(&mut self) -> Result<(u64, Answer), Lost> {
        let (line, inbox) = (&mut self.line, &self.inbox);
        let take = |subject: &[u8], status, body: &[u8]| {
            let number = subject.strip_prefix(inbox.as_bytes())?.strip_prefix(b".")?;
            Some((std::str::from_utf8(number).ok()?.parse().ok()?, ack::answer(status, body)))
        };
        line.next(take).await
    }

    /// Asks a server that has been silent for long whether it is still there.
    pub(crate) fn look(&mut self, now: Instant) -> Result<(), Lost> {
        self.line.look(now)
    }

    /// What the server has complained of on this connection.
    pub(crate) fn said(&self) -> Option<String> {
        self.line.said().or_else(|| self.beside.said())
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
                    info: info.clone(),
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
}

/// A client that ends when its connection does. The library connects again by itself and has no switch for that; it asks a callback
/// where to connect to, and this one names the real server once and afterwards an address that refuses, of which the library
/// is told to try one.
async fn open_client(
    target: &Target,
    address: &ServerAddr,
    complaints: Complaints,
) -> Result<Client, ConnectError> {
    let refused = |why: String| ConnectError::Refused { to: address.as_url_str().to_owned(), why };
    let nowhere: ServerAddr = NOWHERE.parse().map_err(|error: std::io::Error| refused(error.to_string()))?;
    let options = target.options(complaints).await?;
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
        .connect(&pool[..]);
    client.await.map_err(|error| refused(error.to_string()))
}
