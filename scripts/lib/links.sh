# The lab's namespaces and links. Every veth pair is created with both ends inside namespaces, so the
# root namespace never holds an interface of the lab's.
# shellcheck shell=bash

in_ns() { # in_ns NAME CMD...
    local name=$1
    shift
    ip netns exec "$(namespace_of "$name")" "$@"
}

ip_in() { # ip_in NAME IP-ARGUMENTS...
    local name=$1
    shift
    ip -n "$(namespace_of "$name")" "$@"
}

namespace_exists() { [[ -e /run/netns/$1 ]]; }

make_namespaces() {
    local namespace
    for namespace in $(all_namespaces); do
        ip netns add "$namespace"
        ip -n "$namespace" link set lo up
        # No reverse-path filter whatever the host's default is: a reply may come in by another device.
        # No IPv6: nothing but the lab's own packets in a capture.
        ip netns exec "$namespace" sysctl -qw net.ipv4.conf.{all,default}.rp_filter=0 \
            net.ipv6.conf.{all,default}.disable_ipv6=1 2>/dev/null ||
            ip netns exec "$namespace" sysctl -qw net.ipv4.conf.{all,default}.rp_filter=0
    done
}

remove_namespaces() {
    local namespace
    for namespace in $(all_namespaces); do
        namespace_exists "$namespace" || continue
        end_processes_in "$namespace"
        ip netns del "$namespace" || true
    done
}

# What still runs in a namespace of the lab (a server that was left behind) goes with it.
end_processes_in() {
    local namespace=$1 pids
    pids=$(ip netns pids "$namespace" 2>/dev/null | grep -vx "$$" || true)
    [[ -n $pids ]] || return 0
    # shellcheck disable=SC2086
    kill -TERM $pids 2>/dev/null || true
    wait_until 3 namespace_idle "$namespace" && return 0
    pids=$(ip netns pids "$namespace" 2>/dev/null | grep -vx "$$" || true)
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
}

namespace_idle() { [[ -z $(ip netns pids "$1" 2>/dev/null | grep -vx "$$") ]]; }

# The fabric: a bridge for the nodes that share a network, a routed port for each of the others.
make_fabric() {
    local node
    ip_in "$FABRIC" link add br0 type bridge stp_state 0 mcast_snooping 0
    ip_in "$FABRIC" addr add "${NODE_GATEWAY[master]}/24" dev br0
    ip_in "$FABRIC" link set br0 up
    in_ns "$FABRIC" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0
    for node in "${NODES[@]}"; do make_uplink "$node"; done
}

make_uplink() {
    local node=$1 port=to-$1
    ip_in "$FABRIC" link add "$port" mtu "$LINK_MTU" type veth \
        peer name eth0 mtu "$LINK_MTU" address "$(mac_of "${NODE_IP[$node]}")" netns "$(namespace_of "$node")"
    if same_subnet "$node" master; then
        ip_in "$FABRIC" link set "$port" master br0
    else
        ip_in "$FABRIC" addr add "${NODE_GATEWAY[$node]}/24" dev "$port"
    fi
    ip_in "$FABRIC" link set "$port" up
    ip_in "$node" addr add "${NODE_CIDR[$node]}" dev eth0
    ip_in "$node" link set eth0 up
    # As on any Calico node: what a pod sends to another node's own address is the host's to forward. The
    # kernel has routes to pods in native mode only, so it forwards none of their traffic otherwise.
    in_ns "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0
    # The underlay and no more: a node whose default route leaves by its uplink is refused by underpass.
    ip_in "$node" route add "$UNDERLAY" via "${NODE_GATEWAY[$node]}" dev eth0
}

# A locally administered address that shows the node's IPv4 address.
mac_of() {
    local a b c d
    IFS=. read -r a b c d <<<"$1"
    printf '02:00:%02x:%02x:%02x:%02x\n' "$a" "$b" "$c" "$d"
}

make_pod_links() {
    local pod
    for pod in "${PODS[@]}"; do make_pod_link "$pod"; done
}

make_pod_link() {
    local pod=$1 node=${POD_NODE[$1]}
    local port=${NODE_PORT[$node]}
    ip_in "$node" link add "$port" mtu "$LINK_MTU" address "$WORKLOAD_MAC" type veth \
        peer name eth0 mtu "$POD_MTU" netns "$(namespace_of "$pod")"
    ip_in "$node" link set "$port" up
    address_pod "$pod"
    ip_in "$pod" route replace default via "$POD_GATEWAY" dev eth0 onlink
}

# A TUN device of underpass's own, in the pod: there once the node runs, gone when it stops.
address_pod_tun() {
    local pod=$1
    wait_until 10 ip_in "$pod" link show eth0 >/dev/null 2>&1 || die "$pod: underpass made no TUN device eth0"
    address_pod "$pod"
    ip_in "$pod" route replace default dev eth0
}

address_pod() {
    ip_in "$1" addr replace "${POD_IP[$1]}/32" dev eth0
    ip_in "$1" link set eth0 mtu "$POD_MTU" up
}

# AF_XDP hands a veth peer's unfinished checksums and 64 KB super-packets to userspace as they are, so
# every end of every link sends finished packets. Native alone may have them on, as a second baseline.
set_offloads() { # set_offloads on|off
    local node pod
    for node in "${NODES[@]}"; do
        ethtool_in "$FABRIC" "to-$node" "$1"
        ethtool_in "$node" eth0 "$1"
        ethtool_in "$node" "${NODE_PORT[$node]}" "$1"
    done
    for pod in "${PODS[@]}"; do ethtool_in "$pod" eth0 "$1"; done
}

ethtool_in() { # ethtool_in NAME INTERFACE on|off
    # A TUN port has no veth behind it, and nothing to switch.
    in_ns "$1" ethtool -i "$2" 2>/dev/null | grep -qx 'driver: veth' || return 0
    in_ns "$1" ethtool -K "$2" tx "$3" tso "$3" gso "$3" gro off >/dev/null
}
