//! The wills of an incarnation that is gone: which of them are still owed, and under which number.
//!
//! Owns: the fold of what is kept of them, beside that of the sessions ([`crate::repair`]). Does not own: publishing them, letting one
//! wait for its delay (the hub).
//!
//! A will is kept in the ledger before its session's `connected` ([`landfall_hub::KeptWill`]), and once more before its
//! `disconnected` when it is owed later. So: of an open session it is owed; of one that has ended it is owed when that was kept,
//! and else it is dealt with. A later session of the device settles what was owed later. What was published already is told by
//! the numbers of the session's messages, of which a will is the last.

use std::collections::HashMap;

use async_nats::Message;
use landfall_event::wire::{self, Body};
use landfall_event::{DeviceId, EventId, Family, Incarnation, SessionId, Stream, TenantId, UnixMs};
use landfall_hub::{KeptWill, Owed};

use crate::message::event_id;

type Device = (TenantId, DeviceId);

/// What is kept of an incarnation's wills, as far as the ledger was read.
#[derive(Debug)]
pub(crate) struct Wills {
    incarnation: Incarnation,
    kept: HashMap<SessionId, KeptWill>,
    by_device: HashMap<Device, Vec<SessionId>>,
}

/// The newest message of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Its number among the session's messages.
    pub(crate) seq: u64,
    /// Its place in the stream.
    pub(crate) place: u64,
}

impl Wills {
    /// Those that a checkpoint names.
    pub(crate) fn new(incarnation: Incarnation, kept: Vec<KeptWill>) -> Self {
        let mut wills = Self { incarnation, kept: HashMap::new(), by_device: HashMap::new() };
        kept.into_iter().for_each(|will| wills.keep(will));
        wills
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What the ledger keeps of one.
    pub(crate) fn read(&mut self, message: &Message) {
        match serde_json::from_slice::<KeptWill>(&message.payload) {
            Ok(will) => self.keep(will),
            Err(error) => tracing::warn!(subject = ?message.subject, %error, "a will that cannot be read"),
        }
    }

    fn keep(&mut self, will: KeptWill) {
        let device = (will.info.tenant.clone(), will.info.device.clone());
        let session = will.session();
        if self.kept.insert(session, will).is_none() {
            self.by_device.entry(device).or_default().push(session);
        }
    }

    /// An event of the ledger, of whatever gateway.
    pub(crate) fn see(&mut self, event: &wire::Event) {
        self.see_later(event);
        if let Body::Disconnected(ended) = &event.body {
            ended.iter().for_each(|end| self.ended(end.session.session_id));
        }
    }

    /// A later event, of another gateway: this one's sessions say nothing more.
    pub(crate) fn see_later(&mut self, event: &wire::Event) {
        if let Body::Connected(connected) = &event.body
            && connected.session.transport.family() == Family::Mqtt
        {
            self.begun(&connected.session, connected.details.clean_start, event.head.incarnation);
        }
    }

    /// What was owed later is not kept any more: a resumed session takes it back [MQTT-3.1.3-9]; a clean one makes it due, and its own
    /// gateway has published it before.
    fn begun(&mut self, by: &wire::Session, clean_start: Option<bool>, incarnation: Incarnation) {
        let device = (by.tenant.clone(), by.endpoint_id.clone());
        let Some(sessions) = self.by_device.get_mut(&device) else { return };
        let (is_elsewhere, is_clean) = (incarnation != self.incarnation, clean_start == Some(true));
        sessions.retain(|session| {
            let Some(will) = self.kept.get_mut(session) else { return false };
            let is_later = by.session_id != *session && by.epoch > will.info.epoch();
            // One that the device left open here, and took up elsewhere, ends with the repair.
            let waits = will.owed.is_some() || (is_elsewhere && will.delay_ms > 0);
            if !is_later || !waits {
                return true;
            }
            if is_elsewhere && is_clean {
                will.delay_ms = 0;
                will.owed = will.owed.map(|owed| Owed { due_at: 0, ..owed });
                return true;
            }
            self.kept.remove(session);
            false
        });
    }

    fn ended(&mut self, session: SessionId) {
        if self.kept.get(&session).is_some_and(|will| will.owed.is_none()) {
            self.kept.remove(&session);
        }
    }

    /// Those that are owed: of sessions that are open, and of those that have ended.
    pub(crate) fn owed(self, is_open: impl Fn(&SessionId) -> bool) -> Vec<KeptWill> {
        let mut owed: Vec<KeptWill> =
            self.kept.into_values().filter(|will| will.owed.is_some() || is_open(&will.session())).collect();
        owed.sort_by_key(KeptWill::session);
        owed
    }
}

/// Notes the newest message of each of these sessions.
pub(crate) fn hear(heard: &mut HashMap<SessionId, Option<Heard>>, place: u64, message: &Message) {
    let Some(EventId::Session(session, Stream::Messages, seq)) = event_id(message) else { return };
    if let Some(newest) = heard.get_mut(&session)
        && newest.is_none_or(|newest| seq >= newest.seq)
    {
        *newest = Some(Heard { seq, place });
    }
}

/// Gives a will of an open session its number, behind everything that the session has said, and its time.
pub(crate) fn number(mut will: KeptWill, next: u64, now: UnixMs) -> KeptWill {
    let due_at = now.saturating_add(will.delay_ms);
    will.owed.get_or_insert(Owed { seq: next, due_at });
    will
}

#[cfg(test)]
mod tests {
    use landfall_event::{Epoch, Identity, SessionInfo, Transport};
    use landfall_hub::Uplink;

