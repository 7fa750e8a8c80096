#!/usr/bin/env bash
# Every test of the workspace, against the real gateway and a real nats-server. Ends with the runner's closing lines.
set -euo pipefail
cd "$(dirname "$0")/.."

# In CI nothing may be left out: a client that is missing fails the test that needs it.
if [ "${CI:-}" = true ]; then
  export LANDFALL_REQUIRE_INTEROP=1
fi

# The tests start the binaries as processes, so these must exist before. All targets at once: cargo then settles on one set
# of features, and compiles nothing a second time below.
cargo build --locked --workspace --all-targets --quiet

# Documentation examples first: nextest does not run them, and the closing lines belong last.
cargo test --locked --workspace --doc --quiet

if command -v cargo-nextest >/dev/null; then
  profile=default
  [ "${CI:-}" = true ] && profile=ci
  cargo nextest run --locked --workspace --profile "$profile" "$@"
else
  cargo test --locked --workspace --all-targets --no-fail-fast -- "$@"
fi
