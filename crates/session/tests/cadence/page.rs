//! The figures of `docs/presence.md`: made here, and compared with what stands there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use landfall_session::Patience;

use crate::cadences::{FLEET, HEARD, KINDS, Kind, RECORDINGS, recording};
use crate::trial::{Comparison, compare, learned};

const BEGIN: &str = "<!-- figures: ";
const END: &str = "<!-- end -->";

/// The only cadence at which learning loses, and a test that says so.
const LOSES: &str = "day and night, ×10 at once";

/// As `landfall run` does it, where `presence.idle_timeout` is this.
fn patience(level: f64, idle_timeout: u64) -> Patience {
    Patience { level, least_ms: 1_000, most_ms: idle_timeout, settle_ms: 2 * idle_timeout }
}

/// The timeout that serves all of the generated devices.
const HOUR: u64 = 3_600_000;
/// The timeout that the recordings begin with.
const MINUTE: u64 = 60_000;

fn seconds(ms: f64) -> String {
    let seconds = ms / 1_000.0;
    if seconds < 100.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn generated() -> String {
    let mut table = String::from(
        "| cadence | false alarms for each device and week | one fixed timeout for all | learned, mean | learned, the \
         device in the middle | a fixed timeout for each, by hindsight |\n|---|---|---|---|---|---|\n",
    );
    for kind in KINDS {
        let found = compare(&kind.fleet(), &patience(8.0, HOUR), HOUR);
        let Comparison { false_alarms, one_for_all, learned, median, hindsight, .. } = found;
        let one_for_all = one_for_all as f64;
        assert_eq!(learned < one_for_all, kind.name != LOSES, "{}: {found:?}", kind.name);
        assert!(median < one_for_all, "{}: the device in the middle is told of sooner", kind.name);
        let rate = false_alarms as f64 / FLEET as f64;
        assert!(rate <= HEARD / 86_400_000.0, "{}: more than one for each evening", kind.name);
        let [one_for_all, learned, median, hindsight] =
            [one_for_all, learned, median, hindsight].map(seconds);
        let name = kind.name;
        writeln!(table, "| {name} | {rate:.2} | {one_for_all} | {learned} | {median} | {hindsight} |")
            .unwrap();
    }
    table
}

fn kinds() -> String {
    let mut table = String::from("| cadence | what it is | intervals |\n|---|---|---|\n");
    for Kind { name, how, bases: (low, high), .. } in KINDS {
        writeln!(table, "| {name} | {how} | {low} to {high} s |").unwrap();
    }
    table
}

fn levels() -> String {
    let mut table = String::from(
        "| level | a steady device is told of after | words between two false alarms: 1 % lost | 10 % lost | at random |\n\
         |---|---|---|---|---|\n",
    );
    let named = |name| KINDS.iter().find(|kind| kind.name == name).unwrap().fleet();
    let fleets = ["steady, 1 % lost", "steady, 10 % lost", "at random"].map(named);
    for level in [3.0, 4.0, 6.0, 8.0, 10.0, 12.0] {
        let settled = learned(&[10_000; 10_000], &patience(level, HOUR), HOUR).settled / 10_000.0;
        let between = fleets.each_ref().map(|fleet| {
            let found = compare(fleet, &patience(level, HOUR), HOUR);
            match found.false_alarms {
                0 => format!("none in {:.0},000", found.words as f64 / 1_000.0),
                some => round(found.words / some),
            }
        });
        let [one, ten, random] = between;
        writeln!(table, "| {level} | {settled:.1} intervals | {one} | {ten} | {random} |").unwrap();
    }
    table
}

/// Two digits, with a comma between thousands: the rest is chance.
fn round(count: usize) -> String {
    let unit = 10_usize.pow(count.max(1).ilog10().saturating_sub(1));
    let count = count / unit * unit;
    if count < 1_000 { count.to_string() } else { format!("{},{:03}", count / 1_000, count % 1_000) }
}

fn recorded() -> String {
    let mut table = String::from(
        "| recording | words | false alarms | one fixed timeout | learned | learned, once known | by hindsight |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut row = |name: &str, fleet: &[Vec<u64>]| {
        let found = compare(fleet, &patience(8.0, MINUTE), MINUTE);
        let Comparison { words, false_alarms, learned, hindsight, settled, .. } = found;
        // Without a false alarm an operator who does not know the device keeps the timeout that all have.
        let fixed = if false_alarms == 0 { MINUTE } else { found.one_for_all } as f64;
        let [fixed_for, told, known, own] = [fixed, learned, settled, hindsight].map(seconds);
        writeln!(table, "| {name} | {words} | {false_alarms} | {fixed_for} | {told} | {known} | {own} |")
            .unwrap();
        (fixed, learned)
    };
    let fleet: Vec<_> = RECORDINGS.iter().map(|(name, _)| recording(name)).collect();
    for ((name, what), device) in RECORDINGS.iter().zip(&fleet) {
        row(&format!("`{name}`: {what}"), std::slice::from_ref(device));
    }
    let (fixed, learned) = row("all four under one timeout", &fleet);
    assert!(learned < fixed / 2.0, "{learned} {fixed}");
    table
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/presence.md")
}

#[test]
fn the_figures_are_what_the_code_does() {
    let page = std::fs::read_to_string(page()).unwrap();
    let (mut made, mut rest, mut tables) = (String::new(), page.as_str(), 0);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->\n").unwrap();
        let (_, after) = after.split_once(END).unwrap();
        let table = match name {
            "kinds" => kinds(),
            "generated" => generated(),
            "levels" => levels(),
            "recorded" => recorded(),
            other => panic!("no figures are called {other}"),
        };
        write!(made, "{before}{BEGIN}{name} -->\n{table}{END}").unwrap();
        tables += 1;
        rest = after;
    }
    made.push_str(rest);
    assert_eq!(tables, 4);
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(self::page(), &made).unwrap();
    } else {
        assert!(page == made, "docs/presence.md is behind the code; LANDFALL_BLESS=1 writes its figures");
    }
}
