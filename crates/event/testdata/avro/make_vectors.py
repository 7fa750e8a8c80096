#!/usr/bin/env python3
"""Writes vectors.json: records and their raw Avro bytes, as fastavro writes them.

Run it where fastavro is installed (`pip install fastavro`); the tests only read what it wrote.
"""

import io
import json
import pathlib

from fastavro import parse_schema, schemaless_reader, schemaless_writer

HERE = pathlib.Path(__file__).parent
I64_MIN, I64_MAX = -(2**63), 2**63 - 1


def head(correlation, timestamp, timeout, replica):
    return {
        "correlationId": correlation,
        "timestamp": timestamp,
        "timeout": timeout,
        "originatorReplicaId": replica,
    }


def in_order(endpoints):
    """A map as Landfall writes it: keys in the order of their bytes."""
    return dict(sorted(endpoints.items(), key=lambda item: item[0].encode()))


HEADS = {
    "usual": ("0199c82e-5400-7a01-8b02-0304050607aa", 1760000000000, "a1"),
    "empty": ("", 0, ""),
    "wide": ("Köln-東京-🛰", I64_MAX, "r" * 64),
    "negative": ("c" * 200, I64_MIN, "replica~1"),
}
ONE = {
    "usual": ("pump-17", "demo-v1"),
    "empty": ("", ""),
    "wide": ("Pumpe Süd/17 \"π\"", "版本 2"),
    "negative": ("d" * 63, "v" * 64),
}
MANY = {
    "usual": {"pump-17": "demo-v1", "pump-18": ""},
    "empty": {},
    "wide": {"ü": "x", "z": "y", "🛰": "", "Z": "\u0000", "": "nameless"},
    "negative": {f"device-{n:04}": f"v{n}" for n in range(130)},
}


def cases():
    for name, (correlation, timestamp, replica) in HEADS.items():
        device, version = ONE[name]
        old = head(correlation, timestamp, -1, replica)
        new = head(correlation, timestamp, 0, replica)
        yield "kaa-2017", "connected", name, old | {"endpointId": device, "appVersionName": version}
        yield "kaa-2017", "disconnected", name, old | {"endpointIds": list(MANY[name])}
        yield "kaa-elce", "connected", name, new | {"endpoints": {device: version}}
        yield "kaa-elce", "disconnected", name, new | {"endpoints": in_order(MANY[name])}


def vector(dialect, kind, name, value):
    schema = parse_schema(json.loads((HERE / f"{dialect}-{kind}.avsc").read_text()))
    out = io.BytesIO()
    schemaless_writer(out, schema, value)
    assert schemaless_reader(io.BytesIO(out.getvalue()), schema, None) == value
    return {"name": name, "dialect": dialect, "kind": kind, "value": value, "avro": out.getvalue().hex()}


def main():
    lines = [json.dumps(vector(*case), ensure_ascii=True) for case in cases()]
    (HERE / "vectors.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
