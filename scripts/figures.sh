#!/usr/bin/env bash
# The figures of docs/performance.md, as Markdown:
#   mqtt  what an idle connection costs, and QoS 1 messages per second beside mosquitto, in alternating rounds on this
#         machine; about two minutes
#   udp   a million devices that never connect: bytes of each, heartbeats per second, and how late the gateway tells that
#         all fell silent at once; about four minutes
#   truth ten thousand sessions that end at once, a killed gateway, an outage of a minute; about three minutes
#   dtls  handshakes, idle sessions and records beside OpenSSL, in alternating rounds; about three minutes. Needs a C
#         compiler and OpenSSL's headers, which are installed where root can (Debian's gcc and libssl-dev)
# PART (mqtt, udp, dtls or truth; default all) chooses. ROUNDS (default 5), SECONDS_EACH (default 5), CONNECTIONS (default 10000),
# DEVICES (default 1000000), BURSTS (default 100) and HANDSHAKES (default 20000, each round) make it longer or shorter.
# Fails when a mark is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${PART:-all} rounds=${ROUNDS:-5} each=${SECONDS_EACH:-5} connections=${CONNECTIONS:-10000}
devices=${DEVICES:-1000000} bursts=${BURSTS:-100} handshakes=${HANDSHAKES:-20000}
case $part in
    mqtt | udp | dtls | truth) ;;
    all)
        # What one part misses does not keep the other from being measured.
        status=0
        for one in mqtt udp dtls truth; do PART=$one scripts/figures.sh || status=1; done
        exit "$status"
        ;;
    *)
        echo "PART is mqtt, udp, dtls or truth, not $part" >&2
        exit 2
        ;;
esac

cargo build --quiet --release --package landfall --package landfall-load
gateway_bin=${CARGO_TARGET_DIR:-target}/release/landfall load=${CARGO_TARGET_DIR:-target}/release/landfall-load
scratch=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT

# Starts a gateway of its own for a part, with more settings if there are any, and leaves its process id in $gateway.
start_gateway() {
    env LANDFALL_NATS__STORE_DIR="$scratch/$1" LANDFALL_MQTT__LISTEN=tcp://127.0.0.1:0 \
        LANDFALL_COAP__LISTEN=udp://127.0.0.1:0 LANDFALL_UDP__LISTEN=udp://127.0.0.1:0 \
        LANDFALL_ADMIN__LISTEN=127.0.0.1:0 LANDFALL_LOG__LEVEL=warn \
        LANDFALL_PRESENCE__MAX_SESSIONS=$((devices + connections)) "${@:2}" "$gateway_bin" run &
    gateway=$!
    pids+=("$gateway")
    for _ in $(seq 300); do
        [ -s "$scratch/$1/landfall.run.json" ] && return
        sleep 0.1
    done
    echo "the gateway did not start" >&2
    exit 1
}
stop_gateway() {
    kill "$gateway"
    wait "$gateway" || true
    pids=()
}
field() { python3 -c "import json,sys; print(json.load(open(sys.argv[1]))$2)" "$scratch/$1/landfall.run.json"; }

