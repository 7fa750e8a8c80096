//! What is dropped when the spool is full, and what never is.

use std::collections::BTreeMap;
use std::fs;

use tempfile::tempdir;

use super::basics::{class, open, owner, rest, settings};
use crate::{AppendError, Class, Dropped, DroppedRange, Role, Spool};

const LIMIT: u64 = 16 << 10;
const SEGMENT: u64 = 2 << 10;

/// Appends until the spool is full; the numbers.
fn fill(spool: &mut Spool, class: &Class, body: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        match spool.append(class, b"", body) {
            Ok(number) => numbers.push(number),
            Err(AppendError::Full) => return numbers,
            Err(error) => panic!("{error}"),
        }
        assert!(spool.bytes() <= LIMIT);
    }
}

fn session(spool: &mut Spool, name: u8, messages: u64) {
    spool.append(&class(name, Role::Begins, 1), b"", &[name; 80]).unwrap();
    for tag in 1..=messages {
        spool.append(&class(name, Role::Message, tag), b"", &[name; 80]).unwrap();
    }
    spool.append(&class(name, Role::Other, 2), b"", &[name; 80]).unwrap();
    spool.append(&class(name, Role::Ends, 3), b"", &[name; 80]).unwrap();
    assert!(spool.bytes() <= LIMIT);
}

/// Which roles of which owner are left, in order.
fn left(spool: &mut Spool) -> BTreeMap<u8, Vec<Role>> {
    let mut left = BTreeMap::<u8, Vec<Role>>::new();
    spool
        .for_each(|record| left.entry(record.class.owner.unwrap()[0]).or_default().push(record.class.role))
        .unwrap();
    left
}

#[test]
fn the_oldest_sessions_go_first_and_whole() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, LIMIT, SEGMENT);
    let mut spool = open(&settings);
    // One that stays open, with messages that are older than everything else.
    spool.append(&class(0, Role::Begins, 1), b"", b"").unwrap();
    spool.append(&class(0, Role::Message, 1), b"", b"").unwrap();
    for name in 1..=100 {
        session(&mut spool, name, 2);
    }
    spool.append(&class(0, Role::Ends, 2), b"", b"").unwrap();
    let left = left(&mut spool);
    assert_eq!(left[&0], [Role::Begins, Role::Message, Role::Ends]);
    let sessions: Vec<u8> = left.keys().copied().collect();
    let from = sessions[1];
    assert!(from > 50 && from < 90, "{from}");
    assert_eq!(sessions[1..], (from..=100).collect::<Vec<_>>());
    for name in from..=100 {
        assert_eq!(left[&name], [Role::Begins, Role::Message, Role::Message, Role::Other, Role::Ends]);
    }
    let dropped = spool.take_dropped();
    let sessions = u64::from(from) - 1;
    assert_eq!(dropped, Dropped { sessions, session_records: 5 * sessions, ..Dropped::default() });
    assert!(spool.take_dropped().is_empty());
    assert_eq!(spool.len(), 3 + 5 * (101 - u64::from(from)));
    drop(spool);
    let mut spool = open(&settings);
    let numbers = rest(&mut spool);
    assert_eq!(numbers.len() as u64, spool.len());
    assert!(numbers.is_sorted());
}

#[test]
fn messages_go_when_there_are_no_sessions() {
    let dir = tempdir().unwrap();
    let mut spool = open(&settings(&dir, LIMIT, SEGMENT));
    for name in 0..4 {
        spool.append(&class(name, Role::Begins, 1), b"", b"").unwrap();
    }
    for tag in 1..=400 {
        for name in 0..4 {
            let pinned = name == 3 && tag % 50 == 0;
            let class = Class { pinned, ..class(name, Role::Message, tag) };
            spool.append(&class, b"", &[0; 50]).unwrap();
        }
        assert!(spool.bytes() <= LIMIT);
    }
    let mut tags = BTreeMap::<u8, Vec<u64>>::new();
    let mut begun = 0;
    spool
        .for_each(|record| match record.class.role {
            Role::Message => tags.entry(record.class.owner.unwrap()[0]).or_default().push(record.class.tag),
            _ => begun += 1,
        })
        .unwrap();
    assert_eq!(begun, 4);
    let dropped = spool.take_dropped();
    assert_eq!((dropped.sessions, dropped.session_records, dropped.unlisted), (0, 0, 0));
    let mut count = 0;
    for name in 0..4 {
        let mut ranges = dropped.ranges.iter().filter(|range| range.owner == Some(owner(name)));
        let gone: Vec<u64> = ranges.by_ref().flat_map(|range| range.from_tag..=range.to_tag).collect();
        count += gone.len() as u64;
        // What is there and what is told as gone are everything, once.
        let mut all = [gone, tags[&name].clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=400).collect::<Vec<_>>(), "owner {name}");
        if name == 3 {
            assert!((1..=8).all(|fifty| tags[&3].contains(&(fifty * 50))), "pinned ones stay");
        } else {
            assert_eq!(dropped.ranges.iter().filter(|range| range.owner == Some(owner(name))).count(), 1);
        }
    }
    assert_eq!(count, dropped.messages);
}

