//! Random calls against a list in memory: order, settling, opening again, and what the limit may cost.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::tempdir;

use super::basics::{owner, settings};
use crate::{AppendError, Class, Owner, Record, Recovery, Role, Spool, SpoolSettings};

#[derive(Clone, Debug)]
enum Call {
    Append {
        name: u8,
        role: Role,
        pinned: bool,
        length: usize,
    },
    Flush,
    Next(usize),
    /// Settles one of what is handed out.
    Settle(prop::sample::Index),
    /// Settles the oldest that are handed out.
    SettleFirst(usize),
    Rewind,
    Scan,
    Reopen,
    /// The process is killed: the files are what they were at that moment.
    Kill,
    TakeDropped,
}

fn call() -> impl Strategy<Value = Call> {
    let role = prop_oneof![
        2 => Just(Role::Begins), 5 => Just(Role::Message), 2 => Just(Role::Ends), 1 => Just(Role::Other)
    ];
    let append = (0..12_u8, role, prop::bool::weighted(0.1), 0..400_usize)
        .prop_map(|(name, role, pinned, length)| Call::Append { name, role, pinned, length });
    prop_oneof![
        40 => append,
        2 => Just(Call::Flush),
        6 => (1..6_usize).prop_map(Call::Next),
        3 => any::<prop::sample::Index>().prop_map(Call::Settle),
        3 => (1..8_usize).prop_map(Call::SettleFirst),
        1 => Just(Call::Rewind),
        1 => Just(Call::Scan),
        1 => Just(Call::Reopen),
        1 => Just(Call::Kill),
        1 => Just(Call::TakeDropped),
    ]
}

/// What must be so.
struct Model {
    settings: SpoolSettings,
    /// Every record that is not settled and not known to be dropped.
    records: BTreeMap<u64, Record>,
    /// Handed out and not settled.
    out: BTreeMap<u64, ()>,
    /// The last number that `next` gave.
    at: u64,
    /// Numbers that were ever handed out.
    handed: HashSet<u64>,
    /// Each owner's first record.
    first: HashMap<Option<Owner>, u64>,
    /// Settled ones, which an opening after a kill may bring back.
    settled: BTreeMap<u64, Record>,
    next: u64,
    /// Everything up to this one survives the process.
    flushed: u64,
    /// Records that were dropped and not yet told of.
    gone: u64,
}

impl Model {
    /// Compares the whole content; what is missing must be what may be dropped.
    fn look(&mut self, spool: &mut Spool) {
        let mut seen = BTreeMap::new();
        let mut last = 0;
        spool
            .for_each(|record| {
                assert!(record.number > last, "in order, once");
                last = record.number;
                seen.insert(record.number, record.clone());
            })
            .unwrap();
        assert_eq!(spool.len(), seen.len() as u64);
        assert_eq!(spool.is_empty(), seen.is_empty());
        assert!(spool.bytes() <= spool.limit());
        for (number, record) in &seen {
            assert_eq!(self.records.get(number), Some(record), "it is what was written");
        }
        let gone: Vec<Record> =
            self.records.values().filter(|record| !seen.contains_key(&record.number)).cloned().collect();
        let mut by_owner = HashMap::<_, Vec<&Record>>::new();
        for record in &gone {
            assert!(!self.handed.contains(&record.number), "what was handed out stays: {record:?}");
            by_owner.entry(record.class.owner).or_default().push(record);
        }
        for (owner, gone) in by_owner {
            if gone.iter().all(|record| record.class.role == Role::Message && !record.class.pinned) {
                continue;
            }
            // Something else than messages is gone: then a session went whole, from a begin to an end.
            let roles: Vec<Role> = gone
                .iter()
                .map(|record| record.class.role)
                .filter(|role| matches!(role, Role::Begins | Role::Ends))
                .collect();
            assert_eq!((roles.first(), roles.last()), (Some(&Role::Begins), Some(&Role::Ends)));
            let end = gone
                .iter()
                .filter(|record| record.class.role == Role::Ends)
                .map(|record| record.number)
                .max();
            let before = seen.values().filter(|left| left.class.owner == owner && Some(left.number) < end);
            assert_eq!(before.count(), 0, "nothing of it is left");
        }
        for record in gone {
            self.gone += 1;
            self.records.remove(&record.number);
        }
    }

