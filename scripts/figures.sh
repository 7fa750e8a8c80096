#!/usr/bin/env bash
# The first figures of docs/performance.md: what an idle connection costs, and QoS 1 messages per second beside mosquitto,
# in alternating rounds on this machine. Prints Markdown. Takes about two minutes after the build.
# ROUNDS (default 5) and SECONDS_EACH (default 5) make it longer or shorter.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-5} each=${SECONDS_EACH:-5} connections=${CONNECTIONS:-10000}

cargo build --quiet --release --package landfall --package landfall-load
gateway_bin=${CARGO_TARGET_DIR:-target}/release/landfall load=${CARGO_TARGET_DIR:-target}/release/landfall-load
mosquitto_bin=$(command -v mosquitto || echo /usr/sbin/mosquitto)
scratch=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT

LANDFALL_NATS__STORE_DIR=$scratch/nats LANDFALL_MQTT__LISTEN=tcp://127.0.0.1:0 LANDFALL_ADMIN__LISTEN=127.0.0.1:0 \
    LANDFALL_LOG__LEVEL=warn "$gateway_bin" run &
gateway=$!
pids+=("$gateway")
for _ in $(seq 300); do
    [ -s "$scratch/nats/landfall.run.json" ] && break
    sleep 0.1
done
field() { python3 -c "import json,sys; print(json.load(open(sys.argv[1]))$2)" "$1"; }
landfall=$(field "$scratch/nats/landfall.run.json" "['listeners']['mqtt'][0]" | sed 's,tcp://,,')

# mosquitto cannot be asked for a free port, so one is found for it.
mosquitto_port=$(python3 -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n' "$mosquitto_port" >"$scratch/mosquitto.conf"
"$mosquitto_bin" -c "$scratch/mosquitto.conf" >"$scratch/mosquitto.log" 2>&1 &
mosquitto=$!
pids+=("$mosquitto")
for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$mosquitto_port") 2>/dev/null && break
    sleep 0.1
done

for server in "landfall $landfall $gateway" "mosquitto 127.0.0.1:$mosquitto_port $mosquitto"; do
    read -r name address pid <<<"$server"
    "$load" idle --server "$address" --connections "$connections" --pid "$pid" --hold 5 --json >"$scratch/idle-$name.json"
done
for round in $(seq "$rounds"); do
    for server in "landfall $landfall" "mosquitto 127.0.0.1:$mosquitto_port"; do
        read -r name address <<<"$server"
        "$load" publish --server "$address" --seconds "$each" --json >"$scratch/publish-$name-$round.json"
    done
done

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
