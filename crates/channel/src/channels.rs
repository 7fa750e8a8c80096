//! All channels of one socket.
//!
//! Owns: the listener core and its time, the questions to the authenticator and their answers. Does not own: what the core
//! tells (`outlet.rs`), the socket's loop.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future as _;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use landfall_dtls::{Answer, Identity, Key, Listener, SendError, Server, ServerConfig, Tick};
use landfall_event::{DeviceId, RefusedCause, RefusedDetail, TenantId, Transport};
use landfall_hub::{Attempt, AuthError, Authenticator, Hub, Principal};
use landfall_net::{DatagramSocket, Path};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::kept::{Kept, Standing};
use crate::lookup::{self, Asked, Lookup, Verdict};
use crate::metrics::{ChannelMetrics, Fill, Share};
use crate::outlet::{Outlet, State};
use crate::{Channel, ChannelConfig, Via, Words};

/// When there is nothing to wait for.
const FAR: Duration = Duration::from_secs(3_600);

type Core = Listener<Server, Path>;

/// All channels of one socket, served by one task. `T` is what the listener keeps with each.
///
/// A defect that a datagram or the authenticator meets is counted and costs one handshake or datagram.
pub struct Channels<T> {
    core: Core,
    state: State<T>,
    /// At most one for each handshake: it ends with it.
    lookups: FuturesUnordered<Lookup>,
    auth: Arc<dyn Authenticator>,
    config: Arc<ChannelConfig>,
    server: watch::Receiver<Arc<ServerConfig>>,
    timer: Pin<Box<Sleep>>,
    start: Instant,
    share: Share,
    /// The datagram that is being deciphered.
    datagram: Vec<u8>,
    /// Words that were given back.
    spare: Words,
}

impl<T: Default> Channels<T> {
    /// None yet, for the socket of a task. `transport` is `coaps` or `dtls`. Must be called inside a runtime.
    pub fn new(
        config: Arc<ChannelConfig>,
        (hub, auth): (Arc<Hub>, Arc<dyn Authenticator>),
        transport: Transport,
        metrics: ChannelMetrics,
    ) -> Self {
        let mut server = config.server.clone();
        let current = Arc::clone(&server.borrow_and_update());
        Self {
            core: Listener::new(current, config.limits, rand::random(), 0),
            lookups: FuturesUnordered::new(),
            auth,
            config,
            server,
            timer: Box::pin(tokio::time::sleep(FAR)),
            start: Instant::now(),
            share: Share::new(metrics.clone()),
            datagram: Vec::new(),
            spare: Words::default(),
            state: State {
                hub,
                transport,
                metrics,
                kept: Kept::new(),
                words: Words::default(),
                questions: VecDeque::new(),
                replaced: None,
                superseded: Vec::new(),
            },
        }
    }

    /// A datagram has come; what it brings is found by [`Channels::take`].
    pub fn receive(&mut self, socket: &DatagramSocket, path: Path, datagram: &[u8]) {
        self.renew_config();
        let now = self.now();
        let mut copy = std::mem::take(&mut self.datagram);
        copy.clear();
        copy.extend_from_slice(datagram);
        let before = (self.core.counts().versions, self.core.counts().lost);
        let _ = self.work(socket, |core, outlet| core.receive(now, (path, path.remote), &mut copy, outlet));
        self.datagram = copy;
        let State { hub, transport, .. } = &self.state;
        let counts = self.core.counts();
        if counts.versions > before.0 {
            // It was told so, and nothing was begun.
            let attempt = Attempt::new(RefusedCause::UnsupportedVersion, *transport, path.remote);
            hub.refused(&attempt.with_detail(RefusedDetail::ProtocolVersion.as_str()));
        } else if counts.lost > before.1 {
            // A device that goes on with a channel that is not there any more: it is lost until it shakes hands.
            let attempt = Attempt::new(RefusedCause::TlsFailed, *transport, path.remote);
            hub.refused(&attempt.with_detail(RefusedDetail::ChannelGone.as_str()));
        }
        self.answer_questions(socket);
    }