    fn next(&mut self, spool: &mut Spool) {
        let got = spool.next().unwrap();
        let expected = self.records.range(self.at + 1..).next().map(|(_, record)| record.clone());
        match &got {
            Some(record) => {
                assert_eq!(self.records.get(&record.number), Some(record));
                if got != expected {
                    // What lies between was dropped.
                    self.look(spool);
                    let expected = self.records.range(self.at + 1..).next().map(|(number, _)| *number);
                    assert_eq!(expected, Some(record.number));
                }
                self.at = record.number;
                self.out.insert(record.number, ());
                self.handed.insert(record.number);
            }
            None => {
                self.look(spool);
                assert!(self.records.range(self.at + 1..).next().is_none(), "nothing is passed over");
            }
        }
    }

    fn settle(&mut self, spool: &mut Spool, number: u64) {
        assert_eq!(spool.settle(number), self.out.remove(&number).is_some());
        if let Some(record) = self.records.remove(&number) {
            self.settled.insert(number, record);
        }
    }

    fn append(&mut self, spool: &mut Spool, class: Class, length: usize) {
        let header = vec![length as u8; length / 7];
        let body: Vec<u8> = (0..length).map(|at| at as u8 ^ self.next as u8).collect();
        match spool.append(&class, &header, &body) {
            Ok(number) => {
                assert_eq!(number, self.next);
                self.next += 1;
                self.records
                    .insert(number, Record { number, class, header: header.into(), body: body.into() });
            }
            Err(AppendError::Full) => {
                let message = class.role == Role::Message && !class.pinned;
                self.full(spool, 48 + (header.len() + body.len()) as u64, message);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// It said that nothing more could be dropped: so what may be dropped would not have been enough.
    fn full(&mut self, spool: &mut Spool, length: u64, message: bool) {
        self.look(spool);
        let handed = spool.handed();
        let mut owners = HashMap::<_, Vec<&Record>>::new();
        for record in self.records.values() {
            owners.entry(record.class.owner).or_default().push(record);
        }
        let mut droppable = 0;
        for (owner, records) in owners {
            let mut marks = records
                .iter()
                .map(|record| record.class.role)
                .filter(|role| *role != Role::Message && *role != Role::Other);
            let (first, last) = (marks.next(), marks.next_back());
            let whole = owner.is_some()
                && self.first.get(&owner) == Some(&records[0].number)
                && (first, last) == (Some(Role::Begins), Some(Role::Ends))
                && records[0].number > handed;
            let loose = |record: &Record| {
                record.class.role == Role::Message && !record.class.pinned && record.number > handed
            };
            let gone = records.iter().filter(|record| whole || loose(record));
            droppable +=
                gone.map(|record| 48 + (record.header.len() + record.body.len()) as u64).sum::<u64>();
        }
        let least = if message { self.settings.segment_bytes / 4 } else { 0 };
        let over = (spool.bytes() + length + 20).saturating_sub(spool.limit());
        assert!(droppable < over.max(least), "{droppable} could have been dropped");
    }

    /// The account of what was dropped is exact.
    fn take_dropped(&mut self, spool: &mut Spool) {
        self.look(spool);
        let dropped = spool.take_dropped();
        assert_eq!(dropped.messages + dropped.session_records, std::mem::take(&mut self.gone));
        assert_eq!((dropped.unlisted, dropped.damaged_bytes), (0, 0));
        for range in dropped.ranges {
            assert!(range.from_tag <= range.to_tag && range.to_tag < self.next);
            let within = |record: &&Record| {
                let class = record.class;
                class.owner == range.owner && (range.from_tag..=range.to_tag).contains(&class.tag)
            };
            assert_eq!(self.records.values().find(within), None, "a dropped one is here");
        }
    }

    /// After an opening: unflushed records are gone, and nothing else; settled ones may be back.
    fn opened(&mut self, spool: &mut Spool, recovery: Recovery) {
        assert_eq!((recovery.lost_records, recovery.lost_bytes), (0, 0));
        assert_eq!(recovery.records, spool.len());
        let mut seen = BTreeMap::new();
        spool.for_each(|record| drop(seen.insert(record.number, record.clone()))).unwrap();
        for (number, record) in &seen {
            if let Some(settled) = self.settled.remove(number) {
                assert_eq!(settled, *record);
                self.records.insert(*number, settled);
            }
        }
        let flushed = self.flushed;
        self.records.retain(|number, _| *number <= flushed || seen.contains_key(number));
        assert_eq!(self.records, seen);
        assert!(spool.next_number() >= self.next, "no number is given twice");
        self.next = spool.next_number();
        self.flushed = self.next - 1;
        self.out.clear();
        self.at = 0;
    }

    fn call(&mut self, mut spool: Spool, call: &Call) -> Spool {
        match *call {
            Call::Append { name, role, pinned, length } => {
                let owner = (name > 0).then(|| owner(name));
                self.append(&mut spool, Class { owner, role, tag: self.next, pinned }, length);
            }
            Call::Flush => {
                spool.flush().unwrap();
                self.flushed = self.next - 1;
            }
            Call::Next(count) => (0..count).for_each(|_| self.next(&mut spool)),
            Call::Settle(ref index) => {
                let out: Vec<u64> = self.out.keys().copied().collect();
                if !out.is_empty() {
                    self.settle(&mut spool, *index.get(&out));
                }
            }
            Call::SettleFirst(count) => {
                let out: Vec<u64> = self.out.keys().copied().take(count).collect();
                out.into_iter().for_each(|number| self.settle(&mut spool, number));
            }
            Call::Rewind => {
                spool.rewind();
                if let Some((first, ())) = self.out.first_key_value() {
                    self.at = first - 1;
                }
            }
            Call::Scan => self.look(&mut spool),
            Call::TakeDropped => self.take_dropped(&mut spool),
            Call::Reopen => {
                self.take_dropped(&mut spool);
                drop(spool);
                let (mut opened, recovery) = Spool::open(self.settings.clone()).unwrap();
                self.flushed = self.next - 1;
                assert_eq!(opened.next_number(), self.next, "no number is passed over");
                self.opened(&mut opened, recovery);
                return opened;
            }
            Call::Kill => {
                self.take_dropped(&mut spool);
                let (mut opened, recovery) = spool.kill(&self.settings);
                self.opened(&mut opened, recovery);
                return opened;
            }
        }
        spool
    }
}

fn run(calls: &[Call], segment_bytes: u64, limit_bytes: u64) {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, limit_bytes, segment_bytes);
    let mut spool = Spool::open(settings.clone()).unwrap().0;
    let mut model = Model {
        settings,
        records: BTreeMap::new(),
        out: BTreeMap::new(),
        at: 0,
        handed: HashSet::new(),
        first: HashMap::new(),
        settled: BTreeMap::new(),
        next: 1,
        flushed: 0,
        gone: 0,
    };
    for call in calls {
        spool = model.call(spool, call);
    }
    model.take_dropped(&mut spool);
    // Everything that is left comes out, and then nothing is left.
    spool.rewind();
    model.at = 0;
    while !model.records.is_empty() {
        model.next(&mut spool);
        if let Some((&number, ())) = model.out.first_key_value() {
            model.settle(&mut spool, number);
        }
    }
    assert!(spool.next().unwrap().is_none());
    assert!(spool.is_empty());
    assert_eq!(spool.owners_len(), 0);
    spool.remove().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_list_does(calls in vec(call(), 0..250)) {
        run(&calls, 1 << 10, 8 << 10);
    }

    #[test]
    fn with_room_too(calls in vec(call(), 0..250)) {
        run(&calls, 16 << 10, 1 << 20);
    }
}
