//! Nodes, workloads' and hosts' endpoints.

use super::{check, outcome};

#[test]
fn nodes_and_endpoints() {
    check(
        "Node",
        "n",
        &[
            ("{}", None),
            ("{bgp: {ipv4Address: 1.2.3.4/32}}", None),
            ("{bgp: {ipv6Address: 'aabb:aabb::ffff/128'}}", None),
            ("{bgp: {ipv4IPIPTunnelAddr: 10.0.0.1}}", None),
            ("{bgp: {}}", Some("Spec.BGP should not be empty")),
            (
                "{bgp: {ipv4Address: 'aabb::1/128'}}",
                Some("is not an IPv4 address"),
            ),
            (
                "{bgp: {ipv6Address: 1.2.3.4/32}}",
                Some("is not an IPv6 address"),
            ),
            (
                "{bgp: {ipv4Address: 1.2.3.4/24, routeReflectorClusterID: abcdef}}",
                Some("abcdef"),
            ),
            (
                "{bgp: {ipv4Address: 1.2.3.4/24, routeReflectorClusterID: 300.34.3.1}}",
                Some("300"),
            ),
            (
                "{bgp: {ipv4Address: 1.2.3.4/24, routeReflectorClusterID: 245.0.0.1}}",
                None,
            ),
            ("{wireguard: {interfaceIPv4Address: 1.2.3.4}}", None),
            (
                "{wireguard: {interfaceIPv4Address: foo.bar}}",
                Some("foo.bar"),
            ),
            (
                "{orchRefs: [{nodeName: a, orchestrator: k8s}], addresses: [{address: 10.0.0.1}]}",
                None,
            ),
        ],
    );
    let endpoint = |rest: &str| format!("{{node: n, interfaceName: eth0{rest}}}");
    for (rest, refused) in [
        ("", None),
        (
            ", ports: [{name: a-valid-port, protocol: TCP, port: 1234}]",
            None,
        ),
        (
            ", ports: [{name: a, protocol: SCTP, port: 1}, {name: a, protocol: UDP, port: 2}]",
            None,
        ),
        (
            ", ports: [{protocol: TCP, port: 1234}]",
            Some("name must not be empty"),
        ),
        (
            ", ports: [{protocol: UDP, port: 1234, hostPort: 2345}]",
            None,
        ),
        (
            ", ports: [{protocol: TCP, port: 1, hostPort: 2, hostIP: 999.999.999.999}]",
            Some("999"),
        ),
        (
            ", ports: [{name: a, port: 1234}]",
            Some("protocol: the field is missing"),
        ),
        (
            ", ports: [{name: a, protocol: 123, port: 1234}]",
            Some("does not support ports"),
        ),
        (
            ", ports: [{name: a, protocol: TCP, port: 0}]",
            Some("0 is not a port"),
        ),
        (
            ", ports: [{name: A_b, protocol: TCP, port: 1}]",
            Some("is not a port's name"),
        ),
        (", allowSpoofedSourcePrefixes: [10.abcd]", Some("10.abcd")),
        (
            ", allowSpoofedSourcePrefixes: [10.0.0.1, 192.168.0.0/16]",
            None,
        ),
        (", ipNetworks: [1.2.3.4/32, 'aabb::/128']", None),
        (", ipNetworks: [1.2.3.0/26]", Some("more than one address")),
        (
            ", ipNetworks: ['aabb::/122']",
            Some("more than one address"),
        ),
        (
            ", ipNetworks: [1.2.3.4/32], ipNATs: [{internalIP: 1.2.3.4, externalIP: 100.200.0.0}]",
            None,
        ),
        (
            ", ipNetworks: [1.2.3.4/32], ipNATs: [{internalIP: 1.2.3.5, externalIP: 1.2.3.4}]",
            Some("ipNATs[0]"),
        ),
        (
            ", ipNATs: [{internalIP: 1.2.3.5, externalIP: 1.2.3.4}]",
            Some("ipNATs[0]"),
        ),
        (
            ", ipNetworks: [1.2.3.4/32], ipNATs: [{internalIP: 1.2.3.4, externalIP: 'aabb::1'}]",
            Some("mismatched IP versions"),
        ),
        (", containerID: Cath01234-G", None),
        (", containerID: -abcdefg", Some("containerID")),
        (", containerID: abcdeSg-", Some("containerID")),
        (", containerID: abcde-j.g", Some("containerID")),
    ] {
        check(
            "WorkloadEndpoint",
            "n-a-b-eth0",
            &[(&endpoint(rest), refused)],
        );
    }
    for (interface, good) in [
        ("Valid_Iface.0-9", true),
        ("interfaceTooLong", false),
        ("Invalid&Intface", false),
        ("Invalid#Intface", false),
        ("'Invalid:Intface'", false),
    ] {
        let spec = format!("{{node: n, interfaceName: {interface}}}");
        let outcome = outcome("WorkloadEndpoint", "a", &spec);
        assert_eq!(outcome.is_ok(), good, "{interface}: {outcome:?}");
    }
    check(
        "HostEndpoint",
        "h",
        &[
            (
                "{node: n, interfaceName: eth0, ports: [{name: a, protocol: TCP, port: 1}]}",
                None,
            ),
            ("{node: n, interfaceName: '*'}", None),
            ("{node: n, expectedIPs: [1.2.3.4, 'aabb::ffff']}", None),
            (
                "{node: n, interfaceName: eth0, profiles: [knp.default.fun, fun-1234]}",
                None,
            ),
            (
                "{node: n, interfaceName: eth0, profiles: [.fun]}",
                Some("is not a name"),
            ),
            (
                "{node: n, interfaceName: eth0, ports: [{protocol: TCP, port: 1}]}",
                Some("name"),
            ),
            ("{interfaceName: eth0}", Some("no node has been specified")),
            ("{}", Some("no interface or expected IPs")),
            (
                "{node: n, expectedIPs: []}",
                Some("no interface or expected IPs"),
            ),
        ],
    );
    check(
        "BlockAffinity",
        "n-10-0-0-0-24",
        &[
            (
                "{state: confirmed, cidr: 10.0.0.0/24, node: node-1, deleted: 'false'}",
                None,
            ),
            (
                "{state: claimed, cidr: 10.0.0.0/24, node: node-1}",
                Some("'claimed' is not a value"),
            ),
        ],
    );
}
