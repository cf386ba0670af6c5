# What the underlay carries in each mode: asserted on the fabric's own capture, and shown.
# shellcheck shell=bash

# The pcap filter that only a packet from worker1 to another node's pod in this encapsulation passes.
wire_filter() { # wire_filter ENCAPSULATION NODE
    local outer="src host ${NODE_IP[worker1]} and dst host ${NODE_IP[$2]}"
    case $1 in
        ipip) printf 'ip proto 4 and %s' "$outer" ;;
        # Flags exactly 0x08; the VNI is the upper three bytes of the VXLAN header's second word.
        vxlan) printf 'udp dst port %d and udp[8:4] = 0x08000000 and udp[12:4] = %d and %s' \
            "$VXLAN_PORT" $((VNI << 8)) "$outer" ;;
        direct) printf 'icmp and src host %s and dst host %s' "${POD_IP[pod1]}" "${POD_IP[${NODE_POD[$2]}]}" ;;
    esac
}

# try_wire MODE NODE: pings from pod1 to NODE's pod, and requires such a packet at worker1's fabric port.
try_wire() {
    local encapsulation seen
    CONTEXT="$1 on the wire"
    encapsulation=$(encapsulation_of "$1" worker1 "$2")
    seen=$SERVED/seen
    printf '  wire     '
    try "worker1→$2 $encapsulation" wire_carries "$(wire_filter "$encapsulation" "$2")" "${POD_IP[${NODE_POD[$2]}]}" "$seen"
    printf '\n'
    sed '/./!d; s/^/            /' "$seen"
    rm -f "$seen"
}

wire_carries() { # wire_carries FILTER ADDRESS FILE: FILE gets the packet as tcpdump decodes it
    local complaints=$3.err pid
    in_ns "$FABRIC" timeout 6 tcpdump -nn -v -t --immediate-mode -c 1 -i "${WIRE_PORT:-to-worker1}" "$1" >"$3" 2>"$complaints" &
    pid=$!
    wait_until 3 grep -qs 'listening on' "$complaints" || true
    ping_from pod1 "$2" || true
    wait "$pid" || true
    rm -f "$complaints"
    # A tcpdump that ends without a packet leaves an empty line.
    grep -q ' > ' "$3"
}

# The same by underpass's own capture: one line a packet, outer and inner side by side.
show_capture() { # show_capture ADDRESS
    local shown pid
    shown=$SERVED/shown
    timeout 6 "$(underpass_bin)" capture --node worker1 --port eth0 --print -c 2 >"$shown" 2>&1 </dev/null &
    pid=$!
    sleep 0.5
    ping_from pod1 "$1" || true
    wait "$pid" || true
    sed 's/^/            /' "$shown"
    rm -f "$shown"
}
