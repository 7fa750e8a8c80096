//! Appending, handing out, settling, going back, opening again.

use std::fs;

use tempfile::{TempDir, tempdir};

use crate::{AppendError, Class, NOTE_BYTES, Owner, Role, Spool, SpoolError, SpoolSettings};

pub(super) fn settings(dir: &TempDir, limit_bytes: u64, segment_bytes: u64) -> SpoolSettings {
    SpoolSettings { dir: dir.path().join("spool"), limit_bytes, segment_bytes }
}

pub(super) fn open(settings: &SpoolSettings) -> Spool {
    Spool::open(settings.clone()).unwrap().0
}

pub(super) fn owner(name: u8) -> Owner {
    [name; 16]
}

pub(super) fn class(name: u8, role: Role, tag: u64) -> Class {
    Class { owner: Some(owner(name)), role, tag, pinned: false }
}

/// The numbers that `next` gives until it gives none.
pub(super) fn rest(spool: &mut Spool) -> Vec<u64> {
    std::iter::from_fn(|| spool.next().unwrap()).map(|record| record.number).collect()
}

fn files(settings: &SpoolSettings, ending: &str) -> usize {
    let names = fs::read_dir(&settings.dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(ending)).count()
}

const SMALL: (u64, u64) = (8 << 10, 1 << 10);

#[test]
fn what_is_appended_is_handed_out_in_order() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, SMALL.0, SMALL.1);
    let mut spool = open(&settings);
    assert!(spool.next().unwrap().is_none());
    for number in 1..=50_u8 {
        let class =
            Class { pinned: number % 2 == 0, ..class(number, Role::Message, u64::from(number) << 40) };
        let body = vec![number; usize::from(number)];
        assert_eq!(spool.append(&class, b"head", &body).unwrap(), u64::from(number));
        if number % 3 == 0 {
            spool.flush().unwrap();
        }
    }
    assert_eq!(spool.len(), 50);
    for number in 1..=50_u8 {
        let record = spool.next().unwrap().unwrap();
        assert_eq!(record.number, u64::from(number));
        assert_eq!(record.class.owner, Some(owner(number)));
        assert_eq!(record.class.tag, u64::from(number) << 40);
        assert_eq!(record.class.pinned, number % 2 == 0);
        assert_eq!(record.header, b"head"[..]);
        assert_eq!(record.body, vec![number; usize::from(number)]);
    }
    assert!(spool.next().unwrap().is_none());
    let class = Class { owner: None, role: Role::Other, tag: 0, pinned: false };
    spool.append(&class, b"", b"").unwrap();
    let record = spool.next().unwrap().unwrap();
    assert_eq!((record.number, record.class), (51, class));
    assert!(record.header.is_empty() && record.body.is_empty());
}

#[test]
fn settled_segments_are_removed() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 1 << 20, 1 << 10);
    let mut spool = open(&settings);
    for number in 0..100 {
        spool.append(&class(1, Role::Message, number), b"", &[0; 100]).unwrap();
    }
    let before = spool.bytes();
    let numbers = rest(&mut spool);
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    assert!(files(&settings, ".segment") > 10);
    // From the last to the first: nothing depends on the order.
    for number in numbers.iter().rev() {
        assert!(spool.settle(*number));
        assert!(!spool.settle(*number), "only once");
    }
    assert!(spool.is_empty());
    assert_eq!(files(&settings, ".segment"), 1);
    assert!(spool.bytes() < before / 10);
    assert_eq!(spool.owners_len(), 0);
    drop(spool);
    let (mut spool, recovery) = Spool::open(settings).unwrap();
    assert_eq!(recovery.records, 0);
    assert!(spool.next().unwrap().is_none());
    assert_eq!(spool.append(&class(1, Role::Message, 0), b"", b"").unwrap(), 101, "no number twice");
}

