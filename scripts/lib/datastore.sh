# What the lab writes for underpass to read: the shared datastore directory and a file for each node.
# shellcheck shell=bash

DATASTORE_DIR=$LAB_DIR/datastore
CONFIG_DIR=$LAB_DIR/nodes

node_config() { printf '%s/%s.yaml\n' "$CONFIG_DIR" "$1"; }
node_socket() { printf '/run/underpass/%s.sock\n' "$1"; }

write_datastore() { # write_datastore MODE
    mkdir -p "$DATASTORE_DIR" "$CONFIG_DIR"
    local node
    for node in "${NODES[@]}"; do node_resource "$node"; done >"$DATASTORE_DIR/nodes.yaml"
    for node in "${NODES[@]}"; do block_resource "$node"; done >"$DATASTORE_DIR/blocks.yaml"
    for node in "${NODES[@]}"; do workload_resource "$node"; done >"$DATASTORE_DIR/workloads.yaml"
    write_pool "$1"
}

# The one file that a mode is: renamed into place, so that a watcher never reads half of it.
write_pool() { # write_pool MODE
    local temporary
    temporary=$(mktemp "$LAB_DIR/pool.XXXXXX")
    pool_resource "$1" >"$temporary"
    mv "$temporary" "$DATASTORE_DIR/pool.yaml"
}

pool_resource() {
    cat <<YAML
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: lab
spec:
  cidr: $POD_POOL
  blockSize: 26
  ipipMode: ${MODE_IPIP[$1]}
  vxlanMode: ${MODE_VXLAN[$1]}
YAML
}

node_resource() {
    cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: $1
spec:
  bgp:
    ipv4Address: ${NODE_CIDR[$1]}
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
uplink: { interface: eth0, io: auto }
workloads:
  - $(workload_port "$1" "$2")
host: { tun: tunl0 }
workers: { count: 1, cpus: [$3] }
datastore: { directory: $DATASTORE_DIR }
health: 127.0.0.1:9099
metrics: 127.0.0.1:9091
control: $(node_socket "$1")
${UNDERPASS_TEST_FAST_PATH:+fastPath: $UNDERPASS_TEST_FAST_PATH}
YAML
}

workload_port() { # workload_port NODE xdp|tun
    local port=${NODE_PORT[$1]}
    case $2 in
        xdp) printf '{ interface: %s }\n' "$port" ;;
        tun) printf '{ interface: %s, kind: tun, netns: %s, device: eth0 }\n' "$port" "$(namespace_of "${NODE_POD[$1]}")" ;;
    esac
}
