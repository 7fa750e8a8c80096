#!/usr/bin/env bash
# The micro benches: what a session, a timer, a packet, an event costs on this machine. Ends with a table in Markdown.
#
#   scripts/bench.sh                     all of them; about four minutes, after the build
#   BENCH=tracker scripts/bench.sh       those of one file: tracker, wheel, events, mqtt or coap
#   scripts/bench.sh --test              each once, small and not measured: do they still run?
#   scripts/bench.sh connect             whose name contains this
#
# What criterion takes besides goes through: `scripts/bench.sh --save-baseline before`, then `--baseline before`.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

# Every bench, with the crate that it measures.
benches=(session:tracker session:wheel event:events mqtt-core:mqtt coap-core:coap)
found=()
for bench in "${benches[@]}"; do
    if [ "${BENCH:-all}" = all ] || [ "${BENCH:-all}" = "${bench#*:}" ]; then found+=("$bench"); fi
done
if [ ${#found[@]} = 0 ]; then
    echo "BENCH is one of ${benches[*]#*:}, not $BENCH" >&2
    exit 2
fi

# The table is of this run: what is older than this file is left out.
mkdir -p "$target"
started=$(mktemp "$target/bench.XXXXXX")
trap 'rm -f "$started"' EXIT
for bench in "${found[@]}"; do
    cargo bench --locked --quiet --package "landfall-${bench%:*}" --bench "${bench#*:}" -- "$@" >&2
done

python3 - "$target/criterion" "$started" "$(rustc --version | cut -d' ' -f1-2)" <<'PY'
import json, os, pathlib, platform, sys
folder, started, rust = pathlib.Path(sys.argv[1]), os.stat(sys.argv[2]).st_mtime, sys.argv[3]
rows = []
for path in folder.glob("**/new/estimates.json"):
    if path.stat().st_mtime < started:
        continue
    about = json.loads((path.parent / "benchmark.json").read_text())
    elements = (about["throughput"] or {}).get("Elements", 1)
    rows.append((path.stat().st_mtime, about["title"], json.loads(path.read_text())["median"]["point_estimate"], elements))
if not rows:
    sys.exit(0)

def time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:,.0f} {unit}"
    return f"{ns:.3g} ns"

print(f"\n{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, {rust}\n")
print("| | median | elements | each |\n|---|---|---|---|")
for _, title, median, elements in sorted(rows):
    print(f"| {title} | {time(median)} | {elements:,} | {time(median / elements)} |")
PY
