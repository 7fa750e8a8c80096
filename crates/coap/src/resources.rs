//! What each resource does for a device that has been admitted.
//!
//! Owns: the answers' codes, the ACL's word on each message, what waits for the store. Does not own: commands on their way
//! (`commands.rs`), who the device is (`admission.rs`).

use std::sync::Arc;

use landfall_channel::Via;
use landfall_coap_core::link::{self, Link};
use landfall_coap_core::{Code, ExchangeId, Method, Response, content};
use landfall_event::{Reason, RefusedCause};
use landfall_hub::{PeerHandle, StoreError, Uplink};

use crate::Tick;
use crate::admission::{Memo, Over};
use crate::asked::{Asked, OWN_QUERIES, Resource};
use crate::door::Door;
use crate::metrics::Dropped;
use crate::stray;

/// What follows a request that was taken.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) exchange: ExchangeId,
    /// The device wants to know.
    pub(crate) confirmable: bool,
    pub(crate) via: Via,
    pub(crate) peer: PeerHandle,
    /// The answer's, where it brings nothing else.
    pub(crate) code: Code,
    /// The name of the registration that was made.
    pub(crate) registration: Option<String>,
    /// Until when it waits for a command.
    pub(crate) until: Option<Tick>,
    /// From then on an answer may be too late to be one.
    pub(crate) answerable: Tick,
    /// How long the device sleeps then, in seconds.
    pub(crate) sleep_s: Option<u32>,
}

/// A request that waits for the store.
#[derive(Debug)]
pub(crate) struct Storing {
    /// Tells two users of one entry apart.
    number: u64,
    /// `None` once it has been answered: it took too long.
    after: Option<After>,
}

/// What a message costs of the publish window: everything of it that a device may make large. Written as Base64, a payload
/// grows by a third.
fn weight(topic: &str, payload: &[u8]) -> usize {
    topic.len() + payload.len() / 3 * 4 + 4
}

impl Door {
    /// What there is (RFC 6690). Nobody needs a name to ask.
    pub(crate) fn core(&mut self, asked: &Asked) {
        if asked.request.accept.is_some_and(|accept| accept != content::LINK_FORMAT) {
            return self.respond(asked.exchange, Response::new(Code::NOT_ACCEPTABLE));
        }
        let links = [
            Link::new("/rd").resource_type("core.rd"),
            Link::new("/command").resource_type("landfall.command").observable(),
        ];
        let document = link::document(&links, &asked.request.queries, &OWN_QUERIES);
        let response = Response::new(Code::CONTENT).content_format(content::LINK_FORMAT);
        self.respond(asked.exchange, response.with_payload(document));
    }

    /// # Errors
    /// Gives the request back when the session has ended before anything of it was published.
    pub(crate) fn serve(&mut self, asked: Box<Asked>, peer: &PeerHandle) -> Result<(), Over> {
        if asked.request.is_partial {
            self.go_on(&asked, peer);
            return Ok(());
        }
        match &asked.resource {
            Resource::Upstream(topic) => {
                let topic = Arc::clone(topic);
                return self.upstream(asked, peer, topic);
            }
            Resource::Answer(..) => self.answer(&asked, peer),
            Resource::Command => self.command(&asked, peer),
            Resource::Register => self.register(&asked, peer),
            Resource::Refresh(_) => {
                let after = self.after(&asked, peer);
                self.finish(after);
            }
            Resource::Deregister(_) => self.deregister(&asked, peer),
            Resource::Core => self.core(&asked),
        }
        Ok(())
    }

    /// A block of a body has come, and more are to. Whether the whole may be sent is clear from the first on.
    fn go_on(&mut self, asked: &Asked, peer: &PeerHandle) {
        if let Resource::Upstream(topic) = &asked.resource
            && !peer.acl().may_publish(topic)
        {
            return self.forbid(asked, peer);
        }
        self.respond(asked.exchange, Response::new(Code::CONTINUE));
    }

    /// How long a request can be answered. The machine forgets it after its lifetime; some of that has gone by.
    fn answerable_ms(&self) -> u64 {
        self.endpoint.limits().exchange_lifetime_ms() / 8 * 7
    }

    /// What follows the request once it is taken.
    pub(crate) fn after(&self, asked: &Asked, peer: &PeerHandle) -> After {
        let most_ms = u64::try_from(self.server.config.max_ttd.as_millis()).unwrap_or(u64::MAX);
        let code = if asked.request.method == Method::Get { Code::CONTENT } else { Code::CHANGED };
        let answerable = self.now().saturating_add(self.answerable_ms());
        let until = |ttd_s| {
            let until = self.now().saturating_add((u64::from(ttd_s) * 1_000).min(most_ms));
            until.min(answerable)
        };
        // A command in an answer that is not wanted would be lost.
        let ttd_s = asked.says.ttd_s.filter(|_| asked.request.wants_success());
        After {
            exchange: asked.exchange,
            confirmable: asked.request.confirmable,
            via: asked.via,
            peer: peer.clone(),
            code,
            registration: None,
            until: ttd_s.map(until),
            answerable,
            sleep_s: asked.says.sleep_s,
        }
    }

