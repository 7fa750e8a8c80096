# Servers that are measured, each a process that ends with the script. Sourced by scripts/figures.sh and benches/compare, at the
# root of the repository.
#
# Owns: the scratch folder, the processes in it, how a gateway is started and asked where it listens. Does not own: what is
# measured; how a peer is started (benches/compare/peers.sh).

# Where the binaries are: those of a release build, unless LANDFALL_BIN says otherwise.
target=${CARGO_TARGET_DIR:-target}
bin=${LANDFALL_BIN:-$target/release}
gateway_bin=$bin/landfall load=$bin/landfall-load

scratch=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT

# Builds what is measured, and more packages' binaries or examples if asked. Somebody's own binaries are left as they are.
build() {
    [ -n "${LANDFALL_BIN:-}" ] || cargo build --locked --quiet --release "$@"
}

# Starts a gateway of its own for a purpose, with more settings if there are any, and leaves its process id in $gateway.
start_gateway() {
    env LANDFALL_MQTT__MAX_CONNECTIONS_PER_ADDRESS=0 LANDFALL_NATS__STORE_DIR="$scratch/$1" LANDFALL_NATS__SPOOL_DIR="$scratch/$1-spool" LANDFALL_MQTT__LISTEN=tcp://127.0.0.1:0 \
        LANDFALL_COAP__LISTEN=udp://127.0.0.1:0 LANDFALL_UDP__LISTEN=udp://127.0.0.1:0 \
        LANDFALL_ADMIN__LISTEN=127.0.0.1:0 LANDFALL_LOG__LEVEL=warn \
        LANDFALL_PRESENCE__MAX_SESSIONS="${max_sessions:-1100000}" "${@:2}" "$gateway_bin" run >"$scratch/$1.log" 2>&1 &
    gateway=$!
    pids+=("$gateway")
    for _ in $(seq 300); do
        grep -q '"serving": *true' "$scratch/$1/landfall.run.json" 2>/dev/null && return
        sleep 0.1
    done
    echo "the gateway did not start: $(tail -n 3 "$scratch/$1.log")" >&2
    exit 1
}

# Ends one server, and waits for its end.
stop() {
    kill "$1"
    wait "$1" || true
    local pid left=()
    for pid in "${pids[@]}"; do [ "$pid" = "$1" ] || left+=("$pid"); done
    pids=("${left[@]}")
}

# What the gateway of a purpose says of itself; `listener` without the scheme.
field() { python3 -c "import json,sys; print(json.load(open(sys.argv[1]))$2)" "$scratch/$1/landfall.run.json"; }
listener() { field "$1" "['listeners']['$2'][0].split('://')[1]"; }

# A server that says where it listens: leaves its process id in $server and its address in $address.
start_server() {
    "${@:2}" >"$scratch/$1.out" &
    server=$!
    pids+=("$server")
    for _ in $(seq 100); do
        address=$(sed -n 's/^listening //p' "$scratch/$1.out")
        [ -n "$address" ] && return
        sleep 0.1
    done
    echo "$1 did not start" >&2
    exit 1
}
