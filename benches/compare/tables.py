"""What each part of a comparison shows.

Owns: the tables, the marks and the plots of the parts. Does not own: the page that they stand on (report.py), how a plot
looks (plots.py), the measuring (part.sh).
"""

import json
import pathlib
import re
import statistics

import plots

NAMES = {"landfall": "Landfall", "nats": "nats-server's MQTT", "openssl": "OpenSSL", "floor": "bare JetStream publishing"}
BROKERS = ["landfall", "mosquitto", "nats", "rumqttd"]

# What is measured: the least or the most that it may be, and where it is going.
MARKS = {
    "qos1": ("MQTT QoS 1, 100 B, acknowledged after the store ÷ mosquitto's from memory", ">=", 0.6, "1.0"),
    "floor": ("the same ÷ bare pipelined JetStream publishing", ">=", 0.7, "1.2, by batches"),
    "coap": ("CoAP CON POST, stored ÷ libcoap's GET of a constant", ">=", 0.4, "1.0"),
    "connects": ("connects per second ÷ mosquitto", ">=", 0.7, "1.2"),
    "connection": ("bytes per idle MQTT connection", "<=", 2048, "730, mosquitto's"),
    "device": ("bytes per UDP device tracked", "<=", 400, "200"),
    "socket": ("socket closed to `disconnected` stored, p99 of 100 among sessions at rest, ms", "<=", 20, "5"),
    "handshakes": ("PSK handshakes per CPU second ÷ OpenSSL's server", ">=", 1.0, "1.5"),
    "silence": ("silence detected, the last of all, ms after the device's deadline", "<=", 1000, ""),
    "session": ("bytes per idle DTLS session", "<=", 12288, ""),
    "lost": ("handshakes lost", "<=", 0, ""),
}


def number(value, digits=None):
    if digits is None:
        digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


class Mark:
    """One figure held against what it should be."""

    def __init__(self, name, value):
        self.value = value
        self.what, self.kind, self.bound, self.goal = MARKS[name]
        self.is_met = value >= self.bound if self.kind == ">=" else value <= self.bound
        self.shown = f"{value:.2f}" if self.kind == ">=" else number(value)
        self.limit = f"{self.bound:g}" if self.kind == ">=" else f"{self.bound:,}"

    @property
    def verdict(self):
        if self.is_met:
            return "met"
        if not self.bound:
            return f"missed by {number(self.value)}"
        return f"missed by {100 * abs(self.value - self.bound) / self.bound:.0f} %"


class Table:
    def __init__(self, text, marks=(), plots=None):
        self.text, self.marks, self.plots = text, list(marks), plots or {}


class Part:
    """What one part left behind."""

    def __init__(self, folder):
        self.folder = folder
        self.has_rounds = False
        self.versions = dict(self.pairs("versions"))
        self.settings = dict(self.pairs("settings"))
        self.skipped = self.lines("skipped")
        self.when = (folder / "settings").stat().st_mtime if (folder / "settings").exists() else 0

    def lines(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def pairs(self, name):
        return [line.split("\t", 1) for line in self.lines(name)]

    def load(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def has(self, name):
        return (self.folder / f"{name}.json").exists()

    def rounds(self, name):
        """The runs of this name, in the order of the rounds."""
        self.has_rounds = True
        paths = self.folder.glob(f"{name}-*.json")
        found = [(int(m.group(1)), path) for path in paths if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.stem))]
        return [json.loads(path.read_text()) for _, path in sorted(found)]

    def counts(self, name):
        """The runs of this name by how many there were of what is counted."""
        paths = self.folder.glob(f"{name}-*.json")
        return {int(path.stem.rsplit("-", 1)[1]): json.loads(pathlib.Path(path).read_text()) for path in paths}


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def ratios(ours, theirs, key):
    """Of each round: what was measured side by side."""
    return sorted(a[key] / b[key] for a, b in zip(ours, theirs, strict=True) if b[key])


def spread(values):
    """A median with the least and the most."""
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})" if values else ""


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def beside(part, name, rows, key):
    """A column for each server there are runs of, a row for each figure, and the ratio of `key` to each of them."""
    runs = {server: part.rounds(name.format(server)) for server in BROKERS}
    # One that failed a round is left out, and that is said.
    runs = {server: found for server, found in runs.items() if found and len(found) == len(runs["landfall"])}
    lines = [[what] + [number(median(found, k) / by) for found in runs.values()] for what, k, by in rows]
    own = runs["landfall"]
    ratio = ["Landfall ÷ it"] + ["" if server == "landfall" else spread(ratios(own, found, key)) for server, found in runs.items()]
    return runs, lines + [ratio]


def head_of(runs):
    return [""] + [NAMES.get(server, server) for server in runs]


