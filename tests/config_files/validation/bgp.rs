//! BGP's kinds.

use super::check;

#[test]
fn bgp() {
    let advertised = "prefixAdvertisements: [{cidr: 192.168.10.0/28, communities: ['100:100']}]";
    let named = |value: &str| {
        format!("{{communities: [{{name: community-test, value: '{value}'}}], {advertised}}}")
    };
    let bits = |bits: &'static str| Some(bits);
    check(
        "BGPConfiguration",
        "default",
        &[
            ("{logSeverityScreen: Info}", None),
            ("{logSeverityScreen: info}", Some("write 'Info'")),
            ("{logSeverityScreen: invalidLvl}", Some("'invalidLvl'")),
            (
                "{serviceClusterIPs: [{cidr: 1.2.3.4}], serviceExternalIPs: [{cidr: 8.8.8.8}]}",
                None,
            ),
            (
                "{serviceClusterIPs: [{cidr: x.x.x.x}]}",
                Some("is not a CIDR"),
            ),
            (
                "{serviceExternalIPs: [{cidr: 10.0.0.1/8}]}",
                Some("not strictly masked"),
            ),
            ("{serviceClusterIPs: [{cidr: 'fdf5:1234::102:304'}]}", None),
            (
                "{nodeToNodeMeshEnabled: true, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}",
                None,
            ),
            (
                "{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}",
                Some("NodeMeshPassword cannot be set if spec.NodeToNodeMesh is disabled"),
            ),
            (
                "{nodeToNodeMeshEnabled: true, nodeMeshMaxRestartTime: 200s}",
                None,
            ),
            (
                "{nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 200s}",
                Some("NodeMeshMaxRestartTime"),
            ),
            (
                "{ignoredInterfaces: ['valid_iface*', interface_name]}",
                None,
            ),
            ("{ignoredInterfaces: ['*']}", Some("ignoredInterfaces[0]")),
            ("{listenPort: 0}", Some("0 is not a port")),
            ("{asNumber: 0}", Some("is not an AS number")),
            ("{asNumber: '1.10'}", None),
            (
                "{communities: [{name: community-test, value: '101:5695'}]}",
                Some("defined but not used"),
            ),
            (
                &format!("{{communities: [{{value: '536:785'}}], {advertised}}}"),
                Some("name: the field is missing"),
            ),
            (
                &format!("{{communities: [{{name: a}}], {advertised}}}"),
                Some("value: the field is missing"),
            ),
            (&named("100:520"), None),
            (&named("100:520:56"), None),
            (
                &named("100"),
                Some("invalid community value or format used."),
            ),
            (
                &named("ab-n"),
                Some("invalid community value or format used."),
            ),
            (&named("65536:999999"), bits("expected 16 bit value")),
            (&named("4147483647:999999"), bits("expected 16 bit value")),
            (
                "{prefixAdvertisements: [{communities: ['100:5964']}]}",
                Some("cidr: the field is missing"),
            ),
            (
                "{prefixAdvertisements: [{cidr: 192.168.10.0/28}]}",
                Some("communities: the field is missing"),
            ),
            (
                "{prefixAdvertisements: [{cidr: '2001:4860::/128', communities: ['100:5964:50', '8988:202']}]}",
                None,
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['100:1147483647']}]}",
                bits("expected 16 bit value"),
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['100:100:5147483647']}]}",
                bits("expected 32 bit value"),
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [non-existent]}]}",
                Some("invalid or not defined"),
            ),
            (
                "{communities: [{name: a, value: '101:5695'}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a, '8988:202']}]}",
                None,
            ),
        ],
    );
    let peer = |ip: &str| format!("{{peerIP: '{ip}'}}");
    for good in ["1.2.3.4", "192.168.1.1:500", "[9000::]:500", "aabb::ffff"] {
        check("BGPPeer", "p", &[(&peer(good), None)]);
    }
    for bad in [
        "999.999.999.999",
        "xyz:::",
        "[192.168.0.0]:98956",
        "192.168.0.0:65536",
        "192.168.0.0:0",
        "192.168.0.330:170",
        "[9000::]:98956",
        "192.168.0.0:",
        "[9000::]:",
        "[9000::]:0",
        "[9000::FFFFF]:170",
        ":8552",
        "[]:8552",
    ] {
        check(
            "BGPPeer",
            "p",
            &[(&peer(bad), Some("is not a peer's address"))],
        );
    }
    let family = Some("address family mismatched");
    check(
        "BGPPeer",
        "p",
        &[
            ("{}", None),
            (
                "{node: my-node, nodeSelector: has(mylabel)}",
                Some("Node field must be empty"),
            ),
            (
                "{peerIP: 1.2.3.4, peerSelector: has(mylabel)}",
                Some("PeerIP field must be empty"),
            ),
            (
                "{asNumber: 61234, peerSelector: has(mylabel)}",
                Some("ASNumber field must be empty"),
            ),
            (
                "{nodeSelector: has(mylabel), peerSelector: has(mylabel)}",
                None,
            ),
            (
                "{localWorkloadSelector: has(a)}",
                Some("ASNumber field must NOT be empty"),
            ),
            (
                "{localWorkloadSelector: has(a), asNumber: 1, peerIP: 1.2.3.4}",
                Some("PeerIP field must be empty"),
            ),
            (
                "{localWorkloadSelector: has(a), peerSelector: has(b)}",
                Some("PeerSelector field must be empty"),
            ),
            ("{localWorkloadSelector: has(a), asNumber: 1}", None),
            (
                "{reachableBy: 100.200.0.0}",
                Some("must be empty when PeerIP is empty"),
            ),
            ("{peerIP: '9.9.9.9:4444', reachableBy: 1.2.3.4}", None),
            (
                "{peerIP: '[aabb::ffff]:4444', reachableBy: 'aabb::1'}",
                None,
            ),
            (
                "{peerIP: 1.2.3.4, reachableBy: 999.1.1.1}",
                Some("999.1.1.1"),
            ),
            ("{peerIP: 1.2.3.4, reachableBy: 'aabb::1'}", family),
            (
                "{peerIP: '[aabb::ffff]:4444', reachableBy: 1.2.3.4}",
                family,
            ),
            (
                "{peerIP: 1.2.3.4, password: {secretKeyRef: {name: a, key: b}}}",
                None,
            ),
            (
                "{nodeSelector: \"kubernetes.io/hostname: == 'casey'\"}",
                Some("was expecting an operator"),
            ),
            ("{sourceAddress: UseNodeIP}", None),
            ("{sourceAddress: None}", None),
            ("{sourceAddress: rubbish}", Some("'rubbish' is not a value")),
            (
                "{maxRestartTime: 10s, keepaliveTime: 20s, ttlSecurity: 1}",
                None,
            ),
            ("{maxRestartTime: 10}", Some("is not a duration")),
            ("{nextHopMode: Self}", None),
            (
                "{nextHopMode: Keep, keepOriginalNextHop: true}",
                Some("deprecated"),
            ),
        ],
    );
}

