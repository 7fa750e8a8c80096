#!/usr/bin/env bash
# One part of the comparison: the servers, the scenario, the rounds. Called by run.sh, which says what the settings are.
#
# Owns: which scenario a part is, and in what order servers have their turn. Does not own: how peers are started (peers.sh), what
# the figures mean (report.py). Each run of `landfall-load` leaves one file of JSON in the results' folder of the part.
set -euo pipefail
cd "$(dirname "$0")/../.."
part=$1
rounds=$ROUNDS each=$SECONDS_EACH connections=$CONNECTIONS devices=$DEVICES bursts=$BURSTS handshakes=$HANDSHAKES
results=$RESULTS/$part
# Devices that publish, and seconds for which memory comes to rest.
crowd=50 hold=5
# rumqttd lets nobody in without one; nobody is silent for so long.
keep_alive=600
[ "$SHORT" != 1 ] || crowd=5 hold=0
max_sessions=$((devices + 2 * connections + 100000))
rm -rf "$results"
mkdir -p "$results"
source scripts/lib/servers.sh
source benches/compare/peers.sh

wants() { [[ " $PEERS " == *" $1 "* ]]; }

# Starts those of the named peers that are wanted, after the gateway.
start_peers() {
    local one
    for one in "$@"; do if wants "$one"; then "start_$one"; fi; done
}

# landfall-load's figures, into a file of this name.
measure() {
    "$load" --quiet --json "${@:2}" >"$results/$1.json" 2>"$scratch/load.err" && return
    rm -f "$results/$1.json"
    cat "$scratch/load.err" >&2
    return 1
}

# The same for a server that may be a peer: one that fails a scenario is left out of it.
measure_server() {
    local name=$1
    measure "${@:2}" && return
    [ "$name" != landfall ] || return 1
    skip "$name" "$2: $(tail -n 1 "$scratch/load.err")"
}

# Calls a command with each server's name, address and process id, so many times round.
in_turn() {
    local round one name address pid
    for round in $(seq "$rounds"); do
        for one in "${servers[@]}"; do
            read -r name address pid <<<"$one"
            "$1" "$name" "$address" "$pid" "$round" "${@:2}"
        done
    done
}

# The gateway first, then peers: a line "NAME ADDRESS PID" for each.
start_brokers() {
    start_gateway gateway
    servers=("landfall $(listener gateway mqtt) $gateway")
    start_peers mosquitto nats rumqttd
}

mqtt() {
    start_brokers
    publish() {
        measure_server "$1" "qos$5-$1-$4" publish --server "$2" --pid "$3" --connections "$crowd" --qos "$5" --seconds "$each" \
            --warmup "$WARMUP" --keep-alive "$keep_alive"
    }
    local qos
    for qos in 0 1 2; do in_turn publish "$qos"; done
}

floor() {
    start_gateway gateway
    servers=("landfall $(listener gateway mqtt) $gateway")
    local url=
    start_bare_nats
    [ -z "$url" ] || servers+=("floor $url $server")
    version nats-server "$("$NATS_SERVER" --version | sed 's/^nats-server: v//')"
    turn() {
        if [ "$1" = landfall ]; then
            measure "qos1-$1-$4" publish --server "$2" --pid "$3" --connections "$crowd" --seconds "$each" --warmup "$WARMUP"
        else
            # About as many as take as long.
            "$bin/examples/publish_rate" "$2" $((each * 100000)) >"$scratch/floor.out"
            printf '{"acknowledged_per_second": %s}\n' "$(sed -n 's/.*: \([0-9]*\) a second$/\1/p' "$scratch/floor.out")" \
                >"$results/qos1-$1-$4.json"
        fi
    }
    in_turn turn
}

coap() {
    start_gateway gateway
    servers=("landfall $(listener gateway coap) $gateway")
    start_peers libcoap
    ask() {
        local what=(--path '/load?ep={id}')
        [ "$1" = landfall ] || what=(--method get --path / --expect 2.05)
        measure_server "$1" "$1-$4" publish --server "coap://$2" --pid "$3" --connections $((2 * crowd)) --seconds "$each" \
            --warmup "$WARMUP" "${what[@]}"
    }
    in_turn ask
}

connect() {
    start_brokers
    come() { measure_server "$1" "$1-$4" connect --server "$2" --connections "$connections" --hold 0 --keep-alive "$keep_alive"; }
    in_turn come
}

# Each server fresh: memory that was once needed may be kept.
idle() {
    start_brokers
    local one name address pid
    for one in "${servers[@]}"; do
        read -r name address pid <<<"$one"
        measure_server "$name" "$name" idle --server "$address" --connections "$connections" --pid "$pid" --hold "$hold" \
            --keep-alive "$keep_alive"
    done
}

udp() {
    start_gateway gateway
    measure landfall udp --server "$(listener gateway udp)" --admin "$(field gateway "['admin']")" \
        --nats "$(field gateway "['nats']")" --pid "$gateway" --devices "$devices" --bursts "$bursts"
}

# Waits until the gateway has so many sessions.
await_sessions() {
    local now
    for _ in $(seq 600); do
        now=$(python3 - "$(field gateway "['admin']")" <<'PY'
import re, sys, urllib.request
text = urllib.request.urlopen(f"http://{sys.argv[1]}/metrics").read().decode()
print(sum(int(n) for n in re.findall(r"^landfall_sessions(?:\{[^}]*\})? (\d+)$", text, re.M)))
PY
        )
        [ "$now" -lt "$1" ] || return 0
        sleep 0.1
    done
    echo "there are $now sessions instead of $1" >&2
    exit 1
}