def mqtt(part):
    key, lines, marks, values = "acknowledged_per_second", [], [], {}
    shown = [server for server in BROKERS if any(part.rounds(f"qos{qos}-{server}") for qos in range(3))]
    for qos in range(3):
        rows = [(f"QoS {qos}, messages per second", key, 1)]
        if qos == 1:
            rows += [(f"QoS 1, p{p} to the acknowledgement, ms", f"latency_p{p}_us", 1000) for p in (50, 99)]
        runs, more = beside(part, f"qos{qos}-{{}}", rows, key)
        # A broker that fails at one QoS has empty cells there.
        place = {server: n for n, server in enumerate(runs, 1)}
        lines += [[row[0]] + [row[place[server]] if server in place else "" for server in shown] for row in more]
        for server, found in runs.items():
            values.setdefault(NAMES.get(server, server), [None] * 3)[qos] = median(found, key)
        if qos == 1 and "mosquitto" in runs:
            marks.append(Mark("qos1", statistics.median(ratios(runs["landfall"], runs["mosquitto"], key))))
    plot = plots.bars("MQTT, 50 connections, 100 bytes", "messages per second", ["QoS 0", "QoS 1", "QoS 2"], values)
    return Table(table(head_of(shown), lines), marks, {"mqtt": plot})


def floor(part):
    key = "acknowledged_per_second"
    ours, bare = part.rounds("qos1-landfall"), part.rounds("qos1-floor")
    if not bare:
        return None
    found = ratios(ours, bare, key)
    rows = [["stored and acknowledged per second", number(median(ours, key)), number(median(bare, key)), spread(found)]]
    head = ["", "Landfall, MQTT QoS 1", NAMES["floor"], "ratio"]
    return Table(table(head, rows), [Mark("floor", statistics.median(found))])


def coap(part):
    key = "acknowledged_per_second"
    ours, theirs = part.rounds("landfall"), part.rounds("libcoap")
    rows = [("requests per second", key, 1), ("p50, ms", "latency_p50_us", 1000), ("p99, ms", "latency_p99_us", 1000)]
    cells = lambda runs: [number(median(runs, k) / by) for _, k, by in rows]
    columns, head, marks, ratio = [[what for what, _, _ in rows], cells(ours)], ["", "Landfall: POST, stored"], [], []
    if theirs:
        found = ratios(ours, theirs, key)
        columns += [cells(theirs), [spread(found), "", ""]]
        head += ["libcoap: GET of a constant", "ratio"]
        marks = [Mark("coap", statistics.median(found))]
    return Table(table(head, list(zip(*columns))), marks)


def connect(part):
    key = "connects_per_second"
    rows = [("connects per second", key, 1), ("p99 to CONNACK, ms", "connack_p99_us", 1000)]
    runs, lines = beside(part, "{}", rows, key)
    marks = []
    if "mosquitto" in runs:
        marks = [Mark("connects", statistics.median(ratios(runs["landfall"], runs["mosquitto"], key)))]
    return Table(table(head_of(runs), lines), marks)


def idle(part):
    runs = {server: part.load(server) for server in BROKERS if part.has(server)}
    each = {server: run["bytes_per_connection"] for server, run in runs.items()}
    count = runs["landfall"]["connections"]
    rows = [[f"bytes per idle connection ({count:,})"] + [number(value) for value in each.values()]]
    return Table(table(head_of(runs), rows), [Mark("connection", each["landfall"])])


UDP_ROWS = [
    ("bytes per device", "bytes_per_device"),
    ("touches per second", "touches_per_second"),
    ("gateway CPU per touch, µs", "cpu_us_per_touch"),
    ("all deadlines within, ms", "deadlines_within_ms"),
    ("silence detected, p50, ms after the device's own deadline", "detected_p50_ms"),
    ("silence detected, last, ms after", "detected_max_ms"),
    ("told to a subscriber, p50, ms after", "published_p50_ms"),
    ("told to a subscriber, last, ms after", "published_max_ms"),
    ("last one stored, ms after the last deadline", "stored_after_last_deadline_ms"),
    ("gateway CPU per end, µs", "cpu_us_per_end"),
]


def udp(part):
    found = part.load("landfall")
    rows = [[what, number(found[key])] for what, key in UDP_ROWS]
    text = table([f"{found['devices']:,} devices from {found['sockets']} source addresses", ""], rows)
    text += (
        f"\n\n{found['ended']:,} ends in {found['end_events']:,} events, none missing, none twice; {found['sent_again']:,} first and "
        f"{found['last_words_sent_again']:,} last words sent again, {found['touch_stalls']:,} stalls."
    )
    marks = [Mark("device", found["bytes_per_device"]), Mark("silence", found["detected_max_ms"])]
    return Table(text, marks)


def storm(part):
    few, every = part.rounds("few"), part.rounds("all")
    keys = [("p50", "ended_stored_p50_us"), ("p99", "ended_stored_p99_us"), ("the last", "ended_stored_max_us")]
    rows = [[f"`disconnected` stored, {what}, ms after its socket closed"] + [number(median(runs, k) / 1000) for runs in (few, every)]
            for what, k in keys]
    rows.append(["events for it"] + [number(median(runs, "end_events")) for runs in (few, every)])
    for run in few + every:
        if run["ended_missing"] or run["ended_twice"]:
            raise ValueError(f"an end is missing or was told twice: {run}")
    head = ["", f"{few[0]['connections']:,} of {few[0]['connections'] + every[0]['connections']:,} at once", f"all {every[0]['connections']:,} at once"]
    return Table(table(head, rows), [Mark("socket", median(few, "ended_stored_p99_us") / 1000)])


