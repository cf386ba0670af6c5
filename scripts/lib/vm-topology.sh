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
        C) ROUTERS=(worker1) GUESTS=(worker1 worker2 pod1) GUEST_MEMORY[worker1]=384 ;;
        D) ROUTERS=(worker1 worker2) GUESTS=(worker2) GUEST_MEMORY[worker2]=768 GUEST_SYSTEM[worker2]=1 ;;
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
    local node guest
    for node in "${NODES[@]}"; do make_vm_uplink "$node"; done
    "build_topology_$(recorded topology)"
    set_vm_offloads
    write_datastore "$MODE"
    # A guest at a unix socket connects to its node, which must be there.
    [[ $(recorded port) == *stream* || $(recorded port) == *dgram* ]] || boot_guests
    start_routers
    [[ $(recorded port) != *stream* && $(recorded port) != *dgram* ]] || boot_guests
    for guest in "${GUESTS[@]}"; do bring_up "$guest"; done
    enter_vm_mode
}

# A node's way to the fabric: a guest's is a TAP with default offloads. What its kernel leaves to the device
# is the bridge's and the uplinks' to finish.
make_vm_uplink() { # make_vm_uplink NODE
    if is_guest "$1"; then
        make_tap "$FABRIC" "to-$1"
        ip_in "$FABRIC" link set "to-$1" master br0
    else
        make_uplink "$1"
    fi
}

# bring_up GUEST: waits for it, gives it its addresses, and starts what is to run there.
bring_up() {
    [[ ! -e $GUEST_DIR/$1/up ]] || return 0
    wait_for_guest "$1"
    address_guest "$1"
    ! is_router "$1" || "start_in_$(recorded topology)" "$1"
    touch "$GUEST_DIR/$1/up"
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
    for node in "${ROUTERS[@]}"; do
        case $(port_of "$node") in
            tap | packet) make_tap "$node" "${NODE_PORT[$node]}" address "$WORKLOAD_MAC" ;;
        esac
    done
}

# The kind of a node's port: --port has one for both, or one for each.
port_of() { # port_of NODE
    local kinds
    kinds=$(recorded port)
    [[ $1 == worker1 ]] && say "${kinds%,*}" || say "${kinds#*,}"
}

# How a guest gets to its node: by a TAP that the node serves by AF_XDP, where without the virtio header the
# guest finishes checksums and segments itself, whatever its settings are; by a TAP with all offloads, which
# the node serves by a packet socket; or by a unix socket of the node's.
boot_in_A() {
    local node=${POD_NODE[$1]} netdev
    local port=${NODE_PORT[$node]}
    case $(port_of "$node") in
        tap) netdev=tap,ifname=$port,script=no,downscript=no,vhost=off,vnet_hdr=off ;;
        packet) netdev=tap,ifname=$port,script=no,downscript=no,vhost=off ;;
        stream) netdev=stream,server=off,addr.type=unix,addr.path=$LAB_DIR/$port ;;
        dgram) netdev=dgram,local.type=unix,local.path=$LAB_DIR/$1.guest,remote.type=unix,remote.path=$LAB_DIR/$port ;;
    esac
    rm -f "$LAB_DIR/$1.guest"
    boot_guest "$1" "$node" "$(mac_of "${POD_IP[$1]}")|$netdev"
}

# In place of the lab's: each guest that is a router has a datastore of its own.
apply_resources() { # apply_resources FILE
    local node
    "$(underpass_bin)" apply --datastore "$DATASTORE_DIR" -f "$1" >/dev/null
    for node in "${ROUTERS[@]}"; do
        [[ -e $GUEST_DIR/$node/up ]] || continue
        guest_in "$node" "echo $(base64 -w 0 "$1") | base64 -d | underpass apply --datastore $(datastore_in "$node") -f - >/dev/null"
    done
}

# Where a node has its datastore: as installed, where the package's documentation has it.
datastore_in() { # datastore_in NODE
    [[ $(recorded topology) == D && $1 == worker2 ]] && say /etc/underpass/datastore || say "$DATASTORE_DIR"
}

# In place of the lab's: the port of a guest.
workload_port() { # workload_port NODE xdp
    local port=${NODE_PORT[$1]}
    case $(port_of "$1") in
        tap) printf '{ interface: %s }\n' "$port" ;;
        packet) printf '{ interface: %s, kind: packet }\n' "$port" ;;
        *) printf '{ interface: %s, kind: %s, socket: %s }\n' "$port" "$(port_of "$1")" "$LAB_DIR/$port" ;;
    esac
}

