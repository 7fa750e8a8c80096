//! Files that are cut, changed, swapped, or of somebody else: what is read is what was written.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::tempdir;

use super::basics::{class, open, owner, rest, settings};
use crate::{Class, Record, Role, Spool, SpoolError, SpoolSettings};

fn segments(settings: &SpoolSettings) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(&settings.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    paths.sort();
    paths
}

/// Changes a byte of a file.
fn flip(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Ten records of 100 bytes in one segment.
fn ten(settings: &SpoolSettings) {
    let mut spool = open(settings);
    for tag in 0..10 {
        spool.append(&class(1, Role::Message, tag), b"", &[0x55; 52]).unwrap();
    }
}

#[test]
fn a_torn_end_is_cut_off() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 64 << 10, 16 << 10);
    ten(&settings);
    let path = &segments(&settings)[0];
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 7]).unwrap();
    let (mut spool, recovery) = Spool::open(settings.clone()).unwrap();
    assert_eq!((recovery.records, recovery.lost_records, recovery.lost_bytes), (9, 1, 93));
    assert_eq!(rest(&mut spool), (1..=9).collect::<Vec<_>>());
    let next = spool.append(&class(1, Role::Message, 0), b"", b"").unwrap();
    assert!(next > 10, "the lost one's number is not given again: {next}");
    drop(spool);
    let (spool, recovery) = Spool::open(settings).unwrap();
    assert_eq!((recovery.lost_records, spool.len()), (0, 10));
}

#[test]
fn a_changed_record_costs_itself() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 64 << 10, 16 << 10);
    ten(&settings);
    flip(&segments(&settings)[0], 20 + 300 + 60);
    flip(&segments(&settings)[0], 20 + 400 + 60);
    let (mut spool, recovery) = Spool::open(settings.clone()).unwrap();
    assert_eq!((recovery.records, recovery.lost_records, recovery.lost_bytes), (8, 2, 200));
    assert_eq!(rest(&mut spool), [1, 2, 3, 6, 7, 8, 9, 10]);
    drop(spool);
    assert_eq!(Spool::open(settings).unwrap().1.lost_records, 0, "it was mended");
}

#[test]
fn a_changed_length_costs_the_rest_of_its_segment() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 64 << 10, 1 << 10);
    {
        let mut spool = open(&settings);
        for tag in 0..20 {
            spool.append(&class(1, Role::Message, tag), b"", &[0x55; 52]).unwrap();
        }
    }
    assert_eq!(segments(&settings).len(), 2);
    flip(&segments(&settings)[0], 20 + 400 + 2);
    let (mut spool, recovery) = Spool::open(settings).unwrap();
    assert_eq!(recovery.lost_bytes, 600);
    assert_eq!(rest(&mut spool), [1, 2, 3, 4].into_iter().chain(11..=20).collect::<Vec<_>>());
}

#[test]
fn damage_under_the_reader_is_passed_over() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 256 << 10, 64 << 10);
    let mut spool = open(&settings);
    for tag in 0..1000 {
        spool.append(&class(1, Role::Message, tag), b"", &[0x55; 52]).unwrap();
    }
    spool.flush().unwrap();
    flip(&segments(&settings)[0], 20 + 300 + 60);
    flip(&segments(&settings)[1], 20 + 2);
    let numbers = rest(&mut spool);
    assert!(numbers.len() > 600 && !numbers.contains(&4) && numbers.contains(&5));
    assert_eq!(spool.len(), numbers.len() as u64, "what is lost is not waited for");
    spool.rewind();
    assert_eq!(rest(&mut spool), numbers);
    for number in &numbers {
        assert!(spool.settle(*number));
    }
    assert!(spool.is_empty());
    let dropped = spool.take_dropped();
    assert!(dropped.damaged_bytes >= 100 * (1000 - numbers.len() as u64));
    let number = spool.append(&class(1, Role::Message, 0), b"", b"").unwrap();
    assert_eq!(rest(&mut spool), [number]);
}