def dtls(part):
    if not part.has("idle-openssl"):
        return None
    names = ["bare", "openssl", "gateway"]
    every = {kind: [part.rounds(f"{kind}-{name}") for name in names] for kind in ("handshakes", "records")}
    sessions = [part.load(f"idle-{name}") for name in names]
    payload, lossy = part.rounds("handshakes-payload"), part.load("lossy")

    def row(what, values, digits=None):
        cells = [number(value, digits) for value in values]
        return [what, *cells[:2], f"{values[0] / values[1]:.2f}" if values[1] else "", cells[2]]

    of = lambda kind, key, by=1: [median(runs, key) / by for runs in every[kind]]
    rows = [
        row("handshakes per second", of("handshakes", "handshakes_per_second")),
        row("CPU per handshake, µs", of("handshakes", "cpu_us_per_handshake"), 1),
        row("handshake p50, ms", of("handshakes", "handshake_p50_us", 1000), 1),
        row("handshake p99, ms", of("handshakes", "handshake_p99_us", 1000), 1),
        row(f"bytes per idle session ({sessions[0]['sessions']:,})", [one["bytes_per_session"] for one in sessions]),
        row("records per second, there and back", of("records", "records_per_second")),
        row("CPU per record and its answer, µs", of("records", "cpu_us_per_record"), 2),
    ]
    text = table(["", "landfall-dtls, bare", "OpenSSL, bare", "ratio", "whole gateway"], rows)
    # Handshakes per CPU second, so theirs over ours.
    faster = ratios(every["handshakes"][1], every["handshakes"][0], "cpu_us_per_handshake")
    slower = ratios(every["records"][0], every["records"][1], "cpu_us_per_record")
    text += (
        f"\n\nHandshakes per CPU second ÷ OpenSSL's: {spread(faster)}; CPU per record ÷ OpenSSL's: {spread(slower)}. Gateway, handshake, a "
        f"payload, close (three events): {number(median(payload, 'handshakes_per_second'))} per second, "
        f"{median(payload, 'cpu_us_per_handshake'):.1f} µs of CPU. With 20 % of the datagrams lost each way: {lossy['handshakes']:,} handshakes, "
        f"{lossy['lost']} lost, {lossy['flights_sent_again']:,} flights and {lossy['datagrams_sent_again']:,} datagrams sent again by the clients."
    )
    runs = [run for kind in every.values() for one in kind for run in one] + payload + sessions + [lossy]
    most = max(sessions[n]["bytes_per_session"] for n in (0, 2))
    marks = [
        Mark("handshakes", statistics.median(faster) if faster else 0),
        Mark("session", most),
        Mark("lost", sum(run["lost"] for run in runs)),
    ]
    return Table(text, marks)


def slope(whole):
    """What one more costs, between the fewest and the most: `whole` is what so many cost together."""
    least, most = min(whole), max(whole)
    return (whole[most] - whole[least]) / (most - least) if most > least else 0


def grown(runs):
    return {count: run["resident_bytes_with"] - run["resident_bytes_before"] for count, run in runs.items()}


def growth(part):
    names = [name for name in ("landfall", "mosquitto") if part.counts(f"mqtt-{name}")]
    mqtt_runs = {name: part.counts(f"mqtt-{name}") for name in names}
    udp_runs = part.counts("udp-landfall")
    shown = lambda name: NAMES.get(name, name)
    rows = []
    for count in sorted(mqtt_runs["landfall"]):
        cells = [number(mqtt_runs[name][count][key]) for key in ("bytes_per_connection", "connects_per_second") for name in names]
        rows.append([f"{count:,} connections", *cells])
    rows.append(["one more, between the fewest and the most"] + [number(slope(grown(mqtt_runs[name]))) for name in names] + [""] * len(names))
    head = [""] + [f"{shown(name)}, {what}" for what in ("bytes each", "connects/s") for name in names]
    text = table(head, rows)
    devices = [[f"{count:,} UDP devices", number(run["bytes_per_device"]), number(run["touches_per_second"])]
               for count, run in sorted(udp_runs.items())]
    more = slope({count: run["bytes_per_device"] * count for count, run in udp_runs.items()})
    devices.append(["one more, between the fewest and the most", number(more), ""])
    text += "\n\n" + table(["", "bytes each", "touches/s"], devices)
    memory = {shown(name): [(count, run["bytes_per_connection"]) for count, run in sorted(mqtt_runs[name].items())] for name in names}
    memory["UDP devices"] = [(count, run["bytes_per_device"]) for count, run in sorted(udp_runs.items())]
    rate = {shown(name): [(count, run["connects_per_second"]) for count, run in sorted(mqtt_runs[name].items())] for name in names}
    return Table(text, [], {
        "growth-memory": plots.lines("Memory of one that is silent", "bytes", "connections or devices", memory),
        "growth-connects": plots.lines("How fast they come", "connects per second", "connections", rate),
    })


PARTS = {f.__name__: f for f in (mqtt, floor, coap, connect, idle, udp, storm, dtls, growth)}