storm() {
    start_gateway gateway
    local round to=(--server "$(listener gateway mqtt)") nats rest
    nats=$(field gateway "['nats']")
    for round in $(seq "$rounds"); do
        "$load" --quiet --json idle "${to[@]}" --client-id 'rest-{n}' --connections "$connections" --hold 3600 >/dev/null &
        rest=$!
        pids+=("$rest")
        await_sessions "$connections"
        measure "few-$round" storm "${to[@]}" --connections 100 --nats "$nats"
        # The crowd's own end is not to be part of the next.
        stop "$rest" 2>/dev/null
        sleep 3
        measure "all-$round" storm "${to[@]}" --connections "$connections" --nats "$nats"
    done
}

dtls() {
    local key=6c616e6466616c6c2d6c6f61642d6b79 line='LF1 {id} seq={n} ack' name at pid n
    compile_openssl || return 0
    local bare="$bin/examples/bench_server"
    # No two clients of the same name at a time: the second would take over from the first.
    local people=$((connections > 4000 ? connections : 4000))
    local to=(dtls --key "$key" --identities "$people")
    for ((n = 0; n < people; n++)); do printf '[[device]]\nid = "bench-%d"\npsk = "%s"\n' "$n" "$key"; done \
        >"$scratch/devices.toml"

    # Memory: each server fresh. OpenSSL's is the one that gives its buffers back.
    start_server bare "$bare" 127.0.0.1:0 "$key"
    measure idle-bare "${to[@]}" --server "$address" --pid "$server" idle --sessions "$connections"
    servers=("bare $address $server")
    start_server openssl-lean "$scratch/openssl" 127.0.0.1:0 "$key" lean
    measure idle-openssl "${to[@]}" --server "$address" --pid "$server" idle --sessions "$connections"
    stop "$server" 2>/dev/null
    start_server openssl "$scratch/openssl" 127.0.0.1:0 "$key"
    version OpenSSL "$(head -n 1 "$scratch/openssl.out" | cut -d' ' -f2)"
    servers+=("openssl $address $server")
    start_gateway gateway LANDFALL_UDP__LISTEN=dtls://127.0.0.1:0 LANDFALL_AUTH__MODE=devices \
        LANDFALL_AUTH__DEVICES="$scratch/devices.toml"
    address=$(listener gateway udp)
    servers+=("gateway $address $gateway")
    measure idle-gateway "${to[@]}" --server "$address" --pid "$gateway" idle --sessions "$connections"

    turn() {
        local here=("${to[@]}" --server "$2" --pid "$3")
        measure "handshakes-$1-$4" "${here[@]}" --text "$line" --answered handshakes --count "$handshakes"
        measure "records-$1-$4" "${here[@]}" --text "$line" --answered records --seconds "$each"
        # The same with a payload that becomes an event.
        [ "$1" != gateway ] || measure "handshakes-payload-$4" "${here[@]}" handshakes --count "$handshakes"
    }
    in_turn turn
    # A bad way: nobody may be lost there either.
    measure lossy "${to[@]}" --server "$address" --pid "$gateway" --text "$line" --answered --lose 20 --resend 200 --patience 120 \
        handshakes --count $((handshakes < 4000 ? handshakes : 4000)) --at-once 500
}

growth() {
    local most count name address pid one
    # A file for each connection, on either side, and some to spare.
    most=$(ulimit -Hn)
    if [ "$most" = unlimited ] || [ "$most" -gt 201000 ]; then most=201000; fi
    most=$(((most - 1000) / 1000 * 1000))
    local counts=(1000 10000 "$most")
    [ "$SHORT" != 1 ] || counts=(100 200)
    ulimit -Sn "$(ulimit -Hn)"
    for count in "${counts[@]}"; do
        # Each fresh.
        start_gateway "mqtt-$count"
        servers=("landfall $(listener "mqtt-$count" mqtt) $gateway")
        start_peers mosquitto
        for one in "${servers[@]}"; do
            read -r name address pid <<<"$one"
            measure_server "$name" "mqtt-$name-$count" idle --server "$address" --connections "$count" --pid "$pid" --hold "$hold"
            stop "$pid" 2>/dev/null
        done
    done
    counts=(1000 10000 100000 "$devices")
    [ "$SHORT" != 1 ] || counts=(100 "$devices")
    for count in "${counts[@]}"; do
        start_gateway "udp-$count"
        measure "udp-landfall-$count" udp --server "$(listener "udp-$count" udp)" --admin "$(field "udp-$count" "['admin']")" \
            --nats "$(field "udp-$count" "['nats']")" --pid "$gateway" --devices "$count" --bursts 2 --seconds 1
        stop "$gateway" 2>/dev/null
    done
}

build --package landfall --package landfall-load
case $part in
    dtls) build --package landfall-dtls --example bench_server ;;
    floor) build --package landfall-nats --example publish_rate ;;
esac
servers=()
printf 'rounds\t%s\nseconds\t%s\nwarmup\t%s\ncommit\t%s\n' "$rounds" "$each" "$WARMUP" "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
    >"$results/settings"
version landfall "$("$gateway_bin" --version | cut -d' ' -f2)"
"$part"
