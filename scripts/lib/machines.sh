# The lab when its nodes are machines: where scripts/lab enters a namespace, this runs a command on a machine,
# by ssh from the master. Source it after topology.sh.
# shellcheck shell=bash

# on NAME CMD...: on a node or the fabric.
on() {
    local name=$1 address
    shift
    if [[ ${UNDERPASS_MACHINES:-ssh} == namespaces ]]; then
        ip netns exec "up-$name" "$@"
    elif [[ $name == "$(hostname -s)" ]]; then
        "$@"
    else
        address=${NODE_IP[$name]:-${NODE_GATEWAY[master]}}
        ssh -q -i ~root/.ssh/lab -o BatchMode=yes -o StrictHostKeyChecking=accept-new "root@$address" "${*@Q}"
    fi
}

# In place of links.sh's: on a machine, or in a pod of one.
in_ns() {
    local name=$1
    shift
    if [[ -z ${POD_NODE[$name]:-} ]]; then
        on "$name" "$@"
    elif [[ ${UNDERPASS_MACHINES:-ssh} == namespaces ]]; then
        on "$name" "$@"
    else
        on "${POD_NODE[$name]}" ip netns exec "$name" "$@"
    fi
}

ip_in() {
    local name=$1
    shift
    in_ns "$name" ip "$@"
}

# uplink_of NAME: the interface of this machine that has the node's address; of the fabric, its first port.
uplink_of() {
    local address=${NODE_IP[$1]:-${NODE_GATEWAY[master]}} interface
    interface=$(ip -4 -o addr show to "$address" | awk '{ print $2; exit }')
    [[ -n $interface ]] && printf '%s\n' "$interface"
}

# The interfaces of the fabric, one a network.
fabric_ports() {
    on "$FABRIC" ip -4 -o addr show | awk -v gateways=" ${NODE_GATEWAY[*]} " \
        '{ split($4, address, "/"); if (index(gateways, " " address[1] " ")) print $2 }'
}
