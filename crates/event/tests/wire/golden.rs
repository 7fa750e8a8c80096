//! The wire does not change unnoticed: every event is compared with a file in `testdata/json`. `LANDFALL_BLESS=1` writes
//! the files; a change of one is a change of the wire and goes into the changelog.

use std::path::PathBuf;

use landfall_event::{Event, Format, encode, encode_raw_upstream, json, wire};

use crate::samples;

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/json").join(name);
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(golden, text, "{name}: the wire changed; LANDFALL_BLESS=1 accepts it");
}

fn headers_text(headers: &[(&'static str, String)]) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[test]
fn every_event_is_written_as_ever() {
    let origin = samples::origin();
    for sample in samples::samples() {
        let body = json::encode(&sample.occasion(&origin), &sample.event);
        let text = String::from_utf8(body.to_vec()).unwrap();
        compare(&format!("{}.json", sample.name), &(text + "\n"));
    }
}

#[test]
fn headers_beside_raw_and_avro_bodies_are_written_as_ever() {
    let origin = samples::origin();
    for sample in samples::samples() {
        let occasion = sample.occasion(&origin);
        match &sample.event {
            Event::Upstream(upstream) => {
                let raw = encode_raw_upstream(&occasion, upstream);
                assert_eq!(raw.body, upstream.payload, "untouched");
                compare(&format!("{}.raw.headers", sample.name), &headers_text(&raw.headers));
            }
            Event::Connected(_) | Event::Disconnected(_) => {
                let avro = encode(Format::Kaa2017, &occasion, &sample.event);
                compare(&format!("{}.kaa-2017.headers", sample.name), &headers_text(&avro.headers));
            }
            other => {
                let encoded = encode(Format::KaaElce, &occasion, other);
                assert!(encoded.headers.is_empty());
                assert_eq!(encoded.body, json::encode(&occasion, other), "everything else stays JSON");
            }
        }
    }
}

/// What a reader puts together from headers and an Avro body is the JSON event itself.
#[test]
fn every_format_reads_back_to_the_same_json() {
    let origin = samples::origin();
    for sample in samples::samples() {
        let occasion = sample.occasion(&origin);
        let plain = json::encode(&occasion, &sample.event);
        for format in Format::ALL {
            let encoded = encode(*format, &occasion, &sample.event);
            let header = |name: &str| {
                encoded.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
            };
            let read = wire::read(header, &encoded.body).unwrap();
            assert_eq!(read, json::decode(&plain).unwrap(), "{} {format}", sample.name);
            let value: serde_json::Value =
                serde_json::from_slice(&wire::to_json(header, &encoded.body).unwrap()).unwrap();
            assert_eq!(
                value,
                serde_json::from_slice::<serde_json::Value>(&plain).unwrap(),
                "{}",
                sample.name
            );
        }
    }
}
