//! Kaa's two layouts: byte for byte what another implementation writes, and strict on the way back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panics")]

use std::collections::BTreeMap;

use landfall_event::avro::{AvroError, Dialect, Endpoints, Kind, Record};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    name: String,
    dialect: String,
    kind: String,
    value: Value,
    avro: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Value {
    correlation_id: String,
    timestamp: i64,
    timeout: i64,
    originator_replica_id: String,
    endpoint_id: Option<String>,
    app_version_name: Option<String>,
    endpoint_ids: Option<Vec<String>>,
    endpoints: Option<BTreeMap<String, String>>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn record(value: Value, kind: Kind) -> Record {
    let endpoints = match (value.endpoint_id, value.endpoint_ids, value.endpoints, kind) {
        (Some(id), None, None, Kind::Connected) => {
            Endpoints::One { id, app_version: value.app_version_name.unwrap() }
        }
        (None, Some(ids), None, Kind::Disconnected) => Endpoints::Ids(ids),
        (None, None, Some(map), Kind::Connected) => Endpoints::Connected(map),
        (None, None, Some(map), Kind::Disconnected) => Endpoints::Disconnected(map),
        _ => panic!("a vector of no record"),
    };
    Record {
        correlation_id: value.correlation_id,
        timestamp: value.timestamp,
        timeout: value.timeout,
        endpoints,
        originator_replica_id: value.originator_replica_id,
    }
}

fn vectors() -> Vec<(String, Dialect, Kind, Record, Vec<u8>)> {
    let text = include_str!("../testdata/avro/vectors.json");
    let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
    let vectors = vectors.into_iter().map(|vector| {
        let dialect = match vector.dialect.as_str() {
            "kaa-2017" => Dialect::Kaa2017,
            "kaa-elce" => Dialect::KaaElce,
            other => panic!("{other}"),
        };
        let kind = match vector.kind.as_str() {
            "connected" => Kind::Connected,
            "disconnected" => Kind::Disconnected,
            other => panic!("{other}"),
        };
        let name = format!("{} {} {}", vector.dialect, vector.kind, vector.name);
        (name, dialect, kind, record(vector.value, kind), unhex(&vector.avro))
    });
    vectors.collect()
}

#[test]
fn the_bytes_are_those_of_another_implementation() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 16);
    for (name, dialect, kind, record, bytes) in vectors {
        assert_eq!(record.encode(), bytes, "{name}");
        assert_eq!(Record::decode(dialect, kind, &bytes), Ok(record), "{name}");
    }
}

/// The schemas are what another reader is given, so they must name what we write.
#[test]
fn the_schemas_name_the_records() {
    let schemas = [
        (Endpoints::One { id: String::new(), app_version: String::new() }, "kaa-2017-connected", -1),
        (Endpoints::Ids(Vec::new()), "kaa-2017-disconnected", -1),
        (Endpoints::Connected(BTreeMap::new()), "kaa-elce-connected", 0),
        (Endpoints::Disconnected(BTreeMap::new()), "kaa-elce-disconnected", 0),
    ];
    for (endpoints, file, never) in schemas {
        let path = format!("{}/testdata/avro/{file}.avsc", env!("CARGO_MANIFEST_DIR"));
        let schema: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let record = Record {
            correlation_id: String::new(),
            timestamp: 0,
            timeout: 0,
            endpoints,
            originator_replica_id: String::new(),
        };
        let (namespace, name) = record.full_name().rsplit_once('.').unwrap();
        assert_eq!((&schema["namespace"], &schema["name"]), (&namespace.into(), &name.into()));
        assert_eq!(schema["fields"][2]["default"], never, "{file}");
    }
}

#[test]
fn every_cut_and_every_addition_is_an_error() {
    for (name, dialect, kind, _, bytes) in vectors() {
        for end in 0..bytes.len() {
            assert!(Record::decode(dialect, kind, &bytes[..end]).is_err(), "{name} cut at {end}");
        }
        for extra in [0, 1, 0x80, 0xff] {
            let longer = [&bytes[..], &[extra]].concat();
            assert_eq!(Record::decode(dialect, kind, &longer), Err(AvroError::Trailing(1)), "{name}");
        }
    }
}

/// One dialect's bytes are not taken for the other's.
#[test]
fn the_dialects_do_not_read_each_other() {
    for (name, dialect, kind, record, bytes) in vectors() {
        let other = match dialect {
            Dialect::Kaa2017 => Dialect::KaaElce,
            Dialect::KaaElce => Dialect::Kaa2017,
        };
        // An empty list and an empty map are both one zero; only the timeout tells them apart.
        if record.endpoints.ids().iter().any(|id| !id.is_empty()) {
            assert!(Record::decode(other, kind, &bytes).is_err(), "{name}");
        }
    }
}

/// `correlationId` "", timestamp 0, timeout 0, then what the case says, then `originatorReplicaId` "".
fn disconnected(dialect: Dialect, endpoints: &[u8]) -> Result<Vec<String>, AvroError> {
    let bytes = [&[0, 0, 0], endpoints, &[0]].concat();
    let record = Record::decode(dialect, Kind::Disconnected, &bytes)?;
    Ok(record.endpoints.ids().into_iter().map(str::to_owned).collect())
}