#[test]
fn bgp_filters() {
    let rule = |rule: &str| format!("{{exportV4: [{rule}]}}");
    for (text, refused) in [
        ("{action: Accept}", None),
        ("{action: accept}", Some("write 'Accept'")),
        ("{}", Some("action: the field is missing")),
        (
            "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In}",
            None,
        ),
        (
            "{action: Accept, cidr: 10.0.0.0/8, matchOperator: Within}",
            Some("'Within' is not a value"),
        ),
        (
            "{action: Accept, cidr: 10.0.0.0/8}",
            Some("MatchOperator cannot be empty when CIDR is not"),
        ),
        (
            "{action: Accept, matchOperator: In}",
            Some("CIDR cannot be empty when MatchOperator is not"),
        ),
        (
            "{action: Accept, prefixLength: {min: 8}}",
            Some("CIDR cannot be empty when PrefixLength is not"),
        ),
        (
            "{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 33}}",
            Some("from 0 to 32"),
        ),
        (
            "{action: Accept, cidr: 'fd00::/8', matchOperator: In}",
            Some("other IP version"),
        ),
        (
            "{action: Accept, cidr: 10.0.0.1/8, matchOperator: In}",
            Some("not strictly masked"),
        ),
        (
            "{action: Accept, source: RemotePeers, interface: '*.calico'}",
            None,
        ),
        (
            "{action: Accept, source: Anyone}",
            Some("'Anyone' is not a value"),
        ),
        (
            "{action: Accept, interface: 'a b'}",
            Some("is not an interface's name"),
        ),
        ("{action: Accept, peerType: eBGP}", None),
        (
            "{action: Accept, communities: {values: ['1:2', '3:4']}}",
            Some("write exactly one"),
        ),
        (
            "{action: Accept, operations: [{addCommunity: {value: '65000:100'}}]}",
            None,
        ),
        (
            "{action: Reject, operations: [{addCommunity: {value: '65000:100'}}]}",
            Some("only be used with action Accept"),
        ),
        (
            "{action: Accept, operations: [{}]}",
            Some("exactly one operation must be set"),
        ),
        (
            "{action: Accept, operations: [{setPriority: {value: 0}}]}",
            Some("route's priority"),
        ),
        ("{action: Accept, priority: 512}", None),
    ] {
        check("BGPFilter", "f", &[(&rule(text), refused)]);
    }
    check(
        "BGPFilter",
        "f",
        &[
            (
                "{importV6: [{action: Reject, cidr: 'fd00::/8', matchOperator: Equal, prefixLength: {max: 128}}]}",
                None,
            ),
            (
                "{importV6: [{action: Reject, cidr: 10.0.0.0/8, matchOperator: Equal}]}",
                Some("other IP version"),
            ),
        ],
    );
}
