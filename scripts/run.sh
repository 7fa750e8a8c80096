#!/usr/bin/env bash
# Starts Landfall with its embedded nats-server, lets a demonstration device connect, speak, take a command and leave, and
# shows the events that this makes. Then the gateway keeps running until Ctrl-C. Where the settings name the devices that may come in
# (auth.mode = "devices") there is no demonstration: its device is not one of them.
#
# Settings come from the environment as usual (LANDFALL_MQTT__LISTEN and so on), and from landfall.toml if there is one.
# LANDFALL_BIN names a folder of programs that are built already; then nothing is built here.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# Waits until the program $1, whose output is the file $2, has written $3.
await() {
  for _ in $(seq 300); do
    grep -q "$3" "$2" 2>/dev/null && return
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 5 "$2" >&2
  exit 1
}

scripts/tools.sh nats
bin=${LANDFALL_BIN:-${CARGO_TARGET_DIR:-target}/debug}
if [ -z "${LANDFALL_BIN:-}" ]; then
  say "building"
  cargo build --locked --quiet --package landfall --package landfall-examples
fi
landfall=$bin/landfall
config=()
[ -f landfall.toml ] && config=(--config landfall.toml)

# The run file names everything that the gateway has bound; it is written when all of it is.
run_file=${LANDFALL_NATS__STORE_DIR:-data/nats}/landfall.run.json
running=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$run_file" 2>/dev/null || true)
if [ -n "$running" ] && [ "$(cat "/proc/$running/comm" 2>/dev/null)" = landfall ]; then
  say "a gateway runs here already, process $running; its log: data/landfall.log"
  exit 1
fi
devices=$("$landfall" config print "${config[@]}" | sed -n '/^\[auth\]/,/^\[/s/^mode = "\(.*\)"/\1/p')

mkdir -p data
log=data/landfall.log
"$landfall" run "${config[@]}" 2>"$log" &
gateway=$!
started=("$gateway")
leave() {
  trap - EXIT INT TERM
  # The gateway last: the others want to see what its end makes.
  kill -TERM "${started[@]}" 2>/dev/null || true
  wait "$gateway" 2>/dev/null || true
}
trap leave EXIT
trap 'leave; exit 0' INT TERM

# The run file names everything that the gateway has bound, and says when devices are let in.
for _ in $(seq 300); do
  kill -0 "$gateway" 2>/dev/null || { tail -n 5 "$log" >&2; exit 1; }
  grep -q "\"pid\": *$gateway[,}]" "$run_file" 2>/dev/null && grep -q '"serving": *true' "$run_file" && break
  sleep 0.1
done
# The first address of the protocol $1 with the scheme $2, if there is one.
listener() { sed -n "/\"$1\": *\[/,/\]/s|.*\"\($2://[^\"]*\)\".*|\1|p" "$run_file" | head -n 1; }
mqtt=$(listener mqtt tcp)
coap=$(listener coap udp)
udp=$(listener udp udp)
admin=$(sed -n 's/.*"admin": *"\([^"]*\)".*/\1/p' "$run_file")
# Without the password of an embedded one.
nats=$(sed -n 's/.*"nats": *"\([^"]*\)".*/\1/p' "$run_file" | sed 's|//[^@]*@|//|')
say "landfall listens on ${mqtt:-no plain TCP}${coap:+, CoAP $coap}${udp:+, UDP $udp}"
say "its NATS is $nats, its admin interface http://$admin; log: $log"
say ""

# The list of events is there before the first of them: it says so.
: >data/watch.log
: >data/sensor.log
"$landfall" watch "${config[@]}" 2> >(tee data/watch.log >&2) &
started=("$!" "$gateway")
await "$!" data/watch.log watching

if [ "$devices" = devices ]; then
  say "no demonstration: with auth.mode = \"devices\" only devices of the file come in; try one of yours"
elif [ -n "$mqtt" ]; then
  "$bin/mqtt_sensor" "${mqtt#tcp://}" demo-sensor >data/sensor.log &
  sensor=$!
  # It subscribes before it sends anything, so it takes commands from now on.
  await "$sensor" data/sensor.log "a reading is stored"
  "$landfall" send demo-sensor blink '{"times":3}' --wait answered "${config[@]}" >/dev/null
  # Ctrl-C for a sensor: it says goodbye.
  kill -INT "$sensor"
  wait "$sensor" || true
fi

# The last line of the list before what is said below it.
sleep 0.5
say ""
say "the gateway keeps running, and so does this list of its events; Ctrl-C ends both. Try:"
# Anonymous devices come in only where everybody does.
[ "$devices" = devices ] && mqtt="" coap="" udp=""
[ -z "$mqtt" ] || say "  mosquitto_pub -h 127.0.0.1 -p ${mqtt##*:} -i pump-17 -q 1 -t site/7/flow -m '{\"l\":4.5}'"
# The program, not bash's own printf, which would make a datagram of each line.
[ -z "$udp" ] || say "  env printf 'LF1 beacon-1 hb=2\\n{\"volts\":3.1}' > /dev/udp/127.0.0.1/${udp##*:}"
# libcoap's name for it, or Debian's.
client=$(command -v coap-client coap-client-notls | head -n 1 || true)
client=${client##*/}
[ -z "$coap" ] || say "  ${client:-coap-client} -m post -e '{\"l\":4.5}' 'coap://127.0.0.1:${coap##*:}/site/7/flow?ep=meter-1&lt=60'"
say "  $landfall sessions"
say ""
wait "$gateway"