#[test]
fn a_rewind_hands_out_what_is_not_settled() {
    let dir = tempdir().unwrap();
    let mut spool = open(&settings(&dir, 64 << 10, 1 << 10));
    for number in 0..60 {
        spool.append(&class(1, Role::Message, number), b"", &[0; 60]).unwrap();
    }
    for _ in 0..40 {
        spool.next().unwrap().unwrap();
    }
    for number in [1, 2, 3, 7, 20, 21, 39] {
        assert!(spool.settle(number));
    }
    spool.rewind();
    assert!(spool.settle(5), "what was handed out before a rewind may still be settled");
    let gone = [1, 2, 3, 5, 7, 20, 21, 39];
    let left: Vec<u64> = (1..=60).filter(|number| !gone.contains(number)).collect();
    let mut seen = Vec::new();
    spool.for_each(|record| seen.push(record.number)).unwrap();
    assert_eq!(seen, left);
    assert_eq!(rest(&mut spool), left);
    spool.rewind();
    assert_eq!(rest(&mut spool), left);
    assert!(!spool.settle(61), "it was never given");
}

#[test]
fn a_clean_opening_knows_what_is_settled() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, 1 << 20, 64 << 10);
    let mut spool = open(&settings);
    for number in 0..20 {
        spool.append(&class(1, Role::Message, number), b"", b"body").unwrap();
    }
    for number in 1..=8 {
        spool.next().unwrap().unwrap();
        assert!(spool.settle(number));
    }
    drop(spool);
    let (mut spool, recovery) = Spool::open(settings).unwrap();
    assert_eq!((recovery.records, recovery.lost_records, recovery.lost_bytes), (12, 0, 0));
    assert_eq!(rest(&mut spool), (9..=20).collect::<Vec<_>>());
}

#[test]
fn one_spool_for_one_process() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, SMALL.0, SMALL.1);
    let first = open(&settings);
    assert!(matches!(Spool::open(settings.clone()), Err(SpoolError::InUse { .. })));
    drop(first);
    open(&settings);
}

#[test]
fn a_note_stays_with_the_directory() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, SMALL.0, SMALL.1);
    let mut spool = open(&settings);
    assert_eq!(spool.note(), None);
    spool.set_note(b"first").unwrap();
    spool.set_note(b"second").unwrap();
    assert!(matches!(spool.set_note(&[0; NOTE_BYTES + 1]), Err(SpoolError::NoteTooLong(_))));
    drop(spool);
    let spool = open(&settings);
    assert_eq!(spool.note().unwrap(), b"second"[..]);
    drop(spool);
    let path = settings.dir.join("note");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(open(&settings).note(), None);
}

#[test]
fn an_empty_spool_can_be_removed() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, SMALL.0, SMALL.1);
    let mut spool = open(&settings);
    spool.append(&class(1, Role::Message, 0), b"", b"").unwrap();
    assert!(matches!(spool.remove(), Err(SpoolError::NotEmpty(1))));
    let mut spool = open(&settings);
    let number = spool.next().unwrap().unwrap().number;
    spool.settle(number);
    spool.set_note(b"mine").unwrap();
    spool.remove().unwrap();
    assert!(!settings.dir.exists());
}

#[test]
fn impossible_settings_and_records_are_refused() {
    let dir = tempdir().unwrap();
    for (limit, segment) in [(4096, 1023), (4095, 1024), (u64::MAX, (1 << 30) + 1)] {
        assert!(matches!(Spool::open(settings(&dir, limit, segment)), Err(SpoolError::Settings(_))));
    }
    let mut spool = open(&settings(&dir, 4096, 1024));
    let most = 1024 - 20 - 48;
    let class = class(1, Role::Other, 0);
    assert!(matches!(
        spool.append(&class, b"", &vec![0; most + 1]),
        Err(AppendError::TooLarge { bytes: 1005, most: 1004 })
    ));
    spool.append(&class, b"", &vec![0; most]).unwrap();
    assert_eq!(spool.next().unwrap().unwrap().body.len(), most);
}