#[test]
fn files_that_vanish_are_lost_records() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 64 << 10, 1 << 10);
    let mut spool = open(&settings);
    for tag in 0..60 {
        spool.append(&class(1, Role::Message, tag), b"", &[0x55; 52]).unwrap();
    }
    spool.flush().unwrap();
    fs::remove_file(&segments(&settings)[1]).unwrap();
    let numbers = rest(&mut spool);
    assert_eq!(numbers, (1..=10).chain(21..=60).collect::<Vec<_>>());
    assert_eq!(spool.len(), 50);
    for number in numbers {
        spool.settle(number);
    }
    spool.remove().unwrap();
}

#[test]
fn another_version_is_left_alone() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 64 << 10, 16 << 10);
    ten(&settings);
    let path = &segments(&settings)[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[7] = 2;
    let sum = crate::crc::checksum(0, &[&bytes[..16]]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, &bytes).unwrap();
    assert!(matches!(Spool::open(settings.clone()), Err(SpoolError::Version { .. })));
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn a_plan_is_carried_out_after_a_kill() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 64 << 10, 1 << 10);
    let mut spool = open(&settings);
    for tag in 0..20 {
        for name in 1..=3 {
            let role = match tag {
                0 => Role::Begins,
                19 => Role::Ends,
                _ => Role::Message,
            };
            spool.append(&class(name, role, tag), b"", &[0x55; 52]).unwrap();
        }
    }
    drop(spool);
    // After nothing, through everything, messages up to number 12; owner 2.
    let numbers = [0_u64, 1000, 12].into_iter().flat_map(u64::to_le_bytes);
    let plan: Vec<u8> = numbers.chain(owner(2)).collect();
    let directory = crate::directory::Directory::open(&settings.dir).unwrap();
    directory.put(crate::directory::DROPPING, &plan).unwrap();
    drop(directory);
    for round in 0..2 {
        let (mut spool, recovery) = Spool::open(settings.clone()).unwrap();
        assert_eq!(recovery.lost_records, 0);
        let mut left = Vec::new();
        spool.for_each(|record| left.push((record.class.owner.unwrap()[0], record.number))).unwrap();
        let expected: Vec<(u8, u64)> = (1..=60_u64)
            .map(|number| (((number - 1) % 3 + 1) as u8, number))
            .filter(|(name, number)| *name != 2 && (*number <= 3 || *number > 12))
            .collect();
        assert_eq!(left, expected, "round {round}");
        assert_eq!(spool.len(), expected.len() as u64);
        let dropped = spool.take_dropped();
        assert_eq!(
            (dropped.sessions, dropped.session_records, dropped.messages),
            if round == 0 { (1, 20, 6) } else { (0, 0, 0) }
        );
    }
}

/// What is done to a directory while nobody has it.
#[derive(Clone, Debug)]
enum Harm {
    Flip {
        file: prop::sample::Index,
        at: prop::sample::Index,
        mask: u8,
    },
    Cut {
        file: prop::sample::Index,
        at: prop::sample::Index,
    },
    Add {
        file: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Overwrite {
        file: prop::sample::Index,
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Swap {
        one: prop::sample::Index,
        other: prop::sample::Index,
    },
    /// A piece of one file in the place of a piece of another.
    Mix {
        one: prop::sample::Index,
        other: prop::sample::Index,
        at: prop::sample::Index,
    },
    Remove {
        file: prop::sample::Index,
    },
}

fn harm() -> impl Strategy<Value = Harm> {
    use prop::sample::Index;
    let bytes = || vec(any::<u8>(), 1..200);
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), index(), 1..=255_u8).prop_map(|(file, at, mask)| Harm::Flip { file, at, mask }),
        2 => (index(), index()).prop_map(|(file, at)| Harm::Cut { file, at }),
        1 => (index(), bytes()).prop_map(|(file, bytes)| Harm::Add { file, bytes }),
        2 => (index(), index(), bytes()).prop_map(|(file, at, bytes)| Harm::Overwrite { file, at, bytes }),
        1 => (index(), index()).prop_map(|(one, other)| Harm::Swap { one, other }),
        1 => (index(), index(), index()).prop_map(|(one, other, at)| Harm::Mix { one, other, at }),
        1 => index().prop_map(|file| Harm::Remove { file }),
    ]
}

