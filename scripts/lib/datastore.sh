# What the lab writes for underpass to read: the shared datastore directory and a file for each node.
# shellcheck shell=bash

DATASTORE_DIR=$LAB_DIR/datastore
CONFIG_DIR=$LAB_DIR/nodes

node_config() { printf '%s/%s.yaml\n' "$CONFIG_DIR" "$1"; }
node_socket() { printf '/run/underpass/%s.sock\n' "$1"; }

# With DATASTORE=static everything is written down; with dir and etcd only nodes and pool are, and blocks,
# tunnels' and pods' addresses are IPAM's.
write_datastore() { # write_datastore MODE
    mkdir -p "$DATASTORE_DIR" "$CONFIG_DIR"
    [[ $DATASTORE != etcd ]] || start_etcd
    if [[ $DATASTORE == static ]]; then
        for_nodes node_resource >"$DATASTORE_DIR/nodes.yaml"
        for_nodes block_resource >"$DATASTORE_DIR/blocks.yaml"
        for_nodes workload_resource >"$DATASTORE_DIR/workloads.yaml"
    else
        for_nodes node_resource | apply_resources -
    fi
    [[ $BGP == off ]] || bgp_resources | apply_resources -
    [[ -n ${MANIFEST:-} ]] || apply_pool "$1"
}

# A calico.yaml's pool and configurations, and in each node's file whether BGP runs; what became of its
# settings is shown once.
import_manifest() { # import_manifest FILE
    local node bin shown=$LAB_DIR/import.log
    bin=$(underpass_bin)
    for node in "${NODES[@]}"; do
        in_ns "$node" "$bin" import "$1" --config "$(node_config "$node")" >"$shown" || die "$1 is not imported"
        [[ $node != "${NODES[0]}" ]] || cat "$shown"
    done
    rm -f "$shown"
}

# Does the manifest that was imported last have BGP?
backend_is_bird() { grep -q '^bgp: internal' "$(node_config "${NODES[0]}")"; }

# The mode that the pool has.
pool_mode() {
    local place=$DATASTORE_DIR mode shown
    [[ $DATASTORE != etcd ]] || place=$ETCD
    shown=$(in_ns master "$(underpass_bin)" get ippool --datastore "$place" -o custom-columns=CIDR,IPIPMODE,VXLANMODE |
        awk -v pool="$POD_POOL" '$1 == pool { print $2, $3 }')
    for mode in "${MODES[@]}"; do
        [[ $shown != "${MODE_IPIP[$mode]} ${MODE_VXLAN[$mode]}" ]] || { say "$mode"; return; }
    done
    die "the lab's pods are in $POD_POOL, of which the manifest makes no pool"
}

for_nodes() { # for_nodes CMD: once with each node's name
    local node
    for node in "${NODES[@]}"; do "$1" "$node"; done
}

# The one resource that a mode is.
apply_pool() { # apply_pool MODE
    pool_resource "$1" >"$LAB_DIR/pool.yaml"
    apply_resources "$LAB_DIR/pool.yaml"
}

# As a user does it, on a node from which the datastore is reached.
apply_resources() { # apply_resources FILE
    local place=$DATASTORE_DIR
    [[ $DATASTORE != etcd ]] || place=$ETCD
    in_ns master "$(underpass_bin)" apply --datastore "$place" -f "$1" >/dev/null
}

ETCD=http://${NODE_IP[master]}:2379

# One etcd for the cluster, on the master: reached over the underlay, as underpass carries none of it.
start_etcd() {
    command -v etcd >/dev/null || die "--datastore etcd needs etcd on the master: apt-get install etcd-server"
    mkdir -p "$LAB_DIR/etcd" "$PID_DIR" "$LOG_DIR"
    setsid ip netns exec "$(namespace_of master)" etcd --data-dir "$LAB_DIR/etcd" \
        --listen-client-urls "$ETCD" --advertise-client-urls "$ETCD" --listen-peer-urls http://127.0.0.1:2380 \
        </dev/null >"$LOG_DIR/etcd.log" 2>&1 {LOCK}>&- &
    printf '%s\n' $! >"$PID_DIR/etcd"
    wait_until 20 in_ns master curl -sf -o /dev/null "$ETCD/health" || die "etcd does not answer: $LOG_DIR/etcd.log"
}

stop_etcd() {
    local pid
    pid=$(cat "$PID_DIR/etcd" 2>/dev/null) || return 0
    ! grep -qzxF "$LAB_DIR/etcd" "/proc/$pid/cmdline" 2>/dev/null || kill "$pid"
    rm -rf "$PID_DIR/etcd" "$LAB_DIR/etcd"
}

