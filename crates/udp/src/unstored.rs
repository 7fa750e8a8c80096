//! Datagrams that are on their way to the store, until all that they brought has come to its end there.
//!
//! Owns: the table and its bound, what each datagram waits for, who is leaving, which ack may leave. Does not own: what follows
//! (`door.rs`). It is of all sockets together, since the hub may tell any socket of a device that has just moved from another.
//!
//! An ack says a number, or none, and a device that has begun anew, or another one behind the same port, may use the number of what
//! still waits for something else. So an ack that could be taken for another datagram's leaves when that is stored too.

use std::collections::HashMap;
use std::sync::Arc;

use landfall_channel::Via;
use landfall_net::DatagramSocket;
use parking_lot::Mutex;
use slab::Slab;

use crate::guard::{Device, Taken};
use crate::metrics::{Metrics, level};

/// A datagram that is on its way to the store.
#[derive(Debug)]
pub(crate) struct Unstored {
    /// Where it came in: its ack leaves from there. From a channel only the task of its socket can send: see `Door::transmit`.
    pub(crate) socket: Arc<DatagramSocket>,
    pub(crate) via: Via,
    pub(crate) ack: bool,
    pub(crate) seq: Option<u64>,
    /// A keyed hash of its bytes, where it wants an ack.
    pub(crate) mark: u64,
    pub(crate) taken: Option<Taken>,
    /// Whose session it ends.
    pub(crate) leaving: Option<Device>,
    /// Parts of it that are still to be told of: a message, a beginning, an end.
    pub(crate) parts: u8,
}

/// Where an ack goes to, and the number in it: what its bytes are.
type Ack = (Via, Option<u64>);

/// The datagrams with one ack that wait.
#[derive(Debug)]
struct Group {
    waiting: usize,
    /// Of the first of them.
    mark: u64,
    /// Not all of them have the same bytes: the acks leave when none of them waits any more.
    is_mixed: bool,
    /// One of them will never be stored, so none leaves.
    is_lost: bool,
    /// Acks of what is stored, which have not left.
    owed: usize,
}

impl Group {
    fn join(&mut self, mark: u64) {
        self.is_mixed |= self.mark != mark;
    }

    /// One of them has come to its end. Says how many acks leave now.
    fn part(&mut self, fate: Fate) -> usize {
        self.waiting -= 1;
        self.owed += usize::from(fate == Fate::Stored);
        self.is_lost |= self.is_mixed && fate == Fate::Lost;
        let leave = !self.is_lost && (!self.is_mixed || self.waiting == 0);
        if leave { std::mem::take(&mut self.owed) } else { 0 }
    }
}

/// What comes of a datagram with its last part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// All of it is stored.
    pub(crate) is_stored: bool,
    /// How many times its ack leaves now: not at all while another datagram could be meant by it, and then for all of them.
    pub(crate) acks: usize,
}

/// What has become of a datagram that wants an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    Lost,
    /// It waits no longer, and whoever says so deals with it.
    Open,
}

#[derive(Debug)]
struct Entry {
    unstored: Unstored,
    serial: u32,
    is_lost: bool,
    /// Of its ack, those that leave when it has come to its end.
    acks: usize,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: Slab<Entry>,
    /// Devices whose end is on its way, each with its token.
    leaving: HashMap<Device, u64, ahash::RandomState>,
    /// Of the datagrams that want an ack.
    acks: HashMap<Ack, Group, ahash::RandomState>,
    /// Of the newest entry: a token that is told late is not taken for another's.
    serial: u32,
}

impl Inside {
    fn entry(&mut self, token: u64) -> Option<&mut Entry> {
        let (serial, place) = parted(token)?;
        self.waiting.get_mut(place).filter(|entry| entry.serial == serial)
    }

    fn remove(&mut self, token: u64, fate: Fate) -> Option<Entry> {
        self.entry(token)?;
        let mut entry = self.waiting.try_remove(parted(token)?.1)?;
        if entry.unstored.ack {
            let fate = if entry.is_lost { Fate::Lost } else { fate };
            entry.acks = self.part((entry.unstored.via, entry.unstored.seq), fate);
        }
        if let Some(device) = &entry.unstored.leaving
            && self.leaving.get(device) == Some(&token)
        {
            self.leaving.remove(device);
        }
        Some(entry)
    }

    fn join(&mut self, ack: Ack, mark: u64) {
        let new = || Group { waiting: 0, mark, is_mixed: false, is_lost: false, owed: 0 };
        let group = self.acks.entry(ack).or_insert_with(new);
        group.join(mark);
        group.waiting += 1;
    }

