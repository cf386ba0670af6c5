# What scripts/vm-lab builds of the lab's topology: worker1, worker2 and their pods, some of them guests.
# shellcheck shell=bash

LAB_PREFIX=vm-
DATASTORE=static
# Blocks are written down.
BGP=off
# The nodes that run underpass, and the machines that are guests.
ROUTERS=()
GUESTS=()

# Narrows the lab's description down to what the recorded topology has.
read_vm_topology() {
    NODES=(worker1 worker2)
    PODS=(pod1 pod2)
    case $(recorded topology) in
        A) ROUTERS=(worker1 worker2) GUESTS=(pod1 pod2) ;;
        B) ROUTERS=(worker1) GUESTS=(worker2) ;;
    esac
}

is_router() { [[ " ${ROUTERS[*]} " == *" $1 "* ]]; }
is_guest() { [[ " ${GUESTS[*]} " == *" $1 "* ]]; }
address_of() { say "${POD_IP[$1]:-${NODE_IP[$1]:-}}"; }

build_vm_lab() {
    make_vm_namespaces
    ip_in "$FABRIC" link add br0 type bridge stp_state 0 mcast_snooping 0
    ip_in "$FABRIC" addr add "${NODE_GATEWAY[worker1]}/24" dev br0
    ip_in "$FABRIC" link set br0 up
    local node
    for node in "${ROUTERS[@]}"; do make_uplink "$node"; done
    "build_topology_$(recorded topology)"
    set_vm_offloads
    write_datastore "$MODE"
    # A guest at a unix socket connects to its node, which must be there.
    [[ $(recorded port) == stream || $(recorded port) == dgram ]] || boot_guests
    start_routers
    [[ $(recorded port) == tap || $(recorded port) == packet ]] || boot_guests
    local guest
    for guest in "${GUESTS[@]}"; do
        wait_for_guest "$guest"
        address_guest "$guest"
    done
    enter_vm_mode
}

boot_guests() {
    local guest
    for guest in "${GUESTS[@]}"; do boot_one "$guest"; done
}

boot_one() { "boot_in_$(recorded topology)" "$1"; }
address_guest() { "address_in_$(recorded topology)" "$1"; }

make_vm_namespaces() {
    local name namespace
    for name in "$FABRIC" "${ROUTERS[@]}" pod1; do
        is_guest "$name" && continue
        namespace=$(namespace_of "$name")
        ip netns add "$namespace"
        ip -n "$namespace" link set lo up
        ip netns exec "$namespace" sysctl -qw net.ipv4.conf.{all,default}.rp_filter=0 \
            net.ipv6.conf.{all,default}.disable_ipv6=1 2>/dev/null || true
    done
}

build_topology_A() {
    local node
    [[ $(recorded port) == tap || $(recorded port) == packet ]] || return 0
    for node in "${ROUTERS[@]}"; do make_tap "$node" "${NODE_PORT[$node]}" address "$WORKLOAD_MAC"; done
}

# How a guest gets to its node: by a TAP that the node serves by AF_XDP, where without the virtio header the
# guest finishes checksums and segments itself, whatever its settings are; by a TAP with all offloads, which
# the node serves by a packet socket; or by a unix socket of the node's.
boot_in_A() {
    local node=${POD_NODE[$1]} netdev
    local port=${NODE_PORT[$node]}
    case $(recorded port) in
        tap) netdev=tap,ifname=$port,script=no,downscript=no,vhost=off,vnet_hdr=off ;;
        packet) netdev=tap,ifname=$port,script=no,downscript=no,vhost=off ;;
        stream) netdev=stream,server=off,addr.type=unix,addr.path=$LAB_DIR/$port ;;
        dgram) netdev=dgram,local.type=unix,local.path=$LAB_DIR/$1.guest,remote.type=unix,remote.path=$LAB_DIR/$port ;;
    esac
    rm -f "$LAB_DIR/$1.guest"
    boot_guest "$1" "$node" "$netdev" "$(mac_of "${POD_IP[$1]}")"
}

# In place of the lab's: there is no master here.
apply_resources() { # apply_resources FILE
    in_ns worker1 "$(underpass_bin)" apply --datastore "$DATASTORE_DIR" -f "$1" >/dev/null
}

# In place of the lab's: the port of a guest.
workload_port() { # workload_port NODE xdp
    local port=${NODE_PORT[$1]}
    case $(recorded port) in
        tap) printf '{ interface: %s }\n' "$port" ;;
        packet) printf '{ interface: %s, kind: packet }\n' "$port" ;;
        *) printf '{ interface: %s, kind: %s, socket: %s }\n' "$port" "$(recorded port)" "$LAB_DIR/$port" ;;
    esac
}

build_topology_B() {
    make_pod_link pod1
    make_tap "$FABRIC" to-worker2
    ip_in "$FABRIC" link set to-worker2 master br0
}

# Default offloads: what a guest's kernel leaves to the device is the bridge's and the uplink's to finish.
boot_in_B() {
    boot_guest "$1" "$FABRIC" tap,ifname=to-worker2,script=no,downscript=no,vhost=off "$(mac_of "${NODE_IP[$1]}")"
}

