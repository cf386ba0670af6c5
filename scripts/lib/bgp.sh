# The lab with BGP: who peers with whom, and FRR as the fabric's router, in an AS of its own.
# shellcheck shell=bash

NODES_AS=64512
FABRIC_AS=65000
REFLECTOR=master
FRR_BIN=/usr/lib/frr
FRR_DIR=$LAB_DIR/frr

# Resources: with rr the reflector's peers are all others, with fabric nobody peers with another node. The
# fabric's router is everybody's peer, since it is to know the blocks in direct mode. Its routes lead from
# node to node in fabric mode alone: elsewhere nodes refuse what comes back with their own AS in the path.
bgp_resources() {
    local node
    if [[ $BGP != mesh ]]; then
        cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata:
  name: default
spec:
  nodeToNodeMeshEnabled: false
YAML
    fi
    if [[ $BGP == rr ]]; then
        cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: reflector
spec:
  nodeSelector: all()
  peerSelector: has(reflector)
YAML
    fi
    for node in "${NODES[@]}"; do
        cat <<YAML
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: fabric-$node
spec:
  node: $node
  peerIP: ${NODE_GATEWAY[$node]}
  asNumber: $FABRIC_AS
YAML
        [[ $BGP != fabric ]] || printf '  numAllowedLocalASNumbers: 1\n'
    done
}

# What a node's own resource has beside its address.
bgp_labels() { [[ $BGP != rr || $1 != "$REFLECTOR" ]] || printf '  labels: { reflector: "yes" }\n'; }
bgp_cluster() { [[ $BGP != rr || $1 != "$REFLECTOR" ]] || printf '    routeReflectorClusterID: 244.0.0.1\n'; }

# Tunnels are to end at nodes, whichever network they are in: the router keeps next hops as they are.
frr_configuration() {
    cat <<CONF
frr defaults traditional
hostname fabric
router bgp $FABRIC_AS
 bgp router-id ${NODE_GATEWAY[master]}
 no bgp ebgp-requires-policy
 neighbor nodes peer-group
 neighbor nodes remote-as $NODES_AS
 bgp listen range $UNDERLAY peer-group nodes
 address-family ipv4 unicast
  neighbor nodes attribute-unchanged next-hop
 exit-address-family
CONF
}

# Does no node listen for BGP?
bgp_is_over() {
    local node
    for node in "${NODES[@]}"; do
        [[ -z $(in_ns "$node" ss -Hltn 'sport = :179') ]] || return 1
    done
}

start_frr() {
    local daemon
    [[ -x $FRR_BIN/bgpd ]] || die "--bgp needs FRR for the fabric's router: apt-get install frr"
    mkdir -p "$FRR_DIR" "$PID_DIR" "$LOG_DIR"
    frr_configuration >"$FRR_DIR/frr.conf"
    chown -R frr:frr "$FRR_DIR"
    chmod 755 "$LAB_DIR" "$FRR_DIR"
    for daemon in zebra bgpd; do
        setsid ip netns exec "$(namespace_of "$FABRIC")" "$FRR_BIN/$daemon" -u frr -g frr -f "$FRR_DIR/frr.conf" \
            -i "$FRR_DIR/$daemon.pid" -z "$FRR_DIR/zserv.api" --vty_socket "$FRR_DIR" -A 127.0.0.1 \
            </dev/null >"$LOG_DIR/$daemon.log" 2>&1 {LOCK}>&- &
        wait_until 20 test -e "$FRR_DIR/$daemon.pid" || die "$daemon does not start: $LOG_DIR/$daemon.log"
    done
}

stop_frr() {
    local daemon pid
    for daemon in bgpd zebra; do
        pid=$(cat "$FRR_DIR/$daemon.pid" 2>/dev/null) || continue
        ! grep -qzxF "$FRR_DIR/frr.conf" "/proc/$pid/cmdline" 2>/dev/null || kill "$pid" 2>/dev/null || true
    done
    rm -rf "$FRR_DIR"
}
