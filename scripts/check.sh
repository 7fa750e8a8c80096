#!/usr/bin/env bash
# Formatting, lints, documentation and licences; each with warnings denied.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  printf '\n== %s\n' "$1" >&2
  shift
  "$@"
}

step "formatting" cargo fmt --all --check
step "lints" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
RUSTDOCFLAGS="-D warnings" step "documentation" cargo doc --locked --workspace --no-deps --document-private-items --quiet

# Licences and duplicate versions are checked by a plain test of the workspace (tests/src/supply.rs); advisories need a
# database, and so cargo-deny and a network that reaches it.
if command -v cargo-deny >/dev/null; then
  step "licences, bans, sources" cargo deny --all-features check licenses bans sources
  if cargo deny --all-features fetch >/dev/null 2>&1; then
    step "advisories" cargo deny --all-features check advisories
  else
    printf '\n== advisories: the database cannot be reached from here; not checked\n' >&2
  fi
fi
