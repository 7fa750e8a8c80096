#!/usr/bin/env bash
# The figures of docs/performance.md that nobody else's server has a part in: ten thousand sessions that end at once, a killed
# gateway, an outage of a minute; about three minutes. What Landfall costs beside others is `make compare`.
#
# Prints a table in Markdown. Fails when a mark is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/servers.sh

build --package landfall
cargo test --quiet --package landfall-tests --no-run
printf '\n%s, %s\n\n| | | mark |\n|---|---|---|\n' "$(uname -m)" "$(.tools/nats-server --version 2>/dev/null || nats-server --version)"
# The tests' own crowds and fleets, against the release build; one after the other.
LANDFALL_BIN=$bin cargo test --quiet --package landfall-tests faults::figures -- \
    --ignored --nocapture --test-threads 1 2>&1 | grep -E '^\||panicked|FAILED|^test result: F' | tee "$scratch/truth"
! grep -qE 'panicked|FAILED' "$scratch/truth"