mqtt() {
    start_gateway mqtt
    local mosquitto_bin landfall mosquitto mosquitto_port name address pid round server
    mosquitto_bin=$(command -v mosquitto || echo /usr/sbin/mosquitto)
    landfall=$(field mqtt "['listeners']['mqtt'][0]" | sed 's,tcp://,,')

    # mosquitto cannot be asked for a free port, so one is found for it.
    mosquitto_port=$(python3 -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
    printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n' \
        "$mosquitto_port" >"$scratch/mosquitto.conf"
    "$mosquitto_bin" -c "$scratch/mosquitto.conf" >"$scratch/mosquitto.log" 2>&1 &
    mosquitto=$!
    pids+=("$mosquitto")
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$mosquitto_port") 2>/dev/null && break
        sleep 0.1
    done

    for server in "landfall $landfall $gateway" "mosquitto 127.0.0.1:$mosquitto_port $mosquitto"; do
        read -r name address pid <<<"$server"
        "$load" --json idle --server "$address" --connections "$connections" --pid "$pid" --hold 5 >"$scratch/idle-$name.json"
    done
    for round in $(seq "$rounds"); do
        for server in "landfall $landfall" "mosquitto 127.0.0.1:$mosquitto_port"; do
            read -r name address <<<"$server"
            "$load" --json publish --server "$address" --seconds "$each" >"$scratch/publish-$name-$round.json"
        done
    done
    kill "$mosquitto"
    wait "$mosquitto" || true
    stop_gateway

    python3 - "$scratch" "$rounds" <<'PY'
import json, platform, statistics, sys
scratch, rounds = sys.argv[1], int(sys.argv[2])
load = lambda name: json.load(open(f"{scratch}/{name}.json"))
names = ["landfall", "mosquitto"]
print(f"\n{platform.machine()}, {rounds} rounds, medians\n")
print("| | landfall | mosquitto | ratio |\n|---|---|---|---|")
def row(what, values, digits=0):
    a, b = values
    print(f"| {what} | {a:,.{digits}f} | {b:,.{digits}f} | {a / b:.2f} |")
idle = [load(f"idle-{n}") for n in names]
count = f"{idle[0]['connections']:,}"
row(f"bytes per idle connection ({count})", [i["bytes_per_connection"] for i in idle])
row("connects per second", [i["connects_per_second"] for i in idle])
runs = [[load(f"publish-{n}-{r + 1}") for r in range(rounds)] for n in names]
median = lambda key: [statistics.median(run[key] for run in one) for one in runs]
row("QoS 1 acknowledged per second", median("acknowledged_per_second"))
row("latency p50, ms", [v / 1000 for v in median("latency_p50_us")], 1)
row("latency p99, ms", [v / 1000 for v in median("latency_p99_us")], 1)
ratios = sorted(a["acknowledged_per_second"] / b["acknowledged_per_second"] for a, b in zip(*runs))
print("\nratio of each round:", ", ".join(f"{r:.2f}" for r in ratios))
most, each = 2048, idle[0]["bytes_per_connection"]
if each > most:
    sys.exit(f"\nmissed: {each} bytes per idle connection, the mark is {most}")
PY
}

udp() {
    start_gateway udp
    "$load" --json udp --server "$(field udp "['listeners']['udp'][0]" | sed 's,udp://,,')" --admin "$(field udp "['admin']")" \
        --nats "$(field udp "['nats']")" --pid "$gateway" --devices "$devices" --bursts "$bursts" >"$scratch/udp.json"
    stop_gateway

    python3 - "$scratch" <<'PY'
import json, platform, sys
found = json.load(open(f"{sys.argv[1]}/udp.json"))
print(f"\n{platform.machine()}, {found['devices']:,} UDP devices, {found['sockets']} source addresses\n")
print("| | landfall | mark |\n|---|---|---|")
number = lambda value: f"{value:,.1f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"
marks = {"bytes_per_device": 400, "detected_max_ms": 1000}
rows = [
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
for what, key in rows:
    mark = marks.get(key)
    kept = "" if mark is None else f"{mark:,}: {'met' if found[key] <= mark else 'missed'}"
    print(f"| {what} | {number(found[key])} | {kept} |")
print(f"\n{found['ended']:,} ends in {found['end_events']:,} events, none missing, none twice; {found['sent_again']:,} first and "
      f"{found['last_words_sent_again']:,} last words sent again, {found['touch_stalls']:,} stalls")
missed = [f"{key} is {found[key]:,}, the mark is {mark:,}" for key, mark in marks.items() if found[key] > mark]
if missed:
    sys.exit("\nmissed: " + "; ".join(missed))
PY
}

# A server that says where it listens: leaves its process id in $server and its address in $address.
start_server() {
    "${@:2}" >"$scratch/$1.out" &
    server=$!
    pids+=("$server")
    for _ in $(seq 100); do
        address=$(sed -n 's/^listening //p' "$scratch/$1.out")
        [ -n "$address" ] && return
        sleep 0.1
    done
    echo "$1 did not start" >&2
    exit 1
}

# OpenSSL's server, compiled; false where it cannot be.
compile_openssl() {
    has_openssl() { command -v cc >/dev/null && echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1; }
    if ! has_openssl && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev \
            libssl-dev; } >"$scratch/apt.log" 2>&1 || true
    fi
    has_openssl && cc -O2 -o "$scratch/openssl" benches/openssl-dtls/server.c -lssl -lcrypto
}

dtls() {
    local key=6c616e6466616c6c2d6c6f61642d6b79 line='LF1 {id} seq={n} ack' round name at pid one n
    if ! compile_openssl; then
        echo "PART=dtls is left out: it needs a C compiler and OpenSSL's headers (Debian: gcc and libssl-dev)" >&2
        return
    fi
    cargo build --quiet --release --package landfall-dtls --example bench_server
    local bare="${CARGO_TARGET_DIR:-target}/release/examples/bench_server"
    # No two clients of the same name at a time: the second would take over from the first.
    local people=$((connections > 4000 ? connections : 4000))
    local to=("$load" --json dtls --key "$key" --identities "$people")
    for ((n = 0; n < people; n++)); do printf '[[device]]\nid = "bench-%d"\npsk = "%s"\n' "$n" "$key"; done \
        >"$scratch/devices.toml"

    # Memory: each server fresh. OpenSSL's is the one that gives its buffers back. All of them end with the script.
    start_server bare "$bare" 127.0.0.1:0 "$key"
    "${to[@]}" --server "$address" --pid "$server" idle --sessions "$connections" >"$scratch/idle-bare.json"
    servers=("bare $address $server")
    start_server openssl-lean "$scratch/openssl" 127.0.0.1:0 "$key" lean
    "${to[@]}" --server "$address" --pid "$server" idle --sessions "$connections" >"$scratch/idle-openssl.json"
    kill "$server"
    start_server openssl "$scratch/openssl" 127.0.0.1:0 "$key"
    servers+=("openssl $address $server")
    start_gateway dtls LANDFALL_UDP__LISTEN=dtls://127.0.0.1:0 LANDFALL_AUTH__MODE=devices \
        LANDFALL_AUTH__DEVICES="$scratch/devices.toml"
    address=$(field dtls "['listeners']['udp'][0]" | sed 's,dtls://,,')
    servers+=("gateway $address $gateway")
    "${to[@]}" --server "$address" --pid "$gateway" idle --sessions "$connections" >"$scratch/idle-gateway.json"

    for round in $(seq "$rounds"); do
        for one in "${servers[@]}"; do
            read -r name at pid <<<"$one"
            "${to[@]}" --server "$at" --pid "$pid" --text "$line" --answered handshakes --count "$handshakes" \
                >"$scratch/handshakes-$name-$round.json"
            "${to[@]}" --server "$at" --pid "$pid" --text "$line" --answered records --seconds "$each" \
                >"$scratch/records-$name-$round.json"
        done
        # The same with a payload that becomes an event.
        "${to[@]}" --server "$at" --pid "$pid" handshakes --count "$handshakes" >"$scratch/handshakes-payload-$round.json"
    done
    # A bad way: nobody may be lost there either.
    "${to[@]}" --server "$at" --pid "$pid" --text "$line" --answered --lose 20 --resend 200 --patience 120 handshakes \
        --count 4000 --at-once 500 >"$scratch/lossy.json"

    python3 - "$scratch" "$rounds" "$(head -n 1 "$scratch/openssl.out" | cut -d' ' -f1-2)" <<'PY'
import json, platform, statistics, sys
scratch, rounds, version = sys.argv[1], int(sys.argv[2]), sys.argv[3]
load = lambda name: json.load(open(f"{scratch}/{name}.json"))
names = ["bare", "openssl", "gateway"]
idle = [load(f"idle-{n}") for n in names]
print(f"\n{platform.machine()}, {version}, {rounds} rounds, medians\n")
print("| | landfall-dtls, bare | OpenSSL, bare | ratio | whole gateway |\n|---|---|---|---|---|")
def row(what, values, digits=0):
    bare, openssl, gateway = values
    print(f"| {what} | {bare:,.{digits}f} | {openssl:,.{digits}f} | {bare / openssl:.2f} | {gateway:,.{digits}f} |")
runs = {k: [[load(f"{k}-{n}-{r + 1}") for r in range(rounds)] for n in names] for k in ("handshakes", "records")}
median = lambda kind, key: [statistics.median(run[key] for run in one) for one in runs[kind]]
cpu = median("handshakes", "cpu_us_per_handshake")
row("handshakes per second", median("handshakes", "handshakes_per_second"))
row("CPU per handshake, µs", cpu, 1)
row("handshake p50, ms", [v / 1000 for v in median("handshakes", "handshake_p50_us")], 1)
row("handshake p99, ms", [v / 1000 for v in median("handshakes", "handshake_p99_us")], 1)
row(f"bytes per idle session ({idle[0]['sessions']:,})", [i["bytes_per_session"] for i in idle])
row("records per second, there and back", median("records", "records_per_second"))
row("CPU per record and its answer, µs", median("records", "cpu_us_per_record"), 2)
def ratios(kind, key):
    bare, openssl, _ = runs[kind]
    return ", ".join(f"{r:.2f}" for r in sorted(a[key] / b[key] for a, b in zip(bare, openssl)))
print(f"\nratio of the CPU of each round: handshakes {ratios('handshakes', 'cpu_us_per_handshake')}; "
      f"records {ratios('records', 'cpu_us_per_record')}")
payload = [load(f"handshakes-payload-{r + 1}") for r in range(rounds)]
middle = lambda key: statistics.median(run[key] for run in payload)
print(f"gateway, handshake, a payload, close (three events): {middle('handshakes_per_second'):,.0f} per second, "
      f"{middle('cpu_us_per_handshake'):.1f} µs of CPU")
lossy = load("lossy")
print(f"gateway, 20 % of the datagrams lost each way: {lossy['handshakes']:,} handshakes, {lossy['lost']} lost, "
      f"{lossy['flights_sent_again']:,} flights and {lossy['datagrams_sent_again']:,} datagrams sent again by the clients")
every = [run for kind in runs.values() for one in kind for run in one] + payload + idle + [lossy]
missed = []
if cpu[0] > cpu[1]:
    missed.append(f"{cpu[0]:.1f} µs of CPU per handshake, OpenSSL needs {cpu[1]:.1f}")
for name, found in zip(names, idle):
    if name != "openssl" and found["bytes_per_session"] > 12 * 1024:
        missed.append(f"{found['bytes_per_session']:,} bytes per idle session ({name}), the mark is 12,288")
if lost := sum(run["lost"] for run in every):
    why = next(run["first_lost"] for run in every if run["lost"])
    missed.append(f"{lost} handshakes lost, the first one: {why}")
if missed:
    sys.exit("\nmissed: " + "; ".join(missed))
PY
}

# The tests' own crowds and fleets, against the release build; one after the other.
truth() {
    cargo test --quiet --package landfall-tests --no-run
    printf '\n%s, %s\n\n| | | mark |\n|---|---|---|\n' "$(uname -m)" "$(.tools/nats-server --version 2>/dev/null || nats-server --version)"
    LANDFALL_BIN=$(dirname "$gateway_bin") cargo test --quiet --package landfall-tests faults::figures -- \
        --ignored --nocapture --test-threads 1 2>&1 | grep -E '^\||panicked|FAILED|^test result: F' | tee "$scratch/truth"
    ! grep -qE 'panicked|FAILED' "$scratch/truth"
}

"$part"
