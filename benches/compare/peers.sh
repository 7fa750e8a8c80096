# Other people's servers that Landfall is measured beside. Sourced by part.sh.
#
# Owns: how each is found, set up and started; what is said of one that is missing. Does not own: fetching them
# (`scripts/tools.sh peers`), what is measured.
#
# Each peer that runs is a line "NAME ADDRESS PID" of $servers.

readonly NATS_SERVER=$([ -x .tools/nats-server ] && echo .tools/nats-server || command -v nats-server || true)

# Who is left out, and why, for the table. The tests let nobody be left out where CI has installed everybody.
skip() {
    printf '%s: %s\n' "$1" "$2" >>"$results/skipped"
    printf 'SKIPPED: %s: %s\n' "$1" "$2" >&2
    [ "${LANDFALL_REQUIRE_INTEROP:-}" != 1 ] || exit 1
}

version() { printf '%s\t%s\n' "$1" "$2" >>"$results/versions"; }

# These servers cannot be asked for a free port and tell which, so one is found for them.
free_port() {
    python3 -c "import socket as s; x = s.socket(s.AF_INET, s.SOCK_$1); x.bind(('127.0.0.1', 0)); print(x.getsockname()[1])"
}

# Runs a server under a name and waits until its TCP port opens.
run_peer() {
    local name=$1 port=$2
    "${@:3}" >"$scratch/$name.log" 2>&1 &
    server=$!
    pids+=("$server")
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            servers+=("$name 127.0.0.1:$port $server")
            return
        fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    skip "$name" "it did not start: $(tail -n 1 "$scratch/$name.log")"
}

start_mosquitto() {
    local program port
    program=$(command -v mosquitto || echo /usr/sbin/mosquitto)
    [ -x "$program" ] || { skip mosquitto "not installed (Debian: mosquitto)"; return; }
    version mosquitto "$("$program" -h 2>/dev/null | sed -n 's/^mosquitto version //p' | head -n 1)"
    port=$(free_port STREAM)
    printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n' "$port" \
        >"$scratch/mosquitto.conf"
    run_peer mosquitto "$port" "$program" -c "$scratch/mosquitto.conf"
}

# nats-server speaks MQTT itself. What is published at QoS 1 goes into a JetStream file stream, as Landfall's events do.
start_nats() {
    local port
    [ -n "$NATS_SERVER" ] || { skip nats "no nats-server (scripts/tools.sh nats)"; return; }
    version nats-server "$("$NATS_SERVER" --version | sed 's/^nats-server: v//')"
    port=$(free_port STREAM)
    printf 'server_name: compare\nlisten: "127.0.0.1:-1"\njetstream { store_dir: "%s" }\nmqtt { listen: "127.0.0.1:%s" }\n' \
        "$scratch/nats-mqtt" "$port" >"$scratch/nats.conf"
    run_peer nats "$port" "$NATS_SERVER" --config "$scratch/nats.conf"
}

# Its own example's settings, but for the pause that it makes after each accept: that is 0 here.
start_rumqttd() {
    local program port
    program=$([ -x .tools/bin/rumqttd ] && echo .tools/bin/rumqttd || command -v rumqttd || true)
    if [ -z "$program" ]; then
        skip rumqttd "not installed (\`scripts/tools.sh peers\` builds it)"
        return
    fi
    version rumqttd "$("$program" --version 2>/dev/null | sed 's/^[a-z]* //' | head -n 1)"
    port=$(free_port STREAM)
    cat >"$scratch/rumqttd.toml" <<TOML
id = 0
[router]
id = 0
max_connections = $((connections + 1000))
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:$port"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
dynamic_filters = true
TOML
    run_peer rumqttd "$port" "$program" --config "$scratch/rumqttd.toml"
}

# libcoap's example server; its root is a constant text.
start_libcoap() {
    local program port
    program=$(command -v coap-server-notls || command -v coap-server || true)
    [ -n "$program" ] || { skip libcoap "not installed (Debian: libcoap3-bin)"; return; }
    version libcoap "$({ "$program" -h 2>&1 || true; } | sed -n 's/^coap-server[a-z-]* v\([0-9.]*\).*/\1/p' | head -n 1)"
    port=$(free_port DGRAM)
    "$program" -A 127.0.0.1 -p "$port" >"$scratch/libcoap.log" 2>&1 &
    server=$!
    pids+=("$server")
    sleep 0.5
    if kill -0 "$server" 2>/dev/null; then
        servers+=("libcoap 127.0.0.1:$port $server")
    else
        skip libcoap "it did not start: $(tail -n 1 "$scratch/libcoap.log")"
    fi
}

# A nats-server for bare clients; leaves its URL in $url.
start_bare_nats() {
    local ports="$scratch/bare-nats"
    mkdir -p "$ports"
    "$NATS_SERVER" --addr 127.0.0.1 --port -1 --jetstream --store_dir "$ports/store" --ports_file_dir "$ports" \
        >"$scratch/bare-nats.log" 2>&1 &
    server=$!
    pids+=("$server")
    for _ in $(seq 100); do
        url=$(python3 -c "import glob,json; print(json.load(open(glob.glob('$ports/*.ports')[0]))['nats'][0])" 2>/dev/null) && return
        sleep 0.1
    done
    skip nats "it did not start: $(tail -n 1 "$scratch/bare-nats.log")"
}

# OpenSSL's server, compiled; false where it cannot be.
compile_openssl() {
    if command -v cc >/dev/null && echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1; then
        cc -O2 -o "$scratch/openssl" benches/openssl-dtls/server.c -lssl -lcrypto
    else
        skip openssl "no C compiler or no headers of OpenSSL (Debian: gcc and libssl-dev)"
        return 1
    fi
}
