# Starting, watching and stopping the lab's underpass processes, one a node.
# shellcheck shell=bash

PID_DIR=$LAB_DIR/pids
LOG_DIR=$LAB_DIR/logs

node_log() { printf '%s/%s.log\n' "$LOG_DIR" "$1"; }

start_nodes() {
    local node bin
    bin=$(underpass_bin)
    mkdir -p "$PID_DIR" "$LOG_DIR" /run/underpass
    for node in "${NODES[@]}"; do start_node "$node" "$bin"; done
    for node in "${NODES[@]}"; do
        wait_until "${UNDERPASS_LAB_TIMEOUT:-20}" node_ready_or_dead "$node" || fail_with_log "$node" "not ready in time"
        started_alive "$node" || fail_with_log "$node" "ended while it started"
        [[ $IO != tun ]] || address_pod_tun "${NODE_POD[$node]}"
    done
}

start_node() { # start_node NODE BINARY
    # A session of its own, so that Ctrl-C on a script reaches the script alone; no descriptor of the
    # lab's lock, or the lab would stay locked as long as the node runs.
    setsid ip netns exec "$(namespace_of "$1")" "$2" run --config "$(node_config "$1")" \
        </dev/null >"$(node_log "$1")" 2>&1 {LOCK}>&- &
    printf '%s\n' $! >"$PID_DIR/$1"
}

node_ready_or_dead() { node_ready "$1" || ! started_alive "$1"; }

node_ready() { grep -sv 'not ready' "$(node_log "$1")" | grep -qw ready; }

# For this shell's own children, whose command line is not yet theirs just after the fork.
started_alive() { kill -0 "$(cat "$PID_DIR/$1")" 2>/dev/null; }

# Prints the pid of a node's process, if what runs under the recorded pid is that process still.
node_pid() {
    local pid
    pid=$(cat "$PID_DIR/$1" 2>/dev/null) && [[ -n $pid ]] || return 1
    { tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF "$(node_config "$1")"; } 2>/dev/null || return 1
    [[ $(awk '/^State:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) != Z ]] || return 1
    printf '%s\n' "$pid"
}

node_stopped() { ! node_pid "$1" >/dev/null; }

fail_with_log() { # fail_with_log NODE REASON
    warn "$1: $2; the end of its log:"
    tail -n 20 "$(node_log "$1")" >&2 || true
    exit 1
}

stop_nodes() {
    local node pid
    for node in "${NODES[@]}"; do
        ! pid=$(node_pid "$node") || kill -TERM "$pid" 2>/dev/null || true
    done
    for node in "${NODES[@]}"; do
        if ! wait_until 10 node_stopped "$node"; then
            warn "$node did not stop within 10 s of SIGTERM: killed"
            ! pid=$(node_pid "$node") || kill -KILL "$pid" 2>/dev/null || true
        fi
        # A killed node leaves its control socket behind.
        [[ ! -e $PID_DIR/$node ]] || rm -f "$PID_DIR/$node" "$(node_socket "$node")"
    done
    rmdir /run/underpass 2>/dev/null || true
}

# A route's line names its block and, when it is a tunnel, the encapsulation: that decides what it is.
route_encapsulation() { # route_encapsulation NODE BLOCK
    node_routes "$1" | awk -v block="$2" '
        { for (i = 1; i <= NF; i++) if ($i == block) { print tolower($0); exit } }' |
        sed -E 's/.*\b(ipip|vxlan)\b.*/\1/; t; s/.+/direct/'
}

node_routes() { "$(underpass_bin)" routes --node "$1" 2>/dev/null || true; }

node_in_mode() { # node_in_mode NODE MODE
    local other
    for other in "${NODES[@]}"; do
        [[ $other != "$1" ]] || continue
        [[ $(route_encapsulation "$1" "${NODE_BLOCK[$other]}") == "$(encapsulation_of "$2" "$1" "$other")" ]] || return 1
    done
}

wait_for_mode() { # wait_for_mode MODE
    local node
    for node in "${NODES[@]}"; do
        node_pid "$node" >/dev/null || die "$node: its underpass is not running (scripts/lab logs $node; scripts/lab up starts afresh)"
        wait_until "${UNDERPASS_LAB_TIMEOUT:-20}" node_in_mode "$node" "$1" ||
            die "$node shows no $1 routes yet (underpass routes --node $node; scripts/lab logs $node)"
    done
}

node_health() {
    in_ns "$1" timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9099 && printf "GET /readiness HTTP/1.0\r\n\r\n" >&3 &&
        read -r _ code _ <&3 && printf "%s\n" "$code"' 2>/dev/null || say -
}
