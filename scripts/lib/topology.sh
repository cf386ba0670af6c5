# The lab's nodes, pods and addresses, of config/lab/topology, and its modes. Source it after common.sh.
# shellcheck shell=bash disable=SC2034

LAB_TOPOLOGY=$ROOT/config/lab/topology

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
        [[ -n $node && $node != \#* ]] || continue
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
    done <"$LAB_TOPOLOGY"
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