#[test]
fn crooked_bytes_are_errors() {
    use AvroError::{Duplicate, Length, Number, Truncated, Utf8};
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let cases: &[(&str, &[u8], AvroError)] = &[
        ("a string of negative length", &[0x02, 0x01, 0x00], Length),
        ("a string beyond the end", &[0x02, 0x7e, b'a', 0x00], Truncated),
        ("a string of more bytes than there are addresses", &[&[0x02][..], &huge].concat(), Truncated),
        ("a string of no UTF-8", &[0x02, 0x02, 0xff, 0x00], Utf8),
        ("a surrogate", &[0x02, 0x06, 0xed, 0xa0, 0x80, 0x00], Utf8),
        ("2^63-1 items", &huge, Length),
        ("-2^63 items", &[&least[..], &[0x00]].concat(), Length),
        ("more items than bytes", &[0x0c, 0x00, 0x00], Length),
        ("a block of negative size", &[0x01, 0x01, 0x02, b'a', 0x00], Length),
        ("a block that is shorter than it says", &[0x01, 0x06, 0x02, b'a', 0x00], Length),
        ("a block that is longer than it says", &[0x01, 0x02, 0x02, b'a', 0x00], Length),
        ("a block beyond the end", &[0x01, 0x7e, 0x02, b'a', 0x00], Length),
        ("a padded count", &[0x82, 0x00, 0x02, b'a', 0x00], Number),
        ("a padded zero", &[0x80, 0x80, 0x80, 0x00], Number),
        ("eleven bytes of a number", &[0x80; 11], Number),
        ("a 65th bit", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02], Number),
    ];
    for (name, bytes, error) in cases {
        assert_eq!(disconnected(Dialect::Kaa2017, bytes), Err(*error), "{name}");
    }
    let twice = [0x04, 0x02, b'a', 0x00, 0x02, b'a', 0x00, 0x00];
    assert_eq!(disconnected(Dialect::KaaElce, &twice), Err(Duplicate));
    let across_blocks = [0x02, 0x02, b'a', 0x00, 0x02, 0x02, b'a', 0x00, 0x00];
    assert_eq!(disconnected(Dialect::KaaElce, &across_blocks), Err(Duplicate));
    assert_eq!(
        disconnected(Dialect::KaaElce, &[0x06, 0x00, 0x00, 0x00]),
        Err(Length),
        "three entries in four bytes"
    );
}

#[test]
fn lists_in_several_blocks_and_sized_blocks_are_read() {
    let several = [0x02, 0x02, b'a', 0x04, 0x02, b'b', 0x00, 0x00];
    assert_eq!(disconnected(Dialect::Kaa2017, &several), Ok(vec!["a".into(), "b".into(), String::new()]));
    let sized = [0x03, 0x08, 0x02, b'a', 0x02, b'b', 0x00];
    assert_eq!(disconnected(Dialect::Kaa2017, &sized), Ok(vec!["a".into(), "b".into()]));
}

fn any_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..100).prop_map(String::from_iter)
}

fn any_record() -> impl Strategy<Value = (Dialect, Kind, Record)> {
    let map = || proptest::collection::btree_map(any_text(), any_text(), 0..9);
    let endpoints = prop_oneof![
        (any_text(), any_text()).prop_map(|(id, app_version)| Endpoints::One { id, app_version }),
        proptest::collection::vec(any_text(), 0..9).prop_map(Endpoints::Ids),
        map().prop_map(Endpoints::Connected),
        map().prop_map(Endpoints::Disconnected),
    ];
    (any_text(), any::<i64>(), any::<i64>(), endpoints, any_text()).prop_map(
        |(correlation_id, timestamp, timeout, endpoints, originator_replica_id)| {
            let (dialect, kind) = match endpoints {
                Endpoints::One { .. } => (Dialect::Kaa2017, Kind::Connected),
                Endpoints::Ids(_) => (Dialect::Kaa2017, Kind::Disconnected),
                Endpoints::Connected(_) => (Dialect::KaaElce, Kind::Connected),
                Endpoints::Disconnected(_) => (Dialect::KaaElce, Kind::Disconnected),
            };
            (dialect, kind, Record { correlation_id, timestamp, timeout, endpoints, originator_replica_id })
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read((dialect, kind, record) in any_record()) {
        prop_assert_eq!(Record::decode(dialect, kind, &record.encode()), Ok(record));
    }

    /// Whatever is read means one thing: written again and read again it is the same.
    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..64)) {
        for dialect in [Dialect::Kaa2017, Dialect::KaaElce] {
            for kind in [Kind::Connected, Kind::Disconnected] {
                if let Ok(record) = Record::decode(dialect, kind, &bytes) {
                    prop_assert_eq!(Record::decode(dialect, kind, &record.encode()), Ok(record));
                }
            }
        }
    }
}