    fn part(&mut self, ack: Ack, fate: Fate) -> usize {
        let Some(group) = self.acks.get_mut(&ack) else { return 0 };
        let leave = group.part(fate);
        if group.waiting == 0 {
            self.acks.remove(&ack);
        }
        leave
    }
}

fn parted(token: u64) -> Option<(u32, usize)> {
    let place = usize::try_from(token & u64::from(u32::MAX)).ok()?;
    Some((u32::try_from(token >> 32).ok()?, place))
}

/// The datagrams that wait for the store and whose fate matters here.
#[derive(Debug)]
pub(crate) struct UnstoredTable {
    inside: Mutex<Inside>,
    limit: usize,
}

impl UnstoredTable {
    pub(crate) fn new(limit: usize) -> Self {
        // A place has to fit into half a token.
        Self { inside: Mutex::default(), limit: limit.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX)) }
    }

    /// Keeps a datagram and returns its token; when there is no room, gives its number back.
    pub(crate) fn insert(&self, unstored: Unstored, metrics: &Metrics) -> Result<u64, Option<Taken>> {
        let mut inside = self.inside.lock();
        if inside.waiting.len() >= self.limit {
            return Err(unstored.taken);
        }
        inside.serial = inside.serial.wrapping_add(1);
        let serial = inside.serial;
        let leaving = unstored.leaving.clone();
        if unstored.ack {
            inside.join((unstored.via, unstored.seq), unstored.mark);
        }
        let place = inside.waiting.insert(Entry { unstored, serial, is_lost: false, acks: 0 });
        let token = u64::from(serial) << 32 | u64::try_from(place).unwrap_or(u64::from(u32::MAX));
        if let Some(device) = leaving {
            inside.leaving.insert(device, token);
        }
        metrics.unstored.set(level(inside.waiting.len()));
        Ok(token)
    }

    /// One part of the datagram is stored, or never will be. With the last one the datagram is returned, and what comes of it.
    pub(crate) fn settle(
        &self,
        token: u64,
        is_stored: bool,
        metrics: &Metrics,
    ) -> Option<(Unstored, Settled)> {
        let mut inside = self.inside.lock();
        let entry = inside.entry(token)?;
        entry.is_lost |= !is_stored;
        entry.unstored.parts = entry.unstored.parts.saturating_sub(1);
        if entry.unstored.parts > 0 {
            return None;
        }
        let entry = inside.remove(token, Fate::Stored)?;
        metrics.unstored.set(level(inside.waiting.len()));
        Some((entry.unstored, Settled { is_stored: !entry.is_lost, acks: entry.acks }))
    }

    /// Takes a datagram out; `None` when there is none of this token.
    pub(crate) fn remove(&self, token: u64, fate: Fate, metrics: &Metrics) -> Option<Unstored> {
        let mut inside = self.inside.lock();
        let entry = inside.remove(token, fate)?;
        metrics.unstored.set(level(inside.waiting.len()));
        Some(entry.unstored)
    }

    /// May an ack leave for a datagram that need not wait? Where others with the same ack do, it leaves with theirs.
    pub(crate) fn may_ack(&self, via: Via, seq: Option<u64>, mark: u64) -> bool {
        let mut inside = self.inside.lock();
        let Some(group) = inside.acks.get_mut(&(via, seq)) else { return true };
        group.join(mark);
        group.owed += usize::from(group.is_mixed);
        !group.is_mixed
    }

    /// Is the end of the device, which it has told itself, still on its way?
    pub(crate) fn is_leaving(&self, device: &Device) -> bool {
        self.inside.lock().leaving.contains_key(device)
    }

    /// Does anything wait that came in at `socket`?
    pub(crate) fn has_of(&self, socket: &Arc<DatagramSocket>) -> bool {
        self.inside.lock().waiting.iter().any(|(_, entry)| Arc::ptr_eq(&entry.unstored.socket, socket))
    }
}

#[cfg(test)]
mod tests {
    use landfall_net::{DatagramSettings, Datagrams, Path};

    use super::*;

    async fn socket() -> Arc<DatagramSocket> {
        let endpoint = "udp://127.0.0.1:0".parse().unwrap();
        Arc::new(Datagrams::bind(&endpoint, DatagramSettings::default()).await.unwrap().remove(0))
    }

