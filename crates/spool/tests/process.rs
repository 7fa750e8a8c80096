//! Processes that are killed while they write, and disks that are full: each test is its own child.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too, and a child speaks by printing"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use landfall_spool::{AppendError, Class, Role, Spool, SpoolSettings};
use tempfile::tempdir;

/// Says to a test that it is the child, and in which directory.
const CHILD: &str = "LANDFALL_SPOOL_TEST";

fn child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// This test again, as a child in `dir`; `around` is a command that starts another.
fn again(test: &str, dir: &Path, around: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match around {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, dir);
    command
}

fn settings(dir: &Path, limit_bytes: u64, segment_bytes: u64) -> SpoolSettings {
    SpoolSettings { dir: dir.to_owned(), limit_bytes, segment_bytes }
}

fn class(name: u64, role: Role, tag: u64) -> Class {
    let mut owner = [0; 16];
    owner[..8].copy_from_slice(&name.to_le_bytes());
    Class { owner: Some(owner), role, tag, pinned: false }
}

fn body(number: u64) -> Vec<u8> {
    (0..number * 37 % 700).map(|at| (at ^ number) as u8).collect()
}

/// Starts the child, kills it after so many lines, and gives the numbers that it said.
fn kill_after(test: &str, dir: &Path, lines: usize) -> Vec<u64> {
    let mut child = again(test, dir, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut numbers = Vec::new();
    let mut line = String::new();
    while numbers.len() < lines {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "the child goes on until it is killed");
        numbers.extend(line.trim().parse::<u64>());
    }
    child.kill().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    // The last line may be cut.
    if let Some((whole, _)) = rest.rsplit_once('\n') {
        numbers.extend(whole.lines().filter_map(|line| line.parse::<u64>().ok()));
    }
    child.wait().unwrap();
    numbers
}

#[test]
fn what_was_flushed_survives_a_kill() {
    if let Some(dir) = child() {
        let mut spool = Spool::open(settings(&dir, 1 << 30, 64 << 10)).unwrap().0;
        loop {
            let mut last = 0;
            for _ in 0..5 {
                let next = last.max(spool.len()) + 1;
                last = spool.append(&class(1, Role::Message, next), b"h", &body(next)).unwrap();
            }
            spool.flush().unwrap();
            println!("{last}");
        }
    }
    for lines in [1, 40, 333, 1000] {
        let dir = tempdir().unwrap();
        let numbers = kill_after("what_was_flushed_survives_a_kill", dir.path(), lines);
        let (mut spool, recovery) = Spool::open(settings(dir.path(), 1 << 30, 64 << 10)).unwrap();
        let last = *numbers.last().unwrap();
        assert!(recovery.records >= last, "{last} were flushed, {recovery:?}");
        assert!(recovery.lost_records <= 1);
        for number in 1..=recovery.records {
            let record = spool.next().unwrap().unwrap();
            assert_eq!((record.number, record.class.tag), (number, number));
            assert_eq!(record.body, body(number));
        }
        assert!(spool.next().unwrap().is_none());
    }
}

#[test]
fn a_kill_while_something_is_dropped_leaves_whole_sessions() {
    if let Some(dir) = child() {
        let mut spool = Spool::open(settings(&dir, 16 << 10, 2 << 10)).unwrap().0;
        // Three sessions at a time, so that they lie across segments.
        for name in (1_u64..).step_by(3) {
            for tag in 0..20 {
                for name in name..name + 3 {
                    let role = [Role::Begins, Role::Message, Role::Ends]
                        [usize::from(tag > 0) + usize::from(tag > 18)];
                    spool.append(&class(name, role, tag), b"", &[0; 20]).unwrap();
                    spool.flush().unwrap();
                }
            }
            println!("{name}");
        }
    }
    for lines in [3, 10, 30, 31, 32, 33, 100, 101, 102] {
        let dir = tempdir().unwrap();
        kill_after("a_kill_while_something_is_dropped_leaves_whole_sessions", dir.path(), lines);
        let (mut spool, recovery) = Spool::open(settings(dir.path(), 16 << 10, 2 << 10)).unwrap();
        assert!(recovery.lost_records <= 1, "{recovery:?}");
        let mut sessions = BTreeMap::<[u8; 16], Vec<u64>>::new();
        while let Some(record) = spool.next().unwrap() {
            sessions.entry(record.class.owner.unwrap()).or_default().push(record.class.tag);
        }
        let open = sessions.values().filter(|tags| tags.last() != Some(&19)).count();
        assert!(open <= 3, "{open}");
        for tags in sessions.values() {
            assert_eq!(*tags, (0..tags.len() as u64).collect::<Vec<_>>(), "from its begin on, without a gap");
        }
    }
}

