//! What `make compare` and `make bench` run is there and still runs, in small. The micro benches themselves are tests of their
//! crates, each run once.

use std::fs;
use std::process::Stdio;

use landfall_testkit::paths::{self, repository};
use tokio::process::Command;

/// Small, with the binaries of the tests, on whatever peers there are; nothing of it goes into the documentation.
#[tokio::test]
async fn a_comparison_ends_with_its_tables() {
    let mut peers = Vec::new();
    for (name, program) in
        [("mosquitto", paths::program("mosquitto")), ("libcoap", paths::libcoap("coap-server"))]
    {
        if paths::interop(name, program).is_some() {
            peers.push(name);
        }
    }
    let page = repository().join("docs/performance.md");
    let before = fs::read(&page).unwrap();
    let (gateway, results) = (paths::binary("landfall"), tempfile::tempdir().unwrap());
    let run = Command::new(repository().join("benches/compare/run.sh"))
        .env("LANDFALL_BIN", gateway.parent().unwrap())
        .env("RESULTS", results.path())
        .env("PEERS", peers.join(" "))
        .envs([("PART", "mqtt coap idle"), ("SHORT", "1")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("bash runs");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{err}\n{out}");
    for line in [
        "| QoS 0, ",
        "| QoS 1, ",
        "| QoS 2, ",
        "| requests per second | ",
        "| bytes per idle connection (200) | ",
    ] {
        assert!(out.contains(&format!("\n{line}")), "no {line:?}:\n{out}\n{err}");
    }
    for (name, mark) in [
        ("mosquitto", "| MQTT QoS 1, 100 B, acknowledged after the store ÷ mosquitto's from memory | "),
        ("libcoap", "| CoAP CON POST, stored ÷ libcoap's GET of a constant | "),
    ] {
        assert_eq!(out.contains(mark), peers.contains(&name), "{out}\n{err}");
    }
    assert_eq!(fs::read(&page).unwrap(), before, "a small run writes no documentation");
}

/// A run of a quarter of an hour is not to find at its end that its table has no place.
#[test]
fn every_part_of_the_comparison_has_its_place_on_the_page() {
    let page = fs::read_to_string(repository().join("docs/performance.md")).unwrap();
    let script = fs::read_to_string(repository().join("benches/compare/run.sh")).unwrap();
    let all = script.split_once("readonly all=\"").unwrap().1.split_once('"').unwrap().0;
    for name in all.split(' ').chain(["marks"]) {
        let place = |what: &str| {
            let marker = format!("<!-- compare:{what} {name} -->");
            assert_eq!(page.matches(&marker).count(), 1, "{marker}");
            page.find(&marker).unwrap()
        };
        assert!(place("begin") < place("end"), "{name}");
    }
}

#[test]
fn make_bench_knows_every_micro_bench() {
    let script = fs::read_to_string(repository().join("scripts/bench.sh")).unwrap();
    let named = script.split_once("\nbenches=(").unwrap().1.split_once(')').unwrap().0;
    let mut named: Vec<String> = named.split(' ').map(str::to_owned).collect();
    let mut there = Vec::new();
    for member in fs::read_dir(repository().join("crates")).unwrap().flatten() {
        let Ok(files) = fs::read_dir(member.path().join("benches")) else { continue };
        let krate = member.file_name().into_string().unwrap();
        there.extend(
            files
                .flatten()
                .map(|file| format!("{krate}:{}", file.path().file_stem().unwrap().to_str().unwrap())),
        );
    }
    named.sort();
    there.sort();
    assert_eq!(named, there);
}
