//! The connectivity stream: sessions that begin, go on and end.

use std::sync::Arc;

use landfall_event::wire::{Ended, Session};
use landfall_event::{Family, Reason, SessionId};

use crate::{Kind, Known, Newest, SLACK_MS, Stored, Verifier};

impl Verifier {
    pub(crate) fn connected(&mut self, stored: &Stored<'_>, session: &Session) {
        let (id, device) = (session.session_id, self.name(session));
        let head = &stored.event.head;
        if self.sessions.contains_key(&id) {
            return self.report(
                Kind::ConnectedTwice,
                Some(id),
                &device,
                stored,
                "it has begun before".to_owned(),
            );
        }
        self.counts.connected += 1;
        if session.seq != 1 {
            let detail = format!("connected is number {}, not 1", session.seq);
            self.report(Kind::SeqGap, Some(id), &device, stored, detail);
        }
        self.epoch_rises(stored, session, &device);
        let family = session.transport.family();
        self.overlaps(stored, id, &device, family);
        let known = Known {
            device,
            family,
            incarnation: head.incarnation,
            next: 2,
            next_message: 1,
            begun_at: stored.stored_at,
            ended_at: None,
            partial: false,
            heard_at: 0,
        };
        self.sessions.insert(id, known);
    }

    /// A device has one session of a family on a gateway; on different ones it may have several for a while.
    fn overlaps(&mut self, stored: &Stored<'_>, id: SessionId, device: &Arc<str>, family: Family) {
        let incarnation = stored.event.head.incarnation;
        let owner = self.owner(stored, device);
        let open = self.present.entry((owner, family)).or_default();
        let on_same = |other: &&SessionId| {
            self.sessions.get(*other).is_some_and(|known| known.incarnation == incarnation)
        };
        let others = open.len();
        let other = open.iter().find(on_same).copied();
        open.push(id);
        match other {
            Some(other) => {
                self.report(Kind::Overlap, Some(id), device, stored, format!("{other} is open"));
            }
            None if others > 0 => self.counts.overlaps += 1,
            None => {}
        }
    }

    /// What is told late, of a session that began before the newest one, has the epoch of its time. Of two that began on different
    /// gateways in the same millisecond either may be the later one.
    fn epoch_rises(&mut self, stored: &Stored<'_>, session: &Session, device: &Arc<str>) {
        let (epoch, at, incarnation) =
            (session.epoch.0, session.session_id.began_at(), stored.event.head.incarnation);
        let this = Newest { epoch, at, incarnation };
        let owner = self.owner(stored, device);
        match self.newest.get_mut(&owner) {
            Some(newest) if epoch > newest.epoch => *newest = this,
            Some(newest) if at == newest.at && incarnation != newest.incarnation => {}
            Some(newest) if at >= newest.at => {
                let detail = format!("epoch {epoch} after {}", newest.epoch);
                self.report(Kind::EpochNotRising, Some(session.session_id), device, stored, detail);
            }
            Some(_) => {}
            None => {
                self.newest.insert(owner, this);
            }
        }
    }

    pub(crate) fn disconnected(&mut self, stored: &Stored<'_>, end: &Ended) {
        let (session, device) = (&end.session, self.name(&end.session));
        let (id, owner) = (session.session_id, self.owner(stored, &device));
        if !self.is_known(stored, session, &device, Kind::DisconnectedWithoutConnected) {
            return;
        }
        let Some(known) = self.sessions.get_mut(&id) else { return };
        if known.ended_at.is_some() {
            return self.report(
                Kind::ClosedTwice,
                Some(id),
                &device,
                stored,
                format!("again: {}", end.details.reason),
            );
        }
        known.ended_at = Some(stored.stored_at);
        let (key, expected) = ((owner, known.family), known.next);
        known.next = session.seq.saturating_add(1);
        self.counts.disconnected += 1;
        if end.details.reason == Reason::GatewayLost {
            self.counts.gateway_lost += 1;
        }
        if end.details.reason == Reason::NotAdmitted {
            let detail = "the device was told no".to_owned();
            self.report(Kind::NeverLetIn, Some(id), &device, stored, detail);
        }
        self.numbered(stored, (id, session.seq, expected), &device, "disconnected");
        if let Some(open) = self.present.get_mut(&key) {
            open.retain(|open| *open != id);
            if open.is_empty() {
                self.present.remove(&key);
            }
        }
    }

    pub(crate) fn goes_on(&mut self, stored: &Stored<'_>, session: &Session, what: &str) {
        let (id, device) = (session.session_id, self.name(session));
        if !self.is_known(stored, session, &device, Kind::WithoutConnected) {
            return;
        }
        let Some(known) = self.sessions.get_mut(&id) else { return };
        let (expected, is_over) = (known.next, known.ended_at.is_some());
        known.next = known.next.max(session.seq.saturating_add(1));
        known.heard_at = stored.stored_at;
        if is_over {
            self.report(Kind::AfterEnd, Some(id), &device, stored, what.to_owned());
        } else {
            self.numbered(stored, (id, session.seq, expected), &device, what);
        }
    }

    fn numbered(
        &mut self,
        stored: &Stored<'_>,
        (id, seq, expected): (SessionId, u64, u64),
        device: &str,
        what: &str,
    ) {
        let kind = match seq {
            _ if seq == expected => return,
            _ if seq > expected => Kind::SeqGap,
            _ if seq.saturating_add(1) == expected => Kind::Duplicate,
            _ => Kind::SeqOrder,
        };
        self.report(
            kind,
            Some(id),
            device,
            stored,
            format!("{what} is number {seq} where {expected} was next"),
        );
    }

    /// True when the session has begun in what was read, or before it.
    pub(crate) fn is_known(
        &mut self,
        stored: &Stored<'_>,
        session: &Session,
        device: &Arc<str>,
        otherwise: Kind,
    ) -> bool {
        let id = session.session_id;
        if self.sessions.contains_key(&id) {
            return true;
        }
        if self.since == 0 || id.began_at() >= self.since.saturating_add(SLACK_MS) {
            let detail = format!("number {}", session.seq);
            self.report(otherwise, Some(id), device, stored, detail);
            return false;
        }
        self.counts.partial += 1;
        let known = Known {
            device: Arc::clone(device),
            family: session.transport.family(),
            incarnation: stored.event.head.incarnation,
            next: session.seq,
            next_message: 0,
            begun_at: 0,
            ended_at: None,
            partial: true,
            heard_at: 0,
        };
        if stored.stream == landfall_event::Stream::Messages {
            // Its connectivity events were read before: it has none in what was read.
            self.sessions.insert(id, Known { next: 0, ..known });
        } else {
            self.sessions.insert(id, known);
        }
        true
    }
}