# Each pod gets its address from IPAM, and its link with it.
add_pods() {
    local node pod bin
    bin=$(underpass_bin)
    for node in "${NODES[@]}"; do
        pod=${NODE_POD[$node]}
        in_ns "$node" "$bin" workload add "$pod" --config "$(node_config "$node")" --interface "${NODE_PORT[$node]}" \
            --netns "$(namespace_of "$pod")" >/dev/null || die "$pod: no address (scripts/lab logs $node)"
    done
    for node in "${NODES[@]}"; do
        pod=${NODE_POD[$node]}
        wait_until 20 in_ns "$pod" ping -qc 1 -W 1 "$POD_GATEWAY" >/dev/null || die "$pod: its node does not serve it (scripts/lab logs $node)"
        printf '%s %s %s\n' "$node" "$pod" "$(pod_address "$pod")"
    done >"$LAB_DIR/state/pods"
    read_pods
}

pod_address() { ip_in "$1" -4 -o addr show dev eth0 | awk '{ sub("/.*", "", $4); print $4 }'; }

# What IPAM gave, in place of the lab's own description.
read_pods() {
    local node pod address
    [[ -e $LAB_DIR/state/pods ]] || return 0
    while read -r node pod address; do
        POD_IP[$pod]=$address
        NODE_BLOCK[$node]=${address%.*}.$((${address##*.} / 64 * 64))/26
    done <"$LAB_DIR/state/pods"
}

# A manifest's pool has a name of its own.
lab_pool() {
    local name
    name=$(cat "$LAB_DIR/state/pool" 2>/dev/null) || true
    say "${name:-lab}"
}

pool_resource() {
    cat <<YAML
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: $(lab_pool)
spec:
  cidr: $POD_POOL
  blockSize: 26
  ipipMode: ${MODE_IPIP[$1]}
  vxlanMode: ${MODE_VXLAN[$1]}
YAML
    [[ $(lab_pool) == lab ]] || say '  natOutgoing: true'
}

node_resource() {
    cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: $1
$(bgp_labels "$1")
spec:
  bgp:
    ipv4Address: ${NODE_CIDR[$1]}
YAML
    bgp_cluster "$1"
    [[ $DATASTORE == static ]] || return 0
    cat <<YAML
    ipv4IPIPTunnelAddr: ${NODE_IPIP[$1]}
  ipv4VXLANTunnelAddr: ${NODE_VXLAN[$1]}
YAML
}

block_resource() {
    local block=${NODE_BLOCK[$1]}
    cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata:
  name: $1-$(tr './' '--' <<<"$block")
spec:
  node: $1
  cidr: $block
  state: confirmed
YAML
}

workload_resource() {
    local pod=${NODE_POD[$1]}
    cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata:
  name: $1-lab-$pod-eth0
  namespace: default
spec:
  node: $1
  orchestrator: lab
  workload: $pod
  endpoint: eth0
  interfaceName: ${NODE_PORT[$1]}
  ipNetworks:
  - ${POD_IP[$pod]}/32
YAML
}

write_node_configs() { # write_node_configs xdp|tun
    local node cpu=0
    for node in "${NODES[@]}"; do
        node_configuration "$node" "$1" $((cpu++ % $(nproc))) >"$(node_config "$node")"
    done
}

node_configuration() { # node_configuration NODE xdp|tun CPU
    cat <<YAML
node: $1
uplink: { interface: ${NODE_UPLINK:-eth0}, io: auto }
$(workload_ports "$1" "$2")
host: { tun: tunl0 }
$([[ $BGP == off ]] || printf 'bgp: internal')
workers: { count: 1, cpus: [$3] }
datastore: $(datastore_field)
health: 127.0.0.1:9099
metrics: 127.0.0.1:9091
control: $(node_socket "$1")
${UNDERPASS_TEST_FAST_PATH:+fastPath: $UNDERPASS_TEST_FAST_PATH}
YAML
}

datastore_field() {
    case $DATASTORE in
        etcd) printf '{ etcd: { endpoints: ["%s"] } }\n' "$ETCD" ;;
        *) printf '{ directory: %s }\n' "$DATASTORE_DIR" ;;
    esac
}

workload_ports() { # workload_ports NODE xdp|tun
    case $DATASTORE in
        static) printf 'workloads:\n  - %s\n' "$(workload_port "$1" "$2")" ;;
        *) printf 'workloadInterfaces: { prefix: cali, max: 8 }\n' ;;
    esac
}

workload_port() { # workload_port NODE xdp|tun
    local port=${NODE_PORT[$1]}
    case $2 in
        xdp) printf '{ interface: %s }\n' "$port" ;;
        tun) printf '{ interface: %s, kind: tun, netns: %s, device: eth0 }\n' "$port" "$(namespace_of "${NODE_POD[$1]}")" ;;
    esac
}
