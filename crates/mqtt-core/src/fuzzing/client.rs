//! What a client knows of its session, and so what a correct server may send it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{QoS, Token, Version};

/// How far the client is with a message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    /// QoS 1: PUBACK is due.
    One,
    /// QoS 2: PUBREC is due.
    Two,
    /// QoS 2: PUBCOMP is due.
    Released,
}

/// A message of the client that the shell has.
#[derive(Clone, Copy, Debug)]
struct Ours {
    id: u16,
    qos: QoS,
    token: Token,
    /// Stored (true) or refused (false) by the shell.
    settled: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Client {
    version: Version,
    /// Our Receive Maximum.
    window: usize,
    /// New messages in the order in which they were taken, until their acknowledgement.
    ours: VecDeque<Ours>,
    /// QoS 2 ids that are stored and not released.
    stored: BTreeSet<u16>,
    /// Of those, the ones from before this connection.
    resumed: BTreeSet<u16>,
    /// Messages of the server.
    theirs: BTreeMap<u16, Theirs>,
    /// Ids that were under way when the last connection ended: these may come with DUP.
    again: BTreeSet<u16>,
    /// Ids whose PUBREL is due on this connection.
    releases: BTreeSet<u16>,
    /// The bytes that follow are of no client.
    lost: bool,
}

impl Client {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            window: 1,
            ours: VecDeque::new(),
            stored: BTreeSet::new(),
            resumed: BTreeSet::new(),
            theirs: BTreeMap::new(),
            again: BTreeSet::new(),
            releases: BTreeSet::new(),
            lost: false,
        }
    }

    pub(super) fn connects(&mut self, window: u16, resumes: bool) {
        self.window = if self.version == Version::V5 { usize::from(window) } else { usize::MAX };
        for ours in std::mem::take(&mut self.ours) {
            if ours.settled == Some(true) && ours.qos == QoS::ExactlyOnce {
                self.stored.insert(ours.id);
            }
        }
        if !resumes {
            self.stored.clear();
            self.theirs.clear();
        }
        self.resumed = self.stored.clone();
        let released = |t: &Theirs| *t == Theirs::Released;
        self.again = self.theirs.iter().filter(|(_, t)| !released(t)).map(|(id, _)| *id).collect();
        self.releases = self.theirs.iter().filter(|(_, t)| released(t)).map(|(id, _)| *id).collect();
    }

    /// CONNACK and everything behind it have been read.
    pub(super) fn is_connected(&self) {
        assert!(self.releases.is_empty(), "PUBREL is missing for {:?}", self.releases);
        let due = self.theirs.values().filter(|t| **t != Theirs::Released).count();
        assert!(
            self.again.len() == due - due.min(self.window),
            "of {due}, {:?} did not come again",
            self.again
        );
    }

    /// May the server say that no message of QoS 1 or 2 can be sent now?
    pub(super) fn is_full(&self, capacity: usize) -> bool {
        self.theirs.len() >= self.window.min(capacity) || !self.again.is_empty()
    }

    pub(super) fn loses_count(&mut self) {
        self.lost = true;
    }

    /// The machine gave a message to the shell as a new one.
    pub(super) fn is_taken(&mut self, id: u16, qos: QoS, token: Token) {
        if self.lost {
            return;
        }
        // A 3.1.1 client gets an acknowledgement for each of two messages that it sends under one id.
        let is_strict = self.version == Version::V5;
        assert!(!is_strict || !self.ours.iter().any(|o| o.id == id), "{id} is with the shell already");
        if self.resumed.remove(&id) {
            self.stored.remove(&id);
        }
        let may_share = !is_strict && qos == QoS::AtLeastOnce;
        assert!(may_share || !self.stored.contains(&id), "{id} was stored before and not released");
        self.ours.push_back(Ours { id, qos, token, settled: None });
    }

    pub(super) fn is_stored(&mut self, token: Token) {
        self.settle(token, true);
    }

    pub(super) fn is_refused(&mut self, token: Token) {
        self.settle(token, false);
    }

    fn settle(&mut self, token: Token, stored: bool) {
        if let Some(ours) = self.ours.iter_mut().find(|o| o.token == token) {
            ours.settled = Some(stored);
        }
    }

    /// The client sends PUBREL.
    pub(super) fn releases(&mut self, id: u16) {
        self.stored.remove(&id);
        self.resumed.remove(&id);
    }

    /// The `n`th acknowledgement that the client owes.
    pub(super) fn due(&self, n: usize) -> Option<(u8, u16)> {
        let at = n.checked_rem(self.theirs.len())?;
        self.theirs.iter().nth(at).map(|(id, theirs)| match theirs {
            Theirs::One => (0x40, *id),
            Theirs::Two => (0x50, *id),
            Theirs::Released => (0x70, *id),
        })
    }

    /// The client sends PUBACK, PUBREC or PUBCOMP.
    pub(super) fn acknowledges(&mut self, first: u8, id: u16, refuses: bool) {
        match (first, self.theirs.get(&id)) {
            (0x40, Some(Theirs::One)) | (0x70, Some(Theirs::Released)) => {}
            (0x50, Some(Theirs::Two | Theirs::Released)) if refuses => {}
            _ => return,
        }
        self.theirs.remove(&id);
    }

    /// Reads what the server has sent.
    pub(super) fn reads(&mut self, mut bytes: &[u8]) {
        if self.lost {
            return;
        }
        while let [first, length, rest @ ..] = bytes {
            let Some((body, next)) = rest.split_at_checked(usize::from(*length)) else {
                panic_with("a packet that is cut off")
            };
            self.read(*first, body);
            bytes = next;
        }
        assert!(bytes.is_empty(), "a packet that is cut off");
    }

    fn read(&mut self, first: u8, body: &[u8]) {
        match (first & 0xF0, body) {
            (0x30, [_, topic, rest @ ..]) => self.message(first, rest.get(usize::from(*topic)..)),
            (0x40 | 0x50, [high, low, code @ ..]) => {
                let id = u16::from_be_bytes([*high, *low]);
                self.acknowledged(first, id, code.first().copied().unwrap_or(0));
            }
            (0x60, [high, low, code @ ..]) => {
                let id = u16::from_be_bytes([*high, *low]);
                self.releases.remove(&id);
                if let Some(theirs) = self.theirs.get_mut(&id) {
                    assert!(*theirs != Theirs::One && code.is_empty(), "PUBREL for a message of QoS 1");
                    *theirs = Theirs::Released;
                }
            }
            (0x20 | 0x70 | 0x90 | 0xB0 | 0xD0 | 0xE0, _) => {}
            _ => panic_with("a packet that no server sends"),
        }
    }

    /// A PUBLISH; `rest` begins behind the topic.
    fn message(&mut self, first: u8, rest: Option<&[u8]>) {
        let theirs = match first >> 1 & 0b11 {
            0 => return,
            1 => Theirs::One,
            _ => Theirs::Two,
        };
        let Some([high, low, ..]) = rest else { panic_with("a PUBLISH without a packet id") };
        let id = u16::from_be_bytes([*high, *low]);
        let dup = first & 0b1000 != 0;
        assert!(id != 0, "packet id 0");
        assert!(dup == self.again.remove(&id), "DUP is {dup} for {id}");
        if dup {
            assert!(self.theirs.get(&id) == Some(&theirs), "{id} comes again as another");
        } else {
            assert!(self.theirs.insert(id, theirs).is_none(), "{id} is in use");
        }
        let here = self.theirs.iter().filter(|(id, t)| **t != Theirs::Released && !self.again.contains(id));
        assert!(here.count() <= self.window, "more than the receive maximum");
    }

    /// PUBACK or PUBREC.
    fn acknowledged(&mut self, first: u8, id: u16, code: u8) {
        let qos = if first == 0x40 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        // A packet id in use, or too many of QoS 2: no message was taken.
        if matches!(code, 0x91) || (code == 0x97 && self.ours.front().is_none_or(|o| o.id != id)) {
            return;
        }
        match self.ours.front().copied() {
            Some(ours) if ours.id == id && ours.qos == qos && ours.settled == Some(code < 0x80) => {
                self.ours.pop_front();
                if ours.settled == Some(true) && qos == QoS::ExactlyOnce {
                    self.stored.insert(id);
                }
            }
            _ => {
                let repeated = qos == QoS::ExactlyOnce && code == 0 && self.stored.contains(&id);
                assert!(repeated, "{first:02x} for {id} out of turn, or before the store: {:?}", self.ours);
                self.resumed.remove(&id);
            }
        }
    }
}

/// Fails a check that has no value to go on with.
#[track_caller]
#[allow(clippy::panic, reason = "a broken invariant is what the targets look for")]
fn panic_with(what: &str) -> ! {
    panic!("{what}")
}
