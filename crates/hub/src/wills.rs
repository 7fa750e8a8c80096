//! Wills: kept from the moment that a session begins, so that they outlive the process; and waiting for their delay after it
//! has ended (MQTT 5.0 section 3.1.3.2.2).
//!
//! Owns: what is kept of a will and when, when each that waits is due, and who takes it back. Does not own: where it is kept
//! (the bus), what is made of it when the process is gone (`landfall-nats`), what a session's end publishes (`ending.rs`).
//!
//! A will is kept in the stream of the session's own `connected`, before it and in the same order. So whoever reads there
//! that a session is open knows its will; and an end that is stored tells that the will is dealt with, unless the
//! same stream says before it that it is owed later.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use landfall_event::{
    DeviceId, Epoch, EventId, Family, SessionId, SessionInfo, Stream, TenantId, UnixMs, subject,
};
use landfall_session::KeyRef;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::session::{Flag, Lane, Session, Uplink};
use crate::{Hub, Publication, Receipt, StoreError};

type Device = (TenantId, DeviceId);

/// A will that is not published yet, nor taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "record::Record", into = "record::Record")]
pub struct KeptWill {
    /// Whose it is.
    pub info: SessionInfo,
    /// The message.
    pub uplink: Uplink,
    /// How long after the session's end it is published, in ms.
    pub delay_ms: u64,
    /// When the session has ended: what is still to come of it.
    pub owed: Option<Owed>,
}

/// What is to come of a will whose session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Its number among the session's messages.
    pub seq: u64,
    /// When it is published.
    pub due_at: UnixMs,
}

impl KeptWill {
    /// That of an open session.
    pub(crate) fn of(session: &Session, lane: &Lane) -> Option<Self> {
        let will = lane.will().filter(|_| lane.ended.is_none())?;
        let (uplink, delay_ms) = (will.uplink.clone(), will.delay_ms);
        Some(Self { info: session.info.clone(), uplink, delay_ms, owed: None })
    }

    /// The session that left it.
    pub fn session(&self) -> SessionId {
        self.info.session()
    }

    fn device(&self) -> Device {
        (self.info.tenant.clone(), self.info.device.clone())
    }
}

/// At most one will waits per device: only one MQTT session of it can have ended since the last one began.
#[derive(Debug, Default)]
pub(crate) struct Wills {
    by_due: BTreeMap<(u64, u64), (Device, KeptWill)>,
    by_device: HashMap<Device, (u64, u64)>,
    made: u64,
}

impl Wills {
    /// Lets a will wait until `due`; returns one of another session of the device that waited, which is due now.
    fn wait(&mut self, due: u64, will: KeptWill) -> Option<KeptWill> {
        let (device, session) = (will.device(), will.session());
        let earlier = self.take(&device);
        self.made += 1;
        self.by_device.insert(device.clone(), (due, self.made));
        self.by_due.insert((due, self.made), (device, will));
        earlier.filter(|earlier| earlier.session() != session)
    }

    fn len(&self) -> usize {
        self.by_due.len()
    }

    /// The device's will, if one waits.
    fn take(&mut self, device: &Device) -> Option<KeptWill> {
        if self.by_device.is_empty() {
            return None;
        }
        let at = self.by_device.remove(device)?;
        self.by_due.remove(&at).map(|(_, will)| will)
    }

    /// The wills that are due.
    pub(crate) fn due(&mut self, now: u64) -> Vec<KeptWill> {
        let later = self.by_due.split_off(&(now.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.by_due, later);
        due.into_values()
            .map(|(device, will)| {
                self.by_device.remove(&device);
                will
            })
            .collect()
    }

    fn retain(&mut self, stays: impl Fn(&KeptWill) -> bool) {
        self.by_due.retain(|_, (_, will)| stays(will));
        let by_due = &self.by_due;
        self.by_device.retain(|_, at| by_due.contains_key(at));
    }
}

impl Hub {
    /// Keeps the will of a session that begins; its `connected` comes behind it.
    pub(crate) fn keep_will(&self, session: &Arc<Session>) {
        let will = KeptWill::of(session, &session.lane.lock());
        if let Some(publication) = will.and_then(|will| self.will_publication(&will, Receipt::unheard(None)))
        {
            self.bus.submit(publication);
        }
    }

