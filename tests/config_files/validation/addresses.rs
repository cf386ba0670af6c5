//! Pools, reservations and IPAM's settings.

use super::check;

#[test]
fn pools_and_addresses() {
    check(
        "IPPool",
        "pool.name",
        &[
            ("{cidr: 1.2.3.0/26}", None),
            ("{cidr: 1.0.0.0/10}", None),
            (
                "{cidr: 'aabb:aabb::/122', ipipMode: Never, vxlanMode: Never}",
                None,
            ),
            ("{cidr: 1.2.3.0/27, disabled: true}", None),
            ("{cidr: 'aabb:aabb::ffff/128', disabled: true}", None),
            ("{cidr: 1.2.3.0/27}", Some("IP pool size is too small")),
            ("{cidr: 1.2.3.4/33}", Some("is not a CIDR")),
            ("{cidr: 'aa:bb::/129'}", Some("is not a CIDR")),
            ("{cidr: 1.2.3.4/26}", Some("not strictly masked")),
            ("{}", Some("spec.cidr: the field is missing")),
            (
                "{cidr: 'aabb::/120', ipipMode: Always}",
                Some("not supported on an IPv6"),
            ),
            (
                "{cidr: 169.254.5.0/24}",
                Some("Link Local range 169.254.0.0/16"),
            ),
            ("{cidr: 'fe80::/120'}", Some("Link Local range fe80::/10")),
            (
                "{cidr: 1.2.3.0/24, ipipMode: badVal}",
                Some("'badVal' is not a value"),
            ),
            ("{cidr: 1.2.3.0/24, ipipMode: never}", Some("write 'Never'")),
            (
                "{cidr: 1.2.3.0/24, vxlanMode: crosssubnet}",
                Some("write 'CrossSubnet'"),
            ),
            (
                "{cidr: 1.2.3.0/24, ipipMode: Always, vxlanMode: Always}",
                Some("cannot both be enabled"),
            ),
            (
                "{cidr: 1.2.3.0/24, blockSize: 19}",
                Some("between 20 and 32"),
            ),
            (
                "{cidr: 'aabb::/64', blockSize: 115}",
                Some("between 116 and 128"),
            ),
            ("{cidr: 1.2.3.0/24, allowedUses: [Workload, Tunnel]}", None),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [Garbage]}",
                Some("'Garbage' is not a value"),
            ),
            ("{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer]}", None),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer, Tunnel]}",
                Some("cannot be combined"),
            ),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer], ipipMode: Always}",
                Some("LoadBalancer IP pool"),
            ),
            (
                "{cidr: 1.2.3.0/24, allowedUses: [LoadBalancer], nodeSelector: has(a)}",
                Some("set to all()"),
            ),
            ("{cidr: 1.2.3.0/24, assignmentMode: Manual}", None),
            (
                "{cidr: 1.2.3.0/24, assignmentMode: manual}",
                Some("write 'Manual'"),
            ),
            ("{cidr: 1.2.3.0/24, nodeSelector: 'foo == \"bar\"'}", None),
            (
                "{cidr: 1.2.3.0/24, nodeSelector: this is not valid selector syntax}",
                Some("was expecting an operator"),
            ),
            (
                "{cidr: 1.2.3.0/24, ipip: {enabled: true}}",
                Some("spec.ipip: unknown field"),
            ),
            (
                "{cidr: 1.2.3.0/24, nat-outgoing: true}",
                Some("spec.nat-outgoing: unknown field"),
            ),
        ],
    );
    check(
        "IPReservation",
        "r",
        &[
            (
                "{reservedCIDRs: [10.0.0.1, 10.0.1.0/24, 'cafe::1', 'cafe:f00d::/96']}",
                None,
            ),
            ("{reservedCIDRs: [garbage]}", Some("is not a CIDR")),
            ("{reservedCIDRs: [10.0.1.0/33]}", Some("is not a CIDR")),
        ],
    );
    check(
        "IPAMConfiguration",
        "default",
        &[
            (
                "{strictAffinity: true, autoAllocateBlocks: false, maxBlocksPerHost: 4}",
                None,
            ),
            (
                "{maxBlocksPerHost: -1}",
                Some("must be greater than or equal to 0"),
            ),
            ("{maxBlocksPerHost: 1000001}", Some("write at most 1000000")),
        ],
    );
    check(
        "IPAMConfiguration",
        "other",
        &[(
            "{strictAffinity: true}",
            Some("IPAM config resource name must be 'default'"),
        )],
    );
    for kind in ["NetworkSet", "GlobalNetworkSet"] {
        check(
            kind,
            "set",
            &[
                (
                    "{nets: [10.0.0.1, 11.0.0.0/8, 'dead:beef::', 'dead:beef::/96']}",
                    None,
                ),
                ("{nets: [garbage]}", Some("is not a CIDR")),
            ],
        );
    }
    check(
        "Tier",
        "default",
        &[
            ("{order: 1000000}", None),
            ("{order: 1000000, defaultAction: Deny}", None),
            ("{order: 5}", Some("default tier order must be 1e+06")),
            ("{}", Some("default tier order must be 1e+06")),
            (
                "{order: 1000000, defaultAction: Pass}",
                Some("must have default action 'Deny'"),
            ),
        ],
    );
    check(
        "Tier",
        "net-sec",
        &[
            ("{order: 10, defaultAction: Pass}", None),
            ("{defaultAction: Allow}", Some("'Allow' is not a value")),
        ],
    );
}

#[test]
fn nodes() {
    let own = |field: &str| format!("{{bgp: {{ipv4Address: 1.2.3.4, {field}}}}}");
    check(
        "Node",
        "node.name",
        &[
            ("{}", None),
            ("{bgp: {ipv4Address: 1.2.3.4}}", None),
            ("{bgp: {ipv4Address: 1.2.3.4/10}}", None),
            ("{bgp: {ipv6Address: 'aabb::'}}", None),
            (
                "{bgp: {ipv4Address: 1.2.3.4, ipv6Address: 'aabb::/64'}}",
                None,
            ),
            ("{bgp: {}}", Some("Spec.BGP should not be empty")),
            (
                "{bgp: {ipv4Address: 'aabb::'}}",
                Some("is not an IPv4 address"),
            ),
            (
                "{bgp: {ipv6Address: 1.2.3.4}}",
                Some("is not an IPv6 address"),
            ),
            (
                "{bgp: {ipv4Address: '1.2.3'}}",
                Some("is not an IPv4 address"),
            ),
            (&own("routeReflectorClusterID: 245.0.0.1"), None),
            (&own("routeReflectorClusterID: abcdef"), Some("'abcdef'")),
            (
                &own("routeReflectorClusterID: 300.34.3.1"),
                Some("'300.34.3.1'"),
            ),
            (
                &own("routeReflectorClusterID: 'aa:bb::cc'"),
                Some("'aa:bb::cc'"),
            ),
            (&own("asNumber: 4294967296"), Some("is not an AS number")),
            (
                &own("ipv4IPIPTunnelAddr: 10.0.0.0/24"),
                Some("'10.0.0.0/24'"),
            ),
            (
                "{vxlanTunnelMACAddr: zz}",
                Some("is not an Ethernet address"),
            ),
        ],
    );
}
