//! Rules of policies and profiles.

use super::{check, check_rules};

const PORTS: Option<&str> =
    Some("rules that specify ports must set protocol to TCP or UDP or SCTP");
const MIXED: Option<&str> = Some("both IPv4 and IPv6 CIDRs");
const OTHER_VERSION: Option<&str> = Some("rule IP version doesn't match CIDR version");
const RANGE: Option<&str> = Some("port range invalid");

#[test]
fn rules() {
    check_rules(&[
        ("{action: Allow}", None),
        ("{action: Deny}", None),
        ("{action: Log}", None),
        ("{action: Pass}", None),
        ("{action: unknown}", Some("'unknown' is not a value")),
        ("{action: allow}", Some("write 'Allow'")),
        ("{}", Some("action: the field is missing")),
        ("{action: Allow, ipVersion: 4}", None),
        ("{action: Allow, ipVersion: 6}", None),
        ("{action: Allow, ipVersion: 0}", Some("write 4 or 6")),
        ("{action: Allow, protocol: SCTP}", None),
        ("{action: Allow, protocol: 6, source: {ports: [1]}}", None),
        ("{action: Allow, protocol: 6, source: {ports: [foo]}}", None),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['80:90', 443, http]}}",
            None,
        ),
        ("{action: Allow, protocol: 7, source: {ports: []}}", None),
        (
            "{action: Allow, protocol: 17, source: {notPorts: [1]}}",
            None,
        ),
        ("{action: Allow, destination: {ports: [1]}}", PORTS),
        ("{action: Allow, protocol: 7, source: {ports: [1]}}", PORTS),
        (
            "{action: Allow, protocol: 100, source: {notPorts: [1]}}",
            PORTS,
        ),
        (
            "{action: Allow, protocol: ICMP, destination: {notPorts: [1]}}",
            PORTS,
        ),
        (
            "{action: Allow, protocol: TCP, destination: {notPorts: [0]}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['200:100']}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['0:100']}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: [65536]}}",
            RANGE,
        ),
        (
            "{action: Allow, protocol: TCP, source: {ports: ['a b']}}",
            Some("is not a port"),
        ),
    ]);
    for good in [
        "TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite", "1", "255", "'255'", "'1'",
    ] {
        check_rules(&[(&format!("{{action: Allow, protocol: {good}}}"), None)]);
    }
    for bad in [
        "0", "256", "'256'", "'0'", "tcpfoo", "footcp", "tcp", "unknown", "-1",
    ] {
        let rule = format!("{{action: Allow, protocol: {bad}}}");
        check_rules(&[(&rule, Some("protocol"))]);
    }
}

#[test]
fn rules_about_icmp_http_and_networks() {
    let icmp = Some("rules that specify ICMP fields must set protocol to ICMP");
    check_rules(&[
        ("{action: Allow, protocol: ICMP, icmp: {}}", None),
        ("{action: Allow, protocol: ICMP, icmp: {type: 0}}", None),
        (
            "{action: Allow, protocol: ICMP, icmp: {type: 254, code: 255}}",
            None,
        ),
        (
            "{action: Allow, protocol: ICMPv6, icmp: {type: 128, code: 0}}",
            None,
        ),
        ("{action: Allow, protocol: 1, icmp: {type: 8}}", None),
        (
            "{action: Allow, protocol: ICMP, icmp: {code: 0}}",
            Some("without an ICMP type"),
        ),
        (
            "{action: Allow, protocol: ICMP, icmp: {type: 255}}",
            Some("from 0 to 254"),
        ),
        (
            "{action: Allow, protocol: ICMP, icmp: {type: 128, code: 256}}",
            Some("from 0 to 255"),
        ),
        ("{action: Allow, ipVersion: 4, icmp: {type: 0}}", icmp),
        ("{action: Allow, protocol: TCP, icmp: {type: 0}}", icmp),
        (
            "{action: Allow, protocol: ICMP, ipVersion: 6}",
            Some("'4' with protocol icmp"),
        ),
        (
            "{action: Allow, protocol: ICMPv6, ipVersion: 4}",
            Some("'6' with protocol icmpv6"),
        ),
        (
            "{action: Allow, notProtocol: ICMP, ipVersion: 6}",
            Some("'4' with protocol icmp"),
        ),
        (
            "{action: Allow, protocol: ICMP, ipVersion: 4, icmp: {type: 0}}",
            None,
        ),
        (
            "{action: Allow, source: {nets: [1.2.3.0/26]}, destination: {nets: ['a::/122']}}",
            MIXED,
        ),
        (
            "{action: Allow, source: {nets: ['a::/122', 1.2.3.0/26]}}",
            MIXED,
        ),
        (
            "{action: Allow, source: {notNets: ['a::/122']}, destination: {notNets: [1.2.3.0/26]}}",
            MIXED,
        ),
        (
            "{action: Allow, ipVersion: 6, source: {nets: [1.0.0.0/10]}}",
            OTHER_VERSION,
        ),
        (
            "{action: Allow, ipVersion: 4, destination: {nets: ['a::/122']}}",
            OTHER_VERSION,
        ),
        (
            "{action: Allow, source: {nets: [1.2.3.4/26]}}",
            Some("not strictly masked"),
        ),
        (
            "{action: Allow, source: {nets: [garbage]}}",
            Some("is not a CIDR"),
        ),
        ("{action: Allow, http: {methods: [GET]}}", None),
        (
            "{action: Allow, protocol: TCP, http: {methods: [GET]}}",
            None,
        ),
        (
            "{action: Deny, http: {methods: [GET]}}",
            Some("only valid for Allow rules"),
        ),
        (
            "{action: Allow, protocol: UDP, http: {methods: [GET]}}",
            Some("must set protocol to TCP"),
        ),
        (
            "{action: Allow, http: {methods: [GET, GET, Foo]}}",
            Some("Invalid methods (duplicates)"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: /foo}, {prefix: /bar}]}}",
            None,
        ),
        (
            "{action: Allow, http: {paths: [{exact: /foo, prefix: /bar}]}}",
            Some("Both 'exact'"),
        ),
        (
            "{action: Allow, http: {paths: [{}]}}",
            Some("Either 'exact'"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: '/fo?o'}]}}",
            Some("Invalid path"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: '/fo o'}]}}",
            Some("Invalid path"),
        ),
        (
            "{action: Allow, http: {paths: [{exact: '/f#oo'}]}}",
            Some("Invalid path"),
        ),
        (
            "{action: Allow, http: {paths: [{prefix: foo}]}}",
            Some("Invalid path"),
        ),
        ("{action: Allow, metadata: {annotations: {foo: bar}}}", None),
        (
            "{action: Allow, metadata: {annotations: {'...': bar}}}",
            Some("is not a key"),
        ),
    ]);
}

