//! One MQTT connection: the loop between a socket, the protocol machine and the session.
//!
//! Owns: buffers, waiting, the end of the connection. Does not own: protocol rules (`landfall-mqtt-core`), what a packet
//! makes happen (`act.rs`), commands (`outbound.rs`), letting the client in (`handshake.rs`), what a session's end publishes (`landfall-hub`).
//!
//! An idle connection holds no buffer: bytes are read when there are some, and both buffers and [`Busy`] are given back
//! when they are empty.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use landfall_event::{CommandId, Reason};
use landfall_hub::{BoxFuture, Command, Mail, Permit, SessionHandle, Settled};
use landfall_mqtt_core::{
    Connection, DeliveryToken, DisconnectWhy, Fault, Goodbye, Inbound, PublishFailure, Token,
};
use landfall_net::{Permit as Place, Stream};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Sleep;

use crate::flights::Flying;
use crate::listener::MqttServer;
use crate::owed::Owed;
use crate::sessions::{Hold, Queued};

/// With more than this waiting to be written, nothing more is read from the client and no command is sent to it.
pub(crate) const WRITE_HIGH: usize = 64 * 1024;
/// Payload bytes of messages that wait for the publish window, per connection.
const PARKED_BYTES: usize = 64 * 1024;
/// How long a farewell may take to get out.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// Why the connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said so.
    Goodbye(Goodbye),
    /// The client broke the protocol; the answer is in `out`.
    Fault(Fault),
    /// The transport is gone.
    Lost(Reason),
    /// The gateway has ended the session.
    Gateway(Reason),
    /// The connection ends the session, and the client is told why.
    Told(Reason),
}

/// What woke the connection.
enum Wake {
    Mail(Mail),
    /// Messages that an earlier connection of the session took are settled.
    Settled(Settled),
    Read(usize),
    Wrote,
    Admitted(Permit),
    Stalled,
    /// A packet has taken too long.
    Crawls,
    Broken(io::Error),
}

/// What only a busy connection needs.
#[derive(Default)]
pub(crate) struct Busy {
    /// Messages that wait for the publish window, in order.
    pub(crate) parked: VecDeque<Inbound>,
    pub(crate) parked_bytes: usize,
    pub(crate) admission: Option<BoxFuture<'static, Permit>>,
    /// Commands in flight, by the machine's name for them.
    pub(crate) flights: HashMap<DeliveryToken, CommandId>,
    /// Commands in `out`: payload bytes, and whether the client will acknowledge.
    pub(crate) unwritten: Vec<(CommandId, usize, bool)>,
    /// A command that finds no room in the client's window, with its place in the store if it has waited there.
    pub(crate) stuck: Option<(Arc<Command>, Option<Queued>)>,
    /// Commands that waited while the device was away.
    pub(crate) queue: VecDeque<Queued>,
    /// Those of them that went out: they leave the store when the session's state with them is there.
    pub(crate) leaving: Vec<Queued>,
    /// What an earlier connection had under way, and this one could not take up.
    pub(crate) strays: Vec<Flying>,
    /// What earlier connections of the session had on their way to the store.
    pub(crate) owed: Vec<Owed>,
    /// Messages with an acknowledgement that the session's end has cut off: they never will be stored.
    pub(crate) untaken: Vec<Token>,
    /// Runs while the client does not read.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while a packet has come in part.
    pub(crate) crawl: Option<Pin<Box<Sleep>>>,
}

impl Busy {
    fn is_idle(&self) -> bool {
        self.parked.is_empty()
            && self.admission.is_none()
            && self.flights.is_empty()
            && self.unwritten.is_empty()
            && self.stuck.is_none()
            && self.queue.is_empty()
            && self.leaving.is_empty()
            && self.strays.is_empty()
            && self.owed.is_empty()
            && self.untaken.is_empty()
            && self.stall.is_none()
            && self.crawl.is_none()
    }
}

/// A connection whose client has been let in.
pub(crate) struct Conn<S> {
    pub(crate) server: Arc<MqttServer>,
    pub(crate) stream: S,
    /// Its place among the connections.
    _place: Place,
    pub(crate) core: Connection,
    pub(crate) input: BytesMut,
    pub(crate) out: BytesMut,
    pub(crate) handle: SessionHandle,
    /// Of a session that outlives the connection.
    pub(crate) hold: Option<Box<Hold>>,
    pub(crate) busy: Option<Box<Busy>>,
    /// The revision of the session's state that is in the store.
    pub(crate) kept: Option<u32>,
    held: bool,
    /// A layer above TCP may still hold bytes.
    flushing: bool,
    /// Writing has failed.
    pub(crate) deaf: bool,
}

