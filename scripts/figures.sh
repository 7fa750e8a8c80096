#!/usr/bin/env bash
# The figures of docs/performance.md, as Markdown:
#   mqtt  what an idle connection costs, and QoS 1 messages per second beside mosquitto, in alternating rounds on this
#         machine; about two minutes
#   udp   a million devices that never connect: bytes of each, heartbeats per second, and how late the gateway tells that
#         all fell silent at once; about four minutes
# PART (mqtt or udp; default both) chooses. ROUNDS (default 5), SECONDS_EACH (default 5), CONNECTIONS (default 10000),
# DEVICES (default 1000000) and BURSTS (default 100) make it longer or shorter.
# Fails when a mark is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${PART:-all} rounds=${ROUNDS:-5} each=${SECONDS_EACH:-5} connections=${CONNECTIONS:-10000}
devices=${DEVICES:-1000000} bursts=${BURSTS:-100}
case $part in
    mqtt | udp) ;;
    all)
        # What one part misses does not keep the other from being measured.
        status=0
        for one in mqtt udp; do PART=$one scripts/figures.sh || status=1; done
        exit "$status"
        ;;
    *)
        echo "PART is mqtt or udp, not $part" >&2
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

# Starts a gateway of its own for a part, and leaves its process id in $gateway.
start_gateway() {
    LANDFALL_NATS__STORE_DIR=$scratch/$1 LANDFALL_MQTT__LISTEN=tcp://127.0.0.1:0 LANDFALL_COAP__LISTEN=udp://127.0.0.1:0 \
        LANDFALL_UDP__LISTEN=udp://127.0.0.1:0 LANDFALL_ADMIN__LISTEN=127.0.0.1:0 LANDFALL_LOG__LEVEL=warn \
        LANDFALL_PRESENCE__MAX_SESSIONS=$((devices + connections)) "$gateway_bin" run &
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

"$part"