#[test]
fn a_session_that_goes_later_takes_its_ranges_along() {
    let dir = tempdir().unwrap();
    let mut spool = open(&settings(&dir, LIMIT, SEGMENT));
    spool.append(&class(1, Role::Begins, 1), b"", b"").unwrap();
    for tag in 1..=200 {
        spool.append(&class(1, Role::Message, tag), b"", &[0; 100]).unwrap();
    }
    spool.append(&class(1, Role::Ends, 2), b"", b"").unwrap();
    spool.append(&class(2, Role::Begins, 1), b"", b"").unwrap();
    for tag in 1..=100 {
        spool.append(&class(2, Role::Message, tag), b"", &[0; 100]).unwrap();
    }
    let dropped = spool.take_dropped();
    assert_eq!(dropped.sessions, 1);
    assert_eq!(
        dropped.messages + dropped.session_records,
        202 + dropped.ranges.iter().map(|range| range.to_tag).sum::<u64>()
    );
    assert!(dropped.ranges.iter().all(|range| range.owner == Some(owner(2)) && range.from_tag == 1));
    assert_eq!(left(&mut spool).keys().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn what_may_not_be_dropped_fills_it() {
    let dir = tempdir().unwrap();
    let mut spool = open(&settings(&dir, LIMIT, SEGMENT));
    let begun = fill(&mut spool, &class(1, Role::Begins, 0), &[0; 100]);
    assert!(begun.len() > 80);
    assert!(fill(&mut spool, &class(2, Role::Message, 0), &[0; 100]).is_empty());
    assert!(fill(&mut spool, &class(1, Role::Ends, 0), &[0; 100]).is_empty());
    assert_eq!(rest(&mut spool), begun);
    assert!(spool.take_dropped().is_empty());
    // Room comes with what is settled.
    for number in &begun[..40] {
        assert!(spool.settle(*number));
    }
    let more = fill(&mut spool, &Class { pinned: true, ..class(2, Role::Message, 0) }, &[0; 100]);
    assert!(more.len() > 20 && more[0] == begun.last().unwrap() + 1);
    spool.rewind();
    assert_eq!(rest(&mut spool), [&begun[40..], &more].concat());
}

#[test]
fn what_was_handed_out_stays() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, LIMIT, SEGMENT);
    let mut spool = open(&settings);
    for name in 1..=5 {
        session(&mut spool, name, 3);
    }
    let first = spool.next().unwrap().unwrap();
    assert_eq!(first.number, 1);
    // As after a connection that broke, and after a kill: it may have arrived.
    spool.rewind();
    for round in 0..2 {
        for name in 6..=60 {
            session(&mut spool, name, 3);
        }
        let left = left(&mut spool);
        assert_eq!(left[&1].len(), 6, "round {round}");
        assert!(!left.contains_key(&5));
        let copy = tempdir().unwrap();
        let copied = super::basics::settings(&copy, LIMIT, SEGMENT);
        spool.flush().unwrap();
        fs::create_dir(&copied.dir).unwrap();
        for entry in fs::read_dir(&settings.dir).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copied.dir.join(entry.file_name())).unwrap();
        }
        // The other directory is what a killed process leaves.
        let mut survivor = open(&copied);
        for name in 61..=120 {
            session(&mut survivor, name, 3);
        }
        assert_eq!(super::limit::left(&mut survivor)[&1].len(), 6, "round {round}");
        assert_eq!(survivor.next().unwrap().unwrap(), first);
    }
}