impl<S: Stream> Conn<S> {
    pub(crate) fn new(
        server: Arc<MqttServer>,
        (stream, permit, core): (S, Place, Connection),
        (input, out): (BytesMut, BytesMut),
        (handle, hold): (SessionHandle, Option<Box<Hold>>),
        (queue, flying, owed): (VecDeque<Queued>, Vec<Flying>, Vec<Owed>),
    ) -> Box<Self> {
        handle.hold(false);
        handle.outlive(hold.is_some());
        let has_work = !queue.is_empty() || !owed.is_empty();
        let busy = has_work.then(|| Box::new(Busy { queue, owed, ..Busy::default() }));
        let mut conn = Box::new(Self {
            server,
            stream,
            _place: permit,
            core,
            input,
            out,
            handle,
            hold,
            busy,
            held: false,
            flushing: false,
            deaf: false,
            kept: None,
        });
        flying.into_iter().for_each(|flying| conn.take_up(flying));
        conn
    }

    /// Serves the client to its end.
    pub(crate) async fn run(mut self: Box<Self>) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        Box::pin((*self).finish(end)).await;
    }

    async fn step(&mut self) -> Result<(), End> {
        self.process()?;
        self.send_queued();
        // What changed is in the store before what it promises is in the socket: SUBACK, PUBREC.
        let revision = Some(self.core.state_revision());
        if self.kept != revision && self.core.session_expiry() > 0 {
            self.kept = revision;
            if Box::pin(self.keep()).await {
                self.release();
            }
        }
        self.rest();
        match std::future::poll_fn(|cx| self.poll_wake(cx)).await {
            Wake::Mail(mail) => self.on_mail(mail),
            Wake::Settled(news) => self.on_settled(news),
            Wake::Read(0) => Err(End::Lost(self.reason_of_eof())),
            Wake::Read(_) => {
                // Whatever the bytes are: a device that sends a large packet slowly is there.
                self.handle.seen();
                Ok(())
            }
            Wake::Wrote => {
                self.on_written();
                Ok(())
            }
            Wake::Admitted(permit) => self.on_admitted(permit),
            Wake::Stalled => Err(End::Told(Reason::SlowConsumer)),
            Wake::Crawls => {
                let bytes = self.input.len();
                tracing::debug!(session = %self.handle.id(), bytes, "a packet is not complete within mqtt.packet_timeout");
                Err(End::Told(Reason::ProtocolError))
            }
            Wake::Broken(error) => {
                tracing::debug!(session = %self.handle.id(), %error, "connection broken");
                Err(End::Lost(Reason::ConnectionLost))
            }
        }
    }

    pub(crate) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
        if self.busy.as_ref().is_some_and(|busy| busy.is_idle()) {
            self.busy = None;
        }
        let hold = self.is_blocked();
        if hold && let Some(busy) = &mut self.busy {
            // What is not read cannot come.
            busy.crawl = None;
        }
        if hold != self.held {
            self.held = hold;
            self.handle.hold(hold);
        }
    }

    /// So much waits for the publish window that nothing more is read.
    pub(crate) fn is_blocked(&self) -> bool {
        let limit = self.server.parked_limit();
        let full = |busy: &Busy| busy.parked.len() >= limit || busy.parked_bytes >= PARKED_BYTES;
        self.core.blocked() || self.busy.as_deref().is_some_and(full)
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let waits_for_room =
            self.busy.as_ref().is_some_and(|busy| busy.stuck.is_some() || !busy.queue.is_empty());
        let takes_commands = !waits_for_room && !self.deaf && self.out.len() < WRITE_HIGH;
        if let Poll::Ready(mail) = self.handle.poll_mail(cx, takes_commands) {
            return Poll::Ready(Wake::Mail(mail));
        }
        let owed = self.busy.as_ref().into_iter().flat_map(|busy| &busy.owed);
        for owed in owed {
            if let Poll::Ready(news) = owed.remains.poll_settled(cx) {
                return Poll::Ready(Wake::Settled(news));
            }
        }
        if let Poll::Ready(wake) = self.poll_output(cx) {
            return Poll::Ready(wake);
        }
        if let Some(admission) = self.busy.as_mut().and_then(|busy| busy.admission.as_mut())
            && let Poll::Ready(permit) = admission.as_mut().poll(cx)
        {
            self.busy().admission = None;
            return Poll::Ready(Wake::Admitted(permit));
        }
        if self.is_blocked() || self.out.len() >= WRITE_HIGH {
            return Poll::Pending;
        }
        match self.poll_in(cx) {
            Poll::Ready(read) => Poll::Ready(read.map_or_else(Wake::Broken, Wake::Read)),
            Poll::Pending if self.input.is_empty() => Poll::Pending,
            Poll::Pending => self.poll_crawl(cx).map(|()| Wake::Crawls),
        }
    }

    /// Ready when the packet that has come in part has taken too long.
    fn poll_crawl(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.server.config().packet_timeout;
        let crawl = self.busy().crawl.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        crawl.as_mut().poll(cx)
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if !self.deaf && (!self.out.is_empty() || self.flushing) {
            match self.poll_out(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Wake::Wrote),
                // The client does not hear any more, but what it said before may still lie there: a DISCONNECT, perhaps.
                Poll::Ready(Err(_)) => self.deaf = true,
                Poll::Pending => return self.poll_stall(cx).map(|()| Wake::Stalled),
            }
        }
        if self.deaf {
            self.out.clear();
        }
        Poll::Pending
    }

    /// Reads what has come; `input` gets memory only then.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        landfall_net::poll_receive(&mut self.stream, cx, &mut self.input)
    }

    /// Writes all of `out` and flushes it.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wrote = false;
        self.flushing = true;
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.out.advance(bytes);
                    wrote = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if wrote && let Some(busy) = &mut self.busy {
                        busy.stall = None;
                    }
                    return Poll::Pending;
                }
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushing = false;
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has read nothing for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.server.config().write_timeout;
        let stall = self.busy().stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        stall.as_mut().poll(cx)
    }

    fn on_written(&mut self) {
        let Some(busy) = &mut self.busy else { return };
        busy.stall = None;
        for (command, bytes, can_acknowledge) in std::mem::take(&mut busy.unwritten) {
            self.handle.sent(&command, bytes, can_acknowledge);
        }
    }

    /// Without a DISCONNECT: a TLS layer that was closed in order says so itself.
    fn reason_of_eof(&self) -> Reason {
        if self.handle.transport().is_secure() { Reason::SecureChannelClosed } else { Reason::ConnectionLost }
    }

    /// Ends the session in the hub, and the machine; returns for how many seconds the MQTT session outlives that. What a
    /// client has to be told is in `out`.
    fn conclude(&mut self, end: &End) -> u32 {
        let mut expiry = self.core.session_expiry();
        match end {
            End::Goodbye(goodbye) => {
                expiry = goodbye.session_expiry;
                self.handle.outlive(self.hold.is_some() && expiry > 0);
                if goodbye.with_will {
                    self.handle.limit_will_delay(u64::from(expiry) * 1000);
                } else {
                    self.handle.discard_will();
                }
                self.handle.close(goodbye.reason());
            }
            End::Fault(fault) => {
                self.server.faults().tell(&self.handle, fault);
                self.handle.close_for(fault.reason, fault.told());
            }
            End::Lost(reason) => self.handle.close(*reason),
            End::Gateway(reason) => {
                if *reason == Reason::CredentialsRevoked {
                    expiry = 0;
                }
                self.core.disconnect(DisconnectWhy::from(*reason), &mut self.out);
            }
            End::Told(reason) => {
                self.handle.close(*reason);
                self.core.disconnect(DisconnectWhy::from(*reason), &mut self.out);
            }
        }
        self.core.close();
        expiry
    }

    /// Publishes the session's end first, then puts the MQTT session down for the next connection, then says farewell:
    /// nobody waits for this client, nor for the store.
    async fn finish(mut self, end: End) {
        self.submit_the_rest();
        let expiry = self.conclude(&end);
        let of = |busy: &mut Box<Busy>| (std::mem::take(&mut busy.untaken), std::mem::take(&mut busy.owed));
        let (untaken, mut owed) = self.busy.as_mut().map(of).unwrap_or_default();
        for token in untaken {
            // The client may send it again.
            self.core.publish_failed(token, PublishFailure::NotStored, &mut self.out);
        }
        let (queue, sorted) = self.pack_up();
        match self.hold {
            Some(hold) => {
                owed.push(Owed { remains: self.handle.into_remains(), tokens: self.core.tokens() });
                let state = self.core.session_state();
                self.server.sessions().put_down(hold, (state, owed, expiry), queue, sorted);
            }
            None => self.server.sessions().abandon(&queue, &sorted.flying, "session-discarded"),
        }
        // The client may be gone or not read: its session has ended either way.
        if !matches!(end, End::Lost(_))
            && matches!(tokio::time::timeout(FAREWELL, self.stream.write_all(&self.out)).await, Ok(Ok(())))
        {
            landfall_net::close(self.stream, FAREWELL).await;
        }
    }
}
