#!/usr/bin/env bash
# Landfall beside others, on this machine, with one tool: `landfall-load`. Writes the tables of docs/performance.md and the plots
# of docs/plots/, and prints them; about fifteen minutes after the build.
#
#   mqtt     QoS 0, 1 and 2 beside mosquitto, nats-server's own MQTT and rumqttd
#   floor    QoS 1 beside bare pipelined publishing to JetStream, which is what nothing above it can beat
#   coap     a CON POST that is stored, beside libcoap's server that answers GET with a constant
#   connect  connects per second, beside the brokers of `mqtt`
#   idle     bytes per idle connection, beside the same
#   udp      a million devices that never connect: bytes of each, heartbeats, and how late it is told that all fell silent
#   storm    a socket is closed: when `disconnected` is stored, of a few among sessions at rest, and of all at once
#   dtls     handshakes, idle sessions and records beside OpenSSL
#   growth   how memory and connects per second grow with their number, up to what `ulimit -n` allows
#
# PART="mqtt idle" chooses; ROUNDS (3) and SECONDS_EACH (5) make it longer or shorter, and so do CONNECTIONS (10000), DEVICES
# (1000000), BURSTS (50) and HANDSHAKES (20000, each round). PEERS="mosquitto libcoap" leaves the others out. DOCS= prints only.
# SHORT=1 is a small run that only shows that all of it works. LANDFALL_BIN is a folder with binaries, which are then not built.
#
# A mark that is missed is said so and by how much; with STRICT=1 it fails the command. A part that cannot be run fails it.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1 ROUNDS SECONDS_EACH WARMUP CONNECTIONS DEVICES BURSTS HANDSHAKES PEERS SHORT RESULTS DOCS
readonly all="mqtt floor coap connect idle udp storm dtls growth"
parts=${PART:-$all}
[ "$parts" != all ] || parts=$all
for part in $parts; do
    [[ " $all " == *" $part "* ]] || { echo "PART is some of $all, not $part" >&2; exit 2; }
done
if [ "${SHORT:-}" = 1 ]; then
    ROUNDS=${ROUNDS:-1} SECONDS_EACH=${SECONDS_EACH:-1} WARMUP=${WARMUP:-0} CONNECTIONS=${CONNECTIONS:-200}
    DEVICES=${DEVICES:-1000} BURSTS=${BURSTS:-2} HANDSHAKES=${HANDSHAKES:-200} DOCS=${DOCS-}
fi
ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-5} WARMUP=${WARMUP:-2} CONNECTIONS=${CONNECTIONS:-10000}
DEVICES=${DEVICES:-1000000} BURSTS=${BURSTS:-50} HANDSHAKES=${HANDSHAKES:-20000} DOCS=${DOCS-docs/performance.md}
PEERS=${PEERS-mosquitto nats rumqttd libcoap openssl} SHORT=${SHORT:-}
RESULTS=${RESULTS:-${CARGO_TARGET_DIR:-target}/compare}

# A process for each part: what one leaves behind or stumbles over does not touch the next.
status=0
for part in $parts; do
    printf '== %s\n' "$part" >&2
    benches/compare/part.sh "$part" || { status=1; printf 'PART=%s could not be run to its end\n' "$part" >&2; }
done
# shellcheck disable=SC2086 # the parts are words
python3 benches/compare/report.py "$RESULTS" "$DOCS" $parts || status=1
exit "$status"
