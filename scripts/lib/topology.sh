# The lab's one description: nodes, pods, addresses, modes. Source it; everything else reads it.
# shellcheck shell=bash disable=SC2034

# NODE     ADDRESS        GATEWAY      BLOCK           IPIP         VXLAN        POD   POD-ADDRESS   PORT
LAB_TABLE='
master     10.30.0.10/24  10.30.0.254  192.168.0.0/26  192.168.0.1  192.168.0.2  pod0  192.168.0.10  cali0
worker1    10.30.0.11/24  10.30.0.254  192.168.1.0/26  192.168.1.1  192.168.1.2  pod1  192.168.1.10  cali1
worker2    10.30.0.12/24  10.30.0.254  192.168.2.0/26  192.168.2.1  192.168.2.2  pod2  192.168.2.10  cali2
worker3    10.30.1.13/24  10.30.1.254  192.168.3.0/26  192.168.3.1  192.168.3.2  pod3  192.168.3.10  cali3
'

# MODE         IPIP-MODE    VXLAN-MODE   (of the pool; native has no pool: the kernel forwards)
LAB_MODES='
ipip           Always       Never
vxlan          Never        Always
direct         Never        Never
ipip-cross     CrossSubnet  Never
vxlan-cross    Never        CrossSubnet
'

LAB_PREFIX=up-
FABRIC=fabric
UNDERLAY=10.30.0.0/16
POD_POOL=192.168.0.0/16
POD_GATEWAY=169.254.1.1
WORKLOAD_MAC=ee:ee:ee:ee:ee:ee
VNI=4096
VXLAN_PORT=4789
LINK_MTU=1500
# 1500 less VXLAN's 50: one value for every mode, so that modes are compared on the same packets.
POD_MTU=1450

NODES=()
PODS=()
declare -A NODE_CIDR NODE_IP NODE_GATEWAY NODE_BLOCK NODE_IPIP NODE_VXLAN NODE_POD NODE_PORT
declare -A POD_IP POD_NODE
declare -A MODE_IPIP MODE_VXLAN
MODES=()

read_topology() {
    local node address gateway block ipip vxlan pod pod_address port
    while read -r node address gateway block ipip vxlan pod pod_address port; do
        [[ -n $node ]] || continue
        NODES+=("$node")
        PODS+=("$pod")
        NODE_CIDR[$node]=$address
        NODE_IP[$node]=${address%/*}
        NODE_GATEWAY[$node]=$gateway
        NODE_BLOCK[$node]=$block
        NODE_IPIP[$node]=$ipip
        NODE_VXLAN[$node]=$vxlan
        NODE_POD[$node]=$pod
        NODE_PORT[$node]=$port
        POD_IP[$pod]=$pod_address
        POD_NODE[$pod]=$node
    done <<<"$LAB_TABLE"
}

read_modes() {
    local mode ipip vxlan
    while read -r mode ipip vxlan; do
        [[ -n $mode ]] || continue
        MODES+=("$mode")
        MODE_IPIP[$mode]=$ipip
        MODE_VXLAN[$mode]=$vxlan
    done <<<"$LAB_MODES"
}

# same_subnet NODE NODE: do the two share a network of the underlay?
same_subnet() { [[ ${NODE_GATEWAY[$1]} == "${NODE_GATEWAY[$2]}" ]]; }

# encapsulation_of MODE NODE NODE: what the underlay carries between the two: ipip, vxlan or direct.
encapsulation_of() {
    local mode=$1
    case $mode in
        ipip | vxlan) say "$mode" ;;
        *-cross) if same_subnet "$2" "$3"; then say direct; else say "${mode%-cross}"; fi ;;
        *) say direct ;;
    esac
}

# is_node NAME / is_mode NAME
is_node() { [[ -n ${NODE_IP[$1]:-} ]]; }
is_mode() { [[ $1 == native || -n ${MODE_IPIP[$1]:-} ]]; }

namespace_of() { printf '%s%s\n' "$LAB_PREFIX" "${1#"$LAB_PREFIX"}"; }
all_namespaces() {
    local name
    for name in "$FABRIC" "${NODES[@]}" "${PODS[@]}"; do namespace_of "$name"; done
}

read_topology
read_modes