    /// What keeps a will, for the incarnation that speaks now.
    pub(crate) fn will_publication(&self, will: &KeptWill, receipt: Receipt) -> Option<Publication> {
        let origin = self.origin();
        // One session's will is kept at its beginning, at its end, and when somebody else takes it over: never twice under one id.
        self.keeps_wills.store(true, Ordering::Relaxed);
        let Epoch(n) = self.next_epoch(self.clock.both().1);
        let id = EventId::Will(will.session(), n);
        let subject = subject::will(&origin.instance, &origin.incarnation, &will.session()).into();
        // Nothing in it is known that has no JSON.
        let body = serde_json::to_vec(will).ok()?.into();
        Some(Publication { stream: Stream::Connectivity, subject, id, headers: Vec::new(), body, receipt })
    }

    /// Lets a will wait whose session has just ended; that end is told behind it.
    pub(crate) fn delay_will(&self, will: KeptWill) {
        drop(self.let_wait(will));
    }

    /// Waits for a will that a gateway owes which is gone. A session of the device that has begun meanwhile takes it back, or makes
    /// it due. The receiver is told when the will is kept as this gateway's, and the other one's may be forgotten.
    pub fn owe(&self, will: KeptWill) -> oneshot::Receiver<Result<(), StoreError>> {
        let device = will.device();
        // Whoever begins a session of the device waits until the will does.
        let shard = self.shard(&device.0, &device.1).lock();
        let key = KeyRef { tenant: &device.0, device: &device.1, family: Family::Mqtt };
        let begun = shard.get(key).filter(|(_, session)| session.info.session() != will.session());
        match begun.map(|(_, session)| session.lane.lock().is(Flag::Clean)) {
            Some(true) => self.publish_will(will),
            Some(false) => {
                let (receipt, done) = Receipt::once();
                receipt.stored();
                done
            }
            None => self.let_wait(will),
        }
    }

    fn let_wait(&self, will: KeptWill) -> oneshot::Receiver<Result<(), StoreError>> {
        let now = self.clock.unix();
        let left = will.owed.map_or(will.delay_ms, |owed| owed.due_at.saturating_sub(now));
        let (receipt, kept) = Receipt::once();
        let is_full = self.wills.lock().len() >= self.config.max_waiting_wills;
        let publication = if is_full { None } else { self.will_publication(&will, receipt) };
        let Some(publication) = publication else { return self.publish_will(will) };
        self.bus.submit(publication);
        let earlier = self.wills.lock().wait(self.clock.tick().saturating_add(left), will);
        earlier.into_iter().for_each(|earlier| self.publish_late_will(earlier));
        kept
    }

    /// A session begins while a will of the device waits: a resumed one takes it back [MQTT-3.1.3-9], a clean one has
    /// ended the old session, so the will is due.
    pub(crate) fn settle_waiting_will(&self, device: &Device, resumes: bool) {
        let waiting = self.wills.lock().take(device);
        if let Some(will) = waiting
            && !resumes
        {
            self.publish_late_will(will);
        }
    }

    pub(crate) fn publish_late_will(&self, will: KeptWill) {
        drop(self.publish_will(will));
    }

    fn publish_will(&self, will: KeptWill) -> oneshot::Receiver<Result<(), StoreError>> {
        let (receipt, stored) = Receipt::once();
        let seq = will.owed.map_or(1, |owed| owed.seq);
        self.submit_message(will.info.into(), seq, will.uplink, true, receipt);
        stored
    }

    /// Forgets the wills that wait, but for those of sessions that `stays` names: somebody else owes them by now.
    pub fn forget_wills(&self, stays: impl Fn(SessionId) -> bool) {
        self.wills.lock().retain(|will| stays(will.session()));
    }

    /// The wills that wait are kept as the new incarnation's.
    pub(crate) fn renew_wills(&self, announcements: &mut Vec<Publication>) {
        let waiting = self.waiting_wills();
        let kept = waiting.iter().filter_map(|will| self.will_publication(will, Receipt::unheard(None)));
        announcements.extend(kept);
    }

    /// Every will that waits for its delay.
    pub fn waiting_wills(&self) -> Vec<KeptWill> {
        self.wills.lock().by_due.values().map(|(_, will)| will.clone()).collect()
    }

    /// True once a will was kept.
    pub fn keeps_wills(&self) -> bool {
        self.keeps_wills.load(Ordering::Relaxed)
    }

    /// Wills that wait, and the most that may.
    pub fn wills_fill(&self) -> (usize, usize) {
        (self.wills.lock().len(), self.config.max_waiting_wills)
    }
}