build_topology_B() { make_pod_link pod1; }
boot_in_B() { boot_guest "$1" "$FABRIC" "$(uplink_nic "$1")"; }

uplink_nic() { say "$(mac_of "${NODE_IP[$1]}")|tap,ifname=to-$1,script=no,downscript=no,vhost=off"; }

build_topology_C() { :; }

# The router has a NIC on the fabric and one to pod1, as two ends of a cable.
boot_in_C() {
    local cable=$LAB_DIR/${NODE_PORT[worker1]}
    case $1 in
        worker1)
            give_underpass worker1
            boot_guest worker1 "$FABRIC" "$(uplink_nic worker1)" "$WORKLOAD_MAC|$(cable_end "$cable.node" "$cable.pod")"
            ;;
        worker2) boot_in_B worker2 ;;
        pod1) boot_guest pod1 "$FABRIC" "$(mac_of "${POD_IP[pod1]}")|$(cable_end "$cable.pod" "$cable.node")" ;;
    esac
}

cable_end() { # cable_end HERE THERE
    rm -f "$1"
    say "dgram,local.type=unix,local.path=$1,remote.type=unix,remote.path=$2"
}

# The program that runs on the host is the guest's, too.
give_underpass() { # give_underpass GUEST
    local files=$GUEST_DIR/$1/files
    mkdir -p "$files"
    copy_program "$files" "$(underpass_bin)" underpass
    strip "$files/bin/underpass"
}

build_topology_D() { make_pod_link pod1; }

# The package of this tree is on the guest's disk, to be installed.
boot_in_D() {
    local files=$GUEST_DIR/$1/files/extra/root
    mkdir -p "$files"
    if [[ ! -e $files/underpass.deb ]]; then
        UNDERPASS_BIN=$(underpass_bin) bash "$HERE/package" "$LAB_DIR/package" >/dev/null
        cp "$LAB_DIR"/package/underpass_*.deb "$files/underpass.deb"
    fi
    boot_guest "$1" "$FABRIC" "$(uplink_nic "$1")"
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
        is_guest "$node" && continue
        ethtool_in "$FABRIC" "to-$node" off
        ethtool_in "$node" eth0 off
    done
    is_guest pod1 || {
        ethtool_in worker1 "${NODE_PORT[worker1]}" off
        ethtool_in pod1 eth0 off
    }
}

start_routers() {
    local node bin
    bin=$(underpass_bin)
    mkdir -p "$PID_DIR" "$LOG_DIR" "$CONFIG_DIR" /run/underpass
    for node in "${ROUTERS[@]}"; do
        is_guest "$node" && continue
        node_configuration "$node" xdp 0 >"$(node_config "$node")"
        start_node "$node" "$bin"
    done
    for node in "${ROUTERS[@]}"; do
        is_guest "$node" && { bring_up "$node"; continue; }
        wait_until "${UNDERPASS_LAB_TIMEOUT:-20}" node_ready_or_dead "$node" || fail_with_log "$node" "not ready in time"
        started_alive "$node" || fail_with_log "$node" "ended while it started"
    done
}

# In a guest of nothing but a shell.
start_in_C() {
    guest_put "$1" "$DATASTORE_DIR"
    write_config_in "$1" "$(node_config "$1")"
    guest_in "$1" "mkdir -p /run/underpass && { setsid underpass run --config $(node_config "$1") >/run/underpass.log 2>&1 & }"
    wait_until "$GUEST_TIMEOUT" guest_in "$1" "grep -q ': ready after ' /run/underpass.log" ||
        { guest_in "$1" "cat /run/underpass.log" >&2; die "$1: underpass did not start"; }
}

# As a user does who has the package.
start_in_D() {
    guest_in "$1" "dpkg -i ~root/underpass.deb" >"$GUEST_DIR/$1/dpkg" || die "$1: dpkg: $(cat "$GUEST_DIR/$1/dpkg")"
    guest_put "$1" "$DATASTORE_DIR" /etc/underpass/datastore
    write_config_in "$1" /etc/underpass/node.yaml
    guest_in "$1" "systemctl enable --now -q underpass" || { guest_in "$1" "journalctl -u underpass" >&2; die "$1: underpass did not start"; }
}

write_config_in() { # write_config_in GUEST FILE
    local text
    text=$(DATASTORE_DIR=$(datastore_in "$1") node_configuration "$1" xdp 0 | base64 -w 0)
    guest_in "$1" "mkdir -p '$(dirname "$2")' && echo $text | base64 -d >'$2'"
}

