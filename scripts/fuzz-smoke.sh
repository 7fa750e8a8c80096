#!/usr/bin/env bash
# Mutated input at the real gateway, with a canary beside it (tests/src/hostile/mutation.rs), one protocol after the other so that the
# canary's delays can be compared. LANDFALL_FUZZ_INPUTS of each protocol (60,000: about a minute), LANDFALL_TEST_SEED: which.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --workspace --all-targets --quiet
export LANDFALL_FUZZ_INPUTS=${LANDFALL_FUZZ_INPUTS:-60000}
export LANDFALL_TEST_SEED=${LANDFALL_TEST_SEED:-$RANDOM}
printf 'seed %s, %s inputs of each protocol\n' "$LANDFALL_TEST_SEED" "$LANDFALL_FUZZ_INPUTS" >&2
cargo test --locked --quiet --workspace --test e2e hostile::mutation -- --test-threads 1 --nocapture