/// Runs the test under a limit of 16 KiB for a file (32 in some shells); a write beyond it fails instead of killing.
fn with_small_files(test: &str) {
    let dir = tempdir().unwrap();
    let shell = ["sh", "-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\""];
    let status = again(test, dir.path(), &shell).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_file_that_cannot_grow_loses_nothing() {
    let Some(dir) = child() else { return with_small_files("a_file_that_cannot_grow_loses_nothing") };
    let mut spool = Spool::open(settings(&dir, 1 << 20, 256 << 10)).unwrap().0;
    let mut appended = Vec::new();
    for round in 0..3 {
        // Nothing of this may be dropped.
        let error = loop {
            let number = appended.last().map_or(1, |number| number + 1);
            match spool.append(&class(1, Role::Other, number), b"", &body(number)) {
                Ok(given) => appended.push(given),
                Err(AppendError::Io(error)) => break error,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(spool.flush().unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(appended.len() > 40, "a file and a buffer full");
        assert_eq!(spool.len(), appended.len() as u64);
        for number in appended.drain(..) {
            let record = spool.next().unwrap().unwrap();
            assert_eq!((record.number, record.body), (number, body(number).into()), "round {round}");
            spool.settle(number);
        }
        // Everything is settled: a new file, and it goes on.
        let number = spool.append(&class(1, Role::Other, 0), b"", b"").unwrap();
        assert_eq!(spool.next().unwrap().unwrap().number, number);
        spool.settle(number);
        appended.push(number);
        appended.clear();
        let next = spool.append(&class(1, Role::Other, 0), b"", &body(number + 1)).unwrap();
        appended.push(next);
        spool.flush().unwrap();
    }
}

#[test]
fn a_file_that_cannot_grow_drops_messages() {
    let Some(dir) = child() else { return with_small_files("a_file_that_cannot_grow_drops_messages") };
    let mut spool = Spool::open(settings(&dir, 1 << 20, 256 << 10)).unwrap().0;
    spool.append(&class(1, Role::Begins, 0), b"", b"").unwrap();
    for tag in 1..5000 {
        spool.append(&class(1, Role::Message, tag), b"", &body(tag)).unwrap();
    }
    let dropped = spool.take_dropped();
    assert_eq!(dropped.messages + spool.len(), 5000);
    assert_eq!(dropped.ranges.len(), 1, "{dropped:?}");
    let first = spool.next().unwrap().unwrap();
    assert_eq!(first.class.role, Role::Begins);
    let second = spool.next().unwrap().unwrap();
    assert_eq!(second.class.tag, dropped.messages + 1);
    assert_eq!(second.body, body(second.class.tag));
}

/// Runs the test on a file system of 8 MiB of its own; where that is not allowed, not at all.
fn with_small_disk(test: &str) {
    let dir = tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=8m none {}", dir.path().display());
    let alone = ["unshare", "--user", "--map-root-user", "--mount"];
    let allowed = Command::new(alone[0]).args(&alone[1..]).args(["sh", "-c", &mount]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("not tried: no file system can be mounted here");
        return;
    }
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let around = [alone.as_slice(), &["sh", "-c", &script]].concat();
    assert!(again(test, dir.path(), &around).status().unwrap().success());
}

#[test]
fn a_full_disk_drops_segments_of_messages() {
    let Some(dir) = child() else { return with_small_disk("a_full_disk_drops_segments_of_messages") };
    let mut spool = Spool::open(settings(&dir, 64 << 20, 256 << 10)).unwrap().0;
    for tag in 1..=40_000 {
        spool.append(&class(tag % 7, Role::Message, tag), b"", &body(tag)).unwrap();
    }
    let dropped = spool.take_dropped();
    assert_eq!(dropped.messages + spool.len(), 40_000);
    assert!(spool.bytes() < 9 << 20 && spool.bytes() > 5 << 20, "{}", spool.bytes());
    let mut expected = dropped.messages + 1;
    while let Some(record) = spool.next().unwrap() {
        assert_eq!((record.class.tag, record.body), (expected, body(expected).into()));
        expected += 1;
    }
    assert_eq!(expected, 40_001);
}

#[test]
fn a_full_disk_drops_sessions_and_keeps_the_rest() {
    let Some(dir) = child() else { return with_small_disk("a_full_disk_drops_sessions_and_keeps_the_rest") };
    let mut spool = Spool::open(settings(&dir, 64 << 20, 256 << 10)).unwrap().0;
    let mut kept = Vec::new();
    let mut refused = 0;
    for name in 1..=20_000 {
        for tag in 0..6 {
            // One session of forty stays open.
            let role = match tag {
                0 => Role::Begins,
                5 if name % 40 == 0 => Role::Other,
                5 => Role::Ends,
                _ => Role::Message,
            };
            match spool.append(&class(name, role, tag), b"", &body(name)) {
                Ok(number) if name % 40 == 0 && role != Role::Message => kept.push(number),
                Ok(_) => {}
                Err(AppendError::Io(error)) if error.kind() == ErrorKind::StorageFull => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(refused, 0, "there was always something to drop: {} bytes", spool.bytes());
    let mut seen = Vec::new();
    let mut sessions = BTreeMap::<[u8; 16], Vec<Role>>::new();
    spool
        .for_each(|record| {
            seen.push(record.number);
            sessions.entry(record.class.owner.unwrap()).or_default().push(record.class.role);
        })
        .unwrap();
    assert_eq!(seen.len() as u64, spool.len());
    assert!(kept.iter().all(|number| seen.binary_search(number).is_ok()), "what may not be dropped is there");
    // What is read and settled makes room again.
    let count = seen.len();
    for _ in 0..count {
        let number = spool.next().unwrap().unwrap().number;
        assert!(spool.settle(number));
    }
    for name in 1..20 {
        spool.append(&class(name, Role::Begins, 0), b"", &body(name)).unwrap();
    }
    spool.flush().unwrap();
}