make_tap() { # make_tap NAME INTERFACE [LINK-OPTIONS]
    local name=$1 interface=$2
    shift 2
    ip_in "$name" tuntap add dev "$interface" mode tap
    [[ $# -eq 0 ]] || ip_in "$name" link set "$interface" "$@"
    ip_in "$name" link set "$interface" mtu "$LINK_MTU" up
}

set_vm_offloads() {
    local node
    for node in "${ROUTERS[@]}"; do
        ethtool_in "$FABRIC" "to-$node" off
        ethtool_in "$node" eth0 off
    done
    [[ $(recorded topology) == A ]] || {
        ethtool_in worker1 "${NODE_PORT[worker1]}" off
        ethtool_in pod1 eth0 off
    }
}

start_routers() {
    local node bin
    bin=$(underpass_bin)
    mkdir -p "$PID_DIR" "$LOG_DIR" "$CONFIG_DIR" /run/underpass
    for node in "${ROUTERS[@]}"; do
        node_configuration "$node" xdp 0 >"$(node_config "$node")"
        start_node "$node" "$bin"
    done
    for node in "${ROUTERS[@]}"; do
        wait_until "${UNDERPASS_LAB_TIMEOUT:-20}" node_ready_or_dead "$node" || fail_with_log "$node" "not ready in time"
        started_alive "$node" || fail_with_log "$node" "ended while it started"
    done
}

# The guest's side: its node tells it its address, routes and MTU by DHCP.
address_in_A() {
    guest_in "$1" "ip link set eth0 up && busybox udhcpc -i eth0 -f -q -n -t 20 -T 1 -O staticroutes -O mtu -s /bin/address" ||
        die "$1 got no address"
}

# The guest's side, as Calico sets a node up: its own workload in a namespace, tunl0 and vxlan.calico.
address_in_B() {
    local mac=${NODE_VTEP[worker2]} far=${NODE_VTEP[worker1]}
    guest_in worker2 "set -e
        ip link set eth0 up
        ip addr add ${NODE_CIDR[worker2]} dev eth0
        # proxy_arp answers for what the node has another route to.
        ip route add default via ${NODE_GATEWAY[worker2]} dev eth0
        sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
        ip netns add pod2
        ip link add ${NODE_PORT[worker2]} mtu $LINK_MTU address $WORKLOAD_MAC type veth peer name eth0 mtu $LINK_MTU netns pod2
        ip link set ${NODE_PORT[worker2]} up
        echo 1 >/proc/sys/net/ipv4/conf/${NODE_PORT[worker2]}/proxy_arp
        ip route add ${POD_IP[pod2]}/32 dev ${NODE_PORT[worker2]}
        ip -n pod2 addr add ${POD_IP[pod2]}/32 dev eth0
        ip -n pod2 link set lo up
        ip -n pod2 link set eth0 up
        ip -n pod2 route add default via $POD_GATEWAY dev eth0 onlink
        ip addr add ${NODE_IPIP[worker2]}/32 dev tunl0
        ip link set tunl0 mtu 1480 up
        ip link add vxlan.calico address $mac mtu 1450 type vxlan id $VNI dstport $VXLAN_PORT local ${NODE_IP[worker2]} dev eth0 nolearning
        ip addr add ${NODE_VXLAN[worker2]}/32 dev vxlan.calico
        ip link set vxlan.calico up
        ip neigh replace ${NODE_VXLAN[worker1]} lladdr $far dev vxlan.calico nud permanent
        bridge fdb replace $far dev vxlan.calico dst ${NODE_IP[worker1]}"
}

# VTEPs' Ethernet addresses are Calico's: 66, then the first five bytes of the SHA-1 of the node's name.
declare -A NODE_VTEP
for vtep in "${NODES[@]}"; do
    NODE_VTEP[$vtep]=$(printf %s "$vtep" | sha1sum | sed -E 's/^(..)(..)(..)(..)(..).*/66:\1:\2:\3:\4:\5/')
done

# underpass follows the pool; a guest's kernel has its route set as Felix would.
enter_vm_mode() {
    local node
    if [[ $(recorded topology) == B ]]; then
        guest_in worker2 "ip route replace $(felix_route worker2 worker1)"
    fi
    for node in "${ROUTERS[@]}"; do
        wait_until "${UNDERPASS_LAB_TIMEOUT:-20}" node_in_mode "$node" "$MODE" ||
            die "$node shows no $MODE routes yet (scripts/vm-lab logs $node)"
    done
    record mode "$MODE"
}

felix_route() { # felix_route NODE OTHER
    local block=${NODE_BLOCK[$2]}
    case $(encapsulation_of "$MODE" "$1" "$2") in
        ipip) say "$block via ${NODE_IP[$2]} dev tunl0 onlink" ;;
        vxlan) say "$block via ${NODE_VXLAN[$2]} dev vxlan.calico onlink" ;;
        *) say "$block via ${NODE_IP[$2]} dev eth0" ;;
    esac
}

in_vm() { # in_vm NAME CMD...
    local name=$1
    shift
    if is_guest "$name"; then
        guest_in "$name" "$(shell_words "$@")"
    elif [[ $name == pod2 && $(recorded topology) == B ]]; then
        guest_in worker2 "ip netns exec pod2 $(shell_words "$@")"
    elif namespace_exists "$(namespace_of "$name")"; then
        in_ns "$name" "$@"
    else
        die "unknown name '$name': one of worker1 worker2 pod1 pod2 $FABRIC"
    fi
}

# Arguments as any shell reads them: bash's own quoting of line breaks is not dash's.
shell_words() {
    local word
    for word in "$@"; do printf "'%s' " "${word//\'/\'\\\'\'}"; done
}

remove_lab() {
    read_vm_topology
    stop_guests
    stop_nodes
    remove_namespaces
    rm -rf "$LAB_DIR"
}
