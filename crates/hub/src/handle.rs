//! What a listener holds of the session of a device with a connection. Of those without one it holds a `PeerHandle`.
//!
//! Owns: the promise that a session ends exactly once, also when its handle is just dropped. Does not own: anything else;
//! every method is one step into `hub.rs` or `router.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use landfall_event::{CommandId, DeviceId, Epoch, Memo, Outcome, Reason, SessionId, TenantId, Transport};
use landfall_session::Slot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bus::Listener;
use crate::mailbox::{Mail, Settled};
use crate::router::{Adopted, Verdict};
use crate::session::{Session, Uplink};
use crate::{Acl, BoxFuture, Command, Hub, Receipt, StoreError};

/// What a message costs of the publish window beside its payload: about the size of its event's head.
pub(crate) const HEAD_BYTES: usize = 512;

/// A share of the publish window: a message with one may be submitted.
#[derive(Debug)]
pub struct Permit(Option<OwnedSemaphorePermit>);

/// A message larger than the whole window costs all of it.
fn cost(window_bytes: usize, bytes: usize) -> u32 {
    let whole = u32::try_from(window_bytes).unwrap_or(u32::MAX);
    u32::try_from(bytes.saturating_add(HEAD_BYTES)).unwrap_or(u32::MAX).min(whole)
}

impl Permit {
    pub(crate) fn try_take(window: &Arc<Semaphore>, window_bytes: usize, bytes: usize) -> Option<Self> {
        let permit = Arc::clone(window).try_acquire_many_owned(cost(window_bytes, bytes)).ok()?;
        Some(Self(Some(permit)))
    }

    pub(crate) async fn take(window: &Arc<Semaphore>, window_bytes: usize, bytes: usize) -> Self {
        match Arc::clone(window).acquire_many_owned(cost(window_bytes, bytes)).await {
            Ok(permit) => Self(Some(permit)),
            // The window is never closed; a process without one would be ending, so wait for that.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn of(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self(permit)
    }

    pub(crate) fn into_inner(self) -> Option<OwnedSemaphorePermit> {
        self.0
    }

    /// For the few messages that a connection still holds at its end: they are bounded by the connection's own limits.
    pub fn at_the_end() -> Self {
        Self(None)
    }
}

/// One open session. Dropping it without [`SessionHandle::close`] ends the session as `connection-lost`.
#[derive(Debug)]
pub struct SessionHandle {
    hub: Arc<Hub>,
    session: Arc<Session>,
    slot: Slot,
    /// The end that dropping it is.
    dropped: Reason,
}

impl SessionHandle {
    pub(crate) fn new(hub: Arc<Hub>, session: Arc<Session>, slot: Slot) -> Self {
        // The network has no part in it before the device is let in.
        Self { hub, session, slot, dropped: Reason::NotAdmitted }
    }

    /// The device is let in.
    pub(crate) fn is_let_in(&mut self) {
        self.dropped = Reason::ConnectionLost;
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        let _lane = self.session.lane.lock();
        self.session.info.session()
    }

    /// The session's epoch.
    pub fn epoch(&self) -> Epoch {
        let _lane = self.session.lane.lock();
        self.session.info.epoch()
    }

    /// What the protocol calls the device.
    pub fn remote_id(&self) -> Arc<str> {
        self.session.remote_id(&self.session.lane.lock())
    }

    /// How the device reached the gateway.
    pub fn transport(&self) -> Transport {
        self.session.info.transport
    }

    /// Where the device connects from.
    pub fn remote_address(&self) -> SocketAddr {
        self.session.lane.lock().remote.into()
    }

    /// The device's tenant.
    pub fn tenant(&self) -> &TenantId {
        self.session.tenant()
    }

    /// The device.
    pub fn device(&self) -> &DeviceId {
        self.session.device()
    }

    /// What the device may do.
    pub fn acl(&self) -> &Arc<Acl> {
        &self.session.acl
    }

    /// The device was heard. One atomic store.
    pub fn seen(&self) {
        self.session.vitals.touch(self.hub.clock.tick());
    }

    /// The session's `connected` will never be stored: it ends without an event, as it began.
    pub(crate) fn never_began(&self) {
        self.session.beginning.lock().settle(&Err(StoreError::Closed));
    }

    /// While the gateway itself does not read from the device, its silence does not count.
    pub fn hold(&self, held: bool) {
        if held { self.session.vitals.hold() } else { self.session.vitals.release(self.hub.clock.tick()) }
    }

    /// A share of the publish window for a message of `bytes`, if it is to be had now.
    pub fn try_admit(&self, bytes: usize) -> Option<Permit> {
        self.hub.try_admit(bytes)
    }

    /// Waits for a share of the publish window, in turn.
    pub fn admit(&self, bytes: usize) -> BoxFuture<'static, Permit> {
        self.hub.metrics.window_waits.inc();
        let hub = Arc::clone(&self.hub);
        Box::pin(async move { hub.admit(bytes).await })
    }

    /// Publishes a message of the device. The mailbox tells the token, if one is given, when it is stored.
    ///
    /// # Errors
    /// The reason of the session's end, when it has ended: the message is not published.
    pub fn upstream(&self, uplink: Uplink, token: Option<u64>, permit: Permit) -> Result<(), Reason> {
        self.upstream_noted(uplink, token.map(|token| (token, None)), permit)
    }