#[test]
fn rules_about_endpoints_and_services() {
    let global = Some("can only be used in an EntityRule namespaceSelector");
    let alone = Some("cannot be combined with other selectors");
    let service = "services: {name: service1, namespace: default}";
    check_rules(&[
        (
            "{action: Allow, source: {selector: 'foo == \"bar\"'}}",
            None,
        ),
        (
            "{action: Allow, source: {selector: has(calico/k8s_NS-.1/role)}}",
            None,
        ),
        (
            "{action: Allow, source: {selector: 'thing=hello &'}}",
            Some("expected =="),
        ),
        (
            "{action: Allow, source: {selector: '  global()  '}}",
            global,
        ),
        (
            "{action: Allow, source: {selector: 'global() && bad'}}",
            Some("unexpected characters"),
        ),
        (
            "{action: Allow, source: {namespaceSelector: '  global()  '}}",
            None,
        ),
        (
            "{action: Allow, source: {namespaceSelector: ' global() && all()'}}",
            alone,
        ),
        (
            "{action: Allow, source: {namespaceSelector: 'global()||all()'}}",
            alone,
        ),
        (
            "{action: Allow, source: {services: {}}}",
            Some("must specify a service name"),
        ),
        (
            "{action: Allow, source: {services: {name: a}}}",
            Some("must specify a namespace"),
        ),
    ]);
    for (extra, refused) in [
        ("", None),
        (
            ", serviceAccounts: {names: [a]}",
            Some("ServiceAccounts and Services"),
        ),
        (", nets: [10.0.0.0/8]", Some("Nets/NotNets and Services")),
        (", notNets: [10.0.0.0/8]", Some("Nets/NotNets and Services")),
        (
            ", selector: 'x == \"y\"'",
            Some("Selector/NotSelector and Services"),
        ),
        (
            ", notSelector: 'x == \"y\"'",
            Some("Selector/NotSelector and Services"),
        ),
        (
            ", namespaceSelector: 'x == \"y\"'",
            Some("NamespaceSelector and Services"),
        ),
    ] {
        check_rules(&[(
            &format!("{{action: Allow, source: {{{service}{extra}}}}}"),
            refused,
        )]);
    }
    let (not_here, not_there) = (
        Some("not allowed in ingress rule destination"),
        Some("not allowed in egress rule source"),
    );
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy"] {
        let rules = |way: &str, end: &str, extra: &str| {
            format!("{{{way}: [{{action: Allow, protocol: TCP, {end}: {{{service}{extra}}}}}]}}")
        };
        check(
            kind,
            "thing",
            &[
                (&rules("egress", "destination", ""), None),
                (&rules("egress", "source", ""), not_there),
                (&rules("ingress", "source", ""), None),
                (&rules("ingress", "source", ", ports: [80]"), None),
                (&rules("ingress", "source", ", notPorts: [80]"), None),
                (&rules("ingress", "destination", ""), not_here),
                (
                    &rules("egress", "destination", ", ports: [80]"),
                    Some("cannot specify ports with a service selector"),
                ),
                (
                    &rules("egress", "destination", ", notPorts: [80]"),
                    Some("cannot specify notports with a service selector"),
                ),
                (
                    "{egress: [{action: Allow, http: {methods: [GET]}}]}",
                    Some("not allowed in egress rule"),
                ),
            ],
        );
    }
}