#[test]
fn ranges_are_exact_and_bounded() {
    let mut tally = crate::dropped::Tally::default();
    for tag in [1, 2, 3, 5, 6, 9] {
        tally.message(Some(owner(1)), tag);
        tally.message(None, tag * 10);
    }
    let dropped = tally.take();
    let own: Vec<DroppedRange> =
        dropped.ranges.iter().copied().filter(|range| range.owner == Some(owner(1))).collect();
    let range = |from_tag, to_tag| DroppedRange { owner: Some(owner(1)), from_tag, to_tag };
    assert_eq!(own, [range(1, 3), range(5, 6), range(9, 9)]);
    assert_eq!(dropped.messages, 12);
    for tag in 0..crate::RANGES as u64 + 10 {
        tally.message(None, tag * 2);
    }
    let dropped = tally.take();
    assert_eq!((dropped.ranges.len(), dropped.unlisted), (crate::RANGES, 10));
    tally.message(None, u64::MAX);
    tally.message(None, 0);
    assert_eq!(tally.take().ranges.len(), 2);
}

/// Sessions, with something between them that stays, until a segment cannot be written anew; what blocks it.
fn blocked(spool: &mut Spool, dir: &std::path::Path) -> std::path::PathBuf {
    let blocker = dir.join(format!("{:020}.segment.unfinished", 1));
    fs::create_dir(&blocker).unwrap();
    for name in 1..100 {
        spool.append(&class(200, Role::Other, 0), b"", &[200; 60]).unwrap();
        for tag in 0..8 {
            let role =
                [Role::Begins, Role::Message, Role::Ends][usize::from(tag > 0) + usize::from(tag == 7)];
            match spool.append(&class(name, role, tag), b"", &[name; 60]) {
                Ok(_) => {}
                Err(AppendError::Io(_)) => return blocker,
                Err(error) => panic!("{error}"),
            }
        }
    }
    panic!("nothing was dropped");
}

/// Nothing of a session is there, or all from its begin on.
fn whole(left: &BTreeMap<u8, Vec<Role>>) {
    for (name, roles) in left.iter().filter(|(name, _)| **name != 200) {
        assert_eq!(roles[0], Role::Begins, "{name}: {roles:?}");
        let last = left.keys().rev().nth(1) == Some(name);
        assert!(last || (roles.len() == 8 && roles[7] == Role::Ends), "{name}: {roles:?}");
    }
}

#[test]
fn what_cannot_be_dropped_yet_is_not_handed_out() {
    let dir = tempdir().unwrap();
    let settings = settings(&dir, LIMIT, SEGMENT);
    let mut spool = open(&settings);
    let blocker = blocked(&mut spool, &settings.dir);
    let left = left(&mut spool);
    assert!(!left.contains_key(&1), "the first session is being dropped");
    whole(&left);
    let mut expected = Vec::new();
    spool.for_each(|record| expected.push(record.number)).unwrap();
    let numbers = rest(&mut spool);
    assert_eq!(numbers, expected);
    assert_eq!(spool.len(), numbers.len() as u64);
    spool.rewind();
    assert_eq!(rest(&mut spool), numbers);
    let dropped = spool.take_dropped();
    assert!(dropped.sessions > 0 && dropped.messages == 0);
    assert_eq!(dropped.session_records, 8 * dropped.sessions);
    fs::remove_dir(blocker).unwrap();
    spool.rewind();
    assert_eq!(rest(&mut spool), numbers);
    for number in numbers {
        assert!(spool.settle(number));
    }
    assert!(spool.is_empty());
    assert_eq!(spool.owners_len(), 0);
}

#[test]
fn what_could_not_be_dropped_is_dropped_later() {
    for kill in [false, true] {
        let dir = tempdir().unwrap();
        let settings = settings(&dir, LIMIT, SEGMENT);
        let mut spool = open(&settings);
        let blocker = blocked(&mut spool, &settings.dir);
        let before = left(&mut spool);
        fs::remove_dir(blocker).unwrap();
        if kill {
            spool.flush().unwrap();
            spool = spool.kill(&settings).0;
        }
        spool.append(&class(201, Role::Begins, 0), b"", b"").unwrap();
        // The next piece that is read, the next lack of room, or the next opening completes it.
        spool.next().unwrap().unwrap();
        let mut after = left(&mut spool);
        assert_eq!(after.remove(&201), Some(vec![Role::Begins]));
        assert_eq!(after, before);
        assert_eq!(spool.len() as usize, 1 + before.values().map(Vec::len).sum::<usize>());
        assert!(!settings.dir.join("dropping").exists());
        let dropped = spool.take_dropped();
        assert!(dropped.sessions > 0 && dropped.messages == 0, "{dropped:?}");
    }
}