    /// The same, with a memo that is kept beside the event where that is kept on a disk.
    ///
    /// # Errors
    /// As [`upstream`](Self::upstream).
    pub fn upstream_noted(
        &self,
        uplink: Uplink,
        token: Option<(u64, Option<Memo>)>,
        permit: Permit,
    ) -> Result<(), Reason> {
        let bytes = u64::try_from(uplink.payload.len()).unwrap_or(0);
        let mut lane = self.session.lane.lock();
        if let Some(reason) = lane.ended {
            return Err(reason);
        }
        self.hub.count_in(&self.session, bytes);
        let receipt = match token {
            Some((token, memo)) => {
                Receipt::token(Arc::clone(&self.session) as _, token, permit.0).with_memo(memo)
            }
            None => Receipt::unheard(permit.0),
        };
        self.hub.submit_upstream(&self.session, &mut lane, uplink, false, receipt);
        Ok(())
    }

    /// Waits for news: stored messages, the session's end, and commands if `take_commands`.
    pub fn poll_mail(&self, cx: &mut Context<'_>, take_commands: bool) -> Poll<Mail> {
        match &self.session.mailbox {
            Some(mailbox) => mailbox.poll(cx, take_commands),
            None => Poll::Pending,
        }
    }

    /// Puts a command under way that was kept for the device.
    pub fn adopt(&self, command: &Arc<Command>) -> Adopted {
        self.hub.adopt(&self.session, command, 0)
    }

    /// Is the command still to be sent? It may have expired while it waited for room.
    pub fn is_under_way(&self, command: &CommandId) -> bool {
        self.hub.is_under_way(&self.session, command)
    }

    /// The command was written to the device's transport, which can acknowledge it or not.
    pub fn sent(&self, command: &CommandId, bytes: usize, can_acknowledge: bool) {
        self.session.vitals.count_out(u64::try_from(bytes).unwrap_or(0));
        self.hub.sent(&self.session, command, can_acknowledge);
    }

    /// The device's protocol acknowledged the command.
    pub fn acknowledged(&self, command: &CommandId) {
        self.hub.acknowledged(&self.session, command);
    }

    /// The command came to an outcome on the way: refused by the device's protocol, or not sendable.
    pub fn settled(&self, command: &CommandId, outcome: Outcome, status: &str) {
        self.hub.settle(&self.session, command, Verdict::because(outcome, status));
    }

    /// The device answered the command. The mailbox tells the token, if one is given, when the outcome is stored.
    ///
    /// # Errors
    /// Gives the permit back when no such command is under way: the answer is an ordinary message then.
    pub fn answered(
        &self,
        command: &CommandId,
        answer: (Arc<str>, Bytes),
        (token, permit): (Option<u64>, Permit),
    ) -> Result<(), Permit> {
        self.answered_noted(command, answer, (token.map(|token| (token, None)), permit))
    }

    /// The same, with a memo that is kept beside the event where that is kept on a disk.
    ///
    /// # Errors
    /// As [`answered`](Self::answered).
    pub fn answered_noted(
        &self,
        command: &CommandId,
        answer: (Arc<str>, Bytes),
        (token, permit): (Option<(u64, Option<Memo>)>, Permit),
    ) -> Result<(), Permit> {
        let bytes = u64::try_from(answer.1.len()).unwrap_or(0);
        let answerer =
            token.map(|(token, memo)| (Arc::clone(&self.session) as Arc<dyn Listener>, token, memo));
        self.hub.answered(&self.session, command, answer, (answerer, permit.0)).map_err(Permit)?;
        self.hub.count_in(&self.session, bytes);
        Ok(())
    }

    /// The device said goodbye in a way that takes its will back.
    pub fn discard_will(&self) {
        self.session.lane.lock().set_will(None);
    }

    /// A new bound on the will's delay: the session that outlives the connection is shorter than it.
    pub fn limit_will_delay(&self, delay_ms: u64) {
        if let Some(will) = self.session.lane.lock().will_mut() {
            will.delay_ms = will.delay_ms.min(delay_ms);
        }
    }

    /// Waits for news of stored messages only; goes on after the session's end.
    pub fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<Settled> {
        match &self.session.mailbox {
            Some(mailbox) => mailbox.poll_settled(cx),
            None => Poll::Pending,
        }
    }

    /// The session has ended, or ends here; what it had on its way to the store is still told.
    pub fn into_remains(self) -> Remains {
        Remains(Arc::clone(&self.session))
    }

    /// Ends the session, unless it has ended.
    pub fn close(&self, reason: Reason) {
        self.hub.close(&self.session, self.slot, (reason, None), || Receipt::unheard(None));
    }

    /// Ends the session because the device broke a rule, which the event names: a text of the protocol's own, in which
    /// nothing comes from the device.
    pub fn close_for(&self, reason: Reason, rule: String) {
        let detail = Some(rule.into_boxed_str());
        self.hub.close(&self.session, self.slot, (reason, detail), || Receipt::unheard(None));
    }
}

/// What has ended of a session: the news of its messages that are on their way to the store. Dropping it is hearing no more.
#[derive(Debug)]
pub struct Remains(Arc<Session>);

impl Remains {
    /// Waits until a message is stored, or never will be.
    pub fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<Settled> {
        match &self.0.mailbox {
            Some(mailbox) => mailbox.poll_settled(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.hub.close(&self.session, self.slot, (self.dropped, None), || Receipt::unheard(None));
        self.hub.leave_to_offline(&self.session);
    }
}