    fn unstored(socket: &Arc<DatagramSocket>, parts: u8, leaving: Option<&Device>) -> Unstored {
        let path = Path { remote: socket.local_addr(), local: None };
        Unstored {
            socket: Arc::clone(socket),
            via: path.into(),
            ack: true,
            seq: None,
            mark: 0,
            taken: None,
            leaving: leaving.cloned(),
            parts,
        }
    }

    #[tokio::test]
    async fn a_datagram_is_stored_when_all_its_parts_are() {
        let (table, metrics, socket) = (UnstoredTable::new(2), Metrics::default(), socket().await);
        let two = table.insert(unstored(&socket, 2, None), &metrics).unwrap();
        let lost = table.insert(unstored(&socket, 2, None), &metrics).unwrap();
        assert!(table.insert(unstored(&socket, 1, None), &metrics).is_err());
        assert!(table.settle(two, true, &metrics).is_none());
        assert!(table.settle(two, true, &metrics).unwrap().1.is_stored);
        assert!(table.settle(lost, false, &metrics).is_none());
        assert!(!table.settle(lost, true, &metrics).unwrap().1.is_stored);
        assert!(!table.has_of(&socket));
    }

    #[tokio::test]
    async fn a_token_is_of_one_datagram_only() {
        let (table, metrics, socket) = (UnstoredTable::new(2), Metrics::default(), socket().await);
        let old = table.insert(unstored(&socket, 1, None), &metrics).unwrap();
        assert!(table.remove(old, Fate::Open, &metrics).is_some());
        let new = table.insert(unstored(&socket, 1, None), &metrics).unwrap();
        assert!(
            table.settle(old, false, &metrics).is_none() && table.remove(old, Fate::Open, &metrics).is_none()
        );
        assert!(table.settle(new, true, &metrics).unwrap().1.is_stored);
    }

    /// Datagrams with these marks, from one place with one number; their tokens.
    async fn with_marks(table: &UnstoredTable, metrics: &Metrics, marks: &[u64]) -> Vec<u64> {
        let socket = socket().await;
        let path = Path { remote: ([127, 0, 0, 1], 9).into(), local: None };
        let one = |mark| Unstored { mark, via: path.into(), seq: Some(7), ..unstored(&socket, 1, None) };
        marks.iter().map(|mark| table.insert(one(*mark), metrics).unwrap()).collect()
    }

    #[tokio::test]
    async fn an_ack_that_could_mean_several_leaves_when_all_of_them_are_stored() {
        let (table, metrics) = (UnstoredTable::new(9), Metrics::default());
        let settle = |token: u64, is_stored| table.settle(token, is_stored, &metrics).unwrap().1.acks;
        // The same bytes again: any of them is as good as the other.
        let same = with_marks(&table, &metrics, &[1, 1]).await;
        assert_eq!([0, 1].map(|n| settle(same[n], true)), [1, 1]);
        // The last one says it for all, in whatever order they are stored.
        let mixed = with_marks(&table, &metrics, &[1, 2, 1]).await;
        assert_eq!([2, 0, 1].map(|n| settle(mixed[n], true)), [0, 0, 3]);
        // One that is lost could be the one that is meant.
        for lost in 0..2 {
            let mixed = with_marks(&table, &metrics, &[1, 2]).await;
            assert_eq!([0, 1].map(|n| settle(mixed[n], n != lost)), [0, 0], "{lost}");
        }
        // What need not wait takes its turn.
        let via = Path { remote: ([127, 0, 0, 1], 9).into(), local: None }.into();
        let waits = with_marks(&table, &metrics, &[1]).await;
        assert!(table.may_ack(via, Some(7), 1) && table.may_ack(via, Some(8), 2));
        assert!(!table.may_ack(via, Some(7), 2));
        assert_eq!(settle(waits[0], true), 2);
        assert!(table.may_ack(via, Some(7), 2));
        assert!(table.inside.lock().acks.is_empty());
    }

    #[tokio::test]
    async fn who_leaves_is_leaving_until_the_end_is_stored() {
        let (table, metrics, socket) = (UnstoredTable::new(9), Metrics::default(), socket().await);
        let device = ("t".parse().unwrap(), "d".parse().unwrap());
        let first = table.insert(unstored(&socket, 1, Some(&device)), &metrics).unwrap();
        let second = table.insert(unstored(&socket, 1, Some(&device)), &metrics).unwrap();
        table.settle(first, true, &metrics);
        assert!(table.is_leaving(&device), "it has come back and leaves again");
        table.settle(second, true, &metrics);
        assert!(!table.is_leaving(&device));
    }
}