fn inflict(harm: &Harm, paths: &[PathBuf]) {
    let read = |path: &PathBuf| fs::read(path).unwrap_or_default();
    match harm {
        Harm::Flip { file, at, mask } => {
            let mut bytes = read(file.get(paths));
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
                fs::write(file.get(paths), bytes).unwrap();
            }
        }
        Harm::Cut { file, at } => {
            let bytes = read(file.get(paths));
            fs::write(file.get(paths), &bytes[..at.index(bytes.len() + 1)]).unwrap();
        }
        Harm::Add { file, bytes } => {
            fs::write(file.get(paths), [read(file.get(paths)), bytes.clone()].concat()).unwrap();
        }
        Harm::Overwrite { file, at, bytes } => {
            let mut old = read(file.get(paths));
            let at = at.index(old.len() + 1);
            old.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
            fs::write(file.get(paths), old).unwrap();
        }
        Harm::Swap { one, other } => {
            let (a, b) = (read(one.get(paths)), read(other.get(paths)));
            fs::write(one.get(paths), b).unwrap();
            fs::write(other.get(paths), a).unwrap();
        }
        Harm::Mix { one, other, at } => {
            let (a, b) = (read(one.get(paths)), read(other.get(paths)));
            let cut = at.index(a.len().min(b.len()) + 1);
            fs::write(one.get(paths), [&a[..cut], &b[cut..]].concat()).unwrap();
        }
        Harm::Remove { file } => {
            let _ = fs::remove_file(file.get(paths));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written(
        lengths in vec(0..300_usize, 1..60),
        settled in 0..10_usize,
        harms in vec(harm(), 1..6),
        segment in 1_u64..6,
    ) {
        let dir = tempdir().unwrap();
        let settings = settings(&dir, segment << 14, segment << 10);
        let mut spool = open(&settings);
        let mut written = BTreeMap::new();
        for (at, length) in lengths.iter().enumerate() {
            let role = [Role::Begins, Role::Message, Role::Ends, Role::Other][at % 4];
            let class = Class { owner: Some(owner((at / 4) as u8)), role, tag: at as u64, pinned: at % 5 == 0 };
            let body: Vec<u8> = (0..*length).map(|byte| (byte * at) as u8).collect();
            let number = spool.append(&class, b"header", &body).unwrap();
            written.insert(number, Record { number, class, header: b"header"[..].into(), body: body.into() });
        }
        for _ in 0..settled {
            if let Some(record) = spool.next().unwrap() {
                spool.settle(record.number);
            }
        }
        drop(spool);
        let mut paths: Vec<PathBuf> = fs::read_dir(&settings.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for harm in &harms {
            inflict(harm, &paths);
        }
        let (mut spool, recovery) = Spool::open(settings.clone()).unwrap();
        prop_assert_eq!(recovery.records, spool.len());
        let mut last = 0;
        let mut count = 0;
        while let Some(record) = spool.next().unwrap() {
            prop_assert!(record.number > last);
            last = record.number;
            count += 1;
            prop_assert_eq!(written.get(&record.number), Some(&record));
        }
        prop_assert_eq!(count, spool.len());
        // It goes on from there.
        let number = spool.append(&class(9, Role::Other, 0), b"", b"more").unwrap();
        prop_assert!(number > last);
        drop(spool);
        let (mut spool, recovery) = Spool::open(settings).unwrap();
        prop_assert_eq!(recovery.lost_bytes, 0);
        let numbers = rest(&mut spool);
        prop_assert_eq!(numbers.len() as u64, count + 1);
        prop_assert_eq!(numbers.last(), Some(&number));
    }
}