    fn upstream(&mut self, asked: Box<Asked>, peer: &PeerHandle, topic: Arc<str>) -> Result<(), Over> {
        if !peer.acl().may_publish(&topic) {
            self.forbid(&asked, peer);
            return Ok(());
        }
        // Who asks for no acknowledgement of the protocol has its message kept while NATS is away.
        let hub = &self.server.hub;
        let is_away = !hub.is_ready();
        if is_away && (asked.request.confirmable || !hub.takes_messages()) {
            self.unavailable(asked.exchange, Dropped::Away);
            return Ok(());
        }
        let Some(permit) = peer.try_admit(weight(&topic, &asked.request.payload)) else {
            self.unavailable(asked.exchange, Dropped::WindowFull);
            return Ok(());
        };
        let content_type = asked.request.content_format.and_then(content::media_type);
        let uplink = Uplink {
            topic,
            qos: None,
            retain: false,
            content_type: content_type.map(Into::into),
            properties: Vec::new(),
            publish: None,
            payload: asked.request.payload.clone(),
        };
        if is_away {
            // It is stored too late for an answer, and must not keep the device's next ones out until then.
            if let Err(reason) = peer.upstream(uplink, None, permit) {
                return Err(Over { asked, reason });
            }
            self.leave_unanswered(&self.after(&asked, peer));
            return Ok(());
        }
        let Some((token, entry)) = self.let_store(self.after(&asked, peer)) else {
            self.unavailable(asked.exchange, Dropped::Busy);
            return Ok(());
        };
        peer.upstream(uplink, Some(token), permit).map_err(|reason| {
            self.take_stored(entry);
            Over { asked, reason }
        })
    }

    /// The answer to a command: it is taken when the command's outcome is stored.
    fn answer(&mut self, asked: &Asked, peer: &PeerHandle) {
        let Resource::Answer(command, status) = &asked.resource else { return };
        if !self.server.hub.is_ready() {
            return self.unavailable(asked.exchange, Dropped::Away);
        }
        let payload = asked.request.payload.clone();
        let Some(permit) = peer.try_admit(weight(status, &payload)) else {
            return self.unavailable(asked.exchange, Dropped::WindowFull);
        };
        let Some((token, entry)) = self.let_store(self.after(asked, peer)) else {
            return self.unavailable(asked.exchange, Dropped::Busy);
        };
        if peer.answered(command, (Arc::clone(status), payload), (Some(token), permit)).is_err() {
            self.take_stored(entry);
            self.respond(asked.exchange, Response::new(Code::NOT_FOUND));
        }
    }

    /// A place for a request that waits for the store: its token and its entry.
    fn let_store(&mut self, after: After) -> Option<(u64, usize)> {
        let entry = self.storing.vacant_key();
        let token = stray::token(self.number, entry)?;
        self.stores_made += 1;
        let timeout_ms = u64::try_from(self.server.config.request_timeout.as_millis()).unwrap_or(u64::MAX);
        let limit_ms = timeout_ms.min(self.answerable_ms());
        self.storing.insert(Storing { number: self.stores_made, after: Some(after) });
        self.forget_limits();
        self.store_limits.push_back((self.now().saturating_add(limit_ms), self.stores_made, entry));
        Some((token, entry))
    }

    /// One message that waits for long must not keep the limits of all that were stored since.
    fn forget_limits(&mut self) {
        if self.store_limits.len() > 2 * self.storing.len() + 1_024 {
            let storing = &self.storing;
            let waits =
                |number, entry| storing.get(entry).is_some_and(|storing: &Storing| storing.number == number);
            self.store_limits.retain(|(_, number, entry)| waits(*number, *entry));
        }
    }

    fn take_stored(&mut self, entry: usize) -> Option<After> {
        let stored = self.storing.try_remove(entry)?.after;
        // What waits longest is mostly stored first.
        while let Some((_, number, entry)) = self.store_limits.front()
            && self.storing.get(*entry).is_none_or(|storing| storing.number != *number)
        {
            self.store_limits.pop_front();
        }
        stored
    }

    /// Tells whoever has waited long enough for the store to come again. What is under way to it may be stored yet.
    pub(crate) fn end_stores(&mut self, now: Tick) {
        while let Some((_, number, entry)) = self.store_limits.pop_front_if(|(limit, ..)| *limit <= now) {
            let storing = self.storing.get_mut(entry).filter(|storing| storing.number == number);
            if let Some(after) = storing.and_then(|storing| storing.after.take()) {
                self.unavailable(after.exchange, Dropped::StoreTimeout);
                self.let_sleep(&after.peer, after.sleep_s);
            }
        }
    }