# in_router NODE ARGUMENTS...: the node's own underpass.
in_router() {
    local node=$1
    shift
    if is_guest "$node"; then
        guest_in "$node" "underpass $(shell_words "$@")"
    else
        in_ns "$node" "$(underpass_bin)" "$@"
    fi
}

# In place of the lab's, for nodes that are guests, too.
node_routes() { in_router "$1" routes --node "$1" 2>/dev/null || true; }

router_state() { # router_state NODE: its process and what its readiness probe answers
    if is_guest "$1"; then
        guest_in "$1" "pid=\$(pidof underpass || systemctl show -P MainPID underpass); code=\$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9099/readiness); echo \${pid:--} \$code" ||
            say "- -"
    else
        say "$(node_pid "$1" || say -)" "$(node_health "$1")"
    fi
}

# The guest's side: its node tells it its address, routes and MTU by DHCP.
address_in_A() {
    guest_in "$1" "ip link set eth0 up && busybox udhcpc -i eth0 -f -q -n -t 20 -T 1 -O staticroutes -O mtu -s /bin/address" ||
        die "$1 got no address"
}

# A node's place on the fabric.
underlay_in() { # underlay_in GUEST
    guest_in "$1" "set -e
        ip link set lo up
        ip link set eth0 up
        ip addr add ${NODE_CIDR[$1]} dev eth0
        cd /proc/sys/net/ipv4
        echo 1 >ip_forward
        for filter in all default eth0; do echo 0 >conf/\$filter/rp_filter; done"
}

# pod2: a namespace of the guest worker2's, behind a veth pair.
pod2_in() { # pod2_in GUEST
    guest_in "$1" "set -e
        ip netns add pod2
        ip link add ${NODE_PORT[worker2]} mtu $LINK_MTU address $WORKLOAD_MAC type veth peer name eth0 mtu $LINK_MTU netns pod2
        ip link set ${NODE_PORT[worker2]} up
        ip -n pod2 addr add ${POD_IP[pod2]}/32 dev eth0
        ip -n pod2 link set lo up
        ip -n pod2 link set eth0 up
        ip -n pod2 route add default via $POD_GATEWAY dev eth0 onlink"
}

# The guest's side, as Calico sets a node up: its own workload in a namespace, tunl0 and vxlan.calico.
address_in_B() {
    local mac=${NODE_VTEP[worker2]} far=${NODE_VTEP[worker1]}
    underlay_in worker2
    pod2_in worker2
    guest_in worker2 "set -e
        # proxy_arp answers for what the node has another route to.
        ip route add default via ${NODE_GATEWAY[worker2]} dev eth0
        echo 1 >/proc/sys/net/ipv4/conf/${NODE_PORT[worker2]}/proxy_arp
        ip route add ${POD_IP[pod2]}/32 dev ${NODE_PORT[worker2]}
        ip addr add ${NODE_IPIP[worker2]}/32 dev tunl0
        ip link set tunl0 mtu 1480 up
        ip link add vxlan.calico address $mac mtu 1450 type vxlan id $VNI dstport $VXLAN_PORT local ${NODE_IP[worker2]} dev eth0 nolearning
        ip addr add ${NODE_VXLAN[worker2]}/32 dev vxlan.calico
        ip link set vxlan.calico up
        ip neigh replace ${NODE_VXLAN[worker1]} lladdr $far dev vxlan.calico nud permanent
        bridge fdb replace $far dev vxlan.calico dst ${NODE_IP[worker1]}"
}

address_in_C() {
    case $1 in
        worker1)
            # The kernel's own tunl0 has the name of the node's device.
            guest_in worker1 "rmmod ipip && ip link set eth1 name ${NODE_PORT[worker1]} && ip link set ${NODE_PORT[worker1]} up"
            underlay_in worker1
            ;;
        worker2) address_in_B ;;
        pod1) address_in_A pod1 ;;
    esac
}

address_in_D() {
    underlay_in worker2
    pod2_in worker2
}

# VTEPs' Ethernet addresses are Calico's: 66, then the first five bytes of the SHA-1 of the node's name.
declare -A NODE_VTEP
for vtep in "${NODES[@]}"; do
    NODE_VTEP[$vtep]=$(printf %s "$vtep" | sha1sum | sed -E 's/^(..)(..)(..)(..)(..).*/66:\1:\2:\3:\4:\5/')
done

# underpass follows the pool; a guest's kernel has its route set as Felix would.
enter_vm_mode() {
    local node
    if ! is_router worker2; then
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
    elif [[ $name == pod2 ]] && is_guest worker2; then
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