    use super::*;

    const OURS: u8 = 1;
    const OTHERS: u8 = 2;

    fn id(n: u8) -> Incarnation {
        SessionId::new(u64::from(n), [n; 10])
    }

    fn will(session: u8, delay_ms: u64, owed: Option<Owed>) -> KeptWill {
        let uplink = Uplink {
            topic: "t".into(),
            qos: Some(1),
            retain: false,
            content_type: None,
            properties: Vec::new(),
            publish: None,
            payload: "gone".into(),
        };
        let info = SessionInfo {
            tenant: "t".parse().unwrap(),
            device: "d".parse().unwrap(),
            app_version: "".into(),
            identity: Identity::new(id(session), Epoch(u64::from(session))),
            transport: Transport::Mqtt,
        };
        KeptWill { info, uplink, delay_ms, owed }
    }

    fn session(n: u8) -> wire::Session {
        wire::Session {
            tenant: "t".parse().unwrap(),
            endpoint_id: "d".parse().unwrap(),
            app_version_name: String::new(),
            session_id: id(n),
            epoch: Epoch(u64::from(n)),
            seq: 1,
            transport: Transport::Mqtts,
        }
    }

    const OWED: Owed = Owed { seq: 4, due_at: 99 };

    #[test]
    fn a_will_is_owed_while_its_session_is_open_or_when_that_was_kept() {
        let kept = vec![will(3, 0, None), will(4, 0, None), will(5, 9, Some(OWED)), will(6, 0, None)];
        let mut wills = Wills::new(id(OURS), kept);
        wills.ended(id(4));
        wills.ended(id(5));
        // The sixth never began.
        let owed: Vec<_> = wills.owed(|session| *session == id(3)).iter().map(KeptWill::session).collect();
        assert_eq!(owed, [id(3), id(5)]);
    }

    #[test]
    fn a_later_session_settles_what_was_owed_later() {
        let begin = |clean, incarnation, kept: KeptWill| {
            let mut wills = Wills::new(id(OURS), vec![kept]);
            wills.begun(&session(9), clean, id(incarnation));
            wills.owed(|_| true)
        };
        for clean in [Some(false), Some(true), None] {
            assert!(
                begin(clean, OURS, will(3, 50, Some(OWED))).is_empty(),
                "taken back, or published before"
            );
            assert_eq!(begin(clean, OURS, will(3, 50, None)).len(), 1, "it is taken over, and its end tells");
            assert_eq!(begin(clean, OTHERS, will(3, 0, None)).len(), 1, "no delay: nobody takes it back");
        }
        assert!(begin(Some(false), OTHERS, will(3, 50, None)).is_empty(), "resumed elsewhere");
        let due = begin(Some(true), OTHERS, will(3, 50, Some(OWED)));
        assert_eq!(
            due[0].owed,
            Some(Owed { due_at: 0, ..OWED }),
            "its session has ended with the clean start"
        );
        assert_eq!(begin(Some(true), OTHERS, will(3, 50, None))[0].delay_ms, 0);
    }

    #[test]
    fn an_earlier_session_settles_nothing() {
        let mut wills = Wills::new(id(OURS), vec![will(9, 50, Some(OWED))]);
        wills.begun(&session(3), Some(false), id(OTHERS));
        wills.begun(&session(9), Some(false), id(OURS));
        assert_eq!(wills.owed(|_| false).len(), 1);
    }

    #[test]
    fn a_will_is_numbered_behind_everything_once() {
        let numbered = number(will(3, 50, None), 7, 1_000);
        assert_eq!(numbered.owed, Some(Owed { seq: 7, due_at: 1_050 }));
        assert_eq!(number(numbered.clone(), 9, 2_000), numbered);
    }
}