    /// NATS is away: who asked for no acknowledgement gets no answer to what is under way, and may send on.
    pub(crate) fn look_at_bus(&mut self) {
        let was_ready = std::mem::replace(&mut self.was_ready, self.server.hub.is_ready());
        if !was_ready || self.was_ready {
            return;
        }
        let waiting = self.storing.iter_mut();
        let bare = waiting.filter_map(|(_, storing)| storing.after.take_if(|after| !after.confirmable));
        for after in bare.collect::<Vec<_>>() {
            self.leave_unanswered(&after);
        }
    }

    fn leave_unanswered(&mut self, after: &After) {
        self.endpoint.ignore(after.exchange);
        self.let_sleep(&after.peer, after.sleep_s);
    }

    /// A message is stored now, or never will be.
    pub(crate) fn on_settled(&mut self, token: u64, result: Result<(), StoreError>) {
        let (socket, entry) = stray::split(token);
        if socket != self.number {
            return self.server.strays.pass_settled(token, result, self.number);
        }
        let Some(after) = self.take_stored(entry) else { return };
        let error = match result {
            Ok(()) => return self.finish(after),
            Err(error) => error,
        };
        tracing::debug!(remote = %after.via.path, %error, "a message will not be stored");
        match error {
            StoreError::TooLarge { .. } => {
                self.respond(after.exchange, Response::new(Code::REQUEST_ENTITY_TOO_LARGE));
            }
            StoreError::Refused(_) => {
                self.respond(after.exchange, Response::new(Code::INTERNAL_SERVER_ERROR));
            }
            StoreError::Unavailable(_) | StoreError::Closed => {
                self.respond_later(after.exchange);
            }
        }
        self.server.metrics.dropped(Dropped::NotStored);
        self.let_sleep(&after.peer, after.sleep_s);
    }

    /// A registration is made when the beginning of its session is stored.
    fn register(&mut self, asked: &Asked, peer: &PeerHandle) {
        if !self.server.hub.is_ready() {
            return self.unavailable(asked.exchange, Dropped::Away);
        }
        let Some(name) = self.server.registrations.enter(peer) else {
            return self.unavailable(asked.exchange, Dropped::RegistrationsFull);
        };
        peer.memo(|memo| *memo = Memo { is_registered: true, ..Memo::from(*memo) }.into());
        let (code, registration) = (Code::CREATED, Some(name));
        let after = After { code, registration, until: None, ..self.after(asked, peer) };
        let Some((token, entry)) = self.let_store(after) else {
            return self.unavailable(asked.exchange, Dropped::Busy);
        };
        if peer.begun(&self.post, token)
            && let Some(after) = self.take_stored(entry)
        {
            self.finish(after);
        }
    }

    /// The device says goodbye, and is told so when that is stored. While NATS is away, too: it may not come back to say it
    /// again.
    fn deregister(&mut self, asked: &Asked, peer: &PeerHandle) {
        let after = After { code: Code::DELETED, until: None, sleep_s: None, ..self.after(asked, peer) };
        let Some((token, entry)) = self.let_store(after) else {
            return self.unavailable(asked.exchange, Dropped::Busy);
        };
        self.server.registrations.forget(peer.id());
        peer.memo(|memo| *memo = Memo { is_registered: false, ..Memo::from(*memo) }.into());
        if !peer.close_with(Reason::Deregistered, token) {
            self.take_stored(entry);
            self.respond(asked.exchange, Response::new(Code::NOT_FOUND));
        }
    }

    fn forbid(&mut self, asked: &Asked, peer: &PeerHandle) {
        let denied = self.attempt(RefusedCause::NotAuthorized, asked.via).of(peer.tenant(), peer.device());
        self.refuse(&match &asked.resource {
            Resource::Upstream(topic) => denied.about(topic),
            _ => denied,
        });
        self.respond(asked.exchange, Response::new(Code::FORBIDDEN));
        self.let_sleep(peer, asked.says.sleep_s);
    }

    /// The device has been answered, and sleeps as it has announced.
    pub(crate) fn let_sleep(&self, peer: &PeerHandle, sleep_s: Option<u32>) {
        if let Some(seconds) = sleep_s {
            peer.dormant(u64::from(seconds) * 1_000);
        }
    }

    pub(crate) fn respond(&mut self, exchange: ExchangeId, response: Response) {
        let now = self.now();
        self.endpoint.respond(now, exchange, response);
    }

    /// 5.03, and when to try again (RFC 7252, section 5.9.3.4).
    pub(crate) fn respond_later(&mut self, exchange: ExchangeId) {
        let seconds = self.server.config.limits.retry_after_s;
        self.respond(exchange, Response::new(Code::SERVICE_UNAVAILABLE).max_age(seconds));
    }

    pub(crate) fn unavailable(&mut self, exchange: ExchangeId, why: Dropped) {
        self.server.metrics.dropped(why);
        self.respond_later(exchange);
    }
}