    /// Looks at the timers and at what the authenticator has answered. Ready when something was done, or waits in
    /// [`Channels::take`]; to be called again until it is not.
    pub fn poll(&mut self, cx: &mut Context<'_>, socket: &DatagramSocket) -> Poll<()> {
        let mut done = !self.state.words.is_empty();
        while let Poll::Ready(Some(answered)) = self.lookups.poll_next_unpin(cx) {
            if let Ok((key, verdict)) = answered {
                self.answer(socket, key, verdict);
            }
            self.answer_questions(socket);
            done = true;
        }
        self.set_timer();
        if self.timer.as_mut().poll(cx).is_ready() {
            let now = self.now();
            let _ = self.work(socket, |core, outlet| core.handle_timeout(now, outlet));
            self.answer_questions(socket);
            done = true;
        }
        if done { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Everything that came since; empty words when nothing did. To be given back.
    pub fn take(&mut self) -> Words {
        std::mem::replace(&mut self.state.words, std::mem::take(&mut self.spare))
    }

    /// Gives words back that were dealt with: their memory is used again, and what was kept with channels whose end they
    /// told is gone.
    pub fn give_back(&mut self, mut words: Words) {
        for channel in words.renew() {
            self.state.kept.remove(channel.0);
        }
        self.spare = words;
    }

    /// Sends one datagram on a channel.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] when the channel is over, [`io::ErrorKind::InvalidInput`] for more than a record holds,
    /// else as of [`DatagramSocket::try_send`].
    pub fn send(&mut self, socket: &DatagramSocket, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let mut said = Err(SendError::NotEstablished);
        let sent = self.work(socket, |core, outlet| said = core.send(channel.0, bytes, outlet));
        match said {
            Ok(()) => sent,
            Err(error @ SendError::TooLarge) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
            Err(error) => Err(io::Error::new(io::ErrorKind::NotConnected, error)),
        }
    }

    /// Says that this device was let in on a channel whose handshake has proven nothing: without that it ends soon. Each device
    /// has few of them: one more, and its oldest is closed, as [`crate::Word::Closed`] tells. False when there is no room for
    /// it, or it is over.
    pub fn vouch(
        &mut self,
        socket: &DatagramSocket,
        channel: Channel,
        (tenant, device): (&TenantId, &DeviceId),
    ) -> bool {
        let now = self.now();
        let mut is_known = false;
        let _ = self.work(socket, |core, outlet| is_known = core.vouch(now, channel.0, outlet));
        if is_known {
            let (device, most) = ((tenant.clone(), device.clone()), self.config.max_vouched_per_device);
            if let Some(oldest) = self.state.kept.vouched(channel.0, device, most) {
                self.state.metrics.vouched_closed.inc();
                self.state.superseded.push((oldest, true));
                self.close_superseded(socket);
                self.share.set(self.fill());
            }
        }
        is_known
    }

    /// Ends a channel and tells its device close_notify. No [`crate::Word::Closed`] follows, and what was kept with it is gone.
    pub fn close(&mut self, socket: &DatagramSocket, channel: Channel) {
        let _ = self.work(socket, |core, outlet| core.close(channel.0, outlet));
        self.state.kept.remove(channel.0);
    }

    /// Ends all of them: the gateway stops.
    pub fn close_all(&mut self, socket: &DatagramSocket) {
        self.lookups.clear();
        let _ = self.work(socket, |core, outlet| core.close_all(outlet));
        self.state.kept.clear();
    }

    /// As [`Channels::get_mut`].
    pub fn get(&self, channel: Channel) -> Option<&T> {
        self.state.kept.get(channel.0).map(|entry| &entry.own)
    }

    /// What the listener keeps with a channel, until the words that tell of its end are given back.
    pub fn get_mut(&mut self, channel: Channel) -> Option<&mut T> {
        self.state.kept.get_mut(channel.0).map(|entry| &mut entry.own)
    }

    /// Who is on the channel, as far as it has proven it; as long as [`Channels::get_mut`] answers.
    pub fn principal(&self, channel: Channel) -> Option<&Principal> {
        match &self.state.kept.get(channel.0)?.standing {
            Standing::Known(principal) => Some(principal),
            _ => None,
        }
    }

    /// Milliseconds since the socket was opened.
    fn now(&self) -> Tick {
        Tick::try_from(self.start.elapsed().as_millis()).unwrap_or(Tick::MAX)
    }

    /// Handshakes from now on have the newest configuration. When there will never be another, the last one stays.
    fn renew_config(&mut self) {
        if matches!(self.server.has_changed(), Ok(true)) {
            self.core.set_config(Arc::clone(&self.server.borrow_and_update()));
        }
    }

    /// The core does something. What the socket said to the last datagram that came of it.
    fn work(
        &mut self,
        socket: &DatagramSocket,
        act: impl FnOnce(&mut Core, &mut Outlet<'_, T>),
    ) -> io::Result<()> {
        let (core, state) = (&mut self.core, &mut self.state);
        let mut outlet = Outlet { state, socket, sent: Ok(()) };
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| act(core, &mut outlet)));
        let sent = outlet.sent;
        if done.is_err() {
            self.state.metrics.defects.inc();
            tracing::error!(endpoint = %socket.endpoint(), "a datagram met a defect of DTLS; it alone is lost");
        }
        self.close_superseded(socket);
        // One whose place was taken is told behind the one that took it.
        self.state.replaced.take().into_iter().for_each(|replaced| self.state.words.closed(replaced, false));
        self.share.count(self.core.counts());
        self.share.set(self.fill());
        sent
    }

    /// What there is now.
    fn fill(&self) -> Fill {
        Fill {
            sessions: self.core.sessions(),
            vouched: self.core.vouched(),
            handshakes: self.core.handshakes(),
            lookups: self.lookups.len(),
        }
    }

    /// A device that has shaken hands anew has no use for what it had before: without this, each of its addresses would cost
    /// a place for `session_timeout`.
    fn close_superseded(&mut self, socket: &DatagramSocket) {
        while let Some((key, is_told)) = self.state.superseded.pop() {
            // One at the same address is gone already.
            let Some(path) = self.core.path(key) else { continue };
            let mut outlet = Outlet { state: &mut self.state, socket, sent: Ok(()) };
            self.core.close(key, &mut outlet);
            if is_told {
                self.state.words.closed(Via { path, channel: Some(Channel(key)) }, false);
            } else {
                self.state.kept.remove(key);
            }
        }
    }

    fn answer_questions(&mut self, socket: &DatagramSocket) {
        while let Some((key, path, identity)) = self.state.questions.pop_front() {
            self.ask(socket, key, path, &identity);
        }
    }

    fn ask(&mut self, socket: &DatagramSocket, key: Key, path: Path, identity: &Identity) {
        if self.core.path(key).is_none() {
            return;
        }
        let from = (self.state.transport, path);
        match lookup::ask(&self.auth, (key, identity), from, self.config.auth_timeout) {
            Asked::Answered(verdict) => self.answer(socket, key, verdict),
            Asked::Waits(lookup, handle) => {
                self.state.kept.put(key, Standing::Asked(handle));
                self.lookups.push(lookup);
                self.share.set(self.fill());
            }
        }
    }

    /// The handshake goes on, with the key of this device, or towards its failure.
    fn answer(&mut self, socket: &DatagramSocket, key: Key, verdict: Verdict) {
        let secret;
        let (answer, standing) = match verdict {
            Ok((key, principal)) => {
                secret = key;
                let answer = secret.as_ref().map_or(Answer::Admitted, |key| Answer::Psk(key.expose()));
                (answer, Some(Standing::Known(Box::new(principal))))
            }
            Err(AuthError::Refused(cause)) => (Answer::Refused, Some(Standing::Refused(cause))),
            Err(AuthError::Unavailable) => (Answer::Unavailable, None),
        };
        if let Some(standing) = standing.filter(|_| self.core.path(key).is_some()) {
            self.state.kept.put(key, standing);
        }
        let now = self.now();
        let _ = self.work(socket, |core, outlet| core.answer(now, key, answer, outlet));
    }

    fn set_timer(&mut self) {
        let due =
            self.core.next_timeout().and_then(|tick| self.start.checked_add(Duration::from_millis(tick)));
        let deadline = due.unwrap_or_else(|| Instant::now() + FAR);
        // One that fires too early costs less than one that is set for every datagram.
        if self.timer.is_elapsed() || deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl<T> fmt::Debug for Channels<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("transport", &self.state.transport).finish_non_exhaustive()
    }
}
