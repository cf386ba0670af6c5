# What scripts/vm-lab demo shows: the topologies without a Debian of their own, traffic in every mode, and packets as tcpdump reads them.
# shellcheck shell=bash

PAYLOAD_BYTES=3000000

vm_demo() {
    local topology
    trap 'bash "$HERE/vm-lab" down >/dev/null' EXIT
    trap 'exit 130' INT TERM HUP
    for topology in A B C; do demo_topology "$topology"; done
    [[ ${#FAILURES[@]} -eq 0 ]] || { printf 'FAILED: %s\n' "${FAILURES[@]}"; exit 1; }
    say "everything worked, in $SECONDS s"
}

demo_topology() {
    local mode pod
    printf '\n== topology %s\n' "$1"
    bash "$HERE/vm-lab" up "$1" "${MODES[0]}"
    read_vm_topology
    bash "$HERE/vm-lab" status
    for pod in pod1 pod2; do serve_from "$pod"; done
    for mode in "${MODES[@]}"; do
        bash "$HERE/vm-lab" mode "$mode"
        CONTEXT="topology $1, $mode"
        demo_traffic
        demo_wire "$mode"
    done
    printf '\n'
    in_router worker1 counters --socket "$(node_socket worker1)"
    bash "$HERE/vm-lab" down
}

demo_traffic() {
    local pair
    for pair in 'pod1 pod2' 'pod2 pod1'; do
        try "ping ${pair/ /→}" ping_in_vm $pair
        try "TCP 3 MB ${pair/ /←}" fetch_in_vm $pair
    done
    printf '\n'
}

# serve_from POD: random bytes for others to fetch.
serve_from() {
    in_vm "$1" sh -c "mkdir -p /tmp/served-$1 && head -c $PAYLOAD_BYTES /dev/urandom >/tmp/served-$1/payload &&
        busybox httpd -p $WEB_PORT -h /tmp/served-$1"
}

ping_in_vm() { in_vm "$1" ping -q -n -c 3 -i 0.2 -W 2 "${POD_IP[$2]}" >/dev/null 2>&1; }

fetch_in_vm() { # fetch_in_vm POD POD: the digest of what arrives is that of what was sent
    local here there
    there=$(in_vm "$2" sh -c "sha256sum </tmp/served-$2/payload")
    here=$(in_vm "$1" sh -c "curl -sS --noproxy '*' --max-time 60 http://${POD_IP[$2]}:$WEB_PORT/payload | sha256sum")
    [[ $here == "$there" ]]
}

# demo_wire MODE: an echo request between the nodes, as tcpdump on the fabric decodes it.
demo_wire() {
    local seen pid filter
    filter=$(wire_filter "$(encapsulation_of "$1" worker1 worker2)" worker2)
    seen=$(mktemp)
    in_ns "$FABRIC" timeout 10 tcpdump -nn -v -t --immediate-mode -c 1 -i to-worker1 "$filter" >"$seen" 2>"$seen.err" &
    pid=$!
    wait_until 3 grep -qs 'listening on' "$seen.err" || true
    ping_in_vm pod1 pod2 || true
    wait "$pid" || true
    try "on the wire: $(encapsulation_of "$1" worker1 worker2)" grep -q ' > ' "$seen"
    printf '\n'
    sed '/./!d; s/^/            /' "$seen"
    rm -f "$seen" "$seen.err"
}
