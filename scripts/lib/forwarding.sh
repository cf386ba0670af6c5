# The kernels' routes between pods, in native mode only; the fabric's routes to the blocks; the fabric's
# source/destination check.
# shellcheck shell=bash

native_on() {
    local node
    for node in "${NODES[@]}"; do
        ip_in "$node" addr replace "$POD_GATEWAY/32" dev "${NODE_PORT[$node]}"
        ip_in "$node" route replace "${POD_IP[${NODE_POD[$node]}]}" dev "${NODE_PORT[$node]}" src "${NODE_IP[$node]}"
        native_block_routes "$node" replace
    done
}

native_off() {
    local node
    for node in "${NODES[@]}"; do
        native_block_routes "$node" del 2>/dev/null || true
        ip_in "$node" route del "${POD_IP[${NODE_POD[$node]}]}" dev "${NODE_PORT[$node]}" 2>/dev/null || true
        ip_in "$node" addr del "$POD_GATEWAY/32" dev "${NODE_PORT[$node]}" 2>/dev/null || true
    done
}

native_block_routes() { # native_block_routes NODE replace|del
    local node=$1 other via
    for other in "${NODES[@]}"; do
        [[ $other != "$node" ]] || continue
        via=${NODE_GATEWAY[$node]}
        ! same_subnet "$node" "$other" || via=${NODE_IP[$other]}
        ip_in "$node" route "$2" "${NODE_BLOCK[$other]}" via "$via" dev eth0
    done
}

# Only an underlay that sees bare pod packets between networks has to know the blocks, unless nodes tell it.
fabric_needs_blocks() { [[ $BGP == off && ($1 == direct || $1 == native) ]]; }

fabric_block_routes() { # fabric_block_routes replace|del
    local node
    for node in "${NODES[@]}"; do
        ip_in "$FABRIC" route "$1" "${NODE_BLOCK[$node]}" via "${NODE_IP[$node]}" 2>/dev/null || [[ $1 == del ]]
    done
}

# A cloud's source/destination check sits at the port, before switching and routing alike: so does this,
# at the ingress of every fabric port. ARP passes; an outer header is all that it looks at.
srcdst_on() {
    local node ports addresses=''
    ports=$(fabric_ports | paste -sd ,)
    for node in "${NODES[@]}"; do
        addresses+="${NODE_IP[$node]}, ${NODE_GATEWAY[$node]}, "
    done
    srcdst_off
    in_ns "$FABRIC" nft -f - <<NFT
table netdev srcdst {
    set nodes { type ipv4_addr; elements = { ${addresses%, } }; }
    counter dropped { }
    chain ports {
        type filter hook ingress devices = { $ports } priority 0; policy accept;
        ip saddr != @nodes counter name dropped drop
        ip daddr != @nodes counter name dropped drop
    }
}
NFT
}

fabric_ports() { printf 'to-%s\n' "${NODES[@]}"; }

srcdst_off() {
    in_ns "$FABRIC" nft delete table netdev srcdst 2>/dev/null || true
}

srcdst_is_on() { in_ns "$FABRIC" nft list table netdev srcdst >/dev/null 2>&1; }

srcdst_dropped() {
    in_ns "$FABRIC" nft list counter netdev srcdst dropped 2>/dev/null | sed -n 's/.*packets \([0-9]*\).*/\1/p'
}
